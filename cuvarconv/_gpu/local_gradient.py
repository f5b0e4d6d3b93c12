"""The gradients of `local_correlate`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import cupy
import numpy as np

from cuvarconv._blocks import Where, blocks
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    Batch,
    BatchAxis,
    batch_axes,
    inverse_arguments,
    launches,
    merged,
    offsets,
    shared_and_own,
    sizes,
    strides,
    table_arguments,
)
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import AdjointPiece, Piece, operand_pieces, pieces, store
from cuvarconv._gpu.local import (
    THREADS,
    Lanes,
    evenly,
    moved_in_runs,
    run_length,
    sample_launches,
    samples_at_once,
    walk_steps,
)
from cuvarconv._window import Window

_O_LANES = 8  # of the input's gradient, at most: neighbours along o lie apart in `grad`
_LANES = 32  # of a pixel there, about
_STRETCH = 64  # samples that are summed before the next ones
_SUMS = 16 << 20  # bytes of sums that are not in the result yet


def local_input_gradient(
    grad: Any,
    kernels: Any,
    output: Any,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Launch over pieces of the result and over the batch.

    `grad` is (batch…, C_out, H_out, W_out), `kernels` (kh, kw, batch…, C_in, C_out, H_out, W_out) with
    batch axes of length 1 where they are shared, `output` (batch…, C_in, H, W); `dtype` is the
    computing dtype.
    """
    if grad.shape[-3] == 0:
        output[...] = 0
        return
    call = AdjointPiece.of(grad, kernels, output, window)
    for piece in pieces(call, dtype, batch=output.ndim - 3):
        shared, own = shared_and_own(batch_axes(piece, output.ndim - 3), operand=1)
        at_once = samples_at_once(shared, dtype)
        lanes, channels = _input_lanes(piece.kernels, at_once)
        blocks_each = lanes.blocks(piece.output, channels * lanes.c_lanes)
        for batch in sample_launches(own, shared, at_once, blocks_each):
            _launch_input(piece, lanes, channels, at_once, batch)


