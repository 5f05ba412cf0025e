"""``python -m lightning_synther report RUNS…``: what several runs say together, by config and over seeds.

Nothing here needs torch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_synther.stages.record.stage import write_json
from lightning_synther.stages.results.aggregate import aggregate
from lightning_synther.stages.results.arms import ARMS
from lightning_synther.stages.results.run_scores import (
    Group,
    describe_label,
    find_runs,
    group_runs,
    read_run,
    scored_runs,
)

log = logging.getLogger(__name__)


def report(
    runs: list[str], metric: str = "return_mean", plot: str | None = None, output: str | None = None
) -> None:
    """Aggregate runs by config and seed: a table and, on request, a plot and a JSON file.

    Groups are runs whose settings are equal but for their seeds; a group's task is not a setting but a stratum. The
    table says in which settings the groups differ.

    Args:
        runs: run directories (those with a summary.json), or folders of such; those without scores, as of a
            diffusion model alone, are left out.
        metric: the number of summary.json to aggregate, as in return_mean or normalized_score.
        plot: .png file to draw.
        output: .json file to write the figures to.
    """
    found = [read_run(path, metric) for path in scored_runs(find_runs(runs))]
    groups = group_runs(found)
    print(table(groups, metric))
    if output is not None:
        write_json(Path(output), {"metric": metric, "groups": figures(groups)})
        log.info("figures: %s", output)
    if plot is not None:
        from lightning_synther.stages.results.report_figure import save_report_figure

        log.info("plot: %s", save_report_figure(groups, metric, Path(plot)))


def figures(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Every group's figures in plain types: settings, runs, and for each arm an `Aggregate`."""
    rows = []
    for group in groups:
        arms = {arm: aggregate(group, arm) for arm in ARMS}
        rows.append(
            {
                "settings": group.label,
                "seeds": sorted(run.seed for run in group.runs),
                "arms": {arm: vars(found) for arm, found in arms.items() if found is not None},
            }
        )
    return rows


def table(groups: Sequence[Group], metric: str) -> str:
    """The report as a Markdown table."""
    lines = [
        f"| settings | arm | {metric}, interquartile mean | 95 % interval | mean | min … max | runs | tasks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for group in groups:
        for name, arm in ARMS.items():
            found = aggregate(group, name)
            if found is None:
                continue
            spread = f"{found.minimum:.1f} … {found.maximum:.1f}"
            cells = [describe_label(group.label) or "all equal", arm.label, f"{found.iqm:.1f}"]
            cells += [
                f"{found.low:.1f} … {found.high:.1f}" if found.num_runs > 1 else "one run",
                f"{found.mean:.1f}",
            ]
            lines.append(f"| {' | '.join([*cells, spread, str(found.num_runs), str(found.num_tasks)])} |")
    return "\n".join(lines)
