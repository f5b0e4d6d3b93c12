"""The windows the other way round: from a block of pixels to the outputs that read it."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cuvarconv._axis import Axis
from cuvarconv._cpu._aligned import zeros
from cuvarconv._window import Window

Term = Callable[[int, slice], np.ndarray]  # (column tap, columns of outputs) -> what they add
RowTerms = Callable[[int, slice, slice], Term]  # (row tap, rows, hull of columns of outputs) -> its terms

_FEW = 64  # taps that may be summed one after the other without loss
_CACHED_TAPS = 64  # more make runs anew, so that the cache stays below 16 MiB
_TILE = 1 << 18  # entries; runs are cut where a pair of them would take more, and more than twice their block


@dataclass(frozen=True)
class Reach:
    """The outputs that read a run of table entries through one tap, and the entries that they read."""

    tap: int
    outputs: slice
    entries: slice


@dataclass(frozen=True)
class Segment:
    """Neighbouring entries of a run that stand for pixels in even steps."""

    entries: slice
    pixels: slice  # one pixel where the step is 0
    repeated: bool


@dataclass(frozen=True)
class Run:
    """Neighbouring entries of an index table that all stand for pixels of one block."""

    first: int
    length: int
    reaches: tuple[Reach, ...]
    segments: tuple[Segment, ...]

    @functools.cached_property
    def hull(self) -> slice:
        """From the first to the last output that reads the run."""
        outputs = [reach.outputs for reach in self.reaches]
        return slice(min(some.start for some in outputs), max(some.stop for some in outputs))


Tiles = Callable[[Run, Run], np.ndarray]  # (rows, columns) -> what is sent there


def _runs(axis: Axis, first: int, last: int, longest: int) -> tuple[Run, ...]:
    return (_cached_runs if axis.taps <= _CACHED_TAPS else _find_runs)(axis, first, last, longest)


def _find_runs(axis: Axis, first: int, last: int, longest: int) -> tuple[Run, ...]:
    """Return the runs of entries that stand for the pixels first … last−1."""
    entries, pixels = axis.entries_of(first, last)
    longest = max(longest, 2 * (last - first))
    begins = np.flatnonzero(np.diff(entries, prepend=-2) != 1).tolist()
    found = []
    for begin, end in itertools.pairwise([*begins, len(entries)]):
        for at in range(begin, end, longest):
            run = slice(at, min(at + longest, end))
            lowest = int(entries[at])
            reaches = tuple(_reaches(axis, lowest, lowest + run.stop - run.start))
            if reaches:
                found.append(Run(lowest, run.stop - run.start, reaches, _segments(pixels[run] - first)))
    return tuple(found)


_cached_runs = functools.lru_cache(maxsize=512)(_find_runs)


def _reaches(axis: Axis, first: int, last: int) -> Iterator[Reach]:
    """Yield, for every tap that reads some of the entries first … last−1, the outputs that do."""
    stride, dilation = axis.steps
    farthest = (axis.length - 1) * stride
    lowest = max(0, -((farthest - first) // dilation))
    for tap in range(lowest, min(axis.taps, (last - 1) // dilation + 1)):
        shift = tap * dilation - first
        begin = max(0, -(shift // stride))
        end = min(axis.length, (last - first - 1 - shift) // stride + 1)
        if begin < end:
            entries = slice(shift + begin * stride, shift + (end - 1) * stride + 1, stride)
            yield Reach(tap, slice(begin, end), entries)


def _segments(pixels: np.ndarray) -> tuple[Segment, ...]:
    steps = np.diff(pixels)
    changes = np.flatnonzero(np.diff(steps)) + 1  # where another step begins
    found = []
    at = 0
    while at < len(pixels):
        after = np.searchsorted(changes, at, side="right")
        end = int(changes[after]) + 1 if after < len(changes) else len(pixels)
        step = int(steps[at]) if at < len(steps) else 1
        begin, last = int(pixels[at]), int(pixels[end - 1])
        stop = last + (1 if step >= 0 else -1)
        found.append(Segment(slice(at, end), slice(begin, None if stop < 0 else stop, step or 1), step == 0))
        at = end
    return tuple(found)


def spread_block(total: np.ndarray, window: Window, down: slice, across: slice, row_terms: RowTerms) -> None:
    """Add to `total` (…, rows, columns), a block of pixels, what all outputs that read it send there."""
    spread_tiles(total, window, down, across, lambda rows, columns: tile_sum(total, rows, columns, row_terms))


def spread_tiles(
    total: np.ndarray,
    window: Window,
    down: slice,
    across: slice,
    tile_of: Tiles,
    entries: int = _TILE,
) -> None:
    """Add to `total` (…, rows, columns), a block of pixels, tiles of what its runs of entries are sent.

    Runs that are longer than twice the block are cut where a tile would have more than so many entries.
    """
    planes = total[..., 0, 0].size
    across_runs = _runs(window.columns, across.start, across.stop, math.isqrt(entries // planes))
    widest = max((columns.length for columns in across_runs), default=1)
    for rows in _runs(window.rows, down.start, down.stop, max(1, entries // (planes * widest))):
        for columns in across_runs:
            tile = tile_of(rows, columns)
            _fold(total.swapaxes(-1, -2), _folded(tile, total, columns).swapaxes(-1, -2), rows)


def tile_sum(total: np.ndarray, rows: Run, columns: Run, row_terms: RowTerms) -> np.ndarray:
    """Add up all taps where their entries lie side by side; many taps are summed row by row."""
    tile = zeros_like(total, rows.length, columns.length)
    few = len(rows.reaches) * len(columns.reaches) <= _FEW
    for down in rows.reaches:
        term = row_terms(down.tap, down.outputs, columns.hull)
        target = tile[..., down.entries, :]
        row = target if few else zeros_like(total, target.shape[-2], columns.length)
        for across in columns.reaches:
            part = row[..., across.entries]
            np.add(part, term(across.tap, across.outputs), out=part)
        if not few:
            np.add(target, row, out=target)
    return tile


def _folded(tile: np.ndarray, total: np.ndarray, columns: Run) -> np.ndarray:
    """Return a tile with its entries folded to the columns of the block."""
    whole = slice(0, total.shape[-1])
    if [(segment.entries, segment.pixels) for segment in columns.segments] == [(whole, whole)]:
        return tile
    folded = zeros_like(total, tile.shape[-2], total.shape[-1])
    _fold(folded, tile, columns)
    return folded


def zeros_like(total: np.ndarray, height: int, width: int) -> np.ndarray:
    """Make a block of another height and width, in the same order of axes in memory."""
    shape = (*total.shape[:-2], height, width)
    order = sorted(range(len(shape)), key=lambda axis: -abs(total.strides[axis]))
    made = zeros(tuple(shape[axis] for axis in order), total.dtype)
    return made.transpose(*map(order.index, range(len(shape))))


def _fold(total: np.ndarray, tile: np.ndarray, run: Run) -> None:
    """Add entries of a run, along the last axis, to the pixels that they stand for."""
    for segment in run.segments:
        part = tile[..., segment.entries]
        target = total[..., segment.pixels]
        np.add(target, part.sum(-1, keepdims=True) if segment.repeated else part, out=target)
