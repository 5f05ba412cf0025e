"""How faithful a synthetic store is: scores, and what TensorBoard shows beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_synther.data.store import TransitionStore
from lightning_synther.evaluation.board import SectionLogger, tag
from lightning_synther.stages.real.source import RealTransitions
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.synthesis.fidelity import fidelity
from lightning_synther.synthesis.figures import correlations_figure, marginals_figure, novelty_figure
from lightning_synther.synthesis.novelty import Novelty
from lightning_synther.synthesis.overview import pca_figure, reward_figure
from lightning_synther.synthesis.projector import write_projector

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Figures of synthetic rows beside the real ones that they are compared with.
COMPARISONS = {
    "1_marginals": marginals_figure,
    "2_correlations": correlations_figure,
    "3_pca": pca_figure,
    "4_reward_and_discount": reward_figure,
}


def judge(factory: TrainerFactory, real: RealTransitions, made: TransitionStore) -> dict[str, Any]:
    """Fidelity of the synthetic store ``made``, as scores and in TensorBoard.

    Compared with held-out episodes; without any, with the training data, which flatters a model that
    memorises: ``compared_with`` says which.
    """
    store = TransitionStore.open(real.train, expected=made.spec)
    other = TransitionStore.open(real.heldout or real.train)
    result = fidelity(store.rows, made.rows, other.rows if real.heldout else None, store.spec)
    scores = result.scores
    logger = factory.logger("synthesis")
    logger.forget(0)  # an earlier synthesis
    logger.log_metrics({f"fidelity/{name}": value for name, value in scores.items()}, step=0)
    show_panels(logger, real, store, made, other, result.novelty)
    logger.finalize("success")
    return {"compared_with": "heldout" if real.heldout else "training", "counts": result.counts, **scores}


def show_panels(
    logger: SectionLogger,
    real: RealTransitions,
    train: TransitionStore,
    made: TransitionStore,
    other: TransitionStore,
    novelty: Novelty | None,
) -> None:
    """Figures and the projector's points, into the run of ``logger``.

    Args:
        logger: of the stage.
        real: where the real transitions come from, and what can be drawn of them.
        train: its store that the generator was trained on.
        made: what the generator made.
        other: the real rows to compare with.
        novelty: distances to the training rows, where there are held-out ones.
    """

    def show(name: str, figure: Figure) -> None:
        logger.experiment.add_figure(tag(logger, f"panels/{name}"), figure, 0)

    for name, draw in COMPARISONS.items():
        show(name, draw(other.rows, made.rows, train.spec))
    if novelty is not None:
        show("5_novelty", novelty_figure(novelty))
    for number, (name, picture) in enumerate(real.pictures.items(), start=6):
        show(f"{number}_{name}", picture(train, made))
    write_projector(logger.experiment, train.rows, made.rows, train.spec, real.thumbnails)
