"""Figures of an evaluation, and what every figure of the project shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's palette, which colour-blind readers tell apart.
REAL, SYNTHETIC, HELDOUT = "#0072B2", "#D55E00", "#4D4D4D"
#: Size of a figure's title, in points: TensorBoard's cards show figures at about half their size.
TITLE = 12


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure, inches wide and high at 100 dots an inch, titled with what there is to see."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=TITLE)
    return figure


def returns_figure(scores: Mapping[str, Any]) -> Figure:
    """Return of every episode, best last, with their mean and its 95 % bootstrap interval.

    ``scores`` is the episodes' `score_summary`.
    """
    returns = scores["returns"]
    mean, low, high = (scores[f"return_{name}"] for name in ("mean", "low", "high"))
    title = (
        f"Return {mean:.0f} in {len(returns)} episodes\n95 % interval of the mean: {low:.0f} to {high:.0f}"
    )
    figure = new_figure(6, 3.6, title)
    axis = figure.subplots()
    order = sorted(range(len(returns)), key=lambda index: float(returns[index]))
    axis.axhspan(low, high, color=REAL, alpha=0.15, linewidth=0, label="95 % interval of the mean")
    axis.axhline(mean, color=REAL, label="mean")
    axis.plot([returns[index] for index in order], "o", color=SYNTHETIC, label="episode")
    if len(returns) <= 30:
        axis.set_xticks(range(len(returns)), [str(index) for index in order], fontsize=8)
    axis.set_xlabel("number of the episode, sorted by return")
    axis.set_ylabel("return (sum of rewards)")
    axis.set_ylim(bottom=min(0.0, scores["return_min"]))
    axis.legend(loc="lower right", fontsize=9)
    return figure
