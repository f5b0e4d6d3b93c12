"""The pixels under every window, one after the other, as they are."""

from __future__ import annotations

import numpy as np

from cuvarconv._blocks import Where, blocks
from cuvarconv._cpu._tiles import WORKSPACE, shifted_pixels, store
from cuvarconv._cpu._workers import for_each
from cuvarconv._window import Window

_BLOCK = 1 << 16  # outputs
_TILE = 1 << 19  # pixels under their windows


def unfold(input: np.ndarray, output: np.ndarray, window: Window) -> None:
    """Copy `input` (batch…, H, W) to `output` (batch…, kh, kw, H_out, W_out), of the same dtype."""
    outside = np.empty((), input.dtype)
    with np.errstate(all="ignore"):
        store(outside, np.asarray(window.cval))

    def block(where: Where) -> None:
        *batch, down, across = where
        planes = input[tuple(batch)]
        target = output[(*batch, slice(None), slice(None), down, across)]
        part = window.part(down, across)
        order = *range(2, planes.ndim), 0, 1, -2, -1
        for row_taps, column_taps, pixels in shifted_pixels(planes, part, outside, input.dtype, _TILE):
            target[..., row_taps, column_taps, :, :] = pixels.transpose(order)

    nbytes = 2 * _TILE * input.dtype.itemsize
    pieces = blocks((*output.shape[:-4], *output.shape[-2:]), _BLOCK)
    for_each(block, pieces, most_workers=max(1, WORKSPACE // nbytes))
