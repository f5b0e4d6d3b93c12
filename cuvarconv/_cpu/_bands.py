"""Sums under Gaussians as matrix products, which take more operations, but at another rate.

For a run of pixels j in row i, with the weights a_m of distances in rows and b_n of those in columns, and all
columns c that one of them reaches,

    t[j,c] = Σ_m a_m[j] (x[i+m,c] + x[i−m,c]),    y[j] = Σ_c b_|c−j|[j] t[j,c]:

the first is a product of matrices, and the second weighs its rows with those of a band matrix.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cuvarconv._blocks import blocks, even
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._mirrored import Pixels
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._widths import Maps
from cuvarconv._cpu._workers import has_small_products

_RUN = 16  # pixels; longer runs share more sums of lines, but have wider matrices around their bands
_MOST = 512  # reach in rows; sums of more terms in one product lose digits

# Pixels of the smaller reach; below, taps one by one are faster.
_LEAST = 12
_LEAST_OF_SMALL = 6  # where BLAS has kernels for small products
_MIRRORED = 32  # at most, where it has: the two sides of a band are a product too


def banded(far: int, wide: int) -> bool:
    """Return whether windows that reach so far in rows and in columns are summed up here.

    All pixels must be finite, as those that a product weighs with 0 count too.
    """
    return min(far, wide) >= (_LEAST_OF_SMALL if has_small_products() else _LEAST) and far <= _MOST


def banded_work(far: int, wide: int) -> float:
    """Return the work for a pixel and so many distances, in taps that are summed up one by one."""
    return 0.06 * far * (_RUN + 2 * wide) + 2.5 * wide


@dataclass(frozen=True)
class _Runs:
    """Neighbouring runs of as many pixels, from the first on."""

    first: int
    count: int
    length: int

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """View (…, columns) as (…, runs, pixels)."""
        part = values[..., self.first : self.first + self.count * self.length]
        return part.reshape(*part.shape[:-1], self.count, self.length)

    def matrices(self, weights: np.ndarray) -> np.ndarray:
        """View (distances, rows, planes, columns) as (rows, planes, runs, pixels, distances)."""
        return self.pixels(weights).transpose(1, 2, 3, 4, 0)

    def reached(self, lines: np.ndarray, reach: int) -> np.ndarray:
        """View (distances, rows, planes, columns) as (rows, planes, runs, distances, columns).

        The columns begin as far from the first pixel as pixels reach, and so do those of each run.
        """
        distances, rows, planes, _ = lines.shape
        across, down, plane, step = lines.strides
        shape = rows, planes, self.count, distances, self.length + 2 * reach
        strides = down, plane, self.length * step, across, step
        return np.ndarray(shape, lines.dtype, lines, self.first * step, strides)


def _all_runs(width: int) -> list[_Runs]:
    """Cut a line into runs of one length, and the rest."""
    length = even(width, _RUN)[0].stop
    whole, rest = divmod(width, length)
    return [_Runs(0, whole, length), *([_Runs(width - rest, 1, rest)] if rest else [])]


def banded_sums(pixels: Pixels, products: Sequence[Maps], scratch: Scratch) -> list[np.ndarray]:
    """Return Σ_{m,n} a_m b_n x[i+m,j+n] for each pair (a, b) as `aligned_sums` does."""
    tile, wide, dtype = pixels.tile, pixels.reach[1], pixels.dtype
    assert tile is not None
    down, across = ({id(weights): weights for weights in side} for side in zip(*products, strict=True))
    totals = [np.empty(rows.shape[1:], dtype) for rows, _ in products]
    distances, height, planes, width = products[0][0].shape
    matrices = (len(down) + len(across)) * planes * width * (_RUN + 2 * wide + 1)
    numbers = distances * tile[0].size + matrices
    kept = scratch.taken
    for rows in even(height, max(1, scratch.left // (numbers * dtype.itemsize))):
        lines = _facing_lines(pixels, rows, distances, scratch)
        room = scratch.taken
        for runs in _all_runs(width):
            scratch.clear(room)
            reached = runs.reached(lines, wide)
            sums = {
                key: _product(runs.matrices(weights[:, rows]), reached, scratch)
                for key, weights in down.items()
            }
            bands = {
                key: _band(runs.matrices(weights[:, rows]), runs.length + 2 * wide, scratch)
                for key, weights in across.items()
            }
            for (first, second), total in zip(products, totals, strict=True):
                target = runs.pixels(total[rows])
                np.einsum("...c,...c->...", bands[id(second)], sums[id(first)], out=target)
        scratch.clear(kept)
    return totals


def _facing_lines(pixels: Pixels, rows: slice, distances: int, scratch: Scratch) -> np.ndarray:
    """Return x[i+m,c] + x[i−m,c] of some rows as (distances, rows, planes, columns)."""
    tile = pixels.tile
    assert tile is not None
    shape = distances, rows.stop - rows.start, *tile.shape[1:]
    first = tile[pixels.reach[0] + rows.start :]
    below, above = (
        as_strided(first, shape, (step, *tile.strides)) for step in (tile.strides[0], -tile.strides[0])
    )
    return np.add(below, above, out=scratch.empty(shape, pixels.dtype))


def _product(rows: np.ndarray, columns: np.ndarray, scratch: Scratch) -> np.ndarray:
    return np.matmul(rows, columns, out=scratch.empty((*rows.shape[:-1], columns.shape[-1]), rows.dtype))


def _band(weights: np.ndarray, columns: int, scratch: Scratch) -> np.ndarray:
    """Return matrices b_|c−j|[j] of weights (…, j, distances), (…, j, columns c from the farthest on).

    Lines that end with as many zeros as there are pixels, and one more, are such a matrix if the next one
    is taken to begin one number earlier.
    """
    *outer, length, distances = weights.shape
    centre, end = distances - 1, 2 * distances - 1
    if has_small_products() and distances <= _MIRRORED + 1:
        lines = _product(weights, _mirror(distances, columns + 1, weights.dtype), scratch)
    else:
        lines = scratch.empty((*outer, length, columns + 1), weights.dtype)
        lines[..., :centre] = weights[..., :0:-1]
        lines[..., centre:end] = weights
        lines[..., centre] += weights[..., 0]
        lines[..., end:] = 0
    strides = *lines.strides[:-2], columns * lines.itemsize, lines.itemsize
    return np.ndarray((*outer, length, columns), lines.dtype, lines, 0, strides)


@functools.cache
def _mirror(distances: int, columns: int, dtype: np.dtype) -> np.ndarray:
    """Return the matrix that writes weights to both sides of the first, which meet there."""
    matrix = np.zeros((distances, columns), dtype)
    for distance in range(distances):
        for column in (distances - 1 - distance, distances - 1 + distance):
            matrix[distance, column] += 1
    return matrix


def banded_spread(values: np.ndarray, weights: Maps, scratch: Scratch) -> np.ndarray:
    """Return what pixels i, j spread, Σ_{i±m=r} Σ_{j±n=c} a_m b_n v[i,j], as `_spread_aligned` does."""
    rows, columns = weights
    far, wide = len(rows) - 1, len(columns) - 1
    height, planes, width = values.shape
    patch = zeros((height + 2 * far, planes, width + 2 * wide), values.dtype)
    runs, apart, reached = _runs_apart(width, wide)
    numbers = (far + 1) * min(runs.count, apart) * (width + reached) + width * (wide + 2 + reached)
    kept = scratch.taken
    room = scratch.left // (2 * numbers * patch.itemsize)  # blocks may be up to twice as large
    for some in blocks((height, planes), max(1, room)):
        given = values[some]
        weighed = scratch.empty((wide + 1, *given.shape), patch.dtype)
        np.multiply(columns[(slice(None), *some)], given, out=weighed)
        for distance, line in enumerate(_spread_lines(rows[(slice(None), *some)], weighed, scratch)):
            centre = far + some[0].start
            for first in (centre - distance, centre + distance):
                target = patch[first : first + len(line), some[1]]
                np.add(target, line[..., : patch.shape[-1]], out=target)
        scratch.clear(kept)
    return patch


def _runs_apart(width: int, reach: int) -> tuple[_Runs, int, int]:
    """Return runs of one length, how far apart they reach other columns, and how many columns that is."""
    runs = _all_runs(width)[0]
    apart = 1 - (-2 * reach // runs.length)
    return runs, apart, apart * runs.length


def _spread_lines(rows: np.ndarray, weighed: np.ndarray, scratch: Scratch) -> np.ndarray:
    """Return Σ_{j±n=c} a_m b_n v[j] as (distances m, rows, planes, columns c from the farthest on, and more).

    Runs so far apart that they reach other columns are written to one array, and these added up: NumPy
    would copy terms before it added them to many pieces of lines.
    """
    wide, width = len(weighed) - 1, weighed.shape[-1]
    runs, apart, reached = _runs_apart(width, wide)
    shape = min(apart, runs.count), *rows.shape[:-1], width - runs.length + reached
    lines = scratch.empty(shape, weighed.dtype)
    band = _band(runs.matrices(weighed), reached, scratch)
    down = runs.matrices(rows).swapaxes(-1, -2)
    for number, line in enumerate(lines):
        some = slice(number, None, apart)
        start, count = number * runs.length, len(range(runs.count)[some])
        stop = start + count * reached
        line[..., :start] = 0
        line[..., stop:] = 0
        target = line[..., start:stop].reshape(*line.shape[:-1], count, reached)
        np.matmul(down[:, :, some], band[:, :, some], out=target.transpose(1, 2, 3, 0, 4))
    total = lines[0]
    for line in lines[1:]:
        np.add(total, line, out=total)
    for run in _all_runs(width)[1:]:
        band = _band(run.matrices(weighed), run.length + 2 * wide, scratch)
        sums = _product(run.matrices(rows).swapaxes(-1, -2), band, scratch)[:, :, 0].transpose(2, 0, 1, 3)
        target = total[..., run.first : run.first + sums.shape[-1]]
        np.add(target, sums, out=target)
    return total
