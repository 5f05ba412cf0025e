"""Figures of synthetic beside real transitions, each titled with the figure to look for.

Real is blue, synthetic orange, from a palette that colour-blind readers tell apart. They are for TensorBoard's
``add_figure``, and fit its cards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from lightning_synther.evaluation.figures import HELDOUT, REAL, SYNTHETIC, new_figure
from lightning_synther.synthesis.fidelity import (
    Rows,
    correlation_difference,
    correlations,
    ks_statistic,
    subsample,
)
from lightning_synther.synthesis.novelty import Novelty
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
    first, second = _both(real, synthetic, spec, max_rows, seed)
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
    first, second = _both(real, synthetic, spec, max_rows, seed)
    figure = new_figure(10, 5, "")
    worst = _draw_marginals(figure, first, second, spec)
    figure.suptitle(
        f"Marginals: orange should lie on blue. The {NUM_MARGINALS} worst of {spec.dim} columns, KS up to {worst:.2f}"
        " (0 is equal, 1 disjoint)",
        fontsize=11,
    )
    return figure


def correlations_figure(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int = MAX_ROWS, seed: int = 0
) -> Figure:
    """Correlations of all pairs of columns, real and synthetic, and their difference."""
    first, second = (correlations(rows) for rows in _both(real, synthetic, spec, max_rows, seed))
    error = correlation_difference(first, second)
    figure = new_figure(
        10, 3.9, f"Correlations: the right panel should be white. Mean absolute difference {error:.3f}"
    )
    _draw_correlations(figure, first, second, spec)
    return figure


def pca_figure(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int = 2_000, seed: int = 0
) -> Figure:
    """Rows along the first four principal components of the real ones, each column standardised."""
    first, second = _both(real, synthetic, spec, max_rows, seed)
    mean, std = first.mean(0), first.std(0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    first, second = (first - mean) / std, (second - mean) / std
    count = min(4, spec.dim)
    _, singular, axes = torch.linalg.svd(first, full_matrices=False)
    share = (singular.square() / singular.square().sum())[:count]
    points = [(rows @ axes[:count].T).numpy() for rows in (first, second)]
    title = f"PCA: both should cover the same ground ({share.sum():.0%} of the real variance is shown)"
    figure = new_figure(10, 4.6, title)
    labels = [f"component {k + 1} ({part:.0%} of variance)" for k, part in enumerate(share.tolist())]
    for axis, (x, y) in zip(figure.subplots(1, 2), ((0, 1), (count - 2, count - 1)), strict=True):
        for rows, colour, label in zip(points, (REAL, SYNTHETIC), ("real", "synthetic"), strict=True):
            axis.scatter(rows[:, x], rows[:, y], s=5, color=colour, alpha=0.35, linewidths=0, label=label)
        axis.set_xlabel(labels[x])
        axis.set_ylabel(labels[y])
    legend = figure.axes[0].legend(fontsize=9, markerscale=3)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    return figure


def reward_figure(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int = MAX_ROWS, seed: int = 0
) -> Figure:
    """Rewards as densities and quantile against quantile, and the shares of the two discounts."""
    first, second = _both(real, synthetic, spec, max_rows, seed)
    rewards = [rows[:, spec.fields["reward"]].flatten() for rows in (first, second)]
    statistic = ks_statistic(rewards[0][:, None], rewards[1][:, None]).item()
    figure = new_figure(
        10, 3.6, f"Reward (KS {statistic:.3f}, 0 is equal) and discount: orange should match blue"
    )
    density, quantiles, discount = figure.subplots(1, 3, width_ratios=(1.2, 1, 0.8))
    _draw_marginal(density, *rewards)
    density.set_xlabel("reward of a transition")
    density.set_ylabel("density (1 / reward)")
    density.legend(fontsize=9)
    at = torch.linspace(0.001, 0.999, 200)
    x, y = (torch.quantile(reward, at).numpy() for reward in rewards)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    quantiles.plot(ends, ends, color=REAL, linewidth=1, label="equal")
    quantiles.plot(x, y, ".", color=SYNTHETIC, markersize=4, label="quantiles")
    quantiles.set_xlabel("real reward")
    quantiles.set_ylabel("synthetic reward")
    quantiles.legend(fontsize=9)
    _draw_discounts(discount, first, second, spec)
    return figure


def novelty_figure(novelty: Novelty) -> Figure:
    """Distances to the closest training record: cumulative shares of synthetic and of held-out records."""
    scores = novelty.scores()
    copied, astray = scores["memorised"], scores["unsupported"]
    title = f"Novelty: {copied:.1%} memorised, {astray:.1%} unsupported (1.0% each is right)"
    figure = new_figure(7, 4.2, title)
    axis = figure.subplots()
    kinds = (
        (novelty.heldout, "held-out (new and real)", HELDOUT, "--"),
        (novelty.synthetic, "synthetic", SYNTHETIC, "-"),
    )
    for distances, label, colour, line in kinds:
        share = np.arange(1, len(distances) + 1) / len(distances)
        axis.step(np.sort(distances.numpy()), share, line, where="post", label=label, color=colour)
    axis.set_xlabel("distance to the closest training record (standard deviations per column)")
    axis.set_ylabel("share of records that are closer")
    axis.legend(title="left of held-out: copies; right of it: off the data", fontsize=9, title_fontsize=9)
    return figure


def _both(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int, seed: int
) -> tuple[Tensor, Tensor]:
    first, second = (subsample(rows, min(max_rows, len(rows)), spec, seed) for rows in (real, synthetic))
    return first, second


def _draw_marginals(figure: FigureBase, first: Tensor, second: Tensor, spec: TransitionSpec) -> float:
    """Draws; returns the largest statistic."""
    statistic = ks_statistic(first, second)
    axes = figure.subplots(2, NUM_MARGINALS // 2).ravel()
    columns = _worst_columns(statistic, spec)
    for axis, column in zip(axes, columns, strict=False):
        _draw_marginal(axis, first[:, column], second[:, column])
        axis.set_title(f"{_name(column, spec)}  KS {statistic[column]:.2f}", fontsize=10)
        axis.set_yticks([])
    for axis in axes[len(columns) :]:
        axis.set_axis_off()
    for axis in (axes[0], axes[NUM_MARGINALS // 2]):
        axis.set_ylabel("density")
    axes[0].legend(fontsize=9)
    return float(statistic.max())


def _draw_correlations(figure: FigureBase, first: Tensor, second: Tensor, spec: TransitionSpec) -> None:
    panels = figure.subplots(1, 3)
    titles = ("correlations, real", "correlations, synthetic", "synthetic minus real")
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
            figure.colorbar(image, ax=axis, shrink=0.8, label=label)
    panels[0].set_xlabel("columns of a record", fontsize=9)


def _draw_discounts(axis: Axes, first: Tensor, second: Tensor, spec: TransitionSpec) -> None:
    """Shares of transitions with either discount; rows without a terminal column all have the one."""
    ended = [
        float((rows[:, spec.fields["terminal"]] > 0.5).float().mean()) if spec.terminal else 0.0
        for rows in (first, second)
    ]
    for offset, share, colour, label in zip(
        (-0.2, 0.2), ended, (REAL, SYNTHETIC), ("real", "synthetic"), strict=True
    ):
        bars = axis.bar([offset, 1 + offset], [1 - share, share], 0.4, color=colour, label=label)
        axis.bar_label(bars, fmt="{:.3f}", fontsize=9)
    axis.set_xticks([0, 1], [f"{spec.discount:.4g}", "0 (terminal)"])
    axis.set_xlabel("discount" if spec.terminal else "discount (always the same)")
    axis.set_ylabel("share of transitions")
    axis.set_ylim(0, 1.1)


def _worst_columns(statistic: Tensor, spec: TransitionSpec) -> list[int]:
    worst = [columns.start + int(statistic[columns].argmax()) for columns in spec.fields.values()]
    ranked = statistic.argsort(descending=True).tolist()
    return [*worst, *(column for column in ranked if column not in worst)][:NUM_MARGINALS]


_SHORT = {"observation": "s", "action": "a", "reward": "r", "next_observation": "s'", "terminal": "end"}


def _name(column: int, spec: TransitionSpec) -> str:
    name, columns = next((n, part) for n, part in spec.fields.items() if part.start <= column < part.stop)
    return name if columns.stop - columns.start == 1 else f"{name}[{column - columns.start}]"


def _draw_marginal(axis: Axes, real: Tensor, synthetic: Tensor) -> None:
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
