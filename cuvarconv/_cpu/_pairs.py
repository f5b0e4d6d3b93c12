"""Pairs of pixels that share their weight, where all pixels share the two σ."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cuvarconv._cpu._aligned import empty, pitch, zeros

_BYTES = 1 << 22  # of pairs that are taken together: few calls, for which threads wait for each other
_LINE = 24576  # first pixels of them; NumPy copies what it reads in pieces where lines are below 4096
_SHORTEST = 64  # where there are many channels
_FEWEST = 4  # offsets
_KEPT = 12 << 20  # bytes of weights that are kept for their second use
FAR = 1000.0  # of an exponent: such a weight is 0, and 0 times infinity would be NaN


@dataclass(frozen=True)
class Tile:
    """A block of pixels within a margin as wide as the window reaches, its rows laid end to end.

    Then q − p is one number for each offset Δ, and all pairs of an offset are two slices.  The rows of
    all images with a guide of their own are in one line; images that share theirs are channels of it.
    Pairs that have no pixel in the block, between two rows or images, are never read.
    """

    height: int
    width: int
    radius: int
    samples: tuple[int, ...]  # of the guide: batch axes, 1 where images share it

    @cached_property
    def row(self) -> int:
        """Length of a row with its margins."""
        return self.width + 2 * self.radius

    @cached_property
    def first(self) -> int:
        """Where the block begins; as much lies behind its end."""
        return self.radius * self.row + self.radius

    @cached_property
    def pixels(self) -> int:
        """How many pixels there are in line."""
        return math.prod(self.samples) * (self.height + 2 * self.radius) * self.row

    @cached_property
    def _order(self) -> list[int]:
        """The axes of (batch…, C, rows, columns) as they lie in line: what is shared, C, the others."""
        shared = [axis for axis, length in enumerate(self.samples) if length == 1]
        others = [axis for axis, length in enumerate(self.samples) if length != 1]
        return [*shared, len(self.samples), *others, -2, -1]

    def flat(self, planes: np.ndarray) -> np.ndarray:
        """Lay a gathered tile (…, C, rows, columns) in line, (channels, pixels and some zeros)."""
        every = planes.transpose(self._order)
        channels = math.prod(every.shape[: self.samples.count(1) + 1])
        line = zeros((channels, self.pixels + 2 * self.radius), planes.dtype)
        line[:, : self.pixels] = every.reshape(channels, -1)
        return line

    def picture(self, line: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
        """Return values of the block's pixels as (batch…, C, rows, columns)."""
        shared = [axis for axis, length in enumerate(self.samples) if length == 1]
        outer = [batch[axis] for axis in shared]
        kept = [length for length in self.samples if length != 1]
        size = self.height + 2 * self.radius, self.row
        every = line[:, : self.pixels].reshape(*outer, line.shape[0] // math.prod(outer), *kept, *size)
        inner = every[..., self.radius : self.radius + self.height, self.radius : self.radius + self.width]
        first = len(self.samples) + 1
        return inner.transpose(*map(self._order.index, range(first)), -2, -1)


@dataclass(frozen=True)
class Likeness:
    """The features of a tile in line, and how their differences and distances weigh.

    Features are multiplied by a power of two near 1/(√2 σ_r), the unit, which is exact, and keeps them and
    the squares of those differences that matter within the range of numbers.
    """

    features: np.ndarray  # (features, pixels)
    unit: float
    sharpness: float  # 1/(2 σ_r²) in these units
    falloff: float  # 1/(2 σ_s²)
    finite: bool  # whether all features are
    bounded: bool  # whether all squares are finite too

    @classmethod
    def of(cls, features: np.ndarray, sharpness: float, falloff: float) -> Likeness:
        """Take features in their own units, which are scaled in place, and 1/(√2 σ_r)."""
        limits = np.finfo(features.dtype)
        most, finite = largest(features)
        exponent = math.frexp(most)[1]
        near = math.frexp(sharpness)[1] if sharpness else limits.minexp
        near = max(near, limits.minexp, limits.minexp // 4 - exponent)
        unit = 2.0 ** min(near, limits.maxexp - 3, limits.maxexp - 3 - exponent)
        np.multiply(features, features.dtype.type(unit), out=features)
        scaled = min(sharpness / unit * (sharpness / unit), float(limits.max))
        bounded = finite and 4 * len(features) * (most * unit) * (most * unit) < float(limits.max)
        return cls(features, unit, scaled, falloff, finite, bounded)

    def place(self, distances: np.ndarray) -> np.ndarray:
        """Return exp(−½|Δ|²/σ_s²), nowhere 0: no tap is skipped."""
        dtype = self.features.dtype
        return np.maximum(np.exp(-self.falloff * distances), np.finfo(dtype).tiny).astype(dtype)


def largest(values: np.ndarray) -> tuple[float, bool]:
    """Return the largest absolute value that is finite, and whether all are."""
    most = max(float(values.max()), -float(values.min()))
    if math.isfinite(most):
        return most, True
    return float(np.max(np.abs(values), where=np.isfinite(values), initial=0)), False


class Stack:
    """Room for values of some pairs: (planes, Δ, p), for neighbouring p and all Δ of a row.

    There are more p than are counted, so that as many second pixels have all their pairs.
    """

    def __init__(self, buffer: np.ndarray, planes: int, taps: int, count: int) -> None:
        length = count + taps - 1
        shape = planes, taps, pitch(length, buffer.dtype)
        self.planes = buffer[: math.prod(shape)].reshape(shape)[..., :length]
        self.by_first = self.planes[..., :count]
        outer, across, inner = self.planes.strides
        self.by_second = np.ndarray(
            self.by_first.shape,
            buffer.dtype,
            buffer,
            (taps - 1) * inner,
            (outer, across - inner, inner),
        )


class Pairs:
    """The pairs (p, p + Δ) of neighbouring p with all Δ of a row."""

    __slots__ = ("row", "stack", "start", "weights")

    def __init__(self, row: Offsets, start: int, stack: Stack, weights: Stack) -> None:
        self.row, self.start, self.stack, self.weights = row, start, stack, weights

    def firsts(self, line: np.ndarray) -> np.ndarray:
        """View values (channels, pixels) at p."""
        return line[:, None, self.start : self.start + self.stack.planes.shape[-1]]

    def seconds(self, line: np.ndarray) -> np.ndarray:
        """View values (channels, pixels) at p + Δ."""
        return self.row.ahead(line)[..., self.start : self.start + self.stack.planes.shape[-1]]

    def add(self, sums: PairSums, place: np.ndarray, first: slice, second: slice) -> None:
        """Add up over Δ, times `place`, those planes that go to first pixels, and those that go to second."""
        sums.add(0, self.start, place, self.stack.by_first[first])
        sums.add(1, self.start + self.row.behind, place, self.stack.by_second[second])

    def add_weights(self, sums: PairSums) -> None:
        """Add up the weights."""
        sums.add(0, self.start, self.row.place, self.weights.by_first)
        sums.add(1, self.start + self.row.behind, self.row.place, self.weights.by_second)


class PairSums:
    """Sums over pairs for each pixel in line, (channels, pixels): as their first, and as their second."""

    def __init__(self, channels: int, tile: Tile, dtype: np.dtype) -> None:
        self._ends = zeros((2, channels, tile.pixels), dtype)
        self._part = np.empty((channels, 0), dtype)

    def add(self, end: int, start: int, place: np.ndarray, terms: np.ndarray) -> None:
        """Add Σ_Δ place · terms to the pixels from `start` on."""
        _, taps, count = terms.shape
        if self._part.shape[-1] != count:
            self._part = empty((len(terms), count), terms.dtype)
        if taps == 1:  # for which there is no fast product
            np.multiply(terms[:, 0], place, out=self._part)
        else:
            np.matmul(place, terms, out=self._part)
        into = self._ends[end, :, start : start + count]
        np.add(into, self._part, out=into)

    def both(self, channels: slice, where: slice = slice(None)) -> np.ndarray:
        """Return the sums over all pairs of a pixel."""
        return self._ends[0, channels, where] + self._ends[1, channels, where]

    def apart(self, channels: slice, where: slice = slice(None)) -> np.ndarray:
        """Return the sums over pairs of which a pixel is the first, less those of which it is the second."""
        return self._ends[0, channels, where] - self._ends[1, channels, where]


class Offsets:
    """Neighbouring Δ in a row of half the window."""

    def __init__(self, down: int, columns: range, tile: Tile, likeness: Likeness) -> None:
        self.shift = down * tile.row + columns.start  # the first of them in line
        self.taps = len(columns)
        self.behind = self.shift + self.taps - 1  # from the first p to the first q that has all its pairs
        self.distances = (down**2 + np.square(np.arange(columns.start, columns.stop))).astype(
            likeness.features.dtype
        )
        self.place = likeness.place(self.distances)
        self._ahead: dict[int, np.ndarray] = {}

    def ahead(self, line: np.ndarray) -> np.ndarray:
        """View values (channels, pixels) at p + Δ for all p, (channels, Δ, p)."""
        view = self._ahead.get(id(line))
        if view is None:
            outer, inner = line.strides
            shape = len(line), self.taps, line.shape[-1] - self.behind
            view = np.ndarray(shape, line.dtype, line, self.shift * inner, (outer, inner, inner))
            self._ahead[id(line)] = view  # which keeps the line alive, and so its identity
        return view


class Walk:
    """All pairs that have a pixel in a tile's block, strip by strip.

    The weights of pairs are exp(−½‖g(p + Δ) − g(p)‖²/σ_r²).  The first plane of their stack holds the same,
    but where weights are kept for use `twice`; the next hold the features' differences g(p + Δ) − g(p), in
    their own units.  There are at least so many `planes`, and then, if asked for, one of the squares
    ‖g(p + Δ) − g(p)‖².  Each stack overwrites the one before.
    """

    def __init__(
        self, tile: Tile, likeness: Likeness, planes: int, *, squares: bool = False, twice: bool = False
    ) -> None:
        features = likeness.features
        self._likeness, self._squares = likeness, squares
        self._first, self._end = tile.first, tile.pixels - tile.first
        planes = max(planes, 1 + len(features)) + squares
        line = _LINE // 2 if twice else _LINE
        most = min(2 * tile.radius + 1, max(_FEWEST, _BYTES // (planes * line * features.itemsize)))
        self._rows = list(_offsets(tile, likeness, most))
        most = max((row.taps for row in self._rows), default=1)
        step = max(_SHORTEST, min(line, _BYTES // (planes * most * features.itemsize)))
        self._step = min(step, self._end)
        length = pitch(self._step + most - 1, features.dtype)
        self._buffer = empty((planes * most * length,), features.dtype)
        self._stack_of = functools.lru_cache(maxsize=4)(functools.partial(Stack, self._buffer, planes))
        self.strips = range(-(-self._end // self._step))
        self.lag = -(-(tile.first + most) // self._step)
        shape = self.lag + 1, len(self._rows), most * length
        fits = twice and math.prod(shape) * features.itemsize <= _KEPT
        self._kept = empty(shape, features.dtype) if fits else None

    def end(self, strip: int) -> int:
        """Return the first pixel behind a strip."""
        return min((strip + 1) * self._step, self._end)

    def _pairs(self, strip: int) -> Iterator[Pairs]:
        for number, row in enumerate(self._rows):
            start = max(strip * self._step, self._first - row.behind)
            count = self.end(strip) - start
            if count > 0:
                weights = self._buffer
                if self._kept is not None:
                    weights = self._kept[strip % len(self._kept), number]
                stack = self._stack_of(row.taps, count)
                yield Pairs(row, start, stack, Stack(weights, 1, row.taps, count))

    def pairs(self, strip: int) -> Iterator[Pairs]:
        """Yield the pairs of a strip, by their first pixels, in its turn."""
        for pairs in self._pairs(strip):
            self._weigh(pairs)
            yield pairs

    def again(self, strip: int, *, differences: bool) -> Iterator[Pairs]:
        """Yield pairs once more, at most `lag` strips later, with differences if asked for."""
        for pairs in self._pairs(strip):
            if self._kept is None:
                self._weigh(pairs)
            elif differences:
                self._subtract(pairs)
            yield pairs

    def _subtract(self, pairs: Pairs) -> np.ndarray:
        features = self._likeness.features
        differences = pairs.stack.planes[1 : 1 + len(features)]
        return np.subtract(pairs.seconds(features), pairs.firsts(features), out=differences)

    def _weigh(self, pairs: Pairs) -> None:
        likeness, weights = self._likeness, pairs.weights.planes[0]
        differences = self._subtract(pairs)
        squares = pairs.stack.planes[-1] if self._squares else weights
        if len(differences) == 1:
            np.multiply(differences[0], differences[0], out=squares)
        else:
            np.einsum("ckt,ckt->kt", differences, differences, out=squares)
        np.multiply(squares, weights.dtype.type(-likeness.sharpness), out=weights)
        if self._squares and not likeness.bounded:
            np.minimum(squares, FAR / likeness.sharpness, out=squares)
        np.exp(weights, out=weights)


def _offsets(tile: Tile, likeness: Likeness, most: int) -> Iterator[Offsets]:
    for down in range(tile.radius + 1):
        columns = range(-tile.radius if down else 1, tile.radius + 1)
        parts = -(-len(columns) // most)
        for part in range(parts):
            some = slice(*(len(columns) * at // parts for at in (part, part + 1)))
            yield Offsets(down, columns[some], tile, likeness)
