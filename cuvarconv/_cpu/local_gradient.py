"""The gradients of `local_correlate`."""

from __future__ import annotations

import itertools

import numpy as np

from cuvarconv._blocks import Where
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._channels_last import Layout, multiply
from cuvarconv._cpu._local_pairs import Pairs
from cuvarconv._cpu._runs import Term, spread_block
from cuvarconv._cpu._tiles import store
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._cpu.local import workers
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window


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
    pairs = Pairs(kernels, grad.shape[:-3], dtype)
    if pairs.are_few:
        pairs.input_gradient(grad, output, window)
        return
    layout = Layout.of(kernels)
    given, results, matrices = layout.images(grad), layout.images(output), layout.matrices(kernels)
    cuts, samples = layout.blocks(grad.shape[:-3], window.image_shape, kernels.shape[-4:-2])
    samples_last = kernels.shape[-3] > 1  # or the products are not sums

    def block(at: tuple[Where, Where]) -> None:
        *batch, down, across = layout.both(*at)
        planes, target = given[tuple(batch)], results[(*batch, slice(None), down, across)]
        taps = matrices[(slice(None), slice(None), *at[0][:-2])]
        total = layout.zeros(target.shape, dtype, samples_last=samples_last)

        def row_terms(m: int, i: slice, hull: slice) -> Term:
            from_here = planes[..., i, hull].astype(dtype, copy=False)
            sent = layout.by_pixel(from_here, samples_last=samples_last)

            def term(n: int, j: slice) -> np.ndarray:
                tap = layout.in_order(taps[m, n][..., i, j, :, :], dtype)
                vectors = sent[..., j.start - hull.start : j.stop - hull.start, :, :]
                if not samples_last:
                    return layout.image_last(multiply(vectors, tap.conj().swapaxes(-1, -2)))
                return layout.image_last(multiply(tap.conj(), vectors.swapaxes(-1, -2)).swapaxes(-1, -2))

            return term

        spread_block(layout.image_last(total), window, down, across, row_terms)
        store(target, layout.by_image(total, target.shape))

    with serial_blas:
        for_each(block, list(itertools.product(cuts, samples)), most_workers=workers(dtype))


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
    pairs = Pairs(output, grad.shape[:-3], dtype)
    if pairs.are_few or pairs.are_used_again:
        pairs.kernels_gradient(grad, input, window)
        return
    layout = Layout.of(output)
    given, images, matrices = layout.images(grad), layout.images(input), layout.matrices(output)
    cuts, samples = layout.blocks(grad.shape[:-3], window.output_shape, output.shape[-4:-2])

    def product(where: Where, some: Where, m: int, n: int, out: np.ndarray | None) -> np.ndarray:
        *batch, down, across = layout.both(where, some)
        tap = window.part(down, across).taps(slice(m, m + 1), slice(n, n + 1))
        ((_, ((_, pixels),)),) = layout.rows_of_taps(images[tuple(batch)], tap, dtype, samples_last=True)
        sent = layout.by_pixel(given[(*batch, slice(None), down, across)].astype(dtype, copy=False))
        return multiply(pixels.conj().swapaxes(-1, -2), sent, out)

    def block(where: Where) -> None:
        for m, n in np.ndindex(output.shape[:2]):
            target = matrices[(m, n, *where)]
            if len(samples) == 1 and target.dtype == dtype:
                product(where, samples[0], m, n, target)
                continue
            total = zeros(target.shape, dtype)
            for some in samples:
                total += product(where, some, m, n, None)
            store(target, total)

    with serial_blas:
        for_each(block, cuts, most_workers=workers(dtype))
