"""The gradient of equation (2), y[o,i,j] = Σ_{c,m,n} w[o,c,m,n] d[m,n,i,j] x[c,i+m,j+n], in its image."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cuvarconv._gpu._geometry import (
    Batch,
    batch_axes,
    in_runs,
    inverse_arguments,
    launches,
    merged,
    offsets,
    sizes,
    strides,
)
from cuvarconv._gpu._launch import MOST_BLOCKS
from cuvarconv._gpu._paths import Kernel, Product, expression, packed, tensor_kernel, tensor_tile
from cuvarconv._gpu._pieces import AdjointPiece, Readers, pieces
from cuvarconv._gpu.modulated import TILES
from cuvarconv._gpu.modulated_gradient import matrix_of, weights_parts
from cuvarconv._window import Window

_MICRO = 4  # rows, and pixels, of a thread
_ACROSS = 16  # columns of the pixels of a block, at most


def modulated_input_gradient(
    grad: Any,
    weights: Any,
    modulation: Any,
    output: Any,
    window: Window,
    *,
    groups: int,
    dtype: np.dtype,
) -> None:
    """Launch over pieces of the image and over the batch.

    `output` is (batch…, C_in, H, W), the others are as for `modulated_correlate`; `dtype` is the computing
    dtype.
    """
    if output.size == 0 or grad.size == 0:
        output[...] = 0
        return
    batch = output.ndim - 3
    channels = output.shape[-3] // groups
    by_group = output.reshape(*output.shape[:-3], groups, channels, *output.shape[-2:])
    whole = AdjointPiece.of(grad, modulation, by_group, window)
    kernel = _input_kernel(whole, weights, groups, dtype)
    for first, part in weights_parts(weights, groups, dtype, axis=2):
        matrix = matrix_of(part, dtype) if kernel.product is None else _packed_matrix(part, kernel.product)
        call = replace(whole, output=by_group[..., first : first + matrix.shape[-1], :, :])
        for piece in pieces(call, dtype, batch=batch, reserved=matrix.nbytes):
            grid = _PixelGrid.of(piece, kernel.tile[1])
            per_sample = -(-matrix.shape[-1] // kernel.tile[0]) * grid.tiles * groups
            samples = merged(batch_axes(piece, batch))
            for some in launches([samples], (max(1, MOST_BLOCKS // per_sample),), operands=3):
                arguments = _input_arguments(piece, matrix, (first, channels), kernel.product, grid, some)
                count = per_sample * some.axes[0].length
                kernel.launch(count, arguments)


@dataclass(frozen=True)
class _PixelGrid:
    """How the pixels of an image lie in blocks: steps between them, columns of a block, number of blocks."""

    row_step: int
    column_step: int
    across: int
    tiles: int

    @classmethod
    def of(cls, piece: AdjointPiece, pixels: int) -> _PixelGrid:
        """Choose it for blocks of so many pixels."""
        shape = piece.output.shape[-2:]
        strides = piece.rows.axis.stride, piece.columns.axis.stride
        row_step, column_step = (s if n >= 4 * s else 1 for n, s in zip(shape, strides, strict=True))
        height, width = -(-shape[0] // row_step), -(-shape[1] // column_step)
        across = min(_ACROSS, 1 << (width - 1).bit_length())
        tiles = -(-height // (pixels // across)) * -(-width // across)
        return cls(row_step, column_step, across, tiles * row_step * column_step)


@functools.lru_cache(maxsize=512)
def _most_outputs(readers: Readers) -> int:
    """Return how many outputs at most read a pixel through one tap."""
    entries = readers.table().entries
    lists = -2 - entries[: readers.entries()]
    return int(entries[lists[lists >= 0]].max(initial=1))


def _input_kernel(call: AdjointPiece, weights: Any, groups: int, dtype: np.dtype) -> Kernel:
    """Choose the kernel of the gradient in the image: for it, outputs are channels and channels rows."""
    outputs, channels, *taps = weights.shape
    name = "modulated_input_gradient"
    product = Product(
        dtype,
        rows=channels,
        channels=outputs // groups,
        taps=math.prod(taps),
        groups=groups,
        pixels=call.output.size // (groups * channels),
        one_factor=groups % call.kernels.shape[-3] == 0,
        passes=math.prod(taps) * _most_outputs(call.rows) * _most_outputs(call.columns),
    )
    on_tensor_cores = tensor_tile(product)
    if on_tensor_cores is not None:
        return tensor_kernel(name, product, on_tensor_cores)
    tile = next((tile for tile in TILES if channels <= tile[0]), TILES[-1])
    return Kernel(name, expression(name, dtype, tile), tile, math.prod(tile) // _MICRO**2)


def _packed_matrix(part: Any, product: Product) -> Any:
    """Copy weights to (kh, kw, groups, padded outputs, channels), outputs side by side."""
    groups, outputs, channels, *taps = part.shape
    matrix = packed(part.transpose(0, 2, 1, 3, 4).reshape(-1, outputs, *taps), product)
    by_group = matrix.reshape(groups, channels, *taps, product.padded)
    return by_group.transpose(2, 3, 0, 4, 1)


def _input_arguments(
    piece: AdjointPiece,
    matrix: Any,
    channels: tuple[int, int],
    product: Product | None,
    grid: _PixelGrid,
    batch: Batch,
) -> tuple[Any, ...]:
    kh, kw, groups, outputs, some = matrix.shape
    first_channel, of_group = channels
    (samples,) = batch.axes
    g, d, y = (strides(array) for array in (piece.image, piece.kernels, piece.output))
    most = _most_outputs(piece.rows) * _most_outputs(piece.columns)
    layout: tuple[Any, ...] = offsets(*strides(matrix))
    at_once: tuple[Any, ...] = ()
    if product is not None:
        outputs = product.channels
        group = 0 if groups == 1 else outputs
        steps = (batch.bases[0], samples.strides[0], group, *g[-2:], g[-3])
        layout, at_once = sizes(product.padded), sizes(in_runs(piece.image, steps, product.chunk))
    return (
        *(piece.image, *offsets(batch.bases[0], samples.strides[0], outputs * g[-3], *g[-3:])),
        *(matrix, *layout),
        *(piece.kernels, *offsets(batch.bases[1], samples.strides[1], *d[:2], *d[-3:])),
        *(piece.output, *offsets(batch.bases[2], samples.strides[2], *y[-4:])),
        *(*inverse_arguments(piece.rows), *inverse_arguments(piece.columns)),
        *sizes(most, kh, kw, *piece.output.shape[-2:]),
        *sizes(grid.row_step, grid.column_step, grid.across, grid.tiles),
        *sizes(groups, first_channel, some, of_group),
        *(*sizes(groups * of_group // piece.kernels.shape[-3], outputs), *at_once),
    )
