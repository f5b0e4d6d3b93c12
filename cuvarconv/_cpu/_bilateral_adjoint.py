"""What the outputs of the bilateral filter send to a block of pixels: the gradients in image and guide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cuvarconv._axis import Axis
from cuvarconv._cpu._likeness import Block, Tap, Widths, cut
from cuvarconv._cpu._lines import Lines, as_real, limited
from cuvarconv._cpu._moments import RowSum, Sums
from cuvarconv._cpu._pairs import Pairs, PairSums, Tile, Walk
from cuvarconv._cpu._runs import Run, spread_tiles
from cuvarconv._cpu._tiles import gather
from cuvarconv._cpu.bilateral import Filter, batch_part
from cuvarconv._window import Window

_PAIRED = 1 << 13  # values under one window


@dataclass(frozen=True)
class Adjoint:
    """A filter, the gradient g in its result, and whose gradient is asked for: image, guide or both."""

    filter: Filter
    grad: np.ndarray
    image: bool
    guide: bool

    def block(self, batch: list[slice], down: slice, across: slice) -> np.ndarray:
        """Return the gradients (…, channels of the image, then of the guide, h, w) of a block of pixels."""
        planes, features = self.filter.images(batch)
        channels = self.image * planes.shape[-3] + self.guide * features.shape[-3]
        size = down.stop - down.start, across.stop - across.start
        dtype = self.filter.dtype if self.image else self.filter.real
        paired = self._paired(batch, planes, features)
        outer = (features if paired and not self.image else planes).shape[:-3]
        total = np.zeros((*outer, channels, *size), dtype)

        def tile_of(rows: Run, columns: Run) -> np.ndarray:
            image, guide = (_paired_tile if paired else _mapped_tile)(self, batch, rows, columns)
            if not self.guide:
                return image
            return np.concatenate([image, guide], axis=-3) if self.image else guide

        spread_tiles(total, self.filter.window, down, across, tile_of)
        return total

    def _paired(self, batch: list[slice], planes: np.ndarray, features: np.ndarray) -> bool:
        """Whether pairs share their weight, and there is room for a tile of them."""
        some = self.filter
        sigmas = (some.sigma_spatial, some.sigma_range)
        parts = [sigma[batch_part(sigma, batch)] for sigma in sigmas]
        if any(part.size != 1 for part in parts):
            return False
        widths = Widths.of(*parts, some.radius, some.truncate, some.real)
        channels = planes[..., 0, 0].size + features[..., 0, 0].size
        fits = channels * (2 * some.radius + 1) ** 2 <= _PAIRED
        return bool(widths.shared and not widths.still.any() and fits)

    def gradient(self, batch: list[slice], down: slice, across: slice, dtype: np.dtype) -> np.ndarray:
        """Return g of a block of outputs, the real part for a real dtype."""
        part = self.grad[(*batch, slice(None), down, across)]
        return (part if dtype.kind == "c" else part.real).astype(dtype, copy=False)


def _inner(shares: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return Σ_c Re(conj(a) b)."""
    products = (shares.conj() * values).real if np.iscomplexobj(shares) else shares * values
    return products[..., 0, :, :] if products.shape[-3] == 1 else np.add.reduce(products, axis=-3)


# ---- pairs: each weight serves both pixels


