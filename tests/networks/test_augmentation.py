"""Random shift: an exact crop of the replicate-padded image, one shift an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_synther.networks.augmentation import draw_shifts, random_shift


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_shift_is_a_crop_of_the_padded_image(pad: int, n: int, height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (n, 2, height, width), dtype=torch.uint8)
    shifts = draw_shifts(n, pad)
    padded = F.pad(images.float(), (pad,) * 4, mode="replicate").to(torch.uint8)
    shifted = random_shift(images, shifts, pad)
    for i, (x, y) in enumerate(shifts.tolist()):
        assert torch.equal(shifted[i], padded[i, :, y : y + height, x : x + width])


def test_draws_cover_all_shifts() -> None:
    shifts = draw_shifts(2000, 2, torch.Generator().manual_seed(0))
    assert shifts.unique(dim=0).shape[0] == 25
    assert torch.equal(shifts, draw_shifts(2000, 2, torch.Generator().manual_seed(0)))
