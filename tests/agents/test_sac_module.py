"""The SAC module: one update by hand, its counters and gradients, resuming, and learning for real."""

import copy
import itertools
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_synther.agents.sac import squash
from lightning_synther.agents.sac_module import SAC
from lightning_synther.errors import DataError
from lightning_synther.online.interaction import OnlineData
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import Transition

S, A, B = 5, 1, 16
ENV = {"task": "cartpole_balance", "observation": "states", "time_limit": 0.2}


def agent(**options):
    torch.manual_seed(0)
    sizes = {
        "observation_dim": S,
        "action_dim": A,
        "hidden_dim": 16,
        "env": {**ENV, "task": "cartpole_swingup"},
    }
    return SAC(**(sizes | options))


def batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return Transition(draw(B, S), draw(B, A).tanh(), draw(B, 1), draw(B, S), torch.full((B, 1), 0.9))


def test_one_update_equals_the_equations_written_out():
    model, transition = agent(actor_every=1, tau=0.25, initial_temperature=0.3), batch()
    before = copy.deepcopy(model)
    noise = torch.randn(2, B, A, generator=torch.Generator().manual_seed(1))
    metrics = model.update(transition, noise)

    o, a, r, o2, d = transition
    with torch.no_grad():
        a2, log_prob2 = squash(*before.actor.gaussian(o2), noise[0])
        target = r + d * (before.critic_target(o2, a2).min(0).values - 0.3 * log_prob2)
    loss = sum(((q - target) ** 2).mean() for q in before.critic(o, a))
    torch.testing.assert_close(metrics["critic_loss"], loss.detach())
    adam = torch.optim.Adam(before.critic.parameters(), lr=1e-3)
    loss.backward()
    adam.step()
    old_target = copy.deepcopy(before.critic_target)
    for p, expected in zip(model.critic.parameters(), before.critic.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-5, atol=1e-6)
    for p, old, new in zip(
        model.critic_target.parameters(), old_target.parameters(), before.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(p, 0.75 * old + 0.25 * new, rtol=1e-5, atol=1e-6)

    action, log_prob = squash(*before.actor.gaussian(o), noise[1])
    actor_loss = (0.3 * log_prob - before.critic(o, action).min(0).values).mean()
    torch.testing.assert_close(metrics["actor_loss"], actor_loss.detach(), rtol=1e-5, atol=1e-6)
    actor_adam = torch.optim.Adam(before.actor.parameters(), lr=1e-3)
    actor_loss.backward()
    actor_adam.step()
    for p, expected in zip(model.actor.parameters(), before.actor.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-5)
    # Adam's first step has the length of the learning rate, against the sign of the gradient.
    entropy_is_low = -log_prob.mean() < -A
    expected = math.log(0.3) + (1e-3 if entropy_is_low else -1e-3)
    assert model.log_temperature.item() == pytest.approx(expected, abs=1e-6)


def test_actor_learns_on_every_second_update_only():
    model = agent()
    actors = [copy.deepcopy(model.actor.state_dict())]
    for i in range(4):
        metrics = model.update(batch(i))
        assert ("actor_loss" in metrics) == (i % 2 == 1)
        actors.append(copy.deepcopy(model.actor.state_dict()))
    moved = [any(not torch.equal(a[k], b[k]) for k in a) for a, b in itertools.pairwise(actors)]
    assert moved == [False, True, False, True]


def test_target_critic_is_not_trained_and_starts_as_a_copy():
    model = agent()
    assert not any(p.requires_grad for p in model.critic_target.parameters())
    for p, q in zip(model.critic.parameters(), model.critic_target.parameters(), strict=True):
        assert torch.equal(p, q)
    trained = {
        id(p)
        for optimizer in model.configure_optimizers()
        for g in optimizer.param_groups
        for p in g["params"]
    }
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}


def test_explores_by_sampling_and_acts_by_the_mean():
    model, states = agent(), torch.randn(3, S)
    mean, log_std = model.actor.gaussian(states)
    noise = torch.randn(3, A)
    torch.testing.assert_close(model.explore(states, noise), torch.tanh(mean + log_std.exp() * noise))
    torch.testing.assert_close(model.policy(states), mean.tanh())
    torch.testing.assert_close(model.explore(states, torch.zeros(3, A)), model.policy(states))
    assert model.actor.log_std_bounds == (-5.0, 2.0)
    assert ((log_std > -5) & (log_std < 2)).all()


def test_batch_of_another_size_is_refused():
    with pytest.raises(DataError, match="observations"):
        agent(observation_dim=S + 1).training_step([batch()], 0)


class Seed(pl.Callback):
    """As the stages do: what a training batch draws depends on its number alone."""

    def on_train_batch_start(self, trainer, *_):
        torch.manual_seed(derive_seed(0, trainer.global_step))


def train(max_steps, task="cartpole_balance", ckpt_path=None, callbacks=(), model_options=None, **options):
    env = ENV | {"task": task}
    model = agent(**({"env": env} | (model_options or {})))
    settings = {"start_steps": 24, "batch_size": 8, "updates_per_step": 4, "eval_episodes": 2}
    data = OnlineData(env, **(settings | options))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        callbacks=[Seed(), *callbacks],
    )
    model.eval_workers = 0
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return trainer, model, data


def same_parameters(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_same_seed_gives_the_same_agent():
    _, first, _ = train(40, num_envs=2)
    _, second, _ = train(40, num_envs=2)
    assert same_parameters(first, second)
    _, other, _ = train(40, num_envs=2, seed=1)
    assert not same_parameters(first, other)


def test_every_update_counts_once():
    trainer, model, data = train(40)
    assert trainer.global_step == model.num_updates == 40
    assert data.environments.num_steps == 24 + 40


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path):
    _, whole, whole_data = train(40)
    keep = ModelCheckpoint(tmp_path, filename="half", every_n_train_steps=20)
    train(20, callbacks=[keep])
    _, resumed, data = train(40, ckpt_path=str(tmp_path / "half.ckpt"))
    assert same_parameters(whole, resumed)
    assert resumed.num_updates == 40
    assert torch.equal(whole_data.environments.replay.rows(), data.environments.replay.rows())


def test_a_checkpoint_alone_rebuilds_the_agent(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="agent", every_n_train_steps=20)
    _, model, _ = train(20, callbacks=[keep])
    loaded = SAC.load_from_checkpoint(tmp_path / "agent.ckpt")
    states = torch.randn(4, S)
    assert torch.equal(loaded.policy(states), model.policy(states))
    assert loaded.num_updates == 20
    assert loaded.env == model.env


def test_evaluates_itself_from_a_checkpoint(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="agent", every_n_train_steps=4)
    trainer, model, data = train(4, callbacks=[keep])
    trainer.limit_val_batches = 1.0
    trainer.validate(model, data, ckpt_path=str(tmp_path / "agent.ckpt"), verbose=False)
    assert model.eval_results["episodes"] == 2
    assert 0 < model.eval_results["return_mean"] <= 20


@pytest.mark.slow
def test_learns_to_balance_the_cartpole():
    torch.set_num_threads(1)
    options = {"hidden_dim": 64, "env": {"task": "cartpole_balance", "observation": "states"}}
    model = agent(**options)
    data = OnlineData(options["env"], start_steps=1000, batch_size=128, eval_episodes=4)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=8000,
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_progress_bar=False,
        callbacks=[Seed()],
    )
    trainer.fit(model, data)
    trainer.limit_val_batches = 1.0
    trainer.validate(model, data, verbose=False)
    assert model.eval_results["return_mean"] > 600  # 786 when written; uniform actions: 328
    assert np.isfinite(model.log_temperature.item())
