"""Full kernels as matrices, one for each pixel, and images as rows or columns that they multiply."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cuvarconv._axis import IndexTable
from cuvarconv._blocks import Where, blocks
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._tiles import TapRow, gather, rows_of_taps
from cuvarconv._window import Window

_SAMPLES = 1 << 14  # numbers per pixel, over samples and channels, in one block
_BLOCK = 1 << 18  # numbers in one block, over pixels, samples and channels
_KERNELS = 1 << 19  # kernel values in one block, for one tap
_COPIED = 1 << 17  # the same where they are put in order
_COLLECTED = 256  # numbers of a matrix that BLAS may be given one by one, where pixels lie side by side
_TILE = 1 << 19  # pixels under their windows, over samples and channels


@dataclass(frozen=True)
class Layout:
    """Which batch axes have kernels of their own, which share them, and whether matrices are put in order."""

    own: tuple[int, ...]
    shared: tuple[int, ...]
    ordered: bool

    @classmethod
    def of(cls, kernels: np.ndarray) -> Layout:
        """Read it from kernels of shape (kh, kw, batch…, C_in, C_out, H, W)."""
        batch = range(kernels.ndim - 6)
        return cls(
            tuple(axis for axis in batch if kernels.shape[2 + axis] != 1),
            tuple(axis for axis in batch if kernels.shape[2 + axis] == 1),
            pixels_last(kernels) and math.prod(kernels.shape[-4:-2]) > _COLLECTED,
        )

    def images(self, array: np.ndarray) -> np.ndarray:
        """View (batch…, C, H, W) as (own…, shared…, C, H, W)."""
        channels = len(self.own) + len(self.shared)
        return array.transpose(*self.own, *self.shared, channels, channels + 1, channels + 2)

    def matrices(self, kernels: np.ndarray) -> np.ndarray:
        """View (kh, kw, batch…, C_in, C_out, H, W) as (kh, kw, own…, H, W, C_in, C_out)."""
        at = tuple(0 if axis in self.shared else slice(None) for axis in range(kernels.ndim - 6))
        view = kernels[(slice(None), slice(None), *at)]
        outer = range(view.ndim - 4)
        return view.transpose(*outer, -2, -1, -4, -3)

    def blocks(
        self, batch: tuple[int, ...], image: tuple[int, int], channels: tuple[int, int]
    ) -> tuple[list[Where], list[Where]]:
        """Cut (own…, H, W), and the shared batch axes, so that one block of each goes together."""
        samples = blocks(tuple(batch[axis] for axis in self.shared), max(1, _SAMPLES // sum(channels)))
        together = math.prod(part.stop - part.start for part in samples[0]) if samples else 1
        kernels = _COPIED if self.ordered else _KERNELS
        pixels = min(_BLOCK // (together * sum(channels)), kernels // math.prod(channels))
        return blocks((*(batch[axis] for axis in self.own), *image), max(1, pixels)), samples

    def both(self, where: Where, samples: Where) -> Where:
        """Join a block of (own…, H, W) and one of the shared axes to one of (own…, shared…, H, W)."""
        return (*where[:-2], *samples, *where[-2:])

    def by_pixel(self, images: np.ndarray, *, samples_last: bool = False) -> np.ndarray:
        """Copy (own…, shared…, C, H, W) to (own…, H, W, samples, C); samples may be last in memory."""
        own, channels = len(self.own), images.ndim - 3
        pixels, shared = (*images.shape[:own], *images.shape[-2:]), range(own, channels)
        last = (channels, *shared) if samples_last else (*shared, channels)
        moved = np.ascontiguousarray(images.transpose(*range(own), -2, -1, *last))
        if samples_last:
            return moved.reshape(*pixels, images.shape[-3], -1).swapaxes(-1, -2)
        return moved.reshape(*pixels, -1, images.shape[-3])

    def image_last(self, pixels: np.ndarray) -> np.ndarray:
        """View (own…, H, W, samples, C) as (own…, samples, C, H, W)."""
        own = len(self.own)
        return pixels.transpose(*range(own), *range(own + 2, pixels.ndim), own, own + 1)

    def by_image(self, pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """View (own…, H, W, samples, C) as (own…, shared…, C, H, W), which is `shape`."""
        own = len(self.own)
        return self.image_last(pixels.reshape(*shape[:own], *shape[-2:], *shape[own:-2]))

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype, *, samples_last: bool = False) -> np.ndarray:
        """Make (own…, H, W, samples, C) for (own…, shared…, C, H, W); samples may be last in memory."""
        own = len(self.own)
        pixels, samples = (*shape[:own], *shape[-2:]), math.prod(shape[own:-3])
        if samples_last:
            return zeros((*pixels, shape[-3], samples), dtype).swapaxes(-1, -2)
        return zeros((*pixels, samples, shape[-3]), dtype)

    def rows_of_taps(
        self, planes: np.ndarray, window: Window, dtype: np.dtype, *, samples_last: bool = False
    ) -> Iterator[TapRow]:
        """Yield the pixels (own…, H, W, samples, C) under all taps, for planes (own…, shared…, C, H, W)."""

        def tile_of(rows: IndexTable, columns: IndexTable) -> np.ndarray:
            tile = gather(planes, rows, columns, window.cval, dtype)
            return self.by_pixel(tile, samples_last=samples_last)

        own = (slice(None),) * len(self.own)
        return rows_of_taps(window, tile_of, planes[..., 0, 0].size, _TILE, own)

    def in_order(self, tap: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return the matrices of a tap in the computing dtype.

        Large ones whose pixels lie side by side are read in that order first, then each is put in one piece.
        """
        converted = tap.astype(dtype, copy=self.ordered)
        return np.ascontiguousarray(converted) if self.ordered else converted


def pixels_last(kernels: np.ndarray) -> bool:
    """Whether the pixels of each channel of (…, C_in, C_out, H, W) follow each other in memory."""
    axes = [
        (abs(stride), length) for stride, length in zip(kernels.strides[-4:], kernels.shape[-4:], strict=True)
    ]
    channels, pixels = ([stride for stride, length in some if length > 1] for some in (axes[:2], axes[2:]))
    return not channels or max(pixels, default=0) < min(channels)


def multiply(rows: np.ndarray, columns: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return (…, R, K) · (…, K, N), pixel by pixel."""
    if rows.shape[-1] == 1:
        return np.einsum("...rk,...kn->...rn", rows, columns, out=out)
    return np.matmul(rows, columns, out=out)
