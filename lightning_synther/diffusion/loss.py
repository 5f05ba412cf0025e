"""The training objective: denoise data at a random noise level (Karras et al. 2022, equation 8)."""

from __future__ import annotations

from torch import Tensor

from lightning_synther.diffusion.preconditioning import Denoise, Target, loss_weight


def edm_loss(
    denoise: Denoise, x: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float, target: Target = "edm"
) -> Tensor:
    """lambda(sigma) mean_d (D(x + sigma n; sigma) - x)_d**2 for every row, (B,).

    x: clean rows (B, D), normalised. sigma: (B,). noise: standard normal (B, D). The training loss is the
    mean over rows. Equation 8 sums over d where SynthER takes the mean. With ``target="flow"`` it is the
    flow-matching loss mean_d (v(x_t, t) - (noise - x))_d**2 at t = sigma / (1 + sigma).
    """
    D_x = denoise(x + sigma[:, None] * noise, sigma)
    return loss_weight(sigma, sigma_data, target) * (D_x - x).square().mean(dim=-1)
