"""What the outputs of the bilateral filter send to a block of pixels: the gradients in image and guide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cuvarconv._axis import Axis
from cuvarconv._cpu._likeness import Block, Tap, Widths, cut
from cuvarconv._cpu._pairs import Pairs, Tile, pair_rows
from cuvarconv._cpu._runs import Run, spread_tiles
from cuvarconv._cpu._tiles import gather
from cuvarconv._cpu.bilateral import Filter, RowSum, Sums, weighted_sums
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
        total = np.zeros((*planes.shape[:-3], channels, *size), dtype)
        paired = self._paired

        def tile_of(rows: Run, columns: Run) -> np.ndarray:
            image, guide = (_paired_tile if paired else _mapped_tile)(self, batch, rows, columns)
            if not self.guide:
                return image
            return np.concatenate([image, guide], axis=-3) if self.image else guide

        spread_tiles(total, self.filter.window, down, across, tile_of)
        return total

    @property
    def _paired(self) -> bool:
        """Whether pairs share their weight, and there is room for a tile of them."""
        some = self.filter
        if some.sigma_spatial.size != 1 or some.sigma_range.shape[-2:] != (1, 1):
            return False
        widths = Widths.of(some.sigma_spatial, some.sigma_range, some.radius, some.truncate, some.real)
        # of a part of a map the window may reach farther than its σ
        shared, moving = widths.shared, not widths.still.any()
        channels = some.input.shape[-3] + some.guide.shape[-3]
        return bool(shared and moving and channels * (2 * some.radius + 1) ** 2 <= _PAIRED)

    def gradient(self, batch: list[slice], down: slice, across: slice, dtype: np.dtype) -> np.ndarray:
        """Return g of a block of outputs."""
        return self.grad[(*batch, slice(None), down, across)].astype(dtype, copy=False)


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
    (sums,) = weighted_sums(block)
    shares = adjoint.gradient(batch, rows.hull, columns.hull, block.dtype) / block.picture(sums.norm)
    mean = block.picture(sums.mean())
    tile = Tile(rows.length, columns.length, radius)
    window = Window(
        _around(some.window.rows, rows, radius),
        _around(some.window.columns, columns, radius),
        some.window.cval,
    )
    tables = window.rows.table(), window.columns.table()
    features = tile.flat(gather(block.features, *tables, window.cval, block.real))
    pixels = features
    if block.planes is not block.features:
        pixels = tile.flat(gather(block.planes, *tables, window.cval, block.dtype))
    shares, mean = (_placed(values, tile, rows, columns) for values in (shares, mean))
    own = tile.shifted(features) - tile.shifted(features) + 1  # NaN where it is not finite
    weight = np.multiply.reduce(own, axis=-3, keepdims=True)
    image = RowSum((*shares.shape[:-1], tile.length), block.dtype)
    image.row += tile.shifted(shares) * weight
    guide = RowSum((*shares.shape[:-3], features.shape[-3], 1, tile.length), block.real)
    guide.row += own - 1
    sharpness = block.widths.sharpness
    falloff = float(block.widths.falloff.reshape(()))
    for row in pair_rows(features, tile, sharpness, falloff, keep=adjoint.guide):
        for pairs in row:
            if adjoint.image:
                _send(image.row, pairs, shares, tile)
            if adjoint.guide:
                _pull(guide.row, pairs, shares, mean, pixels, tile)
        image.end_row()
        guide.end_row()
    slope = guide.total * (2 * sharpness[..., None, :, :])
    return tile.picture(image.total), tile.picture(slope)


def _around(axis: Axis, run: Run, radius: int) -> Axis:
    """Return a window of one tap that reads a run of entries and a margin."""
    start = axis.start + run.first - radius
    return replace(axis, taps=1, start=start, length=run.length + 2 * radius)


def _placed(values: np.ndarray, tile: Tile, rows: Run, columns: Run) -> np.ndarray:
    """Lay outputs at their centres in a flat tile, 0 where there are none."""
    height, width = tile.height + 2 * tile.radius, tile.row
    placed = np.zeros((*values.shape[:-2], height, width), values.dtype)
    top, left = (run.hull.start + 2 * tile.radius - run.first for run in (rows, columns))
    placed[..., top : top + values.shape[-2], left : left + values.shape[-1]] = values
    return tile.flat(placed)


def _send(total: np.ndarray, pairs: Pairs, shares: np.ndarray, tile: Tile) -> None:
    for shift, part in ((pairs.shift, pairs.as_first), (-pairs.shift, pairs.as_second)):
        total += tile.shifted(shares, shift) * part(pairs.weights)[..., None, :, :]


def _pull(
    total: np.ndarray, pairs: Pairs, shares: np.ndarray, mean: np.ndarray, pixels: np.ndarray, tile: Tile
) -> None:
    """Add what both weights of each pair pull its two pixels together or apart."""
    start, stop = tile.first - pairs.shift, tile.first + tile.length
    first, second = slice(start, stop), slice(start + pairs.shift, stop + pairs.shift)
    slope = _inner(shares[..., first], pixels[..., second] - mean[..., first])
    slope += _inner(shares[..., second], pixels[..., first] - mean[..., second])
    slope *= pairs.weights
    pull = pairs.differences * slope[..., None, :, :]
    total += pairs.as_first(pull)
    total -= pairs.as_second(pull)


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
        some = adjoint.filter.block((*batch, down, across), moving=True)
        block = Block(some.planes, some.features, some.window, some.widths, some.dtype)
        grad = adjoint.gradient(batch, down, across, block.dtype)
        sums, apart, drawn = _draw_all(block, grad, guide=adjoint.guide)
        shares, mean = grad / sums.norm, sums.mean()
        sharpness = np.minimum(2 * some.widths.sharpness[..., None, :, :], np.finfo(block.real).max)
        drawn -= _inner(grad, mean)[..., None, :, :] * apart
        drawn = drawn / sums.norm * sharpness
        drawn = np.where(some.widths.still[..., None, :, :], 0, drawn)
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
