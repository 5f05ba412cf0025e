"""The diffusion model over flat transitions as a LightningModule: train, validate, sample."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lightning_synther.bounds import check_counts, check_positive
from lightning_synther.diffusion.conditioning import Conditioner
from lightning_synther.diffusion.ema import EMA
from lightning_synther.diffusion.guidance import Guidance, check_guidance
from lightning_synther.diffusion.levels import NUM_ROWS, data_levels
from lightning_synther.diffusion.loss import edm_loss
from lightning_synther.diffusion.noise import Schedule, training_sigma
from lightning_synther.diffusion.normalizer import NormalizerName, build_normalizer
from lightning_synther.diffusion.optimization import LRSchedule, decay_groups, lr_factor, step_clipped
from lightning_synther.diffusion.preconditioning import Denoise, Preconditioned, Target
from lightning_synther.diffusion.samplers import Churn, DiffusionSampler, SamplerName
from lightning_synther.diffusion.sampling import (
    draw_conditions,
    guided_denoiser,
    sample_rows,
    sampling_dtype,
    sampling_network,
)
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.diffusion.validation import ValidationLosses
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.denoiser import Activation, ResidualMLP
from lightning_synther.transition import TransitionSpec


class LatentDiffusion(LightningModule):
    """EDM over flat transitions (Karras et al. 2022) with SynthER's published settings as defaults.

    A training batch is a list of rows (B, D) in data units, one gradient update each, followed by the columns
    of their conditions where the model has some; a validation batch is one block of such rows; a prediction
    batch is a (index, num_rows, seed) tuple. Sampling uses the averaged weights (`EMA`).

    Attributes:
        guidance: how prediction, and `sample` unless told otherwise, is steered.

    Args:
        spec: sizes of a transition, as `TransitionSpec.to_dict` gives them.
        conditions: numbers of each condition by its name; None for an unconditional model.
        condition_dropout: share of the rows whose condition is hidden in training.
        target: what the network learns, EDM's mixture (``edm``) or the velocity of flow matching on straight
            paths (``flow``); noise levels, samplers and guidance are the same for both.
        width: hidden width of the residual MLP.
        num_layers: residual blocks.
        time_dim: width of the noise-level embedding (256 in SynthER's online experiments).
        fourier_dim: number of Fourier features of the noise level.
        fourier_features: fixed random frequencies, or learned ones.
        activation: of the residual MLP.
        layer_norm: normalise before every activation.
        normalizer: ``standard`` (zero mean, unit variance) or ``minmax`` ([-1, 1], samples clamped).
        skip_fields: fields left unnormalised, only with ``standard``; ``terminal`` may be absent.
        sigma_data: standard deviation of the normalised data.
        P_mean: mean of ln sigma in training.
        P_std: standard deviation of ln sigma in training.
        lr: learning rate of AdamW.
        betas: AdamW's betas.
        weight_decay: on all but biases.
        lr_schedule: decay of the learning rate over the training.
        num_training_steps: length of that decay in updates; None takes the Trainer's ``max_steps``.
        grad_clip: largest global gradient norm; None for no clipping.
        ema_decay: largest weight of the old average.
        ema_update_every: gradient updates between two updates of the average.
        ema_warmup: SynthER's warm-up rule; false averages with ``ema_decay`` from the start.
        sampler: sampler used by `sample` and for prediction. The default is as good as the published one, 128 steps
            of ``stochastic_heun`` from 80 to 0.002, at a twentieth of its cost (docs/results/samplers.md).
        num_sampling_steps: its steps.
        sigma_min: smallest noise level of sampling; near the data's own noise it saves most steps. ``auto``
            derives it from the data (`data_levels`).
        sigma_max: largest noise level of sampling, or ``auto``.
        rho: spacing of the noise levels.
        schedule: kind of spacing: EDM's with ``rho``, uniform in log sigma, or uniform on straight paths.
        S_churn: noise added by ``stochastic_heun``.
        S_tmin: smallest noise level where it is added.
        S_tmax: largest noise level where it is added.
        S_noise: standard deviation of that noise.
        sampling_batch_size: rows denoised together; part of what a seed means.
        sampling_dtype: precision of the network while sampling; None follows the Trainer's autocast.
        log_every_n_updates: gradient updates between two logged training metrics.

    >>> spec = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)
    >>> model = LatentDiffusion(spec=spec.to_dict(), width=32, num_layers=1, num_sampling_steps=4)
    >>> model.fit_normalizer(torch.rand(100, spec.dim))  # a Trainer does so itself
    >>> rows = model.sample(16, seed=0)  # after training, that is
    >>> spec.unflatten(rows).action.shape
    torch.Size([16, 1])
    """

    data_sigmas: Tensor

    def __init__(
        self,
        spec: dict[str, Any],
        conditions: dict[str, int] | None = None,
        condition_dropout: float = 0.25,
        target: Target = "edm",
        width: int = 2048,
        num_layers: int = 6,
        time_dim: int = 128,
        fourier_dim: int = 16,
        fourier_features: Literal["random", "learned"] = "random",
        activation: Activation = "relu",
        layer_norm: bool = False,
        normalizer: NormalizerName = "standard",
        skip_fields: Sequence[str] = ("terminal",),
        sigma_data: float = 1.0,
        P_mean: float = -1.2,
        P_std: float = 1.2,
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        lr_schedule: LRSchedule = "cosine",
        num_training_steps: int | None = None,
        grad_clip: float | None = 1.0,
        ema_decay: float = 0.995,
        ema_update_every: int = 10,
        ema_warmup: bool = True,
        sampler: SamplerName = "dpmpp_2m_sde",
        num_sampling_steps: int = 12,
        sigma_min: float | Literal["auto"] = "auto",
        sigma_max: float | Literal["auto"] = "auto",
        rho: float = 7.0,
        schedule: Schedule = "edm",
        S_churn: float = 80.0,
        S_tmin: float = 0.05,
        S_tmax: float = 50.0,
        S_noise: float = 1.003,
        sampling_batch_size: int = 1024,
        sampling_dtype: Literal["float32", "bfloat16"] | None = None,
        log_every_n_updates: int = 50,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.spec = TransitionSpec(**spec)
        check_counts(
            "", width=width, ema_update_every=ema_update_every, log_every_n_updates=log_every_n_updates
        )
        check_positive("", lr=lr)
        if not 0 <= condition_dropout < 1:
            raise ConfigError(f"condition_dropout is {condition_dropout}: give a share from 0, below 1")
        self.normalizer = build_normalizer(self.spec, normalizer, skip_fields)
        self.conditioner = Conditioner(conditions or {})
        network = ResidualMLP(
            self.spec.dim,
            width,
            num_layers,
            time_dim=time_dim,
            fourier_dim=fourier_dim,
            time_features=fourier_features,
            activation=activation,
            layer_norm=layer_norm,
            cond_dim=self.conditioner.input_dim,
        )
        self.denoiser = Preconditioned(network, sigma_data, target)
        self.ema = EMA(self.denoiser, ema_decay, ema_update_every, warmup=ema_warmup)
        self.guidance = Guidance()
        levels_from_data = "auto" in (sigma_min, sigma_max)
        self.register_buffer("data_sigmas", torch.zeros(2, dtype=torch.float64), persistent=levels_from_data)
        self._sampler: DiffusionSampler | None = None
        if not levels_from_data:
            self._make_sampler()  # a wrong setting is refused now
        self.validation_losses = ValidationLosses(P_mean, P_std, target=target)

    @property
    def sampler(self) -> DiffusionSampler:
        """The sampler of the hyperparameters; with ``auto`` levels, those of the data that were fitted."""
        return self._sampler or self._make_sampler()

    @sampler.setter
    def sampler(self, sampler: DiffusionSampler) -> None:
        self._sampler = sampler

    def _make_sampler(self) -> DiffusionSampler:
        hp = self.hparams
        low, high = hp["sigma_min"], hp["sigma_max"]
        if "auto" in (low, high):
            if not self.normalizer.fitted:
                raise ConfigError(
                    "sigma_min or sigma_max is 'auto', but the model has seen no data: call "
                    "fit_normalizer(rows), train it, or give numbers"
                )
            from_data = self.data_sigmas.tolist()
            low = from_data[0] if low == "auto" else low
            high = from_data[1] if high == "auto" else high
        churn = Churn(hp["S_churn"], hp["S_tmin"], hp["S_tmax"], hp["S_noise"])
        return DiffusionSampler(
            hp["sampler"], hp["num_sampling_steps"], low, high, hp["rho"], churn, hp["schedule"]
        )

    def fit_normalizer(
        self, rows: NDArray[np.floating] | Tensor, conditions: NDArray[np.floating] | Tensor | None = None
    ) -> None:
        """Fit the normaliser to ``rows`` (N, D), once, before training; a memory map is read in chunks.

        ``conditions`` (N, C) are fitted too, and ``auto`` noise levels derived. Raises `DataError` for rows
        of another length than the spec's, fewer rows than columns, values that are not finite, or conditions
        that do not suit the model.
        """
        if rows.ndim != 2 or rows.shape[1] != self.spec.dim:
            raise DataError(
                f"the data have shape {tuple(rows.shape)}, the model expects rows of {self.spec.dim}"
            )
        if len(rows) < self.spec.dim:
            raise DataError(
                f"{len(rows)} records of {self.spec.dim} numbers are too few to fit a diffusion model: "
                f"give at least {self.spec.dim}"
            )
        self.conditioner.check_one_for_each(len(rows), conditions)
        self.normalizer.fit(ColumnStatistics.of(rows))
        if conditions is not None:
            self.conditioner.fit(conditions)
        if "auto" in (self.hparams["sigma_min"], self.hparams["sigma_max"]):
            part = torch.as_tensor(rows[:: max(1, len(rows) // NUM_ROWS)], dtype=torch.float32)
            levels = data_levels(self.normalizer(part.to(self.device)))
            self.data_sigmas.copy_(torch.tensor(levels[:2], dtype=torch.float64))

    def setup(self, stage: str) -> None:
        """Refuse half precision; fit the normaliser to the datamodule's ``rows`` if nobody has."""
        if self.trainer.precision in ("16-mixed", "16-true", "bf16-true", "transformer-engine-float16"):
            raise ConfigError(
                f"trainer.precision is {self.trainer.precision!r}, but the diffusion model keeps float32 "
                "weights and scales no gradients: give '32-true' or 'bf16-mixed'"
            )
        data = getattr(self.trainer, "datamodule", None)
        rows = getattr(data, "rows", None)
        if stage == "fit" and rows is not None and not self.normalizer.fitted:
            self.fit_normalizer(rows, getattr(data, "condition_columns", None))

    def on_fit_start(self) -> None:
        """Refuse to train on data that were never normalised."""
        if not self.normalizer.fitted:
            raise ConfigError("the normaliser is not fitted: call fit_normalizer(rows) before training")

    def loss(
        self, rows: Tensor, sigma_normal: Tensor, noise: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Training loss of rows (B, D + C) in data units, given standard normals (B,) for sigma and (B, D),
        and for a conditional model 1 where the condition is shown, else 0, (B, 1).
        """
        sigma = training_sigma(sigma_normal, self.hparams["P_mean"], self.hparams["P_std"])
        x, cond = self._inputs(rows, present)
        denoise = partial(self.denoiser, cond=cond)
        return edm_loss(denoise, x, sigma, noise, self.denoiser.sigma_data, self.denoiser.target).mean()

    def _inputs(self, rows: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Normalised rows (B, D) and the network's condition (B, C + 1), of a batch (B, D + C)."""
        dim, wanted = self.spec.dim, self.spec.dim + self.conditioner.dim
        if rows.shape[1] != wanted:
            raise DataError(
                f"a batch has {rows.shape[1]} columns, the model expects {dim} of the transition and "
                f"{self.conditioner.describe()} of conditions: make its data with the same conditions"
            )
        x = self.normalizer(rows[:, :dim])
        return x, self.conditioner(rows[:, dim:], present) if self.conditioner.dim else None

    def draw(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The random numbers of one update, as `loss` takes them."""
        normals = torch.randn_like(rows[:, 0]), torch.randn_like(rows[:, : self.spec.dim])
        if not self.conditioner.dim:
            return normals
        present = torch.rand_like(rows[:, :1]) >= self.hparams["condition_dropout"]
        return *normals, present.to(rows.dtype)

    def update(self, rows: Tensor) -> dict[str, Tensor]:
        """One gradient update on rows (B, D); detached metrics, still on the device."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        loss = self.loss(rows, *self.draw(rows))
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = step_clipped(optimizer, self.hparams["grad_clip"])
        self.ema.update(self.denoiser)
        self._scheduler.step()
        return {"loss": loss.detach(), "grad_norm": norm.detach()}

    @property
    def _scheduler(self) -> LambdaLR:
        return cast(LambdaLR, self.lr_schedulers())

    def training_step(self, batches: Sequence[Tensor], batch_idx: int) -> None:
        """One gradient update for each element (B, D) of ``batches``."""
        metrics = [self.update(rows) for rows in batches]
        step, every = self.trainer.global_step, self.hparams["log_every_n_updates"]
        if step // every > (step - len(batches)) // every:
            means = {f"train/{name}": torch.stack([m[name] for m in metrics]).mean() for name in metrics[0]}
            figures: dict[str, Any] = {**means, "train/lr": self._scheduler.get_last_lr()[0]}
            self.log_dict(figures, logger=False)  # for callbacks; Lightning would count batches, not updates
            for logger in self.loggers:
                logger.log_metrics(figures, step=self.ema.num_calls)

    def validation_step(self, rows: Tensor, batch_idx: int) -> None:
        """Loss of the averaged weights on held-out rows (B, D), at fixed noise levels with fixed noise."""
        x, cond = self._inputs(rows)
        self.validation_losses.update(
            partial(self.ema.model, cond=cond), x, self.denoiser.sigma_data, batch_idx
        )

    def on_validation_epoch_end(self) -> None:
        """Report the mean over all batches and ranks."""
        losses = {f"val/{name}": value for name, value in self.validation_losses.compute().items()}
        self.log_dict({**losses, "step": float(self.ema.num_calls)})

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Fused AdamW, and the learning-rate schedule that `update` steps."""
        hp = self.hparams
        num_steps = hp["num_training_steps"] or self.trainer.max_steps
        if num_steps < 1 and hp["lr_schedule"] != "constant":
            raise ConfigError(
                f"lr_schedule {hp['lr_schedule']!r} needs the length of the training: set trainer.max_steps, "
                "or num_training_steps of the model"
            )
        groups = decay_groups(self.denoiser, hp["weight_decay"])
        optimizer = torch.optim.AdamW(groups, lr=hp["lr"], betas=tuple(hp["betas"]), fused=True)
        scheduler = LambdaLR(optimizer, lr_factor(hp["lr_schedule"], num_steps))
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def predict_step(self, request: tuple[int, int, int], batch_idx: int) -> Tensor:
        """Rows (num_rows, D) in data units, float32 on the CPU, for an (index, num_rows, seed) request."""
        _, num_rows, seed = request
        return self.sample(num_rows, seed=seed).float().cpu()

    def sample(
        self,
        num_rows: int,
        *,
        seed: int,
        condition: Tensor | NDArray[np.floating] | None = None,
        guidance: Guidance | None = None,
        sampler: DiffusionSampler | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Draw rows (num_rows, D) in data units, on the module's device, from the averaged weights.

        A function of the weights, ``seed``, the conditions, the guidance, the sampler, ``batch_size`` and the
        kind of device alone. ``sampler`` and ``batch_size`` default to the hyperparameters, ``guidance`` to
        the attribute.

        Args:
            num_rows: how many.
            seed: of the noise, and of the prompts.
            condition: conditions (num_rows, C) or (C,) in data units; None takes them from the guidance's
                prompt.
            guidance: weights, prompt and log density.
            sampler: sampler and noise levels.
            batch_size: rows denoised together.

        Raises `ConfigError` where a conditional model gets no condition, or a model guidance that it cannot
        follow.
        """
        guidance = guidance or self.guidance
        check_guidance(guidance, bool(self.conditioner.dim), self.hparams["condition_dropout"])
        conditions = draw_conditions(self.conditioner, guidance, condition, num_rows, seed)
        network = sampling_network(
            self.ema.model, sampling_dtype(self.hparams["sampling_dtype"], self.device.type)
        )

        def denoiser_of(block: slice) -> Denoise:
            part = None if conditions is None else conditions[block]
            return guided_denoiser(network, self.conditioner, guidance, part, self.denoiser.sigma_data)

        with torch.autocast(self.device.type, enabled=False):
            return sample_rows(
                denoiser_of,
                self.normalizer,
                sampler or self.sampler,
                (num_rows, self.spec.dim),
                seed=seed,
                batch_size=batch_size or self.hparams["sampling_batch_size"],
                device=self.device,
            )
