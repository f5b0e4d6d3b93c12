"""What the outputs of the bilateral filter send to a block of pixels: the gradients in image and guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._likeness import Block, Tap, Widths, cut
from cuvarconv._cpu._moments import RowSum, Sums
from cuvarconv._cpu._paired_adjoint import around, paired_tile
from cuvarconv._cpu._runs import Run, spread_tiles
from cuvarconv._cpu._tiles import gather
from cuvarconv._cpu.bilateral import Filter, batch_part

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
        total = zeros((*outer, channels, *size), dtype)

        def tile_of(rows: Run, columns: Run) -> np.ndarray:
            image, guide = (Adjoint._pairs if paired else _mapped_tile)(self, batch, rows, columns)
            if not self.guide:
                return image
            return np.concatenate([image, guide], axis=-3) if self.image else guide

        spread_tiles(total, self.filter.window, down, across, tile_of)
        return total

    def _paired(self, batch: list[slice], planes: np.ndarray, features: np.ndarray) -> bool:
        """Whether pairs share their weight, and there is room for a tile of them."""
        some = self.filter
        spatial, likeness = (part[batch_part(part, batch)] for part in (some.sigma_spatial, some.sigma_range))
        if spatial.size != 1 or likeness.size != 1:
            return False
        widths = Widths.of(spatial, likeness, some.radius, some.truncate, some.real)
        channels = planes[..., 0, 0].size + features[..., 0, 0].size
        fits = channels * (2 * some.radius + 1) ** 2 <= _PAIRED
        return bool(widths.shared and not widths.still.any() and fits)

    def _pairs(self, batch: list[slice], rows: Run, columns: Run) -> tuple[np.ndarray, np.ndarray]:
        block = self.filter.block((*batch, rows.hull, columns.hull))
        grad = self.gradient(batch, rows.hull, columns.hull, block.dtype)
        return paired_tile(self.filter.window, block, grad, rows, columns, image=self.image, guide=self.guide)

    def gradient(self, batch: list[slice], down: slice, across: slice, dtype: np.dtype) -> np.ndarray:
        """Return g of a block of outputs."""
        return self.grad[(*batch, slice(None), down, across)].astype(dtype, copy=False)


def _inner(shares: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return Σ_c Re(conj(a) b)."""
    products = (shares.conj() * values).real if np.iscomplexobj(shares) else shares * values
    return products[..., 0, :, :] if products.shape[-3] == 1 else np.add.reduce(products, axis=-3)


# ---- maps: each output has weights of its own


def _mapped_tile(
    adjoint: Adjoint, batch: list[slice], rows: Run, columns: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a run of entries is sent, and what it gathers itself as the centre of windows."""
    outputs = _Outputs.of(adjoint, batch, rows.hull, columns.hull)
    block, widths, radius = outputs.block, outputs.block.widths, adjoint.filter.radius
    planes, features = _entries(adjoint.filter, block, rows, columns)
    central, size = block.central_features, (rows.length, columns.length)
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
            rises = block.rises(planes[entries], differences, where)
            tap = widths.part(*where).tap(down.tap - radius, across.tap - radius, rises, differences)
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
    drift: np.ndarray  # Σ_c g (y − x)/D, with the image x at the centres
    sharpness: np.ndarray  # √2/σ_r, (…, 1, h, w)
    drawn: np.ndarray  # how the features at the centres are drawn to those of all taps, if asked for

    @classmethod
    def of(cls, adjoint: Adjoint, batch: list[slice], down: slice, across: slice) -> _Outputs:
        """Filter a block."""
        block = adjoint.filter.block((*batch, down, across), moving=True, relative=adjoint.guide)
        widths = block.widths
        grad = adjoint.gradient(batch, down, across, block.dtype)
        sums, apart, drawn = _draw_all(block, grad, guide=adjoint.guide)
        shares, drift = grad / sums.norm, sums.drift()
        sharpness = np.minimum(2 * widths.sharpness[..., None, :, :], np.finfo(block.real).max)
        drawn -= _inner(grad, drift)[..., None, :, :] * apart
        drawn = drawn / sums.norm * sharpness
        drawn = np.where(widths.still[..., None, :, :], 0, drawn)
        return cls(block, grad, shares, _inner(shares, drift), sharpness, drawn)

    def draw(self, tap: Tap, where: tuple[slice, slice]) -> np.ndarray:
        """Return how some outputs draw a tap's features to those at their centres."""
        part = (..., *where)
        slope = _inner(self.shares[part], tap.rises)
        slope -= self.drift[part]
        slope *= tap.weights
        drawn = tap.differences * slope[..., None, :, :]
        drawn *= cut(self.sharpness, where)
        return tap.exists(drawn)


def _draw_all(block: Block, grad: np.ndarray, *, guide: bool) -> tuple[Sums, np.ndarray, np.ndarray]:
    """Return the sums of the filter; if asked for, of w (f[q] − f[p]), and of that times g·(x[q] − x[p])."""
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
                drawn.row += tap.exists(pull * _inner(grad, tap.rises)[..., None, :, :])
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
        around(some.window.rows, rows, 0).table(),
        around(some.window.columns, columns, 0).table(),
    )
    features = gather(block.features, *tables, some.window.cval, block.real)
    if block.planes is block.features:
        return features, features
    return gather(block.planes, *tables, some.window.cval, block.dtype), features


def _shifted(some: slice, by: int) -> slice:
    return slice(some.start + by, some.stop + by)
