"""Figures of synthetic beside real transitions, each titled with the figure to look for.

Real is blue, synthetic orange, from a palette that colour-blind readers tell apart. They are for TensorBoard's
``add_figure``, and fit its cards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from lightning_synther.evaluation.figures import HELDOUT, REAL, SYNTHETIC, TITLE, new_figure
from lightning_synther.synthesis.joint import correlation_difference, correlations
from lightning_synther.synthesis.marginals import ks_statistic
from lightning_synther.synthesis.novelty import Novelty
from lightning_synther.synthesis.subsample import Rows, subsample
from lightning_synther.transition import TransitionSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase, SubFigure
    from torch import Tensor

NUM_MARGINALS = 8
#: Difference of correlations at which the colour is full.
MAX_DIFFERENCE = 0.3
#: Rows that a figure reads of each kind: more would change no pixel.
MAX_ROWS = 20_000


def fidelity_figure(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int = MAX_ROWS, seed: int = 0
) -> Figure:
    """`marginals_figure` above `correlations_figure`, in one picture."""
    first, second = sample_both(real, synthetic, spec, max_rows, seed)
    figure = new_figure(
        12, 9, "Synthetic transitions are good where orange lies on blue, and the difference is white"
    )
    top, bottom = cast("tuple[SubFigure, SubFigure]", figure.subfigures(2, 1))
    _draw_marginals(top, first, second, spec)
    _draw_correlations(bottom, correlations(first), correlations(second), spec)
    return figure


def marginals_figure(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int = MAX_ROWS, seed: int = 0
) -> Figure:
    """Densities of `NUM_MARGINALS` columns: the worst one of every field, then the worst that remain.

    ``real`` and ``synthetic`` are rows (N, D) of the spec, of which at most ``max_rows`` are read.
    """
    first, second = sample_both(real, synthetic, spec, max_rows, seed)
    figure = new_figure(7, 4.6, "")
    worst = _draw_marginals(figure, first, second, spec)
    figure.suptitle(
        f"Marginals: orange should lie on blue\n"
        f"the worst of {spec.dim} columns; KS up to {worst:.2f} (0: equal, 1: disjoint)",
        fontsize=TITLE,
    )
    return figure


def correlations_figure(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int = MAX_ROWS, seed: int = 0
) -> Figure:
    """Correlations of all pairs of columns, real and synthetic, and their difference."""
    first, second = (correlations(rows) for rows in sample_both(real, synthetic, spec, max_rows, seed))
    error = correlation_difference(first, second)
    title = f"Correlations: the right panel should be white\nmean absolute difference {error:.3f}"
    figure = new_figure(7, 3.2, title)
    _draw_correlations(figure, first, second, spec)
    return figure


def novelty_figure(novelty: Novelty) -> Figure:
    """Distances to the closest training record: cumulative shares of synthetic and of held-out records."""
    scores = novelty.scores()
    copied, astray = scores["memorised"], scores["unsupported"]
    title = f"Novelty: the curves should be close\n{copied:.1%} memorised, {astray:.1%} unsupported (1.0% is right)"
    figure = new_figure(6, 4.2, title)
    axis = figure.subplots()
    kinds = (
        (novelty.heldout, "held-out (new and real)", HELDOUT, "--"),
        (novelty.synthetic, "synthetic", SYNTHETIC, "-"),
    )
    for distances, label, colour, line in kinds:
        share = np.arange(1, len(distances) + 1) / len(distances)
        axis.step(np.sort(distances.numpy()), share, line, where="post", label=label, color=colour)
    axis.set_xlabel("distance to the closest training record (standard deviations)")
    axis.set_ylabel("share of records that are closer")
    axis.legend(title="left of held-out: copies; right of it: off the data", fontsize=9, title_fontsize=9)
    return figure


def sample_both(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int, seed: int
) -> tuple[Tensor, Tensor]:
    """At most ``max_rows`` of each."""
    first, second = (subsample(rows, min(max_rows, len(rows)), spec, seed) for rows in (real, synthetic))
    return first, second


def _draw_marginals(figure: FigureBase, first: Tensor, second: Tensor, spec: TransitionSpec) -> float:
    """Draws; returns the largest statistic."""
    statistic = ks_statistic(first, second)
    axes = figure.subplots(2, NUM_MARGINALS // 2).ravel()
    columns = _worst_columns(statistic, spec)
    for axis, column in zip(axes, columns, strict=False):
        draw_marginal(axis, first[:, column], second[:, column])
        axis.set_title(f"{_name(column, spec)}  KS {statistic[column]:.2f}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.set_yticks([])
    for axis in axes[len(columns) :]:
        axis.set_axis_off()
    for axis in (axes[0], axes[NUM_MARGINALS // 2]):
        axis.set_ylabel("density")
    axes[0].legend(fontsize=9)
    return float(statistic.max())


def _draw_correlations(figure: FigureBase, first: Tensor, second: Tensor, spec: TransitionSpec) -> None:
    panels = figure.subplots(1, 3)
    titles = ("real", "synthetic", "synthetic - real")
    limits = (1.0, 1.0, MAX_DIFFERENCE)
    wide = {name: part for name, part in spec.fields.items() if part.stop - part.start > 0.06 * spec.dim}
    centres = [(part.start + part.stop - 1) / 2 for part in wide.values()]
    for axis, matrix, title, limit in zip(
        panels, (first, second, second - first), titles, limits, strict=True
    ):
        image = axis.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_xticks(centres, [_SHORT[name] for name in wide], fontsize=9)
        axis.set_yticks(centres, [_SHORT[name] for name in wide], fontsize=9)
        for edge in [part.start - 0.5 for part in spec.fields.values()][1:]:
            axis.axhline(edge, color="black", linewidth=0.4)
            axis.axvline(edge, color="black", linewidth=0.4)
        if axis is not panels[0]:
            label = "Pearson correlation" if axis is panels[1] else "difference"
            bar = figure.colorbar(image, ax=axis, shrink=0.8)
            bar.set_label(label, fontsize=9)
            bar.ax.tick_params(labelsize=8)
    panels[0].set_xlabel("columns of a record", fontsize=9)


def _worst_columns(statistic: Tensor, spec: TransitionSpec) -> list[int]:
    worst = [columns.start + int(statistic[columns].argmax()) for columns in spec.fields.values()]
    ranked = statistic.argsort(descending=True).tolist()
    return [*worst, *(column for column in ranked if column not in worst)][:NUM_MARGINALS]


_SHORT = {
    "observation": "s",
    "action": "a",
    "reward": "reward",
    "next_observation": "s'",
    "terminal": "terminal",
}


def _name(column: int, spec: TransitionSpec) -> str:
    name, columns = next((n, part) for n, part in spec.fields.items() if part.start <= column < part.stop)
    return _SHORT[name] if columns.stop - columns.start == 1 else f"{_SHORT[name]}[{column - columns.start}]"


def draw_marginal(axis: Axes, real: Tensor, synthetic: Tensor) -> None:
    """Densities of real (n,) and synthetic (m,) values."""
    # Edges between quantiles of both, so that one outlier does not flatten the picture.
    values = torch.cat([real, synthetic])
    low, high = torch.quantile(values.double(), torch.tensor([0.001, 0.999], dtype=torch.float64)).tolist()
    num_bins = int(np.clip(min(len(real), len(synthetic)) ** 0.5, 10, 60))
    edges = np.linspace(low, high if high > low else low + 1, num_bins).tolist()
    axis.hist(real.numpy(), edges, density=True, color=REAL, alpha=0.35, label="real")
    axis.hist(
        synthetic.numpy(),
        edges,
        density=True,
        histtype="step",
        color=SYNTHETIC,
        linewidth=1.5,
        label="synthetic",
    )
