"""Equation (2): y[o,i,j] = Σ_{c,m,n} w[o,c,m,n] d[m,n,i,j] x[c,i+m,j+n]."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cuvarconv._blocks import Where, blocks, matching
from cuvarconv._cpu._tiles import WORKSPACE, shifted_pixels, store
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_BLOCK = 1 << 20  # elements of modulated columns, pixels and sums in one block, or of one matrix
_MOST = 1 << 17  # outputs per channel in one block
_PACKED = 8 << 20  # bytes; larger weights are put in order piece by piece


def modulated_correlate(
    input: np.ndarray,
    weights: np.ndarray,
    modulation: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    groups: int,
    dtype: np.dtype,
) -> None:
    """One matrix product per row of taps and block of pixels, over modulated columns.

    `input` is (batch…, C_in, H, W), `output` (batch…, C_out, H, W), `weights` (C_out, C_in/groups,
    kh, kw), `modulation` (kh, kw, batch…, G, H, W), with axes of length 1 where it broadcasts and a
    divisor G of C_in; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    matrices = row_matrices(weights, groups, dtype)

    def block(where: Where) -> None:
        *batch, down, across = where
        everywhere = (*batch, slice(None), down, across)
        factors = modulation[(slice(None), slice(None), *matching(modulation, everywhere))]
        part = window.part(down, across)
        total = _block_sum(input[tuple(batch)], matrices, factors, part, dtype)
        store(np.moveaxis(output[everywhere], -3, 0), total)

    pixels, workers = plan(window, input.shape[-3], output.shape[-3], dtype)
    with serial_blas:
        for_each(block, blocks((*output.shape[:-3], *output.shape[-2:]), pixels), most_workers=workers)


def plan(window: Window, channels: int, outputs: int, dtype: np.dtype) -> tuple[int, int]:
    """Return how many pixels go together, to stay in the cache, and how many blocks may be in progress."""
    per_pixel = (window.columns.taps + 2) * channels + 2 * outputs
    pixels = min(max(_BLOCK // per_pixel, 1), _MOST)
    nbytes = 2 * max(_BLOCK, pixels * per_pixel) * dtype.itemsize
    return pixels, max(1, (WORKSPACE - _PACKED) // nbytes)


def columns_at_once(elements: int) -> int:
    """Return how many taps of a row go together if the columns of one have as many `elements`."""
    return max(1, 2 * _BLOCK // elements)


def row_matrices(weights: np.ndarray, groups: int, dtype: np.dtype) -> np.ndarray:
    """Order the weights by row of taps: (kh, groups, C_out/groups, kw, C_in/groups)."""
    outputs, channels, height, width = weights.shape
    by_group = weights.reshape(groups, outputs // groups, channels, height, width)
    by_row = by_group.transpose(3, 0, 1, 4, 2)
    small = by_row.size * dtype.itemsize <= _PACKED
    return np.ascontiguousarray(by_row, dtype=dtype) if small else by_row


def by_group(modulation: np.ndarray, groups: int) -> np.ndarray:
    """View (batch…, G, H, W) as (group, part of it, 1, batch…, H, W), to meet the pixels."""
    first = np.moveaxis(modulation, -3, 0)
    entries = len(first)
    if entries == 1:
        return first[:, None, None]
    parts = math.lcm(groups, entries)
    if parts != entries:  # the modulation's groups straddle those of the weights
        first = first[np.arange(parts) * entries // parts]
    return first.reshape(groups, parts // groups, 1, *first.shape[1:])


def _block_sum(
    planes: np.ndarray,
    matrices: np.ndarray,
    modulation: np.ndarray,
    window: Window,
    dtype: np.dtype,
) -> np.ndarray:
    _, groups, outputs, *_ = matrices.shape
    images = (*planes.shape[:-3], *window.output_shape)
    total = np.zeros((groups, outputs, math.prod(images)), dtype)
    product = np.empty_like(total)
    for m, taps, columns in row_columns(planes, modulation, window, groups, dtype):
        _add_product(total, matrices[m, :, :, taps], columns, product)
    return total.reshape(groups * outputs, *images)


def row_columns(
    planes: np.ndarray, modulation: np.ndarray, window: Window, groups: int, dtype: np.dtype
) -> Iterator[tuple[int, slice, np.ndarray]]:
    """Yield (m, taps n, modulated columns) for rows of taps; columns are (groups, n, C_in/groups, pixels)."""
    channels, entries = planes.shape[-3] // groups, modulation.shape[-3]
    parts = 1 if entries == 1 else math.lcm(groups, entries) // groups
    images = (*planes.shape[:-3], *window.output_shape)
    pixels_each = math.prod(images)
    for row_taps, taps, shifted in row_pixels(planes, window, groups, dtype):
        kw = taps.stop - taps.start
        columns = np.empty((groups, kw, parts, channels // parts, *images), dtype)
        for m, row in enumerate(shifted, start=row_taps.start):
            for n, pixels in enumerate(row):
                factor = by_group(modulation[m, taps.start + n], groups).astype(dtype, copy=False)
                np.multiply(pixels.reshape(columns[:, n].shape), factor, out=columns[:, n])
            yield m, taps, columns.reshape(groups, kw, channels, pixels_each)


def row_pixels(
    planes: np.ndarray, window: Window, groups: int, dtype: np.dtype
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield (taps m, taps n, pixels under them), pixels as (m, n, groups, C_in/groups, batch…, H, W)."""
    channels = planes.shape[-3] // groups
    outputs = math.prod((*planes.shape[:-3], *window.output_shape))
    most = columns_at_once(groups * channels * outputs)
    for row_taps, column_taps, pixels in shifted_pixels(
        planes, window, window.cval, dtype, _BLOCK, most_columns=most
    ):
        pixels = np.moveaxis(pixels, -3, 2)
        yield row_taps, column_taps, pixels.reshape(*pixels.shape[:2], groups, channels, *pixels.shape[3:])


def _add_product(total: np.ndarray, matrix: np.ndarray, columns: np.ndarray, product: np.ndarray) -> None:
    """Add (outputs x K) · (K x pixels) per group, K being (kw, C_in/groups); `product` is scratch."""
    groups, outputs, *depth = matrix.shape
    flat = columns.reshape(groups, -1, total.shape[2])
    at_once = max(1, _BLOCK // (groups * math.prod(depth)))
    for first in range(0, outputs, at_once):
        some = slice(first, first + at_once)
        rows = matrix[:, some].astype(total.dtype, copy=False)
        np.matmul(rows.reshape(*rows.shape[:2], -1), flat, out=product[:, some])
    np.add(total, product, out=total)
