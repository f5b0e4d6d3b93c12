"""The gradient of `correlate` in its weights: g_k[m,n,i,j] = Σ conj(g[i,j]) x[i+m,j+n]."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cupy
import numpy as np

from cuvarconv._blocks import Where, blocks
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    Batch,
    BatchAxis,
    batch_axes,
    in_runs,
    launches,
    merged,
    offsets,
    sizes,
    strides,
)
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch, shared_memory_per_block
from cuvarconv._gpu._pieces import Piece, operand_pieces, store
from cuvarconv._gpu._tiles import THREADS, Tiling, lanes, tiling
from cuvarconv._gpu.correlate import PLANES
from cuvarconv._window import Window

_SHARED = {1: 48 << 10, 4: 48 << 10, 16: 96 << 10}  # bytes of tile per block, at most
_TAPS = (2, 8)  # rows and columns of taps of a block that sums over pixels
_ENOUGH_BLOCKS = 1056  # eight for each of 132 multiprocessors
_MOST_TILES = 1 << 30  # in a sum: kernels count them in 32 bits
_SUMS = 8 << 20  # bytes of sums that are not in the result yet, and of their parts


def correlate_weights_gradient(
    grad: Any,
    input: Any,
    output: Any,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Launch over regions of the result, and over what is summed into each.

    `grad` is (batch…, H_out, W_out), `input` (batch…, H, W), `output` (kh, kw, batch…, H_out, W_out)
    with axes of length 1 where kernels were shared; `dtype` is the computing dtype.
    """
    if grad.size == 0:
        output[...] = 0
        return
    if output.shape[-1] == grad.shape[-1] and output.shape[-2] < grad.shape[-2]:  # sum along rows instead
        grad, input = grad.swapaxes(-1, -2), input.swapaxes(-1, -2)
        output = output.swapaxes(0, 1).swapaxes(-1, -2)
        window = Window(window.columns, window.rows, window.cval)
    over_pixels = output.shape[-1] < grad.shape[-1]
    summed = [axis for axis, length in enumerate(grad.shape[:-2]) if output.shape[2 + axis] < length]
    native = grad.dtype == input.dtype == output.dtype == dtype
    at_once = native and math.prod(grad.shape[axis] for axis in summed) <= PLANES[-1]
    if not (over_pixels or at_once):
        dtype = accumulator_dtype(dtype)  # a sum may be stored before it is complete
    nothing = cupy.empty((1,) * output.ndim, dtype)  # `Piece` knows of three arrays
    call = Piece(input, nothing, grad, window)
    for region in _regions(output, dtype, over_pixels):
        target = output[(slice(None), slice(None), *region)]
        if over_pixels:
            total = cupy.zeros(target.shape, accumulator_dtype(dtype))
        else:
            total = target if target.dtype == dtype else cupy.empty(target.shape, dtype)
        part = call.block(_matching(region, output.shape[2:], grad.shape), grad.ndim - 2)
        for where, piece in operand_pieces(part, dtype, batch=grad.ndim - 2):
            place = total[(slice(None), slice(None), *_matching(where, part.output.shape, total.shape[2:]))]
            if over_pixels:
                _add_pixels(piece, place)
            else:
                _add_planes(piece, place, first=all(where[axis].start in (None, 0) for axis in summed))
        if total is not target:
            store(target, total)


