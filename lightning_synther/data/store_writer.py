"""Writing a store of transitions in chunks: by several processes, killed at any moment, on a full disk.

A chunk is finished once its rows are on disk, and only then is its byte in ``<path>.partial/finished`` set.
Bytes of different chunks do not touch, so ranks share one file without a lock, and whoever comes back after
SIGKILL writes what is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.data.disk import full_disk_is_one_sentence, write_all
from lightning_synther.data.store import METADATA, ROWS, StoreMetadata, TransitionStore, partial_path
from lightning_synther.errors import BackendError, ConfigError, DataError
from lightning_synther.transition import TransitionSpec

FINISHED, COUNTS = "finished", "counts"
Existing = Literal["error", "resume", "replace"]


class StoreWriter:
    """Writes the store ``path`` chunk by chunk, and continues one that was interrupted.

    Chunk i holds the rows [i * chunk_size, (i + 1) * chunk_size), the last one may be shorter. A
    ``<path>.partial`` of equal metadata is continued; ``existing`` says what to do with anything else that is
    already there: "error" refuses a finished store; "resume" takes a finished store of equal metadata as all
    chunks finished; "replace" discards a partial store of other metadata, and lets a finished store stand
    until `commit`.

    ``counters`` names numbers that come with every chunk; their sums over all chunks are added to the finished
    store's ``metadata.extra["counts"]``.

    Raises `ConfigError` for what ``existing`` forbids, `BackendError` where the disk cannot hold what is
    missing.
    """

    def __init__(
        self,
        path: str | Path,
        spec: TransitionSpec,
        num_transitions: int,
        *,
        seed: int,
        producer: str,
        fingerprint: str,
        chunk_size: int = 10_000,
        extra: dict[str, Any] | None = None,
        existing: Existing = "error",
        counters: Sequence[str] = (),
    ) -> None:
        if num_transitions < 1 or chunk_size < 1:
            raise ConfigError(
                "a store needs num_transitions >= 1 and chunk_size >= 1, "
                f"got {num_transitions} and {chunk_size}"
            )
        self.path = Path(path)
        self.partial = partial_path(self.path)
        self.metadata = StoreMetadata(
            spec, num_transitions, seed, producer, fingerprint, chunk_size, extra or {}
        )
        self.counters = tuple(counters)
        self._rows = self._finished = -1
        if self._is_finished_store(existing):
            return
        with self._full_disk():
            if not self._can_continue(existing):
                self._create()
            self._rows = os.open(self.partial / ROWS, os.O_RDWR)
            self._finished = os.open(self.partial / FINISHED, os.O_RDWR)
        self._offset = os.fstat(self._rows).st_size - num_transitions * spec.dim * 4
        self._check_space()

    @property
    def spec(self) -> TransitionSpec:
        """Layout of the rows."""
        return self.metadata.spec

    def __len__(self) -> int:
        return self.metadata.num_transitions

    @property
    def num_chunks(self) -> int:
        """Number of chunks, the shorter last one included."""
        return -(-self.metadata.num_transitions // self.metadata.chunk_size)

    def chunk(self, index: int) -> slice:
        """The rows of chunk ``index``."""
        start = index * self.metadata.chunk_size
        return slice(start, min(start + self.metadata.chunk_size, self.metadata.num_transitions))

    @property
    def finished_chunks(self) -> list[int]:
        """Chunks that are on disk, written by whichever process and run."""
        if self._finished < 0:
            return list(range(self.num_chunks))
        flags = os.pread(self._finished, self.num_chunks, 0)
        return [index for index, flag in enumerate(flags) if flag]

    @property
    def pending_chunks(self) -> list[int]:
        """Chunks that are still to be written."""
        return sorted(set(range(self.num_chunks)).difference(self.finished_chunks))

    def write(self, chunk_index: int, rows: Tensor | NDArray[np.float32], counts: Sequence[int] = ()) -> None:
        """Write all rows (n, D) and the ``counts`` of one chunk and mark it finished.

        Raises `DataError` for rows of another size or with non-finite values, `BackendError` on a full disk;
        the chunks that are finished stay so in either case.
        """
        values = np.ascontiguousarray(rows.detach().cpu() if isinstance(rows, Tensor) else rows, np.float32)
        where = self.chunk(chunk_index)
        wanted = (where.stop - where.start, self.metadata.spec.dim)
        if values.shape != wanted:
            raise DataError(f"chunk {chunk_index} of {self.path} needs rows {wanted}, got {values.shape}")
        num_bad = int((~np.isfinite(values)).any(axis=1).sum())
        if num_bad:
            raise DataError(
                f"{num_bad} of {wanted[0]} rows of chunk {chunk_index} of {self.path} are not finite: "
                f"{self.metadata.producer} has diverged, train it again with a lower learning rate"
            )
        with self._full_disk():
            write_all(self._rows, values, self._offset + where.start * wanted[1] * 4)
            os.fdatasync(self._rows)
            self._write_counts(chunk_index, counts)
            os.pwrite(self._finished, b"\x01", chunk_index)

    def commit(self) -> TransitionStore:
        """Give the store its final name, once for all processes, and open it.

        Raises `DataError` while chunks are missing.
        """
        if self._finished >= 0:
            if missing := self.pending_chunks:
                raise DataError(
                    f"{self.partial} lacks {len(missing)} of {self.num_chunks} chunks: write them first"
                )
            os.fsync(self._rows)
            if self.counters:
                self._add_counts_to_metadata()
            self.close()
            self._rename()
        return TransitionStore.open(self.path, self.metadata.spec)

    def close(self) -> None:
        """Close the files; what is written stays for the next run."""
        for descriptor in (self._rows, self._finished):
            if descriptor >= 0:
                os.close(descriptor)
        self._rows = self._finished = -1

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_finished_store(self, existing: Existing) -> bool:
        if existing == "replace" or not self.path.exists():
            return False
        if existing == "error":
            raise ConfigError(f"the store {self.path} exists: delete it, or give another path")
        found = TransitionStore.open(self.path).metadata
        if found != self.metadata:
            raise ConfigError(_difference(self.path, found, self.metadata))
        return True

    def _can_continue(self, existing: Existing) -> bool:
        if not self.partial.is_dir():
            return False
        found = StoreMetadata.read(self.partial) if (self.partial / METADATA).is_file() else None
        if found == self.metadata:
            return True
        if found is not None and existing != "replace":
            raise ConfigError(_difference(self.partial, found, self.metadata))
        shutil.rmtree(self.partial)
        return False

    def _create(self) -> None:
        """Lay out empty files; the metadata come last, so that a folder without them was never begun."""
        self.partial.mkdir(parents=True)
        spec, num_transitions = self.metadata.spec, self.metadata.num_transitions
        with open(self.partial / ROWS, "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (num_transitions, spec.dim)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + num_transitions * spec.dim * 4)
        (self.partial / FINISHED).write_bytes(bytes(self.num_chunks))
        if self.counters:
            (self.partial / COUNTS).write_bytes(bytes(8 * self.num_chunks * len(self.counters)))
        self.metadata.write(self.partial)

    def _write_counts(self, chunk_index: int, counts: Sequence[int]) -> None:
        values = np.array(counts, np.int64)
        assert values.shape == (len(self.counters),), f"a chunk comes with {self.counters}"
        if self.counters:
            with open(self.partial / COUNTS, "r+b") as file:
                os.pwrite(file.fileno(), values.tobytes(), chunk_index * values.nbytes)
                os.fdatasync(file.fileno())

    def _add_counts_to_metadata(self) -> None:
        values = np.fromfile(self.partial / COUNTS, np.int64).reshape(self.num_chunks, len(self.counters))
        sums = dict(zip(self.counters, values.sum(0).tolist(), strict=True))
        self.metadata = replace(self.metadata, extra={**self.metadata.extra, "counts": sums})
        temporary = self.partial / "counted"
        temporary.mkdir(exist_ok=True)
        self.metadata.write(temporary)
        (temporary / METADATA).replace(self.partial / METADATA)
        temporary.rmdir()

    def _check_space(self) -> None:
        """Find a disk that is too small before hours of sampling, not after them."""
        needed = sum(self.chunk(i).stop - self.chunk(i).start for i in self.pending_chunks)
        needed *= self.metadata.spec.dim * 4
        free = shutil.disk_usage(self.partial).free
        if needed > free:
            self.close()
            raise BackendError(
                f"{self.path} needs another {needed / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free: "
                "free some, or lower num_transitions"
            )

    def _rename(self) -> None:
        previous = self.path.with_name(self.path.name + ".previous")
        shutil.rmtree(previous, ignore_errors=True)
        if self.path.exists():
            self.path.rename(previous)
        # Killed here, the run leaves a partial store with all chunks, which the next one only has to rename.
        self.partial.rename(self.path)
        for name in (FINISHED, COUNTS):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(previous, ignore_errors=True)

    @contextmanager
    def _full_disk(self) -> Iterator[None]:
        advice = "free some and run the same command again, finished chunks are kept"
        with full_disk_is_one_sentence(self.partial, advice):
            yield


def _difference(path: Path, found: StoreMetadata, wanted: StoreMetadata) -> str:
    names = ("spec", "num_transitions", "seed", "producer", "fingerprint", "chunk_size")
    name = next(name for name in names if getattr(found, name) != getattr(wanted, name))
    return (
        f"{path} was begun with {name}={getattr(found, name)!r}, now {name}={getattr(wanted, name)!r}: "
        "delete it, or give another path"
    )
