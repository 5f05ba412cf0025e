"""The end of a run: ``summary.json`` and the few lines that are printed."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_synther.stages.record.ranks import is_rank_zero
from lightning_synther.stages.record.stage import read_json, write_json
from lightning_synther.stages.results.arms import AGENT, ARMS, COMPARED, scores_by_arm
from lightning_synther.stages.results.hparams import write_hparams
from lightning_synther.stages.trainer.training import TENSORBOARD

log = logging.getLogger(__name__)

PACKAGES = ("lightning-synther", "torch", "lightning", "dm-control", "mujoco", "numpy")


def _stage_records(run_dir: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(run_dir.glob("*/stage.json"), key=lambda path: path.stat().st_mtime)
    return {path.parent.name: read_json(path) for path in paths}


def summarise(run_dir: Path, seed: int, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Collect what every stage measured.

    ``scores`` maps ``agent`` (and the other `ARMS` that were run) to the evaluation's results:
    ``return_mean``, ``return_stderr``, ``episodes``, and ``normalized_score`` where the environment has
    references (return / 10 on dm_control).
    """
    records = _stage_records(run_dir)
    dataset = records.get("dataset", {}).get("results", {})
    return {
        **scores.get(AGENT, {}),
        **{arm: scores.get(arm) for arm in COMPARED},
        "data_source": dataset.get("source"),
        "data_directory": dataset.get("directory"),
        "fidelity": records.get("synthesis", {}).get("results", {}).get("fidelity"),
        "filtered": records.get("synthesis", {}).get("results", {}).get("filtered"),
        "online": records.get("agent", {}).get("results") or None,
        "seconds": {name: round(record["seconds"], 1) for name, record in records.items()},
        "seed": seed,
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def write_summary(run_dir: Path, seed: int, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Write ``<run_dir>/summary.json`` and TensorBoard's HPARAMS, and log the essence, on rank zero."""
    summary = summarise(run_dir, seed, scores)
    if is_rank_zero():
        write_json(run_dir / "summary.json", summary)
        write_hparams(run_dir, _stage_records(run_dir), summary)
        log.info("\n%s", describe(summary, run_dir))
    return summary


def describe(summary: Mapping[str, Any], run_dir: Path) -> str:
    """A few lines for a person."""
    lines = []
    for arm, scores in scores_by_arm(summary).items():
        if "return_mean" in scores:
            lines.append(f"{ARMS[arm].description}: {describe_scores(scores)}")
    if summary["data_source"]:
        lines.append(f"data: {summary['data_directory']} ({summary['data_source']})")
    if summary["fidelity"]:
        scores = summary["fidelity"]
        lines.append(f"synthetic against {scores['compared_with']} data (in brackets: real against real):")
        names = (
            "ks_mean",
            "correlation_error",
            "sliced_wasserstein",
            "dynamics_error",
            "memorised",
            "unsupported",
        )
        for name in (name for name in names if name in scores):
            floor = scores.get(f"{name}_floor")
            lines.append(f"  {name} {scores[name]:.3f}" + (f" ({floor:.3f})" if floor is not None else ""))
    if counts := summary["filtered"]:
        dropped = ", ".join(f"{name} {count}" for name, count in counts.items() if name != "sampled")
        lines.append(f"dropped of {counts['sampled']} sampled transitions: {dropped}")
    if online := summary["online"]:
        split = ", ".join(f"{name} {value:.0f} s" for name, value in online["seconds"].items())
        lines.append(f"{online['agent_steps']} agent steps: {split}")
    seconds = summary["seconds"]
    lines.append("seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
    lines.append(f"look at it: tensorboard --logdir {run_dir / TENSORBOARD}")
    return "\n".join(lines)


def describe_scores(scores: Mapping[str, Any]) -> str:
    """One agent's returns in a line."""
    score = scores.get("normalized_score")
    return (
        f"return {scores['return_mean']:.1f} +- {scores['return_stderr']:.1f} (standard error, "
        f"{scores['episodes']} episodes)" + ("" if score is None else f", normalised score {score:.1f}")
    )
