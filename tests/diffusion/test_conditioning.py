"""A conditional `LatentDiffusion`: conditional sampling yields the conditional distribution."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_synther.diffusion.conditioning import Conditioner, Prompt
from lightning_synther.diffusion.guidance import Guidance
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=1, action_dim=1, discount=0.99)
FAST = DiffusionSampler("dpmpp_2m_sde", 12, sigma_min=0.05, sigma_max=20.0)


def mixture(num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two clusters of rows at -3 and 3, deviation 0.5; the condition is 10 or 20, three quarters are 10."""
    generator = torch.Generator().manual_seed(0)
    high = torch.rand(num_rows, 1, generator=generator) > 0.75
    centre = torch.where(high, 3.0, -3.0)
    rows = centre + 0.5 * torch.randn(num_rows, SPEC.dim, generator=generator)
    return rows, torch.where(high, 20.0, 10.0)


def build(**kwargs) -> LatentDiffusion:
    torch.manual_seed(0)
    settings = {"conditions": {"cluster": 1}, "width": 64, "num_layers": 2, "time_dim": 32, "lr": 2e-3}
    return LatentDiffusion(SPEC.to_dict(), **{**settings, **kwargs})


@pytest.fixture(scope="module")
def trained() -> LatentDiffusion:
    rows, condition = mixture(4000)
    model = build()
    model.fit_normalizer(rows, condition)
    both = torch.cat([rows, condition], dim=1)
    generator = torch.Generator().manual_seed(1)
    batches = [[both[torch.randint(4000, (256,), generator=generator)] for _ in range(10)] for _ in range(50)]
    trainer = pl.Trainer(
        max_steps=500,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(batches, batch_size=None))
    return model


def share_high(rows: torch.Tensor) -> float:
    return (rows[:, 0] > 0).float().mean().item()


def test_conditional_sampling_yields_the_conditional(trained):
    for value, centre in ((10.0, -3.0), (20.0, 3.0)):
        rows = trained.sample(1000, seed=0, condition=[value], sampler=FAST)
        torch.testing.assert_close(rows.mean(0), torch.full((SPEC.dim,), centre), rtol=0, atol=0.3)
        torch.testing.assert_close(rows.std(0), torch.full((SPEC.dim,), 0.5), rtol=0, atol=0.25)


def test_each_row_follows_its_own_condition_whatever_its_block(trained):
    condition = torch.tensor([[10.0], [20.0]]).repeat(150, 1)
    rows = trained.sample(300, seed=0, condition=condition, sampler=FAST, batch_size=64)
    assert share_high(rows[::2]) < 0.03
    assert share_high(rows[1::2]) > 0.97


def test_without_the_condition_it_is_the_whole_mixture(trained):
    rows = trained.sample(2000, seed=0, guidance=Guidance(weight=0.0), sampler=FAST)
    assert share_high(rows) == pytest.approx(0.25, abs=0.06)
    assert rows[:, 0].abs().mean().item() == pytest.approx(3.0, abs=0.3)


def test_prompts_are_drawn_from_the_data(trained):
    for prompt, share in (
        (Prompt("data"), 0.25),
        (Prompt("top", 0.2), 1.0),
        (Prompt("values", values=(10.0,)), 0.0),
    ):
        rows = trained.sample(1000, seed=0, guidance=Guidance(prompt=prompt), sampler=FAST)
        assert share_high(rows) == pytest.approx(share, abs=0.05), prompt


def test_prediction_follows_the_guidance_of_the_module(trained, tmp_path):
    trained.sampler, trained.guidance = FAST, Guidance(weight=1.0, prompt=Prompt("top", 0.2))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (rows,) = trainer.predict(trained, DataLoader([(0, 200, 3)], batch_size=None))
    assert share_high(rows) > 0.95
    trainer.strategy.connect(trained)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    loaded = LatentDiffusion.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    torch.testing.assert_close(loaded.sample(200, seed=3, guidance=trained.guidance, sampler=FAST), rows)
    trained.guidance = Guidance()


def test_a_missing_condition_is_refused(trained):
    with pytest.raises(ConfigError, match="conditioned on cluster, but no condition is given: give sample"):
        trained.sample(10, seed=0)


@pytest.mark.parametrize("shape", [(10, 2), (9, 1), (2,)])
def test_conditions_of_another_shape_are_refused(trained, shape):
    with pytest.raises(ConfigError, match=r"the model expects 1 numbers a row \(cluster 1\)"):
        trained.sample(10, seed=0, condition=torch.zeros(shape))


def test_conditions_that_are_not_finite_are_refused(trained):
    with pytest.raises(ConfigError, match="not finite"):
        trained.sample(10, seed=0, condition=[float("nan")])


def test_conditions_for_an_unconditional_model_are_refused():
    model = build(conditions=None)
    model.fit_normalizer(mixture(100)[0])
    with pytest.raises(ConfigError, match="was given for 10 rows, the model expects 0 numbers"):
        model.sample(10, seed=0, condition=[1.0], sampler=FAST)
    assert not any(key.startswith("conditioner") for key in model.state_dict())


def test_data_without_the_conditions_are_refused():
    model = build()
    rows, condition = mixture(100)
    with pytest.raises(DataError, match=r"come with conditions None, the model expects 1 numbers"):
        model.fit_normalizer(rows)
    with pytest.raises(DataError, match="give the conditions that it was made for, one row for each"):
        model.fit_normalizer(rows, condition[:50])
    broken = condition.clone()
    broken[7] = torch.nan
    with pytest.raises(DataError, match="row 7, column 0 of the data is nan"):
        model.fit_normalizer(rows, broken)
    model.fit_normalizer(rows, condition)
    with pytest.raises(DataError, match="a batch has 4 columns, the model expects 4 of the transition and 1"):
        model.loss(rows, *model.draw(rows))


def test_a_dropout_of_everything_is_refused():
    with pytest.raises(ConfigError, match=r"condition_dropout is 1.0: give a share"):
        build(condition_dropout=1.0)


def test_an_average_condition_is_not_an_absent_one():
    conditioner = Conditioner({"a": 1, "b": 2})
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * [1, 2, 0] + 5
    conditioner.fit(values.astype(np.float32))
    average = conditioner(conditioner.mean[None])
    assert average.tolist() == [[0.0, 0.0, 0.0, 1.0]]
    assert conditioner.absent(1).tolist() == [[0.0] * 4]
    seen = conditioner(torch.from_numpy(values.astype(np.float32)))
    torch.testing.assert_close(seen[:, :2].std(0), torch.ones(2), rtol=0, atol=0.02)
    assert seen.isfinite().all()  # the third is constant
    hidden = conditioner(torch.from_numpy(values.astype(np.float32)), torch.zeros(50, 1))
    assert torch.equal(hidden, conditioner.absent(50))


def test_training_hides_the_asked_share_of_the_conditions():
    model = build(condition_dropout=0.4)
    present = model.draw(torch.zeros(10_000, 5))[2]
    assert 1 - present.mean().item() == pytest.approx(0.4, abs=0.02)
    assert set(present.unique().tolist()) == {0.0, 1.0}
