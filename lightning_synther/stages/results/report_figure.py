"""The picture of `report`: intervals side by side, or curves over the setting that was varied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_synther.data.inspection_figure import save_png
from lightning_synther.stages.results.aggregate import Aggregate, aggregate
from lightning_synther.stages.results.arms import ARMS
from lightning_synther.stages.results.run_scores import Group, describe_label

#: Colours of Okabe and Ito, which colour-blind readers tell apart.
COLORS = dict(zip(ARMS, ("#0072B2", "#E69F00", "#009E73"), strict=True))
MARKERS = dict(zip(ARMS, "os^", strict=True))


def save_report_figure(groups: Sequence[Group], metric: str, path: Path) -> Path:
    """Draw ``path``, a .png: curves where one numeric setting was varied, else a row of intervals for each group."""
    varied = varied_number(groups)
    return save_png(intervals(groups, metric) if varied is None else curves(groups, metric, varied), path)


def varied_number(groups: Sequence[Group]) -> str | None:
    """The one setting that is a number in every group and has three or more values, if there is one."""
    keys = groups[0].label
    numeric = [key for key in keys if all(_is_number(group.label[key]) for group in groups)]
    several = [key for key in numeric if len({group.label[key] for group in groups}) > 2]
    return several[0] if len(several) == 1 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def curves(groups: Sequence[Group], metric: str, varied: str) -> Figure:
    """Interquartile mean and interval of every arm over the setting ``varied``, a panel for each of the others."""
    panels: dict[str, list[Group]] = {}
    for group in groups:
        rest = {key: value for key, value in group.label.items() if key != varied}
        panels.setdefault(describe_label(rest), []).append(group)
    figure = Figure(figsize=(0.6 + 4.6 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, members) in zip(axes, panels.items(), strict=True):
        for arm in ARMS:
            _curve(axis, members, arm, varied)
        axis.set(title=title, xlabel=varied.rpartition(".")[2].replace("_", " "))
        axis.set_xticks(sorted({group.label[varied] for group in members}))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"{metric.replace('_', ' ')}\ninterquartile mean, 95 % interval")
    axes[0].legend(frameon=False)
    return figure


def _curve(axis: Axes, groups: Sequence[Group], arm: str, varied: str) -> None:
    points = [(group.label[varied], aggregate(group, arm)) for group in groups]
    found = sorted((x, a) for x, a in points if a is not None)
    if not found:
        return
    x = [value for value, _ in found]
    iqm = [a.iqm for _, a in found]
    axis.plot(x, iqm, color=COLORS[arm], marker=MARKERS[arm], label=ARMS[arm].label)
    axis.fill_between(
        x, [a.low for _, a in found], [a.high for _, a in found], color=COLORS[arm], alpha=0.15, lw=0
    )


def intervals(groups: Sequence[Group], metric: str) -> Figure:
    """A row for each arm of each group: interquartile mean, interval, and every run as a dot."""
    rows: list[tuple[Group, str, Aggregate]] = []
    for group in groups:
        rows += [(group, arm, found) for arm in ARMS if (found := aggregate(group, arm)) is not None]
    figure = Figure(figsize=(7.4, 1.1 + 0.38 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for y, (group, arm, found) in enumerate(reversed(rows)):
        axis.plot([found.low, found.high], [y, y], color=COLORS[arm], lw=6, alpha=0.35, solid_capstyle="butt")
        axis.plot([found.iqm], [y], marker="|", ms=14, mew=2.5, color=COLORS[arm])
        values = np.concatenate(group.scores(arm))
        axis.scatter(values, np.full(len(values), y), s=10, color=COLORS[arm], zorder=3)
    labels = [f"{describe_label(group.label)}  {ARMS[arm].label}".strip() for group, arm, _ in reversed(rows)]
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.set_xlabel(
        f"{metric.replace('_', ' ')}: interquartile mean (line), 95 % interval (bar), runs (dots)"
    )
    axis.grid(axis="x", alpha=0.3)
    return figure
