"""Observations of real and synthetic transitions in TensorBoard's embedding projector, with thumbnails."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.evaluation.figures import REAL, SYNTHETIC
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis.neighbours import MAX_CANDIDATES
from lightning_synther.synthesis.novelty import nearest_index
from lightning_synther.transition import TransitionSpec

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from lightning_synther.data.replay import PixelReplay

#: Pixels a side of a thumbnail. A browser's sprite is at most 8192 pixels wide: 65,536 thumbnails of this size.
THUMBNAIL = 32
BORDER = 2
TAG = "observations"


@dataclass(frozen=True)
class Thumbnails:
    """The pixels behind a store of real latents: row i is a view of transition i // views.

    Attributes:
        replay: the pixels.
        views: rows of each transition.
    """

    replay: PixelReplay
    views: int = 1

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """(B, 3, 32, 32) in [0, 1]: the newest frames of the observations of rows (B,)."""
        frames = self.replay.frames_at(self.replay.observation_rows[rows // self.views])[:, -3:]
        return F.interpolate(frames.float() / 255, size=(THUMBNAIL, THUMBNAIL), mode="area")

    def episodes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B,) numbers of the episodes that rows (B,) come from."""
        ends = np.cumsum(self.replay.episodes.lengths)
        return np.searchsorted(ends, self.replay.observation_rows[rows // self.views], side="right")


def write_projector(
    writer: SummaryWriter,
    real: NDArray[np.float32],
    synthetic: NDArray[np.float32],
    spec: TransitionSpec,
    thumbnails: Thumbnails | None = None,
    *,
    count: int = 1_000,
    seed: int = 0,
) -> Path:
    """Write points, labels and thumbnails for the projector into the folder of ``writer``; returns theirs.

    Points are observations in standard deviations of the real ones. Their labels: real or synthetic, reward,
    distance to the nearest real observation (of a real one 0), and with ``thumbnails`` the episode. A synthetic
    observation has episode and thumbnail of the nearest real one; borders of the thumbnails tell the kinds apart.

    Args:
        writer: of one run directory.
        real, synthetic: rows (N, D) of ``spec``.
        thumbnails: what the real rows look like; None for states.
        count: points of each kind, at most.
        seed: of their choice.
    """
    folder = Path(writer.log_dir) / "00000" / TAG
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier synthesis
    rng = np.random.default_rng(derive_seed(seed, "projector"))
    pool, shown, made = (
        np.sort(rng.permutation(len(rows))[:size])
        for rows, size in ((real, MAX_CANDIDATES), (real, count), (synthetic, count))
    )
    columns, reward = spec.fields["observation"], spec.fields["reward"].start
    candidates = torch.from_numpy(real[pool][:, columns])
    mean, std = candidates.mean(0), candidates.std(0)
    scale = torch.where(std > 0, std, torch.ones_like(std))
    points = [(torch.from_numpy(rows[:, columns]) - mean) / scale for rows in (real[shown], synthetic[made])]
    candidates = (candidates - mean) / scale
    nearest = nearest_index(points[1], candidates)
    distances = (points[1] - candidates[nearest]).square().mean(1).sqrt()
    table = {
        "kind": ["real"] * len(shown) + ["synthetic"] * len(made),
        "reward": [f"{value:.4g}" for value in (*real[shown, reward], *synthetic[made, reward])],
        "distance_to_real": [f"{value:.3g}" for value in (*[0.0] * len(shown), *distances.tolist())],
    }
    images = None
    if thumbnails is not None:
        rows = np.concatenate([shown, pool[nearest.numpy()]])
        table["episode"] = [str(number) for number in thumbnails.episodes(rows)]
        images = _framed(thumbnails.images(rows), len(shown))
    writer.add_embedding(
        torch.cat(points),
        metadata=[list(labels) for labels in zip(*table.values(), strict=True)],
        metadata_header=list(table),
        label_img=images,
        global_step=0,
        tag=TAG,
    )
    return folder


def _framed(images: Tensor, num_real: int) -> Tensor:
    """Thumbnails (N, 3, S, S), the first ``num_real`` of them with the border of real ones."""
    for part, colour in ((images[:num_real], REAL), (images[num_real:], SYNTHETIC)):
        paint = torch.tensor(to_rgb(colour))[:, None, None]
        for edge in (slice(None, BORDER), slice(-BORDER, None)):
            part[:, :, edge] = paint
            part[:, :, :, edge] = paint
    return images
