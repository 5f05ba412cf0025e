"""Rendering a dataset: frames a second of `collect` against a plain loop, and its peak memory.

    python benchmarks/bench_collect.py [--episodes 4] [--seconds 5] [--repeats 3]

Arms take turns in one run: the plain loop (one process, dm_control's render, h5py's gzip), then `collect` in the
calling process, with one and with two worker processes. Their frames are compared first. Wall-clock only: the
workers' CPU seconds are not the caller's. Memory is the proportional set size of a `collect` command with all its
processes, sampled while it runs, for a dataset and for one three times as large.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from report import interleaved, save, table

from lightning_synther.envs.tasks import use_headless_rendering

use_headless_rendering()

from yardsticks import plain_collection  # noqa: E402 (dm_control picks its platform when it is imported)

from lightning_synther.online.collect import collect  # noqa: E402

TASK, POLICY = "cheetah_run", "medium"


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(process for child in children for process in tree(int(child)))]


def proportional_set_size(pid: int) -> int:
    """Bytes of memory of a process, pages that it shares counted in part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def peak_memory(episodes: int, seconds: float, num_workers: int) -> int:
    """Peak bytes of a `collect` command and its workers together."""
    with tempfile.TemporaryDirectory() as root:
        command = [
            sys.executable,
            "-m",
            "lightning_synther",
            "collect",
            f"--task={TASK}",
            f"--policy={POLICY}",
        ]
        command += [f"--root={root}", f"--episodes={episodes}", f"--time_limit={seconds}", "--progress=false"]
        process = subprocess.Popen([*command, f"--num_workers={num_workers}"])
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(proportional_set_size, tree(process.pid))))
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
    return peak


def arms(scratch: Path, episodes: int, seconds: float) -> dict[str, Callable[[], object]]:
    """Every way to make the dataset."""

    def ours(num_workers: int) -> Path:
        root = scratch / f"workers_{num_workers}"
        shutil.rmtree(root, ignore_errors=True)
        options = {"episodes": episodes, "time_limit": seconds, "progress": False, "root": str(root)}
        return collect(TASK, POLICY, num_workers=num_workers, **options)

    return {
        "plain loop": lambda: plain_collection.collect(
            TASK, POLICY, scratch / "plain.hdf5", episodes, seconds
        ),
        "collect, no worker process": lambda: ours(0),
        "collect, 1 worker": lambda: ours(1),
        "collect, 2 workers": lambda: ours(2),
    }


def main() -> None:
    """Run all and write benchmarks/results/collect.json."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="simulated, of an episode; cheetah's own: 10"
    )
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ways = arms(Path(scratch), args.episodes, args.seconds)
        timed = interleaved(ways, args.repeats)
        with h5py.File(f"{scratch}/plain.hdf5") as plain:
            frames = plain["observation"][:]
        with h5py.File(next(Path(scratch).glob("workers_2/**/*.hdf5"))) as file:
            if not np.array_equal(file["observation"][:], frames[: len(file["observation"])]):
                raise SystemExit("the plain loop and collect rendered different frames")
    peaks = {
        f"{count} episodes, {workers} workers": peak_memory(count, args.seconds, workers) / 1e6
        for count, workers in ((args.episodes, 1), (args.episodes, 2), (3 * args.episodes, 2))
    }
    base = timed["plain loop"]["wall_s"]
    rows = [("what", "frames a second", "ratio")]
    rows += [
        (name, f"{len(frames) / taken['wall_s']:.1f}", f"{base / taken['wall_s']:.2f}x")
        for name, taken in timed.items()
    ]
    print(table(rows))
    for name, peak in peaks.items():
        print(f"peak memory, {name}: {peak:.0f} MB")
    content = {"frames": len(frames), "wall_s": {n: t["wall_s"] for n, t in timed.items()}, "peak_mb": peaks}
    print(f"written to {save('collect', content, 'dm-control', 'mujoco', 'h5py', 'lightning-synther')}")


if __name__ == "__main__":
    main()
