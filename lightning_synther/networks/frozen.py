"""The frozen encoders behind one door: rebuilt from a config, or from whatever checkpoint holds one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_synther.networks.encoders import LatentEncoder, read_checkpoint
from lightning_synther.networks.timm_encoder import TimmEncoder

FrozenEncoder = LatentEncoder | TimmEncoder


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether an ``encoder_config`` is a `TimmEncoder`'s."""
    return config.get("kind") == "timm"


def make_encoder(config: Mapping[str, Any]) -> FrozenEncoder:
    """An encoder of these sizes, its weights still to be loaded."""
    return TimmEncoder.from_config(config) if is_timm(config) else LatentEncoder(**config)


def encoder_config(hparams: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of the encoder in a checkpoint; `DataError` if it has none."""
    if hparams.get("observation") == "backbone":
        return dict(hparams["encoder_config"])
    return LatentEncoder.config_of(hparams, state)


def encoder_from_state(hparams: Mapping[str, Any], state: Mapping[str, Tensor]) -> FrozenEncoder:
    """The encoder in a checkpoint's hyperparameters and ``state_dict``."""
    config = encoder_config(hparams, state)
    if not is_timm(config):
        return LatentEncoder.from_state(hparams, state)
    prefix = "" if hparams["observation"] == "backbone" else "pixel_encoder."
    encoder = make_encoder(config)
    encoder.load_state_dict(
        {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    )
    return encoder


def load_encoder(path: str | Path) -> FrozenEncoder:
    """The frozen encoder in a checkpoint of stage 1, or of an agent on latents; on the CPU."""
    checkpoint = read_checkpoint(path)
    return encoder_from_state(checkpoint["hyper_parameters"], checkpoint["state_dict"])
