"""Sums under wide Gaussians as matrix products, which take more operations, but at another rate.

For pixels j in a run of row i, with the weights a_m of distances in rows and b_n of those in columns, and any
column c that one of them reaches,

    t[j,c] = Σ_m a_m[j] (x[i+m,c] + x[i−m,c]),    y[j] = Σ_n b_n[j] (t[j,j+n] + t[j,j−n]):

the first is a product of matrices, and the second reads a band of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cuvarconv._blocks import even
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._mirrored import Pixels
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._sums import runs
from cuvarconv._cpu._widths import Maps

_RUN = 64  # pixels; longer runs share more sums of lines, but have wider matrices around their bands
_LINES = 2 << 20  # bytes of the sums of lines
_LEAST = 16  # pixels, of both reaches and of a piece's width; below, taps one by one are faster
_MOST = 512  # reach in rows; sums of more terms in one product lose digits


def banded(far: int, wide: int, width: int) -> bool:
    """Return whether windows that reach so far from pieces of a `width` are summed up here.

    All pixels must be finite, as those that a product weighs with 0 count too.
    """
    return min(far, wide, width) >= _LEAST and far <= _MOST


def banded_work(far: int, wide: int) -> float:
    """Return the work for a pixel and so many distances, in taps that are summed up one by one."""
    return 0.09 * far * (_RUN + 2 * wide) + 6 * wide


def banded_sums(pixels: Pixels, products: Sequence[Maps], scratch: Scratch) -> list[np.ndarray]:
    """Return Σ_{m,n} a_m b_n x[i+m,j+n] for each pair (a, b) as `aligned_sums` does."""
    totals = [np.empty(rows.shape[1:], pixels.dtype) for rows, _ in products]
    kept = scratch.taken
    for rows, lines in _facing_lines(pixels, len(products[0][0]), scratch):
        room = scratch.taken
        for run in even(pixels.shape[1], _RUN):
            reached = lines[..., run.start : run.stop + 2 * pixels.reach[1]].transpose(1, 2, 0, 3)
            for (down, across), total in zip(products, totals, strict=True):
                scratch.clear(room)
                weights = down[:, rows, :, run].transpose(1, 2, 3, 0)
                product = scratch.empty((*weights.shape[:-1], reached.shape[-1]), pixels.dtype)
                np.matmul(weights, reached, out=product)
                _sum_band(product, across[:, rows, :, run], total[rows, :, run], scratch)
        scratch.clear(kept)
    return totals


def _facing_lines(pixels: Pixels, distances: int, scratch: Scratch) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield some rows, and x[i+m,c] + x[i−m,c] as (distances, rows, planes, columns)."""
    tile, (far, _), height = pixels.tile, pixels.reach, pixels.shape[0]
    assert tile is not None
    for rows in even(height, max(1, _LINES // (distances * tile[0].size * tile.itemsize))):
        shape = distances, rows.stop - rows.start, *tile.shape[1:]
        below, above = (
            as_strided(tile[far + rows.start :], shape, (step, *tile.strides))
            for step in (tile.strides[0], -tile.strides[0])
        )
        yield rows, np.add(below, above, out=scratch.empty(shape, pixels.dtype))


def _sum_band(product: np.ndarray, weights: np.ndarray, total: np.ndarray, scratch: Scratch) -> None:
    """Write Σ_n b_n[j] (t[j,j+n] + t[j,j−n]), t being (rows, planes, j, columns from the farthest on)."""
    right, left = _facing_diagonals(product, weights.shape)
    pairs = np.add(right, left, out=scratch.empty(weights.shape, product.dtype))
    parts = (np.einsum("nijk,nijk->ijk", pairs[run], weights[run]) for run in runs(len(weights)))
    total[...] = functools.reduce(np.add, parts)


def banded_spread(values: np.ndarray, weights: Maps, scratch: Scratch) -> np.ndarray:
    """Return what pixels i, j spread, Σ_{i±m=r} Σ_{j±n=c} a_m b_n v[i,j], as `_spread_aligned` does."""
    rows, columns = weights
    far, wide = len(rows) - 1, len(columns) - 1
    height, planes, width = values.shape
    patch = zeros((height + 2 * far, planes, width + 2 * wide), values.dtype)
    kept = scratch.taken
    for some in even(height, max(1, _LINES // (len(rows) * patch[0].nbytes))):
        lines = scratch.empty((len(rows), some.stop - some.start, *patch.shape[1:]), patch.dtype)
        lines[...] = 0
        room = scratch.taken
        for run in even(width, _RUN):
            scratch.clear(room)
            band = _band(columns[:, some, :, run], values[some, :, run], scratch)
            down = rows[:, some, :, run].transpose(1, 2, 0, 3)
            sums = np.matmul(down, band, out=scratch.empty((*down.shape[:-1], band.shape[-1]), patch.dtype))
            lines[..., run.start : run.stop + 2 * wide] += sums.transpose(2, 0, 1, 3)
        for line, row in enumerate(range(some.start, some.stop)):
            patch[row + far : row + 2 * far + 1] += lines[:, line]
            patch[row : row + far + 1] += lines[::-1, line]
        scratch.clear(kept)
    return patch


def _band(weights: np.ndarray, values: np.ndarray, scratch: Scratch) -> np.ndarray:
    """Return t[j,j±n] = b_n[j] v[j] as (rows, planes, j, columns from the farthest on), elsewhere 0."""
    wide, (*outer, length) = len(weights) - 1, values.shape
    band = scratch.empty((*outer, length, length + 2 * wide), values.dtype)
    band[...] = 0
    right, left = _facing_diagonals(band, weights.shape)
    np.multiply(weights, values, out=right)
    left += right
    return band


def _facing_diagonals(band: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """View t[j,j+n] and t[j,j−n] as (distances n, rows, planes, j)."""
    outer, (down, across) = band.strides[:-2], band.strides[-2:]
    centres = band[..., shape[0] - 1 :]
    right, left = (as_strided(centres, shape, (step, *outer, down + across)) for step in (across, -across))
    return right, left
