"""Retraining the diffusion model of an online run against the agent's updates between two retrainings.

    python -m lightning_synther collect-states --task=cheetah_run --policy=medium --episodes=20 --seed=0 --path=REAL
    python -m lightning_synther collect-states --task=cheetah_run --policy=medium --episodes=10 --seed=1 --path=HELDOUT
    python benchmarks/bench_resynthesis.py --real REAL [--heldout HELDOUT] [--settings published small ...] [--quality]

For every setting: CPU seconds of a diffusion update and of sampling 1,000 transitions (medians, arms interleaved with
the agent's updates), hence of one whole resynthesis, beside those of the agent's updates in ``--every`` agent steps at
``--utd``. With ``--quality`` each model is trained to its end on the rows of REAL, and its samples compared
with HELDOUT, beside what real rows score (``floor``). bf16, as the command line has it on CPUs that multiply it.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from report import interleaved, save, table

from lightning_synther.agents import SAC
from lightning_synther.allocator import keep_freed_memory
from lightning_synther.data.datamodules import RowData
from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.synthesis.fidelity import fidelity
from lightning_synther.transition import Transition, TransitionSpec

FEW_STEPS = {"sampler": "dpmpp_2m_sde", "sigma_min": 0.1, "sigma_max": 20.0, "rho": 12.0}
#: Arguments of the model, gradient updates, and transitions that are sampled.
SETTINGS: dict[str, tuple[dict[str, Any], int, int]] = {
    "published": ({"width": 1024, "num_layers": 6, "time_dim": 256}, 100_000, 1_000_000),
    "width 1024": ({"width": 1024, "num_layers": 6, "num_sampling_steps": 15, **FEW_STEPS}, 10_000, 200_000),
    "width 512": ({"width": 512, "num_layers": 4, "num_sampling_steps": 15, **FEW_STEPS}, 10_000, 200_000),
    "width 256": ({"width": 256, "num_layers": 4, "num_sampling_steps": 15, **FEW_STEPS}, 10_000, 200_000),
    "width 256, short": (
        {"width": 256, "num_layers": 3, "num_sampling_steps": 15, **FEW_STEPS},
        5_000,
        200_000,
    ),
}
BATCH, TIMED_ROWS = 256, 1_000
SHOWN = ("ks_mean", "correlation_error", "sliced_wasserstein", "dynamics_error", "reward_error")


def build(spec: TransitionSpec, setting: dict[str, Any], num_updates: int) -> LatentDiffusion:
    """An untrained model, as the online configs have it."""
    torch.manual_seed(0)
    options = {"skip_fields": ("reward",), "num_training_steps": num_updates, **setting}
    return LatentDiffusion(spec.to_dict(), sampling_dtype="bfloat16", **options)


def trainer(max_steps: int) -> pl.Trainer:
    """A Trainer that shows and keeps nothing."""
    return pl.Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_steps=max_steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Timed:
    """``count`` diffusion updates at a time, inside one Trainer."""

    def __init__(self, store: str, setting: dict[str, Any], num_updates: int, count: int) -> None:
        spec = TransitionStore.open(store).spec
        self.model, self.count = build(spec, setting, num_updates), count
        self.data = RowData(store, batch_size=BATCH, updates_per_step=10)
        trainer(10).fit(self.model, self.data)  # optimizers, and the normaliser

    def train(self) -> None:
        """Some updates, without a Trainer's start."""
        batches = self.data.batches(range(self.count))
        with torch.autocast("cpu", torch.bfloat16):
            for batch in batches:
                self.model.update(batch)

    def sample(self) -> None:
        """Some rows."""
        self.model.sample(TIMED_ROWS, seed=0)


def agent_updates(spec: TransitionSpec, count: int, actor_every: int) -> Callable[[], None]:
    """``count`` updates of the agent between which it is retrained."""
    agent = SAC(
        observation_dim=spec.observation_dim,
        action_dim=spec.action_dim,
        layer_norm=False,
        actor_every=actor_every,
    )
    states = torch.randn(2, BATCH, spec.observation_dim)
    action, ones = torch.rand(BATCH, spec.action_dim) * 2 - 1, torch.ones(BATCH, 1)
    batch = Transition(states[0], action, ones, states[1], 0.99 * ones)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            for _ in range(count):
                agent.update(batch)

    return run


def quality(args: argparse.Namespace, setting: dict[str, Any], num_updates: int) -> dict[str, float]:
    """Scores of a fully trained model."""
    real, heldout = TransitionStore.open(args.real), TransitionStore.open(args.heldout)
    model = build(real.spec, setting, num_updates)
    trainer(num_updates).fit(model, RowData(args.real, batch_size=BATCH, updates_per_step=10))
    rows = model.sample(len(real), seed=1).float().numpy()
    return fidelity(real.rows, np.asarray(rows), heldout.rows, real.spec).scores


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", required=True)
    parser.add_argument("--heldout")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--every", type=int, default=10_000, help="agent steps between two retrainings")
    parser.add_argument("--utd", type=int, default=20)
    parser.add_argument("--actor_every", type=int, default=20)
    parser.add_argument("--count", type=int, default=20, help="updates in a turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.quality and args.heldout is None:
        parser.error("--quality needs --heldout")
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    keep_freed_memory()
    spec = TransitionStore.open(args.real).spec
    arms: dict[str, Callable[[], Any]] = {"agent": agent_updates(spec, args.count, args.actor_every)}
    for name in args.settings:
        model, updates, _ = SETTINGS[name]
        timed = Timed(args.real, model, updates, args.count)
        arms |= {f"{name} train": timed.train, f"{name} sample": timed.sample}
    taken = interleaved(arms, args.repeats)
    between = taken["agent"]["cpu_s"] / args.count * args.every * args.utd
    rows = [["setting", "ms an update", "s training", "s sampling", "of the agent's updates"]]
    rows.append(["agent", f"{taken['agent']['cpu_s'] / args.count * 1e3:.2f}", f"{between:.0f}", "", "1.00"])
    results: dict[str, Any] = {"agent": {"s_between": between}}
    for name in args.settings:
        _, updates, count = SETTINGS[name]
        update = taken[f"{name} train"]["cpu_s"] / args.count
        training, sampling = update * updates, taken[f"{name} sample"]["cpu_s"] / TIMED_ROWS * count
        share = (training + sampling) / between
        results[name] = {"s_training": training, "s_sampling": sampling, "share": share}
        rows.append([name, f"{update * 1e3:.2f}", f"{training:.0f}", f"{sampling:.0f}", f"{share:.2f}"])
    print(table(rows), flush=True)
    if args.quality:
        results |= judge(args, results)
    # No folder of whoever measured.
    settings = {
        key: Path(str(value)).name if key in ("real", "heldout") else value
        for key, value in vars(args).items()
    }
    print(save("resynthesis", {"settings": settings, "seconds": taken, "results": results}, "torch"))


def judge(args: argparse.Namespace, results: dict[str, Any]) -> dict[str, Any]:
    """Quality of every setting, printed as it comes; added to its results."""
    for name in args.settings:
        model, updates, _ = SETTINGS[name]
        scores = quality(args, model, updates)
        results[name]["fidelity"] = scores
        figures = [f"{key} {scores[key]:.4f} ({scores[f'{key}_floor']:.4f})" for key in SHOWN]
        print(f"{name}: {', '.join(figures)}", flush=True)
    return results


if __name__ == "__main__":
    main()
