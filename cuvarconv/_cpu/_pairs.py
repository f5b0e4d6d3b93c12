"""Weights of pairs of pixels, exp(−½|Δ|²/σ_s² − ½‖g(q) − g(p)‖²/σ_r²): one number for both pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tile:
    """A block of pixels within a margin as wide as the window reaches, its rows laid end to end.

    Then q − p is one number for each offset Δ, and all pairs of an offset are two slices.  Between the
    rows of the block, slices run through the margins; what comes out there is never read.
    """

    height: int
    width: int
    radius: int

    @property
    def row(self) -> int:
        """Length of a row with its margins."""
        return self.width + 2 * self.radius

    @property
    def first(self) -> int:
        """Where the block begins."""
        return self.radius * self.row + self.radius

    @property
    def length(self) -> int:
        """From the first to the last pixel of the block."""
        return (self.height - 1) * self.row + self.width

    def flat(self, planes: np.ndarray) -> np.ndarray:
        """View a gathered tile (…, rows, columns) as (…, 1, pixels)."""
        return planes.reshape(*planes.shape[:-2], 1, -1)

    def shifted(self, flat: np.ndarray, shift: int = 0) -> np.ndarray:
        """Return a flat tile's values so far from each pixel of the block."""
        return flat[..., self.first + shift : self.first + shift + self.length]

    def picture(self, values: np.ndarray) -> np.ndarray:
        """Return values of the block's pixels, (…, 1, length), as (…, rows, columns)."""
        padded = np.empty((*values.shape[:-2], self.height * self.row), values.dtype)
        padded[..., : self.length] = values[..., 0, :]
        return padded.reshape(*values.shape[:-2], self.height, self.row)[..., : self.width]


@dataclass(frozen=True)
class Pairs:
    """All pairs (p, p + Δ) that have a pixel in the block, for one offset Δ.

    Entry t of the arrays is the pair whose second pixel is the block's t, entry t + shift the one whose
    first it is.
    """

    shift: int
    distance: int  # |Δ|²
    weights: np.ndarray  # (…, 1, pairs)
    differences: np.ndarray  # (…, features, 1, pairs), g(p + Δ) − g(p) in units of √2 σ_r
    squares: np.ndarray  # (…, 1, pairs), the square of their norm

    def ends(self, values: np.ndarray) -> tuple[tuple[int, np.ndarray], tuple[int, np.ndarray]]:
        """Return, for the block's pixels, how far the other one of a pair is, and the pairs' values."""
        length = values.shape[-1] - self.shift
        return (self.shift, values[..., self.shift :]), (-self.shift, values[..., :length])


def pair_rows(
    features: np.ndarray, tile: Tile, sharpness: np.ndarray, falloff: float, *, keep: bool = False
) -> Iterator[Iterator[Pairs]]:
    """Yield the offsets of half the window, row after row; each overwrites the arrays of the one before.

    `features` is a flat tile, `sharpness` 1/(√2 σ_r) as (…, 1, 1), `falloff` 1/(2 σ_s²).  Differences
    and squares are there if they are to be kept.
    """
    outer = np.broadcast_shapes(features.shape[:-3], sharpness.shape[:-2])
    longest, dtype, channels = tile.length + tile.first, features.dtype, features.shape[-3]
    differences = np.empty((*outer, channels if keep else 1, 1, longest), dtype)
    weights = np.empty((*outer, 1, longest), dtype)
    squares = np.empty_like(weights) if keep or channels > 1 else weights

    def row(down: int) -> Iterator[Pairs]:
        for across in range(-tile.radius if down else 1, tile.radius + 1):
            shift, distance = down * tile.row + across, down**2 + across**2
            arrays = (array[..., : tile.length + shift] for array in (weights, differences, squares))
            pairs = Pairs(shift, distance, *arrays)
            _measure(pairs, features[..., tile.first - shift : tile.first + tile.length + shift], sharpness)
            np.subtract(dtype.type(-distance * falloff), pairs.squares, out=pairs.weights)
            np.exp(pairs.weights, out=pairs.weights)
            yield pairs

    for down in range(tile.radius + 1):
        yield row(down)


def _measure(pairs: Pairs, features: np.ndarray, sharpness: np.ndarray) -> None:
    """Fill in the squares, and the differences as far as there is room for them."""
    count = pairs.weights.shape[-1]
    for channel in range(features.shape[-3]):
        line = features[..., channel, :, :]
        difference = pairs.differences[..., min(channel, pairs.differences.shape[-3] - 1), :, :]
        np.subtract(line[..., pairs.shift :], line[..., :count], out=difference)
        np.multiply(difference, sharpness, out=difference)
        if channel == 0:
            np.multiply(difference, difference, out=pairs.squares)
        else:
            np.multiply(difference, difference, out=pairs.weights)
            np.add(pairs.squares, pairs.weights, out=pairs.squares)
