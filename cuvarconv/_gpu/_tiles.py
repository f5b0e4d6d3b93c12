"""What a block holds of an image in shared memory, for kernels/tile.cuh."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._axis import Axis
from cuvarconv._gpu._geometry import table_arguments
from cuvarconv._window import Window

THREADS = 128  # per block
LANES = (8, 32)  # threads side by side along a row


@dataclass(frozen=True)
class Tiling:
    """A block's lanes, V outputs each, and the taps whose pixels its tile holds at once."""

    lanes: int
    vector: int
    row_taps: int
    column_taps: int
    rows_by_tap: bool
    columns_by_tap: bool
    pitch: int
    shared: int

    def tiles(self, window: Window) -> int:
        """Return the number of blocks that cover the outputs of a window."""
        height, width = window.output_shape
        down, across = THREADS // self.lanes, self.lanes * self.vector
        return -(-height // down) * -(-width // across)

    def tables(self, window: Window) -> tuple[Any, ...]:
        """Return a kernel's arguments for both axes, and whether the columns' table is dense."""
        return (
            *table_arguments(window.rows, self.rows_by_tap),
            *table_arguments(window.columns, self.columns_by_tap),
            np.int32(not self.columns_by_tap),
        )


def lanes(window: Window, number: np.dtype) -> int:
    """Return how many threads lie along a row of outputs: many, for long runs of memory, unless they idle."""
    narrow, wide = (
        -(-window.columns.length // (side_by_side * (16 // number.itemsize))) * side_by_side
        for side_by_side in LANES
    )
    return LANES[1] if 7 * wide <= 8 * narrow else LANES[0]


@functools.lru_cache(maxsize=512)
def tiling(window: Window, lanes: int, planes: int, number: np.dtype, limit: int) -> Tiling:
    """Choose the largest tile that fits: all taps, else fewer rows of taps, else fewer columns."""
    vector = 16 // number.itemsize
    held = planes * number.itemsize * vector

    def holding(rows: int, columns: int, rows_by_tap: bool, columns_by_tap: bool) -> Tiling:
        tile_rows = _entries(window.rows, THREADS // lanes, rows, rows_by_tap)
        tile_columns = _entries(window.columns, lanes * vector, columns, columns_by_tap)
        pitch = _pitch(tile_columns, vector, lanes, number)
        chunk = (rows, columns, rows_by_tap, columns_by_tap)
        return Tiling(lanes, vector, *chunk, pitch, held * tile_rows * pitch)

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
    """Return the length of a column class in a tile row.

    Padding keeps classes in other banks where a warp fills a row, and else the rows of a warp.
    """
    pitch = -(-columns // vector)
    if vector == 1:
        return pitch
    if lanes < 32:
        banks = 16 // vector
        return pitch + (banks // 2 - pitch) % banks
    banks = 128 // number.itemsize // vector
    return pitch + (banks - pitch) % banks
