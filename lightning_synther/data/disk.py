"""Writing to a disk that may be full, or to files that another process writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_synther.command import FULL
from lightning_synther.errors import BackendError


@contextmanager
def full_disk_is_one_sentence(path: Path, advice: str) -> Iterator[None]:
    """Turn "no space left" while writing ``path`` into a `BackendError` that ends with ``advice``."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise BackendError(f"the disk is full while writing {path}: {advice}") from error


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold the lock file ``lock``, so that processes that start together do not all make the same thing."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            import fcntl
        except ImportError:  # no such locks on Windows: work twice there
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_all(descriptor: int, values: NDArray[np.generic], offset: int) -> None:
    """Write contiguous ``values`` at ``offset`` of a file; through a memory map a full disk would be SIGBUS.

    `os.pwrite` may write less than it was given: on a disk that is filling up, or more than 2 GB.
    """
    data = values.reshape(-1).view(np.uint8).data
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
