"""Training batches for Lightning or a plain loop: pixels, rows, and real mixed with synthetic transitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_synther.data.conditions import read_conditions
from lightning_synther.data.mixing import Mixing, composition, sources
from lightning_synther.data.replay import PixelReplay
from lightning_synther.data.rewards import RewardMap, RewardScale, check_reward_map
from lightning_synther.data.store import LOAD_LIMIT, TransitionStore
from lightning_synther.data.updates import EpisodesMixin, UpdateData
from lightning_synther.errors import ConfigError
from lightning_synther.transition import Transition


class PixelData(EpisodesMixin, UpdateData[Transition]):
    """Randomly shifted transitions of stacked uint8 frames, for agents that learn from pixels.

    Args:
        replay: the episodes, with their frame stack and n-step return.
        batch_size: transitions in an update.
        updates_per_step: updates in one pass of Lightning's loop.
        seed: seed of the batches.
        shift: apply the random shift of DrQ-v2 (Yarats et al. 2021).
        eval_episodes: validation and test episodes.
        eval_seed: what their seeds derive from.
    """

    def __init__(
        self,
        replay: PixelReplay,
        batch_size: int = 256,
        updates_per_step: int = 1,
        seed: int = 0,
        shift: bool = True,
        eval_episodes: int = 10,
        eval_seed: int = 0,
    ) -> None:
        super().__init__(batch_size, updates_per_step, seed)
        self.replay = replay
        self.shift = shift
        self.eval_episodes, self.eval_seed = eval_episodes, eval_seed

    def batches(self, updates: range) -> list[Transition]:
        """Transitions of (B, C, H, W) uint8 stacks."""
        return [
            self.replay.sample(self.batch_size, self.generator(update), shift=self.shift)
            for update in updates
        ]


class RowData(UpdateData[Tensor]):
    """Flat rows (B, D) of a store, for diffusion models, followed by the columns of their conditions.

    Args:
        store: path of the store to train on.
        heldout: path of a store to validate on, of the same spec.
        batch_size: rows in an update.
        updates_per_step: updates in one pass of Lightning's loop.
        seed: seed of the batches.
        load_limit: stores up to this many bytes are read into memory.
        conditions: names of arrays beside the rows, in both stores (`write_condition`). Where ``fit`` trains
            a model, those that a relevance function of that name computes are written first.
    """

    def __init__(
        self,
        store: str,
        heldout: str | None = None,
        batch_size: int = 256,
        updates_per_step: int = 1,
        seed: int = 0,
        load_limit: int = LOAD_LIMIT,
        conditions: Sequence[str] = (),
    ) -> None:
        super().__init__(batch_size, updates_per_step, seed)
        self.store, self.heldout, self.load_limit = store, heldout, load_limit
        self.conditions = list(conditions)
        self.rows: Tensor | None = None
        self.condition_columns: Tensor | None = None

    @classmethod
    def of_rows(cls, rows: Tensor, **settings: Any) -> RowData:
        """Data of rows (N, D) in memory, which come from no store; ``settings`` are those of the batches."""
        data = cls("", **settings)
        data.rows = rows
        return data

    def setup(self, stage: str) -> None:
        """Open the stores."""
        super().setup(stage)
        if self.rows is None:
            store = TransitionStore.open(self.store)
            self.rows = store.load(self.load_limit)
            if self.heldout is not None:
                self.heldout_rows = TransitionStore.open(self.heldout, store.spec).load(self.load_limit)
            if self.conditions:
                self.condition_columns, _ = read_conditions(self.store, self.conditions)
                if self.heldout is not None:
                    heldout, _ = read_conditions(self.heldout, self.conditions)
                    self.heldout_rows = torch.cat([self.heldout_rows, heldout], dim=1)

    def batches(self, updates: range) -> list[Tensor]:
        """Rows drawn with replacement."""
        assert self.rows is not None, "call setup() first"
        parts = [part for part in (self.rows, self.condition_columns) if part is not None]
        batches = [
            # The same draws for every part, hence the same records.
            [gather(part, self.generator(update), self.batch_size) for part in parts]
            for update in updates
        ]
        return [batch[0] if len(batch) == 1 else torch.cat(batch, dim=1) for batch in batches]

    def val_dataloader(self) -> DataLoader[Tensor] | list[Any]:
        """The held-out rows, once, in order; no batches at all without a held-out store."""
        if self.heldout is None:
            return []
        return DataLoader(RowBlocks(self.heldout_rows, self.batch_size), batch_size=None)


class RowBlocks(Dataset[Tensor]):
    """Consecutive blocks (B, D) of rows, the last one may be shorter."""

    def __init__(self, rows: Tensor, batch_size: int) -> None:
        self.rows, self.batch_size = rows, batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.rows[index * self.batch_size : (index + 1) * self.batch_size].clone()


class ReplayData(EpisodesMixin, UpdateData[Transition]):
    """Real and synthetic transitions of two stores, for agents that learn from latents or states.

    Args:
        real: path of the store of real transitions.
        synthetic: path of the store of synthetic transitions, of the same spec.
        mixing: alternate whole batches, mix within a batch by `ratio`, or use one kind only.
        ratio: synthetic share of a batch with ``mixing: ratio``.
        batch_size: transitions in an update.
        updates_per_step: updates in one pass of Lightning's loop.
        seed: seed of the batches.
        eval_episodes: validation and test episodes.
        eval_seed: what their seeds derive from.
        load_limit: stores up to this many bytes are read into memory; larger ones stay mapped.
        reward_scale: factor of all rewards, or ``return_range`` (`RewardMap.of`).
        reward_bias: added to scaled rewards, as the published code subtracts 1 on AntMaze.
    """

    def __init__(
        self,
        real: str | None = None,
        synthetic: str | None = None,
        mixing: Mixing = "alternate",
        ratio: float = 0.5,
        batch_size: int = 256,
        updates_per_step: int = 10,
        seed: int = 0,
        eval_episodes: int = 10,
        eval_seed: int = 0,
        load_limit: int = LOAD_LIMIT,
        reward_scale: RewardScale = 1.0,
        reward_bias: float = 0.0,
    ) -> None:
        super().__init__(batch_size, updates_per_step, seed)
        # What is wrong is refused here, not an hour later.
        composition(0, batch_size, mixing, ratio)
        check_reward_map(reward_scale, reward_bias)
        self.reward_scale, self.reward_bias = reward_scale, reward_bias
        self.real, self.synthetic, self.mixing, self.ratio = real, synthetic, mixing, ratio
        self.eval_episodes, self.eval_seed = eval_episodes, eval_seed
        self.load_limit = load_limit

    def setup(self, stage: str) -> None:
        """Open the stores that ``mixing`` needs.

        Raises `ConfigError` where one is not given, or holds n-step returns that `reward_bias` cannot be added
        to, `DataError` where it is damaged or the two differ in spec.
        """
        super().setup(stage)
        if stage != "fit":
            return
        paths = {"real": self.real, "synthetic": self.synthetic}
        needed = [kind for kind, need in zip(paths, sources(self.mixing, self.ratio), strict=True) if need]
        stores: dict[str, TransitionStore] = {}
        for kind in needed:
            path = paths[kind]
            if path is None:
                raise ConfigError(
                    f"data.mixing is {self.mixing!r} and data.{kind} is not set: "
                    f"give the path of a store as data.{kind}, or choose another mixing"
                )
            spec = next(iter(stores.values())).spec if stores else None
            stores[kind] = TransitionStore.open(path, expected=spec)
        self.spec = next(iter(stores.values())).spec
        self.rows = {kind: store.load(self.load_limit) for kind, store in stores.items()}
        self._real = stores.get("real")
        if self._real is None and self.real is not None:  # statistics are the real data's
            self._real = TransitionStore.open(self.real, expected=self.spec)
        if self._real is not None:
            check_reward_map(self.reward_scale, self.reward_bias, self._real.metadata.extra.get("n_step"))
        self.rewards = RewardMap.of(self.reward_scale, self.reward_bias, self._real)

    def states(self) -> Tensor:
        """Observations (N, O) of all real transitions, for agents that normalise; may be mapped."""
        if self._real is None:
            raise ConfigError(
                "model.normalize_states takes the real data's statistics, but data.real is not set: give the "
                "path of the real store, its transitions are not trained on with data.mixing synthetic"
            )
        rows = self.rows.get("real", self._real.mapped)
        return rows[:, self.spec.fields["observation"]]

    def batches(self, updates: range) -> list[Transition]:
        """Transitions drawn with replacement, in each batch real ones first."""
        rows = torch.empty(len(updates), self.batch_size, self.spec.dim)
        for update, block in zip(updates, rows, strict=True):
            num_real, num_synthetic = composition(update, self.batch_size, self.mixing, self.ratio)
            generator = self.generator(update)
            if num_synthetic:
                gather(self.rows["synthetic"], generator, num_synthetic, out=block[num_real:])
            if num_real:
                gather(self.rows["real"], generator, num_real, out=block[:num_real])
        batches = [self.spec.unflatten(block) for block in rows]
        for batch in batches:
            self.rewards(batch.reward)
        return batches


def gather(rows: Tensor, generator: np.random.Generator, count: int, out: Tensor | None = None) -> Tensor:
    """Draw ``count`` of ``rows`` (N, D) with replacement, copied, into ``out`` where it is given."""
    index = torch.from_numpy(generator.integers(len(rows), size=count))
    return torch.index_select(rows, 0, index, out=out)
