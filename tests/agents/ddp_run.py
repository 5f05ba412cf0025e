"""Train on one process or on two and write the parameters: ``python -m tests.agents.ddp_run DEVICES
FOLDER``.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from lightning_synther.agents import BC, EDAC, Agent, DrQV2
from lightning_synther.envs.control import EnvConfig
from lightning_synther.evaluation.episodes import EpisodeSeeds
from lightning_synther.transition import Transition
from tests.agents.test_algorithms import ALGORITHMS
from tests.agents.tiny import loader, make, make_batch, trainer

ENV = EnvConfig("cartpole_balance", observation="states", time_limit=0.1).to_dict()
CASES: dict[str, tuple[type[Agent], dict[str, Any], str]] = {
    "drqv2_bc": (DrQV2, {"bc_weight": 2.5}, "ddp_find_unused_parameters_true"),
    "drqv2": (DrQV2, {"bc_weight": None}, "ddp"),
    "bc": (BC, {}, "ddp_find_unused_parameters_true"),
}
CASES |= {
    cls.__name__: (cls, {"observation": "pixels", **settings}, "ddp") for cls, settings in ALGORITHMS.items()
}
STATES = {"observation": "states", "observation_dim": 5, "image_size": None, "feature_dim": None}
OPTIONS = {"residual": True, "normalize_states": True, "num_critics": 3}
CASES["states_residual_normalized"] = (EDAC, {**STATES, **OPTIONS}, "ddp")


def split(cls: type[Agent]) -> type[Agent]:
    """The agent, on this rank's share of every batch and of every draw."""

    class Split(cls):
        def update(self, batch: Transition, draws: Any = None) -> dict[str, torch.Tensor]:
            torch.manual_seed(self.num_updates)
            draws = self.draw(batch)
            rank, ranks = self.global_rank, self.trainer.world_size
            share = Transition(*(tensor.chunk(ranks)[rank] for tensor in batch))
            return super().update(share, share_of(draws, len(batch.action), rank, ranks))

    return Split


def share_of(draws: Any, batch_size: int, rank: int, ranks: int) -> Any:
    """A rank's share of random numbers: the batch is their first dimension, or the one before the last."""
    if isinstance(draws, tuple):
        shares = [share_of(draw, batch_size, rank, ranks) for draw in draws]
        return type(draws)(*shares) if hasattr(draws, "_fields") else tuple(shares)
    if len(draws) == batch_size:
        return draws.chunk(ranks)[rank]
    return draws.chunk(ranks, dim=-2)[rank] if draws.dim() == 3 else draws


def main(devices: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    for name, (cls, settings, strategy) in CASES.items():
        agent = make(split(cls), **settings)
        if settings.get("normalize_states"):
            agent.fit_normalizer(make_batch(0, 64, agent.perception.shape).observation * 2 + 1)
        run = trainer(12, devices=devices, strategy=strategy if devices > 1 else "auto", precision="64-true")
        run.fit(agent, loader(agent, updates_per_step=3, shape=agent.perception.shape))
        assert run.global_step == agent.num_updates == 12
        torch.save(agent.state_dict(), folder / f"{name}.{devices}.{run.global_rank}.pt")

    evaluate(devices, folder)


def evaluate(devices: int, folder: Path) -> None:
    """Three episodes: with two ranks one of them runs one that the other has, too."""
    agent = make(
        BC, observation="states", observation_dim=5, action_dim=1, env=ENV, image_size=None, feature_dim=None
    )
    agent.eval_workers = 0
    run = trainer(1, devices=devices, strategy="ddp" if devices > 1 else "auto")
    run.validate(agent, DataLoader(EpisodeSeeds([5, 6, 7]), batch_size=1), verbose=False)
    (folder / f"scores.{devices}.{run.global_rank}.json").write_text(json.dumps(agent.eval_results))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