def _input_lanes(kernels: Any, at_once: int) -> tuple[Lanes, int]:
    """Return how threads lie over k, and how many channels each owns, the kernel's RUN."""
    channels, outputs = kernels.shape[-4:-2]
    run = run_length(kernels)
    width = run if moved_in_runs(kernels, run) else 1
    number = accumulator_dtype(kernels.dtype)
    each = 32 // number.itemsize if at_once > 1 else 2 if width == 1 else 4
    o_lanes = evenly(outputs // run, _O_LANES)
    return Lanes(width, evenly(-(-channels // each), _LANES // o_lanes), o_lanes), each


def _launch_input(piece: AdjointPiece, lanes: Lanes, channels: int, at_once: int, batch: Batch) -> None:
    (groups, own), (samples, shared) = ((axis.length, axis.strides) for axis in batch.axes)
    given, k, x = (strides(array) for array in (piece.image, piece.kernels, piece.output))
    arguments = (
        *(piece.image, *offsets(batch.bases[0], own[0], shared[0], *given[-3:])),
        *(piece.kernels, *offsets(batch.bases[1], own[1], *k[:2], *k[-2:], *k[-4:-2], lanes.c_lanes * k[-4])),
        *(piece.output, *offsets(batch.bases[2], own[2], shared[2], *x[-3:])),
        *(*inverse_arguments(piece.rows), *inverse_arguments(piece.columns)),
        *sizes(*piece.kernels.shape[:2], samples, *piece.kernels.shape[-4:-2]),
        *sizes(lanes.c_lanes, lanes.o_lanes, run_length(piece.kernels)),
    )
    dtype = piece.output.dtype
    name = f"local_input_gradient<{CPP_TYPES[dtype.name]}, {lanes.width}, {at_once}>"
    blocks_each = lanes.blocks(piece.output, channels * lanes.c_lanes)
    shared_bytes = at_once * channels * lanes.places * accumulator_dtype(dtype).itemsize
    launch(
        "local_gradient",
        name,
        blocks_each * -(-samples // at_once) * groups,
        THREADS,
        arguments,
        shared_bytes,
    )


def local_kernels_gradient(
    grad: Any,
    input: Any,
    output: Any,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Launch over regions of the result, and over runs of the samples that each sums.

    `grad` is (batch…, C_out, H_out, W_out), `input` (batch…, C_in, H, W), `output` (kh, kw, batch…,
    C_in, C_out, H_out, W_out) with batch axes of length 1 where kernels were shared; `dtype` is the
    computing dtype.
    """
    if grad.size == 0:
        output[...] = 0
        return
    batch = grad.ndim - 3
    summed = [axis for axis in range(batch) if output.shape[2 + axis] == 1 < grad.shape[axis]]
    native = grad.dtype == input.dtype == output.dtype == dtype
    if len(summed) > 2 or not native:
        dtype = accumulator_dtype(dtype)  # a sum may be stored before it is complete
    nothing = cupy.empty((1,) * (4 + batch), dtype)  # `Piece` knows of three arrays
    call = Piece(input, nothing, grad, window)
    for region in _regions(output, dtype):
        target = output[(slice(None), slice(None), *region[:-2], ..., *region[-2:])]
        total = target if target.dtype == dtype else _empty(target.shape, dtype)
        here = tuple(slice(None) if axis in summed else part for axis, part in enumerate(region))
        part = call.block(here, batch)
        for where, piece in operand_pieces(part, dtype, batch=batch):
            place = tuple(slice(None) if axis in summed else part for axis, part in enumerate(where))
            sums = total[(slice(None), slice(None), *place[:-2], ..., *place[-2:])]
            first = all(where[axis].start in (None, 0) for axis in summed)
            _launch_kernels(piece, sums, first)
        if total is not target:
            store(target, total)


def _regions(output: Any, dtype: np.dtype) -> Iterator[Where]:
    """Cut (batch…, rows, columns) of the result so far that sums of another dtype than its own fit."""
    shape = (*output.shape[2:-4], *output.shape[-2:])
    if output.dtype == dtype:
        yield (slice(None),) * len(shape)
    else:
        matrix = math.prod(output.shape[:2]) * math.prod(output.shape[-4:-2])
        yield from blocks(shape, max(1, _SUMS // (matrix * dtype.itemsize)))


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Make kernels that lie in memory as the caller's usually do."""
    *outer, channels, outputs, height, width = shape
    first = len(outer)
    usual = cupy.empty((*outer, height, width, channels, outputs), dtype)
    return usual.transpose(*range(first), first + 2, first + 3, first, first + 1)


def _launch_kernels(piece: Piece, sums: Any, first: bool) -> None:
    """Add up the samples of a piece, axis by axis in the order of shapes, so that strides do not matter."""
    batch = sums.ndim - 6
    walked = zip(
        *(strides(array)[:batch] for array in (piece.image, piece.output)),
        strides(sums)[2 : 2 + batch],
        strict=True,
    )
    axes = [BatchAxis(*axis) for axis in zip(piece.output.shape[:batch], walked, strict=True)]
    own = merged([axis for axis, length in zip(axes, sums.shape[2:], strict=False) if length > 1])
    *others, outer, inner = [
        *[BatchAxis(1, (0, 0, 0))] * 2,
        *(axis for axis, length in zip(axes, sums.shape[2:], strict=False) if length == 1 < axis.length),
    ]
    lanes = Lanes.over(sums, 1)
    blocks_each = lanes.blocks(piece.output, lanes.outputs)
    stretch = _STRETCH if accumulator_dtype(sums.dtype) == sums.dtype else inner.length * outer.length
    planes = min(stretch, inner.length)
    most = (MOST_BLOCKS // blocks_each, planes, stretch // planes)
    begun: set[int] = set()
    for part in launches([own, [inner], [outer, *others]], most, operands=3):
        _launch_kernels_part(piece, sums, lanes, part, add_up=not first or part.bases[2] in begun)
        begun.add(part.bases[2])


def _launch_kernels_part(piece: Piece, sums: Any, lanes: Lanes, batch: Batch, *, add_up: bool) -> None:
    window = piece.window
    (groups, own), (planes, plane), (volumes, volume) = ((axis.length, axis.strides) for axis in batch.axes)
    rows, _, *row_steps = table_arguments(window.rows, window.rows.shorter_by_tap)
    columns, _, *column_steps = table_arguments(window.columns, window.columns.shorter_by_tap)
    channels, outputs = sums.shape[-4:-2]
    x, given, k = (strides(array) for array in (piece.image, piece.output, sums))
    arguments = (
        *(piece.output, *offsets(batch.bases[1], own[1], volume[1], plane[1], *given[-3:])),
        *(piece.image, *offsets(batch.bases[0], own[0], volume[0], plane[0], *x[-3:], lanes.c_lanes * x[-3])),
        *(sums, np.int32(add_up), *offsets(batch.bases[2], own[2], *k[-2:], *k[-4:-2])),
        *offsets(*walk_steps(k, channels, window.columns.taps, lanes)),
        *(rows, *row_steps, columns, *column_steps),
        *sizes(window.rows.taps, window.columns.taps, *window.output_shape),
        *sizes(volumes, planes, channels, outputs, lanes.c_lanes, lanes.o_lanes),
        *(np.float64(window.cval.real), np.float64(window.cval.imag)),
    )
    name = f"local_kernels_gradient<{CPP_TYPES[sums.dtype.name]}, {lanes.width}>"
    blocks_each = lanes.blocks(piece.output, lanes.outputs)
    launch("local_gradient", name, blocks_each * groups, THREADS, arguments, shared=0)
