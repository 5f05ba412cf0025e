"""The one record that flows through the project, and the only place that knows its flat layout.

After encoding, a pixel transition and a state transition are the same vector, so diffusion, store, mixing and heads
are written once. The flat layout is SynthER's: ``[observation, action, reward, next_observation(, terminal)]``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_synther.bounds import check_shares
from lightning_synther.errors import DataError


class Transition(NamedTuple):
    """A batch of transitions; a named tuple, so Lightning moves it between devices and it unpacks by field.

    ``observation`` and ``next_observation``: (B, O) float32, or stacked frames (B, C, H, W) uint8.
    ``action``: (B, A) float32 in [-1, 1]. ``reward``: (B, 1) float32, the n-step return.
    ``discount``: (B, 1) float32, gamma**n times the environment's discount; 0 ends an episode for good.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    discount: Tensor


@dataclass(frozen=True)
class TransitionSpec:
    """Sizes of a vector transition, and its mapping to and from one flat row.

    ``discount`` is gamma**n_step, the discount of a transition that does not end its episode. With
    ``terminal=False`` (dm_control: episodes end by a time limit) every transition has that discount and the flat row
    does not spend a column on it. With ``terminal=True`` the last column is 1 where the episode ended for good.
    Raises `ConfigError` for a discount outside (0, 1], under which values grow without bound or nothing bootstraps.

    >>> spec = TransitionSpec(observation_dim=100, action_dim=6, discount=0.99)
    >>> spec.dim, spec.fields["reward"]
    (207, slice(106, 107, None))
    """

    observation_dim: int
    action_dim: int
    discount: float
    terminal: bool = False

    def __post_init__(self) -> None:
        check_shares("", discount=self.discount)

    @cached_property
    def fields(self) -> dict[str, slice]:
        """Column range of every field, in layout order."""
        sizes = {
            "observation": self.observation_dim,
            "action": self.action_dim,
            "reward": 1,
            "next_observation": self.observation_dim,
        }
        if self.terminal:
            sizes["terminal"] = 1
        columns, start = {}, 0
        for name, size in sizes.items():
            columns[name] = slice(start, start + size)
            start += size
        return columns

    @property
    def dim(self) -> int:
        """Length D of a flat row."""
        return 2 * self.observation_dim + self.action_dim + 1 + int(self.terminal)

    def flatten(self, transition: Transition) -> Tensor:
        """Lay ``transition`` out as rows (B, D); raises `DataError` where its sizes are not this spec's."""
        observation, action, reward, next_observation, discount = transition
        found = (observation.shape[-1], action.shape[-1], next_observation.shape[-1], reward.shape[-1])
        wanted = (self.observation_dim, self.action_dim, self.observation_dim, 1)
        if found != wanted:
            raise DataError(
                f"transition has (observation, action, next_observation, reward) sizes {found}, "
                f"the record expects {wanted}: encode it with the encoder this record was made for"
            )
        parts = [observation, action, reward, next_observation]
        if self.terminal:
            parts.append((discount == 0).to(observation.dtype))
        return torch.cat(parts, dim=-1)

    def unflatten(self, rows: Tensor) -> Transition:
        """Split rows (B, D) into a `Transition`; the terminal column counts as 1 above 0.5 (SynthER)."""
        if rows.shape[-1] != self.dim:
            raise DataError(f"row has {rows.shape[-1]} columns, the record {self} has {self.dim}")
        part = {name: rows[..., columns] for name, columns in self.fields.items()}
        discount = torch.full_like(part["reward"], self.discount)
        if self.terminal:
            discount = discount * (part["terminal"] <= 0.5)
        return Transition(
            part["observation"], part["action"], part["reward"], part["next_observation"], discount
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and for checkpoints that load weights-only."""
        return asdict(self)
