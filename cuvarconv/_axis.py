"""One axis of the window, and the index tables in which every backend looks its pixels up."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

CVAL = -1  # the entry of an index table that stands for "outside: cval"
NO_OUTPUT = -1  # the entry of an inverse table for a pixel that no output reads

_CACHED_ENTRIES = 1 << 14  # longer index tables are made anew, so that the cache stays below 16 MiB


@dataclass(frozen=True)
class IndexTable:
    """Source pixels along one axis; tap m of output i reads ``sources[i*stride + m*dilation]``.

    ``sources[first:last]`` is one run of neighbouring pixels inside the image, the part that
    a slice can copy; it is empty where the table lists taps one after the other.
    """

    sources: np.ndarray
    stride: int
    dilation: int
    first: int
    last: int
    outside: bool  # whether any entry is CVAL


@dataclass(frozen=True)
class InverseTable:
    """Which outputs read a pixel through a tap: the index table the other way round.

    ``entries[m*pixels + h]`` is the one output that reads pixel `h` through tap `m`, `NO_OUTPUT`, or,
    where a boundary mode makes several outputs read it, ``-2 - at``: then ``entries[at]`` says how many,
    and they follow.  Outputs are counted along `outputs`, those that read any of the pixels.
    """

    entries: np.ndarray
    pixels: int
    outputs: np.ndarray


@dataclass(frozen=True)
class Axis:
    """The window along one image axis: tap m of output i reads ``i*stride + m*dilation + start``."""

    taps: int
    stride: int
    dilation: int
    start: int
    size: int
    length: int
    mode: str

    def __hash__(self) -> int:
        """Work it out once: an axis that is kept is looked up in every call."""
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.taps, self.stride, self.dilation, self.start, self.size, self.length))

    @functools.cached_property
    def span(self) -> int:
        """Number of positions from the first to the last one read."""
        return (self.length - 1) * self.stride + (self.taps - 1) * self.dilation + 1

    @functools.cached_property
    def shorter_by_tap(self) -> bool:
        """Whether one row of outputs per tap is a shorter list than all positions."""
        return self.taps * self.length < self.span

    @functools.cached_property
    def entries(self) -> int:
        """Length of the index table."""
        return min(self.taps * self.length, self.span)

    def part(self, outputs: slice, taps: slice = slice(None)) -> Axis:
        """Return the window of some neighbouring outputs, or of some neighbouring taps."""
        first, last, _ = outputs.indices(self.length)
        tap, end, _ = taps.indices(self.taps)
        if (first, last, tap, end) == (0, self.length, 0, self.taps):
            return self
        return _part(self, first, last, tap, end)

    def gathered(self) -> Axis:
        """Return the window over an image that holds the entries of `table`, in their order."""
        return _gathered(self)

    def table(self, *, by_tap: bool | None = None) -> IndexTable:
        """Look up every source once, here, so that no backend needs to know the mode.

        One entry per position, or, where that is longer (dilated windows wider than the image,
        strides beyond the window) or where `by_tap` asks for it, one row of outputs per tap.
        """
        if by_tap is None:
            by_tap = self.shorter_by_tap
        entries = self.taps * self.length if by_tap else self.span
        make = _cached_table if entries <= _CACHED_ENTRIES else _make_table
        return make(self, by_tap)

    @property
    def steps(self) -> tuple[int, int]:
        """The table's stride and dilation: tap m of output i reads entry i·stride + m·dilation."""
        return (1, self.length) if self.shorter_by_tap else (self.stride, self.dilation)

    def entries_of(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the table's entries that stand for the pixels first … last−1, and these pixels.

        Of a long table only the part is made that has them, and what lies outside the image.
        """
        if self.shorter_by_tap:
            taps = (self.start + tap * self.dilation for tap in range(self.taps))
            lines = [(place, self.stride, self.length) for place in taps]
        else:
            lines = [(self.start, 1, self.span)]
        found, sources = [], []
        for number, (place, step, count) in enumerate(lines):
            entries = _candidates(place, step, count, self.size, first, last)
            pixels = _sources(entries * step + place, self)
            inside = (pixels >= first) & (pixels < last)
            found.append(entries[inside] + number * count)
            sources.append(pixels[inside])
        return np.concatenate(found), np.concatenate(sources)

    def inverse(self, pixels: slice = slice(None), *, every: bool = True) -> InverseTable:
        """Look up the outputs that read some neighbouring pixels, for what gathers the adjoint.

        Outputs keep their numbers if `every` one is counted, whether it reads these pixels or not.
        """
        first, last, _ = pixels.indices(self.size)
        small = self.taps * (last - first) <= _CACHED_ENTRIES
        return (_cached_inverse if small else _make_inverse)(self, first, last, every)


@functools.lru_cache(maxsize=512)
def _part(axis: Axis, first: int, last: int, tap: int, end: int) -> Axis:
    """Return the window of outputs first … last−1 and taps tap … end−1."""
    start = axis.start + first * axis.stride + tap * axis.dilation
    return replace(axis, start=start, length=last - first, taps=end - tap)


@functools.lru_cache(maxsize=512)
def _gathered(axis: Axis) -> Axis:
    table = axis.table()
    steps = {"stride": table.stride, "dilation": table.dilation}
    return replace(axis, **steps, start=0, size=len(table.sources), mode="valid")


def _make_table(axis: Axis, by_tap: bool) -> IndexTable:
    if by_tap:
        taps = np.arange(axis.taps, dtype=np.int64)[:, None] * axis.dilation
        outputs = np.arange(axis.length, dtype=np.int64) * axis.stride
        positions = (taps + outputs).ravel() + axis.start
        stride, dilation, first, last = 1, axis.length, 0, 0
    else:
        positions = np.arange(axis.start, axis.start + axis.span, dtype=np.int64)
        stride, dilation = axis.stride, axis.dilation
        first = min(max(0, -axis.start), axis.span)
        last = max(first, min(axis.span, axis.size - axis.start))
    sources = _sources(positions, axis)
    sources.flags.writeable = False
    return IndexTable(sources, stride, dilation, first, last, bool((sources == CVAL).any()))


_cached_table = functools.lru_cache(maxsize=128)(_make_table)


def _candidates(place: int, step: int, count: int, size: int, first: int, last: int) -> np.ndarray:
    """Return the k in 0 … count−1 with k·step + place in first … last−1, or outside of 0 … size−1."""
    before, begin, end, after = (
        min(max(0, -((place - position) // step)), count) for position in (0, first, last, size)
    )
    return np.concatenate([np.arange(before), np.arange(begin, end), np.arange(after, count)])


def _make_inverse(axis: Axis, first: int, last: int, every: bool) -> InverseTable:
    stride, dilation = axis.steps
    read, sources = axis.entries_of(first, last)
    steps = read - np.arange(axis.taps)[:, None] * dilation
    reached, rest = np.divmod(steps, stride)
    taps, at = np.nonzero((rest == 0) & (reached >= 0) & (reached < axis.length))
    reached, pixels = reached[taps, at], last - first
    outputs = np.arange(axis.length) if every else np.unique(reached)
    if not every:
        reached = np.searchsorted(outputs, reached)
    slots = taps * pixels + sources[at] - first
    return InverseTable(_listed(slots, reached, axis.taps * pixels), pixels, outputs)


def _listed(slots: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Put the values of each slot in its place, or in a list behind all slots if there are several."""
    order = np.argsort(slots, kind="stable")
    slots, values = slots[order], values[order]
    counts = np.bincount(slots, minlength=count)
    starts = np.cumsum(counts) - counts
    several = np.flatnonzero(counts > 1)
    lengths = counts[several] + 1
    lists = np.full(count, count)
    lists[several] += np.cumsum(lengths) - lengths
    entries = np.full(count + lengths.sum(), NO_OUTPUT, np.int64)
    entries[several] = -2 - lists[several]
    entries[lists[several]] = counts[several]
    ranks = np.arange(len(slots)) - starts[slots]
    alone = counts[slots] == 1
    entries[np.where(alone, slots, lists[slots] + 1 + ranks)] = values
    entries.flags.writeable = False
    return entries


_cached_inverse = functools.lru_cache(maxsize=128)(_make_inverse)


def _sources(positions: np.ndarray, axis: Axis) -> np.ndarray:
    size = axis.size
    if axis.mode in ("constant", "valid"):
        return np.where((positions >= 0) & (positions < size), positions, CVAL)
    if axis.mode == "nearest":
        return np.clip(positions, 0, size - 1)
    if axis.mode == "wrap":
        return positions % size
    if axis.mode == "reflect":
        folded = positions % (2 * size)
        return np.minimum(folded, 2 * size - 1 - folded)
    period = max(1, 2 * size - 2)  # mirror: the edge pixel is not repeated
    folded = positions % period
    return np.minimum(folded, period - folded)
