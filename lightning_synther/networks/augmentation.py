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
    the identity; all channels of an image move together. The published code resamples bilinearly on a
    float32 grid that meets pixel centres only up to rounding; the two differ by less than 0.004 grey levels
    of 255.
    """
    num, channels, height, width = images.shape
    padded = replicate_pad(images, pad)
    padded_height, padded_width = padded.shape[2:]
    x, y = shifts.to(images.device)[:, :, None, None].unbind(1)
    first_row = torch.arange(num * channels, device=images.device).view(num, channels, 1) * padded_height
    row = first_row + y + torch.arange(height, device=images.device)
    start = row * padded_width + x
    # Whole rows are copied, out of a view of the padded images in which a row starts at every pixel.
    every_row = padded.view(-1).as_strided((padded.numel() - width + 1, width), (1, 1))
    return every_row.index_select(0, start.flatten()).view(images.shape)


def replicate_pad(images: Tensor, pad: int) -> Tensor:
    """Repeat the edges of (N, C, H, W) ``pad`` times on each side."""
    num, channels, height, width = images.shape
    padded = images.new_empty(num, channels, height + 2 * pad, width + 2 * pad)
    middle = padded[:, :, pad : pad + height]
    middle[..., pad : pad + width] = images
    middle[..., :pad] = images[..., :1]
    middle[..., pad + width :] = images[..., -1:]
    padded[:, :, :pad] = middle[:, :, :1]
    padded[:, :, pad + height :] = middle[:, :, -1:]
    return padded
