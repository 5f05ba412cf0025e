"""Goals for transitions that have none: hindsight relabelling of whole trajectories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.errors import ConfigError


@dataclass(frozen=True)
class GoalDataset(StateDataset):
    """Transitions with goals by `with_goals`; a part of them gets goals anew, of its own states alone.

    So no held-out or excluded state is a goal in training. In a part of the transitions (not of the episodes), a
    trajectory's later states are those that are in the part.

    Attributes:
        mixture: arguments of `with_goals` by which goals are chosen.
    """

    mixture: tuple[float, float, float, int] = (0.2, 0.5, 0.99, 0)

    def _selected(self, index: NDArray[np.int64]) -> StateDataset:
        part = super()._selected(index)
        size = part.observation.shape[1] // 2  # the other half is the goal
        states, following = part.observation[:, :size], part.next_observation[:, :size]
        chosen = with_goals(states, following, part.episode, *self.mixture)
        return replace(
            part,
            observation=chosen["observations"],
            next_observation=chosen["next_observations"],
            reward=chosen["rewards"][:, None],
            terminal=chosen["terminals"][:, None],
        )


def with_goals(
    observations: NDArray[Any],
    next_observations: NDArray[Any],
    episodes: NDArray[Any],
    next_share: float = 0.2,
    later_share: float = 0.5,
    discount: float = 0.99,
    seed: int = 0,
) -> dict[str, NDArray[Any]]:
    """Choose a goal for each transition, a state of the data, and append it to both of its observations.

    With probability ``next_share`` the goal is the transition's own next state, with ``later_share`` the state
    k >= 1 steps later in its trajectory, k geometric with mean 1 / (1 - ``discount``) and cut off at the
    trajectory's end, and else any state of the data. The reward is 1, and the transition is a terminal, where the
    goal is its own next state, and 0 elsewhere. That is OGBench's mixture for values (Park et al. 2024, arXiv
    2410.20092: 0.2, 0.5, 0.3) and the environments' own reward, with goals among next states rather than present
    ones, since a record holds what the action led to (Andrychowicz et al. 2017, arXiv 1707.01495).

    Args:
        observations: (N, O).
        next_observations: (N, O).
        episodes: (N,), in order.
        next_share: as above.
        later_share: as above.
        discount: as above.
        seed: of all draws.

    Returns:
        ``observations`` and ``next_observations`` (N, 2 O), ``rewards`` and ``terminals`` (N,).
    """
    if min(next_share, later_share) < 0 or next_share + later_share > 1 or not 0 <= discount < 1:
        raise ConfigError(
            f"next_share {next_share}, later_share {later_share} and goal_discount {discount} are no distribution of "
            "goals: give shares of at most 1 together, and a discount below 1"
        )
    rng, count = np.random.default_rng(seed), len(observations)
    own = np.arange(count)
    last = np.searchsorted(episodes, episodes, side="right") - 1
    later = np.minimum(own + rng.geometric(1 - discount, count), last)
    kind = rng.random(count)
    goal = np.where(
        kind < next_share,
        own,
        np.where(kind < next_share + later_share, later, rng.integers(count, size=count)),
    )
    reached = goal == own
    goals = next_observations[goal]
    return {
        "observations": np.concatenate([observations, goals], axis=1),
        "next_observations": np.concatenate([next_observations, goals], axis=1),
        "rewards": reached.astype(np.float32),
        "terminals": reached,
    }
