"""The operators that are linear in each operand, and their gradients, for windows of any start.

Each fills an array of a backend: ``fill(backend, arrays, result, window, groups, dtype)``.  A gradient's
arrays are g and the operands but the one it is the gradient in, in order; it is the sum of products
of g with the conjugates of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from cuvarconv._backend import receive
from cuvarconv._dtypes import computing_dtype
from cuvarconv._shapes import align, align_full, align_modulation
from cuvarconv._window import Window

Shapes = tuple[tuple[int, ...], ...]
Fill = Callable[[ModuleType, Any, Any, Window, int, np.dtype], None]


@dataclass(frozen=True)
class Multilinear:
    """y = F(a, b, …), linear in each operand, with the gradient in each; nothing is conjugated.

    The gradients are linear too.  What comes from above, u, takes the place of operand q in the
    gradients of gradient q: F(…, u, …) in g, and gradient r of (g, …, u, …) in operand r.
    """

    name: str
    operands: tuple[str, ...]
    forward: Fill
    gradients: tuple[Fill, ...]
    leading: Callable[[Shapes], tuple[int, ...]]  # operands' shapes -> the result's but for the image axes


def run(fill: Fill, result: Any, operands: dict[str, Any], window: Window, groups: int) -> None:
    """Fill `result`, an array of the operands' library, on its device and stream."""
    with receive(result, **operands) as call:
        target = call.target(call.output.shape, call.output.dtype)
        if any(array.size == 0 for array in call.operands):
            target[...] = 0  # empty sums
        else:
            dtype = computing_dtype(tuple(array.dtype for array in call.operands), target.dtype)
            fill(call.home.backend, call.operands, target, window, groups, dtype)
        call.deliver(target)


# ---- one kernel per pixel: y[…,i,j] = Σ k[m,n,…,i,j] x[…, window]


def _per_pixel(kernels: Any, result: Any) -> Any:
    return align("kernels", kernels, result.shape, tuple(range(result.ndim)))


def _pixelwise(backend: Any, arrays: Any, result: Any, window: Window, _: int, dtype: np.dtype) -> None:
    images, kernels = arrays
    backend.correlate(images, _per_pixel(kernels, result), result, window, dtype=dtype, conjugate=False)


def _pixelwise_input(backend: Any, arrays: Any, result: Any, window: Window, _: int, dtype: np.dtype) -> None:
    grad, kernels = arrays
    backend.spread(grad, _per_pixel(kernels.conj(), grad), result, window, dtype=dtype)


def _pixelwise_kernels(
    backend: Any, arrays: Any, result: Any, window: Window, _: int, dtype: np.dtype
) -> None:
    grad, images = (array.conj() for array in arrays)  # the primitive conjugates the other one
    backend.correlate_weights_gradient(grad, images, _per_pixel(result, grad), window, dtype=dtype)


PIXELWISE = Multilinear(
    "pixelwise_conv2d",
    ("input", "kernels"),
    _pixelwise,
    (_pixelwise_input, _pixelwise_kernels),
    leading=lambda shapes: shapes[0][:-2],
)

# ---- equation (2)


def _by_channel(modulation: Any, images: Any, window: Window) -> Any:
    return align_modulation(modulation, (*images.shape[:-2], *window.output_shape))


def _modulated(backend: Any, arrays: Any, result: Any, window: Window, groups: int, dtype: np.dtype) -> None:
    images, weight, modulation = arrays
    factors = _by_channel(modulation, images, window)
    backend.modulated_correlate(images, weight, factors, result, window, groups=groups, dtype=dtype)


def _modulated_input(
    backend: Any, arrays: Any, result: Any, window: Window, groups: int, dtype: np.dtype
) -> None:
    grad, weight, modulation = arrays
    factors = _by_channel(modulation, result, window)
    backend.modulated_input_gradient(grad, weight, factors, result, window, groups=groups, dtype=dtype)


def _modulated_weight(
    backend: Any, arrays: Any, result: Any, window: Window, groups: int, dtype: np.dtype
) -> None:
    grad, images, modulation = arrays
    factors = _by_channel(modulation, images, window)
    backend.modulated_weights_gradient(grad, images, factors, result, window, groups=groups, dtype=dtype)


def _modulated_modulation(
    backend: Any, arrays: Any, result: Any, window: Window, groups: int, dtype: np.dtype
) -> None:
    grad, images, weight = arrays
    target = _by_channel(result, images, window)
    backend.modulated_modulation_gradient(grad, images, weight, target, window, groups=groups, dtype=dtype)


MODULATED = Multilinear(
    "modulated_conv2d",
    ("input", "weight", "modulation"),
    _modulated,
    (_modulated_input, _modulated_weight, _modulated_modulation),
    leading=lambda shapes: (*shapes[0][:-3], shapes[1][0]),
)

# ---- full kernels: y[…,o,i,j] = Σ k[m,n,…,i,j,c,o] x[…,c, window]


def _full(kernels: Any, images: Any, window: Window) -> Any:
    return align_full(kernels, images.shape[:-3], window.output_shape, kernels.shape[-2])


def _local(backend: Any, arrays: Any, result: Any, window: Window, _: int, dtype: np.dtype) -> None:
    images, kernels = arrays
    backend.local_correlate(images, _full(kernels, images, window), result, window, dtype=dtype)


def _local_input(backend: Any, arrays: Any, result: Any, window: Window, _: int, dtype: np.dtype) -> None:
    grad, kernels = arrays
    backend.local_input_gradient(grad, _full(kernels, grad, window), result, window, dtype=dtype)


def _local_kernels(backend: Any, arrays: Any, result: Any, window: Window, _: int, dtype: np.dtype) -> None:
    grad, images = arrays
    backend.local_kernels_gradient(grad, images, _full(result, images, window), window, dtype=dtype)


LOCAL = Multilinear(
    "local_conv2d",
    ("input", "kernels"),
    _local,
    (_local_input, _local_kernels),
    leading=lambda shapes: (*shapes[0][:-3], shapes[1][-1]),
)
