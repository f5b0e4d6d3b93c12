"""The pixels under every window, one after the other, as they are."""

from __future__ import annotations

import numpy as np

from cuvarconv._blocks import Where, shares
from cuvarconv._cpu._tiles import BLOCK, WORKSPACE, shifted_pixels, store
from cuvarconv._cpu._workers import for_each, get_workers
from cuvarconv._window import Window

_TILE = 2 * BLOCK  # bytes of the pixels under a block's windows
_BYTES = 9 * BLOCK  # that a worker takes: two tiles, what is looked up for one, tables of narrow images
_LEAST = 1 << 16  # windows that are given to another worker


def unfold(input: np.ndarray, output: np.ndarray, window: Window) -> None:
    """Copy `input` (batch…, H, W) to `output` (batch…, kh, kw, H_out, W_out), of the same dtype."""
    tile = _TILE // input.dtype.itemsize
    outside = np.empty((), input.dtype)
    with np.errstate(all="ignore"):
        store(outside, np.asarray(window.cval))

    def block(where: Where) -> None:
        *batch, down, across = where
        planes = input[tuple(batch)]
        target = output[(*batch, slice(None), slice(None), down, across)]
        part = window.part(down, across)
        order = *range(2, planes.ndim), 0, 1, -2, -1
        for row_taps, column_taps, pixels in shifted_pixels(planes, part, outside, input.dtype, tile):
            target[..., row_taps, column_taps, :, :] = pixels.transpose(order)

    domain = *output.shape[:-4], *output.shape[-2:]
    pieces = shares(domain, BLOCK // input.dtype.itemsize, get_workers(), least=_LEAST)
    for_each(block, pieces, most_workers=WORKSPACE // _BYTES)
