"""The Gaussian of one σ per axis: a pass along the rows, and one along the columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from cuvarconv._arguments import is_lazy
from cuvarconv._axis import Axis
from cuvarconv._backend import Call
from cuvarconv._blocks import Where, blocks
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_BETWEEN = 16 << 20  # bytes of the image between the passes, where it can be cut


def is_separable(sigmas: tuple[Any, Any], angle: Any, window: Window) -> bool:
    """Whether one σ per axis makes all kernels, each with as many taps as the window."""
    if angle is not None or any(sigma.size != 1 or is_lazy(sigma) for sigma in sigmas):
        return False
    return all(
        axis.taps == 1 or sigma.item() > 0
        for sigma, axis in zip(sigmas, (window.rows, window.columns), strict=True)
    )


def kernel(sigma: Any, taps: int) -> np.ndarray:
    """Return the weights along one axis, in double precision."""
    if taps == 1:
        return np.ones(1)
    steps = (np.arange(taps) - taps // 2) / sigma.item()
    weights = np.exp(-0.5 * steps**2)
    return weights / weights.sum()


def correlate_separable(
    call: Call,
    input: Any,
    sigmas: tuple[Any, Any],
    output: Any,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Blur along the axis of rows into an image of the computing dtype, from there along the other."""
    if dtype.kind == "c":
        for name, alone, real in _real_parts(window, dtype):
            source, target = getattr(input, name), getattr(output, name)
            correlate_separable(call, source, sigmas, target, alone, dtype=real)
        return
    dtype, correlate = accumulator_dtype(dtype), call.home.backend.correlate
    down, across = (_upload(call, each, output.ndim, dtype) for each in _kernels(sigmas, window))
    options = {"dtype": dtype, "conjugate": False}
    if window.rows == still_axis(window.rows.size, window.rows.mode):
        correlate(input, across, output, _along_columns(window, window.rows.size), **options)
        return
    if window.columns == still_axis(window.columns.size, window.columns.mode):
        correlate(input, down, output, _along_rows(window, window.columns.size), **options)
        return
    width = window.columns.size
    for where in blocks(output.shape[:-1], max(1, _BETWEEN // max(1, width * dtype.itemsize))):
        *batch, lines = where
        part = window.part(lines, slice(None))
        target = output[where]
        between = call.fresh((*target.shape[:-2], part.rows.length, width), dtype)
        correlate(input[tuple(batch)], down, between, _along_rows(part, width), **options)
        correlate(between, across, target, _along_columns(part, part.rows.length), **options)


def spread_separable(
    call: Call,
    grad: Any,
    sigmas: tuple[Any, Any],
    output: Any,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Spread along the axis of columns into an image of the computing dtype, from there along the other."""
    if dtype.kind == "c":
        for part, alone, real in _real_parts(window, dtype):
            if part == "real" or output.dtype.kind == "c":
                given, target = getattr(grad, part), getattr(output, part)
                spread_separable(call, given, sigmas, target, alone, dtype=real)
        return
    dtype, spread = accumulator_dtype(dtype), call.home.backend.spread
    down, across = (_upload(call, each, output.ndim, dtype) for each in _kernels(sigmas, window))
    height, width = window.rows.length, window.columns.size
    for batch in _planes(grad, (height, width), dtype):
        target = output[batch]
        between = call.fresh((*target.shape[:-2], height, width), dtype)
        spread(grad[batch], across, between, _along_columns(window, height), dtype=dtype)
        spread(between, down, target, _along_rows(window, width), dtype=dtype)


def separable_sigma_gradient(
    call: Call,
    grad: Any,
    input: Any,
    sigmas: tuple[Any, Any],
    window: Window,
    *,
    dtype: np.dtype,
) -> tuple[float, float]:
    """Return dL/dσ = Σ_m dL/dk_m · k_m (m² − E[m²]) / σ³ along rows and along columns."""
    if dtype.kind == "c":
        found = [
            separable_sigma_gradient(
                call, getattr(grad, part), getattr(input, part), sigmas, alone, dtype=real
            )
            for part, alone, real in _real_parts(window, dtype)
        ]
        return found[0][0] + found[1][0], found[0][1] + found[1][1]
    dtype, backend = accumulator_dtype(dtype), call.home.backend
    kernels = _kernels(sigmas, window)
    weights = [_upload(call, each, grad.ndim, dtype) for each in kernels]
    total = [0.0, 0.0]
    for axis in (0, 1):
        if kernels[axis].size == 1:
            continue
        slope = call.upload(_slope(kernels[axis].ravel(), sigmas[axis].item()))
        sums = call.fresh(weights[axis].shape, np.dtype(np.float64))
        for batch, lines, between_shape, first, last in _strips(grad, window, axis, dtype):
            image = input[batch]
            between = call.fresh((*image.shape[:-2], *between_shape), dtype)
            backend.correlate(image, weights[1 - axis], between, first, dtype=dtype, conjugate=False)
            given = grad[batch][..., lines] if axis == 0 else grad[batch][..., lines, :]
            backend.correlate_weights_gradient(given, between, sums, last, dtype=dtype)
            total[axis] += float((sums.ravel() * slope).sum())
    return total[0], total[1]


def _strips(
    grad: Any, window: Window, axis: int, dtype: np.dtype
) -> Iterator[tuple[Where, slice, tuple[int, int], Window, Window]]:
    """Cut the outputs of a pass along the other axis, and then of one along `axis`.

    Yields the part of the batch, the outputs along the other axis, the shape of the image between, and the
    windows of both passes.
    """
    every, (rows, columns) = slice(None), window.image_shape
    longest = max(1, _BETWEEN // (window.image_shape[axis] * dtype.itemsize))
    for batch in _planes(grad, window.image_shape, dtype):
        for at in range(0, window.output_shape[1 - axis], longest):
            lines = slice(at, min(at + longest, window.output_shape[1 - axis]))
            count = lines.stop - at
            if axis == 0:
                part = window.part(every, lines)
                passes = _along_columns(part, rows), _along_rows(part, count)
                yield batch, lines, (rows, count), *passes
            else:
                part = window.part(lines, every)
                passes = _along_rows(part, columns), _along_columns(part, count)
                yield batch, lines, (count, columns), *passes


def _slope(weights: np.ndarray, sigma: float) -> np.ndarray:
    """Return the derivative of normalised weights by σ."""
    squares = (np.arange(len(weights)) - len(weights) // 2) ** 2.0
    return weights * (squares - (weights * squares).sum()) / sigma**3


def _planes(grad: Any, image: tuple[int, int], dtype: np.dtype) -> list[Where]:
    """Cut the batch so that what lies between two passes is small, if a plane is."""
    return blocks(grad.shape[:-2], max(1, _BETWEEN // max(1, image[0] * image[1] * dtype.itemsize)))


def _real_parts(window: Window, dtype: np.dtype) -> Iterator[tuple[str, Window, np.dtype]]:
    """Yield the names of the real and the imaginary part, the window and the dtype of each."""
    for part in ("real", "imag"):
        yield part, replace(window, cval=getattr(complex(window.cval), part)), np.empty((), dtype).real.dtype


def _kernels(sigmas: tuple[Any, Any], window: Window) -> list[np.ndarray]:
    """Return the weights along both axes, (k, 1) and (1, k)."""
    down = kernel(sigmas[0], window.rows.taps)
    same = sigmas[1] is sigmas[0] and window.columns.taps == len(down)
    across = down if same else kernel(sigmas[1], window.columns.taps)
    return [down[:, None], across[None, :]]


def _upload(call: Call, weights: np.ndarray, ndim: int, dtype: np.dtype) -> Any:
    """Return kernels as the backend's array, shared by all axes of the image."""
    return call.upload(weights.astype(dtype).reshape(*weights.shape, *(1,) * ndim))


def _along_rows(window: Window, width: int) -> Window:
    return Window(window.rows, still_axis(width), window.cval)


def _along_columns(window: Window, height: int) -> Window:
    return Window(still_axis(height), window.columns, window.cval)


def still_axis(size: int, mode: str = "valid") -> Axis:
    """Return the window of one tap at each pixel."""
    return Axis(taps=1, stride=1, dilation=1, start=0, size=size, length=size, mode=mode)
