"""Moving pixels into and out of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cuvarconv._axis import CVAL, Axis, IndexTable
from cuvarconv._blocks import blocks, tap_chunks
from cuvarconv._window import Window

TapRow = tuple[int, list[tuple[int, np.ndarray]]]  # (m, [(n, the pixels under tap (m, n)), …])

_SMALL = 1 << 12  # pixels; of so few all are looked up, which is faster than to cut them into rectangles
_TOGETHER = 1 << 16  # pixels that are looked up, or converted, at once, to a temporary array
WORKSPACE = 64 << 20  # bytes that all blocks in progress may take together

# Of one array of a block: memory is read faster the longer the pieces of each tap's weights are, and threads
# meet at the interpreter's lock less often, which costs each of them up to 35 µs.
BLOCK = 1 << 20  # bytes
SHARED_BY = 8, 1 << 17  # blocks at least, and elements of the smallest, where sums depend on how they are cut


def shifted_pixels(
    planes: np.ndarray,
    window: Window,
    outside: Any,
    dtype: np.dtype,
    elements: int,
    *,
    most_columns: int | None = None,
    empty: Callable[..., np.ndarray] = np.empty,
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield (taps m, taps n, pixels under them), runs of taps as `tap_chunks` cuts them.

    The pixels are (m, n, …, H_out, W_out), one shifted image per tap, in the computing dtype, in arrays
    that `empty` makes.
    """
    for row_taps, column_taps in tap_chunks(
        window, planes[..., 0, 0].size, elements, most_columns=most_columns
    ):
        chunk = window.taps(row_taps, column_taps)
        tables = chunk.rows.table(), chunk.columns.table()
        yield row_taps, column_taps, windows(gather(planes, *tables, outside, dtype, empty), *tables, chunk)


def rows_of_taps(
    window: Window,
    tile_of: Callable[[IndexTable, IndexTable], np.ndarray],
    planes: int,
    elements: int,
    before: tuple[Any, ...] = (...,),
) -> Iterator[TapRow]:
    """Yield the pixels under all taps, a row of taps after the other.

    `tile_of` makes an array of the pixels that two index tables name, `planes` numbers for each, as many
    together as `tap_chunks` allows; `before` selects what comes before the rows and columns in it.
    """
    for row_taps, column_taps in tap_chunks(window, planes, elements):
        chunk = window.taps(row_taps, column_taps)
        rows, columns = chunk.rows.table(), chunk.columns.table()
        tile = tile_of(rows, columns)
        places = [*enumerate(tap_slices(chunk.columns, columns), column_taps.start)]
        for m, down in enumerate(tap_slices(chunk.rows, rows), row_taps.start):
            yield m, [(n, tile[(*before, down, across)]) for n, across in places]


def gather(
    image: np.ndarray,
    rows: IndexTable,
    columns: IndexTable,
    cval: Any,
    dtype: np.dtype,
    empty: Callable[..., np.ndarray] = np.empty,
) -> np.ndarray:
    """Copy the pixels that two index tables name into one array of the computing dtype, made by `empty`.

    What lies inside the image is copied as a rectangle; the four margins are looked up.
    """
    shape = (*image.shape[:-2], len(rows.sources), len(columns.sources))
    count = math.prod(shape)
    if count <= _SMALL and image.size <= _SMALL:
        tile = image.take(rows.sources, -2).take(columns.sources, -1).astype(dtype, copy=False)
    else:
        tile = empty(shape, dtype)
        _copy(tile, image, rows, columns, at_once=count <= _SMALL)
    if rows.outside:
        tile[..., rows.sources == CVAL, :] = cval
    if columns.outside:
        tile[..., columns.sources == CVAL] = cval
    return tile


def _copy(
    tile: np.ndarray, image: np.ndarray, rows: IndexTable, columns: IndexTable, *, at_once: bool
) -> None:
    if not at_once and rows.last > rows.first and columns.last > columns.first:
        top, left = rows.sources[rows.first], columns.sources[columns.first]
        bottom, right = top + rows.last - rows.first, left + columns.last - columns.first
        inner, middle = slice(rows.first, rows.last), slice(columns.first, columns.last)
        tile[..., inner, middle] = image[..., top:bottom, left:right]
        for beside in (slice(0, rows.first), slice(rows.last, None)):  # whole rows at once
            if rows.sources[beside].size:
                tile[..., beside, middle] = image[..., left:right][..., rows.sources[beside], :]
        margins = [slice(0, columns.first), slice(columns.last, None)]
    else:
        margins = [slice(None)]
    for across in margins:
        sources = columns.sources[across]
        if not sources.size:
            continue
        height = len(rows.sources)
        if tile.size > _TOGETHER:
            height = max(1, _TOGETHER // (tile[..., 0, 0].size * sources.size))
        for first in range(0, len(rows.sources), height):
            down = slice(first, first + height)
            tile[..., down, across] = image[..., rows.sources[down, None], sources]


def move_axis(array: np.ndarray, source: int, destination: int) -> np.ndarray:
    """View an array as NumPy's ``moveaxis`` does, in a tenth of its time: it is called for every slab."""
    order = list(range(array.ndim))
    order.insert(destination % array.ndim, order.pop(source))
    return array.transpose(order)


def store(target: np.ndarray, values: np.ndarray) -> None:
    """Write a block: integers truncate through int64, bool is ≠ 0, real arrays take the real part."""
    if target.dtype.kind != "c":
        values = values.real
    if target.dtype.kind not in "biu":
        np.copyto(target, values, casting="unsafe")
        return
    values = np.broadcast_to(values, target.shape)
    for where in blocks(target.shape, _TOGETHER):  # a piece at a time is in another dtype
        here: Any = (..., *where)
        part = values[here] != 0 if target.dtype.kind == "b" else values[here].astype(np.int64)
        np.copyto(target[here], part, casting="unsafe")


def windows(tile: np.ndarray, rows: IndexTable, columns: IndexTable, window: Window) -> np.ndarray:
    """View a gathered tile as (kh, kw, …, H_out, W_out), one shifted image per tap."""
    *outer, down, across = tile.strides
    shape = (window.rows.taps, window.columns.taps, *tile.shape[:-2], *window.output_shape)
    strides = (
        down * rows.dilation,
        across * columns.dilation,
        *outer,
        down * rows.stride,
        across * columns.stride,
    )
    return np.ndarray(shape, tile.dtype, tile, strides=strides)


def tap_slices(axis: Axis, table: IndexTable) -> Iterator[slice]:
    """Yield, for each tap, the entries of a gathered tile that its outputs read."""
    for first in range(0, axis.taps * table.dilation, table.dilation):
        yield slice(first, first + (axis.length - 1) * table.stride + 1, table.stride)
