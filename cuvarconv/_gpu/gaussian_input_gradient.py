"""The gradient of the Gaussian filter in the image: every output is spread by its own kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cupy
import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import launches, merged, offsets, sizes, strides
from cuvarconv._gpu._kept import on_device
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import AdjointPiece, Readers, most_readers, pieces, taken
from cuvarconv._gpu._widths import (
    WIDE,
    Maps,
    map_arguments,
    maps_of,
    reach_argument,
    readable,
    real_dtype,
    real_parts,
    turned,
    walked,
)
from cuvarconv._window import Window

if TYPE_CHECKING:
    from typing_extensions import Self

_SOURCE = "gaussian_input_gradient"
THREADS = 128  # per block
_SIDE = 32  # rows and columns of pixels in a block, the kernel's SIDE


def gaussian_input_gradient(
    grad: Any,
    sigmas: tuple[Any, Any],
    angle: Any,
    output: Any,
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Launch over pieces of the result and over the batch.

    `grad` is (batch…, H_out, W_out), `output` (batch…, H, W); the maps and `truncate` are as for `gaussian`,
    `window` is its window and `dtype` the computing dtype.
    """
    maps, number = maps_of(sigmas, angle), real_dtype(dtype)
    nothing = cupy.empty((1,) * (output.ndim + 2), number)  # `AdjointPiece` knows of three arrays
    rows, columns = (Readers(axis, 0, axis.size) for axis in (window.rows, window.columns))
    for _, (given, target) in real_parts(grad, output):
        if target is None:
            continue
        if given is None:
            target[...] = 0
            continue
        call = _Piece(given, nothing, target, rows, columns, maps)
        for piece in pieces(call, number, batch=output.ndim - 2):
            _launch(piece, truncate, number)


@dataclass(frozen=True)
class _Piece(AdjointPiece):
    """A block of pixels of the result, with the maps for it; of `kernels` it has none."""

    maps: Maps

    def block(self, where: Where, batch: int) -> Self:
        """Return the part of the result at `where`."""
        maps = tuple(each[matching(each, (*where[:batch], *(slice(None),) * 2))] for each in self.maps)
        return replace(super().block(where, batch), maps=maps)

    def foreign_bytes(self, dtype: np.dtype) -> int:
        """Return what copies of the outputs that are read take at most, and the sums of their kernels."""
        both = (self.rows, self.columns)
        rows, columns = (most_readers(readers.axis, readers.last - readers.first) for readers in both)

        def read(shape: tuple[int, ...]) -> int:
            return math.prod(shape[:-2]) * min(rows, shape[-2]) * min(columns, shape[-1])

        norm = read(np.broadcast_shapes(*(each.shape for each in self.maps)))
        result = self.output.size if self.output.dtype != dtype else 0
        return (
            (read(self.image.shape) + result) * dtype.itemsize
            + norm * accumulator_dtype(dtype).itemsize
            + sum(read(each.shape) for each in self.maps) * WIDE.itemsize
        )

    def converted(self, dtype: np.dtype) -> Self:
        """Return the piece with the outputs that are read, in dtypes that kernels read."""
        rows, columns = self.rows.alone(), self.columns.alone()
        read = (rows.table().outputs, columns.table().outputs)
        image = taken(self.image, *read, dtype)
        maps = tuple(readable(taken(each, *read, each.dtype)) for each in self.maps)
        return replace(self, image=image, rows=rows, columns=columns, maps=maps)


