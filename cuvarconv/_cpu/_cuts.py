"""Cutting a block where its windows differ in reach, so that no pixel pays for a distant one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_CELL = 16  # pixels along either axis that are not cut further

# What takes as long as one pixel and one tap, measured with radii from 2 to 24.
_LINE = 3  # a pixel's weight at one distance
_DISTANCE = 20000  # the calls for one distance
_PIECE = 50000  # the calls for a piece


def cuts(radii: tuple[np.ndarray, np.ndarray], most: int) -> Iterator[tuple[slice, slice]]:
    """Yield rectangles of at most `most` pixels (if cells allow) that cover a block (rows, planes, columns).

    `radii` are those along rows and along columns.  Halves are cut in halves as long as that is less work.
    """
    height, planes, width = radii[0].shape
    rows, columns = np.arange(0, height, _CELL), np.arange(0, width, _CELL)
    cells = np.stack(
        [np.maximum.reduceat(np.maximum.reduceat(each.max(axis=1), rows), columns, axis=1) for each in radii]
    )
    row_ends, column_ends = np.append(rows, height), np.append(columns, width)

    def pixels(down: slice, across: slice) -> int:
        high = row_ends[down.stop] - row_ends[down.start]
        return int(high * planes * (column_ends[across.stop] - column_ends[across.start]))

    def work(down: slice, across: slice) -> int:
        far, wide = (int(reach) + 1 for reach in cells[:, down, across].max(axis=(1, 2)))
        per_pixel = far * wide + _LINE * (far + wide)
        return per_pixel * pixels(down, across) + _DISTANCE * wide + _PIECE

    def pieces(down: slice, across: slice, whole: int) -> Iterator[tuple[slice, slice]]:
        choices = [[(half, across) for half in _halves(down)], [(down, half) for half in _halves(across)]]
        if down.stop - down.start < across.stop - across.start:
            choices.reverse()  # of two that are as good, the longer side is cut
        halves = [[(*half, work(*half)) for half in choice] for choice in choices if choice]
        best = min(halves, key=lambda pair: sum(half[-1] for half in pair), default=None)
        small = pixels(down, across) <= most
        if best is None or (small and whole <= sum(half[-1] for half in best)):
            yield (
                slice(int(row_ends[down.start]), int(row_ends[down.stop])),
                slice(int(column_ends[across.start]), int(column_ends[across.stop])),
            )
            return
        for half in best:
            yield from pieces(*half)

    yield from pieces(slice(0, len(rows)), slice(0, len(columns)), 0)


def _halves(cells: slice) -> list[slice]:
    middle = (cells.start + cells.stop) // 2
    return [] if middle == cells.start else [slice(cells.start, middle), slice(middle, cells.stop)]
