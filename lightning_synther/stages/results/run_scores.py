"""Scores of finished runs, grouped by config: runs whose configs differ in seeds alone are one group.

Nothing here needs torch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from lightning_synther.errors import ConfigError, DataError
from lightning_synther.stages.record.stage import flatten_inputs, read_json
from lightning_synther.stages.results.arms import scores_by_arm

log = logging.getLogger(__name__)

#: Settings that do not make a run another experiment: seeds, places, and how a run is shown; nor do other arms.
NOT_SETTINGS = (
    "run_dir",
    "seed",
    "fraction_seed",
    "collect_seed",
    "root",
    "record",
    "enable_progress_bar",
    "checkpoint_every",
)
TASKS = ("dataset.task", "env.task")


@dataclass(frozen=True)
class RunScores:
    """One run: its settings (dotted keys), without its seeds, which are apart; its task; a score for each arm."""

    path: Path
    settings: dict[str, Any]
    seeds: dict[str, Any]
    task: str
    seed: int
    scores: dict[str, float]


@dataclass
class Group:
    """Runs of equal settings.

    Attributes:
        label: the settings in which the groups of a report differ, key to value; empty where there is one group.
        runs: the runs.
    """

    label: dict[str, Any]
    runs: list[RunScores] = field(default_factory=list)

    def scores(self, arm: str) -> list[NDArray[np.float64]]:
        """Scores of one arm, an array for each task."""
        by_task: dict[str, list[float]] = {}
        for run in self.runs:
            if arm in run.scores:
                by_task.setdefault(run.task, []).append(run.scores[arm])
        return [np.array(values) for _, values in sorted(by_task.items())]


def find_runs(paths: Sequence[str]) -> list[Path]:
    """Folders with a summary.json at or below ``paths``, each once; `ConfigError` names a path without any."""
    found: dict[Path, None] = {}
    for name in paths:
        path = Path(name)
        if not path.is_dir():
            raise ConfigError(f"{path} is not a folder: give run directories, as in runs/quick")
        inside = sorted(summary.parent for summary in path.rglob("summary.json"))
        if not inside:
            raise ConfigError(
                f"{path} holds no summary.json: give the folder of a run that `fit` has finished"
            )
        found |= dict.fromkeys(folder.resolve() for folder in inside)
    return list(found)


def scored_runs(paths: Sequence[Path]) -> list[Path]:
    """Those of ``paths`` whose agents were scored; each other one is logged. `DataError` where none is left."""
    scored = []
    for path in paths:
        arms = scores_by_arm(read_json(path / "summary.json"))
        if any("return_mean" in scores for scores in arms.values()):
            scored.append(path)
        else:
            log.info("%s is left out: it scored no agent", path)
    if not scored:
        raise DataError(
            f"{', '.join(map(str, paths))}: no agent was scored there (a diffusion model alone, or data that name no "
            "environment), give runs of agents"
        )
    return scored


def read_run(path: Path, metric: str) -> RunScores:
    """Settings and scores of the run in ``path``; `DataError` where a file is missing or lacks the metric."""
    summary = read_json(path / "summary.json")
    try:
        config = yaml.safe_load((path / "config.yaml").read_text())
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path / 'config.yaml'} cannot be read ({error}): run `fit` there again") from error
    scores = {arm: float(part[metric]) for arm, part in scores_by_arm(summary).items() if metric in part}
    if not scores:
        numbers = [key for key, value in summary.items() if isinstance(value, float)]
        raise DataError(
            f"{path / 'summary.json'} has no {metric}: there are {', '.join(numbers) or 'no scores'}"
        )
    flat = flatten_inputs(config)
    task = next((str(v) for k, v in flat.items() if k.endswith(TASKS)), "")
    settings = {key: value for key, value in flat.items() if not _is_incidental(key)}
    seeds = {key: value for key, value in flat.items() if key.endswith("seed") or key == "seed_everything"}
    return RunScores(path, settings, seeds, task, int(summary.get("seed", 0)), scores)


def _is_incidental(key: str) -> bool:
    last = key.rpartition(".")[2]
    return (
        last in NOT_SETTINGS
        or key == "seed_everything"
        or key.startswith("comparison.")
        or key.endswith(TASKS)
    )


def group_runs(runs: Iterable[RunScores]) -> list[Group]:
    """Groups in order of their labels; `ConfigError` where a group holds the same seeds of a task twice."""
    groups: dict[str, Group] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True, default=str), Group({})).runs.append(run)
    found = list(groups.values())
    keys = sorted({key for group in found for key in group.runs[0].settings})
    differing = [key for key in keys if len({repr(group.runs[0].settings.get(key)) for group in found}) > 1]
    for group in found:
        group.label = {key: group.runs[0].settings.get(key) for key in differing}
        seen: dict[tuple[str, str], Path] = {}
        for run in group.runs:
            other = seen.setdefault((run.task, json.dumps(run.seeds, sort_keys=True)), run.path)
            if other != run.path:
                raise ConfigError(
                    f"{other} and {run.path} are the same run, all seeds of one config (seed_everything {run.seed}): "
                    "leave one of them out"
                )
    return sorted(found, key=lambda group: [_sortable(value) for value in group.label.values()])


def _sortable(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def describe_label(label: Mapping[str, Any]) -> str:
    """The settings of a group in words, of every key the shortest end that no other key has."""
    names = short_names(list(label))
    return ", ".join(f"{names[key]}={value}" for key, value in label.items())


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """For each dotted key its last parts, as few as tell it from the others; ``init_args`` is never one of them.

    >>> short_names(["model.init_args.lr", "encoder.model.init_args.lr", "data.seed"])
    {'model.init_args.lr': 'model.lr', 'encoder.model.init_args.lr': 'encoder.model.lr', 'data.seed': 'seed'}
    """
    parts = {key: [part for part in key.split(".") if part != "init_args"] for key in keys}
    names = {}
    for key, own in parts.items():
        others = [other for name, other in parts.items() if name != key]
        lengths = (n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        names[key] = ".".join(own[-next(lengths, len(own)) :])
    return names
