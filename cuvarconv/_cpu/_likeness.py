"""Weights of the taps around each pixel, exp(−½|Δ|²/σ_s² − ½‖g(q) − g(p)‖²/σ_r²), whatever the two σ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._cpu._tiles import gather, tap_chunks, windows
from cuvarconv._window import Window

_TILE = 1 << 19  # pixels and features under their windows


@dataclass(frozen=True)
class Widths:
    """What the two σ say of a block of pixels, (…, h, w) with axes of length 1 where they are shared."""

    sharpness: np.ndarray  # 1/(√2 σ_r)
    falloff: np.ndarray  # 1/(2 σ_s²)
    radius: np.ndarray | None  # taps farther off do not exist; None: all of the window do
    still: np.ndarray  # where a σ is 0, and the pixel stays as it is

    @classmethod
    def of(
        cls,
        sigma_spatial: np.ndarray,
        sigma_range: np.ndarray,
        most: int,
        truncate: float | None,
        dtype: np.dtype,
    ) -> Widths:
        """Prepare a block's σ, in the real computing dtype; `most` is the window's radius."""
        spatial, likeness = sigma_spatial.astype(np.float64), sigma_range.astype(np.float64)
        limit = np.finfo(dtype).max  # infinity times no difference would be NaN
        sharpness = np.minimum(math.sqrt(0.5) / likeness, limit).astype(dtype)
        falloff = np.minimum((math.sqrt(0.5) / spatial) ** 2, limit).astype(dtype)
        radius = None if truncate is None else np.minimum(np.floor(truncate * spatial + 0.5), most)
        if radius is not None and radius.min() == most:
            radius = None
        return cls(sharpness, falloff, radius, (spatial == 0) | (likeness == 0))

    @property
    def shared(self) -> bool:
        """Whether all pixels of an image have the same σ, and all images the same σ_s."""
        return self.falloff.size == 1 and self.sharpness.shape[-2:] == (1, 1)

    def part(self, *where: slice) -> Widths:
        """Return the widths of a part of the pixels."""
        cut = {name: _cut(values, where) for name, values in vars(self).items() if values is not None}
        return replace(self, **cut)

    def missing(self, down: int, across: int) -> np.ndarray | None:
        """Return at which pixels a tap does not exist, None if it does at all of them."""
        if self.radius is None:
            return None
        missing = self.radius < max(abs(down), abs(across))
        return missing if missing.any() else None

    def weights(self, differences: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights of a tap, and the squares ‖g(q) − g(p)‖²/(2 σ_r²).

        The `differences` (…, features, h, w) are left in units of √2 σ_r.
        """
        np.multiply(differences, self.sharpness[..., None, :, :], out=differences)
        squares = np.square(differences[..., 0, :, :])
        for channel in range(1, differences.shape[-3]):
            squares += np.square(differences[..., channel, :, :])
        if distance:
            exponents = np.subtract(self.falloff * self.falloff.dtype.type(-distance), squares)
        else:
            exponents = np.negative(squares)
        return np.exp(exponents, out=exponents), squares


def _cut(values: np.ndarray, where: Where) -> np.ndarray:
    index: tuple[Any, ...] = (..., *matching(values, where))
    return values[index]


@dataclass(frozen=True)
class Tap:
    """One tap of all windows of a block."""

    distance: int  # |Δ|²
    weights: np.ndarray  # (…, h, w), 0 where the tap does not exist
    pixels: np.ndarray  # (…, C, h, w)
    differences: np.ndarray  # (…, features, h, w), g(q) − g(p) in units of √2 σ_r
    squares: np.ndarray  # (…, h, w), the square of their norm
    missing: np.ndarray | None  # where the tap does not exist

    def exists(self, values: np.ndarray) -> np.ndarray:
        """Set values (…, h, w) to 0 where the tap does not exist, whatever they are."""
        if self.missing is not None:
            np.copyto(values, 0, where=self.missing)
        return values


def tap_rows(
    planes: np.ndarray, features: np.ndarray, window: Window, widths: Widths, dtype: np.dtype
) -> Iterator[Iterator[Tap]]:
    """Yield the taps of a block, row after row, as far as any pixel's radius reaches."""
    radius = window.rows.taps // 2
    if widths.radius is not None:
        most = int(widths.radius.max())
        window = window.taps(*(slice(radius - most, radius + most + 1),) * 2)
        radius = most
    central = centres(features, window, widths.sharpness.dtype)
    batch = np.broadcast_shapes(central.shape[:-3], widths.sharpness.shape[:-2])
    central = np.broadcast_to(central, (*batch, *central.shape[-3:]))
    count = planes[..., 0, 0].size + (0 if planes is features else features[..., 0, 0].size)

    def row(line: int, first: int, pixels: np.ndarray, seen: np.ndarray) -> Iterator[Tap]:
        for across, (shifted, feature) in enumerate(zip(pixels, seen, strict=True), start=first - radius):
            distance, down = (line - radius) ** 2 + across**2, line - radius
            differences = np.subtract(feature, central)
            weights, squares = widths.weights(differences, distance)
            tap = Tap(distance, weights, shifted, differences, squares, widths.missing(down, across))
            tap.exists(weights)
            yield tap

    for row_taps, column_taps in tap_chunks(window, count, _TILE):
        chunk = window.taps(row_taps, column_taps)
        tables = chunk.rows.table(), chunk.columns.table()
        seen = windows(gather(features, *tables, window.cval, central.dtype), *tables, chunk)
        pixels = seen
        if planes is not features:
            pixels = windows(gather(planes, *tables, window.cval, dtype), *tables, chunk)
        for number, line in enumerate(range(row_taps.start, row_taps.stop)):
            yield row(line, column_taps.start, pixels[number], seen[number])


def centres(planes: np.ndarray, window: Window, dtype: np.dtype) -> np.ndarray:
    """Return the pixels under the centres of all windows."""
    middle = slice(window.rows.taps // 2, window.rows.taps // 2 + 1)
    centre = window.taps(middle, middle)
    return gather(planes, centre.rows.table(), centre.columns.table(), window.cval, dtype)
