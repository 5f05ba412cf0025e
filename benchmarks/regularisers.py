"""Is what synthetic replay brings only regularisation? Heads trained on real latents alone, regularised by other means.

    python benchmarks/regularisers.py RUNS... [--arms noise mixup ...] [--output runs/regularisers]

Each of RUNS is a finished run of `configs/scale/small_data.yaml` with `comparison.real_only`. Its real store, its
frozen encoder, its agent's settings, its number of updates, its seed and its evaluation episodes are taken over; what
an arm changes is said in `ARMS`. The run's own arms stand beside them in the table. Every result is kept in
``regularisers.json`` as soon as it is there; the same command goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_report import write_json
from report import like_the_command_line, machine, table
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lightning_synther import (
    BC,
    ReplayData,
    Transition,
    TransitionStore,
    load_checkpoint,
    run_episodes,
    train,
)
from lightning_synther.evaluation.episodes import episode_seed
from lightning_synther.evaluation.scores import standard_error
from lightning_synther.seeding import derive_seed
from lightning_synther.stages.results.arms import scores_by_arm


@dataclass(frozen=True)
class Regulariser:
    """How an arm differs from behaviour cloning on real latents.

    Attributes:
        noise: standard deviation of Gaussian noise on latents, in units of each latent's own.
        mixup: alpha of the Beta distribution by which pairs of transitions are blended (Zhang et al. 2018).
        dropout: share of hidden units left out.
        weight_decay: of AdamW (Loshchilov & Hutter 2019), on weights and biases alike.
        updates: share of the updates, the learning rate's schedule with them.
    """

    noise: float = 0.0
    mixup: float = 0.0
    dropout: float = 0.0
    weight_decay: float = 0.0
    updates: float = 1.0


#: What a sceptic would try instead of a diffusion model.
ARMS = {
    "noise": Regulariser(noise=0.3),
    "mixup": Regulariser(mixup=0.4),
    "dropout": Regulariser(dropout=0.2),
    "weight_decay": Regulariser(weight_decay=0.1),
    "early_stop": Regulariser(updates=1 / 6),
}


class RegularisedBC(BC):
    """Behaviour cloning with dropout or weight decay."""

    def __init__(self, *, dropout: float = 0.0, weight_decay: float = 0.0, **base: Any) -> None:
        self.weight_decay = weight_decay
        super().__init__(**base)
        if dropout:
            policy = self.actor.policy
            policy.twice_differentiable = True  # layer by layer: as one function it knows of no dropout
            for index in reversed([i for i, layer in enumerate(policy) if isinstance(layer, nn.ReLU)]):
                policy.insert(index + 1, nn.Dropout(dropout))

    def make_optimizers(self) -> dict[str, Optimizer]:
        """AdamW where weights decay."""
        if not self.weight_decay:
            return super().make_optimizers()
        parameters = [*self.actor.parameters(), *self.encoder.parameters()]
        return {"actor": AdamW(parameters, self.lr, weight_decay=self.weight_decay, fused=True)}


class RegularisedData(ReplayData):
    """Real transitions with noise on their latents, or blended in pairs."""

    def __init__(self, store: str, arm: Regulariser, seed: int) -> None:
        super().__init__(store, mixing="real", seed=seed)
        self.arm = arm

    def batches(self, updates: range) -> list[Transition]:
        """Behaviour cloning looks at observation and action only."""
        deviation = self.states().std(dim=0)
        found = super().batches(updates)
        for update, batch in zip(updates, found, strict=True):
            rng = np.random.default_rng(derive_seed(self.seed, "regulariser", update))
            if self.arm.noise:
                noise = torch.from_numpy(rng.standard_normal(batch.observation.shape, dtype=np.float32))
                batch.observation.add_(noise * deviation * self.arm.noise)
            if self.arm.mixup:
                size = len(batch.action)
                share = torch.from_numpy(rng.beta(self.arm.mixup, self.arm.mixup, (size, 1))).float()
                other = torch.from_numpy(rng.permutation(size))
                batch.observation.copy_(_blend(batch.observation, other, share))
                batch.action.copy_(_blend(batch.action, other, share))
        return found


def _blend(values: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return share * values + (1 - share) * values[other]


def heads(run: Path, arm: Regulariser) -> tuple[BC, float]:
    """Heads trained as the run's on real data were, but for what ``arm`` changes; and their training's seconds."""
    pattern = load_checkpoint(run / "agent_real_only" / "final.ckpt")
    record = json.loads((run / "agent_real_only" / "stage.json").read_text())["inputs"]
    torch.manual_seed(derive_seed(record["seed"], "regularisers") % 2**32)
    agent = RegularisedBC(dropout=arm.dropout, weight_decay=arm.weight_decay, **pattern.hparams)
    agent.pixel_encoder.load_state_dict(pattern.pixel_encoder.state_dict())
    data = RegularisedData(str(run / "latents" / "train"), arm, record["seed"])
    updates = round(record["max_steps"] * arm.updates / data.updates_per_step) * data.updates_per_step
    started = time.perf_counter()
    train(agent, data, updates, seed=record["seed"], precision="32-true")
    return agent, time.perf_counter() - started


def result(run: Path, arm: Regulariser) -> dict[str, Any]:
    """Returns on the run's own evaluation episodes; the action's squared error on the episodes that it held out."""
    agent, seconds = heads(run, arm)
    heldout = TransitionStore.open(run / "latents" / "heldout")
    batch = heldout.spec.unflatten(heldout.load())
    error = (agent.policy(batch.observation) - batch.action).square().mean().item()
    inputs = json.loads((run / "evaluation_real_only" / "stage.json").read_text())["inputs"]
    seeds = [episode_seed(inputs["seed"], index) for index in range(inputs["episodes"])]
    episodes = run_episodes(agent.policy, agent.env, seeds)
    return {"returns": [episode.episode_return for episode in episodes], "error": error, "seconds": seconds}


def show(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Mean returns: a line for each arm, a column for each run, and the mean of the runs' means."""
    runs = list(results)
    lines = [["arm", *runs, "mean of the runs"]]
    for name in dict.fromkeys(name for run in results.values() for name in run):
        means = [np.mean(results[run][name]["returns"]) if name in results[run] else np.nan for run in runs]
        there = [mean for mean in means if not np.isnan(mean)]
        summary = f"{np.mean(there):.0f} +- {standard_error(there):.0f} ({len(there)})"
        lines.append([name, *("" if np.isnan(mean) else f"{mean:.0f}" for mean in means), summary])
    return table(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--output", type=Path, default=Path("runs/regularisers"))
    args = parser.parse_args()
    like_the_command_line()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "regularisers.json"
    record = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    for run in args.runs:
        scores = scores_by_arm(json.loads((run / "summary.json").read_text()))
        found = record["runs"].setdefault(run.name, {})
        found |= {name: {"returns": score["returns"]} for name, score in scores.items()}
    missing: list[tuple[Path, str, Callable[[], dict[str, Any]]]] = [
        (run, name, lambda run=run, name=name: result(run, ARMS[name]))
        for name in args.arms
        for run in args.runs
        if name not in record["runs"][run.name]
    ]
    for done, (run, name, compute) in enumerate(missing, start=1):
        started = time.perf_counter()
        record["runs"][run.name][name] = compute()
        record |= {"date": time.strftime("%Y-%m-%d"), "machine": machine("torch", "lightning", "dm-control")}
        write_json(path, record)
        mean = np.mean(record["runs"][run.name][name]["returns"])
        spent = time.perf_counter() - started
        print(f"{done}/{len(missing)} {run.name} {name}: return {mean:.0f}, {spent:.0f} s", flush=True)
    print(show(record["runs"]))


if __name__ == "__main__":
    main()
