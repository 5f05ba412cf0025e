"""Exponential moving average of a network, kept by the module that trains it.

Why not Lightning's `WeightAveraging` callback: it counts ``trainer.global_step`` once per training *batch*.
A batch of this package holds several gradient updates, so "every 10 updates" would be every 10th batch or,
where 10 and the number of updates in a batch do not meet, never. Here the average is updated inside the
update, and its state is part of the module's checkpoint: a resumed run is exact, and sampling needs no
callback.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def ema_decay(
    call: int,
    *,
    decay: float = 0.995,
    update_every: int = 10,
    update_after: int = 100,
    warmup: bool = True,
    restart: bool = False,
) -> float | None:
    """Weight of the old average at gradient update ``call`` (from 0); 0 copies, None leaves it alone.

    With ``warmup`` this is the rule that SynthER's results come from (ema-pytorch's defaults): every
    ``update_every``-th update, a copy up to ``update_after``, then min(decay, 1 - (1 + e)^(-2/3)) with
    e = call - update_after. ``restart`` copies once more where averaging begins, as ema-pytorch did up to
    mid 2023. Without ``warmup``: a copy at update 0, then the constant ``decay``, as Lightning's
    `EMAWeightAveraging`.
    """
    if call % update_every:
        return None
    if not warmup:
        return decay if call > 0 else 0.0
    elapsed = call - update_after
    if elapsed <= 0 or (restart and elapsed <= update_every):
        return 0.0
    return min(decay, 1 - (1 + elapsed) ** (-2 / 3))


class EMA(nn.Module):
    """A copy of ``model`` whose parameters and float buffers follow the original by `ema_decay`.

    Args:
        model: network to follow; copied, so the average starts as its initial weights.
        decay: largest weight of the old average.
        update_every: gradient updates between two updates of the average.
        warmup: SynthER's warm-up, which forgets the early network; otherwise a constant decay.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.995, update_every: int = 10, *, warmup: bool = True
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.update_every, self.warmup = decay, update_every, warmup
        self.num_calls = 0  # on the host: reading it from the device would stall every update

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow ``model``; call once after each gradient update."""
        decay = ema_decay(
            self.num_calls, decay=self.decay, update_every=self.update_every, warmup=self.warmup
        )
        self.num_calls += 1
        if decay is not None:
            average(self.model, model, decay)

    def forward(self, *args: Tensor | None) -> Tensor:
        """Call the averaged network."""
        return self.model(*args)

    def get_extra_state(self) -> Tensor:
        """The call counter, for the checkpoint."""
        return torch.tensor(self.num_calls)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the call counter."""
        self.num_calls = int(state)


def average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * model, for parameters and float buffers; other buffers
    are copied."""
    pairs = list(zip(_tensors(averaged), _tensors(model), strict=True))
    blended = [pair for pair in pairs if decay > 0 and pair[0].is_floating_point()]
    copied = [pair for pair in pairs if decay == 0 or not pair[0].is_floating_point()]
    if blended:
        torch._foreach_lerp_([old for old, _ in blended], [new for _, new in blended], 1 - decay)
    if copied:
        torch._foreach_copy_([old for old, _ in copied], [new for _, new in copied])


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
