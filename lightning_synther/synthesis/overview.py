"""Figures of whole transitions along their main directions, and of what they are worth: reward and discount."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lightning_synther.evaluation.figures import REAL, SYNTHETIC, new_figure
from lightning_synther.synthesis.figures import MAX_ROWS, draw_marginal, sample_both
from lightning_synther.synthesis.marginals import ks_statistic
from lightning_synther.synthesis.subsample import Rows
from lightning_synther.transition import TransitionSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor


def pca_figure(
    real: Rows, synthetic: Rows, spec: TransitionSpec, max_rows: int = 2_000, seed: int = 0
) -> Figure:
    """Rows along the first four principal components of the real ones, each column standardised."""
    first, second = sample_both(real, synthetic, spec, max_rows, seed)
    mean, std = first.mean(0), first.std(0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    first, second = (first - mean) / std, (second - mean) / std
    _, singular, axes = torch.linalg.svd(first, full_matrices=False)
    count = min(4, len(singular))
    share = (singular.square() / singular.square().sum())[:count]
    points = [(rows @ axes[:count].T).numpy() for rows in (first, second)]
    title = f"PCA: both should cover the same ground\n{share.sum():.0%} of the real variance is shown"
    figure = new_figure(7, 4, title)
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
    first, second = sample_both(real, synthetic, spec, max_rows, seed)
    rewards = [rows[:, spec.fields["reward"]].flatten() for rows in (first, second)]
    statistic = ks_statistic(rewards[0][:, None], rewards[1][:, None]).item()
    title = f"Reward and discount: orange should match blue\nKS of the reward {statistic:.3f} (0: equal, 1: disjoint)"
    figure = new_figure(7, 3.4, title)
    density, quantiles, discount = figure.subplots(1, 3, width_ratios=(1.1, 1, 1))
    draw_marginal(density, *rewards)
    density.set_xlabel("reward of a transition")
    density.set_ylabel("density (1 / reward)")
    density.legend(fontsize=8)
    at = torch.linspace(0.001, 0.999, 200)
    x, y = (torch.quantile(reward, at).numpy() for reward in rewards)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    quantiles.plot(ends, ends, color=REAL, linewidth=1, label="equal")
    quantiles.plot(x, y, ".", color=SYNTHETIC, markersize=4, label="quantiles")
    quantiles.set_xlabel("real reward")
    quantiles.set_ylabel("synthetic reward")
    quantiles.legend(fontsize=8)
    _draw_discounts(discount, first, second, spec)
    return figure


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
        axis.bar_label(bars, fmt="{:.3g}", fontsize=8)
    axis.set_xticks([0, 1], [f"{spec.discount:.4g}", "0 (end)"])
    axis.set_xlabel("discount" if spec.terminal else "discount (constant)")
    axis.set_ylabel("share of transitions")
    axis.set_ylim(0, 1.1)
