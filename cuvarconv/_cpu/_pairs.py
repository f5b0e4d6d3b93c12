"""Pairs of pixels that share their weight, where all pixels share the two σ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._weights import may_vanish


@dataclass(frozen=True)
class Tile:
    """A block of pixels within a margin as wide as the window reaches, its rows laid end to end.

    Then q − p is one number for each offset Δ, and all pairs of an offset are two slices.  The rows of
    all images with a guide of their own are in one line; images that share theirs are channels of it.
    Pairs that have no pixel in the block, between two rows or images, are never read.
    """

    height: int
    width: int
    radius: int
    samples: tuple[int, ...]  # of the guide: batch axes, 1 where images share it

    @cached_property
    def row(self) -> int:
        """Length of a row with its margins."""
        return self.width + 2 * self.radius

    @cached_property
    def first(self) -> int:
        """Where the block begins; as much lies behind its end."""
        return self.radius * self.row + self.radius

    @cached_property
    def pixels(self) -> int:
        """How many pixels there are in line."""
        return math.prod(self.samples) * (self.height + 2 * self.radius) * self.row

    @cached_property
    def _order(self) -> list[int]:
        """The axes of (batch…, C, rows, columns) as they lie in line: what is shared, C, the others."""
        shared = [axis for axis, length in enumerate(self.samples) if length == 1]
        others = [axis for axis, length in enumerate(self.samples) if length != 1]
        return [*shared, len(self.samples), *others, -2, -1]

    def flat(self, planes: np.ndarray) -> np.ndarray:
        """Lay a gathered tile (…, C, rows, columns) in line, (channels, pixels and some zeros)."""
        every = planes.transpose(self._order)
        channels = math.prod(every.shape[: self.samples.count(1) + 1])
        line = zeros((channels, self.pixels + 2 * self.radius), planes.dtype)
        line[:, : self.pixels] = every.reshape(channels, -1)
        return line

    def picture(self, line: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
        """Return values of the block's pixels as (batch…, C, rows, columns)."""
        shared = [axis for axis, length in enumerate(self.samples) if length == 1]
        outer = [batch[axis] for axis in shared]
        kept = [length for length in self.samples if length != 1]
        size = self.height + 2 * self.radius, self.row
        every = line[:, : self.pixels].reshape(*outer, line.shape[0] // math.prod(outer), *kept, *size)
        inner = every[..., self.radius : self.radius + self.height, self.radius : self.radius + self.width]
        first = len(self.samples) + 1
        return inner.transpose(*map(self._order.index, range(first)), -2, -1)


@dataclass(frozen=True)
class Likeness:
    """The features of a tile in line, and how their differences and distances weigh.

    Features are multiplied by a power of two near 1/(√2 σ_r), the unit, which is exact, and keeps them and
    the squares of those differences that matter within the range of numbers.
    """

    features: np.ndarray  # (features, pixels)
    unit: float
    sharpness: float  # 1/(2 σ_r²) in these units
    falloff: float  # 1/(2 σ_s²)
    finite: bool  # whether all features are
    bounded: bool  # whether all squares are finite too
    vanish: bool  # whether weights may be too small to count

    @classmethod
    def of(
        cls, features: np.ndarray, pixels: int, sharpness: float, falloff: float, *, alone: bool
    ) -> Likeness:
        """Take features of so many pixels in their own units, which are scaled in place, and 1/(√2 σ_r).

        If they are `alone`, the image itself, weights too small to count are 0.
        """
        limits = np.finfo(features.dtype)
        most, finite = largest(features)
        vanish = alone and may_vanish(features[:, :pixels], sharpness)
        exponent = math.frexp(most)[1]
        near = math.frexp(sharpness)[1] if sharpness else limits.minexp
        near = max(near, limits.minexp, limits.minexp // 4 - exponent)
        unit = 2.0 ** min(near, limits.maxexp - 3, limits.maxexp - 3 - exponent)
        np.multiply(features, features.dtype.type(unit), out=features)
        scaled = min(sharpness / unit * (sharpness / unit), float(limits.max))
        bounded = finite and 4 * len(features) * (most * unit) * (most * unit) < float(limits.max)
        return cls(features, unit, scaled, falloff, finite, bounded, vanish)

    def place(self, distances: np.ndarray) -> np.ndarray:
        """Return exp(−½|Δ|²/σ_s²), nowhere 0: no tap is skipped."""
        dtype = self.features.dtype
        return np.maximum(np.exp(-self.falloff * distances), np.finfo(dtype).tiny).astype(dtype)


def largest(values: np.ndarray) -> tuple[float, bool]:
    """Return the largest absolute value that is finite, and whether all are."""
    most = max(float(values.max()), -float(values.min()))
    if math.isfinite(most):
        return most, True
    return float(np.max(np.abs(values), where=np.isfinite(values), initial=0)), False