def _launch(piece: _Piece, truncate: float | None, dtype: np.dtype) -> None:
    maps, image, output = piece.maps, piece.image, piece.output
    radii = piece.rows.axis.taps // 2, piece.columns.axis.taps // 2
    reached = (*sizes(*radii), reach_argument(truncate))
    inverse = _norms(maps, reached, dtype)
    tiles = -(-output.shape[-2] // _SIDE) * -(-output.shape[-1] // _SIDE)
    axes = merged(walked(output, image, inverse, *maps))
    for batch in launches([axes], (max(1, MOST_BLOCKS // tiles),), operands=3 + len(maps)):
        (axis,) = batch.axes
        arguments: list[Any] = []
        for operand, array in ((1, image), (2, inverse), (0, output)):
            steps = (batch.bases[operand], axis.strides[operand], *strides(array)[-2:])
            arguments += [array, *offsets(*steps)]
        arguments += map_arguments(maps, batch.bases[3:], axis.strides[3:])
        for readers, length in ((piece.rows, output.shape[-2]), (piece.columns, output.shape[-1])):
            arguments += [on_device(_table, readers)[0], *sizes(length)]
        name = f"gaussian_input_gradient<{CPP_TYPES[dtype.name]}, {turned(maps)}>"
        launch(_SOURCE, name, tiles * axis.length, THREADS, (*arguments, *reached), shared=0)


def _norms(maps: Maps, reached: tuple[Any, ...], dtype: np.dtype) -> Any:
    """Return 1 / Σ k of every kernel."""
    number = accumulator_dtype(dtype)
    result = cupy.empty(np.broadcast_shapes(*(each.shape for each in maps)), number)
    height, width = result.shape[-2:]
    blocks = -(-height * width // THREADS)
    axes = merged(walked(result, *maps))
    for batch in launches([axes], (max(1, MOST_BLOCKS // blocks),), operands=1 + len(maps)):
        (axis,) = batch.axes
        arguments = (
            *(result, *offsets(batch.bases[0], axis.strides[0], *strides(result)[-2:])),
            *map_arguments(maps, batch.bases[1:], axis.strides[1:]),
            *sizes(height, width),
            *reached,
        )
        name = f"gaussian_norm<{CPP_TYPES[number.name]}, {turned(maps)}>"
        launch(_SOURCE, name, blocks * axis.length, THREADS, arguments, shared=0)
    return result


def _table(readers: Readers) -> tuple[np.ndarray, None]:
    """List where an axis' pixels are read, and for each block of them the outputs that may read it."""
    axis, outputs = readers.axis, readers.table().outputs
    radius, count = axis.taps // 2, readers.last - readers.first
    entries, pixels = axis.entries_of(readers.first, readers.last)
    order = np.lexsort((entries, pixels))
    centres, pixels = entries[order] - radius, pixels[order] - readers.first
    starts = np.searchsorted(pixels, np.arange(count + 1))
    tiles = -(-count // _SIDE)
    places = count + 1 + 4 * tiles + len(outputs)
    lists, plan = [centres], []
    at = places + len(centres)
    for tile in range(tiles):
        first, last = starts[tile * _SIDE], starts[min(count, (tile + 1) * _SIDE)]
        intervals = _intervals(centres[first:last])
        candidates = _within(outputs, intervals, radius)
        ends = at + len(candidates), at + len(candidates) + 2 * len(intervals)
        plan += [at, ends[0], ends[0], ends[1]]
        lists += [candidates, intervals.ravel()]
        at = ends[1]
    return np.concatenate([starts + places, plan, outputs, *lists]).astype(np.int32), None


def _intervals(places: np.ndarray) -> np.ndarray:
    """Return (first, last) of each run of neighbouring places."""
    places = np.unique(places)
    breaks = np.flatnonzero(np.diff(places) > 1)
    first = places[np.concatenate([[0], breaks + 1])] if len(places) else places
    last = places[np.concatenate([breaks, [len(places) - 1]])] if len(places) else places
    return np.stack([first, last], axis=1)


def _within(outputs: np.ndarray, intervals: np.ndarray, radius: int) -> np.ndarray:
    """Return the numbers of the outputs, in order, that lie so near to an interval."""
    ends = (
        np.searchsorted(outputs, intervals[:, 0] - radius),
        np.searchsorted(outputs, intervals[:, 1] + radius, side="right"),
    )
    runs = [np.arange(first, last) for first, last in zip(*ends, strict=True)]
    return np.unique(np.concatenate(runs)) if runs else np.arange(0)
