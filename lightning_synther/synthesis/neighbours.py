"""Look at synthetic latents without a decoder: the real frames whose latents lie nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.data.pictures import frames_figure
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import TransitionSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_synther.data.replay import PixelReplay

MAX_CANDIDATES = 50_000


def nearest(queries: Tensor, candidates: Tensor) -> Tensor:
    """Index (Q,) of the nearest of ``candidates`` (N, D) to each of ``queries`` (Q, D).

    Distances are in units of each column's spread among the candidates.

    >>> nearest(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0], [2.0]]))
    tensor([1])
    """
    scale = candidates.std(0).clamp_min(1e-6)
    return torch.cdist(queries / scale, candidates / scale).argmin(dim=1)


def neighbour_figure(
    replay: PixelReplay,
    real: NDArray[np.float32],
    synthetic: NDArray[np.float32],
    spec: TransitionSpec,
    *,
    views: int = 1,
    count: int = 8,
    seed: int = 0,
) -> Figure:
    """Real transitions as frames, s above s'; below, synthetic ones as the real frames nearest to z and z'.

    The frame of z is searched among the z of all real transitions, that of z' among their z', independently:
    a synthetic transition makes sense where its two frames follow one another.

    Args:
        replay: where the frames are; transition i of it made the rows i * views ... of ``real``.
        real: rows (N, D) of ``spec``.
        synthetic: rows (M, D) of ``spec``.
        views: latent copies of each real transition.
        count: transitions shown of each kind.
        seed: of the choice.
    """
    rng = np.random.default_rng(derive_seed(seed, "neighbours"))
    pool = np.sort(rng.permutation(len(real))[:MAX_CANDIDATES])
    candidates = torch.from_numpy(np.array(real[pool]))
    queries = torch.from_numpy(np.array(synthetic[np.sort(rng.permutation(len(synthetic))[:count])]))
    shown = rng.integers(replay.num_transitions, size=count)
    found = {
        name: pool[nearest(queries[:, spec.fields[name]], candidates[:, spec.fields[name]]).numpy()] // views
        for name in ("observation", "next_observation")
    }
    strips = {
        "real s": replay.observation_rows[shown],
        "real s'": replay.next_rows[shown],
        "synthetic s": replay.observation_rows[found["observation"]],
        "synthetic s'": replay.next_rows[found["next_observation"]],
    }
    return frames_figure(
        {label: replay.frames_at(rows) for label, rows in strips.items()},
        heading="Synthetic latents as their nearest real frames\neach s' should follow from the s above it",
    )
