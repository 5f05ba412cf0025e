"""The frozen encoders behind one door: rebuilt from a config, or from whatever checkpoint holds one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_synther.errors import DataError
from lightning_synther.networks.custom_encoder import CustomEncoder
from lightning_synther.networks.encoders import LatentEncoder, read_checkpoint
from lightning_synther.networks.timm_encoder import TimmEncoder

FrozenEncoder = LatentEncoder | TimmEncoder | CustomEncoder


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether an ``encoder_config`` is a `TimmEncoder`'s."""
    return config.get("kind") == "timm"


def has_trunks(config: Mapping[str, Any]) -> bool:
    """Whether an ``encoder_config``'s latents are what an agent's trunks wrote; behind others, trunks train."""
    return "kind" not in config


def describe_encoder(config: Mapping[str, Any]) -> str:
    """What an encoder is, in words, for messages."""
    if has_trunks(config):
        return "that of a pixel agent"
    return "a timm backbone" if is_timm(config) else f"a {config['kind']}"


def latent_dim(config: Mapping[str, Any]) -> int:
    """Size of z, by an ``encoder_config``."""
    if is_timm(config):
        return int(config["frame_stack"] * config["num_components"])
    return int(
        config["feature_dim"] * (2 if config["critic"] else 1) if has_trunks(config) else config["latent_dim"]
    )


def make_encoder(config: Mapping[str, Any]) -> FrozenEncoder:
    """An encoder of these sizes, its weights still to be loaded."""
    if has_trunks(config):
        return LatentEncoder(**config)
    return TimmEncoder.from_config(config) if is_timm(config) else _make_custom(config)


def _make_custom(config: Mapping[str, Any]) -> CustomEncoder:
    module, _, name = str(config["kind"]).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(
            f"the encoder is a {config['kind']}, which cannot be imported here ({error}): put its module on the path"
        ) from error
    sizes = {key: config[key] for key in ("image_size", "frame_stack")}
    encoder: CustomEncoder = cls(**sizes, **config["arguments"])
    return encoder.requires_grad_(False).eval()


def encoder_config(hparams: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of the encoder in a checkpoint; `DataError` if it has none."""
    if hparams.get("observation") == "backbone":
        return dict(hparams["encoder_config"])
    return LatentEncoder.config_of(hparams, state)


def encoder_from_state(hparams: Mapping[str, Any], state: Mapping[str, Tensor]) -> FrozenEncoder:
    """The encoder in a checkpoint's hyperparameters and ``state_dict``."""
    config = encoder_config(hparams, state)
    if has_trunks(config):
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


def save_encoder(
    encoder: TimmEncoder | CustomEncoder, path: str | Path, *, action_dim: int, env: dict[str, Any]
) -> None:
    """Write an encoder as a checkpoint that agents take as their ``encoder_checkpoint``.

    Args:
        encoder: one that no agent of stage 1 made (that agent's checkpoint serves by itself).
        path: the file, written whole or not at all.
        action_dim: A of the environment.
        env: what agents behind the encoder act in (fields of `EnvConfig`).
    """
    hparams = {
        "observation": "backbone",
        "encoder_config": encoder.config,
        "action_dim": action_dim,
        "env": env,
    }
    state = {name: value.cpu() for name, value in encoder.state_dict().items()}
    partial = Path(path).with_name(Path(path).name + ".partial")
    torch.save({"hyper_parameters": hparams, "state_dict": state}, partial)
    partial.replace(path)
