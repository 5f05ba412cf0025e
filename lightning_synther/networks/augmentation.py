"""Random shift of images, DrQ's augmentation, as an exact integer crop (Yarats et al. 2021, arXiv
2107.09645).
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_shifts(num: int, pad: int, generator: torch.Generator | None = None) -> Tensor:
    """One (x, y) shift for each of ``num`` images: int64 (num, 2), uniform in 0 .. 2 * pad inclusive."""
    return torch.randint(0, 2 * pad + 1, (num, 2), generator=generator)


def random_shift(images: Tensor, shifts: Tensor, pad: int) -> Tensor:
    """Crop each image out of its edge-replicated copy: ``padded[n, :, i + y, j + x]`` for a shift (x, y).

    ``images`` is (N, C, H, W) of any type, ``shifts`` (N, 2) integers in 0 .. 2 * pad, where (pad, pad) is
    the identity; all channels of an image move together. Clamped indices stand for the padding, which is
    never built. The published code resamples bilinearly on a float32 grid that meets pixel centres only up
    to rounding; the two differ by less than 0.004 grey levels of 255.
    """
    num, channels, height, width = images.shape
    x, y = shifts.to(images.device).unbind(-1)
    rows = (torch.arange(height, device=images.device) + (y[:, None] - pad)).clamp_(0, height - 1)
    columns = (torch.arange(width, device=images.device) + (x[:, None] - pad)).clamp_(0, width - 1)
    image = torch.arange(num, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
