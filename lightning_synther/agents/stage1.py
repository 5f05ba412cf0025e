"""What an agent on latents takes over from the pixel agent of stage 1: the encoder, and if asked the
heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_synther.errors import ConfigError
from lightning_synther.networks.encoders import read_checkpoint
from lightning_synther.networks.frozen import describe_encoder, encoder_config, encoder_from_state, has_trunks


def read_stage1(given: dict[str, Any]) -> dict[str, Any]:
    """Checkpoint that an agent's arguments ``given`` name, if they do; its encoder's sizes go into ``given``.

    Raises `DataError` for a file without an encoder, `ConfigError` for heads from nowhere.
    """
    checkpoint: dict[str, Any] = {}
    if given["encoder_checkpoint"] is not None and given["observation"] == "latents":
        checkpoint = read_checkpoint(given["encoder_checkpoint"])
        given["encoder_config"] = encoder_config(checkpoint["hyper_parameters"], checkpoint["state_dict"])
    if given["heads"] == "pretrained" and given["encoder_config"] is None:
        raise ConfigError("heads is 'pretrained', but there is no encoder_checkpoint to take them from")
    if given["heads"] == "pretrained" and not has_trunks(given["encoder_config"]):
        raise ConfigError(
            f"heads is 'pretrained', but the encoder is {describe_encoder(given['encoder_config'])}, which has none: "
            "give 'new'"
        )
    return checkpoint


def load_stage1(agent: LightningModule, checkpoint: Mapping[str, Any]) -> None:
    """Copy the encoder of a stage-1 checkpoint into ``agent``, and its heads where ``heads`` is 'pretrained'.

    Raises `ConfigError` where the heads do not fit: another width or depth, or another algorithm.
    """
    encoder = encoder_from_state(checkpoint["hyper_parameters"], checkpoint["state_dict"])
    agent.pixel_encoder.load_state_dict(encoder.state_dict())  # type: ignore[union-attr]
    if agent.hparams["heads"] == "new":
        return
    found = checkpoint["state_dict"]
    agent.load_state_dict({key: found[key] for key in fitting_heads(agent, found)}, strict=False)


def fitting_heads(agent: LightningModule, found: Mapping[str, Tensor]) -> set[str]:
    """Names of the heads' tensors of ``agent``; `ConfigError` where those of stage 1, ``found``, do not fit."""
    own = agent.state_dict()
    heads = {key for key in own if key.startswith(("actor.", "critic.", "critic_target."))}
    unfit = sorted(key for key in heads if key not in found or found[key].shape != own[key].shape)
    if unfit:
        raise ConfigError(
            f"heads is 'pretrained', but {unfit[0]} of the encoder_checkpoint does not fit this agent: "
            "use the algorithm, hidden_dim and num_layers of stage 1, or heads 'new'"
        )
    return heads
