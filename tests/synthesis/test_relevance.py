"""Relevance functions where their value is known, and their place beside a store."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_synther.agents.modules import BC
from lightning_synther.agents.td3_bc_module import TD3BC
from lightning_synther.data.conditions import read_condition, write_condition
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.synthesis import relevance
from lightning_synther.synthesis.conditions import compute_conditions, train_curiosity
from lightning_synther.transition import Transition, TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.9)


def transitions(num_rows=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return SPEC.unflatten(torch.randn(num_rows, SPEC.dim, generator=generator))


def store_of(path, batch, **extra):
    rows = SPEC.flatten(batch)
    with StoreWriter(path, SPEC, len(rows), seed=0, producer="t", fingerprint="", extra=extra) as writer:
        writer.write(0, rows)
        return writer.commit()


@pytest.mark.parametrize(("n_step", "views"), [(1, 1), (3, 1), (3, 2), (7, 1)])
def test_return_to_go_of_every_stride(n_step, views):
    """Against the sum written out, for episodes of 5 and 8 transitions of n-step returns."""
    gamma, lengths = 0.9, (5, 8)
    rewards = [np.random.default_rng(i).normal(size=length) for i, length in enumerate(lengths)]
    expected = []
    for reward in rewards:
        for t in range(len(reward)):
            later = range(t, len(reward), n_step)
            expected += [sum(gamma ** (k - t) * reward[k] for k in later)] * views
    reward = torch.tensor(np.concatenate(rewards)).repeat_interleave(views)[:, None].float()
    episode = torch.tensor(np.repeat([0.0, 1.0], lengths)).repeat_interleave(views)[:, None]
    discount = torch.full_like(reward, gamma**n_step)
    ours = relevance.return_to_go(
        Transition(reward, reward, reward, reward, discount), episode, n_step * views
    )
    torch.testing.assert_close(ours[:, 0], torch.tensor(expected).float())


def test_return_to_go_stops_at_a_terminal():
    ones = torch.ones(3, 1)
    discount = torch.tensor([[0.5], [0.0], [0.5]])
    ours = relevance.return_to_go(Transition(ones, ones, ones, ones, discount), torch.zeros(3, 1))
    assert ours.flatten().tolist() == [1.5, 1.0, 1.0]


def test_return_to_go_needs_episodes():
    with pytest.raises(DataError, match="needs an episode number for each of 64 transitions"):
        relevance.return_to_go(transitions(), torch.zeros(3, 1))


def test_reward_and_terminal():
    batch = transitions()
    assert torch.equal(relevance.reward(batch), batch.reward)
    assert relevance.terminal(batch).abs().sum() == 0
    ended = batch._replace(discount=torch.zeros_like(batch.discount))
    assert (relevance.terminal(ended) == 1).all()


class Constant(nn.Module):
    def __init__(self, *values):
        super().__init__()
        self.values = values

    def forward(self, features, action):
        return torch.stack([torch.full((len(action), 1), value) for value in self.values])


def test_td_error_of_known_critics():
    agent = TD3BC(observation_dim=3, action_dim=2, hidden_dim=8)
    agent.critic, agent.critic_target = Constant(1.0, 3.0), Constant(10.0, 5.0)
    batch = transitions()
    expected = (batch.reward + 0.9 * 5.0 - 2.0).abs()
    torch.testing.assert_close(relevance.td_error(batch, agent), expected)


class Elsewhere(TorchDispatchMode):
    """Has the meta device stand for an accelerator: what is there meets nothing of the CPU, and can be brought back."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [
            leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()
        ]
        assert len({tensor.device for tensor in tensors}) <= 1, f"{function} of tensors on two devices"
        if function is torch.ops.aten._to_copy.default and kwargs.get("device") == torch.device("cpu"):
            return torch.zeros(args[0].shape)
        return function(*args, **(kwargs or {}))


def test_td_error_is_computed_where_the_agent_is(monkeypatch):
    agent = TD3BC(observation_dim=3, action_dim=2, hidden_dim=8).to("meta")
    monkeypatch.setattr(torch, "autocast", lambda *args, **settings: nullcontext())  # meta knows none
    with Elsewhere():
        value = relevance.td_error(transitions(), agent)
    assert value.device.type == "cpu"
    assert value.shape == (64, 1)


def test_td_error_needs_a_critic():
    agent = BC(observation="states", observation_dim=3, action_dim=2, hidden_dim=8)
    with pytest.raises(ConfigError, match="'td_error' needs an agent with a critic and its target, BC has"):
        relevance.td_error(transitions(), agent)


def noisy_corner(num_rows=3000):
    """s' = s + a, but where s_0 > 1 it is random: nobody can predict it."""
    batch = transitions(num_rows)
    observation = batch.observation
    step = torch.cat([batch.action, batch.action[:, :1]], dim=1)
    odd = observation[:, :1] > 1
    following = torch.where(odd, 2 * batch.next_observation, observation + step)
    return batch._replace(next_observation=following), odd.squeeze(1)


def test_curiosity_is_where_the_future_cannot_be_predicted(tmp_path):
    batch, odd = noisy_corner()
    store = store_of(tmp_path / "store", batch)
    module = train_curiosity(store, num_updates=300)
    value = relevance.curiosity(batch, module).squeeze(1)
    assert value.isfinite().all()
    top = value.argsort(descending=True)[: int(odd.sum())]
    assert odd[top].float().mean() > 0.8


def test_it_is_computed_once_and_left_alone(tmp_path):
    batch, _ = noisy_corner(300)
    train, heldout = (store_of(tmp_path / name, batch, n_step=1) for name in ("train", "heldout"))
    stores = [train.path, heldout.path]
    for store in stores:
        write_condition(store, "mine", torch.arange(300.0))
        write_condition(store, "reward", torch.zeros(300))  # somebody's own
        write_condition(store, "episode", torch.arange(300) // 100)
    names = ["curiosity", "mine", "reward", "return_to_go"]
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    compute_conditions(stores, names, seed=1, curiosity_updates=5)
    assert torch.equal(before, torch.random.get_rng_state())
    first = read_condition(train.path, "curiosity").clone()
    torch.testing.assert_close(first, read_condition(heldout.path, "curiosity"))
    assert read_condition(train.path, "reward").abs().sum() == 0
    written = {path: path.stat().st_mtime_ns for path in train.path.glob("conditions/*")}
    compute_conditions(stores, names, seed=1, curiosity_updates=5)
    assert written == {path: path.stat().st_mtime_ns for path in train.path.glob("conditions/*")}
    compute_conditions(stores, names, seed=2, curiosity_updates=5)
    assert not torch.equal(first, read_condition(train.path, "curiosity"))


def test_what_is_neither_computed_nor_there_is_refused(tmp_path):
    store = store_of(tmp_path / "store", transitions())
    with pytest.raises(DataError, match="has no condition 'novelty'"):
        compute_conditions([store.path], ["novelty"])
    with pytest.raises(DataError, match="has no condition 'episode'"):
        compute_conditions([store.path], ["return_to_go"])
    with pytest.raises(ConfigError, match="'td_error' needs an agent, and there is none here"):
        compute_conditions([store.path], ["td_error"])
