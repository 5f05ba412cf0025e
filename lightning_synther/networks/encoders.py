"""Encoders: DrQ-v2's convolutions, and the frozen encoder that turns pixels into latents."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.trunk import Trunk

#: Smallest image that leaves one pixel after four 3x3 convolutions, the first with stride 2.
MIN_IMAGE_SIZE = 15


def map_shape(image_size: int, num_filters: int = 32) -> tuple[int, int, int]:
    """Shape (C, H, W) of the feature map that `DrQEncoder` makes of square images."""
    if image_size < MIN_IMAGE_SIZE:
        raise ConfigError(f"image_size is {image_size}: the encoder needs at least {MIN_IMAGE_SIZE} pixels")
    size = (image_size - 3) // 2 + 1 - 6
    return num_filters, size, size


class DrQEncoder(nn.Module):
    """Four 3x3 convolutions with 32 filters, the first with stride 2 (DrQ-v2, Yarats et al. 2021, Appendix
    B).

    Stacked frames (B, 3 * frame_stack, S, S) with values 0 .. 255 become a map (B, 32, H, W), 32 x 35 x 35
    for 84 pixels. ``features.flatten(1)`` has the order of the published implementation; memory is
    channels-last.
    """

    def __init__(self, image_size: int = 84, frame_stack: int = 3, num_filters: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3 * frame_stack
        for stride in (2, 1, 1, 1):
            layers += [nn.Conv2d(channels, num_filters, 3, stride), nn.ReLU(inplace=True)]
            channels = num_filters
        self.convnet = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.map_shape = map_shape(image_size, num_filters)

    def forward(self, frames: Tensor) -> Tensor:
        """Feature map of uint8 ``frames``, which the published network first maps to x / 255 - 0.5.

        That map is folded into the first convolution, which pads nothing: W * (x / 255 - 0.5) + b
        = (W / 255) * x + (b - 0.5 sum W). One pass over the frames less, and bytes are exact in bf16.
        """
        first = self.convnet[0]
        assert isinstance(first, nn.Conv2d)
        assert first.bias is not None
        bias = first.bias - 0.5 * first.weight.sum((1, 2, 3))
        kind = frames.device.type
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else first.weight.dtype
        x = frames.to(dtype, memory_format=torch.channels_last)
        x = F.conv2d(x, first.weight / 255, bias, first.stride)
        for layer in list(self.convnet)[1:]:
            x = layer(x)
        return x


class LatentEncoder(nn.Module):
    """Frozen convolutions and trunks of a pixel agent: frames in, latents out.

    z = [actor trunk(s), critic trunk(s)] and z' = [actor trunk(s'), *target* critic trunk(s')], because
    those are what an update reads. Behaviour cloning has no critic: its latents are the actor trunk alone.

    Args:
        image_size: pixels a side; frames are (B, 3 * frame_stack, image_size, image_size) uint8.
        frame_stack: frames in an observation.
        feature_dim: width of a trunk.
        critic: whether the agent had a critic.
    """

    def __init__(
        self, image_size: int = 84, frame_stack: int = 3, feature_dim: int = 50, critic: bool = True
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "image_size": image_size,
            "frame_stack": frame_stack,
            "feature_dim": feature_dim,
            "critic": critic,
        }
        self.encoder = DrQEncoder(image_size, frame_stack)
        self.actor_trunk = Trunk(self.encoder.map_shape, feature_dim)
        self.critic_trunk = Trunk(self.encoder.map_shape, feature_dim) if critic else None
        self.critic_target_trunk = Trunk(self.encoder.map_shape, feature_dim) if critic else None
        self.actor_slice = slice(0, feature_dim)
        self.critic_slice = slice(feature_dim, 2 * feature_dim) if critic else None
        self.latent_dim = feature_dim * (2 if critic else 1)
        self.requires_grad_(False)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Latents z (B, latent_dim) of the observations an action is taken in."""
        return self._encode(frames, self.critic_trunk)

    @torch.no_grad()
    def encode_next(self, frames: Tensor) -> Tensor:
        """Latents z' (B, latent_dim) of the observations an action leads to."""
        return self._encode(frames, self.critic_target_trunk)

    @torch.no_grad()
    def encode_both(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """z and z' (B, latent_dim) of the same frames, which go through the convolutions once."""
        features = self._features(frames)
        return self._latents(features, self.critic_trunk), self._latents(features, self.critic_target_trunk)

    forward = encode

    def _encode(self, frames: Tensor, critic_trunk: Trunk | None) -> Tensor:
        return self._latents(self._features(frames), critic_trunk)

    def _features(self, frames: Tensor) -> Tensor:
        size, channels = self.config["image_size"], 3 * self.config["frame_stack"]
        if frames.shape[1:] != (channels, size, size):
            raise DataError(
                f"frames are {tuple(frames.shape[1:])}, the encoder was trained on {(channels, size, size)}: "
                "use the image_size and frame_stack of its dataset"
            )
        return self.encoder(frames)

    def _latents(self, features: Tensor, critic_trunk: Trunk | None) -> Tensor:
        trunks = [self.actor_trunk] + ([critic_trunk] if critic_trunk is not None else [])
        return torch.cat([trunk(features) for trunk in trunks], dim=-1)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> LatentEncoder:
        """Encoder of the agent in a checkpoint, on the CPU; the file alone suffices."""
        checkpoint = read_checkpoint(path)
        return cls.from_state(checkpoint["hyper_parameters"], checkpoint["state_dict"])

    @classmethod
    def from_agent(cls, agent: nn.Module) -> LatentEncoder:
        """Encoder of an agent: a copy, frozen."""
        hparams: Mapping[str, Any] = agent.hparams  # type: ignore[assignment]
        return cls.from_state(hparams, agent.state_dict())

    @staticmethod
    def config_of(hparams: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Sizes of an agent's encoder, by its hyperparameters and state; `DataError` if it has none."""
        if hparams.get("observation") == "latents":
            return dict(hparams["encoder_config"])
        if hparams.get("observation") != "pixels":
            raise DataError("the checkpoint holds no pixel agent, so no encoder: give one of stage 1")
        sizes = {name: hparams[name] for name in ("image_size", "frame_stack", "feature_dim")}
        return sizes | {"critic": any(key.startswith("critic.trunk.") for key in state)}

    @classmethod
    def from_state(cls, hparams: Mapping[str, Any], state: Mapping[str, Tensor]) -> LatentEncoder:
        """Encoder from an agent's hyperparameters and ``state_dict``."""
        encoder = cls(**cls.config_of(hparams, state))
        if hparams["observation"] == "latents":
            parts = {"pixel_encoder.": ""}
        else:
            parts = {"encoder.": "encoder.", "actor.trunk.": "actor_trunk."}
            if encoder.config["critic"]:
                parts |= {"critic.trunk.": "critic_trunk.", "critic_target.trunk.": "critic_target_trunk."}
        encoder.load_state_dict(
            {
                inside + key.removeprefix(prefix): value
                for key, value in state.items()
                for prefix, inside in parts.items()
                if key.startswith(prefix)
            }
        )
        return encoder


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Content of a Lightning checkpoint, weights-only, on the CPU; `DataError` if it is none."""
    if not Path(path).is_file():
        raise DataError(f"checkpoint {path} does not exist: give the path of a final.ckpt or last.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if {"hyper_parameters", "state_dict"} <= set(checkpoint):
            return dict(checkpoint)
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"checkpoint {path} cannot be read ({reason}): it is damaged or foreign") from error
    raise DataError(
        f"checkpoint {path} holds no hyperparameters: it was not written by an agent of this package"
    )
