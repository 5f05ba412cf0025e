import itertools
import time

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lightning_synther.data.datamodules import PixelData, ReplayData, RowData
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.transition import Transition, TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.97)


def make_store(path, offset=0, num=200, spec=SPEC):
    """The reward of row i is ``offset + i``, all other numbers are 0."""
    rows = torch.zeros(num, spec.dim)
    rows[:, spec.fields["reward"]] = offset + torch.arange(num)[:, None]
    with StoreWriter(path, spec, num, seed=0, producer="test", fingerprint="", chunk_size=num) as writer:
        writer.write(0, rows)
        writer.commit()
    return str(path)


@pytest.fixture
def stores(tmp_path):
    return {
        "real": make_store(tmp_path / "real"),
        "synthetic": make_store(tmp_path / "synthetic", offset=1000, num=300),
    }


def rewards(data, num_updates):
    """Rewards (B,) of the first updates, one array each."""
    data.setup("fit")
    batches = itertools.chain.from_iterable(data.train_dataloader())
    return [batch.reward[:, 0].numpy() for batch in itertools.islice(batches, num_updates)]


def test_alternate_gives_whole_batches_of_one_kind_by_turns(stores):
    data = ReplayData(**stores, batch_size=64, updates_per_step=3)
    for update, reward in enumerate(rewards(data, 10)):
        assert (reward >= 1000).all() if update % 2 else (reward < 1000).all()


def test_ratio_puts_real_rows_first(stores):
    for reward in rewards(ReplayData(**stores, mixing="ratio", ratio=0.25, batch_size=7), 4):
        assert (reward >= 1000).tolist() == [False] * 6 + [True]


@pytest.mark.parametrize(("kind", "low"), [("real", 0), ("synthetic", 1000)])
def test_one_kind_needs_no_other_store(stores, kind, low):
    data = ReplayData(**{kind: stores[kind]}, mixing=kind, batch_size=1000)
    (reward,) = rewards(data, 1)
    num = {"real": 200, "synthetic": 300}[kind]
    assert low <= reward.min()
    assert reward.max() < low + num
    assert len(np.unique(reward)) > 0.9 * num


def test_batches_are_transitions(stores):
    data = ReplayData(**stores, batch_size=5, updates_per_step=2)
    data.setup("fit")
    batches = next(iter(data.train_dataloader()))
    assert len(batches) == 2
    for batch in batches:
        assert isinstance(batch, Transition)
        assert [tuple(part.shape) for part in batch] == [(5, 3), (5, 2), (5, 1), (5, 3), (5, 1)]
        assert (batch.discount == 0.97).all()


@pytest.mark.parametrize("mixing", ["alternate", "ratio"])
def test_the_batch_of_an_update_does_not_depend_on_updates_per_step(stores, mixing):
    one = rewards(ReplayData(**stores, mixing=mixing, updates_per_step=1), 6)
    three = rewards(ReplayData(**stores, mixing=mixing, updates_per_step=3), 6)
    np.testing.assert_array_equal(one, three)
    other_seed = rewards(ReplayData(**stores, mixing=mixing, seed=1), 6)
    assert not np.array_equal(one, other_seed)


def test_mapped_and_loaded_stores_give_the_same_batches(stores):
    loaded, mapped = ReplayData(**stores), ReplayData(**stores, load_limit=0)
    np.testing.assert_array_equal(rewards(loaded, 4), rewards(mapped, 4))


@pytest.mark.parametrize(
    ("mixing", "given", "missing"),
    [
        ("alternate", "real", "synthetic"),
        ("alternate", "synthetic", "real"),
        ("ratio", "real", "synthetic"),
        ("synthetic", "real", "synthetic"),
        ("real", "synthetic", "real"),
    ],
)
def test_a_missing_store_is_named(stores, mixing, given, missing):
    data = ReplayData(**{given: stores[given]}, mixing=mixing)
    with pytest.raises(
        ConfigError, match=rf"mixing is '{mixing}' and data.{missing} is not set: give the path"
    ):
        data.setup("fit")


def test_stores_of_different_specs(stores, tmp_path):
    other = make_store(tmp_path / "other", spec=TransitionSpec(4, 2, 0.97))
    with pytest.raises(DataError, match=r"other has 11 numbers a row .* but 9 numbers a row"):
        ReplayData(real=stores["real"], synthetic=other).setup("fit")


def test_wrong_settings_are_refused_at_once(stores):
    with pytest.raises(ConfigError, match=r"data.mixing is 'both'"):
        ReplayData(**stores, mixing="both")
    with pytest.raises(ConfigError, match=r"data.ratio is 2"):
        ReplayData(**stores, mixing="ratio", ratio=2)
    with pytest.raises(ConfigError, match=r"data.batch_size and data.updates_per_step must be at least 1"):
        ReplayData(**stores, updates_per_step=0)


