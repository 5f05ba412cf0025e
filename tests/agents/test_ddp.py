"""Two processes train as one does on the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.agents.ddp_run import CASES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for processes in (
        "1",
        "2",
    ):  # both on one thread each: how sums are split over threads moves the last digits
        command = [sys.executable, "-m", "tests.agents.ddp_run", processes, str(folder)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("case", list(CASES))
def test_ranks_agree_with_each_other_and_with_one_process(folder: Path, case: str) -> None:
    single, first, second = (
        torch.load(folder / f"{case}.{name}.pt", weights_only=True) for name in ("1.0", "2.0", "2.1")
    )
    for key, value in single.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=0, atol=1e-5)


def test_episodes_are_split_over_ranks_and_counted_once(folder: Path) -> None:
    single, first, second = (
        json.loads((folder / f"scores.{name}.json").read_text()) for name in ("1.0", "2.0", "2.1")
    )
    assert first == second
    assert first["episodes"] == 3
    assert first["returns"] == pytest.approx(single["returns"])
