"""The gradient of `correlate` in its weights: g_k[m,n,i,j] = Σ conj(g[i,j]) x[i+m,j+n]."""

from __future__ import annotations

import math

import numpy as np

from cuvarconv._blocks import Where
from cuvarconv._cpu._sums import Part, parts, sum_parts
from cuvarconv._cpu._tiles import WORKSPACE, gather, store, tap_chunks, windows
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_BLOCK = 1 << 16  # outputs
_TILE = 1 << 19  # pixels under their windows
_SUMS = 1 << 20  # sums that a worker keeps, over all taps
_PARTIAL = 1 << 22  # partial sums kept by all workers, over all taps


def correlate_weights_gradient(
    grad: np.ndarray,
    input: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Multiply tap after tap over cache-sized blocks, and sum what shares a kernel.

    `grad` is (batch…, H_out, W_out), `input` (batch…, H, W), `output` (kh, kw, batch…, H_out, W_out)
    with axes of length 1 where kernels were shared; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    taps, kept = output.shape[:2], output.shape[2:]
    shared = math.prod(grad.shape) // max(1, math.prod(kept))
    sums_in_place = output.dtype == dtype and shared <= _BLOCK
    most = _BLOCK if sums_in_place else min(_BLOCK, _SUMS // math.prod(taps))
    region = max(1, min(most, _BLOCK // max(1, min(shared, _BLOCK >> 10))))
    cut = parts(grad.shape, kept, region, _BLOCK, max(1, _PARTIAL // (math.prod(taps) * region)))

    def add(part: Part) -> np.ndarray:
        place = output[(slice(None), slice(None), *part.region)]
        in_place = sums_in_place and len(part.blocks) == 1
        total = place if in_place else np.zeros(place.shape, dtype)
        for where in part.blocks:
            *batch, down, across = where
            factor = grad[where].astype(dtype, copy=False).conj()
            _add_products(total, input[tuple(batch)], factor, window.part(down, across), assign=in_place)
        return total

    def finish(where: Where, total: np.ndarray) -> None:
        place = output[(slice(None), slice(None), *where)]
        if not np.may_share_memory(place, total):
            store(place, total)

    nbytes = (2 * _TILE + 4 * _BLOCK + _SUMS) * dtype.itemsize
    sum_parts(cut, add, finish, most_workers=max(1, WORKSPACE // nbytes))


def _add_products(
    total: np.ndarray, planes: np.ndarray, factor: np.ndarray, window: Window, *, assign: bool
) -> None:
    """Add conj(g)·x, or assign it, for every tap, summed over the axes where `total` has length 1."""
    shared = tuple(
        axis for axis, length in enumerate(total.shape[2:]) if length == 1 and factor.shape[axis] != 1
    )
    for row_taps, column_taps in tap_chunks(window, planes[..., 0, 0].size, _TILE):
        chunk = window.taps(row_taps, column_taps)
        tables = chunk.rows.table(), chunk.columns.table()
        pixels = windows(gather(planes, *tables, window.cval, factor.dtype), *tables, chunk)
        for row_pixels, row in zip(pixels, total[row_taps, column_taps], strict=True):
            for shifted, sums in zip(row_pixels, row, strict=True):
                if assign and not shared:
                    np.multiply(shifted, factor, out=sums)
                    continue
                products = np.multiply(shifted, factor)
                if shared:
                    products = np.add.reduce(products, axis=shared, keepdims=True)
                np.copyto(sums, products) if assign else np.add(sums, products, out=sums)
