"""Inflated, edge-replicated copies of datasets on disk, mapped into memory when they are opened again.

One folder ``.cache`` beside the data, or one under the user's cache folder where that cannot be written. An
entry says which files it was made of and is used only while the first of the dataset's files are still
exactly those.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.disk import locked, write_all
from lightning_synther.data.episodes import Episodes

log = logging.getLogger(__name__)

_FORMAT = 1
_COLUMNS = ("action", "reward", "discount", "lengths")

Source = tuple[str, int, int]  # name, bytes, time of the last change in nanoseconds
Write = Callable[[int, NDArray[np.uint8]], None]  # first row, padded frames from there


def describe(files: Sequence[Path]) -> list[Source]:
    """Name, size and modification time of ``files``."""
    stats = [file.stat() for file in files]
    return [(file.name, stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, stats, strict=True)]


class FrameCache:
    """The cache of one dataset folder, for frames of one size with a margin of ``pad`` pixels."""

    def __init__(self, directory: Path, image_size: int, pad: int) -> None:
        resolved = directory.resolve()
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_synther"
        digest = hashlib.blake2b(os.fsencode(resolved), digest_size=8).hexdigest()
        self.places = (resolved / ".cache", home / f"{resolved.parent.name}-{digest}")
        self.image_size, self.pad = image_size, pad

    def find(self, sources: Sequence[Source], max_episodes: int | None, task: str = "") -> Episodes | None:
        """The entry, if any, whose files hold ``max_episodes`` episodes (None: that is made of all files)."""
        for entry, used in (pair for place in self.places for pair in self._entries(place)):
            whole = len(used) == len(sources)
            if used == list(sources[: len(used)]) and (whole or max_episodes is not None):
                episodes = self._open(entry, task)
                if episodes and (whole or episodes.num_episodes >= (max_episodes or 0)):
                    return episodes
        return None

    def store(
        self,
        sources: Sequence[Source],
        columns: dict[str, NDArray],
        write_frames: Callable[[Write], None],
    ) -> bool:
        """Write an entry; ``write_frames`` is handed the function that takes the padded frames, in any order.

        Returns False, after a warning, where no place can be written or the disk is full: the cache is a
        convenience, and the caller goes on in memory. Nothing half-written is left behind.
        """
        reasons = []
        for place in self.places:
            try:
                with locked(place / "lock"):
                    self._store(place, sources, columns, write_frames)
                log.info("inflated frames are kept in %s", place)
                return True
            except OSError as error:
                reasons.append(f"{place}: {error}")
        log.warning(
            "the frames are read into memory, and will be inflated again next time, because no cache of them "
            "can be written (%s)",
            "; ".join(reasons),
        )
        return False

    def _store(
        self,
        place: Path,
        sources: Sequence[Source],
        columns: dict[str, NDArray],
        write_frames: Callable[[Write], None],
    ) -> None:
        about = {"format": _FORMAT, "image_size": self.image_size, "pad": self.pad, "sources": sources}
        text = json.dumps(about)
        name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        if (place / name).exists():
            if self._open(place / name):
                return  # another process made it while this one waited for the lock
            shutil.rmtree(place / name)
        outdated = self._entries(place)
        for leftover in place.glob("*.partial"):  # of a killed run: who holds the lock is alone here
            shutil.rmtree(leftover)
        partial = place / f"{name}.partial"
        partial.mkdir()
        try:
            for key in _COLUMNS:
                np.save(partial / f"{key}.npy", columns[key])
            side = self.image_size + 2 * self.pad
            _write_npy(partial / "padded.npy", (int(columns["lengths"].sum()), 3, side, side), write_frames)
            (partial / "entry.json").write_text(text)
            partial.rename(place / name)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for entry, _ in outdated:
            shutil.rmtree(entry, ignore_errors=True)

    def _entries(self, place: Path) -> list[tuple[Path, list[Source]]]:
        """Finished entries of this image size and margin, and the files each was made of."""
        entries = []
        wanted = (_FORMAT, self.image_size, self.pad)
        for file in sorted(place.glob("*/entry.json")):
            # Not JSON, not ours, or just being removed by another process: no entry.
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                about = json.loads(file.read_text())
                found = (about["format"], about["image_size"], about["pad"])
                if found == wanted and file.parent.suffix != ".partial":
                    entries.append((file.parent, [tuple(source) for source in about["sources"]]))
        return entries

    def _open(self, entry: Path, task: str = "") -> Episodes | None:
        """Map an entry, copy-on-write since PyTorch wants writable memory; None where it is damaged."""
        try:
            columns = {key: np.load(entry / f"{key}.npy") for key in _COLUMNS}
            padded = np.load(entry / "padded.npy", mmap_mode="c")
            return Episodes.from_padded(padded, self.pad, task=task, **columns)
        except (OSError, ValueError, EOFError) as error:
            log.warning("the cache %s is damaged (%s) and is made again", entry, error)
            return None


def _write_npy(path: Path, shape: tuple[int, ...], write_frames: Callable[[Write], None]) -> None:
    """Write a uint8 array in any order, by `os.pwrite`: on a full disk a map would crash, this raises."""
    row_bytes = int(np.prod(shape[1:]))
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        offset = file.tell()
        needed = offset + shape[0] * row_bytes
        if shutil.disk_usage(path.parent).free < needed:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed / 1e6:,.0f} MB are needed")

        def write(start: int, padded: NDArray[np.uint8]) -> None:
            write_all(file.fileno(), padded, offset + start * row_bytes)

        write_frames(write)
