"""Pieces of a call that reads maps of widths too, and what a kernel is told of these."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import BatchAxis, in_runs, offsets, sizes, strides, table_arguments
from cuvarconv._gpu._pieces import Piece
from cuvarconv._gpu._tiles import THREADS
from cuvarconv._window import Window

if TYPE_CHECKING:
    from typing_extensions import Self

Maps = tuple[Any, ...]  # σ for rows, σ for columns and, if kernels are turned, the angle

LANES = 8  # threads side by side along a row of outputs, the kernel's LANES
_CHUNK = 8  # columns that are taken together, the kernel's CHUNK
_SHARED = 60 << 10  # bytes of tile per block, at most
WIDE = np.dtype(np.float64)
_NATIVE = (np.dtype(np.float32), WIDE)  # of maps


def maps_of(sigmas: tuple[Any, Any], angle: Any) -> Maps:
    """Return the maps as the launchers walk them."""
    return sigmas if angle is None else (*sigmas, angle)


def is_readable(each: Any) -> bool:
    """Whether kernels read maps of this dtype."""
    return each.dtype in _NATIVE


def readable(each: Any) -> Any:
    """Return a map in a dtype that kernels read."""
    return each if is_readable(each) else each.astype(WIDE)


def foreign_map_bytes(maps: Maps) -> int:
    """Return what the maps that kernels cannot read take once converted."""
    return sum(each.size * WIDE.itemsize for each in maps if not is_readable(each))


@dataclass(frozen=True)
class WidthsPiece(Piece):
    """A block of the output, with the maps for it; of `kernels` it has none."""

    maps: Maps

    def block(self, where: Where, batch: int) -> Self:
        """Return the part of the output at `where`."""
        maps = tuple(each[matching(each, where)] for each in self.maps)
        return replace(super().block(where, batch), maps=maps)

    def foreign_bytes(self, dtype: np.dtype) -> int:
        """Return what converted arrays take."""
        return super().foreign_bytes(dtype) + foreign_map_bytes(self.maps)

    def converted(self, dtype: np.dtype) -> Self:
        """Return the piece with everything in a dtype that kernels read."""
        return replace(super().converted(dtype), maps=tuple(readable(each) for each in self.maps))


def walked(output: Any, *others: Any) -> list[BatchAxis]:
    """Return the batch axes of the output, with its strides and those of the others."""
    batch = output.ndim - 2
    steps = zip(*(strides(array)[:batch] for array in (output, *others)), strict=True)
    return [BatchAxis(*axis) for axis in zip(output.shape[:batch], steps, strict=True)]


def map_arguments(maps: Maps, bases: tuple[int, ...], steps: tuple[int, ...]) -> Iterator[Any]:
    """Yield a kernel's arguments for three maps, the angle a stand-in if there is none."""
    for which in (0, 1, len(maps) - 1):
        each = maps[which]
        yield each
        yield np.int32(each.dtype == WIDE)
        yield from offsets(bases[which], steps[which], *strides(each)[-2:])


@dataclass(frozen=True)
class Reach:
    """How far the kernels of a window go, and the shared memory for the pixels under them."""

    rows: int
    columns: int
    room: int  # columns on each side that the index table has
    held: int
    vector: int
    itemsize: int

    @classmethod
    def of(cls, window: Window, dtype: np.dtype) -> Reach:
        """Plan for a window."""
        number = accumulator_dtype(dtype)
        vector = 16 // number.itemsize
        rows, columns = window.rows.taps // 2, window.columns.taps // 2
        room = -(-columns // _CHUNK) * _CHUNK
        banks = 16 // vector
        least = LANES + 2 * room // vector
        pitch = least + (banks // 2 - least) % banks
        needed = (THREADS // LANES + 2 * rows) * vector * pitch
        held = min(needed, _SHARED // number.itemsize)
        return cls(rows, columns, room, held, vector, number.itemsize)

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        return self.held * self.itemsize

    def tiles(self, window: Window) -> int:
        """Return the number of blocks that cover the outputs."""
        height, width = window.output_shape
        return -(-height * LANES // THREADS) * -(-width // (LANES * self.vector))

    def tables(self, window: Window) -> tuple[Any, ...]:
        """Return a kernel's arguments for both axes: tables, and radii with the columns' room."""
        columns = window.columns
        wide = replace(columns, taps=2 * self.room + 1, start=columns.start - self.room + self.columns)
        tables = (table_arguments(axis, by_tap=False)[:2] for axis in (window.rows, wide))
        return (*itertools.chain(*tables), *sizes(self.rows, self.columns, self.room))


def image_arguments(array: Any, vector: int, base: int, step: int, *, read: bool) -> tuple[Any, ...]:
    """Return a kernel's arguments for an image that it reads, or writes, in runs where that is possible."""
    steps = (base, step, *strides(array)[-2:])
    whole = not read or array.shape[-1] % vector == 0
    return array, np.int32(whole and in_runs(array, steps, vector)), *offsets(*steps)


def real_parts(*arrays: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the real, and if any array is complex the imaginary parts of arrays, by their name.

    The imaginary part of a real array is None.
    """
    yield "real", tuple(array.real for array in arrays)
    if any(array.dtype.kind == "c" for array in arrays):
        yield "imag", tuple(array.imag if array.dtype.kind == "c" else None for array in arrays)


def part_of(window: Window, part: str) -> Window:
    """Return the window over the real, or the imaginary part of an image."""
    return replace(window, cval=getattr(complex(window.cval), part))


def real_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype of the parts of an image."""
    return np.empty(0, dtype).real.dtype


def reach_argument(truncate: float | None) -> np.float64:
    """Return how many widths kernels reach; a negative number where they fill the window."""
    return np.float64(-1 if truncate is None else truncate)


def turned(maps: Maps) -> str:
    """Return the kernels' template argument."""
    return "true" if len(maps) == 3 else "false"
