"""Rewards are scaled for the agent alone, by numbers or by the range of the real data's returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_synther.data.datamodules import ReplayData
from lightning_synther.data.rewards import describe_episodes
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.stages.config.dataset import DatasetConfig
from lightning_synther.stages.data import SynthERData
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=2, action_dim=1, discount=0.99)


def write(path: Path, offset: float = 0.0, **extra: Any) -> str:
    """Ten rows of one value each, whose reward is also their number."""
    rows = np.repeat(np.arange(10, dtype=np.float32)[:, None], SPEC.dim, axis=1) + offset
    with StoreWriter(path, SPEC, 10, seed=0, producer="test", fingerprint="", extra=extra) as writer:
        writer.write(0, rows)
        writer.commit()
    return str(path)


def ready(*stores: str | None, **settings: Any) -> ReplayData:
    data = ReplayData(*stores, batch_size=8, **settings)
    data.setup("fit")
    return data


def test_scale_and_bias(tmp_path: Path) -> None:
    real, synthetic = write(tmp_path / "real"), write(tmp_path / "synthetic", offset=100.0)
    plain = ready(real, synthetic).batches(range(4))
    scaled = ready(real, synthetic, reward_scale=2.0, reward_bias=-1.0).batches(range(4))
    for before, after in zip(plain, scaled, strict=True):
        torch.testing.assert_close(after.reward, 2 * before.reward - 1)
        assert torch.equal(after.observation, before.observation)
        assert torch.equal(before.reward, before.observation[:, :1]), "stores keep their own rewards"


@pytest.mark.parametrize("mixing", ["alternate", "real", "synthetic"])
def test_a_bias_is_refused_where_the_store_given_holds_returns_of_several_steps(
    tmp_path: Path, mixing: Any
) -> None:
    one, three = write(tmp_path / "one", n_step=1), write(tmp_path / "three", n_step=3)
    synthetic = write(tmp_path / "synthetic", offset=100.0)
    ready(one, synthetic, mixing=mixing, reward_bias=-1.0)
    ready(three, synthetic, mixing=mixing, reward_scale=2.0)
    with pytest.raises(ConfigError, match=r"reward_bias is -1.0, but a record holds the return of 3 steps"):
        ready(three, synthetic, mixing=mixing, reward_bias=-1.0)


def test_the_range_of_returns(tmp_path: Path) -> None:
    known = describe_episodes(np.array([30.0, 10.0, 50.0]), np.array([500, 400, 500]))
    real, synthetic = write(tmp_path / "real", **known), write(tmp_path / "synthetic")
    for mixing in ("real", "synthetic"):  # synthetic rewards are scaled as the real ones are
        data = ready(real, synthetic, mixing=mixing, reward_scale="return_range")
        (batch,) = data.batches(range(1))
        torch.testing.assert_close(batch.reward, batch.observation[:, :1] * 500 / 40)


def test_states_are_the_real_data(tmp_path: Path) -> None:
    real, synthetic = write(tmp_path / "real"), write(tmp_path / "synthetic", offset=100.0)
    for mixing in ("alternate", "real", "synthetic"):
        states = ready(real, synthetic, mixing=mixing).states()
        assert torch.equal(states, torch.arange(10.0)[:, None].expand(10, 2))
    with pytest.raises(ConfigError, match=r"data\.real is not set"):
        ready(None, synthetic, mixing="synthetic").states()


@pytest.mark.parametrize("scale", ["range", 0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_keep_no_order(scale: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.reward_scale is .*give a number above 0"):
        ReplayData(reward_scale=scale)


def test_ranges_that_nobody_knows(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    with pytest.raises(DataError, match="does not say what its episodes returned"):
        ready(store, mixing="real", reward_scale="return_range")
    with pytest.raises(ConfigError, match=r"data\.real is not set"):
        ready(None, store, mixing="synthetic", reward_scale="return_range")
    equal = write(tmp_path / "equal", **describe_episodes([7.0, 7.0], [5, 5]))
    with pytest.raises(DataError, match=r"all episodes .* returned 7"):
        ready(equal, mixing="real", reward_scale="return_range")


def test_a_bias_is_for_single_steps() -> None:
    SynthERData(DatasetConfig(n_step=1), reward_bias=-1.0)
    with pytest.raises(ConfigError, match="the return of 3 steps"):
        SynthERData(DatasetConfig(n_step=3), reward_bias=-1.0)
