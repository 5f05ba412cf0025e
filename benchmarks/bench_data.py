"""Loading V-D4RL's HDF5 files and sampling pixel transitions, against the published way.

    python benchmarks/bench_data.py [--frames 25050] [--repeats 5]

Renders two episodes of cheetah_run, repeats them to the size of an official file, writes it as h5py does by
default (gzip, its own chunks), and measures, all arms in turn in one process: first load, later load, peak
memory of a load (each in a fresh process), one batch of 256 with shift.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from report import interleaved, save, table
from yardsticks import pixel_replay

from lightning_synther.data.replay import PixelReplay
from lightning_synther.data.vd4rl import Hdf5Writer, load_vd4rl
from lightning_synther.envs.control import ControlEnv, EnvConfig

BATCH, N_STEP, LENGTH = 256, 3, 501

PEAK = """
import sys, re
sys.path[:0] = [{benchmarks!r}]
from pathlib import Path
from lightning_synther.data.vd4rl import load_vd4rl
from yardsticks import pixel_replay
def status(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before = status("VmRSS")
{call}
print(status("VmHWM") - before)
"""


def render(num_rows: int) -> np.ndarray:
    """Frames (num_rows, 3, 84, 84) of cheetah_run under a random policy, two episodes over and over."""
    env = ControlEnv(EnvConfig("cheetah_run", frame_stack=1), seed=0)
    rng = np.random.default_rng(0)
    frames = []
    for episode in range(2):
        frames.append(env.reset(seed=episode))
        for _ in range(LENGTH - 1):
            frames.append(env.step(rng.uniform(-1, 1, env.action_dim)).observation)
    return np.resize(np.stack(frames), (num_rows, *frames[0].shape))


def write_files(folder: Path, frames: np.ndarray) -> tuple[Path, Path]:
    """The same episodes as h5py writes them by default, and as `Hdf5Writer` does."""
    num_rows = len(frames)
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (num_rows, 6)).astype(np.float32)
    reward = rng.uniform(size=num_rows).astype(np.float32)
    discount = np.ones(num_rows, np.float32)
    step_type = np.ones(num_rows, np.int64)
    step_type[::LENGTH], step_type[LENGTH - 1 :: LENGTH] = 0, 2
    action[::LENGTH], reward[::LENGTH] = 0, 0
    official, ours = folder / "official" / "0.hdf5", folder / "ours" / "0.hdf5"
    official.parent.mkdir(parents=True)
    arrays = {"observation": frames, "action": action, "reward": reward, "discount": discount}
    with h5py.File(official, "w") as file:
        for key, values in {**arrays, "step_type": step_type}.items():
            file.create_dataset(key, data=values, compression="gzip")
    with Hdf5Writer(ours) as writer:
        for start in range(0, num_rows, LENGTH):
            rows = slice(start, start + LENGTH)
            writer.append(frames[rows], action[rows], reward[rows], discount[rows])
    return official, ours


def first_load(path: Path) -> None:
    """Load with the cache removed."""
    shutil.rmtree(path.parent / ".cache", ignore_errors=True)
    load_vd4rl(path.parent)


def peak_bytes(call: str) -> int:
    """Peak resident memory of a fresh process that runs ``call``, above what its imports take."""
    code = PEAK.format(benchmarks=str(Path(__file__).parent), call=call)
    return int(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )


def bench_loading(official: Path, ours: Path, num_rows: int, repeats: int) -> dict[str, Any]:
    """Frames a second of a first load, seconds of a later one, peak memory relative to the frames."""
    ring = pixel_replay.load(official)
    assert ring.frames is not None
    for path in (official, ours):
        first_load(path)  # the ring repeats an episode's first frame three times
        assert np.array_equal(ring.frames[2 : LENGTH + 2], load_vd4rl(path.parent).frames[:LENGTH])
    del ring
    seconds = interleaved(
        {
            "per time step": lambda: pixel_replay.load(official),
            "first load": lambda: first_load(official),
            "first load, 1 thread, no cache": lambda: load_vd4rl(official.parent, cache=False, num_threads=1),
            "first load of our own file": lambda: first_load(ours),
        },
        repeats,
    )
    load_vd4rl(official.parent)
    seconds |= interleaved({"later load": lambda: load_vd4rl(official.parent)}, 20)
    shutil.rmtree(official.parent / ".cache")
    frame_bytes = num_rows * 3 * 84 * 84
    peaks = {
        "per time step": peak_bytes(f"x = pixel_replay.load(Path({str(official)!r}))") / frame_bytes,
        "first load": peak_bytes(f"x = load_vd4rl({str(official.parent)!r})") / frame_bytes,
        "without cache": peak_bytes(f"x = load_vd4rl({str(official.parent)!r}, cache=False)") / frame_bytes,
    }
    sizes = {"h5py": official.stat().st_size / num_rows, "Hdf5Writer": ours.stat().st_size / num_rows}
    return {"frames": num_rows, "seconds": seconds, "peak_over_frames": peaks, "file_bytes_a_frame": sizes}


def bench_sampling(path: Path, repeats: int) -> dict[str, Any]:
    """One batch of 256 transitions, both observations shifted."""
    ring = pixel_replay.load(path, n_step=N_STEP)
    replay = PixelReplay(load_vd4rl(path.parent), n_step=N_STEP)
    rng = np.random.default_rng(0)

    def published(slots: np.ndarray | None = None, shifts: np.ndarray | None = None) -> list[torch.Tensor]:
        arrays = ring.sample(BATCH, rng) if slots is None else ring.gather(slots)
        batch = [torch.from_numpy(array).float() for array in arrays]
        for which, field in enumerate((0, 4)):
            draws = torch.randint(0, 9, (BATCH, 2)) if shifts is None else torch.from_numpy(shifts[which])
            batch[field] = pixel_replay.random_shift(batch[field], draws.float())
        return batch

    index = rng.integers(0, replay.num_transitions, BATCH)
    shifts = replay.draw_shifts((2, BATCH), rng)
    wanted = published(np.flatnonzero(ring.valid)[index], shifts)
    check_equal(replay, index, shifts, wanted)

    def as_float() -> None:
        batch = replay.sample(BATCH, rng)
        batch.observation.float(), batch.next_observation.float()

    arms = {
        "numpy gather + grid_sample": published,
        "sample": lambda: replay.sample(BATCH, rng),
        "sample, then to float": as_float,
        "gather without shift": lambda: replay.sample(BATCH, rng, shift=False),
    }
    return {"batch": BATCH, "threads": torch.get_num_threads(), "seconds": interleaved(arms, repeats)}


def check_equal(replay: PixelReplay, index: Any, shifts: Any, wanted: list[torch.Tensor]) -> None:
    """Both ways give the same batch; grid_sample is off by up to a few thousandths of a grey level."""
    observation, action, reward, next_observation, discount = replay.gather(index, shifts)
    found = (observation, action, reward, discount, next_observation)
    for got, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(got.float(), expected, atol=5e-3, rtol=1e-5)


def main() -> None:
    """Run all and write benchmarks/results/data.json."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--frames", type=int, default=50 * LENGTH, help="rows of the file, whole episodes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch while sampling")
    args = parser.parse_args()
    num_rows = args.frames - args.frames % LENGTH
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        official, ours = write_files(Path(scratch), render(num_rows))
        loading = bench_loading(official, ours, num_rows, args.repeats)
        sampling = bench_sampling(official, 4 * args.repeats)
    report(loading, sampling)


def report(loading: dict[str, Any], sampling: dict[str, Any]) -> None:
    """Print the table and write the record."""
    rows = [("what", "wall", "CPU", "wall ratio", "CPU ratio")]
    for part in (loading, sampling):
        base = next(iter(part["seconds"].values()))
        for name, taken in part["seconds"].items():
            ratios = [f"{base[key] / taken[key]:,.1f}x" for key in ("wall_s", "cpu_s")]
            rows.append((name, *(f"{1e3 * taken[key]:,.2f} ms" for key in ("wall_s", "cpu_s")), *ratios))
    print(table(rows))
    for name, peak in loading["peak_over_frames"].items():
        print(f"peak memory, {name}: {peak:.2f} x the frames")
    content = {"loading": loading, "sampling": sampling}
    path = save("data", content, "numpy", "torch", "h5py", "deflate", "lightning-synther")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
