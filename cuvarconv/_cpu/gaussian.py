"""The Gaussian of every pixel: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n] / Σ_{m,n} k[m,n,i,j]."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cuvarconv._blocks import Where, rectangles
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._bands import banded, banded_sums
from cuvarconv._cpu._cuts import CELL, cuts
from cuvarconv._cpu._mirrored import TILE, Pixels, read_pixels, real_dtype, real_parts
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._sums import add_in_runs, runs
from cuvarconv._cpu._tiles import WORKSPACE, store
from cuvarconv._cpu._widths import (
    Maps,
    Tap,
    Widths,
    both_line_weights,
    planes_first,
    read_widths,
    turned_taps,
)
from cuvarconv._cpu._workers import for_each, get_workers, serial_blas
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

# Outputs, and columns of them, that are cut further where their radii differ.  The more there are the longer
# are the calls, and the less threads wait for each other; but there are to be several blocks for each.
_SMALLEST, _LARGEST = 1 << 16, 1 << 17
_BLOCKS = 8
WIDTH = 256
_WEIGHTS = 3 << 20  # bytes of a piece's weights along one axis
_SCRATCH = 16 << 20  # bytes: weights and their sums along both axes, pixels and pairs; less for many workers
_BESIDE = 11 << 20  # that a worker takes besides
_WORKERS = 3


def gaussian(
    input: np.ndarray,
    sigmas: Maps,
    angle: np.ndarray | None,
    output: np.ndarray,
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Add the pixels that have the same weight before they are multiplied, block after block.

    `input` and `output` are (batch…, H, W), σ for rows and for columns and the `angle` (or None) maps of as
    many axes, of length 1 where they broadcast to the output; `truncate` is None where the window is
    every pixel's; `dtype` is the computing dtype.
    """
    if dtype.kind == "c":
        for name, plane, part in real_parts(input, window):
            target, real = getattr(output, name), real_dtype(dtype)
            gaussian(plane, sigmas, angle, target, part, truncate=truncate, dtype=real)
        return
    dtype = accumulator_dtype(dtype)

    room = min(_SCRATCH, WORKSPACE // min(get_workers(), _WORKERS) - _BESIDE)

    def block(where: Where) -> None:
        scratch = Scratch(room)
        for here, widths, pixels in pieces(input, sigmas, angle, where, window, truncate, dtype):
            target = output[here]
            total = _aligned(pixels, widths, scratch) if angle is None else _turned(pixels, widths)
            store(target, planes_first(total, target.shape))

    elements = block_elements(output.shape, window, block_size(output.shape), _WEIGHTS // dtype.itemsize)
    with serial_blas:
        for_each(block, rectangles(output.shape, elements, WIDTH), most_workers=_WORKERS)


def block_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many elements a block of an array may have, and how many columns."""
    return min(max(_SMALLEST, math.prod(shape) // _BLOCKS), _LARGEST), WIDTH


def block_elements(shape: tuple[int, ...], window: Window, size: tuple[int, int], weights: int) -> int:
    """Return how many elements a block may have, of which `size` says the most, and of columns.

    Cells of all its planes have at most so many weights, and the pixels under its windows are one tile.
    """
    elements, widest = size
    height, width = (max(1, length) for length in shape[-2:])
    columns = min(width, widest)
    rows = min(height, max(1, elements // columns))
    distances = max(window.rows.taps, window.columns.taps) // 2 + 1
    cell = min(rows, CELL) * min(columns, CELL)
    reached = (rows + window.rows.taps - 1) * (columns + window.columns.taps - 1)
    planes = max(1, min(weights // (cell * distances), TILE // reached))
    return min(elements, planes * rows * columns)


def pieces(
    input: np.ndarray,
    sigmas: Maps,
    angle: np.ndarray | None,
    where: Where,
    window: Window,
    truncate: float | None,
    dtype: np.dtype,
    *,
    weights: int = _WEIGHTS,
) -> Iterator[tuple[Where, Widths, Pixels]]:
    """Cut a block of outputs into pieces, of so many bytes of weights along one axis, and read them."""
    reach = window.rows.taps // 2, window.columns.taps // 2
    *batch, down, across = where
    shape = (*input[tuple(batch)].shape[:-2], down.stop - down.start, across.stop - across.start)
    whole = read_widths(sigmas, angle, where, shape, truncate=truncate, reach=reach)
    under = read_pixels(input, where, window, whole.reach, dtype)
    for rows, columns in cuts(whole, weights // dtype.itemsize):
        widths = whole.part(rows, columns)
        here = (
            *batch,
            slice(down.start + rows.start, down.start + rows.stop),
            slice(across.start + columns.start, across.start + columns.stop),
        )
        yield here, widths, under.part(rows, columns, widths.reach)


def _aligned(pixels: Pixels, widths: Widths, scratch: Scratch) -> np.ndarray:
    """Return the sums with weights that are products of one along rows and one along columns."""
    scratch.clear()
    weights = both_line_weights(widths, pixels.dtype, scratch.empty)
    (total,) = aligned_sums(pixels, widths, [weights], scratch)
    total /= aligned_norm(weights, pixels.scale)
    return total


def aligned_norm(weights: Maps, scale: float) -> np.ndarray:
    """Return the sum of all weights, times a power of 2."""
    rows, columns = weights
    down = add_in_runs(rows, axis=0)
    norm = np.multiply(down, down if columns is rows else add_in_runs(columns, axis=0))
    norm *= norm.dtype.type(4 * scale)
    return norm


def aligned_sums(
    pixels: Pixels, widths: Widths, products: Sequence[Maps], scratch: Scratch
) -> list[np.ndarray]:
    """Return Σ_{m,n} a_m b_n x[i+m,j+n] for each pair (a, b) of weights that are even in m and in n.

    Both are given for distances from 0, where they are halved, as pixels there face themselves.
    """
    shape, dtype = widths.sigmas[0].shape, pixels.dtype
    if pixels.tile is not None and not pixels.guarded and banded(*pixels.reach):
        return banded_sums(pixels, products, scratch)
    size, (far, wide) = widths.sigmas[0].size, (reach + 1 for reach in pixels.reach)
    weights = [(rows.reshape(far, size), columns.reshape(wide, size)) for rows, columns in products]
    sums = [scratch.empty((wide, size), dtype) for _ in products]
    numbers = pixels.lines * size // shape[0] + (1 + pixels.guarded) * far * size  # lines, pairs, and terms
    stack = min(wide, max(1, scratch.left // (numbers * dtype.itemsize)))
    lines = scratch.empty((stack, pixels.lines, *shape[1:]), dtype)
    above, below = facing_lines(lines, far)
    pairs = scratch.empty(above.shape, dtype)
    radii = widths.radii if pixels.guarded else (None, None)
    for first in range(0, wide, stack):
        some = range(first, min(first + stack, wide))
        pixels.add_facing_columns(some, lines[: len(some)])
        pair = np.add(above[: len(some)], below[: len(some)], out=pairs[: len(some)])
        for (rows, _), row_sums in zip(weights, sums, strict=True):
            _add_up(pair, rows, row_sums[some.start : some.stop], radii[0])
    totals = [np.empty(shape, dtype) for _ in products]
    for (_, columns), row_sums, total in zip(weights, sums, totals, strict=True):
        _add_up(row_sums, columns, total.reshape(size), radii[1])
    return totals


def _add_up(values: np.ndarray, weights: np.ndarray, total: np.ndarray, radii: np.ndarray | None) -> None:
    """Write Σ_m w_mk v_…mk; if there are radii, over the distances m alone that each pixel k reaches."""
    if radii is None:
        if weights.shape[1] == 1:  # of a pixel alone NumPy would add the terms in another order
            values, weights, twice = (np.repeat(each, 2, axis=-1) for each in (values, weights, total))
            _add_up(values, weights, twice, None)
            total[...] = twice[..., :1]
            return
        first, *others = runs(len(weights))
        np.einsum("...mk,mk->...k", values[..., first, :], weights[first], out=total)
        for run in others:
            total += np.einsum("...mk,mk->...k", values[..., run, :], weights[run])
        return
    terms = values * weights
    for distance in range(len(weights)):
        clear(terms[..., distance, :], radii.reshape(-1), distance)
    total[...] = add_in_runs(terms, axis=-2)


def facing_lines(lines: np.ndarray, distances: int) -> tuple[np.ndarray, np.ndarray]:
    """View stacks of lines as (stacks, distances, pixels), so far below a block's own lines, and above."""
    stack, step = lines.strides[:2]
    size = lines[0, 2 * distances - 2 :].size
    shape, first = (len(lines), distances, size), (distances - 1) * step
    return (
        np.ndarray(shape, lines.dtype, lines, first, (stack, step, lines.itemsize)),
        np.ndarray(shape, lines.dtype, lines, first, (stack, -step, lines.itemsize)),
    )


def clear(values: np.ndarray, radii: np.ndarray, distance: int) -> None:
    """Set to 0 what belongs to pixels that do not reach so far."""
    np.copyto(values, 0, where=radii < distance)


def _turned(pixels: Pixels, widths: Widths) -> np.ndarray:
    """Return the sums with weights of any direction, two taps that face each other at once."""
    total = centre_pixels(pixels)
    norm = np.ones_like(total)
    sums = ColumnSums(norm, total)
    for tap, pair in turned_pairs(pixels, widths):
        sums.add(tap, 2 * tap.weight, weighted(pair, tap, widths, guarded=pixels.guarded))
    sums.end_column()
    total /= norm * pixels.dtype.type(pixels.scale)
    return total


class ColumnSums:
    """Adds taps to totals, column by column of the window, so that long sums lose nothing."""

    def __init__(self, *totals: np.ndarray) -> None:
        self._totals, self._columns = totals, [zeros(total.shape, total.dtype) for total in totals]
        self._distance = 0

    def add(self, tap: Tap, *terms: np.ndarray) -> None:
        """Add a tap's terms, one for each total."""
        if tap.n != self._distance:
            self.end_column()
            self._distance = tap.n
        for column, term in zip(self._columns, terms, strict=True):
            column[tap.lines] += term

    def end_column(self) -> None:
        """Add up what has come since the last call."""
        for total, column in zip(self._totals, self._columns, strict=True):
            total += column
            column[...] = 0


def weighted(values: np.ndarray, tap: Tap, widths: Widths, *, guarded: bool) -> np.ndarray:
    """Multiply by a tap's weight; if `guarded`, 0 where a pixel does not reach it."""
    values *= tap.weight
    if guarded:
        clear(values, widths.radii[0][tap.lines], abs(tap.m))
        clear(values, widths.radii[1][tap.lines], tap.n)
    return values


def centre_pixels(pixels: Pixels) -> np.ndarray:
    """Return a copy of the pixels at the windows' centres."""
    first = pixels.reach[0]
    return np.array(pixels.shifted(0)[first : first + pixels.shape[0]], order="C")


def turned_pairs(pixels: Pixels, widths: Widths) -> Iterator[tuple[Tap, np.ndarray]]:
    """Yield the taps of half the window without its centre, and x[i+m,j+n] + x[i−m,j−n] in their lines."""
    taps = np.empty(widths.sigmas[0].shape, pixels.dtype)
    centre, distance = pixels.reach[0], -1
    right = left = taps
    for tap in turned_taps(widths, pixels.dtype):
        if tap.n != distance:
            distance = tap.n
            right, left = (np.ascontiguousarray(pixels.shifted(step)) for step in (distance, -distance))
        start, stop = centre + tap.lines.start, centre + tap.lines.stop
        pair = taps[tap.lines]
        np.add(right[start + tap.m : stop + tap.m], left[start - tap.m : stop - tap.m], out=pair)
        yield tap, pair
