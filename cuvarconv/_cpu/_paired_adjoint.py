"""What a tile of pixels is sent by outputs that share the two σ: each weight serves both its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from cuvarconv._axis import Axis
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._likeness import Block
from cuvarconv._cpu._lines import Lines, Rises, as_real, limited
from cuvarconv._cpu._pairs import Tile
from cuvarconv._cpu._runs import Run
from cuvarconv._cpu._walk import PairSums, Program, Row, Step, Walk
from cuvarconv._window import Window


def paired_tile(
    window: Window, block: Block, grad: np.ndarray, rows: Run, columns: Run, *, image: bool, guide: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients in image and guide at a run of entries, those that are asked for.

    `block` and `grad` are those of the outputs that read the run.
    """
    radius = window.rows.taps // 2
    size = rows.length + 2 * radius, columns.length + 2 * radius
    axes = around(window.rows, rows, 2 * radius), around(window.columns, columns, 2 * radius)
    lines = Lines.of(block, Window(axes[0], axes[1], window.cval), *size)
    scratch = 1 + guide * len(lines.likeness.features)  # planes from there on are free
    walk = Walk(lines.tile, lines.likeness, scratch + 2 * len(lines.pixels), twice=True)
    shares = _Shares(lines, walk, grad, rows, columns, mean=guide)
    sent = _Sent(lines, walk, shares, scratch) if image else None
    pulled = _Pulled(lines, walk, shares, scratch) if guide else None
    asked = [each for each in (pulled, sent) if each is not None]

    def first(row: Row, room: int) -> Iterator[Step]:
        yield from walk.weigh(row, room)
        yield from shares.add(row, room)

    def again(row: Row, room: int) -> Iterator[Step]:
        yield from walk.weigh_again(row, room, differences=guide)
        for each in asked:
            yield from each.add(row, room)

    programs = Program(walk, first, shares.sums), Program(walk, again, [each.sums for each in asked])
    for ahead in range(len(walk.strips) + walk.lag):
        if ahead < len(walk.strips):
            programs[0].run(ahead)
            shares.divide(walk.end(ahead))
        if ahead >= walk.lag:  # all their shares are there
            programs[1].run(ahead - walk.lag)
    inner = ..., slice(radius, radius + rows.length), slice(radius, radius + columns.length)
    none = np.empty((0, 0))
    return sent.total()[inner] if sent else none, pulled.total()[inner] if pulled else none


def around(axis: Axis, run: Run, radius: int) -> Axis:
    """Return a window of one tap that reads a run of entries and a margin."""
    start = axis.start + run.first - radius
    return replace(axis, taps=1, start=start, length=run.length + 2 * radius)


def _placed(values: np.ndarray, tile: Tile, rows: Run, columns: Run) -> np.ndarray:
    """Lay outputs at their centres in a tile with its margin, 0 where there are none."""
    placed = zeros((*values.shape[:-2], tile.height + 2 * tile.radius, tile.row), values.dtype)
    top, left = (run.hull.start + 3 * tile.radius - run.first for run in (rows, columns))
    placed[..., top : top + values.shape[-2], left : left + values.shape[-1]] = values
    return placed


class _Shares:
    """The shares g/D of the outputs in line, and a = Σ (x − y) g/D, as D and y become known."""

    def __init__(
        self, lines: Lines, walk: Walk, grad: np.ndarray, rows: Run, columns: Run, *, mean: bool
    ) -> None:
        tile = lines.tile
        self._lines = lines
        values = grad if lines.dtype.kind == "c" else grad.real
        placed = _placed(values, tile, rows, columns)
        outputs = np.ones((*tile.samples, 1, *grad.shape[-2:]), bool)
        self._outputs = tile.flat(_placed(outputs, tile, rows, columns))
        self.line = tile.flat(as_real(placed))
        self.apart = zeros((1, lines.likeness.features.shape[1]), lines.likeness.features.dtype)
        self._norm = PairSums(walk, 1)
        self._rises = Rises(lines, walk) if mean else None
        self._drift = PairSums(walk, len(lines.pixels), self._rises.planes) if self._rises else None
        self._done = 0

    @property
    def sums(self) -> list[PairSums]:
        """The sums of the filter."""
        return [self._norm, self._drift] if self._drift else [self._norm]

    def add(self, row: Row, room: int) -> Iterator[Step]:
        """Yield the calls that add pairs to them."""
        yield from self._norm.add(row, room, row.place)
        if self._rises and self._drift:
            yield from self._rises.weigh(row, room)
            yield from self._drift.add(row, room, row.place)

    def divide(self, end: int) -> None:
        """Finish the shares of all pixels before `end`."""
        where = slice(self._done, end)
        norm = self._norm.both(slice(1), where) + (1 + self._lines.alike(where))
        shares = self.line[:, where]
        shares /= norm
        np.copyto(shares, 0, where=~self._outputs[:, where])
        if self._drift:
            drift = self._drift.apart(slice(None), where) / norm
            np.add.reduce(drift * -shares, axis=0, keepdims=True, out=self.apart[:, where])
        self._done = end


