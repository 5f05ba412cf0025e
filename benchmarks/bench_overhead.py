"""What Lightning's loop, the callbacks and the dataloader add to a gradient update.

Two arms in turn: a bare loop of ``agent.update(batch)`` on one prepared batch, by an agent that no Trainer has, and
the same number of updates through the Trainer that `fit` uses (checkpoint and seeding callbacks, TensorBoard logger,
batches drawn by the data module). The difference, per update, is the framework's own cost, sampling of batches
included. An update takes ten times as long as what is added to it and scatters by as much, so the difference is taken
turn by turn; its median is given with the quartiles.

    python benchmarks/bench_overhead.py --repeats 9
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import in_turn, save, table

from lightning_synther import BC, DrQV2, PixelData, PixelReplay, ReplayData, TransitionSpec
from lightning_synther.allocator import keep_freed_memory
from lightning_synther.data.episodes import Episodes
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.stages.config.sections import StageTraining
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.trainer.training import TrainerFactory


def pixel_case(folder: Path, batch_size: int) -> tuple[Any, Any]:
    """Behaviour cloning on 84 x 84 frames, the cheapest pixel update."""
    rng = np.random.default_rng(0)
    length = 500
    episodes = Episodes(
        rng.integers(0, 256, (length, 3, 84, 84), dtype=np.uint8),
        rng.uniform(-1, 1, (length, 6)).astype(np.float32),
        np.ones(length, np.float32),
        np.ones(length, np.float32),
        np.array([length]),
    )
    env = {"task": "cheetah_run", "observation": "pixels", "image_size": 84}
    agent = BC(observation="pixels", action_dim=6, env=env)
    return agent, PixelData(PixelReplay(episodes, n_step=3), batch_size=batch_size)


def latent_case(folder: Path, batch_size: int) -> tuple[Any, Any]:
    """DrQ-v2+BC heads on 100-dimensional vectors, real and synthetic batches in turn, 10 updates a step."""
    spec = TransitionSpec(observation_dim=100, action_dim=6, discount=0.97)
    rows = np.random.default_rng(0).uniform(-1, 1, (20_000, spec.dim)).astype(np.float32)
    paths = []
    for name in ("real", "synthetic"):
        path = folder / name
        with StoreWriter(
            path, spec, len(rows), seed=0, producer="benchmark", fingerprint=name, chunk_size=len(rows)
        ) as writer:
            writer.write(0, rows)
            writer.commit()
        paths.append(str(path))
    agent = DrQV2(observation="states", observation_dim=100, action_dim=6, hidden_dim=256, bc_weight=2.5)
    return agent, ReplayData(*paths, batch_size=batch_size, updates_per_step=10)


def measure(case: Any, updates: int, batch_size: int, repeats: int) -> dict[str, Any]:
    """CPU milliseconds of one update in both arms, and the differences of all turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        agent, data = case(folder / "trainer", batch_size)
        alone, _ = case(folder / "bare", batch_size)
        data.setup("fit")
        batch = data.batches(range(1))[0]
        factory = TrainerFactory(
            folder, 0, {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
        )
        training = StageTraining(max_steps=updates, updates_per_step=data.updates_per_step)
        # Set-up (process state, logger files) is paid once a stage, not once an update: a run of `updates`
        # is compared with a run of one step, and the start of the Trainer drops out.
        short = StageTraining(max_steps=data.updates_per_step, updates_per_step=data.updates_per_step)
        count = updates - data.updates_per_step

        def bare() -> None:
            for _ in range(count):
                alone.update(batch)

        def through_trainer(steps: StageTraining) -> None:
            agent._optimizers_by_name = {}
            factory.trainer(Stage(folder, "stage", {}), steps).fit(agent, datamodule=data)

        turns = in_turn(
            {
                "bare": bare,
                "trainer": lambda: through_trainer(training),
                "start": lambda: through_trainer(short),
            },
            repeats,
        )
    spent = {arm: np.array([call["cpu_s"] for call in calls]) for arm, calls in turns.items()}
    added = 1000 * (spent["trainer"] - spent["start"] - spent["bare"]) / count
    return {
        "bare_cpu_ms": float(1000 * np.median(spent["bare"]) / count),
        "overhead_cpu_ms": np.quantile(added, [0.25, 0.5, 0.75]).tolist(),
        "turns_cpu_ms": added.tolist(),
    }


def main() -> None:
    """Measure both cases, print a table, write results/overhead.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    cases = {
        "pixels, BC, batch 128": (pixel_case, 20, 128),
        "latents, DrQ-v2+BC, batch 256": (latent_case, 1000, 256),
    }
    results = {name: measure(*case, args.repeats) for name, case in cases.items()}
    rows = [["case", "bare ms", "overhead ms", "quartiles", "overhead"]]
    for name, figures in results.items():
        bare, (low, added, high) = figures["bare_cpu_ms"], figures["overhead_cpu_ms"]
        rows.append([name, f"{bare:.2f}", f"{added:.2f}", f"{low:.2f} to {high:.2f}", f"{added / bare:.1%}"])
    print(table(rows))
    save(
        "overhead", {"threads": args.threads, "repeats": args.repeats, "cases": results}, "torch", "lightning"
    )


if __name__ == "__main__":
    main()
