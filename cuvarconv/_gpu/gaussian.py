"""The Gaussian of every pixel: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n] / Σ_{m,n} k[m,n,i,j]."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from cuvarconv._gpu._geometry import launches, merged, sizes
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import pieces
from cuvarconv._gpu._replay import replayed
from cuvarconv._gpu._tiles import THREADS
from cuvarconv._gpu._widths import (
    Reach,
    WidthsPiece,
    image_arguments,
    map_arguments,
    maps_of,
    part_of,
    reach_argument,
    real_dtype,
    real_parts,
    turned,
    walked,
)
from cuvarconv._window import Window


@replayed
def gaussian(
    input: Any,
    sigmas: tuple[Any, Any],
    angle: Any,
    output: Any,
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Launch over pieces of the output and over the batch.

    `input` and `output` are (batch…, H, W), σ for rows and for columns and the `angle` (or None) maps of as
    many axes, of length 1 where they broadcast to the output; `truncate` is None where the window is
    every pixel's; `dtype` is the computing dtype.
    """
    maps, number = maps_of(sigmas, angle), real_dtype(dtype)
    for part, (image, target) in real_parts(input, output):
        if target is None:
            continue
        if image is None:
            target[...] = 0
            continue
        nothing = cupy.empty((1,) * (output.ndim + 2), number)  # `Piece` knows of three arrays
        call = WidthsPiece(image, nothing, target, part_of(window, part), maps)
        for piece in pieces(call, number, batch=output.ndim - 2):
            _launch(piece, truncate, number)


def _launch(piece: WidthsPiece, truncate: float | None, dtype: np.dtype) -> None:
    window, maps = piece.window, piece.maps
    reach = Reach.of(window, dtype)
    axes = merged(walked(piece.output, piece.image, *maps))
    most = max(1, MOST_BLOCKS // reach.tiles(window))
    for batch in launches([axes], (most,), operands=2 + len(maps)):
        (axis,) = batch.axes
        arguments = (
            *image_arguments(piece.image, reach.vector, batch.bases[1], axis.strides[1], read=True),
            *image_arguments(piece.output, reach.vector, batch.bases[0], axis.strides[0], read=False),
            *map_arguments(maps, batch.bases[2:], axis.strides[2:]),
            *reach.tables(window),
            *sizes(*window.output_shape, reach.held),
            *(reach_argument(truncate), np.float64(window.cval.real)),
        )
        name = f"gaussian<{CPP_TYPES[dtype.name]}, {turned(maps)}>"
        launch("gaussian", name, reach.tiles(window) * axis.length, THREADS, arguments, reach.shared)
