"""Draw ``sac_curves.png``: how the shipped behaviour policies learned, from the cards beside them.

    python docs/images/sac_curves.py

Lines are the returns of training episodes, with the exploring policy; dots are the shipped policies, at the mean
return of the ten sampled episodes in their card. Policies of the same command lie on one line.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

POLICIES = Path(__file__).parents[2] / "lightning_synther" / "assets" / "policies"
OUTPUT = Path(__file__).with_suffix(".png")


def read_cards() -> dict[str, list[dict[str, Any]]]:
    """The cards with a learning curve, by task."""
    cards: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(POLICIES.glob("*/*.json")):
        card = json.loads(path.read_text())
        if card.get("learning_curve"):
            cards[card["task"]].append(card)
    return cards


def main() -> None:
    """A panel for each task."""
    tasks = read_cards()
    figure, axes = plt.subplots(1, len(tasks), figsize=(3.6 * len(tasks), 2.9), squeeze=False, sharey=True)
    for axis, (task, cards) in zip(axes[0], tasks.items(), strict=True):
        longest: dict[str, dict[str, Any]] = {}
        for card in sorted(cards, key=lambda card: card["agent_steps"]):
            longest[card["command"]] = card
        for card in longest.values():
            steps, returns = zip(*card["learning_curve"], strict=True)
            axis.plot([step / 1000 for step in steps], returns, color="tab:blue", linewidth=1.2)
        last = max(card["agent_steps"] for card in cards)
        for card in cards:
            early = card["agent_steps"] < last / 2  # the label on the side where there is room
            point = card["agent_steps"] / 1000, card["return_mean"]
            axis.plot(*point, "o", color="tab:orange", markersize=5)
            axis.annotate(
                f"{card['level']} {card['return_mean']:.0f}",
                point,
                (6, -12) if early else (-4, -14),
                textcoords="offset points",
                ha="left" if early else "right",
                fontsize=8,
            )
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("thousand agent steps")
        axis.set_ylim(0, 1000)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("return of an episode")
    figure.tight_layout()
    figure.savefig(OUTPUT, dpi=110)


if __name__ == "__main__":
    main()
