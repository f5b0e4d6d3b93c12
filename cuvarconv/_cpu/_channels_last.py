"""Full kernels as matrices: pixels first, samples that share a kernel and channels last."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from cuvarconv._blocks import Where, blocks
from cuvarconv._cpu._aligned import zeros

_SAMPLES = 1 << 14  # numbers per pixel, over samples and channels, in one block
_BLOCK = 1 << 18  # numbers in one block, over pixels, samples and channels
KERNELS = 1 << 19  # kernel values in one block, for one tap
_FEW = 24  # products per pixel; for fewer, a matrix product costs more in calls than in arithmetic


@dataclass(frozen=True)
class Layout:
    """Which batch axes have kernels of their own, and which share them."""

    own: tuple[int, ...]
    shared: tuple[int, ...]

    @classmethod
    def of(cls, kernels: np.ndarray) -> Layout:
        """Read it from kernels of shape (kh, kw, batch…, C_in, C_out, H, W)."""
        batch = range(kernels.ndim - 6)
        return cls(
            tuple(axis for axis in batch if kernels.shape[2 + axis] != 1),
            tuple(axis for axis in batch if kernels.shape[2 + axis] == 1),
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
        pixels = min(_BLOCK // (together * sum(channels)), KERNELS // math.prod(channels))
        return blocks((*(batch[axis] for axis in self.own), *image), max(1, pixels)), samples

    def both(self, where: Where, samples: Where) -> Where:
        """Join a block of (own…, H, W) and one of the shared axes to one of (own…, shared…, H, W)."""
        return (*where[:-2], *samples, *where[-2:])

    def by_pixel(self, images: np.ndarray) -> np.ndarray:
        """Copy (own…, shared…, C, H, W) to (own…, H, W, samples, C)."""
        own = len(self.own)
        *_, channels, height, width = images.shape
        last = range(own, images.ndim - 2)
        moved = images.transpose(*range(own), images.ndim - 2, images.ndim - 1, *last)
        return np.ascontiguousarray(moved).reshape(*images.shape[:own], height, width, -1, channels)

    def image_last(self, pixels: np.ndarray) -> np.ndarray:
        """View (own…, H, W, samples, C) as (own…, samples, C, H, W)."""
        own = len(self.own)
        return pixels.transpose(*range(own), *range(own + 2, pixels.ndim), own, own + 1)

    def by_image(self, pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """View (own…, H, W, samples, C) as (own…, shared…, C, H, W), which is `shape`."""
        own = len(self.own)
        return self.image_last(pixels.reshape(*shape[:own], *shape[-2:], *shape[own:-2]))

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Make (own…, H, W, samples, C) for (own…, shared…, C, H, W)."""
        own = len(self.own)
        samples = math.prod(shape[own:-3])
        return zeros((*shape[:own], *shape[-2:], samples, shape[-3]), dtype)


def multiply(vectors: np.ndarray, matrices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return (…, R, K) · (…, K, N), pixel by pixel."""
    inner, across = matrices.shape[-2:]
    if out is None:
        out = np.empty((*vectors.shape[:-1], across), vectors.dtype)
    if vectors.shape[-2] * inner * across <= _FEW:
        _multiply_all_pixels(vectors, matrices, out)
    elif inner == 1:
        np.einsum("...rk,...kn->...rn", vectors, matrices, out=out)
    else:
        np.matmul(vectors, matrices, out=out)
    return out


def _multiply_all_pixels(vectors: np.ndarray, matrices: np.ndarray, out: np.ndarray) -> None:
    """Form one product after the other, for all pixels at once."""
    for r, n in itertools.product(*map(range, out.shape[-2:])):
        total = out[..., r, n]
        np.multiply(vectors[..., r, 0], matrices[..., 0, n], out=total)
        for k in range(1, vectors.shape[-1]):
            np.add(total, vectors[..., r, k] * matrices[..., k, n], out=total)
