"""``inspect``: what a dataset, a file of it, or a store of transitions holds, and what is wrong with it."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lightning_synther.data import hdf5, npz
from lightning_synther.data.examination import Examined, examine
from lightning_synther.data.findings import Inspection, distribution
from lightning_synther.data.minari import dataset_folder
from lightning_synther.errors import DataError
from lightning_synther.progress import Progress

_SUFFIXES = (".hdf5", ".npz")
#: Of an NPZ file of SynthER's layout, which is inspected array by array.
SYNTHER_ARRAYS = {"observations", "actions", "rewards", "next_observations", "terminals"}


def inspect(path: str, plot: str | None = None, frames: bool = True, progress: bool = True) -> None:
    """Print what a dataset folder, one of its files, or a store of transitions holds, and every fault in it.

    Args:
        path: a folder of V-D4RL files, one HDF5 or NPZ file, a store of transitions, SynthER's NPZ, or states: a
            file of D4RL or OGBench, a folder of Minari.
        plot: PNG file to write: histogram of returns and a contact sheet of frames.
        frames: inflate every frame too, to find damaged and blank ones.
        progress: show a bar, or where there is no terminal, a line now and then.

    Raises:
        DataError: the path does not exist or holds nothing to inspect; or faults were found, and are printed.
    """
    found = inspect_path(Path(path), frames, progress)
    print(found)
    if plot is not None:
        from lightning_synther.data.inspection_figure import save_figure

        print(f"{'plot':<13}{save_figure(found, Path(plot))}")
    if found.faults:
        count = len(found.faults)
        raise DataError(f"{path} has {count} fault{'s' * (count > 1)}, listed above: get or make it again")


def inspect_path(path: Path, frames: bool = True, progress: bool = False) -> Inspection:
    """The findings about ``path``; `DataError` where there is nothing to inspect."""
    if not path.exists():
        raise DataError(f"{path} does not exist: give a dataset folder, one of its files, or a store")
    if dataset_folder(path) or _has_observations(path):
        from lightning_synther.data.inspection_states import inspect_states  # imports torch

        return inspect_states(path)
    if (path / "metadata.json").is_file() or (path / "rows.npy").is_file():
        from lightning_synther.data.inspection_stores import inspect_store  # imports torch

        return inspect_store(path)
    files = [path] if path.is_file() else _data_files(path)
    if files[0].suffix == ".npz" and "observations" in examine(files[0], frames=False).keys:
        from lightning_synther.data.inspection_stores import inspect_synther_npz

        return inspect_synther_npz(path if path.is_file() else files[0])
    return _inspect_episodes(path, files, frames, progress)


def _has_observations(path: Path) -> bool:
    """Whether ``path`` is a file with D4RL's or OGBench's names; SynthER's NPZ is another matter."""
    if not path.is_file() or path.suffix not in (*_SUFFIXES, ".h5"):
        return False
    with suppress(DataError):  # a damaged file is examined as the others
        if path.suffix != ".npz":
            with hdf5.opened(path) as file:
                return "observations" in file
        with npz.opened(path) as archive:
            return "observations" in archive and not set(archive) >= SYNTHER_ARRAYS
    return False


def _data_files(directory: Path) -> list[Path]:
    from lightning_synther.data.vd4rl import list_files

    below = sorted({file.parent for s in _SUFFIXES for file in directory.glob(f"*/**/[!.]*{s}")})
    below = [folder for folder in below if not any(part.startswith(".") for part in folder.parts)]
    if below and not any(file.suffix in _SUFFIXES for file in directory.iterdir()):
        some = ", ".join(str(folder) for folder in below[:3]) + (", ..." if len(below) > 3 else "")
        raise DataError(f"{directory} holds no data files itself: give one of the folders below it ({some})")
    return list_files(directory)


def _inspect_episodes(path: Path, files: list[Path], frames: bool, progress: bool) -> Inspection:
    if files[0].suffix not in _SUFFIXES:
        raise DataError(f"{path} is neither .hdf5 nor .npz: give a V-D4RL file, or a folder")
    with Progress("inspecting", None, "frames", show=progress and frames) as bar:
        examined = [examine(file, frames, bar.update) for file in files]
    size = next(
        (f"{file.frame_shape[1]}x{file.frame_shape[2]}" for file in examined if file.frame_shape), "?"
    )
    kind = "HDF5" if files[0].suffix == ".hdf5" else "NPZ, an episode each"
    found = Inspection(path, f"V-D4RL, {size} pixels, {len(files)} file{'s' * (len(files) > 1)} ({kind})")
    found.files = examined
    found.values = np.array([value for file in examined for value in file.returns])
    found.lines = [*_identity(path), *_counts(examined), ("frames", f"{size}, RGB, uint8")]
    found.lines += [("actions", _action_text(examined)), *distribution("returns", found.values)]
    for file in examined:
        found.faults += [f"{file.path.name}: {fault}" for fault in file.faults]
    noted = Counter(note.split(":")[-1].strip() for file in examined for note in file.notes)
    found.notes += [f"reset rows of {count} files hold actions: {note}" for note, count in noted.items()]
    found.faults += _across_files(path, examined)
    if path.is_dir():
        found.faults += _against_record(path, examined)
    return found


