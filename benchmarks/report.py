"""What every benchmark shares: arms timed in turn within one process, and a dated record of the result."""

from __future__ import annotations

import json
import logging
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def in_turn(arms: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[dict[str, float]]]:
    """Run every arm once, then ``repeats`` times in turn; wall-clock and CPU seconds of each call.

    In turn, so that whatever else the machine does hits all arms alike: ratios and differences keep their
    meaning on a busy one.
    """
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for turn in range(repeats + 1):
        for name, arm in arms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            arm()
            spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
            if turn:
                seconds[name].append(spent)
    return seconds


def interleaved(arms: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Median wall-clock and CPU seconds of each arm, called `in_turn`."""
    return {
        name: {clock: statistics.median(call[clock] for call in calls) for clock in ("wall_s", "cpu_s")}
        for name, calls in in_turn(arms, repeats).items()
    }


def like_the_command_line() -> None:
    """One thread, and otherwise the allocator and the float32 products of the command line; Lightning quiet."""
    import torch

    from lightning_synther.allocator import keep_freed_memory
    from lightning_synther.stages.trainer.precision import use_fast_float32

    torch.set_num_threads(1)
    keep_freed_memory()
    use_fast_float32()
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def machine(*packages: str) -> dict[str, Any]:
    """Hardware and versions that a figure depends on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if "model name" in line), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def save(name: str, content: dict[str, Any], *packages: str) -> Path:
    """Write ``results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"date": date.today().isoformat(), "machine": machine(*packages), **content}
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, the first one being the head; columns aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
