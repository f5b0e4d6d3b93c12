"""The Gaussian of every pixel: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n] / Σ_{m,n} k[m,n,i,j]."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cupy
import numpy as np

from cuvarconv._gpu._geometry import in_elements, launches, merged, sizes
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import pieces
from cuvarconv._gpu._tiles import THREADS
from cuvarconv._gpu._widths import (
    Reach,
    WidthsPiece,
    image_arguments,
    map_arguments,
    maps_of,
    real_parts,
    walked,
)
from cuvarconv._window import Window

WHOLE = -1.0  # how many widths a kernel reaches that fills the window


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
    maps = maps_of(sigmas, angle)
    for part, (image, target) in real_parts(in_elements(input), output):
        if target is None:
            continue
        if image is None:
            target[...] = 0
            continue
        number = np.empty(0, dtype).real.dtype
        nothing = cupy.empty((1,) * (output.ndim + 2), number)  # `Piece` knows of three arrays
        part_of = replace(window, cval=getattr(complex(window.cval), part))
        call = WidthsPiece(image, nothing, target, part_of, maps)
        for piece in pieces(call, number, batch=output.ndim - 2):
            _launch(piece, WHOLE if truncate is None else truncate, number)


def _launch(piece: WidthsPiece, truncate: float, dtype: np.dtype) -> None:
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
            *(np.float64(truncate), np.float64(window.cval.real)),
        )
        turned = "true" if len(maps) == 3 else "false"
        name = f"gaussian<{CPP_TYPES[dtype.name]}, {turned}>"
        launch("gaussian", name, reach.tiles(window) * axis.length, THREADS, arguments, reach.shared)
