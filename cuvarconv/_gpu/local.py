"""Full kernels: y[o,i,j] = Σ_{c,m,n} k[m,n,i,j,c,o] x[c,i+m,j+n]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    Batch,
    Offsets,
    batch_axes,
    in_elements,
    in_runs,
    launches,
    offsets,
    shared_and_own,
    sizes,
    strides,
    table_arguments,
)
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import Piece, pieces
from cuvarconv._window import Window

THREADS = 128  # per block
# of a thread, by computing dtype: neighbouring outputs, 16 bytes of them, and samples that share kernels;
# the V and S of the kernels, which otherwise are 1
OUTPUTS = {"float16": 8, "bfloat16": 8, "float32": 4, "float64": 2, "complex64": 2, "complex128": 1}
SAMPLES = {"float16": 4, "bfloat16": 4, "float32": 8, "float64": 8, "complex64": 8, "complex128": 4}
_LINE = 128  # bytes of k that the threads of a pixel cover together
_MOST_LANES = 32  # of them side by side along o
_ENOUGH_BLOCKS = 1024


def local_correlate(
    input: Any,
    kernels: Any,
    output: Any,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Launch over pieces of the output and over the batch.

    `input` is (batch…, C_in, H, W), `kernels` (kh, kw, batch…, C_in, C_out, H_out, W_out) with batch
    axes of length 1 where they are shared, `output` (batch…, C_out, H_out, W_out); `dtype` is the
    computing dtype.
    """
    if input.shape[-3] == 0:
        output[...] = 0
        return
    call = Piece(in_elements(input), in_elements(kernels), output, window)
    for piece in pieces(call, dtype, batch=output.ndim - 3):
        shared, own = shared_and_own(batch_axes(piece, output.ndim - 3), operand=1)
        at_once = samples_at_once(shared[0].length if shared else 1, dtype)
        images = math.prod(piece.output.shape[:-3]) // at_once + 1
        lanes = Lanes.over(piece.kernels, images)
        most_samples = at_once * (MOST_BLOCKS // lanes.blocks(piece.output))
        samples = min(shared[0].length, most_samples) if shared else 1
        blocks = lanes.blocks(piece.output) * -(-samples // at_once)
        for batch in launches([own, shared], (MOST_BLOCKS // blocks, samples), operands=3):
            _launch(piece, lanes, at_once, batch, dtype)


def samples_at_once(samples: int, dtype: np.dtype) -> int:
    """Return for how many samples a value of k is requested once."""
    return 1 if samples == 1 else SAMPLES[dtype.name]


@dataclass(frozen=True)
class Lanes:
    """How the threads of a block lie over k: `width` outputs each, c × o lanes to a pixel."""

    width: int
    c_lanes: int
    o_lanes: int

    @classmethod
    def over(cls, kernels: Any, images: int) -> Lanes:
        """Cover a cache line of k; more channels where pixels alone would leave multiprocessors idle.

        The c-lanes, in which a sum is cut, follow from shapes and the dtype alone, the others also from
        strides.
        """
        channels, outputs, height, width = kernels.shape[-4:]
        run = OUTPUTS[kernels.dtype.name]
        run = run if outputs % run == 0 else 1
        o_lanes = _evenly(outputs // run, _MOST_LANES)
        c_lanes = _evenly(channels, -(-_LINE // (o_lanes * run * kernels.itemsize)))
        while (
            c_lanes < channels
            and 2 * c_lanes * o_lanes <= THREADS
            and images * height * width * c_lanes * o_lanes < THREADS * _ENOUGH_BLOCKS
        ):
            c_lanes = _evenly(channels, 2 * c_lanes)
        if moved_in_runs(kernels, run):
            return cls(run, c_lanes, o_lanes)
        return cls(1, c_lanes, _evenly(outputs, min(_MOST_LANES, THREADS // c_lanes)))

    @property
    def pixels(self) -> int:
        """Pixels of a block."""
        return THREADS // (self.c_lanes * self.o_lanes)

    @property
    def places(self) -> int:
        """Places in shared memory for one number of each thread."""
        return self.pixels * (self.c_lanes * self.o_lanes | 1)

    def blocks(self, output: Any) -> int:
        """Return how many blocks an image of (batch…, C_out, H_out, W_out) takes."""
        outputs, height, width = output.shape[-3:]
        return -(-height * width // self.pixels) * -(-outputs // (self.width * self.o_lanes))


def moved_in_runs(kernels: Any, width: int) -> bool:
    """Whether `width` neighbours along o can be moved by one aligned instruction, wherever they are."""
    steps = list(strides(kernels))
    along = steps.pop(-3)
    return in_runs(kernels, (*steps, along), width)


def _evenly(count: int, most: int) -> int:
    """Return the length of the fewest and most even parts that `count` is cut into, at most `most`."""
    return -(-count // -(-count // most))


def walk_steps(kernels: Offsets, channels: int, taps: int, lanes: Lanes) -> Offsets:
    """Return a thread's steps in k: to its next channel, from there to the next tap, to the next row."""
    along = lanes.c_lanes * kernels[-4]
    return along, kernels[1] - -(-channels // lanes.c_lanes) * along, kernels[0] - taps * kernels[1]


def _launch(piece: Piece, lanes: Lanes, at_once: int, batch: Batch, dtype: np.dtype) -> None:
    window = piece.window
    (groups, own), (samples, shared) = ((axis.length, axis.strides) for axis in batch.axes)
    rows, _, *row_steps = table_arguments(window.rows, window.rows.shorter_by_tap)
    columns, _, *column_steps = table_arguments(window.columns, window.columns.shorter_by_tap)
    channels, outputs = piece.kernels.shape[-4:-2]
    x, k, y = (strides(array) for array in (piece.image, piece.kernels, piece.output))
    arguments = (
        *(piece.image, *offsets(batch.bases[0], own[0], shared[0], *x[-3:], lanes.c_lanes * x[-3])),
        *(piece.kernels, *offsets(batch.bases[1], own[1], *k[-2:], *k[-4:-2])),
        *offsets(*walk_steps(k, channels, window.columns.taps, lanes)),
        *(piece.output, *offsets(batch.bases[2], own[2], shared[2], *y[-3:])),
        *(rows, *row_steps, columns, *column_steps),
        *sizes(window.rows.taps, window.columns.taps, *window.output_shape),
        *sizes(samples, channels, outputs, lanes.c_lanes, lanes.o_lanes),
        *(np.float64(window.cval.real), np.float64(window.cval.imag)),
    )
    name = f"local_correlate<{CPP_TYPES[dtype.name]}, {lanes.width}, {at_once}>"
    blocks = lanes.blocks(piece.output) * -(-samples // at_once) * groups
    shared_bytes = at_once * lanes.width * lanes.places * accumulator_dtype(dtype).itemsize
    launch("local", name, blocks, THREADS, arguments, shared_bytes)
