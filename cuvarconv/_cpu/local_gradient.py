"""The gradients of `local_correlate`."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from cuvarconv._blocks import Where
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._channels_last import KERNELS, Layout, multiply
from cuvarconv._cpu._runs import Term, spread_block
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._tiles import WORKSPACE, store
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._cpu.local import BYTES, COPIES, row_tiles
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_NUMBERS = COPIES + 3 * KERNELS  # of a block without sums: pixels, factors and products, for every pair


def local_input_gradient(
    grad: np.ndarray,
    kernels: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """g_x[c,h,w] = Σ conj(k[m,n,i,j,c,o]) g[o,i,j] over all o and all (i, j) that read (h, w).

    `grad` is (batch…, C_out, H_out, W_out), `kernels` (kh, kw, batch…, C_in, C_out, H_out, W_out) with
    batch axes of length 1 where they are shared, `output` (batch…, C_in, H, W); `dtype` is the
    computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    layout = Layout.of(kernels)
    given, results, matrices = layout.images(grad), layout.images(output), layout.matrices(kernels)
    cuts, samples = layout.blocks(grad.shape[:-3], window.image_shape, kernels.shape[-4:-2])

    def block(at: tuple[Where, Where]) -> None:
        *batch, down, across = layout.both(*at)
        planes, target = given[tuple(batch)], results[(*batch, slice(None), down, across)]
        taps = matrices[(slice(None), slice(None), *at[0][:-2])]
        total = layout.zeros(target.shape, dtype)

        def row_terms(m: int, i: slice, hull: slice) -> Term:
            from_here = layout.by_pixel(planes[..., i, hull].astype(dtype, copy=False))

            def term(n: int, j: slice) -> np.ndarray:
                tap = taps[m, n][..., i, j, :, :].astype(dtype, copy=False)
                vectors = from_here[..., j.start - hull.start : j.stop - hull.start, :, :]
                return layout.image_last(multiply(vectors, tap.conj().swapaxes(-1, -2)))

            return term

        spread_block(layout.image_last(total), window, down, across, row_terms)
        store(target, layout.by_image(total, target.shape))

    with serial_blas:
        for_each(block, list(itertools.product(cuts, samples)), most_workers=WORKSPACE // BYTES)


def local_kernels_gradient(
    grad: np.ndarray,
    input: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """g_k[m,n,i,j,c,o] = Σ conj(x[c,i+m,j+n]) g[o,i,j] over the samples that share a kernel.

    `grad` is (batch…, C_out, H_out, W_out), `input` (batch…, C_in, H, W), `output` (kh, kw, batch…,
    C_in, C_out, H_out, W_out) with batch axes of length 1 where kernels were shared; `dtype` is the
    computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    layout = Layout.of(output)
    given, images, matrices = layout.images(grad), layout.images(input), layout.matrices(output)
    channels = output.shape[-4:-2]
    cuts, samples = layout.blocks(grad.shape[:-3], window.output_shape, channels)
    products = _Products(layout, given, images, matrices, window, samples, dtype)
    alone = all(grad.shape[axis] == 1 for axis in layout.shared)
    plain = alone and math.prod(output.shape[:2]) > 1 and math.prod(channels) <= KERNELS
    workers = WORKSPACE // (_NUMBERS * dtype.itemsize if plain else BYTES)
    with serial_blas:
        for_each(products.write if plain else products.add_up, cuts, most_workers=workers)


@dataclass(frozen=True)
class _Products:
    """Products conj(x) g of every pair of channels, with axes in the order of the layout."""

    layout: Layout
    grad: np.ndarray
    input: np.ndarray
    output: np.ndarray
    window: Window
    samples: list[Where]
    dtype: np.dtype

    def write(self, where: Where) -> None:
        """Write those of a single sample: both factors, repeated for every pair, are multiplied in one go."""
        part, factors = self.window.part(*where[-2:]), self._factors(where, self.samples[0])
        planes = self._planes(where, self.samples[0])
        inputs, outputs = self.output.shape[-2:]
        shape = (*factors.shape[:-2], inputs, outputs)
        read = planes[..., 0, 0].size * part.rows.entries * part.columns.entries * outputs
        scratch = Scratch((math.prod(shape) + min(read, COPIES)) * self.dtype.itemsize)
        pairs = scratch.empty(shape, self.dtype)
        np.copyto(pairs, factors)
        for m, row in row_tiles(self.layout, planes, part, self.dtype, copies=outputs, scratch=scratch):
            for n, pixels in row:
                target = self.output[m, n][where]
                columns = pixels.conj().reshape(shape)
                if target.dtype == self.dtype:
                    np.multiply(columns, pairs, out=target)
                else:
                    store(target, columns * pairs)

    def add_up(self, where: Where) -> None:
        """Add up those of all samples, in matrix products."""
        part = self.window.part(*where[-2:])
        for m, n in np.ndindex(self.output.shape[:2]):
            tap = part.taps(slice(m, m + 1), slice(n, n + 1))
            target = self.output[(m, n, *where)]
            in_place = len(self.samples) == 1 and target.dtype == self.dtype
            total = target if in_place else zeros(target.shape, self.dtype)
            for some in self.samples:
                ((_, ((_, pixels),)),) = row_tiles(self.layout, self._planes(where, some), tap, self.dtype)
                columns, rows = pixels.conj().swapaxes(-1, -2), self._factors(where, some)
                if in_place:
                    multiply(columns, rows, out=target)
                else:
                    total += multiply(columns, rows)
            if not in_place:
                store(target, total)

    def _planes(self, where: Where, some: Where) -> np.ndarray:
        """Return the images of some samples, whole, in a block of (own…, H, W)."""
        return self.input[self.layout.both(where, some)[:-2]]

    def _factors(self, where: Where, some: Where) -> np.ndarray:
        """Return the incoming gradient of some samples in a block, (own…, H, W, samples, C_out)."""
        *batch, down, across = self.layout.both(where, some)
        block = self.grad[(*batch, slice(None), down, across)]
        return self.layout.by_pixel(block.astype(self.dtype, copy=False))
