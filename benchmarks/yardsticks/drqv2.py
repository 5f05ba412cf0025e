"""The published DrQ-v2+BC and BC updates, computed step by step as their formulas stand.

float32, random shift by grid_sample on float frames, frames scaled before the first convolution, contiguous
memory, one Adam for each network, a loop over parameters for the target, and ``.item()`` for every metric.
The golden vectors prove that it and the package's agents compute the same
(``tests/parity/test_yardsticks.py``).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal


class Encoder(nn.Module):
    def __init__(self, channels: int = 9) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, stride in ((channels, 2), (32, 1), (32, 1), (32, 1)):
            layers += [nn.Conv2d(n_in, 32, 3, stride), nn.ReLU()]
        self.convnet = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        return self.convnet(frames / 255.0 - 0.5).flatten(1)


def make_trunk(n_in: int, feature_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, feature_dim), nn.LayerNorm(feature_dim), nn.Tanh())


def make_mlp(n_in: int, n_out: int, hidden_dim: int) -> nn.Sequential:
    hidden = nn.Linear(n_in, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(hidden_dim, n_out))


class Actor(nn.Module):
    def __init__(self, n_in: int, action_dim: int, feature_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.trunk = make_trunk(n_in, feature_dim)
        self.policy = make_mlp(feature_dim, action_dim, hidden_dim)

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.policy(self.trunk(features)))


class Critic(nn.Module):
    def __init__(self, n_in: int, action_dim: int, feature_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.trunk = make_trunk(n_in, feature_dim)
        self.Q1 = make_mlp(feature_dim + action_dim, 1, hidden_dim)
        self.Q2 = make_mlp(feature_dim + action_dim, 1, hidden_dim)

    def forward(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.trunk(features), action], dim=-1)
        return self.Q1(x), self.Q2(x)


def shift(frames: Tensor, shifts: Tensor, pad: int = 4) -> Tensor:
    """Random shift of (B, C, H, H) by integer ``shifts`` (B, 2), resampled bilinearly."""
    size = frames.shape[-1] + 2 * pad
    x = F.pad(frames.float(), (pad,) * 4, mode="replicate")
    centres = torch.linspace(-1 + 1 / size, 1 - 1 / size, size)[: frames.shape[-1]]
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1)[None] + shifts[:, None, None, :] * (2.0 / size)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


def sample(mean: Tensor, std: float, noise: Tensor, clip: float) -> Tensor:
    action = mean + (noise * std).clamp(-clip, clip)
    return action - action.detach() + action.detach().clamp(-1 + 1e-6, 1 - 1e-6)


def log_density(mean: Tensor, std: float, action: Tensor) -> tuple[float, float]:
    normal = Normal(mean, torch.full_like(mean, std))
    return normal.log_prob(action).sum(-1).mean().item(), normal.entropy().sum(-1).mean().item()


class DrQV2BC:
    """Networks, optimizers and one update; ``bc_weight`` is alpha of TD3+BC."""

    def __init__(
        self,
        action_dim: int,
        n_features: int = 39200,
        feature_dim: int = 50,
        hidden_dim: int = 1024,
        lr: float = 1e-4,
        tau: float = 0.01,
        bc_weight: float = 2.5,
        clip: float = 0.3,
    ) -> None:
        sizes = (n_features, action_dim, feature_dim, hidden_dim)
        self.encoder, self.actor, self.critic = Encoder(), Actor(*sizes), Critic(*sizes)
        self.critic_target = copy.deepcopy(self.critic)
        self.optimizers = {
            name: torch.optim.Adam(getattr(self, name).parameters(), lr=lr)
            for name in ("encoder", "actor", "critic")
        }
        self.tau, self.bc_weight, self.clip = tau, bc_weight, clip

    def update(
        self,
        batch: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
        std: float,
        shifts: Tensor,
        noise: Tensor,
    ) -> dict[str, float]:
        """One update; ``shifts`` (2, B, 2) and ``noise`` (2, B, A) are for the two observations."""
        obs, action, reward, next_obs, discount = batch
        features = self.encoder(shift(obs, shifts[0]))
        with torch.no_grad():
            next_features = self.encoder(shift(next_obs, shifts[1]))
            next_action = sample(self.actor(next_features), std, noise[0], self.clip)
            target = reward + discount * torch.min(*self.critic_target(next_features, next_action))
        metrics = self._step_critic(features, action, target)
        metrics |= self._step_actor(features.detach(), action, std, noise[1])
        for target_parameter, parameter in zip(
            self.critic_target.parameters(), self.critic.parameters(), strict=True
        ):
            target_parameter.data.copy_(self.tau * parameter.data + (1 - self.tau) * target_parameter.data)
        return metrics | {"batch_reward": reward.mean().item()}

    def _step_critic(self, features: Tensor, action: Tensor, target: Tensor) -> dict[str, float]:
        q1, q2 = self.critic(features, action)
        loss = F.mse_loss(q1, target) + F.mse_loss(q2, target)
        for name in ("encoder", "critic"):
            self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        for name in ("critic", "encoder"):
            self.optimizers[name].step()
        return {
            "critic_target_q": target.mean().item(),
            "critic_q1": q1.mean().item(),
            "critic_q2": q2.mean().item(),
            "critic_loss": loss.item(),
        }

    def _step_actor(self, features: Tensor, action: Tensor, std: float, noise: Tensor) -> dict[str, float]:
        mean = self.actor(features)
        chosen = sample(mean, std, noise, self.clip)
        q = torch.min(*self.critic(features, chosen))
        value_loss, bc_loss = -q.mean(), F.mse_loss(chosen, action)
        weight = self.bc_weight / q.detach().abs().mean()
        self.optimizers["actor"].zero_grad(set_to_none=True)
        (weight * value_loss + bc_loss).backward()
        self.optimizers["actor"].step()
        log_prob, entropy = log_density(mean, std, chosen)
        return {
            "actor_loss": value_loss.item(),
            "actor_bc_loss": bc_loss.item(),
            "actor_logprob": log_prob,
            "actor_ent": entropy,
        }


class BC:
    """Networks, optimizers and one update of behaviour cloning."""

    def __init__(
        self,
        action_dim: int,
        n_features: int = 39200,
        feature_dim: int = 50,
        hidden_dim: int = 1024,
        lr: float = 1e-4,
        clip: float = 0.3,
    ) -> None:
        self.encoder, self.actor = Encoder(), Actor(n_features, action_dim, feature_dim, hidden_dim)
        self.optimizers = {
            name: torch.optim.Adam(getattr(self, name).parameters(), lr=lr) for name in ("encoder", "actor")
        }
        self.clip = clip

    def update(
        self, obs: Tensor, action: Tensor, reward: Tensor, std: float, shifts: Tensor, noise: Tensor
    ) -> dict[str, float]:
        """One update; ``shifts`` (B, 2), ``noise`` (B, A)."""
        mean = self.actor(self.encoder(shift(obs, shifts)))
        chosen = sample(mean, std, noise, self.clip)
        loss = F.mse_loss(chosen, action)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        log_prob, entropy = log_density(mean, std, chosen)
        return {
            "actor_bc_loss": loss.item(),
            "actor_logprob": log_prob,
            "actor_ent": entropy,
            "batch_reward": reward.mean().item(),
        }
