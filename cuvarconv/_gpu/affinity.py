"""d[m,n,i,j] = exp(−½ Σ_c (g[c,i+m,j+n] − g[c,i,j])² / σ²), and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuvarconv._gpu._geometry import (
    batch_axes,
    inverse_arguments,
    launches,
    merged,
    offsets,
    sizes,
    strides,
    table_arguments,
)
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import AdjointPiece, Piece, pieces
from cuvarconv._window import Window

THREADS = 128  # per block
_CHANNELS = 4  # features of a thread, the kernel's CHANNELS


def affinity(
    guide: Any, output: Any, window: Window, *, centre: tuple[int, int], sharpness: float, dtype: np.dtype
) -> None:
    """Launch over pieces of the output and over the batch.

    `guide` is (batch…, C, H, W), `output` (kh, kw, batch…, H_out, W_out), `centre` the tap at the
    window's centre, `sharpness` 1/σ and `dtype` the computing dtype, which is the output's.
    """
    batch = guide.ndim - 3
    for piece in pieces(Piece(guide, output, output[0, 0], window), dtype, batch=batch):
        height, width = piece.window.output_shape
        blocks = -(-height * width // THREADS) * window.rows.taps
        samples = merged(batch_axes(piece, batch))
        for part in launches([samples], (max(1, MOST_BLOCKS // blocks),), operands=3):
            (axis,) = part.axes
            g, d = strides(piece.image), strides(piece.kernels)
            arguments = (
                *(piece.image, *offsets(part.bases[0], axis.strides[0], *g[-3:])),
                *(piece.kernels, *offsets(part.bases[1], axis.strides[1], *d[:2], *d[-2:])),
                *_tables(piece.window),
                *sizes(*centre, *output.shape[:2], height, width, piece.image.shape[-3]),
                np.float64(sharpness),
            )
            name = f"affinity<{CPP_TYPES[dtype.name]}>"
            launch("affinity", name, blocks * axis.length, THREADS, arguments, shared=0)


def affinity_gradient(
    grad: Any,
    guide: Any,
    output: Any,
    window: Window,
    *,
    centre: tuple[int, int],
    sharpness: float,
    dtype: np.dtype,
) -> None:
    """Launch over pieces of the result and over the batch.

    `grad` is (kh, kw, batch…, H_out, W_out), `output` (batch…, C, H, W), the others are as for
    `affinity`.  Operands of another dtype are converted as a whole: they are rare.
    """
    batch, channels = guide.ndim - 3, guide.shape[-3]
    features, given = (array.astype(dtype, copy=False) for array in (guide, grad))
    for piece in pieces(AdjointPiece.of(features, given, output, window), dtype, batch=batch):
        height, width = piece.output.shape[-2:]
        blocks = -(-height * width // THREADS) * -(-channels // _CHANNELS)
        samples = merged(batch_axes(piece, batch))
        for part in launches([samples], (max(1, MOST_BLOCKS // blocks),), operands=3):
            (axis,) = part.axes
            g, e, y = (strides(array) for array in (piece.image, piece.kernels, piece.output))
            arguments = (
                *(piece.image, *offsets(part.bases[0], axis.strides[0], *g[-3:])),
                *(piece.kernels, *offsets(part.bases[1], axis.strides[1], *e[:2], *e[-2:])),
                *(piece.output, *offsets(part.bases[2], axis.strides[2], *y[-3:])),
                *_tables(window),
                *inverse_arguments(piece.rows),
                *inverse_arguments(piece.columns),
                *sizes(piece.rows.first, piece.columns.first, *centre, *grad.shape[:2], channels),
                np.float64(sharpness),
            )
            name = f"affinity_gradient<{CPP_TYPES[dtype.name]}>"
            launch("affinity", name, blocks * axis.length, THREADS, arguments, shared=0)


def _tables(window: Window) -> tuple[Any, ...]:
    rows, _, *row_steps = table_arguments(window.rows, window.rows.shorter_by_tap)
    columns, _, *column_steps = table_arguments(window.columns, window.columns.shorter_by_tap)
    return rows, *row_steps, columns, *column_steps
