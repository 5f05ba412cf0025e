"""Latents as pictures: a small network from a latent to the newest frame of its stack."""

from __future__ import annotations

from torch import Tensor, nn


class FrameDecoder(nn.Module):
    """Latents (B, latent_dim) to frames (B, 3, image_size, image_size), values around [0, 1].

    A linear map to a coarse map of features, then blocks that double its sides and halve its channels, then a resize
    to the frames' own size. Upsampling before each convolution leaves no checkerboards (Odena et al. 2016).

    Args:
        latent_dim: size of a latent.
        image_size: pixels a side.
        width: channels of the coarsest map.
    """

    def __init__(self, latent_dim: int, image_size: int = 84, width: int = 128) -> None:
        super().__init__()
        self.coarse = max(2, -(-image_size // 16))
        self.width = width
        self.linear = nn.Linear(latent_dim, width * self.coarse**2)
        layers: list[nn.Module] = []
        channels = width
        for _ in range(4):
            layers += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(channels, max(8, channels // 2), 3, padding=1, padding_mode="replicate"),
                nn.GELU(),
            ]
            channels = max(8, channels // 2)
        self.blocks = nn.Sequential(*layers)
        self.resize = nn.Upsample((image_size, image_size), mode="bilinear", align_corners=False)
        self.last = nn.Conv2d(channels, 3, 3, padding=1, padding_mode="replicate")

    def forward(self, z: Tensor) -> Tensor:
        """Frames, not clamped."""
        coarse = self.linear(z).unflatten(1, (self.width, self.coarse, self.coarse))
        frames: Tensor = self.last(self.resize(self.blocks(coarse)))
        return frames
