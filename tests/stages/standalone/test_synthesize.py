"""`synthesize`: one call from anybody's transitions to synthetic ones."""

from __future__ import annotations

import inspect
import logging
import random
import warnings

import numpy as np
import pytest
import torch

import lightning_synther
from lightning_synther import StateDataset, Transition, TransitionStore, synthesize
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError, DataError

SMALL = {"num_updates": 6, "width": 16, "num_layers": 1, "num_sampling_steps": 3, "progress": False}


def arrays(count: int = 60, ends: bool = False) -> dict[str, np.ndarray]:
    """A random walk of two numbers; with ``ends``, a tenth of the transitions are terminals."""
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(count, 2)), rng.uniform(-1, 1, size=(count, 1))
    return {
        "observations": states,
        "actions": actions,
        "rewards": states[:, 0],
        "next_observations": states + actions,
        "terminals": np.arange(count) % 10 == 9 if ends else np.zeros(count),
    }


def same(one: Transition, other: Transition) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(autouse=True)
def _cpu(monkeypatch):
    monkeypatch.setitem(SMALL, "accelerator", "cpu")


def test_arrays_a_dataset_and_a_transition_mean_the_same():
    given = arrays()
    made = synthesize(given, 25, **SMALL)
    assert [part.shape for part in made] == [(25, 2), (25, 1), (25, 1), (25, 2), (25, 1)]
    assert all(part.dtype == torch.float32 and torch.isfinite(part).all() for part in made)
    assert (made.discount == np.float32(0.99)).all()
    dataset = StateDataset.from_arrays(**given)
    assert same(made, synthesize(dataset, 25, **SMALL))
    transition = Transition(
        given["observations"],
        given["actions"],
        given["rewards"][:, None],
        torch.as_tensor(given["next_observations"]),
        np.full((60, 1), 0.99),
    )
    assert same(made, synthesize(transition, 25, **SMALL))


def test_the_seed_decides_and_the_callers_program_is_left_alone():
    def state() -> tuple[float, ...]:
        return float(torch.rand(1)), float(np.random.random()), random.random()  # noqa: NPY002

    def seed() -> None:
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        random.seed(5)

    seed()
    expected = state()
    levels = [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")]
    filters = list(warnings.filters)
    seed()
    made = synthesize(arrays(), 10, seed=1, **SMALL)
    assert state() == expected
    assert [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")] == levels
    assert warnings.filters == filters
    assert same(made, synthesize(arrays(), 10, seed=1, **SMALL))
    assert not same(made, synthesize(arrays(), 10, seed=2, **SMALL))


def test_a_path_gets_a_store_of_the_same_transitions(tmp_path):
    made = synthesize(arrays(ends=True), 30, gamma=0.9, path=tmp_path / "store", **SMALL)
    store = TransitionStore.open(tmp_path / "store")
    assert store.spec.terminal
    assert same(made, store.spec.unflatten(store.mapped))
    assert same(made, synthesize(arrays(ends=True), 30, gamma=0.9, **SMALL))
    assert set(made.discount.unique().tolist()) <= {0.0, np.float32(0.9)}


def test_a_path_that_is_taken_is_refused_before_the_training(tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    monkeypatch.setattr(LatentDiffusion, "__init__", lambda *args, **settings: pytest.fail("it is built"))
    with pytest.raises(ConfigError, match=r"path .*store exists: give another, or remove what is there"):
        synthesize(arrays(), 30, path=tmp_path / "store", **SMALL)


def test_the_documented_number_of_sampling_steps_is_the_default():
    steps = inspect.signature(LatentDiffusion).parameters["num_sampling_steps"].default
    assert f"the sampler takes {steps} steps" in synthesize.__doc__


def test_it_learns_where_the_data_are():
    given = {**arrays(400), "rewards": np.full(400, 7.0)}
    made = synthesize(
        given, 400, num_updates=400, width=64, num_layers=2, lr=2e-3, accelerator="cpu", progress=False
    )
    assert abs(float(made.reward.mean()) - 7) < 0.2
    step = made.next_observation - made.observation - made.action
    assert float(step.std()) < 0.5 * float(made.observation.std()), "s' = s + a is being learned"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"rewards": np.full(60, np.nan)}, DataError, "rewards that are not finite in 60 rows"),
        ({"terminals": None}, DataError, "lacks terminals"),
        ({"actions": np.full((60, 1), 3.0)}, DataError, "outside"),
    ],
)
def test_data_that_cannot_be_are_refused(change, error, said):
    with pytest.raises(error, match=said):
        synthesize({**arrays(), **change}, 10, **SMALL)


def test_transitions_of_other_shapes_and_discounts_are_refused():
    parts = lightning_synther.StateDataset.from_arrays(**arrays()).transitions()
    with pytest.raises(DataError, match=r"reward of shape \(60,\): give \(60, 1\)"):
        synthesize(parts._replace(reward=parts.reward[:, 0]), 10, **SMALL)
    with pytest.raises(DataError, match=r"the discounts \[0.5, 0.9"):
        synthesize(parts._replace(discount=torch.tensor([[0.5], [0.9]]).repeat(30, 1)), 10, **SMALL)
    with pytest.raises(DataError, match="too few to fit"):
        synthesize(Transition(*(part[:3] for part in parts)), 10, **SMALL)


@pytest.mark.parametrize("setting", [{"num_transitions": 0}, {"num_updates": 0}])
def test_counts_below_one_are_refused(setting):
    with pytest.raises(ConfigError, match="is 0: give at least 1"):
        synthesize(arrays(), **{"num_transitions": 5, **SMALL, **setting})
