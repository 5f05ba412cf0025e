"""Watch a diffusion model work: rows at a noise level, and every step that a sampler takes from noise to data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.samplers import DiffusionSampler
from lightning_synther.errors import ConfigError
from lightning_synther.seeding import derive_seed


class DenoisingStep(NamedTuple):
    """One evaluation of the denoiser: what it was given and what it made of it, both (N, D) in data units.

    ``noisy``: rows plus noise of standard deviation ``sigma`` in each normalised column. ``estimate``: D(noisy; sigma),
    the mean of the clean rows that could lie behind them.
    """

    sigma: float
    noisy: Tensor
    estimate: Tensor


@torch.no_grad()
def add_noise(
    model: LatentDiffusion, rows: Tensor | NDArray[np.float32], sigma: float, seed: int = 0
) -> DenoisingStep:
    """Noise of level ``sigma`` on rows (N, D) in data units, and what the averaged weights make of that.

    The forward process of EDM (Karras et al. 2022), x = clean + sigma * noise in normalised units, as in training.

    >>> from lightning_synther import TransitionSpec
    >>> spec = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)
    >>> rows = torch.randn(100, spec.dim, generator=torch.Generator().manual_seed(0))
    >>> model = LatentDiffusion(spec=spec.to_dict(), width=32, num_layers=1)
    >>> model.fit_normalizer(rows)
    >>> add_noise(model, rows, sigma=0.5).noisy.shape
    torch.Size([100, 8])
    """
    _require_unconditional(model)
    x = model.normalizer(torch.as_tensor(rows, dtype=torch.float32, device=model.device))
    generator = torch.Generator(model.device).manual_seed(derive_seed(seed, "add noise"))
    x = x + sigma * torch.randn(x.shape, generator=generator, device=model.device)
    estimate = model.ema.model(x, x.new_full((), sigma))
    return DenoisingStep(sigma, model.normalizer.inverse(x), model.normalizer.inverse(estimate))


@torch.no_grad()
def denoising_steps(
    model: LatentDiffusion, num_rows: int, *, seed: int, sampler: DiffusionSampler | None = None
) -> list[DenoisingStep]:
    """Every network evaluation behind ``model.sample(num_rows, seed=seed, sampler=sampler)``, first to last.

    Heun's samplers evaluate each noise level twice. For unconditional models; ``num_rows`` in one block.

    >>> from lightning_synther import DiffusionSampler, TransitionSpec
    >>> spec = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)
    >>> model = LatentDiffusion(spec=spec.to_dict(), width=32, num_layers=1)
    >>> model.fit_normalizer(torch.randn(100, spec.dim, generator=torch.Generator().manual_seed(0)))
    >>> sampler = DiffusionSampler("euler", num_steps=4, sigma_min=0.1)
    >>> [round(step.sigma, 2) for step in denoising_steps(model, 5, seed=0, sampler=sampler)]
    [80.0, 16.05, 1.99, 0.1]
    """
    _require_unconditional(model)
    steps: list[DenoisingStep] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...], estimate: Tensor) -> None:
        noisy, sigma = inputs[0].float(), inputs[1]
        restored = (model.normalizer.inverse(part) for part in (noisy, estimate.float()))
        steps.append(DenoisingStep(float(sigma), *restored))

    handle = model.ema.model.register_forward_hook(keep)
    try:
        model.sample(num_rows, seed=seed, sampler=sampler, batch_size=num_rows)
    finally:
        handle.remove()
    return steps


def _require_unconditional(model: LatentDiffusion) -> None:
    if model.conditioner.dim:
        raise ConfigError(
            f"the model is conditioned on {', '.join(model.conditioner.sizes)}, and its steps are shown without "
            "conditions only: train a model without"
        )
