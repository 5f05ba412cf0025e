"""Scaling of the rewards that an agent trains on; stores, diffusion models and returns keep their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lightning_synther.data.store import TransitionStore
from lightning_synther.errors import ConfigError, DataError

RewardScale = float | Literal["return_range"]

#: Entry of a store's metadata: returns of its worst and best episode, and the longest one's transitions.
EPISODES = "episodes"


def describe_episodes(returns: Any, lengths: Any) -> dict[str, Any]:
    """What `RewardMap.of` needs to know of a store's episodes, for `extra` of its metadata."""
    return {
        EPISODES: {
            "return_min": float(min(returns)),
            "return_max": float(max(returns)),
            "max_length": int(max(lengths)),
        }
    }


@dataclass(frozen=True)
class RewardMap:
    """reward * scale + bias.

    Attributes:
        scale: a factor.
        bias: added afterwards.
    """

    scale: float = 1.0
    bias: float = 0.0

    @classmethod
    def of(cls, scale: RewardScale, bias: float, store: TransitionStore | None) -> RewardMap:
        """The map that the settings mean for the real transitions in ``store``.

        ``return_range`` divides by the difference of the best and the worst episode's return and multiplies
        by the length of the longest one (Kostrikov et al. 2021, arXiv 2110.06169, Appendix B, and SynthER's
        offline code). Raises `ConfigError` without a store, `DataError` for one that does not know its
        episodes or whose returns do not differ.
        """
        if scale != "return_range":
            return cls(float(scale), bias)
        if store is None:
            raise ConfigError(
                "data.reward_scale is 'return_range' and data.real is not set: give the store of real "
                "transitions that the range comes from, or a number"
            )
        known = store.metadata.extra.get(EPISODES)
        if known is None:
            raise DataError(
                f"data.reward_scale is 'return_range', but the store {store.path} does not say what its "
                "episodes returned: give a number"
            )
        spread = known["return_max"] - known["return_min"]
        if spread <= 0:
            raise DataError(
                f"data.reward_scale is 'return_range', but all episodes of {store.path} returned "
                f"{known['return_max']:g}: give a number"
            )
        return cls(known["max_length"] / spread, bias)

    def __call__(self, reward: Tensor) -> Tensor:
        """Map rewards (B, 1), in place."""
        return reward.mul_(self.scale).add_(self.bias) if self != RewardMap() else reward


def check_reward_map(scale: RewardScale, bias: float, n_step: int | None = None) -> None:
    """Raise `ConfigError` for a map that keeps no order, or that an n-step return cannot have."""
    if isinstance(scale, str) and scale != "return_range":
        raise ConfigError(f"data.reward_scale is {scale!r}: give a number above 0, or 'return_range'")
    if not isinstance(scale, str) and not 0 < scale < float("inf"):
        raise ConfigError(f"data.reward_scale is {scale}: give a number above 0, or 'return_range'")
    if bias and n_step is not None and n_step > 1:
        raise ConfigError(
            f"data.reward_bias is {bias}, but a record holds the return of {n_step} steps: a bias is for "
            "single rewards, set data.dataset.n_step to 1 or the bias to 0"
        )