def _regions(output: Any, dtype: np.dtype, over_pixels: bool) -> Iterator[Where]:
    """Cut (batch…, rows, columns) of the result so far that sums beside it fit."""
    kept, number = output.shape[2:], accumulator_dtype(dtype)
    if output.dtype == dtype and not over_pixels:
        yield (slice(None),) * len(kept)
    else:
        yield from blocks(kept, max(1, _SUMS // (math.prod(output.shape[:2]) * number.itemsize)))


def _matching(where: Where, lengths: tuple[int, ...], others: tuple[int, ...]) -> Where:
    """Return `where`, a part of an array, in one of other lengths: all of it along axes that differ."""
    pairs = zip(where, lengths, others, strict=True)
    return tuple(part if length == other else slice(None) for part, length, other in pairs)


@dataclass(frozen=True)
class _Axes:
    """The batch of a sum: the axes with sums of their own, and of the others the last two.

    Those are not merged: the order of a sum depends on shapes alone.  A third class holds the rest.
    """

    own: list[BatchAxis]
    inner: list[BatchAxis]
    outer: list[BatchAxis]

    @classmethod
    def of(cls, piece: Piece, sums: Any) -> _Axes:
        """Sort the axes of a piece whose products are added to `sums`."""
        axes = batch_axes(replace(piece, kernels=sums), sums.ndim - 4)
        lengths = sums.shape[2:-2]
        own = [axis for axis, length in zip(axes, lengths, strict=True) if axis.length == length]
        *others, outer, inner = [
            *[BatchAxis(1, (0, 0, 0))] * 2,
            *(axis for axis, length in zip(axes, lengths, strict=True) if axis.length > length),
        ]
        return cls(merged(own), [inner], [outer, *others])

    def sums(self, most: int) -> Iterator[Batch]:
        """Walk what is summed, at most so many planes at a time."""
        inner = min(most, self.inner[0].length)
        yield from launches([self.inner, self.outer], (inner, max(1, most // inner)), operands=3)

    def groups(self, most: int, summed: Batch) -> Iterator[Batch]:
        """Walk the sums, at most so many at a time, for some of what is summed."""
        for batch in launches([self.own], (max(1, most),), operands=3):
            bases = tuple(a + b for a, b in zip(batch.bases, summed.bases, strict=True))
            yield Batch(bases, (*batch.axes, *summed.axes))


def _add_planes(piece: Piece, sums: Any, *, first: bool) -> None:
    """Add up the planes that share kernels; both pixel axes have kernels of their own."""
    window, number = piece.window, accumulator_dtype(sums.dtype)
    axes = _Axes.of(piece, sums)
    planes = axes.inner[0].length * axes.outer[0].length
    per_block = next((count for count in PLANES if planes <= count), PLANES[-1])
    limit = min(_SHARED[per_block], shared_memory_per_block())
    tile = tiling(window, lanes(window, number), min(planes, per_block), number, limit)
    tiles = tile.tiles(window)
    parts = min(window.rows.taps, -(-_ENOUGH_BLOCKS // (tiles * math.prod(sums.shape[2:-2]))))
    rows_each = -(-window.rows.taps // parts)
    blocks_each = tiles * -(-window.rows.taps // rows_each)
    for summed in axes.sums(_MOST_TILES):
        for batch in axes.groups(MOST_BLOCKS // blocks_each, summed):
            k = (batch.bases[1], batch.axes[0].strides[1], *strides(sums)[:2], *strides(sums)[-2:])
            arguments = (
                *_read(piece, tile, batch),
                *(sums, np.int32(in_runs(sums, k, tile.vector)), np.int32(not first), *offsets(*k)),
                *tile.tables(window),
                *sizes(window.rows.taps, window.columns.taps, *window.output_shape),
                *sizes(*_planes(batch), tile.lanes, rows_each, tile.row_taps, tile.column_taps, tile.pitch),
                *(np.float64(window.cval.real), np.float64(window.cval.imag)),
            )
            name = f"correlate_gradient<{CPP_TYPES[sums.dtype.name]}, {per_block}>"
            blocks = blocks_each * batch.axes[0].length
            launch("correlate_gradient", name, blocks, THREADS, arguments, tile.shared)
        first = False


def _add_pixels(piece: Piece, sums: Any) -> None:
    """Add up pixels, all of a row at least; `sums` is of the dtype that is summed in."""
    window, number = piece.window, sums.dtype
    own_rows = sums.shape[-2] if sums.shape[-2] == window.rows.length else 1
    side_by_side = THREADS if own_rows > 1 else lanes(window, number)
    taps = window.taps(*(slice(0, run) for run in _TAPS))
    tile = tiling(taps, side_by_side, 1, number, min(_SHARED[1], shared_memory_per_block()))
    tiles = tile.tiles(window) // own_rows
    blocks_each = (
        -(-window.rows.taps // tile.row_taps) * -(-window.columns.taps // tile.column_taps) * own_rows
    )
    wanted = -(-_ENOUGH_BLOCKS // (blocks_each * math.prod(sums.shape[2:-2])))
    for summed in _Axes.of(piece, sums).sums(max(1, _MOST_TILES // tiles)):
        planes = summed.axes[0].length * summed.axes[1].length
        splits = max(1, min(wanted, planes * tiles, _SUMS // (sums.size * number.itemsize)))
        parts = cupy.empty((splits, *sums.shape), number)
        beside = replace(summed, bases=(summed.bases[0], 0, summed.bases[2]))
        for batch in _Axes.of(piece, parts[0]).groups(MOST_BLOCKS // (blocks_each * splits), beside):
            step, m, n, *_, row, _ = strides(parts)
            arguments = (
                *_read(piece, tile, batch),
                *(parts, *offsets(batch.bases[1], step, m, n, batch.axes[0].strides[1], row)),
                *tile.tables(window),
                *sizes(window.rows.taps, window.columns.taps, *window.output_shape),
                *sizes(*_planes(batch), own_rows, splits),
                *sizes(tile.lanes, tile.row_taps, tile.column_taps, tile.pitch),
                *(np.float64(window.cval.real), np.float64(window.cval.imag)),
            )
            name = f"correlate_gradient_sum<{CPP_TYPES[piece.image.dtype.name]}>"
            blocks = blocks_each * splits * batch.axes[0].length
            shared = max(tile.shared, math.prod(_TAPS) * THREADS * number.itemsize)
            launch("correlate_gradient", name, blocks, THREADS, arguments, shared)
        sums += parts[0] if splits == 1 else parts.sum(axis=0)


def _planes(batch: Batch) -> tuple[int, int]:
    """Return how many planes a kernel sums, and how many lie along their inner axis."""
    _, inner, outer = batch.axes
    return inner.length * outer.length, inner.length


def _read(piece: Piece, tile: Tiling, batch: Batch) -> Iterator[Any]:
    """Yield a kernel's arguments for the image and the gradient that comes in."""
    own, inner, outer = (axis.strides for axis in batch.axes)
    for operand, array in ((0, piece.image), (2, piece.output)):
        steps = (batch.bases[operand], own[operand], outer[operand], inner[operand], *strides(array)[-2:])
        whole = operand == 2 or array.shape[-1] % tile.vector == 0
        yield array
        yield np.int32(whole and in_runs(array, steps, tile.vector))
        yield from offsets(*steps)
