"""Draw ``few_episodes.png``: return over the number of real episodes, with and without synthetic replay.

    python docs/images/few_episodes.py RUNS

RUNS holds finished runs of ``configs/scale/small_data.yaml`` called ``real<episodes>_seed<seed>``. Each dot is the mean
return of one agent over its evaluation episodes, a line goes through the means of the seeds. The table of all of them
is printed as Markdown.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from lightning_synther.stages.results.arms import scores_by_arm

OUTPUT = Path(__file__).with_suffix(".png")
LABELS = {"agent": "real and synthetic", "real_only": "real only", "synthetic_only": "synthetic only"}


def read(runs: Path) -> dict[int, dict[int, dict[str, Any]]]:
    """Scores of every arm, by number of episodes and seed."""
    found: dict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in runs.glob("real*_seed*/summary.json"):
        match = re.fullmatch(r"real(\d+)_seed(\d+)", path.parent.name)
        assert match is not None, path
        found[int(match[1])][int(match[2])] = dict(scores_by_arm(json.loads(path.read_text())))
    return {episodes: dict(sorted(seeds.items())) for episodes, seeds in sorted(found.items())}


def describe(found: dict[int, dict[int, dict[str, Any]]]) -> str:
    """A line for each run, and one for the means of each number of episodes."""
    lines = [f"| real episodes | seed | {' | '.join(LABELS.values())} |", "|---|---|---|---|---|"]
    for episodes, seeds in found.items():
        for seed, arms in seeds.items():
            cells = [
                f"{arms[arm]['return_mean']:.0f} +- {arms[arm]['return_stderr']:.0f}" if arm in arms else ""
                for arm in LABELS
            ]
            lines.append(f"| {episodes} | {seed} | {' | '.join(cells)} |")
        means = [[arms[arm]["return_mean"] for arms in seeds.values() if arm in arms] for arm in LABELS]
        cells = [f"**{np.mean(values):.0f}** ({len(values)})" if values else "" for values in means]
        lines.append(f"| {episodes} | mean (seeds) | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(runs: Path) -> None:
    """Dots for runs, lines for means."""
    found = read(runs)
    figure, axis = plt.subplots(figsize=(5.2, 3.2))
    for index, (arm, label) in enumerate(LABELS.items()):
        points = [
            (
                episodes * 1.06 ** (index - 1),
                [arms[arm]["return_mean"] for arms in seeds.values() if arm in arms],
            )
            for episodes, seeds in found.items()
        ]
        points = [(at, values) for at, values in points if values]
        for at, values in points:
            axis.plot([at] * len(values), values, "o", color=f"C{index}", markersize=4, alpha=0.5)
        axis.plot(
            *zip(*[(at, np.mean(values)) for at, values in points], strict=True),
            "-",
            marker="_",
            color=f"C{index}",
            label=label,
        )
    axis.set_xscale("log")
    axis.set_xticks(list(found), [str(episodes) for episodes in found])
    axis.minorticks_off()
    axis.set_ylim(0, 550)
    axis.set_xlabel("real episodes that diffusion model and heads see")
    axis.set_ylabel("return from pixels")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(OUTPUT, dpi=120)
    print(describe(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
