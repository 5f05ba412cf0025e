"""Episode seeds as a dataset, and policies over tensors."""

import pytest
import torch

from lightning_synther.envs.control import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.episodes import EpisodeSeeds, episode_loader, episode_seed, run_episodes
from lightning_synther.evaluation.rollout import rollout

CONFIG = EnvConfig("cartpole_swingup", observation="states", time_limit=0.2)


def test_batches_are_all_seeds_in_order():
    batches = list(episode_loader(5, seed=3, episodes_at_a_time=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.cat(batches).tolist() == [episode_seed(3, i) for i in range(5)]


def test_seeds_are_distinct_and_fit_any_generator():
    seeds = [episode_seed(seed, i) for seed in range(3) for i in range(50)]
    assert len(set(seeds)) == 150
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_range_of_seeds_is_a_dataset():
    seeds = EpisodeSeeds(range(4, 7))
    assert [seeds[i] for i in range(len(seeds))] == [4, 5, 6]
    with pytest.raises(ConfigError, match="no evaluation episode"):
        EpisodeSeeds([])


def test_tensor_policy_equals_its_numpy_twin_and_keeps_no_graph():
    weight = torch.linspace(-1, 1, 5).reshape(5, 1).requires_grad_()
    seen = []

    def act(observation):
        action = torch.tanh(observation @ weight)
        seen.append(action.requires_grad)
        return action

    results = run_episodes(act, CONFIG.to_dict(), torch.tensor([2, 3]), num_workers=0)
    twin = rollout(
        lambda x: torch.tanh(torch.from_numpy(x) @ weight.detach()).numpy(), CONFIG, [2, 3], num_workers=0
    )
    assert results == twin
    assert not any(seen)
