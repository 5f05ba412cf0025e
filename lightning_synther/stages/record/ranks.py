"""The processes that run a command together: how they start, who decides and writes, who waits, how they end.

With ``trainer.devices`` above 1 all ranks go through all stages. They are started before the first stage, so
that rank zero can decide for all of them what a stage needs; Lightning alone would start them in the first
Trainer call that comes, and ranks that read a run directory at different moments see different things.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TypeVar, cast

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_synther.errors import BackendError, ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")
PATIENCE = timedelta(days=30)  # rank zero may collect, download or encode for hours while the others wait
GRACE = 5.0  # seconds in which rank zero speaks for all, where all ranks fail of the same cause


def is_rank_zero() -> bool:
    """Whether this process writes what is written once; known before any process group exists."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def barrier() -> None:
    """Wait for the other ranks, where there are any."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier(_patient_group())


def from_rank_zero(value: T) -> T:
    """The ``value`` that rank zero has."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_patient_group())
    return box[0]


@cache
def _patient_group() -> dist.ProcessGroup:
    return cast(dist.ProcessGroup, dist.new_group(timeout=PATIENCE, backend="gloo"))


@contextmanager
def all_ranks(trainer: pl.Trainer, restartable: bool = True) -> Iterator[None]:
    """Run the body on every rank of ``trainer``'s strategy, whose processes are started here and end here.

    Lightning starts a rank by repeating the command line; ``restartable`` says whether that holds the
    arguments. Raises `ConfigError` for a strategy that starts ranks in another way.
    """
    if trainer.world_size == 1:
        yield
        return
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _MultiProcessingLauncher):
        raise ConfigError(
            "trainer.strategy forks or spawns its processes inside one stage, but a run has several: "
            "use ddp_find_unused_parameters_true"
        )
    if isinstance(launcher, _SubprocessScriptLauncher):
        if not restartable and not launcher.cluster_environment.creates_processes_externally:
            raise ConfigError(
                f"trainer.devices is {trainer.num_devices}, which repeats the command line for each process: "
                "run it as `python -m lightning_synther`, not from within Python"
            )
        launcher.launch(trainer.strategy.setup_environment)
    else:
        trainer.strategy.setup_environment()
    others = getattr(launcher, "procs", [])
    try:
        yield
        barrier()
        dist.destroy_process_group()
    except BaseException as error:
        _end(others, error)
        raise
    for process in others:
        process.wait()


def _end(others: list[subprocess.Popen[bytes]], error: BaseException) -> None:
    """End the ranks that this process started; a started rank waits whether rank zero speaks for it."""
    if not is_rank_zero():
        time.sleep(GRACE)
        return
    failed = [process.poll() for process in others if process.poll()]
    for process in others:
        process.kill()  # a Trainer would answer SIGTERM with a barrier that nobody joins
    for process in others:
        process.wait()
    if failed and isinstance(error, RuntimeError):  # what the lost connection looks like from here
        raise BackendError(
            f"another process of this run ended with status {failed[0]}: see above whether it says why"
        ) from error
