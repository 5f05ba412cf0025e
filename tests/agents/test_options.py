"""Options that every agent has: normalised states, residual heads of any size; and what a Trainer must not ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_synther.agents import BC, SAC, Agent, DrQV2
from lightning_synther.data.datamodules import ReplayData
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.ensemble import EnsembleLinear
from lightning_synther.networks.heads import ResidualBlock
from lightning_synther.online.export import export_agent
from lightning_synther.online.interaction import OnlineData
from lightning_synther.transition import Transition, TransitionSpec
from tests.agents.test_algorithms import ALGORITHMS
from tests.agents.tiny import PIXELS, SIZES, loader, make, make_batch, trainer

EVERY: dict[type[Agent], dict[str, Any]] = {BC: {}, DrQV2: {"bc_weight": 2.5}, **ALGORITHMS}
STATES = {**SIZES, "observation": "states", "observation_dim": 5}


def build(cls: type[Agent], **settings: Any) -> Agent:
    torch.manual_seed(0)
    return cls(**{**STATES, **EVERY[cls], **settings})


@pytest.mark.parametrize("cls", EVERY)
def test_normalising_inside_is_normalising_the_data(cls: type[Agent]) -> None:
    states = 4 * torch.randn(200, 5) + 3
    inside, plain = build(cls, normalize_states=True), build(cls)
    inside.fit_normalizer(states)

    def normalize(batch: Transition) -> Transition:
        observations = (batch.observation, batch.next_observation)
        observation, following = (
            (s - states.mean(0)) / (states.std(0, correction=0) + 1e-3) for s in observations
        )
        return batch._replace(observation=observation, next_observation=following)

    for update in range(3):
        batch = make_batch(update, shape=(5,))
        draws = plain.draw(normalize(batch))
        inside.update(batch, draws)
        plain.update(normalize(batch), draws)
    batch = make_batch(9, shape=(5,))
    torch.testing.assert_close(
        inside.policy(batch.observation), plain.policy(normalize(batch).observation), rtol=1e-4, atol=1e-5
    )


def store(path: Path, spec: TransitionSpec) -> str:
    torch.manual_seed(3)
    with StoreWriter(path, spec, 64, seed=0, producer="test", fingerprint="") as writer:
        writer.write(0, torch.randn(64, spec.dim) * 2 + 1)
        writer.commit()
    return str(path)


def test_the_trainer_finds_the_statistics_and_the_checkpoint_keeps_them(tmp_path: Path) -> None:
    spec = TransitionSpec(observation_dim=5, action_dim=2, discount=0.99)
    data = ReplayData(store(tmp_path / "store", spec), mixing="real", batch_size=8, updates_per_step=1)
    agent = build(BC, normalize_states=True)
    run = trainer(2, limit_val_batches=0)
    run.fit(agent, datamodule=data)
    torch.testing.assert_close(agent.encoder.mean, data.states().mean(0))
    run.save_checkpoint(tmp_path / "agent.ckpt")
    loaded = BC.load_from_checkpoint(tmp_path / "agent.ckpt")
    states = make_batch(1, shape=(5,)).observation
    assert torch.equal(loaded.policy(states), agent.policy(states))


def test_statistics_of_nothing(tmp_path: Path) -> None:
    agent = build(BC, normalize_states=True)
    with pytest.raises(ConfigError, match="has not seen its data"):
        agent.policy(torch.zeros(1, 5))
    with pytest.raises(ConfigError, match="normalize_states needs the states of a dataset"):
        trainer(1).fit(agent, loader(agent, shape=(5,)))
    online = build(SAC, normalize_states=True, observation_dim=5, action_dim=1)
    data = OnlineData(
        {"task": "cartpole_swingup", "observation": "states"}, start_steps=8, updates_per_step=1
    )
    with pytest.raises(ConfigError, match=r"set model\.normalize_states to false"):
        trainer(1, limit_val_batches=0).fit(online, datamodule=data)
    with pytest.raises(DataError, match=r"shape \(5,\), an observation here has \(4,\)"):
        agent.fit_normalizer(torch.zeros(3, 4))
    with pytest.raises(DataError, match="is nan"):
        agent.fit_normalizer(torch.full((3, 5), float("nan")))
    with pytest.raises(ConfigError, match="normalize_states=True"):
        build(BC).fit_normalizer(torch.zeros(3, 5))


@pytest.mark.parametrize("observation", ["pixels", "latents"])
def test_only_states_are_normalised(observation: str) -> None:
    encoder = {"image_size": 21, "frame_stack": 3, "feature_dim": 8, "critic": True}
    settings = PIXELS if observation == "pixels" else {**SIZES, "encoder_config": encoder}
    with pytest.raises(ConfigError, match=f"observation is '{observation}': only states are normalised"):
        DrQV2(observation=observation, normalize_states=True, **settings)


@pytest.mark.parametrize("cls", EVERY)
def test_residual_heads_learn_and_critics_share_a_matmul(cls: type[Agent]) -> None:
    sizes = {} if cls in (BC,) else {"num_critics": 3}
    agent = build(cls, residual=True, num_layers=3, hidden_dim=12, **sizes)
    before = {name: p.detach().clone() for name, p in agent.named_parameters() if p.requires_grad}
    for update in range(4):
        agent.update(make_batch(update, shape=(5,)))
    for name, value in before.items():
        assert not torch.equal(dict(agent.named_parameters())[name], value), name
    assert sum(isinstance(m, ResidualBlock) for m in agent.actor.modules()) == 3
    if cls is not BC:
        blocks = [m for m in agent.critic.modules() if isinstance(m, ResidualBlock)]
        assert len(blocks) == 3
        assert all(isinstance(block.widen, EnsembleLinear) for block in blocks)
        assert blocks[0].widen.weight.shape == (3, 48, 12)


def test_a_behaviour_policy_file_holds_plain_perceptrons(tmp_path: Path) -> None:
    env = {"task": "cartpole_swingup", "observation": "states"}
    agent = build(SAC, residual=True, action_dim=1, env=env)
    with pytest.raises(ConfigError, match=r"residual=True .* write it with export_program"):
        export_agent(agent, tmp_path / "policy.safetensors", {})


def test_gradient_accumulation_is_refused() -> None:
    agent, run = make(BC), trainer(1, accumulate_grad_batches=2)
    with pytest.raises(MisconfigurationException, match="accumulation is not supported for manual"):
        run.fit(agent, loader(agent))
