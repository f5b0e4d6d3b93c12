"""Pixels under symmetric windows, those on either side of the centre together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cuvarconv._blocks import Where
from cuvarconv._cpu._tiles import gather
from cuvarconv._cpu._widths import lines_first
from cuvarconv._window import Window

TILE = 1 << 20  # pixels under a block's windows; more are gathered column by column


@dataclass(frozen=True)
class Pixels:
    """The pixels under the windows of a block.

    Where `guarded`, some are not finite or so large that their sums might not be: then they are multiplied
    by `scale`, and products with a weight of 0 are to be cleared.
    """

    planes: np.ndarray
    window: Window
    dtype: np.dtype
    tile: np.ndarray | None  # (rows, planes, columns)
    reach: tuple[int, int]  # along rows and columns
    shape: tuple[int, int]  # rows and columns of the block
    guarded: bool
    scale: float

    @property
    def lines(self) -> int:
        """The rows under the windows."""
        return self.shape[0] + 2 * self.reach[0]

    def shifted(self, distance: int) -> np.ndarray:
        """Return the columns `distance` to the right of the block's, (rows, planes, columns)."""
        at = self.reach[1] + distance
        if self.tile is not None:
            return self.tile[:, :, at : at + self.shape[1]]
        columns = self.window.columns.part(slice(None), slice(at, at + 1))
        tile = _tile(self.planes, Window(self.window.rows, columns, self.window.cval), self.dtype)
        tile *= self.dtype.type(self.scale)
        return tile

    def add_facing_columns(self, distances: range, lines: np.ndarray) -> None:
        """Write what columns so far to the right and to the left add up to, as `shifted` returns them."""
        if self.tile is None:
            for n, line in zip(distances, lines, strict=True):
                np.add(self.shifted(n), self.shifted(-n), out=line)
            return
        right, left = (
            as_strided(self.shifted(sign * distances.start), lines.shape, (sign * step, *self.tile.strides))
            for sign, step in ((1, self.tile.itemsize), (-1, self.tile.itemsize))
        )
        np.add(right, left, out=lines)

    def level(self) -> Pixels:
        """Take off what all pixels have in common, which sums whose weights add up to 0 would only lose to.

        That is the pixel nearest to 0 if all have one sign: no number grows.
        """
        if self.tile is None or self.guarded:
            return self
        low, high = self.tile.min(), self.tile.max()
        common = max(low, 0) + min(high, 0)
        return replace(self, tile=self.tile - common) if common else self

    def part(self, rows: slice, columns: slice, reach: tuple[int, int]) -> Pixels:
        """Return what a rectangle of the block reaches, which may be less."""
        spare = [whole - far for whole, far in zip(self.reach, reach, strict=True)]
        if self.tile is None:
            taps = (slice(less, 2 * far - less + 1) for less, far in zip(spare, self.reach, strict=True))
            return _read(self.planes, self.window.part(rows, columns).taps(*taps), self.dtype)
        down, across = (
            slice(part.start + less, part.stop + less + 2 * far)
            for part, less, far in zip((rows, columns), spare, reach, strict=True)
        )
        shape = rows.stop - rows.start, columns.stop - columns.start
        tile = self.tile[down, :, across]
        return Pixels(self.planes, self.window, self.dtype, tile, reach, shape, self.guarded, self.scale)


def read_pixels(
    image: np.ndarray, where: Where, window: Window, reach: tuple[int, int], dtype: np.dtype
) -> Pixels:
    """Read what a block's windows reach, which may be less than the whole window."""
    *batch, down, across = where
    rows, columns = (
        slice(axis.taps // 2 - far, axis.taps // 2 + far + 1)
        for axis, far in zip((window.rows, window.columns), reach, strict=True)
    )
    return _read(image[tuple(batch)], window.part(down, across).taps(rows, columns), dtype)


def _read(planes: np.ndarray, window: Window, dtype: np.dtype) -> Pixels:
    reach, shape = (window.rows.taps // 2, window.columns.taps // 2), window.output_shape
    taps = window.rows.taps * window.columns.taps
    scale = 2.0 ** -math.ceil(math.log2(4 * taps))
    if planes[..., 0, 0].size * window.rows.entries * window.columns.entries > TILE:
        return Pixels(planes, window, dtype, None, reach, shape, True, scale)
    tile = _tile(planes, window, dtype)
    largest = max(float(tile.max()), -float(tile.min()))
    guarded = not largest <= np.finfo(dtype).max * scale
    if guarded:
        tile *= dtype.type(scale)
    return Pixels(planes, window, dtype, tile, reach, shape, guarded, scale if guarded else 1.0)


def _tile(planes: np.ndarray, window: Window, dtype: np.dtype) -> np.ndarray:
    return lines_first(gather(planes, window.rows.table(), window.columns.table(), window.cval, dtype))


def real_parts(image: np.ndarray, window: Window) -> Iterator[tuple[str, np.ndarray, Window]]:
    """Yield the names of the real and the imaginary part, and the image and window of each."""
    for part in ("real", "imag"):
        yield part, getattr(image, part), replace(window, cval=getattr(complex(window.cval), part))


def real_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype of the parts of a complex number."""
    return np.empty((), dtype).real.dtype
