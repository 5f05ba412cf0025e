"""The picture of `inspect`: a histogram of returns above a contact sheet of frames."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_synther.data.examination import Examined, read_frame
from lightning_synther.data.findings import Inspection
from lightning_synther.errors import BackendError, ConfigError, DataError

ROWS, COLUMNS = 5, 8  # episodes (from the worst to the best return) and moments of each


def save_figure(found: Inspection, path: Path) -> Path:
    """Draw ``found`` into ``path``; raises as `save_png`."""
    check_png(path)
    sheet = contact_sheet(found.files)
    tall = 2.6 + (0.0 if sheet is None else 7.0 * sheet.shape[0] / sheet.shape[1])
    figure = Figure(figsize=(7.4, tall + 0.4), layout="constrained")
    parts: Any = figure.subplots(
        1 if sheet is None else 2, 1, height_ratios=None if sheet is None else [2.6, tall - 2.6]
    )
    axes = parts if sheet is None else parts[0]
    axes.hist(found.values, bins=min(40, max(5, len(found.values) // 4)), color="#4878a8")
    axes.set(xlabel=found.values_of[:-1], ylabel="count", title=f"{found.path}\n{_subtitle(found)}")
    axes.title.set_fontsize(8)
    if sheet is not None:
        parts[1].imshow(sheet)
        parts[1].set_axis_off()
        parts[1].set_title("rows: episodes from the lowest to the highest return; columns: time", fontsize=8)
    return save_png(figure, path)


def check_png(path: Path) -> None:
    """Raise `ConfigError` for a plot's path that does not end in .png."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"plot is {path}: give the name of a .png file")


def save_png(figure: Figure, path: Path) -> Path:
    """Write ``path`` in one piece; `ConfigError` unless it is called .png, `BackendError` where that cannot be."""
    check_png(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(partial, format="png", dpi=120)
        os.replace(partial, path)
    except OSError as error:
        raise BackendError(f"cannot write {path} ({error.strerror or error}): give another --plot") from error
    finally:
        with suppress(OSError):  # of a path through a file, say, which is reported already
            partial.unlink(missing_ok=True)
    return path


def contact_sheet(files: list[Examined]) -> NDArray[np.uint8] | None:
    """Frames of up to `ROWS` episodes, from the worst to the best, tiled (H', W', 3); None without episodes."""
    episodes = sorted(
        (value, number, start, length)
        for number, file in enumerate(files)
        for value, start, length in zip(file.returns, file.starts, file.lengths, strict=True)
        if file.frame_shape == files[0].frame_shape
    )
    if not episodes:
        return None
    chosen = np.unique(np.linspace(0, len(episodes) - 1, ROWS).round().astype(int))
    lines = []
    for _, number, start, length in (episodes[i] for i in chosen):
        moments = start + np.linspace(0, length - 1, COLUMNS).round().astype(int)
        lines.append(np.concatenate([_frame(files[number], int(row)) for row in moments], axis=1))
    return np.concatenate(lines)


def _frame(file: Examined, row: int) -> NDArray[np.uint8]:
    try:
        return read_frame(file.path, row)
    except DataError:  # a damaged frame is among the faults; here it stays black
        _, height, width = file.frame_shape
        return np.zeros((height, width, 3), np.uint8)


def _subtitle(found: Inspection) -> str:
    lines = dict(found.lines)
    names = ("task", "kind", "episodes", "transitions")
    return ", ".join(f"{name} {lines[name]}" for name in names if name in lines)
