"""Modulated columns, d·x under every tap, a slab of pixels at a time, and matrix products with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cuvarconv._blocks import Where, blocks, matching, shares, tap_chunks
from cuvarconv._cpu._aligned import empty
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._tiles import WORKSPACE, gather, move_axis, tap_slices
from cuvarconv._cpu._workers import has_small_products
from cuvarconv._window import Window

_BLOCK = 5 << 18  # elements of pixels under a row of taps and of sums in one block
MATRIX = 1 << 20  # elements of one matrix; of larger ones, parts are put in order and multiplied
_PACKED = 8 << 20  # bytes; larger weights are put in order piece by piece
_MOST = 1 << 17  # outputs per channel in one block
_SLAB = 9 << 16  # elements of columns in one slab; fewer would cost more in calls than they gain in the cache
_PRODUCTS = _SLAB // 4  # elements of products that are not written where they belong
_TERMS = 400  # that one matrix product sums up, unless a single row of taps has more
_ALL_TERMS = 600  # or all taps, if they have no more than these
_BLOCKS = 4  # at least, unless they have fewer elements of columns than these
_LEAST = 1 << 18
_FEW = 3  # rows of a matrix that BLAS multiplies faster one by one, unless it has kernels for small products
_SMALL = 1_000_000  # multiplications that it does with them
_PIXELS = 64  # the least number, and multiples of it, that are multiplied together then


def plan(window: Window, channels: int, outputs: int, dtype: np.dtype) -> tuple[int, int]:
    """Return how many pixels go together, to stay in the cache, and how many blocks may be in progress."""
    per_pixel = _per_pixel(window, channels, outputs)
    pixels = min(max(_BLOCK // per_pixel, 1), _MOST)
    return pixels, _workers(pixels * per_pixel, dtype)


def _per_pixel(window: Window, channels: int, outputs: int) -> int:
    """Return the elements of pixels under a row of taps and of sums that one output pixel needs."""
    return (window.columns.taps + 1) * channels + outputs


def _workers(elements: int, dtype: np.dtype, weights: int = 0) -> int:
    """Return how many blocks of so many elements may be in progress, each with so many of the weights."""
    nbytes = (max(_BLOCK, elements) + _SLAB + _PRODUCTS + weights) * dtype.itemsize
    return max(1, (WORKSPACE - (0 if weights else _PACKED)) // nbytes)


def pieces(
    shape: tuple[int, ...], window: Window, channels: int, outputs: int, dtype: np.dtype
) -> tuple[list[Where], int]:
    """Cut pixels (batch…, H, W) into such blocks, and return also how many may be in progress."""
    pixels, _ = plan(window, channels, outputs, dtype)
    terms = channels * window.rows.taps * window.columns.taps
    cut = shares(shape, pixels, _BLOCKS, least=_LEAST // max(1, terms))
    largest = max((math.prod(part.stop - part.start for part in where) for where in cut), default=0)
    weights = min(MATRIX, outputs * terms) if outputs * terms * dtype.itemsize > _PACKED else 0
    return cut, _workers(largest * _per_pixel(window, channels, outputs), dtype, weights)


def columns_at_once(elements: int) -> int:
    """Return how many taps of a row go together if the columns of one have as many `elements`."""
    return max(1, 2 * _BLOCK // elements)


def tap_matrices(weights: np.ndarray, groups: int, dtype: np.dtype) -> np.ndarray:
    """Order the weights by tap: (groups, C_out/groups, kh, kw, C_in/groups)."""
    outputs, channels, height, width = weights.shape
    by_group = weights.reshape(groups, outputs // groups, channels, height, width)
    by_tap = by_group.transpose(0, 1, 3, 4, 2)
    small = by_tap.size * dtype.itemsize <= _PACKED
    return np.ascontiguousarray(by_tap, dtype=dtype) if small else by_tap


def by_group(modulation: np.ndarray, groups: int) -> np.ndarray:
    """View (kh, kw, batch…, G, H, W) as (group, kh, kw, part of it, 1, batch…, H, W), to meet the pixels."""
    first = move_axis(modulation, -3, 0)
    entries = len(first)
    if entries == 1:
        return first[:, :, :, None, None]
    parts = math.lcm(groups, entries)
    if parts != entries:  # the modulation's groups straddle those of the weights
        first = first[np.arange(parts) * entries // parts]
    split = first.reshape(groups, parts // groups, 1, *first.shape[1:])
    return move_axis(move_axis(split, 3, 1), 4, 2)


@dataclass(frozen=True)
class Slab:
    """Some pixels of a block under some taps: (groups, m, n, C_in/groups, batch…, H, W)."""

    taps: tuple[slice, slice]
    where: Where  # in the block, (batch…, rows, columns)
    pixels: np.ndarray
    scratch: Scratch  # for what is gone when the next slab comes

    @property
    def has_first_taps(self) -> bool:
        """Whether no slab of these pixels came before."""
        return self.taps[0].start == self.taps[1].start == 0

    def is_first_in(self, sums: np.ndarray) -> bool:
        """Whether no slab under these taps came before whose pixels belong to the same sums, (…, *images)."""
        lengths = sums.shape[sums.ndim - len(self.where) :]
        return all(part.start == 0 for part, length in zip(self.where, lengths, strict=True) if length == 1)


def slabs(planes: np.ndarray, window: Window, groups: int, dtype: np.dtype, outputs: int) -> Iterator[Slab]:
    """Yield all pixels of a block (batch…, C_in, H, W) under all taps, to make so many outputs per group."""
    images = (*planes.shape[:-3], *window.output_shape)
    channels = planes.shape[-3] // groups
    most = columns_at_once(groups * channels * math.prod(images))
    scratch = Scratch(0)
    for row_taps, column_taps in tap_chunks(
        window, planes[..., 0, 0].size, _BLOCK, most_columns=most, apart=True
    ):
        shifted = _shifted(planes, window.taps(row_taps, column_taps), groups, dtype, scratch)
        kept = scratch.taken
        height, width = shifted.shape[1:3]
        together = rows_together(groups, window.rows.taps, width * channels, outputs)
        for where in blocks(images, pixels_together(groups * min(together, height) * width * channels)):
            for m in range(0, height, together):
                some = slice(row_taps.start + m, min(row_taps.start + m + together, row_taps.stop))
                every = slice(None)
                pixels = shifted[(every, slice(m, m + together), every, every, *where)]
                yield Slab((some, column_taps), where, pixels, scratch)
                scratch.clear(kept)


def rows_together(groups: int, rows: int, terms: int, outputs: int) -> int:
    """Return how many rows of taps one matrix product sums up if each has so many terms per group.

    The product of one row is small for BLAS, or not; that of several remains so.
    """
    most = min(_ALL_TERMS if rows * terms <= _ALL_TERMS else _TERMS, _SLAB // groups)
    if _pixels_at_once(outputs, terms):
        most = min(most, _SMALL // (outputs * _PIXELS))
    return max(1, most // terms)


def pixels_together(terms: int) -> int:
    """Return how many pixels go together if each has so many terms."""
    return max(1, _SLAB // terms)


def _shifted(
    planes: np.ndarray, window: Window, groups: int, dtype: np.dtype, scratch: Scratch
) -> np.ndarray:
    """Copy the pixels once per column of taps: (groups, kh, kw, C_in/groups, batch…, H_out, W_out).

    Under a tap the rows of a plane then follow each other, so that NumPy works on them in one go.
    Copies, columns and products lie in `scratch`.
    """
    rows, columns = window.rows.table(), window.columns.table()
    *batch, channels, _, _ = planes.shape
    shape = (window.columns.taps, channels, *batch, len(rows.sources), window.columns.length)
    elements = math.prod(shape)
    later = min(window.rows.taps * elements, _SLAB) + _PRODUCTS
    gathered = planes[..., 0, 0].size * len(rows.sources) * len(columns.sources)
    scratch.make_room((elements + max(gathered, later)) * dtype.itemsize)
    copies = scratch.empty(shape, dtype)
    kept = scratch.taken
    tile = move_axis(gather(planes, rows, columns, window.cval, dtype, scratch.empty), -3, 0)
    for copy, across in zip(copies, tap_slices(window.columns, columns), strict=True):
        np.copyto(copy, tile[..., across])
    scratch.clear(kept)
    *outer, pitch, step = copies.strides
    shape = (window.rows.taps, *copies.shape[:-2], *window.output_shape)
    strides = (pitch * rows.dilation, *outer, pitch * rows.stride, step)
    by_tap = np.ndarray(shape, dtype, copies, strides=strides)
    return move_axis(by_tap.reshape(*shape[:2], groups, -1, *shape[3:]), 2, 0)


def modulated(slab: Slab, modulation: np.ndarray) -> np.ndarray:
    """Return the columns of a slab, (groups, (m, n, C_in/groups), pixels); `modulation` is the block's."""
    groups, height, width, channels, *images = slab.pixels.shape
    *batch, down, across = slab.where
    some = modulation[(*slab.taps, *matching(modulation, (*batch, slice(None), down, across)))]
    factor = by_group(some.astype(slab.pixels.dtype, copy=False), groups)
    parts = factor.shape[3]
    shape = (groups, height, width, parts, channels // parts, *images)
    columns = slab.scratch.empty(shape, slab.pixels.dtype)
    np.multiply(slab.pixels.reshape(columns.shape), factor, out=columns)
    return columns.reshape(groups, height * width * channels, -1)


def multiply(matrix: np.ndarray, columns: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return (groups, outputs, …) · (groups, K, pixels), the last axes of the matrix being K together."""
    groups, outputs, *depth = matrix.shape
    terms = math.prod(depth)
    result = empty((groups, outputs, columns.shape[-1]), columns.dtype) if out is None else out
    one_by_one = outputs <= _FEW and not _pixels_at_once(outputs, terms)
    at_once = 1 if one_by_one else max(1, MATRIX // (groups * terms))
    for first in range(0, outputs, at_once):
        some = slice(first, first + at_once)
        rows = matrix[:, some]
        if rows.dtype != columns.dtype:
            rows = rows.astype(columns.dtype, order="C")  # now, or the reshape would copy again
        product(rows.reshape(*rows.shape[:2], -1), columns, result[:, some])
    return result


def product(rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    """Write (groups, outputs, K) · (groups, K, pixels), some pixels at a time where this is faster."""
    pixels, at_once = columns.shape[-1], _pixels_at_once(*rows.shape[-2:])
    whole = pixels // at_once * at_once if at_once else 0
    if whole:
        np.matmul(rows[:, None], _cut(columns, whole, at_once), out=_cut(out, whole, at_once))
    if whole < pixels:
        np.matmul(rows, columns[..., whole:], out=out[..., whole:])


def _pixels_at_once(outputs: int, terms: int) -> int:
    """Return for how many pixels a product is small, if BLAS is faster then, or else 0."""
    if outputs == 1 or not has_small_products():
        return 0
    return _SMALL // max(1, outputs * terms) // _PIXELS * _PIXELS


def _cut(values: np.ndarray, pixels: int, at_once: int) -> np.ndarray:
    """View (groups, K, pixels) as (groups, pieces, K, pixels)."""
    return values[..., :pixels].reshape(*values.shape[:2], -1, at_once).swapaxes(1, 2)


def outputs_at_once(groups: int, outputs: int, pixels: int) -> int:
    """Return how many outputs of each group go together, equally many, where products are a copy."""
    most = max(1, _PRODUCTS // (groups * pixels))
    return -(-outputs // -(-outputs // most))


def in_line(planes: np.ndarray, groups: int) -> np.ndarray | None:
    """View (channels, batch…, H, W) as (groups, channels/groups, pixels), if BLAS can write it so."""
    pixels = 1
    for length, stride in zip(planes.shape[:0:-1], planes.strides[:0:-1], strict=True):
        if length > 1 and stride != pixels * planes.itemsize:
            return None
        pixels *= length
    if len(planes) > 1 and planes.strides[0] < pixels * planes.itemsize:
        return None
    return planes.reshape(groups, -1, pixels)
