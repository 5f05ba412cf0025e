"""Every algorithm on every kind of observation: it trains, counts, reloads, and refuses what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_synther.agents import BC, CQL, CQLSAC, EDAC, IQL, REDQ, SAC, TD3BC, Agent, DrQV2
from lightning_synther.errors import ConfigError
from tests.agents.tiny import SIZES, loader, make, make_batch, trainer

ALGORITHMS: dict[type[Agent], dict[str, Any]] = {
    CQL: {"with_lagrange": True, "num_random": 3},
    CQLSAC: {"cql_lagrange": True, "cql_n_actions": 3},
    TD3BC: {},
    IQL: {"max_steps": 10},
    EDAC: {"num_critics": 4},
    REDQ: {"num_critics": 4, "utd_ratio": 2},
    SAC: {},
}


@pytest.fixture(scope="module")
def stage1(tmp_path_factory: pytest.TempPathFactory) -> dict[type[Agent], str]:
    """Checkpoints of pixel agents."""
    folder, paths = tmp_path_factory.mktemp("stage1"), {}
    for cls in (BC, DrQV2):
        agent = make(cls)
        run = trainer(1)
        run.fit(agent, loader(agent))
        paths[cls] = str(folder / f"{cls.__name__}.ckpt")
        run.save_checkpoint(paths[cls])
    return paths


def build(cls: type[Agent], observation: str, encoder: str, **settings: Any) -> Agent:
    torch.manual_seed(0)
    settings = ALGORITHMS[cls] | settings
    if observation == "pixels":
        return make(cls, observation="pixels", **settings)
    if observation == "latents":
        return cls(observation="latents", hidden_dim=16, encoder_checkpoint=encoder, **settings)
    return cls(**{**SIZES, "observation": "states", "observation_dim": 5, **settings})


def trained(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in agent.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("observation", ["pixels", "latents", "states"])
@pytest.mark.parametrize("cls", ALGORITHMS)
def test_trains_and_reloads(
    cls: type[Agent], observation: str, stage1: dict[type[Agent], str], tmp_path: Path
) -> None:
    agent = build(cls, observation, stage1[DrQV2], log_every_n_updates=2)
    before = trained(agent)
    run = trainer(6)
    run.fit(agent, loader(agent, updates_per_step=2, shape=agent.perception.shape))
    assert run.global_step == agent.num_updates == 6
    still = [name for name, value in trained(agent).items() if torch.equal(value, before[name])]
    assert still == [], "every parameter with a gradient learns"
    assert {"train/critic_loss", "train/actor_loss"} <= set(run.callback_metrics)
    run.save_checkpoint(tmp_path / "agent.ckpt")
    loaded = cls.load_from_checkpoint(tmp_path / "agent.ckpt")
    batch = next(iter(loader(agent, shape=agent.perception.shape)))[0]
    action = agent.policy(batch.observation)
    assert action.shape == batch.action.shape
    assert action.abs().max() <= 1
    if observation == "latents":
        frames = make_batch(1).observation
        assert torch.equal(agent.policy(frames), agent.policy(agent.pixel_encoder.encode(frames)))
    assert torch.equal(loaded.policy(batch.observation), action)
    for key, value in agent.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


class SeedEveryBatch(Callback):
    """Noise that depends on the update alone, as the stages have it."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        torch.manual_seed(trainer.global_step)


@pytest.mark.parametrize("cls", ALGORITHMS)
def test_a_resumed_run_ends_like_an_uninterrupted_one(cls: type[Agent], tmp_path: Path) -> None:
    def run_to(steps: int, ckpt: Path | None = None) -> Any:
        agent = build(cls, "states", "")
        run = trainer(steps, callbacks=[SeedEveryBatch()])
        run.fit(agent, loader(agent, shape=(5,)), ckpt_path=ckpt)
        return run

    run_to(3).save_checkpoint(tmp_path / "half.ckpt")
    resumed = run_to(6, tmp_path / "half.ckpt").lightning_module.state_dict()
    for key, value in run_to(6).lightning_module.state_dict().items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.parametrize("cls", ALGORITHMS)
def test_bf16_stays_near_float32(cls: type[Agent]) -> None:
    policies = []
    for precision in ("32-true", "bf16-mixed"):
        agent = build(cls, "states", "", lr=1e-3)
        before = agent.policy(make_batch(0, shape=(5,)).observation)
        torch.manual_seed(1)
        trainer(6, precision=precision).fit(agent, loader(agent, shape=(5,)))
        assert {p.dtype for p in agent.parameters()} == {torch.float32}
        policies.append(agent.policy(make_batch(0, shape=(5,)).observation))
    step = (policies[0] - before).abs().mean()
    assert (policies[0] - policies[1]).abs().mean() < 0.5 * step


@pytest.mark.parametrize("cls", ALGORITHMS)
def test_latents_need_the_critics_columns(cls: type[Agent], stage1: dict[type[Agent], str]) -> None:
    with pytest.raises(ConfigError, match="without a critic"):
        build(cls, "latents", stage1[BC])
