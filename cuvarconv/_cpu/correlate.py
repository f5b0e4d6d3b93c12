"""One kernel per location, shared by the channels: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n]."""

from __future__ import annotations

import numpy as np

from cuvarconv._blocks import Where, blocks, matching
from cuvarconv._cpu._tiles import WORKSPACE, gather, store, tap_chunks
from cuvarconv._cpu._workers import for_each
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

# A block's arrays stay in the second-level cache, and one operation on them lasts long enough
# (20 µs) for two threads not to queue at the interpreter lock.
_BLOCK = 1 << 16  # outputs
_TILE = 1 << 19  # pixels under their windows


def correlate(
    input: np.ndarray,
    weights: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    dtype: np.dtype,
    conjugate: bool,
) -> None:
    """Accumulate tap after tap over cache-sized blocks.

    `input` and `output` are (batch…, H, W), `weights` (kh, kw, batch…, H, W) with axes of length 1
    where they broadcast; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)

    def block(where: Where) -> None:
        store(output[where], _block_sum(input, weights, where, window, dtype, conjugate))

    most_workers = WORKSPACE // ((_TILE + 4 * _BLOCK) * dtype.itemsize)
    for_each(block, blocks(output.shape, _BLOCK), most_workers=most_workers)


def _block_sum(
    input: np.ndarray,
    weights: np.ndarray,
    where: Where,
    window: Window,
    dtype: np.dtype,
    conjugate: bool,
) -> np.ndarray:
    *batch, down, across = where
    planes = input[tuple(batch)]
    weights = weights[(slice(None), slice(None), *matching(weights, where))]
    part = window.part(down, across)
    shape = (*planes.shape[:-2], *part.output_shape)
    total, row_sum, product = (np.empty(shape, dtype) for _ in range(3))
    total[...] = 0
    for row_taps, column_taps in tap_chunks(part, planes[..., 0, 0].size, _TILE):
        chunk = part.taps(row_taps, column_taps)
        rows, columns = chunk.rows.table(), chunk.columns.table()
        tile = gather(planes, rows, columns, part.cval, dtype)
        for m, row_weights in enumerate(weights[row_taps, column_taps]):
            for n, tap in enumerate(row_weights):
                pixels = tile[..., rows.outputs(m), columns.outputs(n)]
                tap = np.conjugate(tap, dtype=dtype) if conjugate else tap.astype(dtype, copy=False)
                if n == 0:
                    np.multiply(pixels, tap, out=row_sum)
                else:
                    np.multiply(pixels, tap, out=product)
                    np.add(row_sum, product, out=row_sum)
            np.add(total, row_sum, out=total)
    return total
