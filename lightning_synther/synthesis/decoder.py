"""Seeing latents: a small decoder, trained beside the frozen encoder, that nothing else depends on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.data.pictures import frames_figure
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.updates import UpdateData
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import DataError
from lightning_synther.networks.decoder import FrameDecoder
from lightning_synther.networks.encoders import read_checkpoint
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis.subsample import unit
from lightning_synther.transition import TransitionSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_synther.data.replay import PixelReplay

Pairs = tuple[Tensor, Tensor]  # latents (B, O) float32, frames (B, 3, S, S) uint8


class LatentDecoder(LightningModule):
    """From latents to the newest frame of their stack, by mean squared error.

    A training batch is a list of one pair: latents and frames.

    Args:
        latent_dim: size of a latent.
        image_size: pixels a side of a frame.
        width: channels of the decoder's coarsest map.
        lr: learning rate of Adam.
        log_every_n_updates: updates between two logged losses.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        latent_dim: int,
        image_size: int = 84,
        width: int = 128,
        lr: float = 1e-3,
        log_every_n_updates: int = 50,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = FrameDecoder(latent_dim, image_size, width)
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))

    def fit_normalizer(self, latents: NDArray[np.float32]) -> None:
        """Standardise latents as these (N, O) are."""
        statistics = ColumnStatistics.of(latents)
        self.mean.copy_(torch.from_numpy(statistics.mean))
        self.std.copy_(unit(statistics.std))

    def forward(self, latents: Tensor) -> Tensor:
        """Frames (B, 3, S, S) around [0, 1], not clamped, of latents (B, O)."""
        frames: Tensor = self.network((latents - self.mean) / self.std)
        return frames

    @torch.no_grad()
    def decode(self, latents: Tensor | NDArray[np.float32]) -> Tensor:
        """Frames (B, 3, S, S) uint8, on the CPU, of latents (B, O); `DataError` for latents of another size."""
        z = torch.as_tensor(latents, dtype=torch.float32)
        if z.ndim != 2 or z.shape[1] != self.hparams["latent_dim"]:
            raise DataError(
                f"latents are {tuple(z.shape)}, the decoder was trained on (B, {self.hparams['latent_dim']}): use "
                "those of its own encoder"
            )
        blocks = [self(block.to(self.device)).clamp(0, 1) for block in z.split(256)]
        return (torch.cat(blocks) * 255).round().byte().cpu()

    def training_step(self, batches: list[Pairs], batch_idx: int) -> Tensor:
        """Mean squared error on values in [0, 1]."""
        ((latents, frames),) = batches
        loss = F.mse_loss(self(latents), frames.float() / 255)
        if (self.trainer.global_step + 1) % self.hparams["log_every_n_updates"] == 0:
            self.log("train/loss", loss.detach(), batch_size=len(latents))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


def decode(decoder: LatentDecoder | str | Path, latents: Tensor | NDArray[np.float32]) -> Tensor:
    """Frames (B, 3, S, S) uint8 of latents (B, O), by a decoder or the path of its checkpoint.

    Raises `DataError` for a file that holds no decoder, and for latents of another size.

    >>> decode(LatentDecoder(latent_dim=50), torch.zeros(2, 50)).shape
    torch.Size([2, 3, 84, 84])
    """
    return (decoder if isinstance(decoder, LatentDecoder) else load_decoder(decoder)).decode(latents)


def load_decoder(path: str | Path) -> LatentDecoder:
    """The decoder in a checkpoint, on the CPU."""
    checkpoint = read_checkpoint(path)
    hparams = checkpoint["hyper_parameters"]
    if "latent_dim" not in hparams or "network.linear.weight" not in checkpoint["state_dict"]:
        raise DataError(f"checkpoint {path} holds no decoder: give <run>/decoder/final.ckpt")
    decoder = LatentDecoder(**hparams)
    decoder.load_state_dict(checkpoint["state_dict"])
    return decoder.eval()


class DecoderData(UpdateData[Pairs]):
    """Latents of a store, z and z' alike, and the newest frames of the unshifted stacks that they were made from.

    Args:
        store: path of the store of real latent transitions.
        replay: the pixels that it was made from, ``views`` rows a transition.
        views: latent copies of each transition.
        batch_size: latents in an update.
        seed: of the batches.
    """

    def __init__(
        self, store: str | Path, replay: PixelReplay, views: int = 1, batch_size: int = 64, seed: int = 0
    ) -> None:
        super().__init__(batch_size, 1, seed)
        self.replay, self.views = replay, views
        self.store = TransitionStore.open(store)
        fields = self.store.spec.fields
        self.sides = (
            (fields["observation"], replay.observation_rows),
            (fields["next_observation"], replay.next_rows),
        )

    def batches(self, updates: range) -> list[Pairs]:
        """Pairs drawn with replacement."""
        return [self._batch(self.generator(update)) for update in updates]

    def _batch(self, generator: np.random.Generator) -> Pairs:
        columns, frame_rows = self.sides[int(generator.integers(2))]
        index = generator.integers(len(self.store), size=self.batch_size)
        latents = torch.from_numpy(self.store.rows[index][:, columns])
        return latents, newest_frames(self.replay, frame_rows[index // self.views])


def newest_frames(replay: PixelReplay, rows: NDArray[np.int64]) -> Tensor:
    """(B, 3, S, S) uint8: of each observation the last frame of its stack."""
    return replay.frames_at(rows)[:, -3:]


def decoded_figure(
    decoder: LatentDecoder,
    replay: PixelReplay,
    real: NDArray[np.float32],
    synthetic: NDArray[np.float32],
    spec: TransitionSpec,
    *,
    views: int = 1,
    count: int = 8,
    seed: int = 0,
) -> Figure:
    """Real transitions as frames and decoded from their latents, s above s'; below, synthetic ones decoded.

    Args:
        decoder: of these latents.
        replay: where the frames are; transition i of it made the rows i * views ... of ``real``.
        real: rows (N, D) of ``spec``.
        synthetic: rows (M, D) of ``spec``.
        views: latent copies of each real transition.
        count: transitions shown of each kind.
        seed: of the choice.
    """
    rng = np.random.default_rng(derive_seed(seed, "decoded"))
    shown = rng.integers(replay.num_transitions, size=count)
    made: dict[str, Any] = {
        "real": real[shown * views],
        "synthetic": synthetic[rng.integers(len(synthetic), size=count)],
    }
    strips = {
        "real s": newest_frames(replay, replay.observation_rows[shown]),
        "real s'": newest_frames(replay, replay.next_rows[shown]),
    }
    for kind, rows in made.items():
        label = "decoded" if kind == "real" else "synthetic"
        strips[f"{label} s"] = decoder.decode(rows[:, spec.fields["observation"]])
        strips[f"{label} s'"] = decoder.decode(rows[:, spec.fields["next_observation"]])
    heading = "Decoded synthetic latents\nas sharp as decoded real ones, and each s' should follow from s"
    return frames_figure(strips, heading=heading)


def psnr(decoder: LatentDecoder, pairs: Pairs) -> float:
    """Peak signal-to-noise ratio of decoded frames, in dB; higher is better."""
    latents, frames = pairs
    error = (decoder.decode(latents).float() - frames.float()).square().mean().item() / 255**2
    return -10 * math.log10(max(error, 1e-10))
