"""The taps around each pixel and their weights, exp(−½|Δ|²/σ_s² − ½‖g(q) − g(p)‖²/σ_r²), whatever the σ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._tiles import gather, tap_chunks, windows
from cuvarconv._cpu._weights import exponentials, may_vanish
from cuvarconv._window import Window

_TILE = 1 << 19  # pixels and features under their windows


@dataclass(frozen=True)
class Taps:
    """Some taps, in a row, of all windows of a block; the first axis is theirs."""

    down: int  # from the centre
    across: range
    distances: np.ndarray  # |Δ|², (taps, 1, …)
    weights: np.ndarray  # (taps, …, h, w), 0 where the tap does not exist
    squares: np.ndarray  # (taps, …, h, w), ‖g(q) − g(p)‖²/(2 σ_r²)
    rises: np.ndarray  # (taps, …, C, h, w), x(q) − x(p)
    differences: np.ndarray  # (taps, …, features, h, w), g(q) − g(p) in units of √2 σ_r
    missing: np.ndarray | None  # where the tap does not exist
    scratch: Scratch  # for what is gone when the next taps come

    def product(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Multiply values of these taps."""
        shape = np.broadcast_shapes(one.shape, other.shape)
        dtype = np.promote_types(one.dtype, other.dtype)
        return np.multiply(one, other, self.scratch.empty(shape, dtype))

    def exists(self, values: np.ndarray) -> np.ndarray:
        """Set values, perhaps of channels, to 0 where their tap does not exist, whatever they are."""
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

    def missing(self, down: int, across: range) -> np.ndarray | None:
        """Return at which pixels taps do not exist, None if they do at all of them."""
        if self.radius is None:
            return None
        far = np.array([max(abs(down), abs(place)) for place in across])
        missing = self.radius < far.reshape(-1, *(1,) * self.radius.ndim)
        return missing if missing.any() else None

    def taps(
        self,
        down: int,
        across: range,
        rises: np.ndarray,
        differences: np.ndarray,
        scratch: Scratch,
        *,
        vanish: bool,
    ) -> Taps:
        """Weigh taps by the differences g(q) − g(p), which are overwritten but where they are the rises.

        Some weights may `vanish`, or none.
        """
        scaled = scratch.empty(differences.shape, differences.dtype) if differences is rises else differences
        np.multiply(differences, self.sharpness[..., None, :, :], scaled)
        first, *others = np.moveaxis(scaled, -3, 0)
        squares, weights = (scratch.empty(first.shape, first.dtype) for _ in range(2))
        np.square(first, squares)
        for other in others:
            np.add(squares, np.square(other, weights), squares)
        distances = np.array([down**2 + place**2 for place in across], first.dtype)
        distances = distances.reshape(-1, *(1,) * (first.ndim - 1))
        shared = self.falloff.size == 1
        np.subtract(np.multiply(self.falloff, -distances, None if shared else weights), squares, weights)
        for step in exponentials(weights, vanish=vanish):
            step()
        missing = self.missing(down, across)
        taps = Taps(down, across, distances, weights, squares, rises, scaled, missing, scratch)
        taps.exists(weights)
        return taps


@dataclass(frozen=True)
class Block:
    """A block of outputs, with the pixels (…, C, H, W) and the features that they are made of."""

    planes: np.ndarray
    features: np.ndarray
    window: Window
    widths: Widths
    dtype: np.dtype
    relative: bool  # whether sums are of x(q) − x(p), or else of x(q)
    together: int  # bytes of an array of taps

    @property
    def real(self) -> np.dtype:
        """The dtype of the weights."""
        return self.widths.sharpness.dtype

    @property
    def alone(self) -> bool:
        """Whether the image is its own guide."""
        return self.planes is self.features

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
        central = self.central_features if self.alone else self.centres()
        limits = np.finfo(self.real)
        near = np.abs(central) <= limits.max * limits.eps / 8  # less than half a step of the largest number
        return central if near.all() else np.where(near, central, 0)

    def rises(self, pixels: np.ndarray, differences: np.ndarray, scratch: Scratch) -> np.ndarray:
        """Return x(q) − x(p): the differences, if the features are the image."""
        if not self.relative:
            return pixels
        if self.alone and self.origins is self.central_features:
            return differences
        shape = np.broadcast_shapes(pixels.shape, self.origins.shape)
        return np.subtract(pixels, self.origins, scratch.empty(shape, self.dtype))

    def rows(self) -> Iterator[Iterator[Taps]]:
        """Yield the taps, row after row and some at a time, as far as any pixel's radius reaches."""
        window, radius = self.window, self.window.rows.taps // 2
        if self.widths.radius is not None:
            most = int(min(radius, max(0, self.widths.radius.max())))
            window = window.taps(*(slice(radius - most, radius + most + 1),) * 2)
            radius = most
        largest = max(self.central_features.nbytes, math.prod(self.shapes[1]) * self.dtype.itemsize)
        together = max(1, min(window.columns.taps, self.together // max(1, largest)))
        scratch = Scratch(0)
        for row_taps, column_taps, pixels, features, vanish in self._seen(window, self.real):
            places = range(column_taps.start - radius, column_taps.stop - radius)
            runs = [slice(first, first + together) for first in range(0, len(places), together)]
            for m, line in enumerate(range(row_taps.start, row_taps.stop)):
                yield (
                    self._taps(line - radius, places[run], pixels[m, run], features[m, run], scratch, vanish)
                    for run in runs
                )

    def _taps(
        self,
        down: int,
        across: range,
        pixels: np.ndarray,
        features: np.ndarray,
        scratch: Scratch,
        vanish: bool,
    ) -> Taps:
        scratch.start_again()
        central = self.central_features
        differences = scratch.empty((len(features), *central.shape), central.dtype)
        np.subtract(features, central, differences)
        rises = self.rises(pixels, differences, scratch)
        return self.widths.taps(down, across, rises, differences, scratch, vanish=vanish)

    def _seen(
        self, window: Window, dtype: np.dtype
    ) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray, bool]]:
        """Yield some taps, the pixels and features that they see, and whether their weights may vanish."""
        count = self.planes[..., 0, 0].size + self.features[..., 0, 0].size
        sharpness = float(self.widths.sharpness.max())
        falloff = 2 * (window.rows.taps // 2) ** 2 * float(self.widths.falloff.max())
        for row_taps, column_taps in tap_chunks(window, count, _TILE):
            chunk = window.taps(row_taps, column_taps)
            tables = chunk.rows.table(), chunk.columns.table()
            tile = gather(self.features, *tables, window.cval, dtype)
            vanish = self.alone and may_vanish(np.moveaxis(tile, -3, 0), sharpness, falloff)
            pixels = features = windows(tile, *tables, chunk)
            if not self.alone:
                pixels = windows(gather(self.planes, *tables, window.cval, self.dtype), *tables, chunk)
            yield row_taps, column_taps, pixels, features, vanish


def centres(planes: np.ndarray, window: Window, outside: Any, dtype: np.dtype) -> np.ndarray:
    """Return the pixels under the centres of all windows."""
    middle = slice(window.rows.taps // 2, window.rows.taps // 2 + 1)
    centre = window.taps(middle, middle)
    return gather(planes, centre.rows.table(), centre.columns.table(), outside, dtype)
