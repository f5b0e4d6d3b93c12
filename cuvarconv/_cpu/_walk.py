"""Strip by strip through all pairs of pixels that share their weight.

What is done with a strip is one list of NumPy calls, made once with all their arguments, and what the
arrays show is replaced for the next strip: calls follow each other so closely that threads seldom wait for
the interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from cuvarconv._cpu._aligned import empty, pitch, zeros
from cuvarconv._cpu._pairs import Likeness, Tile
from cuvarconv._cpu._weights import exponentials

_BYTES = 1 << 22  # of pairs that are taken together: few calls, for which threads wait for each other
_LONGEST = 12288  # first pixels of them; NumPy copies what it reads in pieces where lines are below 4096
_SHORTEST = 64  # where there are many channels
_FEWEST = 4  # offsets
_KEPT = 12 << 20  # bytes of weights that are kept for their second use
FAR = 1000.0  # of an exponent: such a weight is 0, and 0 times infinity would be NaN

Step = Callable[[], object]  # a call, with its arguments


class Stack:
    """Room for values of some pairs: (planes, Δ, p), for neighbouring p and all Δ of a row.

    There are more p than are counted, so that as many second pixels have all their pairs.  `flat` shows all
    of a plane, with what lies between its rows, in one line.
    """

    def __init__(self, buffer: np.ndarray, planes: int, taps: int, count: int) -> None:
        length = count + taps - 1
        shape = planes, taps, pitch(length, buffer.dtype)
        room = buffer[: math.prod(shape)]
        self.flat = room.reshape(planes, -1)
        self.planes = room.reshape(shape)[..., :length]
        self.by_first = self.planes[..., :count]
        outer, across, inner = self.planes.strides
        self.by_second = np.ndarray(
            self.by_first.shape,
            buffer.dtype,
            buffer,
            (taps - 1) * inner,
            (outer, across - inner, inner),
        )


class Row:
    """Neighbouring Δ in a row of half the window, and room for the pairs (p, p + Δ) of a strip."""

    def __init__(self, number: int, down: int, columns: range, tile: Tile, likeness: Likeness) -> None:
        self.number, self.taps = number, len(columns)
        self.shift = down * tile.row + columns.start  # the first of them in line
        self.behind = self.shift + self.taps - 1  # from the first p to the first q that has all its pairs
        distances = down**2 + np.square(np.arange(columns.start, columns.stop))
        self.distances = distances.astype(likeness.features.dtype)
        self.place = likeness.place(self.distances)

    def make_room(self, buffer: np.ndarray, planes: int, count: int, kept: np.ndarray | None) -> None:
        """Take room for so many planes, and for the weights of each strip that are kept."""
        self.stack = Stack(buffer, planes, self.taps, count)
        self.planes, self.flat = self.stack.planes, self.stack.flat
        rooms = [buffer] if kept is None else kept[:, self.number]
        self.weight_stacks = [Stack(room, 1, self.taps, count) for room in rooms]

    def weights(self, room: int) -> np.ndarray:
        """Return the weights of a strip, (Δ, p)."""
        return self.weight_stacks[room].planes[0]

    def flat_weights(self, room: int) -> np.ndarray:
        """Return them in one line, as `flat` is."""
        return self.weight_stacks[room].flat[0]


class Line:
    """Values of an image in line, (channels, pixels), as the pairs of a strip see them."""

    def __init__(self, values: np.ndarray, rows: list[Row], count: int) -> None:
        length = max((row.behind + row.taps for row in rows), default=0) + count
        self._values, self._here = values, zeros((len(values), length), values.dtype)
        self.firsts = [self._here[:, None, : count + row.taps - 1] for row in rows]  # (channels, 1, p)
        self.seconds = [self._ahead(row, count) for row in rows]  # at p + Δ, (channels, Δ, p)

    def _ahead(self, row: Row, count: int) -> np.ndarray:
        outer, inner = self._here.strides
        shape, strides = (len(self._here), row.taps, count + row.taps - 1), (outer, inner, inner)
        return np.ndarray(shape, self._here.dtype, self._here, row.shift * inner, strides)

    def move(self, start: int) -> None:
        """Show what the pairs of the strip from there on see."""
        part = self._values[:, start : start + self._here.shape[-1]]
        self._here[:, : part.shape[-1]] = part


class Walk:
    """All pairs that have a pixel in a tile's block, strip by strip, by their first pixels.

    The weights of pairs are exp(−½‖g(p + Δ) − g(p)‖²/σ_r²).  They are the first plane of a row, but where
    they are kept for use `twice`; the next planes are the features' differences g(p + Δ) − g(p), in their own
    units.  There are at least so many `planes`, and then, if asked for, one of the squares
    ‖g(p + Δ) − g(p)‖².  Each row of offsets overwrites what the one before had.
    """

    def __init__(
        self, tile: Tile, likeness: Likeness, planes: int, *, squares: bool = False, twice: bool = False
    ) -> None:
        features = likeness.features
        self.dtype, self._likeness, self._squares = features.dtype, likeness, squares
        squared = len(features) if len(features) > 1 else 0  # one at a time, before they are added up
        total = max(planes, 1 + len(features) + squared) + squares
        per_pair = total * features.itemsize
        limit = min(2 * tile.radius + 1, max(_FEWEST, _BYTES // (per_pair * _LONGEST)))
        self.rows = [
            Row(number, *some, tile, likeness) for number, some in enumerate(_offsets(tile.radius, limit))
        ]
        taps = max((row.taps for row in self.rows), default=1)
        self._end = tile.pixels - tile.first
        longest = max(_SHORTEST, min(_LONGEST, _BYTES // (per_pair * taps)))
        self.count = count = pitch(-(-self._end // -(-self._end // longest)), features.dtype)
        self.strips = range(-(-self._end // count))
        self.pixels = max(tile.pixels, count * len(self.strips) + tile.first)
        self.lag = -(-(tile.first + taps) // count)
        room = taps * pitch(count + taps - 1, features.dtype)
        kept = self.lag + 1, len(self.rows), room
        fits = twice and math.prod(kept) * features.itemsize <= _KEPT
        self._kept = empty(kept, features.dtype) if fits else None
        self.rooms = len(self._kept) if self._kept is not None else 1  # of weights, each strip's in its turn
        buffer = empty((total * room,), features.dtype)
        for row in self.rows:
            row.make_room(buffer, total, count, self._kept)
        self._lines: list[Line] = []
        self._features = self.line(features)

    def line(self, values: np.ndarray) -> Line:
        """Show an image in line to the pairs; what it has when a strip comes counts."""
        self._lines.append(Line(values, self.rows, self.count))
        return self._lines[-1]

    def end(self, strip: int) -> int:
        """Return the first pixel behind a strip."""
        return min((strip + 1) * self.count, self._end)

    def weigh(self, row: Row, room: int) -> Iterator[Step]:
        """Yield the calls for the weights of a row's pairs and the differences of their features."""
        yield self._subtract(row)
        likeness, minus = self._likeness, self.dtype.type(-self._likeness.sharpness)
        count, weights = len(likeness.features), row.flat_weights(room)
        squares = row.flat[-1] if self._squares else weights
        differences, spare = row.flat[1 : 1 + count], row.flat[1 + count : 1 + 2 * count]
        if count == 1:
            yield partial(np.multiply, differences[0], differences[0], squares)
        else:
            factor = self.dtype.type(1) if self._squares else minus
            yield partial(np.multiply, differences, differences, spare)
            yield partial(np.matmul, np.full(count, factor), spare, squares)
        if count == 1 or self._squares:
            yield partial(np.multiply, squares, minus, weights)
        if self._squares and not likeness.bounded:
            yield partial(np.minimum, squares, FAR / likeness.sharpness, out=squares)
        yield from exponentials(weights, vanish=likeness.vanish)

    def weigh_again(self, row: Row, room: int, *, differences: bool) -> Iterator[Step]:
        """Yield the calls by which weights are there once more, and the differences if asked for."""
        if self._kept is None:
            yield from self.weigh(row, room)
        elif differences:
            yield self._subtract(row)

    def _subtract(self, row: Row) -> Step:
        features, differences = self._features, row.planes[1 : 1 + len(self._likeness.features)]
        return partial(np.subtract, features.seconds[row.number], features.firsts[row.number], differences)

    def move(self, strip: int) -> None:
        """Let all lines show what a strip sees."""
        for line in self._lines:
            line.move(strip * self.count)


