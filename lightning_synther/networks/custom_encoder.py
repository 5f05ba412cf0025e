"""A frozen encoder of one's own: any network from stacked frames to a vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_synther.errors import DataError


class CustomEncoder(nn.Module):
    """Base class of encoders that this package does not have; behind one, an agent's trunks train.

    A subclass makes its networks after ``super().__init__``, and implements `latents`. Checkpoints of agents name the
    class and its arguments and rebuild it from them, so it has to be importable where they are loaded.

    Args:
        latent_dim: size of z.
        image_size: pixels a side of a frame.
        frame_stack: frames in an observation.
        arguments: the subclass's own constructor arguments beside image_size and frame_stack, in plain types.

    >>> class Means(CustomEncoder):
    ...     def __init__(self, image_size: int = 84, frame_stack: int = 3):
    ...         super().__init__(3 * frame_stack, image_size, frame_stack)
    ...
    ...     def latents(self, frames: Tensor) -> Tensor:
    ...         return frames.float().mean((2, 3)) / 255
    >>> Means().encode(torch.zeros(5, 9, 84, 84, dtype=torch.uint8)).shape
    torch.Size([5, 9])
    """

    def __init__(self, latent_dim: int, image_size: int = 84, frame_stack: int = 3, **arguments: Any) -> None:
        super().__init__()
        cls = type(self)
        self.latent_dim = latent_dim
        self.config: dict[str, Any] = {
            "kind": f"{cls.__module__}.{cls.__qualname__}",
            "latent_dim": latent_dim,
            "image_size": image_size,
            "frame_stack": frame_stack,
            "arguments": arguments,
        }

    def latents(self, frames: Tensor) -> Tensor:
        """z (B, latent_dim) of stacked frames (B, 3 * frame_stack, S, S) uint8, oldest frame first."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> CustomEncoder:
        """Stays in evaluation mode: nothing of a frozen encoder moves."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """`latents`, checked: raises `DataError` for frames or latents of another size than was said."""
        size, channels = self.config["image_size"], 3 * self.config["frame_stack"]
        if frames.shape[1:] != (channels, size, size):
            raise DataError(
                f"frames are {tuple(frames.shape[1:])}, the encoder was made for {(channels, size, size)}: use the "
                "image_size and frame_stack of its dataset"
            )
        if self.training:  # as every module is when it is made
            self.eval()
        z = self.latents(frames)
        if z.shape != (len(frames), self.latent_dim):
            raise DataError(
                f"{type(self).__name__}.latents gives {tuple(z.shape)} for {len(frames)} observations, its latent_dim "
                f"says {(len(frames), self.latent_dim)}: make the two agree"
            )
        return z

    encode_next = forward = encode

    def encode_both(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """z and z' of the same frames, which are the same."""
        z = self.encode(frames)
        return z, z
