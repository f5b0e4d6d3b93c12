"""One kernel per location, shared by the channels: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n]."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    Batch,
    batch_axes,
    in_elements,
    in_runs,
    launches,
    merged,
    offsets,
    shared_and_own,
    sizes,
    strides,
    table_arguments,
)
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch, shared_memory_per_block
from cuvarconv._gpu._pieces import Piece, pieces
from cuvarconv._window import Axis, Window

PLANES = (1, 4, 16)  # planes per block, the kernel's P
THREADS = 128  # per block
LANES = (8, 32)  # threads side by side along a row, the kernel's LX
_SHARED = {1: 48 << 10, 4: 48 << 10, 16: 96 << 10}  # bytes of tile per block, at most
_MOST_PLANES = 1 << 24


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
    call = Piece(in_elements(input), in_elements(weights), output, window)
    for piece in pieces(call, dtype, batch=output.ndim - 2):
        shared, own = shared_and_own(batch_axes(piece, output.ndim - 2), operand=1)
        planes = min(shared[0].length, _MOST_PLANES) if shared else 1
        plan = _plan(piece.window, planes, dtype, shared_memory_per_block())
        blocks_per_group = plan.tiles(piece.window) * -(-planes // plan.planes)
        most_groups = max(1, MOST_BLOCKS // blocks_per_group)
        for batch in launches([own, shared], (most_groups, planes), operands=3):
            _launch(piece, plan, batch, dtype, conjugate)


@dataclass(frozen=True)
class _Plan:
    """How one block works: planes and lanes, and the taps whose pixels its tile holds at once."""

    planes: int
    lanes: int
    vector: int
    row_taps: int
    column_taps: int
    rows_by_tap: bool
    columns_by_tap: bool
    pitch: int
    shared: int

    def tiles(self, window: Window) -> int:
        height, width = window.output_shape
        down, across = THREADS // self.lanes, self.lanes * self.vector
        return -(-height // down) * -(-width // across)


@functools.lru_cache(maxsize=512)
def _plan(window: Window, planes: int, dtype: np.dtype, shared_limit: int) -> _Plan:
    """Choose the largest tile that fits: all taps, else fewer rows of taps, else fewer columns."""
    number = accumulator_dtype(dtype)
    per_block = next((count for count in PLANES if planes <= count), PLANES[-1])
    vector = 16 // number.itemsize
    lanes = LANES[0] if window.columns.length <= LANES[0] * vector else LANES[1]
    limit = min(_SHARED[per_block], shared_limit)
    held = min(planes, per_block) * number.itemsize * vector

    def holding(rows: int, columns: int, rows_by_tap: bool, columns_by_tap: bool) -> _Plan:
        tile_rows = _entries(window.rows, THREADS // lanes, rows, rows_by_tap)
        tile_columns = _entries(window.columns, lanes * vector, columns, columns_by_tap)
        pitch = _pitch(tile_columns, vector, lanes, number)
        chunk = (rows, columns, rows_by_tap, columns_by_tap)
        return _Plan(per_block, lanes, vector, *chunk, pitch, held * tile_rows * pitch)

    plans = [holding(*chunk) for chunk in _chunks(window)]
    # one tap at a time takes 32 KiB at most, which every device has
    return next((plan for plan in plans if plan.shared <= limit), plans[-1])


def _chunks(window: Window) -> Iterator[tuple[int, int, bool, bool]]:
    """Propose (row taps, column taps, rows by tap, columns by tap), the largest tile first."""
    rows_by_tap, columns_by_tap = window.rows.shorter_by_tap, window.columns.shorter_by_tap
    rows = 1 if rows_by_tap else window.rows.taps
    columns = 1 if columns_by_tap else window.columns.taps
    yield rows, columns, rows_by_tap, columns_by_tap
    while rows > 1:
        rows = -(-rows // 2)
        yield rows, columns, rows_by_tap, columns_by_tap
    while columns > 1:
        columns = -(-columns // 2)
        yield rows, columns, rows_by_tap, columns_by_tap
    yield 1, 1, True, columns_by_tap
    yield 1, 1, True, True


def _entries(axis: Axis, outputs: int, taps: int, by_tap: bool) -> int:
    """Return how many entries of an index table some neighbouring outputs and taps read."""
    if by_tap:
        return outputs
    return (outputs - 1) * axis.stride + (taps - 1) * axis.dilation + 1


def _pitch(columns: int, vector: int, lanes: int, number: np.dtype) -> int:
    """Return the length of a column class in a tile row; full rows keep classes in other banks."""
    pitch = -(-columns // vector)
    banks = 128 // number.itemsize
    return pitch if lanes < 32 or vector == 1 else pitch + (banks // vector - pitch) % banks


def _launch(piece: Piece, plan: _Plan, batch: Batch, dtype: np.dtype, conjugate: bool) -> None:
    window = piece.window
    (groups, own), (planes, shared) = ((axis.length, axis.strides) for axis in batch.axes)
    x = (batch.bases[0], own[0], shared[0], *strides(piece.image)[-2:])
    k = (batch.bases[1], own[1], *strides(piece.kernels)[:2], *strides(piece.kernels)[-2:])
    y = (batch.bases[2], own[2], shared[2], *strides(piece.output)[-2:])
    whole = piece.image.shape[-1] % plan.vector == 0
    arguments = (
        *(piece.image, np.int32(whole and in_runs(piece.image, x, plan.vector)), *offsets(*x)),
        *(piece.kernels, np.int32(in_runs(piece.kernels, k, plan.vector)), np.int32(conjugate)),
        *offsets(*k),
        *(piece.output, np.int32(in_runs(piece.output, y, plan.vector)), *offsets(*y)),
        *table_arguments(window.rows, plan.rows_by_tap),
        *table_arguments(window.columns, plan.columns_by_tap),
        np.int32(not plan.columns_by_tap),
        *sizes(window.rows.taps, window.columns.taps, *window.output_shape, planes),
        *sizes(plan.row_taps, plan.column_taps, plan.pitch),
        *(np.float64(window.cval.real), np.float64(window.cval.imag)),
    )
    name = f"correlate<{CPP_TYPES[dtype.name]}, {plan.planes}, {plan.lanes}>"
    blocks = plan.tiles(window) * -(-planes // plan.planes) * groups
    launch("correlate", name, blocks, THREADS, arguments, plan.shared)
