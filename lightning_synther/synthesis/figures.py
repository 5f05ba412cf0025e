"""Figures of synthetic beside real transitions, for TensorBoard's ``add_figure``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from lightning_synther.synthesis.fidelity import Rows, correlations, ks_statistic, subsample
from lightning_synther.synthesis.novelty import Novelty
from lightning_synther.transition import TransitionSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from torch import Tensor

NUM_MARGINALS = 8


def fidelity_figure(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int = 20_000, seed: int = 0
) -> Figure:
    """Marginals of the columns that differ most, above both correlation matrices and their difference.

    The first panels show the worst column of every field, the others the worst that remain. ``real`` and
    ``synthetic`` are rows (N, D) of the spec, of which at most ``max_rows`` are read.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    first, second = (subsample(rows, min(max_rows, len(rows)), spec, seed) for rows in (real, synthetic))
    figure = Figure(figsize=(12, 9), layout="constrained")
    top, bottom = cast("tuple[SubFigure, SubFigure]", figure.subfigures(2, 1))
    statistic = ks_statistic(first, second)
    axes = top.subplots(2, NUM_MARGINALS // 2).ravel()
    for axis, column in zip(axes, _worst_columns(statistic, spec), strict=False):
        _draw_marginal(axis, first[:, column], second[:, column])
        axis.set_title(f"{_name(column, spec)}  KS {statistic[column]:.3f}", fontsize=9)
    axes[0].legend(fontsize=8)
    matrices = [correlations(first), correlations(second)]
    titles = ("correlations, real", "correlations, synthetic", "difference")
    panels = bottom.subplots(1, 3)
    for axis, matrix, title in zip(panels, [*matrices, matrices[1] - matrices[0]], titles, strict=True):
        image = axis.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=9)
    bottom.colorbar(image, ax=list(panels), shrink=0.8)
    return figure


def novelty_figure(novelty: Novelty) -> Figure:
    """Distances to the closest training record: cumulative shares of synthetic and of held-out records."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for distances, label in ((novelty.heldout, "held-out (new and real)"), (novelty.synthetic, "synthetic")):
        share = np.arange(1, len(distances) + 1) / len(distances)
        axis.step(np.sort(distances.numpy()), share, where="post", label=label)
    axis.set_xlabel("distance to the closest training record, in standard deviations per column")
    axis.set_ylabel("share of records")
    axis.legend(title="left of held-out: copies; right of it: off the data", fontsize=8)
    return figure


def _worst_columns(statistic: Tensor, spec: TransitionSpec) -> list[int]:
    worst = [columns.start + int(statistic[columns].argmax()) for columns in spec.fields.values()]
    ranked = statistic.argsort(descending=True).tolist()
    return [*worst, *(column for column in ranked if column not in worst)][:NUM_MARGINALS]


def _name(column: int, spec: TransitionSpec) -> str:
    for name, columns in spec.fields.items():
        if columns.start <= column < columns.stop:
            return name if columns.stop - columns.start == 1 else f"{name}[{column - columns.start}]"
    raise AssertionError(column)


def _draw_marginal(axis: Axes, real: Tensor, synthetic: Tensor) -> None:
    # Edges between quantiles of both, so that one outlier does not flatten the picture.
    values = torch.cat([real, synthetic])
    low, high = torch.quantile(values.double(), torch.tensor([0.001, 0.999], dtype=torch.float64)).tolist()
    edges = np.linspace(low, high if high > low else low + 1, 60).tolist()
    for part, label in ((real, "real"), (synthetic, "synthetic")):
        axis.hist(part.numpy(), edges, density=True, histtype="step", label=label)
    axis.set_yticks([])
