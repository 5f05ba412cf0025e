"""A whole perceptron, or an ensemble of them, as one node of autograd: for updates that are too small for its overhead.

At batch 256 and width 256 a product of matrices in bf16 takes 70 microseconds on a core with AMX, and everything
around it several times as long: autocast casts each weight and each activation on its own, autograd keeps a node for
every operation. Here weights are cast once, activations stay in the low precision, and nothing but what the backward
pass needs is computed. It is the same function as the layers one after another, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

LAYER_NORM_EPS = 1e-5


class _Hidden(NamedTuple):
    """What the backward pass needs of a hidden layer: its cast weight, input, output, and what LayerNorm saw."""

    weight: Tensor
    inputs: Tensor
    outputs: Tensor
    normed: list[tuple[Tensor, Tensor, Tensor]]


def perceptron(x: Tensor, parameters: Sequence[Tensor], layer_norm: bool, dtype: torch.dtype) -> Tensor:
    """Hidden layers with ReLU in ``dtype``, then a linear layer in the weights' own precision.

    Args:
        x: (B, in), or (E, B, in) with an input for each member of an ensemble.
        parameters: weight and bias of each hidden layer, after them scale and shift of its LayerNorm if it has one;
            weight and bias of the last layer. Weights are (out, in), or (E, out, in) for an ensemble, biases (out,) or
            (E, out).
        layer_norm: normalise before every ReLU.
        dtype: of the hidden layers; autocast has to be off.

    Returns (B, out), or (E, B, out). It can be differentiated once: a gradient with ``create_graph`` is a RuntimeError.
    """
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in parameters)):
        result: Tensor = _Perceptron.apply(x, layer_norm, dtype, *parameters)
        return result
    return _forward(x, parameters, layer_norm, dtype)[0]


def _forward(
    x: Tensor, parameters: Sequence[Tensor], layer_norm: bool, dtype: torch.dtype
) -> tuple[Tensor, list[_Hidden], Tensor]:
    *hidden, last_weight, last_bias = parameters
    size = 4 if layer_norm else 2
    h = x.to(dtype)
    if last_weight.dim() == 3 and h.dim() == 2:
        h = h.expand(len(last_weight), -1, -1)
    saved = []
    for start in range(0, len(hidden), size):
        weight, bias = hidden[start].to(dtype), hidden[start + 1].to(dtype)
        y = _affine(h, weight, bias)
        normed: list[tuple[Tensor, Tensor, Tensor]] = []
        if layer_norm:
            y, normed = _norm(y, *hidden[start + 2 : start + 4])
        else:
            y.relu_()
        saved.append(_Hidden(weight, h, y, normed))
        h = y
    features = h.to(last_weight.dtype)
    return _affine(features, last_weight, last_bias), saved, features


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.dim() == 2:
        return torch.addmm(bias, x, weight.t())
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


def _norm(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """ReLU of the LayerNorm of ``x``, each member with its own scale and shift; and what went in, mean, 1 /
    deviation."""
    y, saved = torch.empty_like(x), []
    for member, g, b, out in _members(x, scale, shift, y):
        normal, mean, rstd = torch.native_layer_norm(member, member.shape[-1:], g, b, LAYER_NORM_EPS)
        torch.clamp_min(normal, 0, out=out)
        saved.append((member, mean, rstd))
    return y, saved


def _members(x: Tensor, scale: Tensor, *others: Tensor) -> Any:
    return zip(x, scale, *others, strict=True) if scale.dim() == 2 else ((x, scale, *others),)


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer_norm: bool, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        y, hidden, features = _forward(x, parameters, layer_norm, dtype)
        # Saved with the rest, so that autograd frees them after the backward pass, or keeps them for a second one.
        layers = (
            part for h in hidden for part in (*h[:3], *(part for member in h.normed for part in member))
        )
        ctx.save_for_backward(x, *parameters, features, *layers)
        ctx.layer_norm = layer_norm
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if (
            torch.is_grad_enabled()
        ):  # once_differentiable would leave the second derivative out of a sum without a word
            raise RuntimeError(
                "this perceptron is computed as one function, whose gradient has no gradient: set its attribute "
                "twice_differentiable to True"
            )
        wanted = ctx.needs_input_grad[3:]
        last, size = len(wanted) - 2, 4 if ctx.layer_norm else 2
        x, *saved = ctx.saved_tensors
        parameters, features = saved[: len(wanted)], saved[len(wanted)]
        hidden = _hidden(saved[len(wanted) + 1 :], last // size)
        grads: list[Tensor | None] = [None] * len(wanted)
        grads[last:] = _affine_grads(grad, features, grad.dtype, wanted[last:])
        g = torch.matmul(grad, parameters[last])
        if hidden:
            g = g.to(hidden[-1].outputs.dtype)
        for index in range(len(hidden) - 1, -1, -1):
            layer, at = hidden[index], index * size
            g = torch.ops.aten.threshold_backward(g, layer.outputs, 0)
            if ctx.layer_norm:
                g, grads[at + 2], grads[at + 3] = _norm_backward(g, layer.normed, parameters[at + 2 : at + 4])
            grads[at : at + 2] = _affine_grads(g, layer.inputs, parameters[at].dtype, wanted[at : at + 2])
            if index > 0 or ctx.needs_input_grad[0]:
                g = torch.matmul(g, layer.weight)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (g.sum(0) if g.dim() > x.dim() else g).to(x.dtype)
        return grad_x, None, None, *(g if want else None for g, want in zip(grads, wanted, strict=True))


def _hidden(saved: Sequence[Tensor], num_layers: int) -> list[_Hidden]:
    """The hidden layers, of their tensors one after another."""
    size = len(saved) // max(num_layers, 1)
    layers = []
    for at in range(0, len(saved), size or 1):
        weight, inputs, outputs, *normed = saved[at : at + size]
        members = zip(normed[::3], normed[1::3], normed[2::3], strict=True)
        layers.append(_Hidden(weight, inputs, outputs, list(members)))
    return layers


def _affine_grads(
    grad: Tensor, inputs: Tensor, dtype: torch.dtype, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight (..., out, in) and bias (..., out), for the gradient (..., B, out) of the output."""
    weight = torch.matmul(grad.mT, inputs).to(dtype) if wanted[0] else None
    return weight, grad.sum(-2, dtype=dtype) if wanted[1] else None


def _norm_backward(
    grad: Tensor, saved: list[tuple[Tensor, Tensor, Tensor]], parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    scale, shift = parameters
    parts = []
    for (member, mean, rstd), g, s, b in zip(saved, *_as_members(scale, grad, scale, shift), strict=True):
        parts.append(
            torch.ops.aten.native_layer_norm_backward(
                g, member, member.shape[-1:], mean, rstd, s, b, [True, True, True]
            )
        )
    if scale.dim() == 1:
        return parts[0]
    x, s, b = (torch.stack(part) for part in zip(*parts, strict=True))
    return x, s, b


def _as_members(scale: Tensor, *tensors: Tensor) -> list[Any]:
    return [tensor if scale.dim() == 2 else (tensor,) for tensor in tensors]
