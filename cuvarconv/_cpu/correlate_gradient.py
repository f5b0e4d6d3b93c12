"""The gradient of `correlate` in its weights: g_k[m,n,i,j] = Σ conj(g[i,j]) x[i+m,j+n]."""

from __future__ import annotations

import numpy as np

from cuvarconv._blocks import Where
from cuvarconv._cpu._sums import PARTIAL, add_or_assign, sum_blocks
from cuvarconv._cpu._tiles import BLOCK, WORKSPACE, shifted_pixels
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_TILE = 4 * BLOCK  # bytes of the pixels under a block's windows
_BYTES = 12 << 20  # that a worker takes: a tile, products and sums


def correlate_weights_gradient(
    grad: np.ndarray,
    input: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Multiply tap after tap over large blocks, and sum what shares a kernel.

    `grad` is (batch…, H_out, W_out), `input` (batch…, H, W), `output` (kh, kw, batch…, H_out, W_out)
    with axes of length 1 where kernels were shared; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)

    def add(sums: np.ndarray, where: Where, first: bool) -> None:
        *batch, down, across = where
        factor = grad[where].astype(dtype, copy=False).conj()
        _add_products(sums, input[tuple(batch)], factor, window.part(down, across), assign=first)

    workers = (WORKSPACE - PARTIAL) // _BYTES
    sum_blocks(output, grad.shape, add, block=BLOCK // dtype.itemsize, dtype=dtype, most_workers=workers)


def _add_products(
    sums: np.ndarray, planes: np.ndarray, factor: np.ndarray, window: Window, *, assign: bool
) -> None:
    """Add conj(g)·x, or assign it, for every tap, summed over the axes where `sums` has length 1."""
    shared = tuple(
        axis for axis, length in enumerate(sums.shape[2:]) if length == 1 and factor.shape[axis] != 1
    )
    tile = _TILE // factor.dtype.itemsize
    for row_taps, column_taps, pixels in shifted_pixels(planes, window, window.cval, factor.dtype, tile):
        for row_pixels, row in zip(pixels, sums[row_taps, column_taps], strict=True):
            for shifted, total in zip(row_pixels, row, strict=True):
                if assign and not shared:
                    np.multiply(shifted, factor, out=total)
                    continue
                products = np.multiply(shifted, factor)
                if shared:
                    products = np.add.reduce(products, axis=shared, keepdims=True)
                add_or_assign(total, products, assign)
