"""What an agent observes (pixels, latents or states), checked once, and the networks that depend on it.

An algorithm is written once for the three kinds: it calls ``encoder`` and then the trunks of its actor and
critic. Pixels have convolutions and trained trunks. Latents were made by a frozen encoder, so the
encoder is the identity; where that was a `LatentEncoder` a trunk is the range of columns that the frozen trunk wrote,
behind another, which has none, it trains. States have neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.encoders import DrQEncoder, map_shape
from lightning_synther.networks.frozen import FrozenEncoder, has_trunks, latent_dim, make_encoder
from lightning_synther.networks.normalizer import StateNormalizer
from lightning_synther.networks.trunk import AnyTrunk, Columns, Trunk, VectorTrunk, WholeVector
from lightning_synther.transition import Transition

Observation = Literal["pixels", "latents", "states"]


@dataclass(frozen=True)
class Perception:
    """Sizes of an agent's inputs and outputs.

    Attributes:
        observation: kind of observation in a training batch.
        shape: shape of one of them.
        action_dim: A.
        settings: constructor arguments that these sizes settle, in plain types, for the checkpoint.
    """

    observation: Observation
    shape: tuple[int, ...]
    action_dim: int
    settings: dict[str, Any]

    def encoder(self) -> nn.Module:
        """What is before the trunks: convolutions for pixels, for states their normaliser if they have one."""
        if self.settings["normalize_states"]:
            return StateNormalizer(self.shape[0])
        if self.observation != "pixels":
            return nn.Identity()
        return DrQEncoder(self.settings["image_size"], self.settings["frame_stack"])

    def pixel_encoder(self) -> FrozenEncoder | None:
        """The frozen network that made the latents, for latents."""
        return make_encoder(self.settings["encoder_config"]) if self.observation == "latents" else None

    def actor_trunk(self) -> AnyTrunk:
        """What stands between the encoder and the policy."""
        return self._trunk(critic=False)

    def critic_trunk(self) -> AnyTrunk:
        """What stands between the encoder and the critics."""
        return self._trunk(critic=True)

    def _trunk(self, critic: bool) -> AnyTrunk:
        if self.observation == "states":
            return WholeVector(self.shape[0])
        feature_dim = self.settings["feature_dim"]
        if self.observation == "pixels":
            return Trunk(map_shape(self.settings["image_size"]), feature_dim)
        if not has_trunks(self.settings["encoder_config"]):
            return VectorTrunk(self.shape[0], feature_dim)
        if critic and not self.settings["encoder_config"]["critic"]:
            raise ConfigError(
                "the encoder comes from an agent without a critic (BC), so its latents lack what "
                "this agent's critic reads: train stage 1 with DrQV2, or train BC in stage 4"
            )
        return Columns(slice(feature_dim, 2 * feature_dim) if critic else slice(0, feature_dim))

    def check_observation(self, observation: Tensor | NDArray[Any]) -> None:
        """Raise `DataError` where observations (B, ...) do not have this shape."""
        if tuple(observation.shape[1:]) != self.shape:
            raise DataError(
                f"the agent was made for {self.observation} of shape {self.shape}, an observation here has "
                f"{tuple(observation.shape[1:])}: give it observations of its own task"
            )

    def check(self, batch: Transition) -> None:
        """Raise `DataError` where a training batch does not have these sizes."""
        found = tuple(batch.observation.shape[1:]), batch.action.shape[-1]
        if found != (self.shape, self.action_dim):
            raise DataError(
                f"the data have observations {found[0]} and {found[1]} action dimensions, the agent was "
                f"made for {self.shape} and {self.action_dim}: use the data that its encoder belongs to"
            )
        if batch.reward.shape != batch.discount.shape or batch.reward.shape[1:] != (1,):
            raise DataError(
                f"rewards {tuple(batch.reward.shape)} and discounts {tuple(batch.discount.shape)} of a batch "
                "must both be (B, 1)"
            )


def perceive(given: Mapping[str, Any], stage1: Mapping[str, Any] | None = None) -> Perception:
    """Settle an agent's sizes from its constructor arguments ``given`` and the hyperparameters of stage 1.

    Raises `ConfigError` where a size is missing or two sources of it disagree.
    """
    observation: Observation = given["observation"]
    env = given["env"] or {}
    if env and env.get("observation", "pixels") != ("states" if observation == "states" else "pixels"):
        raise ConfigError(
            f"observation is {observation!r}, but env.observation is {env.get('observation', 'pixels')!r}: "
            "an agent on states acts in an environment of states, all others in one of pixels"
        )
    settle = {"pixels": _pixels, "latents": _latents, "states": _states}.get(observation)
    if settle is None:
        raise ConfigError(f"observation is {observation!r}: give 'pixels', 'latents' or 'states'")
    shape, settings = settle(given, env, stage1)
    action_dim = _agree("action_dim", argument=given["action_dim"], stage1=(stage1 or {}).get("action_dim"))
    normalize = bool(given["normalize_states"])
    if normalize and observation != "states":
        raise ConfigError(
            f"normalize_states is true, but observation is {observation!r}: only states are normalised, "
            "frames and latents have a fixed scale; set it to false"
        )
    settings |= {"action_dim": action_dim, "normalize_states": normalize}
    return Perception(observation, shape, action_dim, settings)


def _pixels(
    given: Mapping[str, Any], env: Mapping[str, Any], stage1: Mapping[str, Any] | None
) -> tuple[tuple[int, ...], dict[str, Any]]:
    _refuse(given, "pixels", "encoder_checkpoint", "encoder_config", "observation_dim")
    size = _agree("image_size", argument=given["image_size"], env=env.get("image_size"), default=84)
    frames = _agree("frame_stack", argument=given["frame_stack"], env=env.get("frame_stack"), default=3)
    settings = {"image_size": size, "frame_stack": frames, "feature_dim": given["feature_dim"] or 50}
    return (3 * frames, size, size), settings


def _latents(
    given: Mapping[str, Any], env: Mapping[str, Any], stage1: Mapping[str, Any] | None
) -> tuple[tuple[int, ...], dict[str, Any]]:
    config = given["encoder_config"]
    if config is None:
        raise ConfigError(
            "observation is 'latents', but there is no encoder: give encoder_checkpoint, the "
            "checkpoint of the pixel agent whose encoder made the latents"
        )
    for name in ("image_size", "frame_stack"):
        _agree(name, argument=given[name], env=env.get(name), encoder=config[name])
    dim, feature_dim = latent_dim(config), given["feature_dim"] or 50
    if has_trunks(config):
        feature_dim = _agree("feature_dim", argument=given["feature_dim"], encoder=config["feature_dim"])
    _agree("observation_dim", argument=given["observation_dim"], encoder=dim)
    settings = {name: config[name] for name in ("image_size", "frame_stack")} | {"feature_dim": feature_dim}
    return (dim,), settings | {"observation_dim": dim, "encoder_config": dict(config)}


def _states(
    given: Mapping[str, Any], env: Mapping[str, Any], stage1: Mapping[str, Any] | None
) -> tuple[tuple[int, ...], dict[str, Any]]:
    _refuse(given, "states", "encoder_checkpoint", "encoder_config", "image_size", "frame_stack")
    _refuse(given, "states", "feature_dim")
    dim = _agree("observation_dim", argument=given["observation_dim"])
    return (dim,), {"observation_dim": dim}


def _agree(name: str, default: int | None = None, **sources: int | None) -> int:
    """The value that all sources which know it agree on."""
    known = {source: value for source, value in sources.items() if value is not None}
    if len(set(known.values())) > 1:
        said = ", ".join(f"{value} ({source})" for source, value in known.items())
        raise ConfigError(f"{name} is given differently in several places: {said}; they must agree")
    if not known and default is None:
        raise ConfigError(f"{name} is missing: give the agent the {name} of its data")
    return next(iter(known.values()), default)  # type: ignore[return-value]


def _refuse(given: Mapping[str, Any], observation: str, *names: str) -> None:
    """Settings that mean nothing for this kind of observation are not ignored."""
    for name in names:
        if given[name] is not None:
            raise ConfigError(f"{name} is {given[name]!r}, which {observation!r} agents do not have")
