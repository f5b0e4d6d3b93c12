"""The pixels under every window, one after the other, as they are."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from cuvarconv._gpu._geometry import (
    Batch,
    batch_axes,
    in_runs,
    launches,
    merged,
    offsets,
    sizes,
    strides,
)
from cuvarconv._gpu._launch import MOST_BLOCKS, launch, shared_memory_per_block
from cuvarconv._gpu._pieces import Piece, pieces, store
from cuvarconv._gpu._tiles import THREADS, Tiling, lanes, tiling
from cuvarconv._window import Window

# the kernel's T, and the dtype of the same elements, by their size
BITS: dict[int, tuple[str, np.dtype]] = {
    1: ("unsigned char", np.dtype(np.uint8)),
    2: ("unsigned short", np.dtype(np.uint16)),
    4: ("unsigned int", np.dtype(np.uint32)),
    8: ("unsigned long long", np.dtype(np.uint64)),
    16: ("c128", np.dtype(np.complex128)),
}
_SHARED = 48 << 10  # bytes of tile per block, at most


def unfold(input: Any, output: Any, window: Window) -> None:
    """Copy `input` (batch…, H, W) to `output` (batch…, kh, kw, H_out, W_out), of the same dtype."""
    _, bits = BITS[input.itemsize]
    outside: Any = np.empty((), input.dtype)
    with np.errstate(all="ignore"):
        store(outside, np.asarray(window.cval))
    image, result = input.view(bits), output.view(bits)
    nothing = cupy.empty((1,) * (output.ndim + 2), bits)  # `Piece` knows of three arrays
    for piece in pieces(Piece(image, nothing, result, window), bits, batch=input.ndim - 2):
        limit = min(_SHARED, shared_memory_per_block())
        tile = tiling(piece.window, lanes(piece.window, bits), 1, bits, limit)
        planes = merged(batch_axes(piece, input.ndim - 2))
        most = max(1, MOST_BLOCKS // tile.tiles(piece.window))
        for batch in launches([planes], (most,), operands=3):
            _launch(piece, tile, batch, outside.view(bits)[()])


def _launch(piece: Piece, tile: Tiling, batch: Batch, outside: Any) -> None:
    (planes,) = batch.axes
    window, image, output = piece.window, piece.image, piece.output
    x = (batch.bases[0], planes.strides[0], *strides(image)[-2:])
    u = (batch.bases[2], planes.strides[2], *strides(output)[-4:])
    whole = image.shape[-1] % tile.vector == 0
    arguments = (
        *(image, np.int32(whole and in_runs(image, x, tile.vector)), *offsets(*x)),
        *(output, np.int32(in_runs(output, u, tile.vector)), *offsets(*u)),
        *tile.tables(window),
        *sizes(window.rows.taps, window.columns.taps, *window.output_shape),
        *sizes(tile.lanes, tile.row_taps, tile.column_taps, tile.pitch),
        outside,
    )
    name = f"unfold<{BITS[image.itemsize][0]}>"
    launch("unfold", name, tile.tiles(window) * planes.length, THREADS, arguments, tile.shared)
