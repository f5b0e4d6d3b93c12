"""Cutting the output into blocks, and windows into runs of taps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from cuvarconv._window import Window

Where = tuple[slice, ...]  # a block of the output


def blocks(shape: tuple[int, ...], elements: int) -> list[Where]:
    """Cut an array into slices of about `elements` elements, whole trailing axes first.

    The cut depends on the shape alone, so that results do not depend on the number of workers.
    """
    if 0 in shape:
        return []
    if math.prod(shape) <= elements:
        return [tuple([slice(0, length) for length in shape])]
    cuts, size = [], 1
    for length in reversed(shape):
        pieces = max(1, -(-length * size // elements)) if elements > size else length
        step = max(1, -(-length // max(1, pieces)))
        cuts.append([slice(at, min(at + step, length)) for at in range(0, length, step)])
        size *= step
    return list(itertools.product(*reversed(cuts)))


def shares(shape: tuple[int, ...], elements: int, workers: int, *, least: int) -> list[Where]:
    """Cut an array into blocks of at most `elements` elements, so that all workers have equally many.

    No block has fewer than about `least`; there is then an even number of them, if there are several.
    """
    total = math.prod(shape)
    pieces = -(-total // max(1, min(elements, max(least, -(-total // workers)))))
    if pieces > 1:
        pieces += -pieces % (2 if pieces < workers else workers)
    return blocks(shape, -(-total // max(1, pieces)))


def rectangles(shape: tuple[int, ...], elements: int, width: int) -> list[Where]:
    """Cut an array into slices of about `elements` elements that are at most `width` wide."""
    if 0 in shape:
        return []
    columns = even(shape[-1], width)
    rows = even(shape[-2], max(1, elements // columns[0].stop))
    planes = blocks(shape[:-2], max(1, elements // (columns[0].stop * rows[0].stop)))
    return [(*some, down, across) for some in planes for down in rows for across in columns]


def even(length: int, longest: int) -> list[slice]:
    """Cut a line into pieces of the same length but for the last, at most so long."""
    step = -(-length // -(-length // longest))
    return [slice(at, min(at + step, length)) for at in range(0, length, step)]


def matching(operand: Any, where: Where) -> Where:
    """Return the part of a broadcast operand that meets the output's block `where`."""
    lengths = operand.shape[operand.ndim - len(where) :]
    return tuple([slice(None) if length == 1 else part for part, length in zip(where, lengths, strict=True)])


def tap_chunks(
    window: Window,
    planes: int,
    elements: int,
    *,
    most_columns: int | None = None,
    most_taps: int | None = None,
    apart: bool = False,
) -> Iterator[tuple[slice, slice]]:
    """Cut a window into runs of taps whose pixels, gathered, are about `elements` at most.

    Rows of taps first; a row itself is cut only where a single one does not fit, or where it has
    more than `most_columns` taps, or the run more than `most_taps`.  Pixels that are gathered `apart`
    are there once for each column of taps.
    """
    rows, columns = window.rows.taps, window.columns.taps
    if most_columns is not None and columns > most_columns:
        rows, columns = 1, most_columns
    run = window.taps(slice(0, rows), slice(0, columns))
    while planes * _pixels(run, apart) > elements or rows * columns > (most_taps or math.inf):
        if rows > 1:
            rows = -(-rows // 2)
        elif columns > 1:
            columns = -(-columns // 2)
        else:
            break
        run = window.taps(slice(0, rows), slice(0, columns))
    if run is window:
        yield slice(0, rows), slice(0, columns)
        return
    for m in range(0, window.rows.taps, rows):
        for n in range(0, window.columns.taps, columns):
            yield (
                slice(m, min(m + rows, window.rows.taps)),
                slice(n, min(n + columns, window.columns.taps)),
            )


def _pixels(run: Window, apart: bool) -> int:
    across = run.columns.taps * run.columns.length if apart else run.columns.entries
    return run.rows.entries * across


def within(inner: Where, outer: Where) -> Where:
    """Return where a block lies in a larger one that contains it."""
    return tuple(
        slice(mine.start - whole.start, mine.stop - whole.start)
        for mine, whole in zip(inner, outer, strict=True)
    )
