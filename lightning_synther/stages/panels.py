"""What a synthesis shows in TensorBoard beside its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_synther.data.store import TransitionStore
from lightning_synther.evaluation.board import SectionLogger, tag
from lightning_synther.synthesis.figures import correlations_figure, marginals_figure, novelty_figure
from lightning_synther.synthesis.neighbours import neighbour_figure
from lightning_synther.synthesis.novelty import Novelty
from lightning_synther.synthesis.overview import pca_figure, reward_figure
from lightning_synther.synthesis.projector import Thumbnails, write_projector

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
    train: TransitionStore,
    made: TransitionStore,
    other: TransitionStore,
    novelty: Novelty | None,
    thumbnails: Thumbnails | None,
) -> None:
    """Figures and the projector's points, into the run of ``logger``.

    Args:
        train: what the generator was trained on.
        made: what it made.
        other: the real rows to compare with.
        novelty: distances to the training rows, where there are held-out ones.
        thumbnails: what the rows of ``train`` look like; None for states.
    """
    spec = train.spec

    def show(name: str, figure: Figure) -> None:
        logger.experiment.add_figure(tag(logger, f"panels/{name}"), figure, 0)

    for name, draw in COMPARISONS.items():
        show(name, draw(other.rows, made.rows, spec))
    if novelty is not None:
        show("5_novelty", novelty_figure(novelty))
    if thumbnails is not None:
        replay, views = thumbnails.replay, thumbnails.views
        show("6_nearest_frames", neighbour_figure(replay, train.rows, made.rows, spec, views=views))
    write_projector(logger.experiment, train.rows, made.rows, spec, thumbnails)
