"""The sampler of SynthER's ancestor: `ElucidatedDiffusion` of the package denoising-diffusion-pytorch.

`published` hands out the package's own class where it is installed (``pip install --no-deps
denoising-diffusion-pytorch einops``; its single file is loaded, the package itself wants much more). `plain`
is the same computation (Karras et al. 2022, Algorithm 2) written straightforwardly, in float32, one noise level
at a time.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

Sample = Callable[[int, int], Tensor]
"""(rows, steps) -> samples (rows, dim)."""


class AsImage(nn.Module):
    """A network of rows (B, D) that passes for one of images (B, D, 1, 1)."""

    random_or_learned_sinusoidal_cond = True
    self_condition = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, self_cond: Tensor | None = None) -> Tensor:
        return self.network(x.flatten(1), t)[:, :, None, None]


def package() -> ModuleType | None:
    """The package's module, None where it or its one dependency is missing."""
    found = importlib.util.find_spec("denoising_diffusion_pytorch")
    if found is None or not found.submodule_search_locations or not importlib.util.find_spec("einops"):
        return None
    path = Path(found.submodule_search_locations[0]) / "elucidated_diffusion.py"
    spec = importlib.util.spec_from_file_location("elucidated_diffusion", path)
    if not path.exists() or spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.tqdm = lambda steps, **_: steps
    return module


def published(network: nn.Module, dim: int) -> Sample | None:
    """The package's sampler around ``network``; None without the package."""
    module = package()
    if module is None:
        return None
    diffusion = module.ElucidatedDiffusion(AsImage(network), image_size=1, channels=dim, sigma_data=1.0)
    return lambda rows, steps: diffusion.sample(rows, num_sample_steps=steps, clamp=False).flatten(1)


def plain(network: nn.Module, dim: int, randn: Callable[..., Tensor] = torch.randn) -> Sample:
    """128-step stochastic Heun as published, around ``network``."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        levels = torch.full((len(x), 1), sigma)
        total = levels**2 + 1
        output = network(x / total.sqrt(), levels.flatten().log() / 4)
        return x / total + levels / total.sqrt() * output

    @torch.no_grad()
    def sample(rows: int, steps: int) -> Tensor:
        ramp = torch.arange(steps) / (steps - 1)
        sigmas = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        x = sigmas[0] * randn(rows, dim)
        for i in range(steps):
            sigma = sigmas[i].item()
            following = sigmas[i + 1].item() if i + 1 < steps else 0.0
            gamma = min(80 / steps, math.sqrt(2) - 1) if 0.05 <= sigma <= 50 else 0.0
            noise = 1.003 * randn(rows, dim)
            raised = sigma * (1 + gamma)
            x = x + math.sqrt(raised**2 - sigma**2) * noise
            slope = (x - denoise(x, raised)) / raised
            stepped = x + (following - raised) * slope
            if following:
                corrected = (stepped - denoise(stepped, following)) / following
                stepped = x + (following - raised) * (slope + corrected) / 2
            x = stepped
        return x

    return sample
