"""From the arrays of a file to whole transitions: where episodes end, what follows what, what is refused.

D4RL's rules (Fu et al. 2020, arXiv 2004.07219; its ``qlearning_dataset``), with two departures that are stated
in `whole_transitions`. Nothing here reads a file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_synther.errors import DataError

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
TOLERANCE = 1e-4  # by which float32 actions may lie outside their bounds; they are clipped


@dataclass(frozen=True)
class Rows:
    """N whole transitions of vectors, in the order in which they were recorded.

    Attributes:
        observation: (N, O) float32, a goal included where there is one.
        action: (N, A) float32 in [-1, 1].
        reward: (N, 1) float32.
        next_observation: (N, O) float32.
        terminal: (N, 1) bool, true where the environment ended for good; a time limit is no terminal.
        episode: (N,) int64, numbers of the episodes from 0 without gaps, in order.
    """

    observation: Floats
    action: Floats
    reward: Floats
    next_observation: Floats
    terminal: NDArray[np.bool_]
    episode: NDArray[np.int64]


def whole_transitions(
    arrays: Mapping[str, ArrayLike | None], where: str, max_episode_steps: int | None = None
) -> Rows:
    """The transitions of arrays with D4RL's names, row i holding what was done at, and followed, observation i.

    Where ``episodes`` number them, nothing else ends one. Otherwise an episode ends at a terminal or a timeout.
    Without ``timeouts`` it also ends where ``next_observations`` differ from the following row's observation;
    without both, after ``max_episode_steps`` rows (D4RL's rule), or else at terminals alone, which is logged.

    Without ``next_observations`` the following row's observation is taken. It is unknown at an episode's last
    row: that row is dropped, as in D4RL, unless it is a terminal. Those keep their reward and their end (D4RL
    has dropped them or paired them with another episode's start, by version): their own observation stands for
    the next one, which no target looks at, as the discount is 0. Where ``next_observations`` are there, timeouts
    lose nothing and stay.

    Raises `DataError` that names ``where`` for arrays that are missing, empty, of unequal length, of other
    shapes, not finite, or images.
    """
    named = {name: np.asarray(values) for name, values in arrays.items() if values is not None}
    _require(named, where)
    observation = _vectors(named["observations"], "observations", where)
    action = _vectors(named["actions"], "actions", where)
    reward = named["rewards"].reshape(-1).astype(np.float32)
    terminal = named["terminals"].reshape(-1) > 0.5
    following = None
    if "next_observations" in named:
        following = _vectors(named["next_observations"], "next_observations", where)
    _require_finite({"observations": observation, "actions": action, "rewards": reward}, where)
    if "episodes" in named:
        ends = np.append(np.diff(named["episodes"].reshape(-1)) != 0, True)
    else:
        ends = terminal | _cuts(named, observation, terminal, following, where, max_episode_steps)
        ends[-1] = True
    episode = np.concatenate([[0], np.cumsum(ends[:-1])]).astype(np.int64)
    keep = np.ones(len(reward), bool)
    if following is None:
        following = np.concatenate([observation[1:], observation[-1:]])
        stands_in, keep = ends & terminal, ~ends | terminal
        following[stands_in] = observation[stands_in]
        log.info(
            "%s has no next_observations: each is the following row's; %d last rows of episodes without one are "
            "dropped, %d terminals keep their own observation in its place",
            where,
            int((~keep).sum()),
            int(stands_in.sum()),
        )
    else:
        _require_finite({"next_observations": following}, where)
    if not keep.any():
        raise DataError(f"{where} holds no whole transition: every row is the last one of its episode")
    rows = Rows(observation, action, reward[:, None], following, terminal[:, None], episode)
    return rows if keep.all() else select(rows, np.flatnonzero(keep))


def select(rows: Rows, index: NDArray[np.int64]) -> Rows:
    """The rows ``index``, their episodes numbered from 0 without gaps."""
    return Rows(
        observation=rows.observation[index],
        action=rows.action[index],
        reward=rows.reward[index],
        next_observation=rows.next_observation[index],
        terminal=rows.terminal[index],
        episode=np.unique(rows.episode[index], return_inverse=True)[1].astype(np.int64),
    )


def rescale_actions(action: Floats, low: ArrayLike | None, high: ArrayLike | None, where: str) -> Floats:
    """Actions (N, A) mapped from [``low``, ``high``] to [-1, 1], which is logged; raises `DataError` beyond."""
    bounds = np.full((2, action.shape[1]), [[-1.0], [1.0]])
    for row, given in enumerate((low, high)):
        if given is not None:
            bounds[row] = given
    if not (np.isfinite(bounds).all() and (bounds[0] < bounds[1]).all()):
        raise DataError(
            f"{where} has the action bounds {bounds[0].tolist()} to {bounds[1].tolist()}: give finite action_low "
            "and action_high, the first below the second"
        )
    middle, half = (bounds[1] + bounds[0]) / 2, (bounds[1] - bounds[0]) / 2
    if np.any(middle != 0) or np.any(half != 1):
        action = ((action - middle) / half).astype(np.float32)
        log.info("%s: actions are rescaled to [-1, 1] from %s to %s", where, *map(_bound, bounds))
    if (reach := float(np.abs(action).max())) > 1 + TOLERANCE:
        beyond = "" if low is None and high is None else " after rescaling"
        raise DataError(
            f"{where} has actions up to {reach:g}{beyond}, outside [-1, 1]: give the environment's bounds as "
            "action_low and action_high, actions are then rescaled"
        )
    return np.clip(action, -1, 1)


def _cuts(
    named: Mapping[str, NDArray[Any]],
    observation: Floats,
    terminal: NDArray[np.bool_],
    following: Floats | None,
    where: str,
    max_episode_steps: int | None,
) -> NDArray[np.bool_]:
    """Rows (N,) after which another episode begins, besides terminals."""
    if "timeouts" in named:
        return named["timeouts"].reshape(-1) > 0.5
    cuts = np.zeros(len(terminal), bool)
    if following is not None:
        cuts[:-1] = (following[:-1] != observation[1:]).any(axis=1)
    elif max_episode_steps is not None:
        step = 0
        for row, end in enumerate(terminal):
            step += 1
            cuts[row] = step == max_episode_steps
            step = 0 if end or cuts[row] else step
    elif terminal.any():
        log.warning("%s has no timeouts: its episodes are taken to end at terminals alone", where)
    else:
        raise DataError(
            f"{where} has neither timeouts nor next_observations nor a terminal, so that its episodes cannot be "
            "told apart: give timeouts, or max_episode_steps"
        )
    return cuts


def _require(named: Mapping[str, NDArray[Any]], where: str) -> None:
    wanted = ("observations", "actions", "rewards", "terminals")
    if missing := [name for name in wanted if name not in named]:
        hint = "; terminals of an environment that never ends for good are zeros" * ("terminals" in missing)
        raise DataError(
            f"{where} lacks {', '.join(missing)} (it has {', '.join(named) or 'nothing'}): transitions need "
            f"{', '.join(wanted)}{hint}"
        )
    lengths = {name: len(array) if array.ndim else 0 for name, array in named.items()}
    if not min(lengths.values()):
        raise DataError(f"{where} is empty ({_listed(lengths)}): give a file that holds transitions")
    if len(set(lengths.values())) > 1:
        raise DataError(f"{where} has arrays of unequal length ({_listed(lengths)}): get or make it again")
    for name in ("rewards", "terminals", "timeouts", "episodes"):
        if name in named and named[name].size != lengths[name]:
            raise DataError(f"{where} has {name} of shape {named[name].shape}: one number a row is needed")
    if "next_observations" in named and named["next_observations"].shape != named["observations"].shape:
        raise DataError(
            f"{where} has observations {named['observations'].shape} and next_observations "
            f"{named['next_observations'].shape}: they must be of one shape"
        )


def _vectors(values: NDArray[Any], name: str, where: str) -> Floats:
    if values.ndim > 2 and values.dtype == np.uint8:
        raise DataError(
            f"{where} has images as {name} {values.shape[1:]}: an agent on states takes vectors, train one on "
            "pixels instead"
        )
    if values.ndim != 2 or values.dtype.kind not in "fiub" or not values.shape[1]:
        raise DataError(
            f"{where} has {name} of {values.dtype} {values.shape}: an array (N, size) of numbers is needed"
        )
    return np.ascontiguousarray(values, np.float32)


def _require_finite(columns: Mapping[str, Floats], where: str) -> None:
    for name, values in columns.items():
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            raise DataError(
                f"{where} has {name} that are not finite in {int(bad.sum())} rows (the first is row "
                f"{int(np.argmax(bad))}): mend them, or remove their episodes"
            )


def _listed(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {length}" for name, length in lengths.items())


def _bound(bound: NDArray[Any]) -> str:
    return f"{bound[0]:g}" if (bound == bound[0]).all() else str(bound.round(4).tolist())
