"""A run that was ended in every one of its stages, and started again, is the run that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.stages.tiny import STAGES

ROOT = Path(__file__).parents[3]
INTERRUPTED = "interrupted: run the same command again to continue\n"


def interrupt(name: str, folder: Path) -> list[tuple[str, int, str]]:
    module, where = "tests.stages.record.interrupted", [str(folder / "data"), str(folder / "run")]
    command = [sys.executable, "-m", module, name, *where]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    runs: list[tuple[str, int, str]] = json.loads(done.stdout)
    return runs


def results(run: Path) -> dict[str, Any]:
    """The summary, without what depends on the clock and on where things lie."""
    summary = json.loads((run / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key not in ("seconds", "data_directory")}


def assert_same(first: Path, second: Path) -> None:
    """Same stores, same weights, bit for bit, and the same scores."""
    for store in ("latents/train", "latents/heldout", "synthesis/store"):
        assert (first / store / "rows.npy").read_bytes() == (second / store / "rows.npy").read_bytes(), store
    for stage in ("encoder", "diffusion", "agent", "agent_real_only"):
        ours, theirs = (
            torch.load(run / stage / "final.ckpt", weights_only=True)["state_dict"] for run in (first, second)
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), stage
    assert results(first) == results(second)


@pytest.mark.parametrize(
    ("name", "status"), [("SIGKILL", -9), pytest.param("SIGINT", 130, marks=pytest.mark.slow)]
)
def test_ended_in_every_stage_and_continued(name, status, finished_run, tmp_path):
    runs = interrupt(name, tmp_path)
    assert [(stage, code) for stage, code, _ in runs] == [(stage, status) for stage in STAGES] + [("", 0)]
    for (stage, _, said), (_, _, said_next) in pairwise(runs):
        assert f"{stage}: was interrupted, goes on\n" in said_next
        assert "Traceback" not in said
        assert said.endswith(f"{stage}: starts\n" + (f"\n{INTERRUPTED}" if name == "SIGINT" else ""))
    assert_same(tmp_path / "run", finished_run)
