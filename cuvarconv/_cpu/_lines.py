"""The pixels and features of a block of pairs, in line, and back again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from cuvarconv._cpu._likeness import Block
from cuvarconv._cpu._pairs import Likeness, Tile, largest
from cuvarconv._cpu._tiles import gather
from cuvarconv._cpu._walk import Row, Step, Walk
from cuvarconv._window import Window


@dataclass(frozen=True)
class Lines:
    """A tile of features and of the images that they are for; complex numbers are two channels."""

    tile: Tile
    likeness: Likeness
    pixels: np.ndarray  # (channels, pixels), multiplied by a power of two
    unit: float
    batch: tuple[int, ...]  # of the images
    dtype: np.dtype  # of the images

    @classmethod
    def of(cls, block: Block, window: Window, height: int, width: int) -> Lines:
        """Read what a window's tables name: so many pixels within their margin."""
        tables = window.rows.table(), window.columns.table()
        tile = Tile(height, width, (len(tables[0].sources) - height) // 2, block.features.shape[:-3])
        features = tile.flat(gather(block.features, *tables, window.cval, block.real))
        sharpness, falloff = (
            float(number.reshape(())) for number in (block.widths.sharpness, block.widths.falloff)
        )
        likeness = Likeness.of(features, tile.pixels, sharpness, falloff, alone=block.alone)
        batch = block.planes.shape[:-3]
        if block.alone:
            return cls(tile, likeness, features, likeness.unit, batch, block.real)
        planes = gather(block.planes, *tables, window.cval, block.dtype)
        pixels = tile.flat(as_real(planes))
        return cls(tile, likeness, pixels, _bound(pixels, tile), batch, block.dtype)

    @property
    def joint(self) -> bool:
        """Whether the features are another image."""
        return self.pixels is not self.likeness.features

    @property
    def infinite(self) -> bool:
        """Whether an image with another guide is infinite somewhere: differences to it would be NaN."""
        return self.joint and bool(np.isinf(self.pixels).any())

    def values(self, line: np.ndarray) -> np.ndarray:
        """Return values for the images' channels in line as (batch…, C, h, w)."""
        parts = self.tile.picture(line, self.batch)
        if self.dtype.kind != "c":
            return parts
        channels = parts.shape[-3] // 2
        values = np.empty((*self.batch, channels, *parts.shape[-2:]), self.dtype)
        values.real, values.imag = parts[..., :channels, :, :], parts[..., channels:, :, :]
        return values

    def of_features(self, line: np.ndarray) -> np.ndarray:
        """Return values for the features, or of weights, in line as (samples…, features, h, w)."""
        return self.tile.picture(line, self.tile.samples)

    def alike(self, where: slice = slice(None)) -> np.ndarray:
        """Return Σ (f − f) over the features in line: 0, and NaN where one is not finite."""
        if self.likeness.finite:
            return np.zeros((1, 1), self.likeness.features.dtype)
        own = self.likeness.features[:, where]
        return np.add.reduce(own - own, axis=0, keepdims=True)


class Rises:
    """x(q) − x(p) of pairs, times their weights."""

    def __init__(self, lines: Lines, walk: Walk) -> None:
        self.planes = slice(1, 1 + len(lines.pixels))
        self._line = walk.line(lines.pixels) if lines.joint else None  # or else the differences are the rises

    def weigh(self, row: Row, room: int) -> Iterator[Step]:
        """Yield the calls that write them to the pairs' planes."""
        if self._line is not None:
            products = row.planes[self.planes]
            yield partial(
                np.subtract, self._line.seconds[row.number], self._line.firsts[row.number], products
            )
        products = row.flat[self.planes]
        yield partial(np.multiply, products, row.flat_weights(room), products)


def limited(value: float, dtype: np.dtype) -> np.floating:
    """Return a factor as a number that is not infinite."""
    return dtype.type(min(value, float(np.finfo(dtype).max)))


def as_real(planes: np.ndarray) -> np.ndarray:
    """View the real and the imaginary parts of (…, C, H, W) as channels."""
    return np.concatenate([planes.real, planes.imag], axis=-3) if planes.dtype.kind == "c" else planes


def _bound(pixels: np.ndarray, tile: Tile) -> float:
    """Scale pixels in place by a power of two for which no sum leaves the range of numbers; return it."""
    most = math.frexp(largest(pixels)[0])[1]
    taps = (2 * tile.radius + 1) ** 2
    unit = 2.0 ** min(0, np.finfo(pixels.dtype).maxexp - 2 - math.ceil(math.log2(taps)) - most)
    if unit != 1:
        np.multiply(pixels, pixels.dtype.type(unit), out=pixels)
    return unit
