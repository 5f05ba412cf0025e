"""The denoising loss on held-out rows, by noise level: comparable between epochs and runs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_synther.diffusion.loss import edm_loss
from lightning_synther.diffusion.noise import quantile_sigmas
from lightning_synther.diffusion.preconditioning import Denoise, Target
from lightning_synther.seeding import derive_seed


class ValidationLosses(nn.Module):
    """Mean loss at fixed noise levels, with the same noise every time, accumulated over batches and ranks.

    The levels cut the training distribution into equally probable slices and rows take turns at them, so
    that the mean over all rows estimates the training loss.
    """

    def __init__(self, P_mean: float, P_std: float, num_levels: int = 8, target: Target = "edm") -> None:
        super().__init__()
        self.target: Target = target
        self.sigmas = quantile_sigmas(num_levels, P_mean, P_std)
        self.mean = MeanMetric()
        self.means = nn.ModuleList(MeanMetric() for _ in self.sigmas)

    def update(self, denoise: Denoise, x: Tensor, sigma_data: float, batch_idx: int) -> None:
        """Add normalised rows x (B, D); the noise is a function of ``batch_idx``."""
        generator = torch.Generator().manual_seed(derive_seed("validation", batch_idx))
        noise = torch.randn(x.shape, generator=generator).to(x)
        level = torch.arange(len(x), device=x.device) % len(self.sigmas)
        losses = edm_loss(denoise, x, x.new_tensor(self.sigmas)[level], noise, sigma_data, self.target)
        self.mean.update(losses)
        for k, metric in enumerate(self._by_level()):
            if k < len(losses):
                metric.update(losses[k :: len(self.sigmas)])

    def compute(self) -> dict[str, Tensor]:
        """Mean losses since the last call: ``loss``, and ``loss_sigma_<level>`` for every level."""
        names = ["loss", *(f"loss_sigma_{sigma:.2g}" for sigma in self.sigmas)]
        metrics = [self.mean, *self._by_level()]
        losses = {name: metric.compute() for name, metric in zip(names, metrics, strict=True)}
        for metric in metrics:
            metric.reset()
        return losses

    def _by_level(self) -> Iterator[MeanMetric]:
        for metric in self.means:
            assert isinstance(metric, MeanMetric)
            yield metric
