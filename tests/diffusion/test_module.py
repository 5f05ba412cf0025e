"""The LightningModule: learns, resumes exactly, rebuilds itself, samples the same whatever else happens."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_synther.diffusion.guidance import Guidance
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=2, action_dim=1, discount=0.99)
FAST = DiffusionSampler("dpmpp_2m_sde", 15, sigma_min=0.05, sigma_max=20.0)


def correlated_rows(num_rows: int, seed: int = 0) -> torch.Tensor:
    """next = 0.9 observation + action, reward = first coordinate: relations that samples must keep."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(num_rows, 2, generator=generator) * torch.tensor([1.0, 3.0]) + 1
    action = torch.rand(num_rows, 1, generator=generator) * 2 - 1
    return torch.cat([observation, action, observation[:, :1], 0.9 * observation + action], dim=1)


ROWS = correlated_rows(4000)


class Batches(torch.utils.data.IterableDataset):
    """Endless lists of batches of 64, each a function of the rank and the update alone."""

    def __init__(self, trainer: pl.Trainer, updates_per_step: int):
        self.trainer, self.updates_per_step = trainer, updates_per_step

    def __iter__(self):
        update = self.trainer.global_step
        while True:
            seeds = [2 * k + self.trainer.global_rank for k in range(update, update + self.updates_per_step)]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            yield [ROWS[torch.randint(len(ROWS), (64,), generator=g)] for g in generators]
            update += self.updates_per_step


class Data(pl.LightningDataModule):
    def __init__(self, updates_per_step: int):
        super().__init__()
        self.updates_per_step = updates_per_step

    def train_dataloader(self):
        return DataLoader(Batches(self.trainer, self.updates_per_step), batch_size=None)


