"""Exchange with the published SynthER code, which keeps transitions in one NPZ file.

Its arrays: ``observations`` and ``next_observations`` (N, O), ``actions`` (N, A), ``rewards`` and
``terminals`` (N,), all float32. Files and stores of any size are copied in pieces, in bounded memory.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.disk import full_disk_is_one_sentence
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import Existing, StoreWriter
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.transition import TransitionSpec

#: Field of a row -> array of the file.
ARRAYS = {
    "observation": "observations",
    "action": "actions",
    "reward": "rewards",
    "next_observation": "next_observations",
    "terminal": "terminals",
}
PIECE = 65_536  # rows copied at a time


def export_npz(store: TransitionStore, path: str | Path, overwrite: bool = False) -> Path:
    """Write ``store`` as an NPZ file of SynthER's layout; returns its path.

    Terminals are 1 where the column is above 0.5, and all 0 for a store without that column. The discount of
    a transition is not part of the layout. Raises `ConfigError` where ``path`` exists, unless ``overwrite``.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists: give another path, or overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    try:
        with full_disk_is_one_sentence(path, "free some and export again"):
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                for field in ARRAYS:
                    _write_array(archive, store, field)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write_array(archive: zipfile.ZipFile, store: TransitionStore, field: str) -> None:
    flat = field in ("reward", "terminal")
    columns = store.spec.fields.get(field)
    shape = (len(store),) if flat or columns is None else (len(store), columns.stop - columns.start)
    with archive.open(f"{ARRAYS[field]}.npy", "w", force_zip64=True) as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        for start in range(0, len(store), PIECE):
            rows = store.rows[start : start + PIECE]
            if columns is None:
                values = np.zeros(len(rows), np.float32)
            else:
                values = rows[:, columns]
                values = (values > 0.5).astype(np.float32) if field == "terminal" else values
            member.write(np.ascontiguousarray(values).tobytes())


def import_npz(
    npz: str | Path,
    path: str | Path,
    discount: float = 0.99,
    terminal: bool | None = None,
    existing: Existing = "error",
) -> TransitionStore:
    """Write the transitions of an NPZ file of SynthER's layout as the store ``path``, and open it.

    ``discount`` is that of a transition that does not end its episode. ``terminal`` says whether rows have a
    terminal column; None takes the file's word: yes if it has a terminal that is not 0.

    Raises `DataError` for a file that is no such NPZ: arrays missing, pickled, of other shapes or unequal
    lengths.
    """
    npz = Path(npz)
    try:
        archive = zipfile.ZipFile(npz)
    except FileNotFoundError:
        raise DataError(f"{npz} does not exist, give another path") from None
    except zipfile.BadZipFile:
        raise DataError(f"{npz} is no NPZ file, or truncated: give another path") from None
    with archive, ExitStack() as stack:
        shapes = {field: _read_shape(archive, field, npz) for field in ARRAYS}
        count = _check(shapes, npz)
        ends = any(bool(np.any(piece)) for piece in _pieces(archive, "terminal", count, npz, stack))
        if terminal is False and ends:
            raise DataError(f"{npz} has terminals that are not 0: import it with terminal=True")
        spec = TransitionSpec(
            observation_dim=shapes["observation"][1],
            action_dim=shapes["action"][1],
            discount=discount,
            terminal=ends if terminal is None else terminal,
        )
        # The file's own numbers tell it apart: sizes and checksums of its members.
        fingerprint = "-".join(f"{archive.getinfo(f'{name}.npy').CRC:08x}" for name in ARRAYS.values())
        writer = stack.enter_context(
            StoreWriter(
                path,
                spec,
                count,
                seed=0,
                producer="import_npz",
                fingerprint=fingerprint,
                chunk_size=PIECE,
                existing=existing,
            )
        )
        streams = [_pieces(archive, field, count, npz, stack) for field in spec.fields]
        pending = set(writer.pending_chunks)
        for index, pieces in enumerate(zip(*streams, strict=True)):
            if index in pending:
                writer.write(index, np.concatenate(pieces, axis=1))
        return writer.commit()


def _check(shapes: dict[str, tuple[int, ...]], npz: Path) -> int:
    count, observation_dim = shapes["observation"][0], shapes["observation"][-1]
    wanted: dict[str, list[tuple[int, ...]]] = {
        "observation": [(count, observation_dim)],
        "action": [(count, shapes["action"][-1])],
        "reward": [(count,), (count, 1)],
        "next_observation": [(count, observation_dim)],
        "terminal": [(count,), (count, 1)],
    }
    for field, shape in shapes.items():
        if shape not in wanted[field] or not count:
            raise DataError(
                f"{npz} holds {ARRAYS[field]} of shape {shape} beside observations of shape "
                f"{shapes['observation']}: expected {wanted[field][0]} with at least one row"
            )
    return count


def _read_shape(archive: zipfile.ZipFile, field: str, npz: Path) -> tuple[int, ...]:
    with ExitStack() as stack:
        return _open(archive, field, npz, stack)[1]


def _open(
    archive: zipfile.ZipFile, field: str, npz: Path, stack: ExitStack
) -> tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]:
    """Member of the archive, read up to its first number; its shape and dtype."""
    name = f"{ARRAYS[field]}.npy"
    try:
        member = stack.enter_context(archive.open(name))
    except KeyError:
        raise DataError(f"{npz} has no array {ARRAYS[field]}: it is not of SynthER's layout") from None
    try:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read(member)
    except (ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{name} in {npz} is damaged ({error}): get the file again") from None
    if dtype.hasobject or dtype.kind not in "fiub":
        raise DataError(f"{name} in {npz} has dtype {dtype}: only arrays of plain numbers are read")
    if fortran_order and len(shape) > 1:
        raise DataError(f"{name} in {npz} is stored column by column: save it with numpy.ascontiguousarray")
    return member, shape, dtype


def _pieces(
    archive: zipfile.ZipFile, field: str, count: int, npz: Path, stack: ExitStack
) -> Iterator[NDArray[np.float32]]:
    """Blocks (<= PIECE, columns) of one array, float32."""
    member, shape, dtype = _open(archive, field, npz, stack)
    columns = shape[1] if len(shape) > 1 else 1
    for start in range(0, count, PIECE):
        size = (min(start + PIECE, count) - start) * columns * dtype.itemsize
        try:
            data = member.read(size)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{ARRAYS[field]} in {npz} is damaged ({error}): get the file again") from None
        if len(data) != size:
            raise DataError(f"{ARRAYS[field]} in {npz} ends too early: get the file again")
        yield np.frombuffer(data, dtype).reshape(-1, columns).astype(np.float32)