class Recorder(pl.LightningModule):
    """Counts one optimizer step per update and remembers the rewards."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batches):
        for batch in batches:
            self.seen.append(batch.reward[:, 0].numpy().copy())
            self.optimizers().step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(stores, max_steps, tmp_path, ckpt_path=None, **kwargs):
    module, data = Recorder(), ReplayData(**stores, **kwargs)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        limit_val_batches=0,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        **quiet,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    assert trainer.global_step == max_steps
    trainer.save_checkpoint(tmp_path / f"{max_steps}.ckpt")
    return module.seen


def test_a_resumed_run_sees_what_the_uninterrupted_one_saw(stores, tmp_path):
    whole = fit(stores, 12, tmp_path, updates_per_step=3)
    first = fit(stores, 6, tmp_path, updates_per_step=3)
    second = fit(stores, 12, tmp_path, ckpt_path=tmp_path / "6.ckpt", updates_per_step=3)
    np.testing.assert_array_equal(whole, first + second)


def test_updates_per_step_must_divide_max_steps(stores, tmp_path):
    with pytest.raises(
        ConfigError, match=r"updates_per_step 5 does not divide trainer.max_steps 12: change one"
    ):
        fit(stores, 12, tmp_path, updates_per_step=5)


def test_updates_per_step_must_divide_what_a_resumed_training_has_left(stores, tmp_path):
    fit(stores, 6, tmp_path, updates_per_step=3)
    said = r"updates_per_step is 4, but a training that goes on from update 6 does not come to max_steps 12"
    with pytest.raises(ConfigError, match=said):
        fit(stores, 12, tmp_path, ckpt_path=tmp_path / "6.ckpt", updates_per_step=4)
    assert len(fit(stores, 12, tmp_path, ckpt_path=tmp_path / "6.ckpt", updates_per_step=2)) == 6


def test_validation_batches_are_episode_seeds(stores):
    data = ReplayData(**stores, eval_episodes=4, eval_seed=7)
    seeds = [int(seed) for batch in data.val_dataloader() for seed in batch]
    assert len(set(seeds)) == 4
    assert seeds == [int(seed) for batch in data.test_dataloader() for seed in batch]
    other = ReplayData(**stores, eval_episodes=4, eval_seed=8)
    assert not set(seeds) & {int(seed) for batch in other.val_dataloader() for seed in batch}


def test_rows_for_diffusion(stores, tmp_path):
    heldout = make_store(tmp_path / "heldout", offset=5000, num=10)
    data = RowData(stores["real"], heldout, batch_size=4, updates_per_step=2)
    data.setup("fit")
    step = next(iter(data.train_dataloader()))
    assert [tuple(rows.shape) for rows in step] == [(4, SPEC.dim)] * 2
    assert not torch.equal(*step)
    blocks = list(data.val_dataloader())
    assert [len(block) for block in blocks] == [4, 4, 2]
    assert torch.cat(blocks)[:, SPEC.fields["reward"]].ravel().tolist() == list(range(5000, 5010))
    assert list(RowData(stores["real"]).val_dataloader()) == []


def test_rows_of_another_heldout_spec(stores, tmp_path):
    heldout = make_store(tmp_path / "heldout", spec=TransitionSpec(3, 2, 0.5))
    with pytest.raises(DataError, match=r"discount 0\.5\).* but .*discount 0\.97\)"):
        RowData(stores["real"], heldout).setup("fit")


class FakeReplay:
    """Returns what it was asked for."""

    def sample(self, batch_size, generator, shift=True):
        frames = torch.from_numpy(generator.integers(256, size=(batch_size, 9, 6, 6), dtype=np.uint8))
        numbers = torch.full((batch_size, 1), float(shift))
        return Transition(frames, numbers, numbers, frames, numbers)


def test_pixels_are_drawn_per_update():
    one, two = (
        PixelData(FakeReplay(), batch_size=3),
        PixelData(FakeReplay(), 3, updates_per_step=2, shift=False),
    )
    first = [step[0].observation for step in itertools.islice(one.train_dataloader(), 2)]
    second = [batch.observation for batch in next(iter(two.train_dataloader()))]
    assert torch.equal(torch.stack(first), torch.stack(second))
    assert next(iter(two.train_dataloader()))[0].reward[0] == 0


def test_a_batch_of_latents_costs_microseconds(tmp_path):
    spec = TransitionSpec(observation_dim=100, action_dim=6, discount=0.99)
    paths = {
        "real": make_store(tmp_path / "a", spec=spec),
        "synthetic": make_store(tmp_path / "b", spec=spec),
    }
    data = ReplayData(**paths, mixing="ratio")
    data.setup("fit")
    steps = iter(data.train_dataloader())
    next(steps)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        next(steps)
        times.append((time.perf_counter() - start) / 10)
    assert np.median(times) < 1e-3  # measured: 0.1 ms
