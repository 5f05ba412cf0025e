"""Write a `Recording` while an agent trains: rows are appended, and a resumed training goes back to its checkpoint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.envs.config import Environment
from lightning_synther.errors import ConfigError
from lightning_synther.online.recording import ROWS, RecordingMetadata, row_type

FLUSH_EVERY = 1_000  # rows kept in memory, about 200 kB


LedTo = tuple[NDArray[np.float32], float, float, bool]  # action, reward, discount, last


class ReplayRecorder:
    """Appends rows to ``<path>.partial``, which `finish` gives its name.

    Args:
        path: folder of the recording.
        metadata: what it is recorded in.
        row: type of a row, see `row_type`.
        num_rows: rows that are to be there already: 0 begins a recording, more continue one, and whatever was
            recorded after them, by a training that was killed, is dropped.

    Raises:
        ConfigError: a finished recording is in the way, or the rows to continue from are not there.
    """

    def __init__(
        self, path: str | Path, metadata: RecordingMetadata, row: np.dtype[Any], num_rows: int
    ) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        self._pending: list[tuple[Any, ...]] = []
        self._row = row
        if num_rows == 0:
            self._begin(metadata)
        else:
            self._continue(metadata, num_rows)
        self.num_rows = num_rows
        self._file = (self.partial / ROWS).open("r+b")
        self._write_header()
        self._file.truncate(self._end)

    def add(
        self,
        env: Environment,
        episode: int,
        seed: int,
        step: int,
        led_to: tuple[NDArray[np.float32], float, float, bool],
    ) -> None:
        """One more observation: where ``env`` stands, and the (action, reward, discount, last) that led to it."""
        action, reward, discount, last = led_to
        self._pending.append((episode, seed, step, last, env.physics_state(), action, reward, discount))
        if len(self._pending) >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Bring every row to the file; first the rows, then their count, so that a killed run leaves whole ones."""
        if self._file.closed or not self._pending:
            return
        rows = np.array(self._pending, self._row)
        self._file.seek(self._end)
        self._file.write(rows.tobytes())
        self._file.flush()
        self.num_rows += len(rows)
        self._pending.clear()
        self._write_header()

    def finish(self) -> None:
        """Give the recording its name."""
        if self._file.closed:
            return
        self.flush()
        self._file.close()
        self.partial.rename(self.path)

    @property
    def _end(self) -> int:
        return self._start + self.num_rows * self._row.itemsize

    def _write_header(self) -> None:
        """NPY's header has room for any number of rows: it never changes its size."""
        self._file.seek(0)
        descr = np.lib.format.dtype_to_descr(self._row)
        header = {"descr": descr, "fortran_order": False, "shape": (self.num_rows,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()
        self._file.flush()

    def _begin(self, metadata: RecordingMetadata) -> None:
        if self.path.exists():
            raise ConfigError(f"data.record: {self.path} exists: give another folder, or move that one away")
        if self.partial.exists():  # of a training that was killed before its first checkpoint
            self._check(metadata)
            shutil.rmtree(self.partial)
        self.partial.mkdir(parents=True)
        (self.partial / ROWS).touch()
        metadata.write(self.partial)

    def _continue(self, metadata: RecordingMetadata, num_rows: int) -> None:
        if not self.partial.exists() and self.path.exists():  # the training is made longer
            os.rename(self.path, self.partial)
        if not self.partial.exists():
            raise ConfigError(
                f"data.record: {self.path} does not hold the first {num_rows} observations of this training: "
                "leave data.record out, or train from the start in another run_dir"
            )
        self._check(metadata)
        found = np.load(self.partial / ROWS, mmap_mode="r", allow_pickle=False)
        if len(found) < num_rows or found.dtype != self._row:
            raise ConfigError(
                f"data.record: {self.partial} holds {len(found)} observations, the checkpoint comes after "
                f"{num_rows}: train from the start in another run_dir"
            )

    def _check(self, metadata: RecordingMetadata) -> None:
        found = RecordingMetadata.read(self.partial)
        if (found.task, found.seed) != (metadata.task, metadata.seed):
            raise ConfigError(
                f"data.record: {self.partial} is a recording of {found.task} with seed {found.seed}, this is "
                f"{metadata.task} with seed {metadata.seed}: give another folder"
            )


def recorder_of(path: str | Path, env: Environment, seed: int, num_rows: int) -> ReplayRecorder:
    """A recorder of the environment ``env``, whose episodes derive from ``seed``."""
    config = env.config
    metadata = RecordingMetadata(config.task, config.action_repeat, config.time_limit, seed)
    return ReplayRecorder(path, metadata, row_type(len(env.physics_state()), env.action_dim), num_rows)
