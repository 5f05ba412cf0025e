"""Rows that are already there, as a store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.errors import DataError
from lightning_synther.transition import Transition, TransitionSpec

CHUNK = 65_536  # rows checked and written at a time


def write_rows(
    path: str | Path,
    rows: Tensor | NDArray[np.float32] | Transition,
    spec: TransitionSpec,
    *,
    producer: str = "write_rows",
    seed: int = 0,
) -> TransitionStore:
    """Write flat rows (N, D), or a `Transition` of N, as the store ``path``, in place of one that is there.

    Args:
        path: folder of the store.
        rows: in the layout of ``spec``.
        spec: their sizes.
        producer: what made them, for the store's metadata.
        seed: of what made them.

    Raises `DataError` for rows of another size, and for numbers that are not finite.

    >>> import torch
    >>> spec = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)
    >>> store = write_rows("mine", torch.rand(100, spec.dim), spec)
    >>> len(store), store.spec.dim
    (100, 8)
    """
    if isinstance(rows, Transition):
        rows = spec.flatten(rows)
    values = np.ascontiguousarray(rows.detach().cpu() if isinstance(rows, Tensor) else rows, np.float32)
    if values.ndim != 2 or values.shape[1] != spec.dim or not len(values):
        raise DataError(
            f"rows are {values.shape}, the record {spec} needs (N, {spec.dim}): lay them out as it says"
        )
    digest = hashlib.blake2b(values.data, digest_size=16).hexdigest()
    with StoreWriter(
        path,
        spec,
        len(values),
        seed=seed,
        producer=producer,
        fingerprint=digest,
        chunk_size=CHUNK,
        existing="replace",
    ) as writer:
        for index in writer.pending_chunks:
            writer.write(index, values[writer.chunk(index)])
        return writer.commit()
