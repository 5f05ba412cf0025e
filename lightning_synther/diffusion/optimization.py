"""Optimizer and learning-rate schedule of SynthER's diffusion trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

LRSchedule = Literal["cosine", "linear", "constant"]


def lr_factor(schedule: LRSchedule, num_steps: int) -> Callable[[int], float]:
    """Factor on the learning rate at update t of T = ``num_steps``.

    ``cosine``: (1 + cos(pi t / T)) / 2, 0 from T on; ``linear``: max(0, 1 - t / T); ``constant``: 1.
    """
    if schedule == "cosine":
        return lambda t: (1 + math.cos(math.pi * min(t, num_steps) / num_steps)) / 2
    if schedule == "linear":
        return lambda t: max(0.0, 1 - t / num_steps)
    return lambda t: 1.0


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: weight decay on everything but biases.

    LayerNorm gains are decayed, as in SynthER, whose rule exempts them by a name that they do not have; no
    published configuration uses weight decay.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in named if not name.endswith("bias")], "weight_decay": weight_decay},
        {"params": [p for name, p in named if name.endswith("bias")], "weight_decay": 0.0},
    ]


def step_clipped(optimizer: Optimizer | LightningOptimizer, limit: float | None) -> Tensor:
    """Step of a fused optimizer on gradients clipped to the global norm ``limit`` (None: as they are); that norm.

    The optimizer divides by the scale as it reads gradients (what `torch.amp.GradScaler` uses), where
    `clip_grad_norm_` would read and write all of them once more.
    """
    fused = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
    gradients = [p.grad for group in fused.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    if limit is not None:
        fused.grad_scale = ((norm + 1e-6) / limit).clamp(min=1.0)  # type: ignore[attr-defined]
    optimizer.step()
    return norm
