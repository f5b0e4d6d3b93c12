"""The affinity of features as a PyTorch operator; differentiable once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cuvarconv._window import padded_length
from cuvarconv.torch._operators import compute, window

_SCHEMA = "SymInt[] size, float sigma, SymInt[] padding, SymInt[] stride, SymInt[] dilation, str mode"


class _Likeness:
    """Fill arrays of a backend with the affinity, or with its gradient."""

    def __init__(self, size: Sequence[int], sigma: float) -> None:
        self._keywords = {"centre": (size[0] // 2, size[1] // 2), "sharpness": 1 / sigma}

    def forward(self, backend: Any, arrays: Any, result: Any, window: Any, groups: int, dtype: Any) -> None:
        (guide,) = arrays
        backend.affinity(guide, result[..., 0, :, :], window, dtype=dtype, **self._keywords)

    def gradient(self, backend: Any, arrays: Any, result: Any, window: Any, groups: int, dtype: Any) -> None:
        grad, guide = arrays
        backend.affinity_gradient(grad[..., 0, :, :], guide, result, window, dtype=dtype, **self._keywords)


@torch.library.custom_op(
    "cuvarconv::affinity", mutates_args=(), schema=f"(Tensor guide, {_SCHEMA}) -> Tensor"
)
def affinity(guide: Tensor, size: Sequence[int], sigma: float, *geometry: Any) -> Tensor:
    """Return exp(−½ |g_tap − g_centre|² / σ²), shape (kh, kw, …, 1, H_out, W_out)."""
    result = _fake(guide, size, sigma, *geometry)
    where = window(size, guide.shape[-2:], *geometry)
    compute(_Likeness(size, sigma).forward, result, {"guide": guide}, where)
    return result


@affinity.register_fake
def _fake(
    guide: Tensor,
    size: Sequence[int],
    sigma: float,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    mode: str,
) -> Tensor:
    pairs = (padding[0], padding[1]), (padding[2], padding[3])
    axes = zip(guide.shape[-2:], size, pairs, stride, dilation, strict=True)
    lengths = [padded_length(*axis) for axis in axes]
    return guide.new_empty((size[0], size[1], *guide.shape[:-3], 1, *lengths))


@torch.library.custom_op(
    "cuvarconv::affinity_gradient",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor guide, {_SCHEMA}) -> Tensor",
)
def _gradient(grad: Tensor, guide: Tensor, size: Sequence[int], sigma: float, *geometry: Any) -> Tensor:
    result = torch.empty_like(guide, memory_format=torch.contiguous_format)
    where = window(size, guide.shape[-2:], *geometry)
    compute(_Likeness(size, sigma).gradient, result, {"grad": grad, "guide": guide}, where)
    return result


@_gradient.register_fake
def _gradient_fake(grad: Tensor, guide: Tensor, size: Sequence[int], *_: Any) -> Tensor:
    return torch.empty_like(guide, memory_format=torch.contiguous_format)


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.arguments = inputs[1:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (guide,) = ctx.saved_tensors
    return (_gradient(grad, guide, *ctx.arguments), *(None,) * len(ctx.arguments))


affinity.register_autograd(_backward, setup_context=_set_up)
