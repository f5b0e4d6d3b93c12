"""What the outputs of the bilateral filter send to a block of pixels: the gradients in image and guide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._likeness import Block, Taps, Widths
from cuvarconv._cpu._moments import RowSum, mapped_sums
from cuvarconv._cpu._paired_adjoint import paired_tile
from cuvarconv._cpu._runs import Run, spread_tiles
from cuvarconv._cpu.bilateral import Filter, batch_part

_PAIRED = 1 << 13  # values under one window
_TAPS = 5 << 18  # bytes of an array of taps that are weighed at once


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
    return np.add.reduce(products, axis=-3)


def _rise(shares: np.ndarray, taps: Taps) -> np.ndarray:
    """Return Σ_c Re(conj(a) (x(q) − x(p))) for some taps."""
    if shares.shape[-3] > 1 or np.iscomplexobj(shares):
        return _inner(shares, taps.rises)
    return taps.product(shares[..., 0, :, :], taps.rises[..., 0, :, :])


# ---- maps: each output has weights of its own


def _mapped_tile(
    adjoint: Adjoint, batch: list[slice], rows: Run, columns: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a run of entries is sent, and what it gathers itself as the centre of windows.

    All that the windows of the outputs read is summed up, which is more than the run.
    """
    outputs = _Outputs.of(adjoint, batch, rows.hull, columns.hull)
    block, radius = outputs.block, adjoint.filter.radius
    height, width = block.window.output_shape
    size = height + 2 * radius, width + 2 * radius
    image = RowSum((*outputs.shares.shape[:-2], *size), block.dtype)
    guide = RowSum((*outputs.shares.shape[:-3], block.features.shape[-3], *size), block.real)
    centres = ..., slice(radius, radius + height), slice(radius, radius + width)
    image.row[centres] += np.where(block.widths.still[..., None, :, :], outputs.grad, 0)
    pulled = RowSum(guide.row[centres].shape, block.real)
    for row in block.rows():
        for taps in row:
            if adjoint.image:
                sent = taps.product(outputs.shares, taps.weights[..., None, :, :])
                for place, part in zip(_reached(image.row, taps, radius), taps.exists(sent), strict=True):
                    np.add(place, part, place)
            if adjoint.guide:
                drawn = outputs.draw(taps)
                for place, part in zip(_reached(guide.row, taps, radius), drawn, strict=True):
                    np.subtract(place, part, place)
                pulled.add(drawn)
        for sums in (image, guide, pulled):
            sums.end_row()
    guide.total[centres] += pulled.total
    down, across = (
        slice(run.first - run.hull.start, run.first - run.hull.start + run.length) for run in (rows, columns)
    )
    return image.total[..., down, across], guide.total[..., down, across]


def _reached(sums: np.ndarray, taps: Taps, radius: int) -> Iterator[np.ndarray]:
    """Yield the sums under each tap."""
    height, width = taps.weights.shape[-2:]
    first = radius + taps.down
    for across in taps.across:
        yield sums[..., first : first + height, radius + across : radius + across + width]


@dataclass(frozen=True)
class _Outputs:
    """A block of outputs and what their gradients need."""

    block: Block
    grad: np.ndarray  # g
    shares: np.ndarray  # g/D
    drift: np.ndarray  # Σ_c g (y − x)/D, with the image x at the centres
    sharpness: np.ndarray  # √2/σ_r, (…, 1, h, w)

    @classmethod
    def of(cls, adjoint: Adjoint, batch: list[slice], down: slice, across: slice) -> _Outputs:
        """Filter a block."""
        block = adjoint.filter.block(
            (*batch, down, across), moving=True, relative=adjoint.guide, together=_TAPS
        )
        grad = adjoint.gradient(batch, down, across, block.dtype)
        (sums,) = mapped_sums(block)
        shares = grad / sums.norm
        sharpness = np.minimum(2 * block.widths.sharpness[..., None, :, :], np.finfo(block.real).max)
        return cls(block, grad, shares, _inner(shares, sums.drift()), sharpness)

    def draw(self, taps: Taps) -> np.ndarray:
        """Return how the outputs draw the features under taps to those at their centres."""
        slope = _rise(self.shares, taps)
        slope -= self.drift
        slope *= taps.weights
        drawn = taps.product(taps.differences, slope[..., None, :, :])
        drawn *= self.sharpness
        return taps.exists(drawn)
