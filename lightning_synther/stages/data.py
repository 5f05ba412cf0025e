"""The data of the final agent in a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lightning_synther.data.datamodules import ReplayData
from lightning_synther.data.rewards import check_reward_map
from lightning_synther.data.subset import Subset, Unit
from lightning_synther.errors import ConfigError
from lightning_synther.stages.config.dataset import DatasetConfig, StateDatasetConfig


class ChainData(ReplayData):
    """Real and synthetic transitions that the stages of ``fit`` make of a dataset.

    `fraction` and `num_real_episodes` leave only a part of the training transitions to everything that learns: the
    diffusion model, the agent, and the agent on real data alone. Held-out episodes stay what they are.

    Args:
        fraction: share of the training episodes or transitions, rounded to whole ones.
        fraction_of: what it is a share of.
        fraction_seed: which ones; None takes the run's seed.
        num_real_episodes: so many training episodes instead of a fraction.
        replay: arguments of `ReplayData`.
    """

    #: Class of the settings of its dataset.
    dataset_class: ClassVar[type[DatasetConfig | StateDatasetConfig]]

    def __init__(
        self,
        fraction: float = 1.0,
        fraction_of: Unit = "episodes",
        fraction_seed: int | None = None,
        num_real_episodes: int | None = None,
        **replay: Any,
    ) -> None:
        super().__init__(**replay)
        self.subset = Subset(fraction, fraction_of, num_real_episodes, fraction_seed or 0)


#: Arguments that choose a part of the dataset: the stages before the agent know them.
SUBSET = ("fraction", "fraction_of", "fraction_seed", "num_real_episodes")


def subset_of(data_args: Mapping[str, Any], seed: int) -> Subset:
    """The part that the arguments of a `ChainData` mean, in a run of this ``seed``."""
    fraction, unit, own, episodes = (data_args[name] for name in SUBSET)
    return Subset(fraction, unit, episodes, seed if own is None else own)


class SynthERData(ChainData):
    """Real and synthetic latent transitions of a pixel dataset.

    In a config for ``fit`` give the `dataset`; the stages make both stores and fill in their paths. With
    paths of your own it is a plain `ReplayData`.

    A `fraction` is of whole episodes, and the encoder sees no more of them than everything after it: one of more
    episodes carries what they hold into the latents of the few, and the result no longer says what so little data are
    worth. ``encoder.fraction=all`` is for the other question, a good encoder and little data of one's own task.

    Args:
        dataset: which pixels the stages start from.
        chain: arguments of `ChainData`.
    """

    dataset_class = DatasetConfig

    def __init__(self, dataset: DatasetConfig | None = None, **chain: Any) -> None:
        super().__init__(**chain)
        if dataset is not None:
            check_reward_map(self.reward_scale, self.reward_bias, dataset.n_step)
        self.dataset = dataset
        if self.subset.fraction_of == "transitions":
            raise ConfigError(
                "data.fraction_of is 'transitions', but pixels are kept by whole episodes: give 'episodes'"
            )


class SynthERStates(ChainData):
    """Real and synthetic transitions of a dataset of states.

    In a config for ``fit`` give the `dataset`; the stages make both stores and fill in their paths. With
    paths of your own it is a plain `ReplayData`.

    Args:
        dataset: which states the stages start from.
        chain: arguments of `ChainData`.
    """

    dataset_class = StateDatasetConfig

    def __init__(self, dataset: StateDatasetConfig | None = None, **chain: Any) -> None:
        super().__init__(**chain)
        self.dataset = dataset