def _identity(path: Path) -> list[tuple[str, str]]:
    """Task and kind by the record of a collection, else by the folders' names."""
    folder = path if path.is_dir() else path.parent
    record = _record(folder)
    if record is not None:
        request = record.get("request", {})
        state = "complete" if record.get("complete") else "unfinished"
        kind = f"{request.get('policy')} (collected, seed {request.get('seed')}, {state})"
        return [("task", str(request.get("task"))), ("kind", kind)]
    task, kind = folder.parent.parent.name, folder.parent.name
    if not folder.name.endswith("px") or not task:
        return [("task", "unknown"), ("kind", "unknown")]
    return [("task", f"{task} (by its folder)"), ("kind", f"{kind} (by its folder)")]


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / "provenance.json").read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _counts(examined: list[Examined]) -> list[tuple[str, str]]:
    lengths = [length for file in examined for length in file.lengths]
    steps = sorted({length - 1 for length in lengths})
    each = f" ({steps[0]} each)" if len(steps) == 1 else f" ({steps[0]} to {steps[-1]} each)" if steps else ""
    return [
        ("episodes", str(len(lengths))),
        ("transitions", f"{sum(lengths) - len(lengths)}{each}"),
    ]


def _action_text(examined: list[Examined]) -> str:
    ranges = [file.action_range for file in examined if file.action_range is not None]
    if not ranges:
        return "none"
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    return f"{ranges[0][2]} numbers from {low:.3f} to {high:.3f}"


def _across_files(path: Path, examined: list[Examined]) -> list[str]:
    """Files that do not belong together, and episodes that are there twice."""
    sizes_of: dict[str, list[tuple[int, ...]]] = {
        "frames": [file.frame_shape for file in examined],
        "actions": [(file.action_range[2],) for file in examined if file.action_range],
    }
    faults = []
    for what, values in sizes_of.items():
        kinds = {value for value in values if value}
        if len(kinds) > 1:
            faults.append(f"files with {what} of different sizes lie in one folder: {sorted(kinds)}")
    wanted = path.name.removesuffix("px")
    sizes = {file.frame_shape[1:] for file in examined if file.frame_shape}
    if path.is_dir() and path.name.endswith("px") and wanted.isdecimal() and sizes - {(int(wanted),) * 2}:
        faults.append(f"the folder is called {path.name}, the frames are {sorted(sizes)}")
    seen: dict[str, str] = {}
    for file in examined:
        for start, digest in zip(file.starts, file.digests, strict=True):
            name = f"{file.path.name}, row {start}"
            if digest in seen:
                faults.append(f"the episode of {name} is there twice (also {seen[digest]})")
            seen.setdefault(digest, name)
    return faults


def _against_record(path: Path, examined: list[Examined]) -> list[str]:
    """Whether the files are those that the record of a collection counts."""
    if not (path / "provenance.json").exists():
        return []
    record = _record(path)
    if record is None or not isinstance(record.get("files", {}), dict):
        return ["provenance.json cannot be read"]
    files: dict[str, list[float]] = record.get("files", {})
    found = {file.path.name: file for file in examined}
    faults = [f"{name} is in provenance.json, but has gone" for name in sorted(set(files) - set(found))]
    faults += [f"{name} is not in provenance.json" for name in sorted(set(found) - set(files))]
    for name in sorted(set(files) & set(found)):
        if len(files[name]) != len(found[name].returns):
            faults.append(
                f"{name} holds {len(found[name].returns)} whole episodes, provenance.json counts {len(files[name])}"
            )
        elif not np.allclose(files[name], found[name].returns, rtol=1e-5, atol=1e-4):
            faults.append(f"{name} has other returns than provenance.json")
    if not record.get("complete", True):
        wanted, count = record.get("episodes"), sum(map(len, files.values()))
        faults.append(f"the collection is unfinished, {count} of {wanted} episodes: run its command again")
    return faults
