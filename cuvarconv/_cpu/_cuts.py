"""Cutting a block where its windows differ in reach, so that no pixel pays for a distant one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cuvarconv._cpu._bands import banded, banded_work
from cuvarconv._cpu._widths import Widths

CELL = 16  # pixels along either axis that are not cut further

# What takes as long as one pixel and one tap, measured with radii from 2 to 32.
_LINE = 5  # a pixel's weight at one distance
_PIECE = 1000000  # the calls for a piece, at which threads wait for each other


def cuts(widths: Widths, most: int) -> Iterator[tuple[slice, slice]]:
    """Yield rectangles that cover a block (rows, planes, columns), of so many weights if cells allow.

    Halves are cut in halves as long as that is less work.
    """
    height, planes, width = widths.extents[0].shape
    if max(height, width) <= CELL:
        yield slice(0, height), slice(0, width)
        return
    rows, columns = np.arange(0, height, CELL), np.arange(0, width, CELL)
    down_extents = _largest(widths.extents[0])
    alike = widths.extents[1] is widths.extents[0]
    across_extents = down_extents if alike else _largest(widths.extents[1])
    down_cells, across_cells = widths.radii_of(down_extents, across_extents)
    same = across_cells is down_cells
    row_ends, column_ends = [*rows.tolist(), height], [*columns.tolist(), width]

    def work(down: slice, across: slice, radius: np.ufunc = np.maximum) -> tuple[int, int]:
        """Return the work, and the number of weights along one axis, if all have that of the radii."""
        far = int(radius.reduce(down_cells[down, across], axis=None)) + 1
        wide = far if same else int(radius.reduce(across_cells[down, across], axis=None)) + 1
        high = row_ends[down.stop] - row_ends[down.start]
        width = column_ends[across.stop] - column_ends[across.start]
        pixels = high * planes * width
        weights = _LINE * (far if same else far + wide)
        sums = banded_work(far, wide) if banded(far - 1, wide - 1) else far * wide
        return int((weights + sums) * pixels) + _PIECE, pixels * max(far, wide)

    def halves_of(
        down: slice, across: slice, whole: int, weights: int
    ) -> list[tuple[slice, slice, int, int]]:
        """Return two rectangles that are less work, or have fewer weights where those are too many."""
        if weights <= most and whole <= work(down, across, np.minimum)[0] + _PIECE:
            return []
        choices = [[(half, across) for half in _halves(down)], [(down, half) for half in _halves(across)]]
        if down.stop - down.start < across.stop - across.start:
            choices.reverse()  # of two that are as good, the longer side is cut
        halves = [[(*half, *work(*half)) for half in choice] for choice in choices if choice]
        best = min(halves, key=lambda pair: sum(half[2] for half in pair), default=[])
        return best if weights > most or whole > sum(half[2] for half in best) else []

    def pieces(down: slice, across: slice, whole: int, weights: int) -> Iterator[tuple[slice, slice]]:
        halves = halves_of(down, across, whole, weights)
        for half in halves:
            yield from pieces(*half)
        if not halves:
            yield (
                slice(row_ends[down.start], row_ends[down.stop]),
                slice(column_ends[across.start], column_ends[across.stop]),
            )

    every = slice(0, len(rows)), slice(0, len(columns))
    yield from pieces(*every, *work(*every))


def _largest(values: np.ndarray) -> np.ndarray:
    """Return the largest value of each cell."""
    plane = values[:, 0] if values.strides[1] == 0 or values.shape[1] == 1 else values.max(axis=1)
    lines = np.concatenate([part.max(axis=1) for part in _cells(plane)])
    return np.concatenate([part.max(axis=1) for part in _cells(lines.T)]).T


def _cells(values: np.ndarray) -> list[np.ndarray]:
    """View an array as (cells, lines of a cell, …), those that are whole, and the last one if it is not."""
    whole = len(values) - len(values) % CELL
    parts = [values[:whole].reshape(-1, CELL, *values.shape[1:]), values[None, whole:]]
    return [part for part in parts if part.size]


def _halves(cells: slice) -> list[slice]:
    middle = (cells.start + cells.stop) // 2
    return [] if middle == cells.start else [slice(cells.start, middle), slice(middle, cells.stop)]
