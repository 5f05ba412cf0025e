"""Sampling a store of any size with `Trainer.predict`: in chunks, over ranks, resumable, in bounded memory.

A predict batch is a `Chunk`: how many rows to sample, from which seed. The seed of a chunk depends on its
index alone, so the store is the same for any number of ranks, and for a run that was killed and continued::

    data = SynthesisData("synthetic", spec=model.spec, num_transitions=5_000_000)
    trainer = Trainer(callbacks=[StoreWriterCallback(data)])
    trainer.predict(model, datamodule=data)
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_synther.data.store_writer import Existing, StoreWriter
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis.filters import COUNTERS, Filters
from lightning_synther.transition import TransitionSpec

log = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """One predict batch: sample ``num_rows`` rows, drawing from a generator seeded with ``seed``."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    num_rows: int
    seed: int


class Chunks(Dataset[Chunk]):
    """The chunks of some indices."""

    def __init__(self, indices: Sequence[int], chunk: Callable[[int], Chunk]) -> None:
        self.indices, self.chunk = indices, chunk

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> Chunk:
        return self.chunk(self.indices[item])


class SynthesisData(pl.LightningDataModule):
    """The chunks of a store that are still to be sampled.

    Args:
        path: store to write; a partial one is continued.
        num_transitions: size of the store.
        spec: the rows' layout, by default that of the Trainer's model.
        chunk_size: rows sampled, written and resumed at once; part of what determines the rows.
        seed: seed of the store.
        fingerprint: identifies the model, its sampler and the precision, by default a hash of weights and
            hyperparameters, and the Trainer's precision where that is not float32.
        existing: what to do about a store that is already there, as in `StoreWriter`.
        filters: what rows have to pass; what is dropped is counted in the store's ``metadata.extra["counts"]``
            and replaced (`Filters`).
    """

    def __init__(
        self,
        path: str | Path,
        num_transitions: int,
        spec: TransitionSpec | None = None,
        chunk_size: int = 10_000,
        seed: int = 0,
        fingerprint: str | None = None,
        existing: Existing = "error",
        filters: Filters | None = None,
    ) -> None:
        super().__init__()
        self.path, self.num_transitions, self.spec = Path(path), num_transitions, spec
        self.chunk_size, self.seed, self.fingerprint = chunk_size, seed, fingerprint
        self.existing, self.filters = existing, filters
        self.writer: StoreWriter | None = None

    def predict_dataloader(self) -> DataLoader[Chunk]:
        """Open the store, on rank zero first, and list its missing chunks, in equal numbers for all ranks.

        Not done in `setup`, which comes before a checkpoint's weights are loaded and can be fingerprinted.
        """
        trainer = self.trainer
        assert trainer is not None, "SynthesisData is made for Trainer.predict"
        if trainer.is_global_zero:
            self.writer = self._open(trainer.lightning_module)
        trainer.strategy.barrier("the store is laid out")
        if self.writer is None:
            self.writer = self._open(trainer.lightning_module)
        chunks = Chunks(self.writer.pending_chunks, self.chunk)
        trainer.strategy.barrier("missing chunks are listed, writing may begin")
        if not len(chunks) and trainer.is_global_zero:
            self.writer.commit()
        sampler: DistributedSampler[Chunk] | None = None
        if len(chunks) and trainer.world_size > 1:
            # Repeats a chunk or two where they do not come out even, so that no rank is left with none.
            sampler = DistributedSampler(chunks, trainer.world_size, trainer.global_rank, shuffle=False)
        return DataLoader(chunks, batch_size=1, sampler=sampler, collate_fn=itemgetter(0))

    def chunk(self, index: int) -> Chunk:
        """Chunk ``index`` of the store."""
        assert self.writer is not None
        rows = self.writer.chunk(index)
        return Chunk(index, rows.stop - rows.start, derive_seed(self.seed, "synthesis", index))

    def _open(self, model: pl.LightningModule) -> StoreWriter:
        spec = self.spec if self.spec is not None else model.spec
        assert isinstance(spec, TransitionSpec)
        identity = self.fingerprint
        if identity is None:
            assert self.trainer is not None
            precision = str(self.trainer.precision)
            identity = fingerprint(model) if precision == "32-true" else f"{fingerprint(model)}-{precision}"
        return StoreWriter(
            self.path,
            spec,
            self.num_transitions,
            seed=self.seed,
            producer=type(model).__name__,
            fingerprint=identity if self.filters is None else f"{identity}-{self.filters.fingerprint}",
            chunk_size=self.chunk_size,
            existing=self.existing,
            counters=() if self.filters is None else COUNTERS,
        )


class StoreWriterCallback(BasePredictionWriter):
    """Writes the rows (n, D) that ``predict_step`` returns for a `Chunk`; names the store at the end."""

    def __init__(self, data: SynthesisData) -> None:
        super().__init__(write_interval="batch")
        self.data = data

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep Lightning from collecting the rows in memory, which is its default."""
        trainer.predict_loop.return_predictions = False

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Tensor,
        batch_indices: Any,
        batch: Chunk,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one chunk, filtered; raises `DataError` where a row is not finite and nothing filters it."""
        assert self.data.writer is not None
        if self.data.filters is None:
            self.data.writer.write(batch.index, prediction)
            return

        def sample(num_rows: int, seed: int) -> Tensor:
            request = batch._replace(num_rows=num_rows, seed=seed)
            return cast(Tensor, trainer.strategy.predict_step(request, batch_idx))

        rows, counts = self.data.filters.fill(prediction, batch.seed, sample)
        self.data.writer.write(batch.index, rows, counts)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish the store once every rank has written its share."""
        writer = self.data.writer
        assert writer is not None
        trainer.strategy.barrier("all chunks are written")
        if trainer.is_global_zero:
            if pending := writer.pending_chunks:
                log.warning("%s lacks %d chunks: predict again to add them", writer.partial, len(pending))
            else:
                writer.commit()
        trainer.strategy.barrier("the store has its name")
        writer.close()


def fingerprint(model: pl.LightningModule) -> str:
    """Hash of a model's hyperparameters, weights, sampler and guidance."""
    settings = [getattr(model, name, None) for name in ("sampler", "guidance")]
    digest = hashlib.blake2b(repr((sorted(model.hparams.items()), settings)).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
