"""DrQ-v2 on frames, whose heads also learn from latents of its own encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_synther.agents.modules import DrQV2
from lightning_synther.networks.trunk import Columns
from lightning_synther.transition import Transition


class LatentReplayDrQV2(DrQV2):
    """DrQ-v2 that takes two kinds of batches, for synthetic experience replay online.

    Frames (B, C, H, W) uint8 train everything, as in `DrQV2`. Latents (B, 2 * feature_dim), as
    `LatentEncoder` makes them of this agent, train the heads, that is all after the trunks, and the target
    critics' heads; encoder and trunks stay as they are.

    Args:
        base: arguments of `DrQV2`, `NoisyAgent` and `Agent`, with ``observation: pixels``.
    """

    def __init__(self, **base: Any) -> None:
        super().__init__(**base)
        feature_dim = self.hparams["feature_dim"]
        self._latent_trunks = {
            "actor": Columns(slice(0, feature_dim)),
            "critic": Columns(slice(feature_dim, 2 * feature_dim)),
        }

    def step(self, batch: Transition, draws: Any) -> dict[str, Tensor]:
        """One update of `DrQV2`, on what the batch holds; metrics of latents are named ``latent_...``."""
        if not self._holds_latents(batch):
            return super().step(batch, draws)
        if (
            not self._optimizers_by_name
        ):  # used by hand: of all parameters, not of those that are looked at within
            self.configure_optimizers()
        with self._reading_latents():
            metrics = super().step(batch, draws)
        return {f"latent_{name}": value for name, value in metrics.items()}

    def check(self, batch: Transition) -> None:
        """Raise `DataError` where a batch does not fit."""
        if not self._holds_latents(batch):
            super().check(batch)

    def _holds_latents(self, batch: Transition) -> bool:
        dims = batch.observation.shape[1:]
        return tuple(dims) == (2 * self.hparams["feature_dim"],)

    @contextmanager
    def _reading_latents(self) -> Iterator[None]:
        """Within, the encoder passes latents through, and each trunk is its columns of them."""
        heads = {"actor": self.actor, "critic": self.critic, "critic_target": self.critic_target}
        encoder, trunks = self.encoder, {name: head.trunk for name, head in heads.items()}
        self.encoder = nn.Identity()
        for name, head in heads.items():
            head.trunk = self._latent_trunks[name.removesuffix("_target")]
        try:
            yield
        finally:
            self.encoder = encoder
            for name, head in heads.items():
                head.trunk = trunks[name]