class Program:
    """All calls for the pairs of a strip, row by row, and the sums that they add to."""

    def __init__(
        self, walk: Walk, steps: Callable[[Row, int], Iterable[Step]], sums: Iterable[PairSums]
    ) -> None:
        self._walk, self._sums = walk, list(sums)
        self._steps = [[step for row in walk.rows for step in steps(row, room)] for room in range(walk.rooms)]

    def run(self, strip: int) -> None:
        """Make the calls for a strip; they come one after the other."""
        self._walk.move(strip)
        for step in self._steps[strip % self._walk.rooms]:
            step()
        for sums in self._sums:
            sums.store(strip * self._walk.count)


def _offsets(radius: int, most: int) -> Iterator[tuple[int, range]]:
    """Yield (down, columns) of half a window, at most so many columns at a time."""
    for down in range(radius + 1):
        columns = range(-radius if down else 1, radius + 1)
        parts = -(-len(columns) // most)
        for part in range(parts):
            some = slice(*(len(columns) * at // parts for at in (part, part + 1)))
            yield down, columns[some]


class PairSums:
    """Sums over pairs for each pixel in line, (channels, pixels): as their first, and as their second.

    Of the pairs' planes some are summed for first pixels, and some, the same unless said, for second ones;
    the weights are where no planes are named.
    """

    def __init__(
        self, walk: Walk, channels: int, first: slice | None = None, second: slice | None = None
    ) -> None:
        self._firsts, self._seconds = (zeros((channels, walk.pixels), walk.dtype) for _ in range(2))
        count, reach = walk.count, max((row.behind for row in walk.rows), default=0)
        self._count, self._part = count, empty((channels, count), walk.dtype)
        self._first_here = zeros((channels, count), walk.dtype)  # of the pixels of a strip
        self._second_here = zeros((channels, count + reach), walk.dtype)  # and of those that they reach
        self._of_weights = first is None
        self._planes = slice(None) if first is None else first
        self._second_planes = self._planes if second is None else second

    def add(self, row: Row, room: int, place: np.ndarray) -> Iterator[Step]:
        """Yield the calls that add Σ_Δ place · plane to the pixels of a row's pairs."""
        stack = row.weight_stacks[room] if self._of_weights else row.stack
        first, second = stack.by_first[self._planes], stack.by_second[self._second_planes]
        if row.number == 0:
            yield _sum(place, first, self._first_here)
        else:
            yield _sum(place, first, self._part)
            yield partial(np.add, self._first_here, self._part, self._first_here)
        into = self._second_here[:, row.behind : row.behind + self._count]
        yield _sum(place, second, self._part)
        yield partial(np.add, into, self._part, into)

    def store(self, start: int) -> None:
        """Put the sums of a strip where they belong, and show those of the next."""
        count, here = self._count, self._second_here
        self._firsts[:, start : start + count] = self._first_here
        self._seconds[:, start : start + count] = here[:, :count]
        here[:, :-count] = here[:, count:]
        here[:, -count:] = 0

    def both(self, channels: slice, where: slice) -> np.ndarray:
        """Return the sums over all pairs of a pixel."""
        return self._firsts[channels, where] + self._seconds[channels, where]

    def apart(self, channels: slice, where: slice) -> np.ndarray:
        """Return the sums over pairs of which a pixel is the first, less those of which it is the second."""
        return self._firsts[channels, where] - self._seconds[channels, where]


def _sum(place: np.ndarray, terms: np.ndarray, out: np.ndarray) -> Step:
    """Return the call for Σ_Δ place · terms, (planes, Δ, pixels); there is no fast product for one Δ."""
    if len(place) == 1:
        return partial(np.multiply, terms[:, 0], place, out)
    return partial(np.matmul, place, terms, out)
