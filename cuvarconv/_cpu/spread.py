"""The adjoint of `correlate`: every input pixel is spread by its own kernel."""

from __future__ import annotations

import numpy as np

from cuvarconv._blocks import Where, matching, shares
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._runs import Term, spread_block
from cuvarconv._cpu._tiles import BLOCK, SHARED_BY, WORKSPACE, store
from cuvarconv._cpu._workers import for_each
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_ARRAYS = 8  # as large as a block: a tile, a row of it, products and sums


def spread(
    input: np.ndarray,
    weights: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Gather tap after tap into large blocks of the result.

    `input` is (batch…, H_in, W_in), `weights` (kh, kw, batch…, H_in, W_in) with axes of length 1 where
    they broadcast, `output` (batch…, H, W); `window` is that of `correlate`, from H × W pixels to
    H_in × W_in; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)

    def block(where: Where) -> None:
        *batch, down, across = where
        planes = input[tuple(batch)]
        every = slice(None)
        taps = weights[(every, every, *matching(weights, (*batch, every, every)))]
        total = zeros(output[where].shape, dtype)

        def row_terms(m: int, i: slice, _: slice) -> Term:
            def term(n: int, j: slice) -> np.ndarray:
                tap = taps[m, n][(..., *matching(taps, (i, j)))]
                return np.multiply(planes[..., i, j].astype(dtype, copy=False), tap.astype(dtype, copy=False))

            return term

        spread_block(total, window, down, across, row_terms)
        store(output[where], total)

    workers, least = SHARED_BY
    pieces = shares(output.shape, BLOCK // dtype.itemsize, workers, least=least)
    for_each(block, pieces, most_workers=WORKSPACE // (_ARRAYS * BLOCK))