def _paired_tile(
    adjoint: Adjoint, batch: list[slice], rows: Run, columns: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a run of entries is sent, and what it gathers itself as the centre of windows."""
    some, radius = adjoint.filter, adjoint.filter.radius
    block = some.block((*batch, rows.hull, columns.hull))
    axes = (
        _around(axis, run, 2 * radius)
        for axis, run in ((some.window.rows, rows), (some.window.columns, columns))
    )
    lines = Lines.of(
        block, Window(*axes, some.window.cval), rows.length + 2 * radius, columns.length + 2 * radius
    )
    grad = adjoint.gradient(batch, rows.hull, columns.hull, lines.dtype)
    shares = _Shares(lines, grad, rows, columns, mean=adjoint.guide)
    image = _Sent(lines, shares) if adjoint.image else None
    guide = _Pulled(lines, shares) if adjoint.guide else None
    scratch = 1 + adjoint.guide * len(lines.likeness.features)  # planes from there on are free
    walk = Walk(lines.tile, lines.likeness, scratch + 2 * len(shares.line), twice=True)
    for ahead in range(len(walk.strips) + walk.lag):
        if ahead < len(walk.strips):
            for pairs in walk.pairs(ahead):
                shares.add(pairs)
            shares.divide(walk.end(ahead))
        if ahead >= walk.lag:  # all shares are there
            for pairs in walk.again(ahead - walk.lag, differences=adjoint.guide):
                for each in (guide, image):
                    if each is not None:
                        each.add(pairs, scratch)
    inner = ..., slice(radius, radius + rows.length), slice(radius, radius + columns.length)
    return tuple(np.empty(0) if each is None else each.total()[inner] for each in (image, guide))


class _Shares:
    """The shares g/D of the outputs in line, and a = Σ (x − y) g/D, as D and y become known."""

    def __init__(self, lines: Lines, grad: np.ndarray, rows: Run, columns: Run, *, mean: bool) -> None:
        tile = lines.tile
        self._lines, self._mean = lines, mean
        placed = _placed(grad, tile, rows, columns)
        self._outputs = tile.flat(_placed(np.ones_like(grad, bool), tile, rows, columns))
        self.line = tile.flat(as_real(placed))
        self.apart = np.zeros_like(lines.likeness.features[:1])
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


def _around(axis: Axis, run: Run, radius: int) -> Axis:
    """Return a window of one tap that reads a run of entries and a margin."""
    start = axis.start + run.first - radius
    return replace(axis, taps=1, start=start, length=run.length + 2 * radius)


def _placed(values: np.ndarray, tile: Tile, rows: Run, columns: Run) -> np.ndarray:
    """Lay outputs at their centres in a tile with its margin, 0 where there are none."""
    placed = np.zeros((*values.shape[:-2], tile.height + 2 * tile.radius, tile.row), values.dtype)
    top, left = (run.hull.start + 3 * tile.radius - run.first for run in (rows, columns))
    placed[..., top : top + values.shape[-2], left : left + values.shape[-1]] = values
    return placed


# ---- maps: each output has weights of its own


def _mapped_tile(
    adjoint: Adjoint, batch: list[slice], rows: Run, columns: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a run of entries is sent, and what it gathers itself as the centre of windows."""
    outputs = _Outputs.of(adjoint, batch, rows.hull, columns.hull)
    block, widths, radius = outputs.block, outputs.block.widths, adjoint.filter.radius
    planes, features = _entries(adjoint.filter, block, rows, columns)
    central, size = block.central_features(), (rows.length, columns.length)
    image = RowSum((*outputs.shares.shape[:-2], *size), block.dtype)
    guide = RowSum((*outputs.shares.shape[:-3], features.shape[-3], *size), block.real)
    own, centres = _centres(rows, columns, radius)
    image.row[centres] += np.where(widths.still[..., None, :, :], outputs.grad, 0)[own]
    if adjoint.guide:
        guide.row[centres] += outputs.drawn[own]
    for down in rows.reaches:
        for across in columns.reaches:
            entries = (..., down.entries, across.entries)
            where = (
                _shifted(down.outputs, -rows.hull.start),
                _shifted(across.outputs, -columns.hull.start),
            )
            differences = features[entries] - central[(..., *where)]
            tap = widths.part(*where).tap(
                down.tap - radius, across.tap - radius, planes[entries], differences
            )
            if tap.missing is not None and tap.missing.all():
                continue
            if adjoint.image:
                image.row[entries] += tap.exists(outputs.shares[(..., *where)] * tap.weights[..., None, :, :])
            if adjoint.guide:
                guide.row[entries] -= outputs.draw(tap, where)
        image.end_row()
        guide.end_row()
    return image.total, guide.total


@dataclass(frozen=True)
class _Outputs:
    """A block of outputs and what their gradients need."""

    block: Block
    grad: np.ndarray  # g
    shares: np.ndarray  # g/D
    mean: np.ndarray  # y
    sharpness: np.ndarray  # √2/σ_r, (…, 1, h, w)
    drawn: np.ndarray  # how the features at the centres are drawn to those of all taps, if asked for

    @classmethod
    def of(cls, adjoint: Adjoint, batch: list[slice], down: slice, across: slice) -> _Outputs:
        """Filter a block."""
        block = adjoint.filter.block((*batch, down, across), moving=True)
        widths = block.widths
        grad = adjoint.gradient(batch, down, across, block.dtype)
        sums, apart, drawn = _draw_all(block, grad, guide=adjoint.guide)
        shares, mean = grad / sums.norm, sums.mean()
        sharpness = np.minimum(2 * widths.sharpness[..., None, :, :], np.finfo(block.real).max)
        drawn -= _inner(grad, mean)[..., None, :, :] * apart
        drawn = drawn / sums.norm * sharpness
        drawn = np.where(widths.still[..., None, :, :], 0, drawn)
        return cls(block, grad, shares, mean, sharpness, drawn)

    def draw(self, tap: Tap, where: tuple[slice, slice]) -> np.ndarray:
        """Return how some outputs draw a tap's features to those at their centres."""
        part = (..., *where)
        slope = _inner(self.shares[part], tap.pixels - self.mean[part])
        slope *= tap.weights
        drawn = tap.differences * slope[..., None, :, :]
        drawn *= cut(self.sharpness, where)
        return tap.exists(drawn)


def _draw_all(block: Block, grad: np.ndarray, *, guide: bool) -> tuple[Sums, np.ndarray, np.ndarray]:
    """Return the sums of the filter, and, if asked for, Σ_q w (f[q] − f[p]) and the same with g·x[q]."""
    sums = Sums(block)
    channels = block.features.shape[-3] if guide else 1
    shape = (*grad.shape[:-3], channels, *grad.shape[-2:])
    apart, drawn = RowSum(shape, block.real), RowSum(shape, block.real)
    for row in block.rows():
        for tap in row:
            sums.add(tap.weights, tap)
            if guide:
                pull = tap.exists(tap.differences * tap.weights[..., None, :, :])
                apart.row += pull
                drawn.row += tap.exists(pull * _inner(grad, tap.pixels)[..., None, :, :])
        for some in (sums, apart, drawn):
            some.end_row()
    return sums, apart.total, drawn.total


def _centres(rows: Run, columns: Run, radius: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the outputs, counted along the hull, whose centres lie in a run, and these entries."""
    outputs, entries = [], []
    for run in (rows, columns):
        first = max(run.hull.start + radius, run.first)
        last = max(first, min(run.hull.stop + radius, run.first + run.length))
        outputs.append(slice(first - radius - run.hull.start, last - radius - run.hull.start))
        entries.append(slice(first - run.first, last - run.first))
    return (..., *outputs), (..., *entries)


def _entries(some: Filter, block: Block, rows: Run, columns: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return image and guide at a run of entries."""
    tables = (
        _around(some.window.rows, rows, 0).table(),
        _around(some.window.columns, columns, 0).table(),
    )
    features = gather(block.features, *tables, some.window.cval, block.real)
    if block.planes is block.features:
        return features, features
    return gather(block.planes, *tables, some.window.cval, block.dtype), features


def _shifted(some: slice, by: int) -> slice:
    return slice(some.start + by, some.stop + by)
