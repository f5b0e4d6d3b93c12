"""Equation (2): y[o,i,j] = Σ_{c,m,n} w[o,c,m,n] d[m,n,i,j] x[c,i+m,j+n]."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from cuvarconv._gpu._geometry import (
    Batch,
    batch_axes,
    in_elements,
    launches,
    merged,
    offsets,
    sizes,
    strides,
    table_arguments,
)
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import Piece, pieces
from cuvarconv._window import Window

# outputs and pixels of a block, the kernel's BO and BP, by the number of outputs in a group
TILES = ((4, 256), (16, 128), (64, 64))
_PER_THREAD = 16
_REPACKED = 16 << 20  # bytes; larger weights are read where they lie


def modulated_correlate(
    input: Any,
    weights: Any,
    modulation: Any,
    output: Any,
    window: Window,
    *,
    groups: int,
    dtype: np.dtype,
) -> None:
    """Launch over pieces of the output and over the batch.

    `input` is (batch…, C_in, H, W), `output` (batch…, C_out, H, W), `weights` (C_out, C_in/groups,
    kh, kw), `modulation` (kh, kw, batch…, G, H, W), with axes of length 1 where it broadcasts and a
    divisor G of C_in; `dtype` is the computing dtype.
    """
    outputs_at_once = max(1, _REPACKED // max(1, weights[:1].size * dtype.itemsize))
    if groups == 1 and weights.dtype != dtype and outputs_at_once < len(weights):
        for first in range(0, len(weights), outputs_at_once):
            some = slice(first, first + outputs_at_once)
            part = output[..., some, :, :]
            modulated_correlate(input, weights[some], modulation, part, window, groups=1, dtype=dtype)
        return
    matrix = in_elements(weights).astype(dtype, copy=False).transpose(2, 3, 1, 0)
    if weights.nbytes <= _REPACKED:
        matrix = cupy.ascontiguousarray(matrix)  # neighbouring threads read neighbouring outputs
    outputs = weights.shape[0] // groups
    tile = next((tile for tile in TILES if outputs <= tile[0]), TILES[-1])
    call = Piece(in_elements(input), in_elements(modulation), output, window)
    for piece in pieces(call, dtype, batch=output.ndim - 3):
        height, width = piece.window.output_shape
        blocks = -(-outputs // tile[0]) * -(-height * width // tile[1]) * groups
        samples = merged(batch_axes(piece, output.ndim - 3))
        for batch in launches([samples], (max(1, MOST_BLOCKS // blocks),), operands=3):
            _launch(piece, matrix, groups, tile, blocks, batch, dtype)


def _launch(
    piece: Piece,
    matrix: Any,
    groups: int,
    tile: tuple[int, int],
    blocks: int,
    batch: Batch,
    dtype: np.dtype,
) -> None:
    window = piece.window
    channels, entries = piece.image.shape[-3], piece.kernels.shape[-3]
    (samples,) = batch.axes
    rows, _, *row_steps = table_arguments(window.rows, window.rows.shorter_by_tap)
    columns, _, *column_steps = table_arguments(window.columns, window.columns.shorter_by_tap)
    x, d, y = (strides(array) for array in (piece.image, piece.kernels, piece.output))
    arguments = (
        *(piece.image, *offsets(batch.bases[0], samples.strides[0], *x[-3:])),
        *(matrix, *offsets(*strides(matrix))),
        *(piece.kernels, *offsets(batch.bases[1], samples.strides[1], *d[:2], *d[-3:])),
        *(piece.output, *offsets(batch.bases[2], samples.strides[2], *y[-3:])),
        *(rows, *row_steps, columns, *column_steps),
        *sizes(*matrix.shape[:2], *window.output_shape, groups, matrix.shape[2]),
        *sizes(matrix.shape[3] // groups, channels // entries),
        *(np.float64(window.cval.real), np.float64(window.cval.imag)),
    )
    name = f"modulated_correlate<{CPP_TYPES[dtype.name]}, {tile[0]}, {tile[1]}>"
    threads = tile[0] * tile[1] // _PER_THREAD
    launch("modulated", name, blocks * samples.length, threads, arguments, shared=0)
