"""From rows to transitions: pure index arithmetic, and the only place where an episode's edges are minded.

Row t holds observation t and the action, reward and discount that led to it, so that row t >= 1 of an
episode is the transition from observation t - 1 by action t. With n-step returns (Sutton and Barto, Eq. 7.1)
the window of row t covers the rewards of rows t ... t + n - 1 and ends in observation t + n - 1, which must
belong to the same episode: an episode of L rows has L - n windows, none where it is shorter. Indices are
global rows, int64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def valid_rows(lengths: ArrayLike, n_step: int = 1, episodes: ArrayLike | None = None) -> NDArray[np.int64]:
    """(M,) rows whose action starts a whole n-step window, in order.

    Args:
        lengths: (E,) rows of each episode.
        n_step: rewards in a window, >= 1.
        episodes: take only these episodes, in this order; all by default.
    """
    sizes = np.asarray(lengths, np.int64)
    starts = np.cumsum(sizes) - sizes
    if episodes is not None:
        chosen = np.asarray(episodes, np.int64).reshape(-1)
        sizes, starts = sizes[chosen], starts[chosen]
    counts = np.maximum(sizes - n_step, 0)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts + 1, counts) + offsets


def stack_rows(rows: ArrayLike, lengths: ArrayLike, frame_stack: int) -> NDArray[np.int64]:
    """(M, frame_stack) rows of the frames that make up the observations ``rows`` (M,), oldest first.

    Before the episode's first frame that frame is repeated, as after a reset of the environment.
    """
    last = np.asarray(rows, np.int64)
    sizes = np.asarray(lengths, np.int64)
    starts = np.cumsum(sizes) - sizes
    first = starts[np.searchsorted(starts, last, side="right") - 1]
    return np.maximum(last[:, None] + np.arange(1 - frame_stack, 1), first[:, None])


def n_step_returns(
    rows: ArrayLike,
    reward: NDArray[np.floating],
    discount: NDArray[np.floating],
    n_step: int,
    gamma: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """n-step return and discount (M,) each of the windows that start in ``rows`` (M,).

    The return is the sum over j < n of gamma^j times reward t + j. The discount is gamma^n times the
    environment's at the *last* row of the window. Those in between are left out, as in DrQ-v2's replay of
    V-D4RL: only an episode's last row can have a discount other than 1.
    """
    window = np.asarray(rows, np.int64)[:, None] + np.arange(n_step)
    returns = reward[window].astype(np.float64) @ gamma ** np.arange(n_step)
    return returns, gamma**n_step * discount[window[:, -1]].astype(np.float64)
