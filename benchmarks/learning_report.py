"""Table and curves of `learning.py`, from the record of its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lightning_synther.evaluation.scores import standard_error


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Atomically: a killed sweep keeps its finished runs."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)


def summary(record: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Mean over seeds and its standard error, by task and agent."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, run in record["runs"].items():
        task, name, _ = key.split("/")
        grouped.setdefault((task, name), []).append(run)
    return {
        key: {
            "means": [float(np.mean(run["returns"])) for run in group],
            "updates": group[0]["updates"],
            "precision": group[0]["precision"],
            "cpu_s": float(np.mean([run["curve"][-1]["cpu_s"] for run in group])),
        }
        for key, group in grouped.items()
    }


def write_table(record: dict[str, Any], path: Path) -> None:
    """The table, with command, hardware and date."""
    made = record["machine"]
    lines = [
        "# What the agents learn from states, at CPU scale",
        "",
        f"`{record['command']}`, {record['date']}, one thread of {made['cpu']} ({made['cores']} cores), "
        f"torch {made['versions']['torch']}. Mean of the seeds' mean returns over 10 episodes after the last "
        "update, with the standard error over seeds; no checkpoint is chosen. CPU seconds of one run, evaluation "
        "included; load average when the sweep ended: "
        f"{made['load_average']}.",
        "",
        f"Offline data: {record.get('data', 'none')}. Curves: `learning.png`; every run: `learning.json`.",
        "",
        "| task | agent | return | seeds | random policy | updates | precision | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (task, name), row in summary(record).items():
        mean, error = np.mean(row["means"]), standard_error(row["means"])
        return_text = f"{mean:.0f} +- {error:.0f}" if len(row["means"]) > 1 else f"{mean:.0f}"
        figures = [return_text, ", ".join(f"{value:.0f}" for value in row["means"])]
        figures += [
            f"{record['random'][task]:.0f}",
            f"{row['updates']:,}",
            row["precision"],
            f"{row['cpu_s']:.0f}",
        ]
        lines.append(f"| {task} | {name} | {' | '.join(figures)} |")
    path.write_text("\n".join(lines) + "\n")


def draw(record: dict[str, Any], path: Path) -> None:
    """Return against updates: a line for each agent, the range of the seeds around it."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    tasks = sorted({key.split("/")[0] for key in record["runs"]})
    figure, axes = plt.subplots(1, len(tasks), figsize=(5 * len(tasks), 4), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for name in sorted({key.split("/")[1] for key in record["runs"] if key.startswith(task + "/")}):
            curves = [
                run["curve"] for key, run in record["runs"].items() if key.startswith(f"{task}/{name}/")
            ]
            points = min(map(len, curves))
            returns = np.array([[point["return"] for point in curve[:points]] for curve in curves])
            updates = [point["updates"] for point in curves[0][:points]]
            (line,) = axis.plot(updates, returns.mean(0), marker=".", label=name)
            axis.fill_between(updates, returns.min(0), returns.max(0), alpha=0.15, color=line.get_color())
        axis.axhline(record["random"][task], color="grey", linestyle=":", label="random")
        axis.set(title=task, xlabel="gradient updates", ylabel="return")
        axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
