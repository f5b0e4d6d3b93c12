"""One kernel per location, shared by the channels: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n]."""

from __future__ import annotations

import numpy as np

from cuvarconv._blocks import Where, matching, shares
from cuvarconv._cpu._sums import add_in_order
from cuvarconv._cpu._tiles import BLOCK, WORKSPACE, shifted_pixels, store
from cuvarconv._cpu._workers import for_each, get_workers
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_LEAST = 1 << 15, 1 << 21  # outputs and products that are given to another worker
_ARRAYS = 8  # as large as a block, while it is summed up
_AT_ONCE = 1 << 15  # products of a block that are formed at once; below, calls cost more than arithmetic
_ROW_AT_ONCE = 1 << 18  # products of a row of taps


def correlate(
    input: np.ndarray,
    weights: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    dtype: np.dtype,
    conjugate: bool,
) -> None:
    """Accumulate tap after tap over cache-sized blocks.

    `input` and `output` are (batch…, H, W), `weights` (kh, kw, batch…, H, W) with axes of length 1
    where they broadcast; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    outputs, products = _LEAST
    least = max(outputs, products // (window.rows.taps * window.columns.taps))
    most = max(outputs, min(BLOCK, WORKSPACE // (_ARRAYS * get_workers())) // dtype.itemsize)
    pieces = shares(output.shape, most, get_workers(), least=least)  # no sum depends on how they are cut

    def block(where: Where) -> None:
        *batch, down, across = where
        taps = weights[(slice(None), slice(None), *matching(weights, where))]
        planes = input[tuple(batch)]
        total = _block_sum(planes, taps, window.part(down, across), 2 * most, dtype, conjugate)
        store(output[where], total)

    workers = _most_workers(pieces, window, most, dtype) if len(pieces) > 1 else 1
    for_each(block, pieces, most_workers=workers)


def _most_workers(pieces: list[Where], window: Window, most: int, dtype: np.dtype) -> int:
    first = window.part(*pieces[0][-2:])
    entries = min(first.rows.entries, 2 * most) + min(first.columns.entries, 2 * most)
    return max(1, WORKSPACE // (_ARRAYS * most * dtype.itemsize + 5 * 8 * entries))


def _block_sum(
    planes: np.ndarray, weights: np.ndarray, window: Window, tile: int, dtype: np.dtype, conjugate: bool
) -> np.ndarray:
    """Sum each row of taps, then the rows; `tile` pixels are read at once."""
    total = np.zeros((*planes.shape[:-2], *window.output_shape), dtype)
    at_once = total.size * window.rows.taps * window.columns.taps <= _AT_ONCE
    row_sum = None
    for row_taps, column_taps, pixels in shifted_pixels(planes, window, window.cval, dtype, tile):
        taps = weights[row_taps, column_taps]
        if at_once:
            products = np.multiply(pixels, _converted(taps, dtype, conjugate), order="C")
            total += add_in_order(add_in_order(products, axis=1), axis=0)
            continue
        for row_pixels, row in zip(pixels, taps, strict=True):
            before = row_sum if column_taps.start else None
            row_sum = _row_sum(before, row_pixels, row, min(_ROW_AT_ONCE, tile // 2), conjugate)
            if column_taps.stop == window.columns.taps:
                total += row_sum
    return total


def _row_sum(
    before: np.ndarray | None, pixels: np.ndarray, taps: np.ndarray, at_once: int, conjugate: bool
) -> np.ndarray:
    """Go on after the taps `before`, one by one, so that no sum depends on where a row was cut."""
    dtype = pixels.dtype
    if before is None and pixels.size <= at_once:
        return add_in_order(np.multiply(pixels, _converted(taps, dtype, conjugate), order="C"), axis=0)
    first = 1 if before is None else 0
    result = np.multiply(pixels[0], _converted(taps[0], dtype, conjugate)) if before is None else before
    product = np.empty_like(result)
    for shifted, tap in zip(pixels[first:], taps[first:], strict=True):
        np.multiply(shifted, _converted(tap, dtype, conjugate), out=product)
        np.add(result, product, out=result)
    return result


def _converted(taps: np.ndarray, dtype: np.dtype, conjugate: bool) -> np.ndarray:
    taps = taps.astype(dtype, copy=False)
    return taps.conj() if conjugate else taps
