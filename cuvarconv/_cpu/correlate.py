"""One kernel per location, shared by the channels: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n]."""

from __future__ import annotations

import math

import numpy as np

from cuvarconv._blocks import Where, matching, shares
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._sums import add_in_order
from cuvarconv._cpu._tiles import BLOCK, WORKSPACE, shifted_pixels, store
from cuvarconv._cpu._workers import for_each, get_workers
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_LEAST = 1 << 15, 1 << 21  # outputs and products that are given to another worker
_ARRAYS = 8  # as large as a block, while it is summed up
_AT_ONCE = 1 << 15  # products of a call that are formed at once; below, calls cost more than arithmetic
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
    """Accumulate tap after tap over large blocks.

    `input` and `output` are (batch…, H, W), `weights` (kh, kw, batch…, H, W) with axes of length 1
    where they broadcast; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    outputs, products = _LEAST
    taps = window.rows.taps * window.columns.taps
    least = max(outputs, products // taps)
    most = max(outputs, min(BLOCK, WORKSPACE // (_ARRAYS * get_workers())) // dtype.itemsize)
    block_sum = _small_sum if output.size * taps <= _AT_ONCE else _large_sum
    pieces = shares(output.shape, most, get_workers(), least=least)  # no sum depends on how they are cut

    def block(where: Where) -> None:
        *batch, down, across = where
        kernels = weights[(slice(None), slice(None), *matching(weights, where))]
        planes = input[tuple(batch)]
        total = block_sum(planes, kernels, window.part(down, across), 2 * most, dtype, conjugate)
        store(output[where], total)

    workers = _most_workers(pieces, window, most, dtype) if len(pieces) > 1 else 1
    for_each(block, pieces, most_workers=workers)


def _most_workers(pieces: list[Where], window: Window, most: int, dtype: np.dtype) -> int:
    first = window.part(*pieces[0][-2:])
    entries = min(first.rows.entries, 2 * most) + min(first.columns.entries, 2 * most)
    return max(1, WORKSPACE // (_ARRAYS * most * dtype.itemsize + 5 * 8 * entries))


def _small_sum(
    planes: np.ndarray, weights: np.ndarray, window: Window, tile: int, dtype: np.dtype, conjugate: bool
) -> np.ndarray:
    """Form all products at once; `tile` pixels are read at once."""
    total = np.zeros((*planes.shape[:-2], *window.output_shape), dtype)
    for row_taps, column_taps, pixels in shifted_pixels(planes, window, window.cval, dtype, tile):
        taps = _converted(weights[row_taps, column_taps], dtype, conjugate)
        products = np.multiply(pixels, taps, order="C")
        total += add_in_order(add_in_order(products, axis=1), axis=0)
    return total


def _large_sum(
    planes: np.ndarray, weights: np.ndarray, window: Window, tile: int, dtype: np.dtype, conjugate: bool
) -> np.ndarray:
    """Sum each row of taps, then the rows, in the same order; all arrays lie in one."""
    shape = (*planes.shape[:-2], *window.output_shape)
    outputs, columns = math.prod(shape), window.columns.taps
    reached = planes[..., 0, 0].size * window.rows.entries * window.columns.entries
    at_once = min(_ROW_AT_ONCE, tile // 2)
    beyond = outputs * columns if outputs * columns <= at_once else outputs
    scratch = Scratch((min(tile, reached) + 2 * outputs + beyond) * dtype.itemsize)
    total, row_sum = scratch.empty(shape, dtype), scratch.empty(shape, dtype)
    total.fill(0)
    kept = scratch.taken
    for row_taps, column_taps, pixels in shifted_pixels(
        planes, window, window.cval, dtype, tile, empty=scratch.empty
    ):
        beside = scratch.taken
        for row_pixels, row in zip(pixels, weights[row_taps, column_taps], strict=True):
            if column_taps.start == 0 and row_pixels.size <= at_once:
                products = scratch.empty(row_pixels.shape, dtype)
                np.multiply(row_pixels, _converted(row, dtype, conjugate), out=products)
                row_sum[...] = add_in_order(products, axis=0)
            else:
                product = scratch.empty(shape, dtype)
                _add_taps(row_sum, row_pixels, row, product, conjugate, first=column_taps.start == 0)
            if column_taps.stop == columns:
                np.add(total, row_sum, out=total)
            scratch.clear(beside)
        scratch.clear(kept)
    return total


def _add_taps(
    total: np.ndarray,
    pixels: np.ndarray,
    taps: np.ndarray,
    product: np.ndarray,
    conjugate: bool,
    *,
    first: bool,
) -> None:
    """Go on after the taps before, one by one, so that no sum depends on where a row was cut."""
    for shifted, tap in zip(pixels, taps, strict=True):
        np.multiply(shifted, _converted(tap, total.dtype, conjugate), out=total if first else product)
        if not first:
            np.add(total, product, out=total)
        first = False


def _converted(taps: np.ndarray, dtype: np.dtype, conjugate: bool) -> np.ndarray:
    taps = taps.astype(dtype, copy=False)
    return taps.conj() if conjugate else taps