class SeedByStep(pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        torch.manual_seed(trainer.global_step)


def build(**kwargs) -> LatentDiffusion:
    torch.manual_seed(0)
    settings = {"width": 32, "num_layers": 2, "time_dim": 16, "lr": 1e-3, **kwargs}
    return LatentDiffusion(SPEC.to_dict(), **settings)


def fitted(**kwargs) -> LatentDiffusion:
    model = build(**kwargs)
    model.fit_normalizer(ROWS)
    return model


def trainer(max_steps: int, **kwargs) -> pl.Trainer:
    defaults = {"logger": False, "enable_checkpointing": False, "callbacks": [SeedByStep()]}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(max_steps=max_steps, **{**quiet, **defaults, **kwargs})


def fit(model, max_steps, updates_per_step=2, ckpt_path=None, **kwargs):
    t = trainer(max_steps, **kwargs)
    t.fit(model, datamodule=Data(updates_per_step), ckpt_path=ckpt_path)
    return t


@pytest.fixture(scope="module")
def trained():
    model = fitted(width=96, num_layers=3, lr=2e-3)
    fit(model, 1000, updates_per_step=10)
    return model


def test_samples_have_the_marginals_and_the_relations_of_the_data(trained):
    samples = trained.sample(4000, seed=0, sampler=FAST)
    torch.testing.assert_close(samples.mean(0), ROWS.mean(0), rtol=0, atol=0.3)
    torch.testing.assert_close(samples.std(0) / ROWS.std(0), torch.ones(SPEC.dim), rtol=0, atol=0.15)
    s, a, r, s_next, _ = SPEC.unflatten(samples)
    assert (s_next - (0.9 * s + a)).square().mean().sqrt() < 0.25
    assert (r - s[:, :1]).square().mean().sqrt() < 0.15


def test_sampling_is_a_function_of_the_seed(trained):
    torch.manual_seed(123)
    first = trained.sample(300, seed=5, sampler=FAST)
    torch.manual_seed(321)
    assert torch.equal(first, trained.sample(300, seed=5, sampler=FAST))
    blocks = trained.sample(300, seed=5, sampler=FAST, batch_size=128)
    torch.testing.assert_close(blocks[:128], trained.sample(128, seed=5, sampler=FAST, batch_size=128))
    assert not torch.equal(first, trained.sample(300, seed=6, sampler=FAST))


def test_prediction_answers_requests(trained, tmp_path):
    trained.sampler = FAST
    requests = DataLoader([(0, 50, 7), (1, 20, 8)], batch_size=None)
    rows = trainer(1).predict(trained, requests)
    assert [tuple(r.shape) for r in rows] == [(50, SPEC.dim), (20, SPEC.dim)]
    torch.testing.assert_close(rows[1], trained.sample(20, seed=8))
    with_autocast = trainer(1, precision="bf16-mixed").predict(trained, requests)
    assert with_autocast[0].dtype == torch.float32
    assert 0 < (with_autocast[0] - rows[0]).abs().mean() < 0.1


def test_bfloat16_sampling_keeps_the_weights(trained):
    before = trained.ema.model.network.head.weight.clone()
    trained.hparams["sampling_dtype"] = "bfloat16"
    half = trained.sample(200, seed=0, sampler=FAST)
    trained.hparams["sampling_dtype"] = None
    full = trained.sample(200, seed=0, sampler=FAST)
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().mean() < 0.1
    assert torch.equal(before, trained.ema.model.network.head.weight)


def test_guidance_goes_through_the_bfloat16_network_in_a_prediction(trained, monkeypatch):
    requests, results = DataLoader([(0, 200, 7)], batch_size=None), {}
    trained.sampler = FAST
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setitem(trained.hparams, "sampling_dtype", dtype)
        for weight in (0.0, 1.0):
            guidance = Guidance(
                log_density=lambda x, variance: x[:, 0], density_weight=weight, through_network=True
            )
            monkeypatch.setattr(trained, "guidance", guidance)
            (results[dtype, weight],) = trainer(1).predict(trained, requests)  # in inference mode
    moved = {dtype: (results[dtype, 1.0] - results[dtype, 0.0]).mean(0) for dtype in ("float32", "bfloat16")}
    assert moved["float32"][0] > 0.1
    torch.testing.assert_close(moved["bfloat16"], moved["float32"], rtol=0.1, atol=0.05)


def test_sampling_uses_the_averaged_weights(trained):
    expected = trained.sample(10, seed=0, sampler=FAST)
    with torch.no_grad():
        backup = trained.denoiser.network.head.weight.clone()
        trained.denoiser.network.head.weight.zero_()
    assert torch.equal(expected, trained.sample(10, seed=0, sampler=FAST))
    trained.denoiser.network.head.weight.data.copy_(backup)


@pytest.mark.parametrize("updates_per_step", [1, 3])
def test_updates_in_a_step_count_one_by_one(updates_per_step):
    model = fitted()
    assert fit(model, 12, updates_per_step).global_step == 12
    assert model.ema.num_calls == 12


def test_resumed_training_is_exact(tmp_path):
    settings = {"ema_update_every": 3, "num_training_steps": 12}
    whole, half = fitted(**settings), fitted(**settings)
    fit(whole, 12)
    fit(half, 6).save_checkpoint(tmp_path / "half.ckpt")
    resumed = build(**settings)  # not fitted: the statistics come from the checkpoint
    fit(resumed, 12, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.ema.num_calls == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_checkpoints_rebuild_the_model(trained, tmp_path):
    t = trainer(1)
    t.strategy.connect(trained)
    t.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    loaded = LatentDiffusion.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.spec == SPEC
    assert torch.equal(loaded.sample(20, seed=3, sampler=FAST), trained.sample(20, seed=3, sampler=FAST))


def test_validation_is_the_same_every_time_and_sees_learning(trained):
    rows = correlated_rows(500, seed=9)
    loader = DataLoader([rows[i : i + 128] for i in range(0, 500, 128)], batch_size=None)
    t = trainer(1)
    first, second = (t.validate(trained, loader, verbose=False)[0] for _ in range(2))
    assert first == second
    levels = [name for name in first if name.startswith("val/loss_sigma_")]
    assert len(levels) == 8
    mean = sum(first[name] for name in levels) / 8
    assert first["val/loss"] == pytest.approx(mean, rel=0.02)
    untrained = fitted(width=96, num_layers=3)
    assert first["val/loss"] < 0.7 * t.validate(untrained, loader, verbose=False)[0]["val/loss"]


def test_bf16_mixed_training_follows_float32():
    full, mixed = fitted(), fitted()
    logged = [
        fit(m, 60, log_every_n_steps=1, precision=p) for m, p in ((full, "32-true"), (mixed, "bf16-mixed"))
    ]
    losses = [t.callback_metrics["train/loss"].item() for t in logged]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert mixed.denoiser.network.head.weight.dtype == torch.float32


def test_metrics_are_logged_at_gradient_updates(tmp_path):
    class Recorder(pl.loggers.Logger):
        name, version = "recorder", 0

        def __init__(self):
            super().__init__()
            self.seen = []

        def log_metrics(self, metrics, step=None):
            self.seen.append((step, set(metrics)))

        def log_hyperparams(self, *args, **kwargs):
            """Nothing to keep."""

    logger = Recorder()
    fit(fitted(log_every_n_updates=10), 40, updates_per_step=4, logger=logger, log_every_n_steps=1)
    assert [step for step, _ in logger.seen] == [12, 20, 32, 40]
    assert logger.seen[0][1] == {"train/loss", "train/grad_norm", "train/lr"}


def test_a_terminal_column_without_terminals_stays_zero():
    spec = TransitionSpec(observation_dim=2, action_dim=1, discount=0.99, terminal=True)
    model = LatentDiffusion(spec.to_dict(), width=16, num_layers=1)
    model.fit_normalizer(torch.cat([ROWS, torch.zeros(len(ROWS), 1)], dim=1))
    assert (model.sample(50, seed=0, sampler=FAST)[:, -1] == 0).all()


def test_minmax_samples_stay_in_range():
    model = fitted(normalizer="minmax")
    samples = model.sample(200, seed=0, sampler=FAST)
    assert (samples >= ROWS.min(0).values - 1e-4).all()
    assert (samples <= ROWS.max(0).values + 1e-4).all()


def test_bad_data_are_refused():
    model = build()
    with pytest.raises(DataError, match="3 records of 6 numbers are too few"):
        model.fit_normalizer(ROWS[:3])
    with pytest.raises(DataError, match=r"shape \(100, 5\), the model expects rows of 6"):
        model.fit_normalizer(ROWS[:100, :5])
    broken = ROWS.clone()
    broken[11, 1] = torch.nan
    with pytest.raises(DataError, match="row 11, column 1 of the data is nan"):
        model.fit_normalizer(broken)


def test_training_without_normalisation_is_refused():
    with pytest.raises(ConfigError, match=r"call fit_normalizer\(rows\) before training"):
        fit(build(), 2)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_half_precision_weights_are_refused(precision):
    with pytest.raises(ConfigError, match=f"trainer.precision is '{precision}'"):
        fit(fitted(), 2, precision=precision)


def test_a_schedule_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="lr_schedule 'cosine' needs the length of the training"):
        fit(fitted(), -1, max_epochs=1)


class RanksAgree(pl.Callback):
    def on_train_end(self, trainer, model):
        weight = model.all_gather(model.ema.model.network.head.weight)
        assert weight.shape[0] == 2
        assert torch.equal(weight[0], weight[1])


@pytest.mark.slow
def test_two_processes_train_the_same_weights():
    model, alone = fitted(), fitted()
    fit(model, 8, updates_per_step=4, devices=2, strategy="ddp_spawn", callbacks=[RanksAgree()])
    fit(alone, 8, updates_per_step=4)
    assert model.ema.num_calls == 8
    assert not torch.equal(model.denoiser.network.head.weight, alone.denoiser.network.head.weight)
