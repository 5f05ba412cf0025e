"""Rows from a trained model: precision of the network, blocks, seeds, and back to data units."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lightning_synther.diffusion.normalizer import Normalizer
from lightning_synther.diffusion.preconditioning import Denoise
from lightning_synther.diffusion.samplers import DiffusionSampler, StepNoise
from lightning_synther.seeding import derive_seed


def sampling_network(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """``model`` itself in float32, else a copy whose matrix and norm weights are cast once.

    Faster than autocast, which casts every weight at every evaluation. Fourier features stay in float32.
    """
    if dtype == torch.float32:
        return model
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.LayerNorm):
            layer.to(dtype)
    return model


def clamped(denoise: Denoise) -> Denoise:
    """D(x, sigma) held in [-1, 1], where min-max normalised data lie."""
    return lambda x, sigma: denoise(x, sigma).clamp(-1, 1)


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
    denoise: Denoise,
    normalizer: Normalizer,
    sampler: DiffusionSampler,
    shape: tuple[int, int],
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """Rows of ``shape`` (N, D) in data units, ``batch_size`` at a time, each block with its own seed."""
    rows = torch.empty(shape, device=device)
    for number, block in enumerate(rows.split(batch_size)):
        generator = torch.Generator(device).manual_seed(derive_seed(seed, "rows", number))
        normals = _Normals(block.shape, generator)
        block.copy_(sample_block(denoise, normalizer, sampler, normals(), normals))
    return rows


class _Normals:
    """Standard normals of one shape from one generator, a fresh tensor for each call."""

    def __init__(self, shape: torch.Size, generator: torch.Generator) -> None:
        self.shape, self.generator = shape, generator

    def __call__(self, step: int = -1) -> Tensor:
        return torch.randn(self.shape, generator=self.generator, device=self.generator.device)
