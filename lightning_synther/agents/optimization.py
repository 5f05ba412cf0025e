"""One gradient step of one optimizer, the same alone, under a Trainer, and on several ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from lightning_synther.errors import ConfigError

#: Mixed fp16 would need a GradScaler on every step; in bf16 weights, a soft update of 0.01 rounds to nothing.
PRECISIONS = ("32-true", "64-true", "bf16-mixed")


def check_precision(precision: str) -> None:
    """Raise `ConfigError` for a Trainer precision in which the updates would silently go wrong."""
    if precision not in PRECISIONS:
        raise ConfigError(f"trainer.precision is {precision!r}: give one of {', '.join(PRECISIONS)}")


class FusedAdam(Adam):
    """Adam that updates all parameters in one pass over memory.

    On the CPU its step is the fused kernel and nothing else. Of torch's own step the kernel is the smaller part for
    networks of this size: it collects all tensors anew, and asks whether a CUDA graph is being captured, which a torch
    built for CUDA answers by loading the driver's library (6 % of a whole SAC update).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, lr=lr, fused=True)
        self._collected: list[tuple[list[Tensor], ...]] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step with the gradients that there are after ``closure``, with which Lightning calls its hooks."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        if not all(self._is_lean(group["params"]) for group in groups):
            super().step()
            self._collected = [self._collect(group["params"]) for group in groups]
            return loss
        for group, (parameters, first, second, steps) in zip(groups, self._collected, strict=True):
            beta1, beta2 = group["betas"]
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                parameters,
                [parameter.grad for parameter in parameters if parameter.grad is not None],
                first,
                second,
                [],
                steps,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=None,
                found_inf=None,
            )
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; torch's own takes as long as a small layer, to look whether it is being compiled."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a checkpoint's moments; what was collected belongs to the ones before."""
        self._collected = []
        super().load_state_dict(state_dict)

    def _is_lean(self, parameters: list[nn.Parameter]) -> bool:
        """Whether every parameter has a gradient and moments, on the CPU, and the moments have been collected."""
        return bool(self._collected) and all(
            parameter.grad is not None and parameter.device.type == "cpu" and len(self.state[parameter])
            for parameter in parameters
        )

    def _collect(self, parameters: list[nn.Parameter]) -> tuple[list[Tensor], ...]:
        states = [self.state[parameter] for parameter in parameters]
        names = ("exp_avg", "exp_avg_sq", "step")
        return (parameters, *([state.get(name) for state in states] for name in names))

    def _accelerator_graph_capture_health_check(self) -> None:
        if any(parameter.device.type != "cpu" for parameter in self.param_groups[0]["params"]):
            super()._accelerator_graph_capture_health_check()


def adam(parameters: Iterable[nn.Parameter], lr: float) -> Adam:
    """The Adam of every agent."""
    return FusedAdam(parameters, lr)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Within, ``modules`` pass gradients to their inputs, but compute none for their weights."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def num_ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def average_over_ranks(value: Tensor) -> Tensor:
    """Mean of a tensor over all ranks; the tensor itself where there is one."""
    if num_ranks() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / num_ranks()


@torch.no_grad()
def average_gradients(optimizer: Optimizer) -> None:
    """Replace the gradients of an optimizer's parameters by their means over all ranks, in one message."""
    if num_ranks() == 1:
        return
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    mean = average_over_ranks(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = mean.split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)])


def backward(module: LightningModule, loss: Tensor) -> None:
    """Backward pass in the precision of the forward pass, without DDP's own averaging.

    DDP's reducer expects one backward pass for each forward pass, over all parameters. An update has
    several, each over some; `average_gradients` does the averaging instead, with any number of them and
    less traffic.
    """
    if module._trainer is None or not _is_watched(module.trainer):
        # Nothing to scale in the precisions that `check_precision` lets pass; Lightning's way there is a
        # tenth of a small update.
        kind = loss.device.type
        enabled = torch.is_autocast_enabled(kind)
        torch.set_autocast_enabled(kind, False)
        try:
            loss.backward()
        finally:
            torch.set_autocast_enabled(kind, enabled)
        return
    with torch.autocast(loss.device.type, enabled=False):
        if isinstance(module.trainer.strategy, ParallelStrategy):
            with module.trainer.strategy.block_backward_sync():
                module.manual_backward(loss)
        else:
            module.manual_backward(loss)


def _is_watched(trainer: Trainer) -> bool:
    """Whether a strategy or a callback has a part in the backward pass."""
    hooks = ("on_before_backward", "on_after_backward")
    return isinstance(trainer.strategy, ParallelStrategy) or any(
        getattr(type(callback), hook) is not getattr(Callback, hook)
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        for hook in hooks
    )
