"""Encoding a dataset of pixels once, with a frozen encoder, into a store of latent transitions."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightning_synther.data.conditions import write_condition
from lightning_synther.data.rewards import describe_episodes
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import Existing, StoreWriter
from lightning_synther.data.windows import stack_rows
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.timm_encoder import TimmEncoder
from lightning_synther.progress import Progress
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import Transition, TransitionSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_synther.data.replay import PixelReplay
    from lightning_synther.networks.frozen import FrozenEncoder

TRANSITIONS_PER_CHUNK = 2048


def encode_dataset(
    replay: PixelReplay,
    encoder: FrozenEncoder,
    path: str | Path,
    *,
    views: int = 1,
    shift: bool = False,
    batch_size: int = 256,
    seed: int = 0,
    fingerprint: str = "",
    existing: Existing = "resume",
    features: NDArray[np.float32] | None = None,
) -> TransitionStore:
    """Write every transition of ``replay`` as latents (z, a, n-step return, z') and open the store.

    Rows are in the order of the episodes, the ``views`` of a transition next to each other; the condition
    ``episode`` numbers the episodes. An interrupted call is continued by the next one. Runs on the device of
    ``encoder``.

    Args:
        replay: the transitions, with their frame stack, n-step return and discount.
        encoder: z = ``encode(frames)``, z' = ``encode_next(frames)``.
        path: the store to write.
        views: latent copies of each transition, each with its own random shifts.
        shift: apply the random shift of DrQ-v2 to both observations, as in the training of the encoder.
        batch_size: frame stacks encoded at once.
        seed: of the shifts.
        fingerprint: identifies dataset and encoder.
        existing: what to do about a store that is already there, as in `StoreWriter`.
        features: what a `TimmEncoder`'s backbone made of every frame (`frame_features`); unshifted frames are then
            not encoded again.

    Raises `ConfigError` for several views without shift, `DataError` for discounts that a row cannot hold.

    >>> from lightning_synther import LatentEncoder, PixelReplay, collect, load_vd4rl
    >>> short = {"image_size": 64, "time_limit": 0.2, "num_workers": 0, "progress": False}
    >>> folder = collect("cartpole_swingup", root="filmed", episodes=2, **short)
    >>> replay = PixelReplay(load_vd4rl(folder, image_size=64), n_step=3)
    >>> encoder = LatentEncoder(image_size=64, critic=False)  # of an agent: LatentEncoder.from_agent(agent)
    >>> store = encode_dataset(replay, encoder, "latents")
    >>> len(store), store.spec.dim
    (16, 102)
    """
    if views < 1 or (views > 1 and not shift):
        raise ConfigError(
            f"latents.views is {views} and latents.shift {shift}: several views differ only by their shifts, "
            "give views=1 or shift=true"
        )
    chunk = _ChunkEncoder(replay, encoder, views, shift, batch_size, seed, features)
    starts = np.cumsum(replay.episodes.lengths) - replay.episodes.lengths
    episode = np.searchsorted(starts, replay.rows, side="right") - 1
    present = np.unique(episode)
    with StoreWriter(
        path,
        transition_spec(replay, encoder.latent_dim),
        replay.num_transitions * views,
        seed=seed,
        producer="encode_dataset",
        fingerprint=fingerprint,
        chunk_size=TRANSITIONS_PER_CHUNK * views,
        extra={
            "n_step": replay.n_step,
            "gamma": replay.gamma,
            "views": views,
            "shift": shift,
            **describe_episodes(replay.episodes.returns[present], replay.episodes.lengths[present] - 1),
        },
        existing=existing,
    ) as writer:
        done = sum(writer.chunk(i).stop - writer.chunk(i).start for i in writer.finished_chunks)
        with Progress("latents", len(writer), "transitions", done) as progress:
            for index in writer.pending_chunks:
                rows = writer.spec.flatten(chunk.encode(index))
                writer.write(index, rows)
                progress.update(len(rows))
        store = writer.commit()
    write_condition(path, "episode", episode.repeat(views))
    return store


def transition_spec(replay: PixelReplay, latent_dim: int) -> TransitionSpec:
    """Spec of the latent transitions of ``replay``; a terminal column if any of its episodes ends for good.

    Raises `DataError` where a discount is neither gamma**n_step nor 0.
    """
    discount = replay.gamma**replay.n_step
    plain = torch.isclose(replay.discount, torch.tensor(discount, dtype=torch.float32))
    other = replay.discount[~plain & (replay.discount != 0)]
    if len(other):
        raise DataError(
            f"the dataset has transitions with discount {other[0].item():g}, "
            f"a latent transition can only have gamma**n_step = {discount:g} or 0: use other data"
        )
    # Asked of all episodes, also those left out of this replay: training and held-out rows must agree.
    terminal = bool((replay.episodes.discount == 0).any())
    return TransitionSpec(latent_dim, replay.action_dim, discount, terminal)


class _ChunkEncoder:
    """Encodes transitions [i, i + 1) * TRANSITIONS_PER_CHUNK, a function of the arguments and i alone."""

    def __init__(
        self,
        replay: PixelReplay,
        encoder: FrozenEncoder,
        views: int,
        shift: bool,
        batch_size: int,
        seed: int,
        features: NDArray[np.float32] | None = None,
    ) -> None:
        self.replay, self.encoder, self.views, self.shift = replay, encoder, views, shift
        self.batch_size, self.seed = batch_size, seed
        self.features = features
        # An encoder of one's own may have nothing to be on a device.
        self.device = next(chain(encoder.parameters(), encoder.buffers()), torch.empty(0)).device

    def encode(self, chunk: int) -> Transition:
        """Latent transitions of one chunk, on the CPU."""
        start = chunk * TRANSITIONS_PER_CHUNK
        index = np.arange(start, min(start + TRANSITIONS_PER_CHUNK, self.replay.num_transitions))
        if self.shift:
            views = [self._shifted(index, view, chunk) for view in range(self.views)]
            z, z_next = (torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*views, strict=True))
        else:
            z, z_next = self._unshifted(index)
        numbers = (getattr(self.replay, name)[index] for name in ("action", "reward", "discount"))
        action, reward, discount = (part.repeat_interleave(self.views, dim=0) for part in numbers)
        return Transition(z, action, reward, z_next, discount)

    def _unshifted(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """Each frame stack goes through the convolutions once, as observation and as next observation."""
        before, after = self.replay.observation_rows[index], self.replay.next_rows[index]
        rows = np.unique(np.concatenate([before, after]))
        if self.features is not None:
            z = self._from_features(rows)
            return z[np.searchsorted(rows, before)], z[np.searchsorted(rows, after)]
        latents = [self.encoder.encode_both(self._to_device(*part)) for part in self._batches(rows)]
        z, z_next = (torch.cat(parts).cpu() for parts in zip(*latents, strict=True))
        return z[np.searchsorted(rows, before)], z_next[np.searchsorted(rows, after)]

    def _from_features(self, rows: np.ndarray) -> Tensor:
        assert isinstance(self.encoder, TimmEncoder), "features are those of a timm backbone"
        assert self.features is not None
        stacks = stack_rows(rows, self.replay.episodes.lengths, self.replay.frame_stack)
        return self.encoder.latents(torch.from_numpy(self.features[stacks]).to(self.device)).cpu()

    def _shifted(self, index: np.ndarray, view: int, chunk: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(derive_seed(self.seed, "encode", view, chunk))
        shifts = self.replay.draw_shifts((2, len(index)), rng)
        sides = (
            (self.encoder.encode, self.replay.observation_rows[index], shifts[0]),
            (self.encoder.encode_next, self.replay.next_rows[index], shifts[1]),
        )
        z, z_next = (
            torch.cat([encode(self._to_device(*part)) for part in self._batches(rows, at)]).cpu()
            for encode, rows, at in sides
        )
        return z, z_next

    def _batches(self, *arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        cuts = range(0, len(arrays[0]), self.batch_size)
        return [tuple(array[cut : cut + self.batch_size] for array in arrays) for cut in cuts]

    def _to_device(self, rows: np.ndarray, shifts: np.ndarray | None = None) -> Tensor:
        return self.replay.frames_at(rows, shifts).to(self.device)
