"""What a tile of pixels is sent by outputs that share the two σ: each weight serves both its pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cuvarconv._axis import Axis
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._likeness import Block
from cuvarconv._cpu._lines import Lines, as_real, limited
from cuvarconv._cpu._pairs import Pairs, PairSums, Tile, Walk
from cuvarconv._cpu._runs import Run
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
    shares = _Shares(lines, grad, rows, columns, mean=guide)
    sent, pulled = (_Sent(lines, shares) if image else None), (_Pulled(lines, shares) if guide else None)
    asked = [each for each in (pulled, sent) if each is not None]
    scratch = 1 + guide * len(lines.likeness.features)  # planes from there on are free
    walk = Walk(lines.tile, lines.likeness, scratch + 2 * len(shares.line), twice=True)
    for ahead in range(len(walk.strips) + walk.lag):
        if ahead < len(walk.strips):
            for pairs in walk.pairs(ahead):
                shares.add(pairs)
            shares.divide(walk.end(ahead))
        if ahead >= walk.lag:  # all their shares are there
            for pairs in walk.again(ahead - walk.lag, differences=guide):
                for each in asked:
                    each.add(pairs, scratch)
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

    def __init__(self, lines: Lines, grad: np.ndarray, rows: Run, columns: Run, *, mean: bool) -> None:
        tile = lines.tile
        self._lines, self._mean = lines, mean
        values = grad if lines.dtype.kind == "c" else grad.real
        placed = _placed(values, tile, rows, columns)
        outputs = np.ones((*tile.samples, 1, *grad.shape[-2:]), bool)
        self._outputs = tile.flat(_placed(outputs, tile, rows, columns))
        self.line = tile.flat(as_real(placed))
        self.apart = zeros((1, lines.likeness.features.shape[1]), lines.likeness.features.dtype)
        self._norm = PairSums(1, tile, self.line.dtype)
        self._drift = PairSums(len(lines.pixels) if mean else 0, tile, self.line.dtype)
        self._done = 0

    def add(self, pairs: Pairs) -> None:
        """Add pairs to the sums of the filter."""
        pairs.add_weights(self._norm)
        if self._mean:
            products = slice(1, 1 + len(self._lines.pixels))
            rises = self._lines.rises(pairs)[1:]
            np.multiply(rises, pairs.weights.planes, out=rises)
            pairs.add(self._drift, pairs.row.place, products, products)

    def divide(self, end: int) -> None:
        """Finish the shares of all pixels before `end`."""
        where = slice(self._done, end)
        norm = self._norm.both(slice(1), where) + (1 + self._lines.alike(where))
        shares = self.line[:, where]
        shares /= norm
        np.copyto(shares, 0, where=~self._outputs[:, where])
        if self._mean:
            drift = self._drift.apart(slice(None), where) / norm
            np.add.reduce(drift * -shares, axis=0, keepdims=True, out=self.apart[:, where])
        self._done = end


class _Sent:
    """What each pixel is sent by its pairs, Σ w g/D."""

    def __init__(self, lines: Lines, shares: _Shares) -> None:
        self._lines, self._shares = lines, shares.line
        self._sums = PairSums(len(self._shares), lines.tile, self._shares.dtype)

    def add(self, pairs: Pairs, scratch: int) -> None:
        """Add some pairs."""
        planes, channels = pairs.stack.planes, len(self._shares)
        first, second = slice(scratch, scratch + channels), slice(scratch + channels, scratch + 2 * channels)
        np.multiply(pairs.seconds(self._shares), pairs.weights.planes, out=planes[first])
        np.multiply(pairs.firsts(self._shares), pairs.weights.planes, out=planes[second])
        pairs.add(self._sums, pairs.row.place, first, second)

    def total(self) -> np.ndarray:
        """Return the sums, with what pixels send to themselves."""
        pixels = slice(self._lines.tile.pixels)
        own = self._shares[:, pixels] * (1 + self._lines.alike(pixels))
        return self._lines.values(self._sums.both(slice(None)) + own)


class _Pulled:
    """How the features of each pixel are drawn to, or away from, those of its pairs.

    Both weights of a pair draw: e[p,q] + e[q,p] = w ((x(q) − x(p)) (g(p)/D(p) − g(q)/D(q)) + a(p) + a(q)).
    """

    def __init__(self, lines: Lines, shares: _Shares) -> None:
        self._lines, self._shares, self._apart = lines, shares.line, shares.apart
        self._differences = slice(1, 1 + len(lines.likeness.features))
        self._sums = PairSums(len(lines.likeness.features), lines.tile, shares.line.dtype)

    def add(self, pairs: Pairs, scratch: int) -> None:
        """Add some pairs."""
        planes, pixels, shares = pairs.stack.planes, self._lines.pixels, self._shares
        differences = rise = planes[self._differences]
        products, others = np.split(planes[scratch : scratch + 2 * len(shares)], 2)
        if self._lines.joint:
            rise = np.subtract(pairs.seconds(pixels), pairs.firsts(pixels), out=others)
        np.subtract(pairs.firsts(shares), pairs.seconds(shares), out=products)
        np.multiply(products, rise, out=products)
        slope = products[0] if len(shares) == 1 else np.add.reduce(products, axis=0, out=others[0])
        slope += pairs.firsts(self._apart)[0]
        slope += pairs.seconds(self._apart)[0]
        slope *= pairs.weights.planes[0]
        np.multiply(differences, slope, out=differences)
        pairs.add(self._sums, pairs.row.place, self._differences, self._differences)

    def total(self) -> np.ndarray:
        """Return the gradient in the features."""
        lines, likeness = self._lines, self._lines.likeness
        scale = limited(2 * likeness.sharpness * likeness.unit / lines.unit, self._apart.dtype)
        total = self._sums.apart(slice(None)) * scale
        return lines.of_features(total + lines.alike(slice(lines.tile.pixels)))
