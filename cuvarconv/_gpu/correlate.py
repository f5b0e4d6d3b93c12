"""One kernel per location, shared by the channels: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n]."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    Batch,
    batch_axes,
    in_runs,
    launches,
    offsets,
    shared_and_own,
    sizes,
    strides,
)
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch, most_shared_memory, shared_memory_per_block
from cuvarconv._gpu._pieces import Piece, pieces
from cuvarconv._gpu._replay import replayed
from cuvarconv._gpu._tiles import THREADS, Tiling, lanes, tiling
from cuvarconv._window import Window

PLANES = (1, 4, 16)  # planes per block, the kernel's P
_AHEAD = {
    1: 16 << 10,
    4: 24 << 10,
    16: 24 << 10,
}  # bytes of kernels that a block reads ahead, its AHEAD_BYTES
_SHARED = {1: 48 << 10, 4: 48 << 10, 16: 96 << 10}  # bytes of tile per block, at most
_ENOUGH_BLOCKS = 128  # about one for each of 132 multiprocessors
_MOST_PLANES = 1 << 24


@replayed
def correlate(
    input: Any,
    weights: Any,
    output: Any,
    window: Window,
    *,
    dtype: np.dtype,
    conjugate: bool,
) -> None:
    """Launch over pieces of the output and over the batch.

    `input` and `output` are (batch…, H, W), `weights` (kh, kw, batch…, H, W) with axes of length 1
    where they broadcast; `dtype` is the computing dtype.
    """
    call = Piece(input, weights, output, window)
    for piece in pieces(call, dtype, batch=output.ndim - 2):
        shared, own = shared_and_own(batch_axes(piece, output.ndim - 2), operand=1)
        planes = min(shared[0].length, _MOST_PLANES) if shared else 1
        groups = math.prod(axis.length for axis in own)
        limits = shared_memory_per_block(), most_shared_memory()
        per_block, tile = _plan(piece.window, planes, groups, dtype, *limits)
        blocks_per_group = tile.tiles(piece.window) * -(-planes // per_block)
        most_groups = max(1, MOST_BLOCKS // blocks_per_group)
        for batch in launches([own, shared], (most_groups, planes), operands=3):
            _launch(piece, per_block, tile, batch, dtype, conjugate)


@functools.lru_cache(maxsize=512)
def _plan(
    window: Window, planes: int, groups: int, dtype: np.dtype, shared_limit: int, shared_most: int
) -> tuple[int, Tiling]:
    """Choose the planes and lanes of a block, and the tile that it holds.

    As many planes as there are, up to 16, so that a kernel value is requested once for them; fewer where
    that would leave multiprocessors idle: kernels of so few pixels stay in the second-level cache. Fewer
    also where a device has less shared memory than the smallest tile takes.
    """
    number = accumulator_dtype(dtype)
    side_by_side = lanes(window, number)
    most = next((count for count in PLANES if planes <= count), PLANES[-1])
    plans = []
    for per_block in sorted((count for count in PLANES if count <= most), reverse=True):
        limit = min(_SHARED[per_block], shared_limit - _AHEAD[per_block])
        tile = tiling(window, side_by_side, min(planes, per_block), number, limit)
        plans.append((per_block, tile))
        if _AHEAD[per_block] + tile.shared > shared_most:
            continue
        if tile.tiles(window) * -(-planes // per_block) * groups >= _ENOUGH_BLOCKS:
            break
    return plans[-1]


def _launch(
    piece: Piece, per_block: int, tile: Tiling, batch: Batch, dtype: np.dtype, conjugate: bool
) -> None:
    window = piece.window
    (groups, own), (planes, shared) = ((axis.length, axis.strides) for axis in batch.axes)
    x = (batch.bases[0], own[0], shared[0], *strides(piece.image)[-2:])
    k = (batch.bases[1], own[1], *strides(piece.kernels)[:2], *strides(piece.kernels)[-2:])
    y = (batch.bases[2], own[2], shared[2], *strides(piece.output)[-2:])
    whole = piece.image.shape[-1] % tile.vector == 0
    arguments = (
        *(piece.image, np.int32(whole and in_runs(piece.image, x, tile.vector)), *offsets(*x)),
        *(piece.kernels, np.int32(in_runs(piece.kernels, k, tile.vector)), np.int32(conjugate)),
        *offsets(*k),
        *(piece.output, np.int32(in_runs(piece.output, y, tile.vector)), *offsets(*y)),
        *tile.tables(window),
        *sizes(window.rows.taps, window.columns.taps, *window.output_shape, planes),
        *sizes(tile.row_taps, tile.column_taps, tile.pitch),
        *(np.float64(window.cval.real), np.float64(window.cval.imag)),
    )
    name = f"correlate<{CPP_TYPES[dtype.name]}, {per_block}, {tile.lanes}>"
    blocks = tile.tiles(window) * -(-planes // per_block) * groups
    launch("correlate", name, blocks, THREADS, arguments, _AHEAD[per_block] + tile.shared)
