"""Which part of a dataset is used: a share of it, or so many episodes, chosen by a seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightning_synther.errors import ConfigError

Unit = Literal["episodes", "transitions"]


@dataclass(frozen=True)
class Subset:
    """A random part of a dataset. With the same seed, a smaller part is contained in a larger one.

    Attributes:
        fraction: share of the episodes, or of the transitions, in (0, 1], rounded to whole ones.
        fraction_of: what it is a share of.
        num_episodes: so many whole episodes instead; None for the fraction.
        seed: of the choice.
    """

    fraction: float = 1.0
    fraction_of: Unit = "episodes"
    num_episodes: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fraction_of not in get_args(Unit):
            raise ConfigError(f"fraction is of {self.fraction_of!r}: give 'episodes' or 'transitions'")
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction is {self.fraction}: give a share in (0, 1]")
        if self.num_episodes is not None and self.num_episodes < 1:
            raise ConfigError(f"num_real_episodes is {self.num_episodes}: give at least 1, or null for all")
        if self.num_episodes is not None and (self.fraction, self.fraction_of) != (1.0, "episodes"):
            raise ConfigError(
                f"num_real_episodes is {self.num_episodes} and fraction {self.fraction:g} of {self.fraction_of}: "
                "give one of them"
            )

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.fraction == 1 and self.num_episodes is None

    def choose(self, total: int, name: str) -> NDArray[np.int64]:
        """Numbers of the chosen ones of ``total`` episodes (or transitions) of the data ``name``, in order.

        Raises `ConfigError` for a part that is empty, or larger than the data.
        """
        count = self.num_episodes or round(self.fraction * total)
        if not count:
            raise ConfigError(
                f"fraction {self.fraction:g} of the {total} {self.fraction_of} of {name} leaves none: give at "
                f"least {0.5 / total:.2g}, or more data"
            )
        if count > total:
            raise ConfigError(
                f"num_real_episodes is {count}, but {name} has {total} training episodes: give fewer, or more data"
            )
        return np.sort(np.random.default_rng(self.seed).permutation(total)[:count])

    def inputs(self) -> dict[str, Any]:
        """For the fingerprint of a stage; empty for whole datasets, whose runs know no subset."""
        if self.is_whole:
            return {}
        keep = ("num_episodes", "seed") if self.num_episodes else ("fraction", "fraction_of", "seed")
        return {"subset": {key: value for key, value in asdict(self).items() if key in keep}}
