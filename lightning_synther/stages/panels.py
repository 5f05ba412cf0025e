"""What a synthesis shows in TensorBoard beside its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_synther.data.store import TransitionStore
from lightning_synther.evaluation.board import SectionLogger, tag
from lightning_synther.stages.real import RealTransitions
from lightning_synther.synthesis.figures import correlations_figure, marginals_figure, novelty_figure
from lightning_synther.synthesis.novelty import Novelty
from lightning_synther.synthesis.overview import pca_figure, reward_figure
from lightning_synther.synthesis.projector import write_projector

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Compared with the real rows that `judge` compares with.
COMPARISONS = {
    "1_marginals": marginals_figure,
    "2_correlations": correlations_figure,
    "3_pca": pca_figure,
    "4_reward_and_discount": reward_figure,
}


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
