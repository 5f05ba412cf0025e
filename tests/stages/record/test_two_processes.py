"""The whole chain on two processes: one decides and writes, both work, nothing is said or done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lightning_synther.__main__ import main
from lightning_synther.data.store import TransitionStore
from tests.stages.tiny import STAGES, arguments, fit

TWO = (
    "--trainer.devices=2",
    "--trainer.strategy=ddp_find_unused_parameters_true",
    "--comparison.real_only=false",
    "--evaluation.episodes=3",
)
RUN = STAGES[:7]


def start(launcher: list[str], argv: list[str], **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    command = [sys.executable, "-m", *launcher, *argv]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )  # type: ignore[call-overload]


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, error = process.communicate(timeout=300)
    return process.returncode, out + error


@pytest.fixture(scope="module")
def two(root, tmp_path_factory):
    """A run on two processes: its directory, its command line, what it said."""
    folder = tmp_path_factory.mktemp("two")
    argv = arguments(folder / "tiny.yaml", root, folder / "run", *TWO)
    status, said = finish(start(["lightning_synther"], argv))
    assert status == 0, said
    return folder, argv, said


def test_every_stage_runs_and_is_reported_once(two):
    _, _, said = two
    for stage in RUN:
        assert said.count(f"{stage}: starts\n") == said.count(f"{stage}: finished in") == 1
    assert said.count("agent: return ") == 1
    assert "Warning" not in said
    assert "recommended" not in said


def test_every_episode_counts_once_and_scores_as_on_one_process(two, capsys):
    folder, _, _ = two
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["episodes"] == len(summary["returns"]) == 3
    checkpoint = folder / "run" / "agent" / "final.ckpt"
    argv = [f"--ckpt_path={checkpoint}", "--evaluation.episodes=3", "--trainer.accelerator=cpu"]
    assert main(["test", *argv]) == 0
    scores = json.loads((folder / "run" / "test.json").read_text())
    assert summary["returns"] == pytest.approx(scores["returns"])


def test_the_synthetic_store_is_the_same_from_one_process(two, tmp_path):
    folder, _, _ = two
    checkpoint = folder / "run" / "diffusion" / "final.ckpt"
    sizes = ["--synthesis.num_transitions=100", "--synthesis.chunk_size=30", "--trainer.accelerator=cpu"]
    assert main(["predict", f"--ckpt_path={checkpoint}", f"--output={tmp_path / 'one'}", *sizes]) == 0
    one = TransitionStore.open(tmp_path / "one")
    both = TransitionStore.open(folder / "run" / "synthesis" / "store")
    np.testing.assert_array_equal(one.rows, both.rows)


def test_one_process_reuses_the_run_of_two(two, root, caplog):
    folder, _, _ = two
    with caplog.at_level("INFO", logger="lightning_synther"):
        fit(folder / "tiny.yaml", root, folder / "run", *TWO[2:])
    reused = [message.partition(":")[0] for message in caplog.messages if "finished earlier" in message]
    assert reused == list(RUN)


@pytest.mark.slow
def test_two_processes_reuse_the_run_of_one(run, root, tmp_path):
    status, said = finish(
        start(["lightning_synther"], arguments(tmp_path / "tiny.yaml", root, run, *TWO[:3]))
    )
    assert status == 0, said
    assert said.count("finished earlier, reused\n") == len(RUN)


@pytest.mark.slow
def test_torchrun_gives_the_same_run(two, root, tmp_path):
    folder, _, _ = two
    argv = arguments(tmp_path / "tiny.yaml", root, tmp_path / "run", *TWO)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "lightning_synther"]
    status, said = finish(start(torchrun, argv))
    assert status == 0, said
    for stage in RUN:
        assert said.count(f"{stage}: finished in") == 1
    ours, theirs = (
        (path / "synthesis" / "store" / "rows.npy").read_bytes()
        for path in (tmp_path / "run", folder / "run")
    )
    assert ours == theirs


@pytest.mark.slow
def test_a_mistake_is_said_once_and_leaves_no_process(root, tmp_path):
    argv = arguments(tmp_path / "tiny.yaml", root, tmp_path / "run", *TWO)
    argv += ["--data.dataset.num_episodes=9", "--data.dataset.source=local"]
    status, said = finish(start(["lightning_synther"], argv))
    assert status == 1
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    assert not processes_of(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("everyone", [True, False])
def test_ctrl_c_ends_both(root, tmp_path, everyone):
    argv = arguments(
        tmp_path / "tiny.yaml", root, tmp_path / "run", *TWO, "--encoder.training.max_steps=4000"
    )
    process = start(["lightning_synther"], argv, process_group=0)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "encoder" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (os.killpg if everyone else os.kill)(process.pid, signal.SIGINT)
    status, said = finish(process)
    assert (status, said.count("interrupted: run the same command again")) == (130, 1), said
    assert "Traceback" not in said
    assert not processes_of(tmp_path)


def processes_of(folder: Path) -> list[str]:
    """Command lines, of any process, that name ``folder``; after a moment for the last ones to end."""
    time.sleep(1)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and "pytest" not in line:
            found.append(line)
    return found
