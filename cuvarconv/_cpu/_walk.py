"""Strip by strip through all pairs of pixels that share their weight.

All views that a strip needs are made once, and what they show is replaced for the next strip, so that NumPy's
calls follow each other closely and threads seldom wait for the interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cuvarconv._cpu._aligned import empty, pitch, zeros
from cuvarconv._cpu._pairs import Likeness, Tile

_BYTES = 1 << 22  # of pairs that are taken together: few calls, for which threads wait for each other
_LONGEST = 12288  # first pixels of them; NumPy copies what it reads in pieces where lines are below 4096
_SHORTEST = 64  # where there are many channels
_FEWEST = 4  # offsets
_KEPT = 12 << 20  # bytes of weights that are kept for their second use
FAR = 1000.0  # of an exponent: such a weight is 0, and 0 times infinity would be NaN


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
        self.turn(0)

    def turn(self, strip: int) -> None:
        """Use the room for the weights of a strip."""
        self.room = strip % len(self.weight_stacks)
        stack = self.weight_stacks[self.room]
        self.weights, self.flat_weights = stack.planes[0], stack.flat[0]


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
        buffer = empty((total * room,), features.dtype)
        for row in self.rows:
            row.make_room(buffer, total, count, self._kept)
        self._lines: list[Line] = []
        self._features = self.line(features)
        self._minus, self._ones = self.dtype.type(-likeness.sharpness), np.ones(len(features), self.dtype)
        self.start = 0  # of the strip at hand

    def line(self, values: np.ndarray) -> Line:
        """Show an image in line to the pairs; what it has when a strip comes counts."""
        self._lines.append(Line(values, self.rows, self.count))
        return self._lines[-1]

    def end(self, strip: int) -> int:
        """Return the first pixel behind a strip."""
        return min((strip + 1) * self.count, self._end)

    def pairs(self, strip: int) -> Iterator[Row]:
        """Yield the pairs of a strip, in its turn."""
        for row in self._enter(strip):
            self._weigh(row)
            yield row

    def again(self, strip: int, *, differences: bool) -> Iterator[Row]:
        """Yield pairs once more, at most `lag` strips later, with differences if asked for."""
        for row in self._enter(strip):
            if self._kept is None:
                self._weigh(row)
            elif differences:
                self._subtract(row)
            yield row

    def _enter(self, strip: int) -> list[Row]:
        self.start = strip * self.count
        for line in self._lines:
            line.move(self.start)
        for row in self.rows:
            row.turn(strip)
        return self.rows

    def _subtract(self, row: Row) -> None:
        features, number = self._features, row.number
        differences = row.planes[1 : 1 + len(self._likeness.features)]
        np.subtract(features.seconds[number], features.firsts[number], differences)

    def _weigh(self, row: Row) -> None:
        self._subtract(row)
        count, weights = len(self._likeness.features), row.flat_weights
        squares = row.flat[-1] if self._squares else weights
        if count == 1:
            np.multiply(row.flat[1], row.flat[1], squares)
        else:
            differences, spare = row.flat[1 : 1 + count], row.flat[1 + count : 1 + 2 * count]
            np.matmul(self._ones, np.multiply(differences, differences, spare), squares)
        np.multiply(squares, self._minus, weights)
        if self._squares and not self._likeness.bounded:
            np.minimum(squares, FAR / self._likeness.sharpness, out=squares)
        np.exp(weights, weights)


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
        self._walk = walk
        self._firsts, self._seconds = (zeros((channels, walk.pixels), walk.dtype) for _ in range(2))
        self._part = empty((channels, walk.count), walk.dtype)
        of_weights = first is None
        first = slice(None) if first is None else first
        second = first if second is None else second
        self._terms = []  # of each row, for each room that its weights may have
        for row in walk.rows:
            rooms = row.weight_stacks
            stacks = rooms if of_weights else [row.stack] * len(rooms)
            self._terms.append([(stack.by_first[first], stack.by_second[second]) for stack in stacks])

    def add(self, row: Row, place: np.ndarray) -> None:
        """Add Σ_Δ place · plane to the pixels of a row's pairs."""
        first, second = self._terms[row.number][row.room]
        start, count = self._walk.start, self._walk.count
        self._add(self._firsts[:, start : start + count], place, first)
        start += row.behind
        self._add(self._seconds[:, start : start + count], place, second)

    def _add(self, into: np.ndarray, place: np.ndarray, terms: np.ndarray) -> None:
        if terms.shape[1] == 1:  # for which there is no fast product
            np.multiply(terms[:, 0], place, self._part)
        else:
            np.matmul(place, terms, self._part)
        np.add(into, self._part, into)

    def both(self, channels: slice, where: slice) -> np.ndarray:
        """Return the sums over all pairs of a pixel."""
        return self._firsts[channels, where] + self._seconds[channels, where]

    def apart(self, channels: slice, where: slice) -> np.ndarray:
        """Return the sums over pairs of which a pixel is the first, less those of which it is the second."""
        return self._firsts[channels, where] - self._seconds[channels, where]
