"""Gradient updates of the pixel agents against the published computation.

    python benchmarks/bench_update.py [--batch 256] [--repeats 5] [--agents drqv2_bc cql bc] [--threads 1]

All arms run in turn in one process: the published way in float32 (`yardsticks/`), the package's
agent in float32, and the agent under bf16 autocast. An update starts from uint8 frames and includes the
random shift: the yardstick resamples with grid_sample, the agents get an integer crop. ``--mallopt`` first
tells glibc to keep freed memory, in all arms alike.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable
from typing import Any

import torch
from report import interleaved, save, table
from yardsticks import cql, drqv2

from lightning_synther.agents import BC, CQL, DrQV2
from lightning_synther.networks.augmentation import draw_shifts, random_shift
from lightning_synther.transition import Transition

ACTION_DIM, STD, NUM_RANDOM = 6, 0.55, 10
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def make_batch(size: int) -> Transition:
    """Random frames and actions; nothing here depends on their values."""
    frames = torch.randint(0, 256, (2, size, 9, 84, 84), dtype=torch.uint8)
    action, reward = torch.rand(size, ACTION_DIM) * 2 - 1, torch.rand(size, 1)
    return Transition(frames[0], action, reward, frames[1], torch.full((size, 1), 0.99**3))


def arms(kind: str, batch: Transition) -> dict[str, Callable[[], Any]]:
    """The published update and the agent's, on the same batch."""
    size = len(batch.action)

    def published_drqv2_bc() -> None:
        yardstick.update(
            tuple(batch), STD, draw_shifts(2 * size, 4).view(2, size, 2), torch.randn(2, size, ACTION_DIM)
        )

    def published_cql() -> None:
        many = (size, NUM_RANDOM, ACTION_DIM)
        yardstick.update(
            tuple(batch),
            STD,
            draw_shifts(2 * size, 4).view(2, size, 2),
            torch.randn(2, size, ACTION_DIM),
            2 * torch.rand(many) - 1,
            torch.randn(2, *many),
        )

    def published_bc() -> None:
        noise = torch.randn(size, ACTION_DIM)
        yardstick.update(batch.observation, batch.action, batch.reward, STD, draw_shifts(size, 4), noise)

    def ours(agent: Any, bf16: bool) -> Callable[[], None]:
        def update() -> None:
            shifted = batch._replace(observation=random_shift(batch.observation, draw_shifts(size, 4), 4))
            if kind != "bc":
                next_observation = random_shift(batch.next_observation, draw_shifts(size, 4), 4)
                shifted = shifted._replace(next_observation=next_observation)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
                agent.update(shifted)

        return update

    settings = {"action_dim": ACTION_DIM, "stddev_schedule": str(STD)}
    if kind == "bc":
        yardstick: Any = drqv2.BC(ACTION_DIM)
        agents = [BC(**settings) for _ in range(2)]
        published = published_bc
    elif kind == "cql":
        yardstick = cql.CQL(ACTION_DIM, num_random=NUM_RANDOM)
        agents = [CQL(**settings, num_random=NUM_RANDOM, min_q_weight=10.0) for _ in range(2)]
        published = published_cql
    else:
        yardstick = drqv2.DrQV2BC(ACTION_DIM)
        agents = [DrQV2(**settings, bc_weight=2.5) for _ in range(2)]
        published = published_drqv2_bc
    return {
        f"{kind} published": published,
        f"{kind} float32": ours(agents[0], bf16=False),
        f"{kind} bf16": ours(agents[1], bf16=True),
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    kinds = ["drqv2_bc", "cql", "bc"]
    parser.add_argument("--agents", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--mallopt", action="store_true", help="keep freed memory (glibc), in all arms")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.mallopt:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    batch, taken = make_batch(args.batch), {}
    for kind in args.agents:
        taken |= interleaved(arms(kind, batch), args.repeats)
    rows = [["update", "wall ms", "cpu ms", "times (cpu)"]]
    for name, seconds in taken.items():
        base = taken[f"{name.split()[0]} published"]["cpu_s"]
        seconds["speedup"] = base / seconds["cpu_s"]
        milliseconds = [f"{seconds[key] * 1e3:.0f}" for key in ("wall_s", "cpu_s")]
        rows.append([name, *milliseconds, f"{seconds['speedup']:.2f}"])
    print(table(rows))
    suffix = "_mallopt" if args.mallopt else ""
    print(save(f"update{suffix}", {"settings": vars(args), "seconds": taken}, "torch"))


if __name__ == "__main__":
    main()
