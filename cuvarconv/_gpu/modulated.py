"""Equation (2): y[o,i,j] = Σ_{c,m,n} w[o,c,m,n] d[m,n,i,j] x[c,i+m,j+n]."""

from __future__ import annotations

import math
from dataclasses import replace
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
    table_arguments,
)
from cuvarconv._gpu._launch import MOST_BLOCKS
from cuvarconv._gpu._paths import Kernel, Product, chunk_of, expression, packed, tensor_kernel, tensor_tile
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
    call = Piece(input, modulation, output, window)
    if _on_tensor_cores(call, weights, groups, dtype):
        return
    outputs_at_once = max(1, _REPACKED // max(1, weights[:1].size * dtype.itemsize))
    if groups == 1 and weights.dtype != dtype and outputs_at_once < len(weights):
        for first in range(0, len(weights), outputs_at_once):
            some = slice(first, first + outputs_at_once)
            part = output[..., some, :, :]
            modulated_correlate(input, weights[some], modulation, part, window, groups=1, dtype=dtype)
        return
    matrix = weights.astype(dtype, copy=False).transpose(2, 3, 1, 0)
    if weights.nbytes <= _REPACKED:
        matrix = cupy.ascontiguousarray(matrix)  # neighbouring threads read neighbouring outputs
    outputs = weights.shape[0] // groups
    tile = next((tile for tile in TILES if outputs <= tile[0]), TILES[-1])
    name = expression("modulated_correlate", dtype, tile)
    kernel = Kernel("modulated", name, tile, math.prod(tile) // _PER_THREAD)
    _launch_pieces(call, matrix, kernel, groups, dtype)


def _on_tensor_cores(call: Piece, weights: Any, groups: int, dtype: np.dtype) -> bool:
    """Compute the call on tensor cores, if these are chosen."""
    outputs, channels, *taps = weights.shape
    per_entry, chunk = channels * groups // call.kernels.shape[-3], chunk_of(dtype)
    whole = per_entry % chunk == 0 and (groups == 1 or channels % chunk == 0)
    product = Product(
        dtype,
        rows=outputs // groups,
        channels=channels,
        taps=math.prod(taps),
        groups=groups,
        pixels=call.output.size // outputs,
        one_factor=per_entry == channels * groups or whole,
    )
    tile = tensor_tile(product)
    if tile is None:
        return False
    kernel = tensor_kernel("modulated_correlate", product, tile)
    for first in range(0, outputs, product.rows_at_once):
        some = slice(first, first + product.rows_at_once)
        matrix = packed(weights[some], product).transpose(1, 2, 3, 0)
        part = replace(call, output=call.output[..., some, :, :])
        _launch_pieces(part, matrix, kernel, groups, dtype)
    return True


def _launch_pieces(call: Piece, matrix: Any, kernel: Kernel, groups: int, dtype: np.dtype) -> None:
    outputs = matrix.shape[3] // groups
    for piece in pieces(call, dtype, batch=call.output.ndim - 3):
        height, width = piece.window.output_shape
        blocks = -(-outputs // kernel.tile[0]) * -(-height * width // kernel.tile[1]) * groups
        samples = merged(batch_axes(piece, call.output.ndim - 3))
        for batch in launches([samples], (max(1, MOST_BLOCKS // blocks),), operands=3):
            arguments = _arguments(piece, matrix, kernel.product, groups, batch)
            count = blocks * batch.axes[0].length
            kernel.launch(count, arguments)


def _arguments(
    piece: Piece, matrix: Any, product: Product | None, groups: int, batch: Batch
) -> tuple[Any, ...]:
    window = piece.window
    channels, entries = piece.image.shape[-3], piece.kernels.shape[-3]
    (samples,) = batch.axes
    rows, _, *row_steps = table_arguments(window.rows, window.rows.shorter_by_tap)
    columns, _, *column_steps = table_arguments(window.columns, window.columns.shorter_by_tap)
    x, d, y = (strides(array) for array in (piece.image, piece.kernels, piece.output))
    layout: tuple[Any, ...] = offsets(*strides(matrix))
    at_once: tuple[Any, ...] = ()
    if product is not None:
        group = 0 if groups == 1 else product.channels
        steps = (batch.bases[0], samples.strides[0], group, *x[-2:], x[-3])
        layout, at_once = sizes(product.padded), sizes(in_runs(piece.image, steps, product.chunk))
    return (
        *(piece.image, *offsets(batch.bases[0], samples.strides[0], *x[-3:])),
        *(matrix, *layout),
        *(piece.kernels, *offsets(batch.bases[1], samples.strides[1], *d[:2], *d[-3:])),
        *(piece.output, *offsets(batch.bases[2], samples.strides[2], *y[-3:])),
        *(rows, *row_steps, columns, *column_steps),
        *sizes(*piece.kernels.shape[:2], *window.output_shape, groups, channels // groups),
        *sizes(matrix.shape[3] // groups, channels // entries),
        *(*at_once, np.float64(window.cval.real), np.float64(window.cval.imag)),
    )
