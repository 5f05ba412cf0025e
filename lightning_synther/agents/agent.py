"""What all agents share: construction from plain settings, the training loop, guards, and acting."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_synther.agents.optimization import (
    average_gradients,
    average_over_ranks,
    backward,
    check_precision,
)
from lightning_synther.agents.perception import Observation, perceive
from lightning_synther.agents.scoring import ScoredAgent
from lightning_synther.agents.stage1 import load_stage1
from lightning_synther.agents.targets import make_target
from lightning_synther.errors import ConfigError, SyntherError
from lightning_synther.networks.encoders import LatentEncoder, read_checkpoint
from lightning_synther.networks.heads import MLP, Actor, Critic, ensemble_of, orthogonal_init
from lightning_synther.transition import Transition


class Agent(ScoredAgent):
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
        num_layers: hidden layers of the heads.
        layer_norm: normalise the heads' hidden layers.
        lr: learning rate of all optimizers.
        env: the environment to be evaluated in (fields of `EnvConfig`).
        encoder_checkpoint: for latents, a pixel agent's checkpoint; its encoder is copied into this agent.
        encoder_config: for latents, the encoder's sizes; filled in from encoder_checkpoint.
        heads: for latents, start from new heads, or from those of the encoder_checkpoint.
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
        lr: float = 1e-4,
        env: dict[str, Any] | None = None,
        encoder_checkpoint: str | None = None,
        encoder_config: dict[str, Any] | None = None,
        heads: Literal["new", "pretrained"] = "new",
        log_every_n_updates: int = 50,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["encoder_checkpoint"])
        self.automatic_optimization = False
        self.env, self.lr, self.log_every_n_updates = env, lr, log_every_n_updates
        self.num_updates = 0
        self._optimizers_by_name: dict[str, Optimizer] = {}
        given = {**self.hparams, "encoder_checkpoint": encoder_checkpoint}
        self._stage1: dict[str, Any] = {}
        if encoder_checkpoint is not None and observation == "latents":
            self._stage1 = read_checkpoint(encoder_checkpoint)
            given["encoder_config"] = LatentEncoder.config_of(
                self._stage1["hyper_parameters"], self._stage1["state_dict"]
            )
        if heads == "pretrained" and given["encoder_config"] is None:
            raise ConfigError("heads is 'pretrained', but there is no encoder_checkpoint to take them from")
        self.perception = perceive(given, self._stage1.get("hyper_parameters", {}))
        self.hparams.update(self.perception.settings)
        self.encoder = self.perception.encoder()
        self.pixel_encoder = self.perception.pixel_encoder()

    def make_mlp(self, in_features: int, out_features: int, **options: Any) -> MLP:
        """A head of this agent's width and depth."""
        hp = self.hparams
        return MLP(in_features, out_features, hp["hidden_dim"], hp["num_layers"], hp["layer_norm"], **options)

    def make_actor(self) -> Actor:
        """Trunk and policy."""
        trunk = self.perception.actor_trunk()
        return Actor(trunk, self.make_mlp(trunk.feature_dim, self.perception.action_dim))

    def make_critic(self, num_critics: int) -> Critic:
        """Trunk and ensemble of action values."""
        trunk = self.perception.critic_trunk()
        in_features = trunk.feature_dim + self.perception.action_dim
        return Critic(trunk, self.make_mlp(in_features, 1, linear=ensemble_of(num_critics)))

    def initialise(self, **targets: str) -> None:
        """Set the initial weights; ``targets`` says which modules are slow copies, and of which
        (target="online").
        """
        for name, module in self.named_children():
            if name != "pixel_encoder" and name not in targets:
                module.apply(orthogonal_init)
        for target, online in targets.items():
            make_target(self.get_submodule(target), self.get_submodule(online))
        if self._stage1:
            load_stage1(self, self._stage1)
            self._stage1 = {}

    def make_optimizers(self) -> dict[str, Optimizer]:
        """Optimizers by name; the first one steps exactly once an update, and that step is what Lightning
        counts.
        """
        raise NotImplementedError

    def draw(self, batch: Transition) -> Any:
        """The random numbers of one update."""
        raise NotImplementedError

    def step(self, batch: Transition, draws: Any) -> dict[str, Tensor]:
        """One gradient update; returns detached metrics and waits for nothing."""
        raise NotImplementedError

    def minimise(self, loss: Tensor, name: str) -> None:
        """One step of the optimizer ``name`` on ``loss``, with gradients averaged over ranks."""
        if not self._optimizers_by_name:  # used by hand, outside a Trainer
            self.configure_optimizers()
        optimizer = self._optimizers_by_name[name]
        optimizer.zero_grad()
        backward(self, loss)
        average_gradients(optimizer)
        if self._trainer is not None and name == next(iter(self._optimizers_by_name)):
            all_optimizers = self.optimizers()
            counted = all_optimizers[0] if isinstance(all_optimizers, list) else all_optimizers
            counted.step()  # Lightning's wrapper counts it in trainer.global_step
        else:
            optimizer.step()

    @torch.no_grad()
    def policy(self, observation: Tensor) -> Tensor:
        """Actions (B, A) without exploration noise, for observations as in a training batch.

        An agent on latents also takes stacked frames (B, C, H, W) uint8 and encodes them itself.
        """
        if self.pixel_encoder is not None and observation.dim() == 4:
            observation = self.pixel_encoder.encode(observation)
        action: Tensor = self.actor(self.encoder(observation))
        return action

    def forward(self, observation: Tensor) -> Tensor:
        """`policy`."""
        return self.policy(observation)

    def update(self, batch: Transition, draws: Any = None) -> dict[str, Tensor]:
        """One gradient update on a batch, also outside a Trainer; ``draws`` replaces the random numbers."""
        metrics = self.step(batch, self.draw(batch) if draws is None else draws)
        self.num_updates += 1
        return metrics

    def training_step(self, batches: list[Transition], batch_idx: int) -> None:
        """One update for each of ``batches``."""
        for batch in batches:
            self.perception.check(batch)
            metrics = self.update(batch)
            if self.num_updates % self.log_every_n_updates == 0:
                self._record(metrics)

    def _record(self, metrics: dict[str, Tensor]) -> None:
        """Log the metrics, averaged over ranks; the only place where training waits for the device."""
        values = average_over_ranks(torch.stack([value.float() for value in metrics.values()])).tolist()
        figures = {f"train/{name}": value for name, value in zip(metrics, values, strict=True)}
        for name, value in figures.items():
            if not math.isfinite(value):
                raise SyntherError(
                    f"{name} is {value} at update {self.num_updates}: training has diverged; go on from "
                    "the last checkpoint with a lower lr, or look for extreme values in the data"
                )
        self.log_dict(figures, logger=False, batch_size=1)
        for logger in self.loggers:
            logger.log_metrics(figures, step=self.num_updates)

    def configure_optimizers(self) -> list[Optimizer]:
        """The optimizers, all of them kept in checkpoints."""
        self._optimizers_by_name = self.make_optimizers()
        return list(self._optimizers_by_name.values())

    def setup(self, stage: str) -> None:
        """Refuse precisions in which the updates would go wrong."""
        check_precision(self.trainer.precision)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the last good checkpoint rather than replace it by one that holds NaN."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                raise SyntherError(
                    f"{name} is not finite at update {self.num_updates}, so no checkpoint is written: "
                    "training has diverged; go on from the last checkpoint with a lower lr"
                )

    def get_extra_state(self) -> Tensor:
        """The number of updates, which drives schedules, is part of the state."""
        return torch.tensor(self.num_updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        self.num_updates = int(state)
