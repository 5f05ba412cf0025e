"""Soft Actor-Critic as a LightningModule, on proprioceptive states."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from lightning_synther.agents import sac
from lightning_synther.transition import Transition


class EnsembleLinear(nn.Module):
    def __init__(self, num_members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(
            torch.empty(num_members, in_features, out_features).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(num_members, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class GaussianActor(nn.Module):
    """MLP to mean and log standard deviation of a Gaussian over pre-tanh actions."""

    def __init__(self, observation_dim: int, action_dim: int, hidden_dim: int, num_layers: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(num_layers):
            layers += [
                nn.Linear(observation_dim if i == 0 else hidden_dim, hidden_dim),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_dim, 2 * action_dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.layers(x).chunk(2, -1)
        return mean, -5 + 3.5 * (1 + torch.tanh(log_std))


class QEnsemble(nn.Module):
    def __init__(
        self, num: int, observation_dim: int, action_dim: int, hidden_dim: int, num_layers: int
    ) -> None:
        super().__init__()
        self.num = num
        layers: list[nn.Module] = []
        for i in range(num_layers):
            layers += [
                EnsembleLinear(num, observation_dim + action_dim if i == 0 else hidden_dim, hidden_dim),
                nn.LayerNorm(hidden_dim),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, EnsembleLinear(num, hidden_dim, 1))

    def forward(self, x: Tensor, a: Tensor) -> Tensor:
        x = torch.cat([x, a], -1)
        return self.layers(x.expand(self.num, *x.shape))


class SAC(LightningModule):
    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden_dim: int = 256,
        num_layers: int = 2,
        num_critics: int = 2,
        lr: float = 3e-4,
        tau: float = 0.005,
        actor_every: int = 2,
        initial_temperature: float = 0.1,
        target_entropy: float | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.actor = GaussianActor(observation_dim, action_dim, hidden_dim, num_layers)
        self.critic = QEnsemble(num_critics, observation_dim, action_dim, hidden_dim, num_layers)
        self.target_critic = QEnsemble(num_critics, observation_dim, action_dim, hidden_dim, num_layers)
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.target_critic.requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial_temperature)))
        self.target_entropy = -float(action_dim) if target_entropy is None else target_entropy
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))
        self._n = 0

    def sample_action(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(x)
        return sac.squash(mean, log_std, torch.randn_like(mean))

    def training_step(self, batches: list[Transition], batch_idx: int) -> None:
        for batch in batches:
            metrics = self.update(batch)
        if batches and batch_idx % 50 == 0:
            self.log_dict(metrics)

    def update(self, batch: Transition) -> dict[str, Tensor]:
        copt, aopt = self.optimizers()
        s, a, r, s2, d = batch
        with torch.no_grad():
            t = self.log_temperature.exp()
            a2, lp2 = self.sample_action(s2)
            target = sac.soft_target(r, d, self.target_critic(s2, a2), lp2, t)
        q = self.critic(s, a)
        closs = sac.critic_loss(q, target)
        copt.zero_grad()
        self.manual_backward(closs)
        copt.step()
        metrics = {"train/critic_loss": closs.detach(), "train/q": q.detach().mean()}
        if self._n % self.hparams.actor_every == 0:
            pa, lp = self.sample_action(s)
            aloss = sac.actor_loss(self.critic(s, pa), lp, t)
            loss = aloss + sac.temperature_loss(self.log_temperature, lp, self.target_entropy)
            aopt.zero_grad()
            self.manual_backward(loss, inputs=[*self.actor.parameters(), self.log_temperature])
            aopt.optimizer.step()
            metrics |= {
                "train/actor_loss": aloss.detach(),
                "train/temperature": t.detach(),
                "train/entropy": -lp.detach().mean(),
            }
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.target_critic.parameters()), list(self.critic.parameters()), self.hparams.tau
            )
        self.num_updates += 1
        self._n += 1
        return metrics

    @torch.no_grad()
    def explore(self, observation: Any, noise: Any) -> Any:
        mean, log_std = self.actor(torch.from_numpy(observation))
        return torch.addcmul(mean, log_std.exp(), torch.from_numpy(noise)).tanh().numpy()

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.critic.parameters(), lr=self.hparams.lr, fused=True),
            torch.optim.Adam(
                [*self.actor.parameters(), self.log_temperature], lr=self.hparams.lr, fused=True
            ),
        ]
