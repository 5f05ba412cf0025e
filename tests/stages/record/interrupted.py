"""Run ``fit`` again and again, each time ended by a signal in a later stage; write exit statuses as JSON.

``python -m tests.stages.record.interrupted SIGNAL ROOT RUN_DIR``. Every run is a process of its own, forked from
this one before anything has started threads, which spares it the imports.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lightning_synther.cli
from lightning_synther.__main__ import main
from lightning_synther.agents.scoring import ScoredAgent
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.envs.pool import EnvPool
from lightning_synther.online.packing import Packer
from lightning_synther.stages.real import encoder, pixel_dataset, pixels
from lightning_synther.stages.trainer.callbacks import SeedEveryStep
from tests.stages.tiny import arguments

#: Stage -> the method in which the signal comes, and after how many calls in that stage.
MOMENTS: dict[str, tuple[type, str, int]] = {
    "dataset": (Packer, "pack", 3),
    "encoder": (SeedEveryStep, "on_train_batch_start", 6),
    "latents": (StoreWriter, "write", 1),
    "diffusion": (SeedEveryStep, "on_train_batch_start", 4),
    "synthesis": (StoreWriter, "write", 2),
    "agent": (SeedEveryStep, "on_train_batch_start", 4),
    "evaluation": (EnvPool, "step", 5),
    "agent_real_only": (SeedEveryStep, "on_train_batch_start", 4),
    "evaluation_real_only": (EnvPool, "step", 5),
}


def end_after(cls: type, name: str, count: int, number: int) -> None:
    """Let this process send itself the signal ``number`` after ``count`` calls of the method ``cls.name``."""
    method = getattr(cls, name)
    calls = 0

    @functools.wraps(method)
    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        result = method(*args, **kwargs)
        calls += 1
        if calls == count:
            os.kill(os.getpid(), number)
        return result

    setattr(cls, name, counting)


def in_a_fork(run: Callable[[], int]) -> tuple[int, str]:
    """Exit status (negative: the signal) and standard error of ``run`` in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.dup2(writer, 2)
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            status = run()
        sys.stderr.flush()
        os._exit(status)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def interruptions(number: int, root: Path, run_dir: Path) -> Iterator[tuple[str, int, str]]:
    """(stage, status, standard error) of every run, the last one undisturbed."""
    argv = arguments(run_dir.with_suffix(".yaml"), root, run_dir, "--data.dataset.source=collect")
    for stage in (*MOMENTS, ""):

        def run(stage: str = stage) -> int:
            if stage:
                end_after(*MOMENTS[stage], number)
            return main(argv)

        yield stage, *in_a_fork(run)


if __name__ == "__main__":
    assert lightning_synther.cli
    ScoredAgent.eval_workers = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "check_rendering", lambda env: None)
        patch.setattr(
            pixels, "provide_dataset", functools.partial(pixel_dataset.provide_dataset, num_workers=0)
        )
        number = signal.Signals[sys.argv[1]]
        print(json.dumps(list(interruptions(number, Path(sys.argv[2]), Path(sys.argv[3])))))
