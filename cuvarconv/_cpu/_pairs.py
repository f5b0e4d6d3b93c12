"""Pairs of pixels that share their weight, where all pixels share the two σ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cuvarconv._cpu._likeness import Block, Tap
from cuvarconv._cpu._tiles import gather


@dataclass(frozen=True)
class Tile:
    """A block of pixels within a margin as wide as the window reaches, its rows laid end to end.

    Then q − p is one number for each offset Δ, and all pairs of an offset are two slices.  Between the
    rows of the block, slices run through the margins; what comes out there is never read.
    """

    height: int
    width: int
    radius: int

    @cached_property
    def row(self) -> int:
        """Length of a row with its margins."""
        return self.width + 2 * self.radius

    @cached_property
    def first(self) -> int:
        """Where the block begins."""
        return self.radius * self.row + self.radius

    @cached_property
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
    squares: np.ndarray  # (…, 1, pairs), ‖g(q) − g(p)‖²/(2 σ_r²)
    differences: np.ndarray  # (…, features, 1, pairs), g(p + Δ) − g(p) in units of √2 σ_r

    def as_first(self, values: np.ndarray) -> np.ndarray:
        """Return the pairs' values where the block's pixel is the first."""
        return values[..., self.shift :]

    def as_second(self, values: np.ndarray) -> np.ndarray:
        """Return the pairs' values where the block's pixel is the second."""
        return values[..., : values.shape[-1] - self.shift]


def pair_rows(
    features: np.ndarray, tile: Tile, sharpness: np.ndarray, falloff: float, *, keep: bool
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
            arrays = (array[..., : tile.length + shift] for array in (weights, squares, differences))
            pairs = Pairs(shift, distance, *arrays)
            seen = features[..., tile.first - shift : tile.first + tile.length + shift]
            _measure(pairs, seen, sharpness[..., None, :, :])
            np.subtract(dtype.type(-distance * falloff), pairs.squares, out=pairs.weights)
            np.exp(pairs.weights, out=pairs.weights)
            yield pairs

    for down in range(tile.radius + 1):
        yield row(down)


def _measure(pairs: Pairs, features: np.ndarray, sharpness: np.ndarray) -> None:
    """Fill in the squares, and the differences as far as there is room for them."""
    count, room = pairs.weights.shape[-1], pairs.differences.shape[-3]
    for channel in range(features.shape[-3]):
        line = features[..., channel : channel + 1, :, :]
        at = min(channel, room - 1)
        difference = pairs.differences[..., at : at + 1, :, :]
        np.subtract(line[..., pairs.shift :], line[..., :count], out=difference)
        np.multiply(difference, sharpness, out=difference)
        one = difference[..., 0, :, :]
        if channel == 0:
            np.multiply(one, one, out=pairs.squares)
        else:
            np.multiply(one, one, out=pairs.weights)
            np.add(pairs.squares, pairs.weights, out=pairs.squares)


@dataclass(frozen=True)
class PairedBlock(Block):
    """A block of outputs that share the two σ: each weight is computed once, for both its pixels."""

    @cached_property
    def tile(self) -> Tile:
        """The block within its margin."""
        return Tile(*self.window.output_shape, self.window.rows.taps // 2)

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the weights of a tap, and of its pixels."""
        batch = np.broadcast_shapes(self.features.shape[:-3], self.widths.sharpness.shape[:-2])
        return (*batch, 1, self.tile.length), (*self.planes.shape[:-2], 1, self.tile.length)

    def picture(self, values: np.ndarray) -> np.ndarray:
        """Return values of a tap or sums of them as (…, h, w)."""
        return self.tile.picture(values)

    def rows(self, *, keep: bool = False) -> Iterator[Iterator[Tap]]:
        """Yield the taps, row after row: the centre, then both taps of all pairs of a row."""
        tables = self.window.rows.table(), self.window.columns.table()
        sharpness, falloff = self.widths.sharpness, float(self.widths.falloff.reshape(()))
        features = self.tile.flat(gather(self.features, *tables, self.window.cval, self.real))
        pixels = features
        if self.planes is not self.features:
            pixels = self.tile.flat(gather(self.planes, *tables, self.window.cval, self.dtype))
        yield iter([self._centre(features, pixels)])
        for row in pair_rows(features, self.tile, sharpness, falloff, keep=keep):
            yield (tap for pairs in row for tap in self._taps(pairs, pixels))

    def _centre(self, features: np.ndarray, pixels: np.ndarray) -> Tap:
        own = self.tile.shifted(features)
        squares = np.add.reduce(own - own, axis=-3)  # NaN where it is not finite
        return Tap(0, squares + 1, squares, self.tile.shifted(pixels), np.empty(0))

    def _taps(self, pairs: Pairs, pixels: np.ndarray) -> Iterator[Tap]:
        for shift, part in ((pairs.shift, pairs.as_first), (-pairs.shift, pairs.as_second)):
            shifted = self.tile.shifted(pixels, shift)
            yield Tap(pairs.distance, part(pairs.weights), part(pairs.squares), shifted, np.empty(0))
