"""What agents on pixels, latents and states share: construction from plain settings, and acting."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_synther.agents.learner import Learner
from lightning_synther.agents.perception import Observation, perceive
from lightning_synther.agents.stage1 import load_stage1, read_stage1
from lightning_synther.agents.targets import make_target
from lightning_synther.bounds import check_counts, check_positive
from lightning_synther.diffusion.optimization import LRSchedule
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import ConfigError
from lightning_synther.networks.heads import MLP, Actor, Critic, ensemble_of, orthogonal_init
from lightning_synther.networks.normalizer import StateNormalizer
from lightning_synther.transition import Transition


class Agent(Learner):
    """An off-policy agent on pixels, latents or states.

    A subclass adds its networks, then calls `initialise`, and implements `make_optimizers`, `draw` and
    `step`.

    Args:
        observation: what a training batch holds: stacked frames, latents of a frozen encoder, or states.
        action_dim: A; an agent on latents has its encoder's.
        observation_dim: size of a state.
        image_size: pixels a side; None takes env's, else 84.
        frame_stack: frames in an observation; None takes env's, else 3.
        feature_dim: width of the trunks; None for 50, or the encoder's.
        hidden_dim: width of the heads' hidden layers.
        num_layers: hidden layers of the heads; 0 makes them linear.
        layer_norm: normalise the heads' hidden layers.
        residual: heads of num_layers residual blocks, with LayerNorm before each, for larger networks
            (`networks.heads.ResidualBlock`).
        lr: learning rate of all optimizers.
        lr_schedule: decay of the learning rate over the training.
        env: the environment to be evaluated in (fields of `EnvConfig`).
        encoder_checkpoint: for latents, a pixel agent's checkpoint; its encoder is copied into this agent.
        encoder_config: for latents, the encoder's sizes; filled in from encoder_checkpoint.
        heads: for latents, start from new heads, or from those of the encoder_checkpoint.
        normalize_states: for states, standardise them by mean and deviation of the real data, which are kept
            in the checkpoint.
        log_every_n_updates: updates between two records of the training metrics.
    """

    actor: nn.Module  # from encoded observations to mean actions

    def __init__(
        self,
        *,
        observation: Observation = "pixels",
        action_dim: int | None = None,
        observation_dim: int | None = None,
        image_size: int | None = None,
        frame_stack: int | None = None,
        feature_dim: int | None = None,
        hidden_dim: int = 1024,
        num_layers: int = 2,
        layer_norm: bool = False,
        residual: bool = False,
        lr: float = 1e-4,
        lr_schedule: LRSchedule = "constant",
        env: dict[str, Any] | None = None,
        encoder_checkpoint: str | None = None,
        encoder_config: dict[str, Any] | None = None,
        heads: Literal["new", "pretrained"] = "new",
        normalize_states: bool = False,
        log_every_n_updates: int = 50,
    ) -> None:
        super().__init__(log_every_n_updates, lr_schedule)
        self.save_hyperparameters(ignore=["encoder_checkpoint"])
        check_counts("", hidden_dim=hidden_dim, action_dim=action_dim, observation_dim=observation_dim)
        check_counts("", image_size=image_size, frame_stack=frame_stack, feature_dim=feature_dim)
        check_counts("", least=0, num_layers=num_layers)
        check_positive("", lr=lr)
        self.env, self.lr = env, lr
        given = {**self.hparams, "encoder_checkpoint": encoder_checkpoint}
        self._stage1 = read_stage1(given)
        self.perception = perceive(given, self._stage1.get("hyper_parameters", {}))
        self.hparams.update(self.perception.settings)
        self.encoder = self.perception.encoder()
        self.pixel_encoder = self.perception.pixel_encoder()

    def make_mlp(self, in_features: int, out_features: int, **options: Any) -> MLP:
        """A head of this agent's width, depth and kind."""
        sizes = {name: self.hparams[name] for name in ("hidden_dim", "num_layers", "layer_norm", "residual")}
        return MLP(in_features, out_features, **{**sizes, **options})

    def make_actor(self, max_action: float = 1.0) -> Actor:
        """Trunk and deterministic policy."""
        trunk = self.perception.actor_trunk()
        return Actor(trunk, self.make_mlp(trunk.feature_dim, self.perception.action_dim), max_action)

    def make_critic(self, num_critics: int) -> Critic:
        """Trunk and ensemble of action values."""
        check_counts("", num_critics=num_critics)
        trunk = self.perception.critic_trunk()
        in_features = trunk.feature_dim + self.perception.action_dim
        return Critic(trunk, self.make_mlp(in_features, 1, linear=ensemble_of(num_critics)))

    def initialise(self, **targets: str) -> None:
        """Set the initial weights; ``targets`` names the slow copies and what they copy (target="online")."""
        for name, module in self.named_children():
            if name != "pixel_encoder" and name not in targets:
                module.apply(orthogonal_init)
        for target, online in targets.items():
            make_target(self.get_submodule(target), self.get_submodule(online))
        if self._stage1:
            load_stage1(self, self._stage1)
            self._stage1 = {}

    def fit_normalizer(self, states: NDArray[np.floating] | Tensor) -> None:
        """Take the statistics of ``states`` (N, O), the real data's, for `normalize_states`.

        Under a Trainer the agent finds them in its data. Raises `ConfigError` for an agent that does not
        normalise, `DataError` for states of another size or with values that are not finite.
        """
        if not isinstance(self.encoder, StateNormalizer):
            raise ConfigError("fit_normalizer needs an agent on states with normalize_states=True")
        self.perception.check_observation(states[:1])
        found = ColumnStatistics.of(states)
        std = found.std * math.sqrt((found.count - 1) / found.count)  # ddof 0, as published
        self.encoder.fit(torch.from_numpy(found.mean), torch.from_numpy(std))

    def setup(self, stage: str) -> None:
        """Check the precision; take the statistics of the data's states, if they are wanted."""
        super().setup(stage)
        states = getattr(getattr(self.trainer, "datamodule", None), "states", None)
        if stage == "fit" and isinstance(self.encoder, StateNormalizer) and not self.encoder.fitted:
            if states is None:
                raise ConfigError(
                    "normalize_states needs the states of a dataset, which these data do not have before "
                    "training: set model.normalize_states to false, or call fit_normalizer(states)"
                )
            self.fit_normalizer(states())

    def check(self, batch: Transition) -> None:
        """Raise `DataError` where a batch does not have this agent's sizes."""
        self.perception.check(batch)

    @torch.no_grad()
    def policy(self, observation: Tensor) -> Tensor:
        """Actions (B, A) without exploration noise, for observations (B, ...) as in a training batch.

        One observation without a batch dimension gives one action (A,). Observations may be on any device;
        actions are on the agent's. An agent on latents also takes stacked frames (B, C, H, W) uint8 and
        encodes them itself. Raises `DataError` for observations of another size.
        """
        observation = observation.to(self.device)
        single = observation.dim() in (1, 3)
        observation = observation[None] if single else observation
        if self.pixel_encoder is not None and observation.dim() == 4:
            observation = self.pixel_encoder.encode(observation)
        self.perception.check_observation(observation)
        if observation.is_floating_point():
            observation = observation.to(next(self.actor.parameters()).dtype)
        action: Tensor = self.actor(self.encoder(observation))
        return action[0] if single else action

    def forward(self, observation: Tensor) -> Tensor:
        """`policy`."""
        return self.policy(observation)
