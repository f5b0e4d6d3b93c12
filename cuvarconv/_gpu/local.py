"""Full kernels: y[o,i,j] = Σ_{c,m,n} k[m,n,i,j,c,o] x[c,i+m,j+n]."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    Batch,
    BatchAxis,
    Offsets,
    batch_axes,
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
from cuvarconv._gpu._replay import replayed
from cuvarconv._window import Window

THREADS = 128  # per block
# of a thread, by computing dtype: neighbouring outputs, 16 bytes of them, and samples that share kernels;
# the V and S of the kernels, which otherwise are 1
OUTPUTS = {"float16": 8, "bfloat16": 8, "float32": 4, "float64": 2, "complex64": 2, "complex128": 1}
SAMPLES = {"float16": 4, "bfloat16": 4, "float32": 8, "float64": 8, "complex64": 8, "complex128": 4}
_LINE = 128  # bytes of k that the threads of a pixel cover together
_MOST_LANES = 32  # of them side by side along o
_ENOUGH_BLOCKS = 1024


@replayed
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
    call = Piece(input, kernels, output, window)
    for piece in pieces(call, dtype, batch=output.ndim - 3):
        shared, own = shared_and_own(batch_axes(piece, output.ndim - 3), operand=1)
        at_once = samples_at_once(shared, dtype)
        lanes = Lanes.over(piece.kernels, math.prod(piece.output.shape[:-3]))
        blocks = lanes.blocks(piece.output, lanes.outputs)
        for batch in sample_launches(own, shared, at_once, blocks):
            _launch(piece, lanes, at_once, batch, dtype)


def samples_at_once(shared: list[BatchAxis], dtype: np.dtype) -> int:
    """Return for how many samples a value of k is requested once."""
    return SAMPLES[dtype.name] if shared else 1


def sample_launches(
    own: list[BatchAxis], shared: list[BatchAxis], at_once: int, blocks: int
) -> Iterator[Batch]:
    """Walk a batch whose images take `blocks` blocks for each run of samples."""
    samples = min(shared[0].length, at_once * (MOST_BLOCKS // blocks)) if shared else 1
    groups = MOST_BLOCKS // (blocks * -(-samples // at_once))
    return launches([own, shared], (groups, samples), operands=3)


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
        run = run_length(kernels)
        o_lanes = evenly(outputs // run, _MOST_LANES)
        c_lanes = evenly(channels, -(-_LINE // (o_lanes * run * kernels.itemsize)))
        while (
            c_lanes < channels
            and 2 * c_lanes * o_lanes <= THREADS
            and images * height * width * c_lanes * o_lanes < THREADS * _ENOUGH_BLOCKS
        ):
            c_lanes = evenly(channels, 2 * c_lanes)
        if moved_in_runs(kernels, run):
            return cls(run, c_lanes, o_lanes)
        return cls(1, c_lanes, evenly(outputs, min(_MOST_LANES, THREADS // c_lanes)))

    @property
    def outputs(self) -> int:
        """Return how many outputs the threads of a pixel own."""
        return self.width * self.o_lanes

    @property
    def pixels(self) -> int:
        """Return the pixels of a block."""
        return THREADS // (self.c_lanes * self.o_lanes)

    @property
    def places(self) -> int:
        """Return the places in shared memory for one number of each thread."""
        return self.pixels * (self.c_lanes * self.o_lanes | 1)

    def blocks(self, image: Any, channels: int) -> int:
        """Return how many blocks an image (…, C, H, W) takes, each with so many of its channels."""
        every, height, width = image.shape[-3:]
        return -(-height * width // self.pixels) * -(-every // channels)


def run_length(kernels: Any) -> int:
    """Return how many neighbouring outputs belong together, by the shape and the dtype alone."""
    outputs, run = kernels.shape[-3], OUTPUTS[kernels.dtype.name]
    return run if outputs % run == 0 else 1


def moved_in_runs(kernels: Any, width: int) -> bool:
    """Whether `width` neighbours along o can be moved by one aligned instruction, wherever they are."""
    steps = list(strides(kernels))
    along = steps.pop(-3)
    return in_runs(kernels, (*steps, along), width)


def evenly(count: int, most: int) -> int:
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
    blocks = lanes.blocks(piece.output, lanes.outputs) * -(-samples // at_once) * groups
    shared_bytes = at_once * lanes.width * lanes.places * accumulator_dtype(dtype).itemsize
    launch("local", name, blocks, THREADS, arguments, shared_bytes)
