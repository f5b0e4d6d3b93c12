"""Full kernels: y[o,i,j] = Σ_{c,m,n} k[m,n,i,j,c,o] x[c,i+m,j+n]."""

from __future__ import annotations

import itertools

import numpy as np

from cuvarconv._blocks import Where
from cuvarconv._cpu._channels_last import Layout, multiply
from cuvarconv._cpu._local_pairs import Pairs
from cuvarconv._cpu._tiles import WORKSPACE, store
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_NUMBERS = 2 << 20  # numbers that one block takes: a tile, kernels converted, products and sums


def local_correlate(
    input: np.ndarray,
    kernels: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """One small matrix product per pixel and tap, all samples that share it at once; few channels in pairs.

    `input` is (batch…, C_in, H, W), `kernels` (kh, kw, batch…, C_in, C_out, H_out, W_out) with batch
    axes of length 1 where they are shared, `output` (batch…, C_out, H_out, W_out); `dtype` is the
    computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    pairs = Pairs(kernels, output.shape[:-3], dtype)
    if pairs.are_few:
        pairs.correlate(input, output, window)
        return
    layout = Layout.of(kernels)
    images, results, matrices = layout.images(input), layout.images(output), layout.matrices(kernels)

    cuts, samples = layout.blocks(input.shape[:-3], window.output_shape, kernels.shape[-4:-2])

    def block(at: tuple[Where, Where]) -> None:
        *batch, down, across = layout.both(*at)
        taps = matrices[(slice(None), slice(None), *at[0])]
        target = results[(*batch, slice(None), down, across)]
        total = layout.zeros(target.shape, dtype)
        part = window.part(down, across)
        for m, ((n, pixels), *others) in layout.rows_of_taps(images[tuple(batch)], part, dtype):
            products = multiply(pixels, layout.in_order(taps[m, n], dtype))
            for n, pixels in others:
                product = multiply(pixels, layout.in_order(taps[m, n], dtype))
                np.add(products, product, out=products)
            np.add(total, products, out=total)
        store(target, layout.by_image(total, target.shape))

    with serial_blas:
        for_each(block, list(itertools.product(cuts, samples)), most_workers=workers(dtype))


def workers(dtype: np.dtype) -> int:
    """Return how many blocks of matrices may be in progress."""
    return WORKSPACE // (_NUMBERS * max(8, dtype.itemsize))
