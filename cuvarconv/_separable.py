"""The Gaussian of one σ per axis: a pass along the rows, and one along the columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cuvarconv._axis import Axis
from cuvarconv._backend import Call
from cuvarconv._blocks import blocks
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_BETWEEN = 16 << 20  # bytes of the image between the passes, where it can be cut


def is_separable(sigmas: tuple[Any, Any], angle: Any, window: Window) -> bool:
    """Whether one σ per axis makes all kernels, each with as many taps as the window."""
    if angle is not None or any(sigma.size != 1 for sigma in sigmas):
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
    if output.dtype.kind == "c":
        real = np.empty((), dtype).real.dtype
        for part in ("real", "imag"):
            alone = replace(window, cval=getattr(complex(window.cval), part))
            source, target = getattr(input, part), getattr(output, part)
            correlate_separable(call, source, sigmas, target, alone, dtype=real)
        return
    dtype, correlate = accumulator_dtype(dtype), call.home.backend.correlate
    down, across = _kernels(call, sigmas, window, output.ndim, dtype)
    still = _still(window.rows.size), _still(window.columns.size)
    if window.rows.taps == 1:
        along = Window(still[0], window.columns, window.cval)
        correlate(input, across, output, along, dtype=dtype, conjugate=False)
        return
    if window.columns.taps == 1:
        along = Window(window.rows, still[1], window.cval)
        correlate(input, down, output, along, dtype=dtype, conjugate=False)
        return
    width = window.columns.size
    for where in blocks(output.shape[:-1], max(1, _BETWEEN // max(1, width * dtype.itemsize))):
        *batch, lines = where
        rows = window.rows.part(lines)
        target = output[where]
        between = call.fresh((*target.shape[:-2], rows.length, width), dtype)
        source = input[tuple(batch)]
        correlate(source, down, between, Window(rows, still[1], window.cval), dtype=dtype, conjugate=False)
        along = Window(_still(rows.length), window.columns, window.cval)
        correlate(between, across, target, along, dtype=dtype, conjugate=False)


def _kernels(
    call: Call, sigmas: tuple[Any, Any], window: Window, ndim: int, dtype: np.dtype
) -> tuple[Any, Any]:
    """Return the weights along both axes as the backend's arrays, (k, 1, …) and (1, k, …)."""
    down, across = (
        kernel(sigma, axis.taps).astype(dtype)
        for sigma, axis in zip(sigmas, (window.rows, window.columns), strict=True)
    )
    return (
        call.upload(down.reshape(-1, 1, *(1,) * ndim)),
        call.upload(across.reshape(1, -1, *(1,) * ndim)),
    )


def _still(size: int) -> Axis:
    """Return the window of one tap at each pixel."""
    return Axis(taps=1, stride=1, dilation=1, start=0, size=size, length=size, mode="valid")
