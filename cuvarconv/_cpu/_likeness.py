"""The taps around each pixel and their weights, exp(−½|Δ|²/σ_s² − ½‖g(q) − g(p)‖²/σ_r²), whatever the σ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._cpu._tiles import gather, tap_chunks, windows
from cuvarconv._window import Window

_TILE = 1 << 19  # pixels and features under their windows


@dataclass(frozen=True)
class Tap:
    """One tap of all windows of a block."""

    distance: int  # |Δ|²
    weights: np.ndarray  # (…, h, w), 0 where the tap does not exist
    squares: np.ndarray  # (…, h, w), ‖g(q) − g(p)‖²/(2 σ_r²)
    rises: np.ndarray  # (…, C, h, w), x(q) − x(p)
    differences: np.ndarray  # (…, features, h, w), g(q) − g(p) in units of √2 σ_r
    missing: np.ndarray | None = None  # where the tap does not exist

    def exists(self, values: np.ndarray) -> np.ndarray:
        """Set values (…, h, w), perhaps of channels, to 0 where the tap does not exist, whatever they are."""
        if self.missing is not None:
            channels = values.ndim > self.missing.ndim
            np.copyto(values, 0, where=self.missing[..., None, :, :] if channels else self.missing)
        return values


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
        """Whether all pixels have the same σ and all of the window."""
        return self.falloff.size == self.sharpness.size == 1 and self.radius is None

    def moving(self) -> Widths:
        """Let pixels that stay as they are have no taps."""
        if not self.still.any():
            return self
        radius = np.inf if self.radius is None else self.radius
        return replace(self, radius=np.where(self.still, -1, radius))

    def part(self, *where: slice) -> Widths:
        """Return the widths of a part of the pixels."""
        parts = {name: cut(values, where) for name, values in vars(self).items() if values is not None}
        return replace(self, **parts)

    def missing(self, down: int, across: int) -> np.ndarray | None:
        """Return at which pixels a tap does not exist, None if it does at all of them."""
        if self.radius is None:
            return None
        missing = self.radius < max(abs(down), abs(across))
        return missing if missing.any() else None

    def tap(self, down: int, across: int, rises: np.ndarray, differences: np.ndarray) -> Tap:
        """Weigh a tap by the differences g(q) − g(p), which are overwritten but where they are the rises."""
        scaled = None if differences is rises else differences
        differences = np.multiply(differences, self.sharpness[..., None, :, :], out=scaled)
        squares = np.square(differences[..., 0, :, :])
        for channel in range(1, differences.shape[-3]):
            squares += np.square(differences[..., channel, :, :])
        distance = down**2 + across**2
        if distance:
            exponents = np.subtract(self.falloff * self.falloff.dtype.type(-distance), squares)
        else:
            exponents = np.negative(squares)
        weights = np.exp(exponents, out=exponents)
        tap = Tap(distance, weights, squares, rises, differences, self.missing(down, across))
        tap.exists(weights)
        return tap


def cut(values: np.ndarray, where: Where) -> np.ndarray:
    """Return the part of an array, with axes that may broadcast, that meets a part of its last axes."""
    index: tuple[Any, ...] = (..., *matching(values, where))
    return values[index]


@dataclass(frozen=True)
class Block:
    """A block of outputs, with the pixels (…, C, H, W) and the features that they are made of."""

    planes: np.ndarray
    features: np.ndarray
    window: Window
    widths: Widths
    dtype: np.dtype
    relative: bool  # whether sums are of x(q) − x(p), or else of x(q)

    @property
    def real(self) -> np.dtype:
        """The dtype of the weights."""
        return self.widths.sharpness.dtype

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the weights of a tap, and of its pixels."""
        outputs = (*self.features.shape[:-3], *self.window.output_shape)
        return (
            np.broadcast_shapes(outputs, self.widths.still.shape),
            (*self.planes.shape[:-2], *self.window.output_shape),
        )

    def centres(self) -> np.ndarray:
        """Return the pixels under the centres of the windows."""
        return centres(self.planes, self.window, self.window.cval, self.dtype)

    @cached_property
    def central_features(self) -> np.ndarray:
        """Return the features under the centres, once for each σ_s or σ_r of a sample of its own."""
        central = centres(self.features, self.window, self.window.cval, self.real)
        batch = np.broadcast_shapes(central.shape[:-3], self.widths.still.shape[:-2])
        return np.broadcast_to(central, (*batch, *central.shape[-3:]))

    @cached_property
    def origins(self) -> np.ndarray:
        """Return what is taken off the pixels: x(p), so that sums lose no digits to what all have in common.

        It is 0 where x(p) is not finite, or so large that a difference might leave the range of numbers.
        """
        if not self.relative:
            return np.zeros((1, 1, 1), self.dtype)
        central = self.central_features if self.planes is self.features else self.centres()
        limits = np.finfo(self.real)
        near = np.abs(central) <= limits.max * limits.eps / 8  # less than half a step of the largest number
        return central if near.all() else np.where(near, central, 0)

    def rises(self, pixels: np.ndarray, differences: np.ndarray, where: Where | None = None) -> np.ndarray:
        """Return x(q) − x(p) for outputs at `where`: the differences, if the features are the image."""
        if not self.relative:
            return pixels
        if self.planes is self.features and self.origins is self.central_features:
            return differences
        return pixels - (self.origins if where is None else cut(self.origins, where))

    def rows(self) -> Iterator[Iterator[Tap]]:
        """Yield the taps, row after row, as far as any pixel's radius reaches."""
        window, radius = self.window, self.window.rows.taps // 2
        if self.widths.radius is not None:
            most = int(min(radius, max(0, self.widths.radius.max())))
            window = window.taps(*(slice(radius - most, radius + most + 1),) * 2)
            radius = most
        central = self.central_features
        for row_taps, column_taps, pixels, features in self._seen(window, central.dtype):
            for m, line in enumerate(range(row_taps.start, row_taps.stop)):
                places = range(column_taps.start - radius, column_taps.stop - radius)
                yield (
                    self.widths.tap(line - radius, across, self.rises(shifted, difference), difference)
                    for across, shifted, difference in zip(
                        places, pixels[m], (feature - central for feature in features[m]), strict=True
                    )
                )

    def _seen(self, window: Window, dtype: np.dtype) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray]]:
        count = self.planes[..., 0, 0].size + self.features[..., 0, 0].size
        for row_taps, column_taps in tap_chunks(window, count, _TILE):
            chunk = window.taps(row_taps, column_taps)
            tables = chunk.rows.table(), chunk.columns.table()
            features = windows(gather(self.features, *tables, window.cval, dtype), *tables, chunk)
            pixels = features
            if self.planes is not self.features:
                pixels = windows(gather(self.planes, *tables, window.cval, self.dtype), *tables, chunk)
            yield row_taps, column_taps, pixels, features


def centres(planes: np.ndarray, window: Window, outside: Any, dtype: np.dtype) -> np.ndarray:
    """Return the pixels under the centres of all windows."""
    middle = slice(window.rows.taps // 2, window.rows.taps // 2 + 1)
    centre = window.taps(middle, middle)
    return gather(planes, centre.rows.table(), centre.columns.table(), outside, dtype)
