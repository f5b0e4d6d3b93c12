"""Full kernels without matrix products: all products of a tap at once, sums over channels at the end.

NumPy takes 30 ns or more for one matrix product, and there is one for each pixel and tap.  Here each number
is there once for every channel that it is paired with, so that a tap is one multiplication of long lines.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cuvarconv._axis import IndexTable
from cuvarconv._blocks import Where, blocks
from cuvarconv._cpu._channels_last import pixels_last
from cuvarconv._cpu._runs import Run, Term, spread_tiles, tile_sum
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._tiles import WORKSPACE, TapRow, gather, move_axis, rows_of_taps, store
from cuvarconv._cpu._workers import for_each, has_small_products
from cuvarconv._window import Window

# Products of a pixel under a tap; for more, matrix products take less time.
_FEW = 16
_FEW_OF_SAMPLES = 128  # of several that share kernels, where BLAS has no kernels for small products

_ONE_BY_ONE = 9  # pairs of channels for which pixels are copied plane by plane, which is faster for few
_BLOCK = 1 << 20  # bytes of products in one block
_TILE = 1 << 21  # bytes of pixels under their windows, once for every product
_BYTES = 5 * _BLOCK + 3 * _TILE  # of a block: sums, products, pixels gathered, conjugated and repeated
_GRADIENT = 20 * _BLOCK  # bytes of one to which runs of outputs send, twice as long each way
_INPUTS, _OUTPUTS = -4, -3  # axes of the channels


@dataclass(frozen=True)
class Pairs:
    """Products (batch…, C_in, C_out, H, W) of pairs of channels, in memory as the kernels are.

    `kernels`, or their gradient, are (kh, kw, batch…, C_in, C_out, H_out, W_out), with batch axes of length
    1 where samples share them; `batch` is that of the images.
    """

    kernels: np.ndarray
    batch: tuple[int, ...]
    dtype: np.dtype

    @property
    def are_few(self) -> bool:
        """Whether this takes less time than matrix products."""
        slow = not (self._one_sample or has_small_products())
        return self._together <= (_FEW_OF_SAMPLES if slow else _FEW)

    @property
    def are_used_again(self) -> bool:
        """Whether several taps of the kernels' gradient share copies, and no samples have to be added up."""
        taps = math.prod(self.kernels.shape[:2])
        return self._one_sample and taps > 1 and self._together <= self._numbers

    def correlate(self, input: np.ndarray, output: np.ndarray, window: Window) -> None:
        """Fill y[o,i,j] = Σ k[m,n,i,j,c,o] x[c,i+m,j+n]."""

        def block(where: Where) -> None:
            *own, down, across = where
            scratch, target = self._scratch(), self._images(output, own, down, across)
            total, row, product = (self.empty(target, scratch) for _ in range(3))
            total.fill(0)
            planes, part = self._images(input, own), window.part(down, across)
            for m, ((n, pixels), *others) in self._pixels(planes, part, scratch):
                np.multiply(pixels, self.tap(m, n, *where), out=row)
                for n, pixels in others:
                    np.multiply(pixels, self.tap(m, n, *where), out=product)
                    np.add(row, product, out=row)
                np.add(total, row, out=total)
            self._sum_over(_INPUTS, total, target)

        for_each(block, self._blocks(window.output_shape), most_workers=WORKSPACE // _BYTES)

    def input_gradient(self, grad: np.ndarray, output: np.ndarray, window: Window) -> None:
        """Fill g_x[c,h,w] = Σ conj(k[m,n,i,j,c,o]) g[o,i,j], the conjugate of Σ k conj(g)."""

        def block(where: Where) -> None:
            *own, down, across = where
            scratch, target = self._scratch(), self._images(output, own, down, across)
            total = self.empty(target, scratch)
            total.fill(0)
            sent = _Sent(self, self._images(grad, own), own, total, scratch)
            spread_tiles(total, window, down, across, sent.tile)
            if total.dtype.kind == "c":
                np.conjugate(total, out=total)
            self._sum_over(_OUTPUTS, total, target)

        for_each(block, self._blocks(window.image_shape), most_workers=WORKSPACE // _GRADIENT)

    def kernels_gradient(self, grad: np.ndarray, input: np.ndarray, window: Window) -> None:
        """Fill the gradient, g_k[m,n,i,j,c,o] = Σ conj(x[c,i+m,j+n]) g[o,i,j] over samples that share it."""
        direct = self._one_sample and self.kernels.dtype == self.dtype

        def block(where: Where) -> None:
            *own, down, across = where
            scratch = self._scratch()
            sent = self.repeated(self._images(grad, own, down, across), _INPUTS, scratch)
            product = self.empty(sent, scratch)
            planes, part = self._images(input, own), window.part(down, across)
            for m, row in self._pixels(planes, part, scratch, conjugate=True):
                for n, pixels in row:
                    target = self._part(m, n, *where)
                    np.multiply(pixels, sent, out=target if direct else product)
                    if not direct:
                        store(target, product.sum(self._shared, keepdims=True))

        for_each(block, self._blocks(window.output_shape), most_workers=WORKSPACE // _BYTES)

    @property
    def _own(self) -> tuple[int, ...]:
        """Lengths of the kernels' batch axes."""
        return self.kernels.shape[2:-4]

    @property
    def _shared(self) -> tuple[int, ...]:
        """The batch axes along which kernels are shared."""
        return tuple(axis for axis, length in enumerate(self._own) if length == 1)

    @property
    def _one_sample(self) -> bool:
        """Whether no sample shares its kernels with others."""
        return all(self.batch[axis] == 1 for axis in self._shared)

    @cached_property
    def _together(self) -> int:
        """The products of a pixel under a tap, over all samples that share its kernel."""
        samples = math.prod(self.batch[axis] for axis in self._shared)
        return samples * math.prod(self.kernels.shape[-4:-2])

    @property
    def _numbers(self) -> int:
        """Return how many products a block may have."""
        return _BLOCK // self.dtype.itemsize

    def _scratch(self) -> Scratch:
        return Scratch(3 * _BLOCK + _TILE)

    def _blocks(self, image: tuple[int, int]) -> list[Where]:
        """Cut (own…, H, W), samples that share kernels being together."""
        return blocks((*self._own, *image), max(1, self._numbers // self._together))

    def _images(self, images: np.ndarray, own: Sequence[slice], *pixels: slice) -> np.ndarray:
        """View images (batch…, C, H, W) in a block."""
        samples = (slice(None) if shared == 1 else part for part, shared in zip(own, self._own, strict=True))
        where: Any = (*samples, slice(None), *pixels)
        return images[where]

    def _part(self, m: int, n: int, *where: slice) -> np.ndarray:
        """View a tap of the kernels in a block of (own…, H, W)."""
        *own, down, across = where
        at: Any = (m, n, *own, slice(None), slice(None), down, across)
        return self.kernels[at]

    def tap(self, m: int, n: int, *where: slice) -> np.ndarray:
        """Return a tap of the kernels in a block of (own…, H, W), in the computing dtype."""
        return self._part(m, n, *where).astype(self.dtype, copy=False)

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """The axes (batch…, C_in, C_out, H, W) in the order in which they are to lie in memory."""
        batch, strides = len(self.batch), self.kernels.strides[-4:]
        return (*range(batch), *sorted(range(batch, batch + 4), key=lambda axis: -abs(strides[axis - batch])))

    def nbytes(self, like: np.ndarray) -> int:
        """Return the bytes of pairs for the samples and pixels of images (batch…, C, H, W)."""
        return like[..., 0, :, :].size * math.prod(self.kernels.shape[-4:-2]) * self.dtype.itemsize

    def empty(self, like: np.ndarray, scratch: Scratch) -> np.ndarray:
        """Take an array of pairs for the samples and pixels of another."""
        shape = (*like.shape[: len(self.batch)], *self.kernels.shape[-4:-2], *like.shape[-2:])
        made = scratch.empty(tuple([shape[axis] for axis in self._order]), self.dtype)
        return made.transpose([self._order.index(axis) for axis in range(len(shape))])

    def repeated(self, planes: np.ndarray, axis: int, scratch: Scratch) -> np.ndarray:
        """Give every plane (batch…, C, H, W) to all channels of another `axis`: copies, or a view.

        Where pixels lie side by side in the kernels, that of one channel is multiplied by all as it is.
        """
        planes = move_axis(planes[..., None], -1, axis)
        if pixels_last(self.kernels):
            return planes.astype(self.dtype, copy=False)
        pairs = self.empty(planes, scratch)
        if math.prod(pairs.shape[-4:-2]) > _ONE_BY_ONE:
            np.copyto(pairs, planes)
            return pairs
        whole = np.broadcast_to(planes, pairs.shape)
        for c, o in itertools.product(*map(range, pairs.shape[-4:-2])):
            np.copyto(pairs[..., c, o, :, :], whole[..., c, o, :, :])
        return pairs

    def _pixels(
        self, planes: np.ndarray, window: Window, scratch: Scratch, *, conjugate: bool = False
    ) -> Iterator[TapRow]:
        """Yield the pixels (batch…, C_in, 1 or C_out, H, W) under the taps, row by row."""
        kept = scratch.taken

        def tile_of(rows: IndexTable, columns: IndexTable) -> np.ndarray:
            scratch.clear(kept)
            tile = gather(planes, rows, columns, window.cval, self.dtype)
            return self.repeated(tile.conj() if conjugate else tile, _OUTPUTS, scratch)

        numbers = planes[..., 0, 0].size * self.kernels.shape[-3]
        return rows_of_taps(window, tile_of, numbers, _TILE // self.dtype.itemsize)

    def _sum_over(self, axis: int, pairs: np.ndarray, target: np.ndarray) -> None:
        """Add pairs up over an axis of channels."""
        terms = move_axis(pairs, axis, 0)
        sums = target if target.dtype == self.dtype else np.empty(target.shape, self.dtype)
        for channel in range(target.shape[-3]):
            total = sums[..., channel, :, :]
            np.copyto(total, terms[0][..., channel, :, :])
            for each in terms[1:]:
                np.add(total, each[..., channel, :, :], out=total)
        if sums is not target:
            store(target, sums)


class _Sent:
    """What outputs send to the pixels of a block that they read, k conj(g), in room that is used again."""

    def __init__(
        self, pairs: Pairs, grad: np.ndarray, own: Sequence[slice], total: np.ndarray, scratch: Scratch
    ) -> None:
        self._pairs, self._grad, self._own, self._total = pairs, grad, own, total
        self._scratch, self._kept = scratch, scratch.taken

    def tile(self, rows: Run, columns: Run) -> np.ndarray:
        """Return what is sent to runs of entries, (batch…, C_in, C_out, rows, columns)."""
        self._scratch.clear(self._kept)
        self._first, self._read = rows.hull.start, self._grad[..., rows.hull, columns.hull]
        room = self._pairs.nbytes(self._read)
        self._all = self._repeated(self._read) if room <= _TILE else None
        return tile_sum(self._total, rows, columns, self._row)

    def _row(self, m: int, i: slice, hull: slice) -> Term:
        """Return the terms of a row of taps; all rows of outputs were repeated together if they fit."""
        some = slice(i.start - self._first, i.stop - self._first)
        if self._all is None:
            self._scratch.clear(self._kept)
            line = self._repeated(self._read[..., some, :])
        else:
            line = self._all[..., some, :]
        taken = self._scratch.taken

        def term(n: int, j: slice) -> np.ndarray:
            self._scratch.clear(taken)
            factors = line[..., j.start - hull.start : j.stop - hull.start]
            product = self._pairs.empty(factors, self._scratch)
            return np.multiply(factors, self._pairs.tap(m, n, *self._own, i, j), out=product)

        return term

    def _repeated(self, grad: np.ndarray) -> np.ndarray:
        return self._pairs.repeated(grad.conj(), _INPUTS, self._scratch)
