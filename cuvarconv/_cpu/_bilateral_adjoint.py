"""What the outputs of the bilateral filter send to a block of pixels: the gradients in image and guide."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cuvarconv._axis import Axis
from cuvarconv._cpu._likeness import Block, Tap, Widths
from cuvarconv._cpu._pairs import Pairs, Tile, pair_rows
from cuvarconv._cpu._runs import Run, spread_tiles
from cuvarconv._cpu._tiles import gather
from cuvarconv._cpu.bilateral import Filter, RowSum, weighted_sums
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
        if not paired:
            self._add_centres(total, batch, down, across)
        return total

    def _add_centres(self, total: np.ndarray, batch: list[slice], down: slice, across: slice) -> None:
        """Add what the windows whose centres lie in a block of pixels do to these."""
        window = self.filter.window
        rows, columns = _centred(window.rows, down), _centred(window.columns, across)
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return
        pixels = (
            ...,
            _shifted(rows, window.rows.start + window.rows.taps // 2 - down.start),
            _shifted(columns, window.columns.start + window.columns.taps // 2 - across.start),
        )
        if self.image:
            grad = self.grad[(*batch, slice(None), rows, columns)]
            still = self.filter.block((*batch, rows, columns)).widths.still[..., None, :, :]
            total[..., : grad.shape[-3], :, :][pixels] += np.where(still, grad, 0)
        if self.guide:
            drawn = _drawn_together(self, batch, rows, columns)
            total[..., -drawn.shape[-3] :, :, :][pixels] += drawn

    @property
    def _paired(self) -> bool:
        """Whether pairs share their weight, and there is room for a tile of them."""
        some = self.filter
        shared = some.sigma_spatial.size == 1 and some.sigma_range.shape[-2:] == (1, 1)
        moving = (some.sigma_spatial > 0).all() and (some.sigma_range > 0).all()
        channels = some.input.shape[-3] + some.guide.shape[-3]
        return bool(shared and moving and channels * (2 * some.radius + 1) ** 2 <= _PAIRED)

    def outputs(self, batch: list[slice], down: slice, across: slice) -> tuple[Block, np.ndarray, np.ndarray]:
        """Return a block of outputs, g/D, and y."""
        block = self.filter.block((*batch, down, across), moving=True)
        (sums,) = weighted_sums(block)
        grad = self.grad[(*batch, slice(None), down, across)].astype(block.dtype, copy=False)
        return block, grad / block.picture(sums.norm), block.picture(sums.mean())


def _slopes(shares: np.ndarray, pixels: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return Σ_c Re(conj(g) (x − y))/D, what the loss gains by a weight."""
    products = np.multiply(np.conjugate(shares), pixels - mean).real
    return products[..., 0, :, :] if products.shape[-3] == 1 else np.add.reduce(products, axis=-3)


# ---- pairs: each weight serves both pixels


def _paired_tile(
    adjoint: Adjoint, batch: list[slice], rows: Run, columns: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a run of entries is sent, and what it gathers itself as the centre of windows."""
    some, radius = adjoint.filter, adjoint.filter.radius
    block, shares, mean = adjoint.outputs(batch, rows.hull, columns.hull)
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
    slope = _slopes(shares[..., first], pixels[..., second], mean[..., first])
    slope += _slopes(shares[..., second], pixels[..., first], mean[..., second])
    slope *= pairs.weights
    pull = pairs.differences * slope[..., None, :, :]
    total += pairs.as_first(pull)
    total -= pairs.as_second(pull)


# ---- maps: each output has weights of its own


def _mapped_tile(
    adjoint: Adjoint, batch: list[slice], rows: Run, columns: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a run of entries is sent by the outputs that read it."""
    block, shares, mean = adjoint.outputs(batch, rows.hull, columns.hull)
    planes, features = _entries(adjoint.filter, block, rows, columns)
    central, radius = block.central_features(), adjoint.filter.radius
    size = rows.length, columns.length
    image = RowSum((*shares.shape[:-2], *size), block.dtype)
    guide = RowSum((*shares.shape[:-3], features.shape[-3], *size), block.real)
    for down in rows.reaches:
        for across in columns.reaches:
            entries = (..., down.entries, across.entries)
            outputs = (
                ...,
                _shifted(down.outputs, -rows.hull.start),
                _shifted(across.outputs, -columns.hull.start),
            )
            differences = features[entries] - central[outputs]
            widths = block.widths.part(*outputs[1:])
            tap = widths.tap(down.tap - radius, across.tap - radius, planes[entries], differences)
            if tap.missing is not None and tap.missing.all():
                continue
            if adjoint.image:
                image.row[entries] += tap.exists(shares[outputs] * tap.weights[..., None, :, :])
            if adjoint.guide:
                guide.row[entries] -= _drawn(tap, shares[outputs], mean[outputs], widths)
        image.end_row()
        guide.end_row()
    return image.total, guide.total


def _entries(some: Filter, block: Block, rows: Run, columns: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return image and guide at a run of entries."""
    across, down = (
        _around(some.window.columns, columns, 0).table(),
        _around(some.window.rows, rows, 0).table(),
    )
    features = gather(block.features, down, across, some.window.cval, block.real)
    if block.planes is block.features:
        return features, features
    return gather(block.planes, down, across, some.window.cval, block.dtype), features


def _shifted(some: slice, by: int) -> slice:
    return slice(some.start + by, some.stop + by)


def _centred(axis: Axis, pixels: slice) -> slice:
    """Return the outputs whose centres are some neighbouring pixels."""
    shift = axis.start + axis.taps // 2
    return slice(max(0, pixels.start - shift), min(axis.length, pixels.stop - shift))


def _drawn(tap: Tap, shares: np.ndarray, mean: np.ndarray, widths: Widths) -> np.ndarray:
    """Return how a tap draws its pixel's features to those at the centre."""
    slope = _slopes(shares, tap.pixels, mean) * tap.weights
    drawn = tap.differences * slope[..., None, :, :]
    drawn *= widths.sharpness[..., None, :, :]
    drawn *= 2
    return tap.exists(drawn)


def _drawn_together(adjoint: Adjoint, batch: list[slice], rows: slice, columns: slice) -> np.ndarray:
    """Return how the centres of a block's windows are drawn to all taps."""
    block, shares, mean = adjoint.outputs(batch, rows, columns)
    total = RowSum((*shares.shape[:-3], block.features.shape[-3], *shares.shape[-2:]), block.real)
    for row in Block.rows(block, keep=True):
        for tap in row:
            total.row += _drawn(tap, shares, mean, block.widths)
        total.end_row()
    return total.total
