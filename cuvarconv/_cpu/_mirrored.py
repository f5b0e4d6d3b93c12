"""Pixels under symmetric windows, those on either side of the centre together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cuvarconv._blocks import Where
from cuvarconv._cpu._tiles import gather
from cuvarconv._cpu._widths import lines_first
from cuvarconv._window import Window

_TILE = 1 << 18  # pixels under a block's windows; more are gathered column by column


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
    guarded: bool
    scale: float

    @property
    def reach(self) -> tuple[int, int]:
        """How far the windows reach along rows and columns."""
        return self.window.rows.taps // 2, self.window.columns.taps // 2

    def shifted(self, distance: int) -> np.ndarray:
        """Return the columns `distance` to the right of the block's, (rows, planes, columns)."""
        at = self.reach[1] + distance
        if self.tile is not None:
            return self.tile[:, :, at : at + self.window.columns.length]
        columns = self.window.columns.part(slice(None), slice(at, at + 1))
        tile = _tile(self.planes, Window(self.window.rows, columns, self.window.cval), self.dtype)
        tile *= self.dtype.type(self.scale)
        return tile


def read_pixels(
    image: np.ndarray, where: Where, window: Window, reach: tuple[int, int], dtype: np.dtype
) -> Pixels:
    """Read what a block's windows reach, which may be less than the whole window."""
    *batch, down, across = where
    rows, columns = (
        slice(axis.taps // 2 - far, axis.taps // 2 + far + 1)
        for axis, far in zip((window.rows, window.columns), reach, strict=True)
    )
    part = window.part(down, across).taps(rows, columns)
    planes = image[tuple(batch)]
    taps = part.rows.taps * part.columns.taps
    scale = 2.0 ** -math.ceil(math.log2(4 * taps))
    if planes[..., 0, 0].size * part.rows.entries * part.columns.entries > _TILE:
        return Pixels(planes, part, dtype, None, True, scale)
    tile = _tile(planes, part, dtype)
    largest = max(float(tile.max()), -float(tile.min()))
    guarded = not largest <= np.finfo(dtype).max * scale
    if guarded:
        tile *= dtype.type(scale)
    return Pixels(planes, part, dtype, tile, guarded, scale if guarded else 1.0)


def _tile(planes: np.ndarray, window: Window, dtype: np.dtype) -> np.ndarray:
    return lines_first(gather(planes, window.rows.table(), window.columns.table(), window.cval, dtype))


def real_parts(image: np.ndarray, window: Window) -> Iterator[tuple[str, np.ndarray, Window]]:
    """Yield the names of the real and the imaginary part, and the image and window of each."""
    for part in ("real", "imag"):
        yield part, getattr(image, part), replace(window, cval=getattr(complex(window.cval), part))


def real_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype of the parts of a complex number."""
    return np.empty((), dtype).real.dtype
