"""Full kernels: y[o,i,j] = Σ_{c,m,n} k[m,n,i,j,c,o] x[c,i+m,j+n]."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from cuvarconv._blocks import Where, tap_chunks
from cuvarconv._cpu._channels_last import Layout, multiply
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._tiles import WORKSPACE, gather, store, tap_slices
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_TILE = 1 << 19  # pixels under their windows, over samples and channels
COPIES = 1 << 20  # the same where each is there several times
BYTES = 16 << 20  # that one block takes: a tile, kernels converted, products and sums


def local_correlate(
    input: np.ndarray,
    kernels: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """One small matrix product per pixel and tap, all samples that share a kernel at once.

    `input` is (batch…, C_in, H, W), `kernels` (kh, kw, batch…, C_in, C_out, H_out, W_out) with batch
    axes of length 1 where they are shared, `output` (batch…, C_out, H_out, W_out); `dtype` is the
    computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    layout = Layout.of(kernels)
    images, results, matrices = layout.images(input), layout.images(output), layout.matrices(kernels)

    cuts, samples = layout.blocks(input.shape[:-3], window.output_shape, kernels.shape[-4:-2])

    def block(at: tuple[Where, Where]) -> None:
        *batch, down, across = layout.both(*at)
        taps = matrices[(slice(None), slice(None), *at[0])]
        target = results[(*batch, slice(None), down, across)]
        total = layout.zeros(target.shape, dtype)
        for m, row in row_tiles(layout, images[tuple(batch)], window.part(down, across), dtype):
            (n, pixels), *others = row
            products = multiply(pixels, taps[m, n].astype(dtype, copy=False))
            for n, pixels in others:
                product = multiply(pixels, taps[m, n].astype(dtype, copy=False))
                np.add(products, product, out=products)
            np.add(total, products, out=total)
        store(target, layout.by_image(total, target.shape))

    with serial_blas:
        for_each(block, list(itertools.product(cuts, samples)), most_workers=WORKSPACE // BYTES)


def row_tiles(
    layout: Layout,
    planes: np.ndarray,
    window: Window,
    dtype: np.dtype,
    *,
    copies: int = 1,
    scratch: Scratch | None = None,
) -> Iterator[tuple[int, list[tuple[int, np.ndarray]]]]:
    """Yield, for rows of taps, (m, [(n, the pixels under tap (m, n)), …]), pixels channels-last.

    With a `scratch` each number is there several times, side by side: (own…, H, W, samples, C, copies).
    """
    own = (slice(None),) * len(layout.own)
    kept = scratch.taken if scratch else 0
    most = COPIES if scratch else _TILE
    for row_taps, column_taps in tap_chunks(window, planes[..., 0, 0].size * copies, most):
        chunk = window.taps(row_taps, column_taps)
        rows, columns = chunk.rows.table(), chunk.columns.table()
        tile = layout.by_pixel(gather(planes, rows, columns, window.cval, dtype))
        if scratch:
            scratch.clear(kept)
            repeated = scratch.empty((*tile.shape, copies), dtype)
            np.copyto(repeated, tile[..., None])
            tile = repeated
        for m, down in enumerate(tap_slices(chunk.rows, rows)):
            yield (
                row_taps.start + m,
                [
                    (column_taps.start + n, tile[(*own, down, across)])
                    for n, across in enumerate(tap_slices(chunk.columns, columns))
                ],
            )
