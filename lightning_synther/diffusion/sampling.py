"""Rows from a trained model: precision of the network, conditions, guidance, blocks, seeds, data units."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_synther.diffusion.conditioning import Conditioner
from lightning_synther.diffusion.guidance import Guidance, classifier_free, gradient_guided
from lightning_synther.diffusion.normalizer import Normalizer
from lightning_synther.diffusion.preconditioning import Denoise
from lightning_synther.diffusion.samplers import DiffusionSampler, StepNoise
from lightning_synther.errors import ConfigError
from lightning_synther.seeding import derive_seed


def sampling_dtype(name: Literal["float32", "bfloat16"] | None, device_type: str) -> torch.dtype:
    """The precision that is asked for by ``name``; None is that of autocast, float32 outside it."""
    if name is not None:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return torch.float32


def sampling_network(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """``model`` itself in float32, else a copy whose matrix and norm weights are cast once.

    Faster than autocast, which casts every weight at every evaluation. Fourier features stay in float32.
    """
    if dtype == torch.float32:
        return model
    # Trainer.predict is in inference mode, and through weights made there guidance could not be differentiated.
    with torch.inference_mode(False):
        model = copy.deepcopy(model)
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.LayerNorm):
                layer.to(dtype)
    return model


def clamped(denoise: Denoise) -> Denoise:
    """D(x, sigma) held in [-1, 1], where min-max normalised data lie."""
    return lambda x, sigma: denoise(x, sigma).clamp(-1, 1)


def draw_conditions(
    conditioner: Conditioner,
    guidance: Guidance,
    given: Tensor | NDArray[np.floating] | None,
    num_rows: int,
    seed: int,
) -> Tensor | None:
    """Conditions (num_rows, C) in data units: those ``given``, else by the guidance's prompt and ``seed``.

    None for an unconditional model. Raises `ConfigError` where one is missing, or given and of no use.
    """
    if given is not None:
        condition = torch.as_tensor(given, dtype=torch.float32, device=conditioner.mean.device)
        if not conditioner.dim or condition.shape not in (
            (num_rows, conditioner.dim),
            (conditioner.dim,),
        ):
            raise ConfigError(
                f"a condition of shape {tuple(condition.shape)} was given for {num_rows} rows, the model "
                f"expects {conditioner.describe()}: give one row for each, or one vector for all"
            )
        if not condition.isfinite().all():
            raise ConfigError("the condition that was given is not finite: give numbers")
        return condition.expand(num_rows, -1)
    if not conditioner.dim:
        return None
    if guidance.weight == 0:
        return conditioner.mean.expand(num_rows, -1)  # not looked at
    if guidance.prompt is None:
        raise ConfigError(
            f"the model is conditioned on {', '.join(conditioner.sizes)}, but no condition is given: give "
            "sample(condition=...) or a prompt (synthesis.prompt=data, top or values)"
        )
    generator = torch.Generator(conditioner.mean.device).manual_seed(derive_seed(seed, "prompts"))
    return conditioner.draw(guidance.prompt, num_rows, generator)


def guided_denoiser(
    network: nn.Module,
    conditioner: Conditioner,
    guidance: Guidance,
    conditions: Tensor | None,
    sigma_data: float,
) -> Denoise:
    """D(x, sigma) of one block of rows, with its ``conditions`` (B, C) in data units and all guidance."""
    denoise: Denoise = network
    if conditions is not None:
        absent = conditioner.absent(len(conditions))
        denoise = classifier_free(network, conditioner(conditions), absent, guidance.weight)
    if guidance.log_density is None:
        return denoise
    return gradient_guided(
        denoise,
        guidance.log_density,
        guidance.density_weight,
        sigma_data=sigma_data,
        through_network=guidance.through_network,
    )


@torch.no_grad()
def sample_block(
    denoise: Denoise,
    normalizer: Normalizer,
    sampler: DiffusionSampler,
    initial_noise: Tensor,
    step_noise: StepNoise,
) -> Tensor:
    """Rows (B, D) in data units from standard normals (B, D) and those of every step.

    Columns that were constant in the data are restored exactly.
    """
    x = sampler(clamped(denoise) if normalizer.clamp else denoise, initial_noise, step_noise)
    if normalizer.clamp:
        x = x.clamp(-1, 1)
    return normalizer.restore_constants(normalizer.inverse(x))


def sample_rows(
    denoiser_of: Callable[[slice], Denoise],
    normalizer: Normalizer,
    sampler: DiffusionSampler,
    shape: tuple[int, int],
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """Rows of ``shape`` (N, D) in data units, ``batch_size`` at a time, each block with its own seed.

    ``denoiser_of(rows)`` is D(x, sigma) for the block of those rows, which may be conditioned on them.
    """
    rows = torch.empty(shape, device=device)
    for number, block in enumerate(rows.split(batch_size)):
        generator = torch.Generator(device).manual_seed(derive_seed(seed, "rows", number))
        normals = _Normals(block.shape, generator)
        start = number * batch_size
        denoise = denoiser_of(slice(start, start + len(block)))
        block.copy_(sample_block(denoise, normalizer, sampler, normals(), normals))
    return rows


class _Normals:
    """Standard normals of one shape from one generator, a fresh tensor for each call."""

    def __init__(self, shape: torch.Size, generator: torch.Generator) -> None:
        self.shape, self.generator = shape, generator

    def __call__(self, step: int = -1) -> Tensor:
        return torch.randn(self.shape, generator=self.generator, device=self.generator.device)