class _Sent:
    """What each pixel is sent by its pairs, Σ w g/D."""

    def __init__(self, lines: Lines, walk: Walk, shares: _Shares, scratch: int) -> None:
        self._lines, self._shares, self._line = lines, shares.line, walk.line(shares.line)
        channels = len(shares.line)
        self._to_first = slice(scratch, scratch + channels)
        self._to_second = slice(scratch + channels, scratch + 2 * channels)
        self.sums = PairSums(walk, channels, self._to_first, self._to_second)

    def add(self, row: Row, room: int) -> Iterator[Step]:
        """Yield the calls that add some pairs."""
        shares, number, weights = self._line, row.number, row.weights(room)
        yield partial(np.multiply, shares.seconds[number], weights, row.planes[self._to_first])
        yield partial(np.multiply, shares.firsts[number], weights, row.planes[self._to_second])
        yield from self.sums.add(row, room, row.place)

    def total(self) -> np.ndarray:
        """Return the sums, with what pixels send to themselves."""
        pixels = slice(self._lines.tile.pixels)
        own = self._shares[:, pixels] * (1 + self._lines.alike(pixels))
        return self._lines.values(self.sums.both(slice(None), pixels) + own)


class _Pulled:
    """How the features of each pixel are drawn to, or away from, those of its pairs.

    Both weights of a pair draw: e[p,q] + e[q,p] = w ((x(q) − x(p)) (g(p)/D(p) − g(q)/D(q)) + a(p) + a(q)).
    """

    def __init__(self, lines: Lines, walk: Walk, shares: _Shares, scratch: int) -> None:
        self._lines, channels, features = lines, len(shares.line), len(lines.likeness.features)
        self._pixels = walk.line(lines.pixels) if lines.joint else None
        self._shares, self._apart = walk.line(shares.line), walk.line(shares.apart)
        self._differences = slice(1, 1 + features)
        self._products = slice(scratch, scratch + channels)
        self._others = slice(scratch + channels, scratch + 2 * channels)
        self.sums = PairSums(walk, features, self._differences)

    def add(self, row: Row, room: int) -> Iterator[Step]:
        """Yield the calls that add some pairs."""
        number, shares, apart, pixels = row.number, self._shares, self._apart, self._pixels
        products, others = row.flat[self._products], row.flat[self._others]
        differences = rise = row.flat[self._differences]
        if pixels is not None:
            rise, rises = others, row.planes[self._others]
            yield partial(np.subtract, pixels.seconds[number], pixels.firsts[number], rises)
        between = row.planes[self._products]
        yield partial(np.subtract, shares.firsts[number], shares.seconds[number], between)
        yield partial(np.multiply, products, rise, products)
        slope, flat_slope = between[0], products[0]
        if len(products) > 1:
            yield partial(np.add.reduce, products[1:], 0, None, others[0])
            yield partial(np.add, flat_slope, others[0], flat_slope)
        yield partial(np.add, slope, apart.firsts[number][0], slope)
        yield partial(np.add, slope, apart.seconds[number][0], slope)
        yield partial(np.multiply, flat_slope, row.flat_weights(room), flat_slope)
        yield partial(np.multiply, differences, flat_slope, differences)
        yield from self.sums.add(row, room, row.place)

    def total(self) -> np.ndarray:
        """Return the gradient in the features."""
        lines, likeness, pixels = self._lines, self._lines.likeness, slice(self._lines.tile.pixels)
        total = self.sums.apart(slice(None), pixels)
        scale = limited(2 * likeness.sharpness * likeness.unit / lines.unit, total.dtype)
        return lines.of_features(total * scale + lines.alike(pixels))
