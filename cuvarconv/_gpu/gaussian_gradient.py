"""Gradients of the Gaussian filter: in the image, and in the widths and the angles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import cupy
import numpy as np

from cuvarconv._blocks import Where, blocks
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import launches, merged, offsets, sizes, strides
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import fits, store
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

_BLOCK = 1 << 19  # outputs whose derivatives are held at a time
_WORKSPACE = 32 << 20  # bytes of converted arrays at a time


def gaussian_sigma_gradient(
    grad: Any,
    input: Any,
    sigmas: tuple[Any, Any],
    angle: Any,
    outputs: tuple[Any, Any, Any],
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Launch over blocks of outputs, and sum their derivatives over the axes along which maps broadcast.

    `grad` is (batch…, H_out, W_out); `outputs` are (rows, columns, angle), None for what is not asked, with
    axes of length 1 where they are summed over; the others are as for `gaussian`.
    """
    asked = {which: output for which, output in enumerate(outputs) if output is not None}
    if not asked:
        return
    if grad.size == 0:
        for output in asked.values():
            output[...] = 0
        return
    maps, number = maps_of(sigmas, angle), real_dtype(dtype)
    nothing = cupy.empty((1,) * (grad.ndim + 2), number)  # `Piece` knows of three arrays
    calls = [
        WidthsPiece(image, nothing, given, part_of(window, part), maps)
        for part, (image, given) in real_parts(input, grad)
        if image is not None and given is not None
    ]
    kept = tuple(map(max, zip(*(output.shape for output in asked.values()), strict=True)))
    sums = {
        which: cupy.zeros(output.shape, np.float64) for which, output in asked.items() if output.shape != kept
    }
    for region, wheres in _regions(grad.shape, kept, calls[0], number):
        shape = tuple(part.stop - part.start for part in region)
        totals = {which: cupy.zeros(shape, np.float64) for which in asked if which not in sums}
        for where, call in itertools.product(wheres, calls):
            derivatives = _derivatives(call.block(where, grad.ndim - 2), truncate, number)
            for which, output in asked.items():
                if which in sums:
                    total = sums[which][_matching(where, grad.shape, output.shape)]
                else:
                    total = totals[which]
                total += _summed(derivatives[which], total.shape)
        for which, total in totals.items():
            store(asked[which][region], total)
    for which, total in sums.items():
        store(asked[which], total)


def _regions(
    shape: tuple[int, ...], kept: tuple[int, ...], call: WidthsPiece, dtype: np.dtype
) -> Iterator[tuple[Where, list[Where]]]:
    """Yield blocks of the kept axes, and for each the blocks of outputs that are summed into it."""
    elements, batch = _BLOCK, len(shape) - 2
    while elements > 1 and not fits(call.block(blocks(shape, elements)[0], batch), dtype, _WORKSPACE // 2):
        elements //= 2
    lengths = tuple(1 if length == whole else whole for length, whole in zip(kept, shape, strict=True))
    for region in blocks(kept, elements):
        size = math.prod(part.stop - part.start for part in region)
        yield (
            region,
            [
                tuple(
                    mine if length == whole else theirs
                    for mine, theirs, length, whole in zip(region, where, kept, shape, strict=True)
                )
                for where in blocks(lengths, max(1, elements // size))
            ],
        )


def _matching(where: Where, lengths: tuple[int, ...], others: tuple[int, ...]) -> Where:
    """Return `where`, a part of an array, in one of other lengths: all of it along axes that differ."""
    pairs = zip(where, lengths, others, strict=True)
    return tuple(part if length == other else slice(None) for part, length, other in pairs)


def _summed(values: Any, shape: tuple[int, ...]) -> Any:
    axes = tuple(
        axis for axis, (length, kept) in enumerate(zip(values.shape, shape, strict=True)) if length != kept
    )
    return values.sum(axis=axes, dtype=np.float64, keepdims=True) if axes else values


def _derivatives(piece: WidthsPiece, truncate: float | None, dtype: np.dtype) -> Any:
    """Return the derivatives of each output, (rows, columns and angle, batch…, H_out, W_out)."""
    piece = piece.converted(dtype)
    grad = piece.output.astype(dtype, copy=False)
    window, maps = piece.window, piece.maps
    reach = Reach.of(window, dtype)
    result = cupy.empty((len(maps), *grad.shape), accumulator_dtype(dtype))
    axes = merged(walked(grad, piece.image, result[0], *maps))
    most = max(1, MOST_BLOCKS // reach.tiles(window))
    for batch in launches([axes], (most,), operands=3 + len(maps)):
        (axis,) = batch.axes
        arguments = (
            *image_arguments(piece.image, reach.vector, batch.bases[1], axis.strides[1], read=True),
            *image_arguments(grad, reach.vector, batch.bases[0], axis.strides[0], read=True),
            *map_arguments(maps, batch.bases[3:], axis.strides[3:]),
            *(result, *offsets(batch.bases[2], strides(result)[0], axis.strides[2], *strides(result)[-2:])),
            *reach.tables(window),
            *sizes(*window.output_shape, reach.held),
            *(reach_argument(truncate), np.float64(window.cval.real)),
        )
        name = f"gaussian_sigma_gradient<{CPP_TYPES[dtype.name]}, {turned(maps)}>"
        launch("gaussian_gradient", name, reach.tiles(window) * axis.length, THREADS, arguments, reach.shared)
    return result
