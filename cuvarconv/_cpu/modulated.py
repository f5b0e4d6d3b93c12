"""Equation (2): y[o,i,j] = Σ_{c,m,n} w[o,c,m,n] d[m,n,i,j] x[c,i+m,j+n]."""

from __future__ import annotations

import math

import numpy as np

from cuvarconv._blocks import Where, blocks, matching
from cuvarconv._cpu._tiles import WORKSPACE, gather, store, tap_chunks, windows
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
    channels, outputs = input.shape[-3], output.shape[-3]
    matrices = _row_matrices(weights, groups, dtype)
    per_pixel = (window.columns.taps + 2) * channels + 2 * outputs
    pixels = min(max(_BLOCK // max(1, per_pixel), 1), _MOST)

    def block(where: Where) -> None:
        *batch, down, across = where
        everywhere = (*batch, slice(None), down, across)
        factors = modulation[(slice(None), slice(None), *matching(modulation, everywhere))]
        part = window.part(down, across)
        total = _block_sum(input[tuple(batch)], matrices, factors, part, dtype)
        store(np.moveaxis(output[everywhere], -3, 0), total)

    pieces = blocks((*output.shape[:-3], *output.shape[-2:]), pixels)
    nbytes = 2 * max(_BLOCK, pixels * per_pixel) * dtype.itemsize
    with serial_blas:
        for_each(block, pieces, most_workers=max(1, (WORKSPACE - _PACKED) // nbytes))


def _row_matrices(weights: np.ndarray, groups: int, dtype: np.dtype) -> np.ndarray:
    """Order the weights by row of taps: (kh, groups, C_out/groups, kw, C_in/groups)."""
    outputs, channels, height, width = weights.shape
    by_group = weights.reshape(groups, outputs // groups, channels, height, width)
    by_row = by_group.transpose(3, 0, 1, 4, 2)
    small = by_row.size * dtype.itemsize <= _PACKED
    return np.ascontiguousarray(by_row, dtype=dtype) if small else by_row


def _by_group(modulation: np.ndarray, groups: int) -> np.ndarray:
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
    _, groups, outputs, _, channels = matrices.shape
    entries = modulation.shape[-3]
    parts = 1 if entries == 1 else math.lcm(groups, entries) // groups
    images = (*planes.shape[:-3], *window.output_shape)
    total = np.zeros((groups, outputs, math.prod(images)), dtype)
    product = np.empty_like(total)
    columns_at_once = max(1, 2 * _BLOCK // (groups * channels * total.shape[2]))
    for row_taps, column_taps in tap_chunks(
        window, planes[..., 0, 0].size, _BLOCK, most_columns=columns_at_once
    ):
        chunk = window.taps(row_taps, column_taps)
        tables = chunk.rows.table(), chunk.columns.table()
        tile = gather(planes, *tables, window.cval, dtype)
        pixels = np.moveaxis(windows(tile, *tables, chunk), -3, 2)
        pixels = pixels.reshape(*pixels.shape[:2], groups, parts, channels // parts, *images)
        columns = np.empty((groups, chunk.columns.taps, *pixels.shape[3:]), dtype)
        for m, row_pixels in enumerate(pixels, start=row_taps.start):
            for n, shifted in enumerate(row_pixels):
                factor = _by_group(modulation[m, column_taps.start + n], groups)
                np.multiply(shifted, factor.astype(dtype, copy=False), out=columns[:, n])
            _add_product(total, matrices[m, :, :, column_taps], columns, product)
    return total.reshape(groups * outputs, *images)


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
