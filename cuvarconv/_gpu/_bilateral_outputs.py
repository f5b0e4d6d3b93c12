"""Outputs of the bilateral filter and the sums over their taps, for its gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cuvarconv._blocks import Where
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    launches,
    offsets,
    sample_axes,
    sizes,
    strides,
    table_arguments,
)
from cuvarconv._gpu._kept import on_device
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import Readers, taken
from cuvarconv._gpu.bilateral import WIDTHS, matching_batch, real_dtype
from cuvarconv._window import Window

THREADS = 128  # per block
FIELDS = 5  # of a record, the kernels' Field
ROWS, FEWER_ROWS = 16, 8  # bytes of numbers below each other of a thread, the kernels' ROWS and FEWER_ROWS


@dataclass(frozen=True)
class GradientCall:
    """The operands, or those of a part of the batch."""

    grad: Any
    image: Any
    guide: Any
    spatial: Any
    range: Any
    window: Window
    truncate: float

    @property
    def batch(self) -> tuple[int, ...]:
        """The lengths of the batch axes."""
        return self.image.shape[:-3]

    @property
    def weight(self) -> np.dtype:
        """The dtype of weights."""
        return accumulator_dtype(real_dtype(self.image.dtype))

    def block(self, where: Where) -> GradientCall:
        """Return the call for a part of the batch."""
        guide, spatial, range_ = (
            array[matching_batch(array, where)] for array in (self.guide, self.spatial, self.range)
        )
        return replace(
            self, grad=self.grad[where], image=self.image[where], guide=guide, spatial=spatial, range=range_
        )

    def uniform(self) -> bool:
        """Whether the weights fall off alike at all outputs of a sample."""
        return self.spatial.shape[-2:] == self.range.shape[-2:] == (1, 1)


@dataclass(frozen=True)
class Outputs:
    """Some outputs by row and by column; the columns on the device too."""

    row_numbers: np.ndarray
    column_numbers: np.ndarray
    columns: Any

    @classmethod
    def between(cls, down: slice, across: slice) -> Outputs:
        """Return a rectangle of outputs."""
        columns, numbers = on_device(_neighbours, across.start, across.stop)
        return cls(np.arange(down.start, down.stop), numbers, columns)

    @classmethod
    def reading(cls, rows: Readers, columns: Readers) -> Outputs:
        """Return those that read some pixels."""
        across, numbers = on_device(_reading, columns)
        return cls(rows.table().outputs, numbers, across)

    @property
    def shape(self) -> tuple[int, int]:
        """How many there are."""
        return len(self.row_numbers), len(self.column_numbers)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the places and lengths of runs of neighbouring rows."""
        breaks = np.flatnonzero(np.diff(self.row_numbers) > 1) + 1
        places = [0, *breaks.tolist(), len(self.row_numbers)]
        for first, end in itertools.pairwise(places):
            if end > first:
                yield first, end - first

    def of(self, array: Any, dtype: np.dtype) -> Any:
        """Return an array's values at these outputs."""
        return taken(array, self.row_numbers, self.column_numbers, dtype)

    def centres(self, array: Any, window: Window) -> Any:
        """Return an image under the centres of these outputs."""
        rows, columns = (
            numbers + axis.start + axis.taps // 2
            for numbers, axis in ((self.row_numbers, window.rows), (self.column_numbers, window.columns))
        )
        return taken(array, rows, columns, array.dtype)


def _neighbours(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(first, last)
    return numbers.astype(np.int32), numbers


def _reading(readers: Readers) -> tuple[np.ndarray, np.ndarray]:
    outputs = readers.table().outputs
    return outputs.astype(np.int32), outputs


def sum_taps(
    call: GradientCall, outputs: Outputs, records: Any, spatial: Any, range_: Any, *, means: bool = True
) -> None:
    """Walk the taps of some outputs, for their records and the gradients in both σ, or not for None.

    Records for the image's gradient alone need no `means`.
    """
    window, dtype, batch = call.window, call.image.dtype, len(call.batch)
    widths = (outputs.of(sigma, WIDTHS) for sigma in (call.spatial, call.range))
    operands = (outputs.of(call.grad, dtype), call.image, call.guide, *widths)
    results = (records, spatial, range_)
    samples = sample_axes(call.batch, (*operands, *results))
    for first, count in outputs.runs():
        blocks = column_blocks(count, outputs.shape[1], dtype, FEWER_ROWS)
        for part in launches([samples], (max(1, MOST_BLOCKS // blocks),), operands=8):
            (axis,) = part.axes
            steps = list(zip(part.bases, axis.strides, strict=True))
            arguments = described(operands, steps, batch)
            for array, step in zip(results, steps[5:], strict=True):
                arguments += [array, *offsets(*step)]
            arguments += sizes(outputs.row_numbers[first], first, count)
            arguments += [outputs.columns, *sizes(*outputs.shape)]
            arguments += [table_arguments(axis, False)[0] for axis in (window.rows, window.columns)]
            arguments += sizes(window.rows.taps // 2, window.columns.taps // 2)
            arguments += sizes(call.image.shape[-3] if means else 0, call.guide.shape[-3])
            arguments += map(np.float64, (call.truncate, window.cval.real, window.cval.imag))
            name = f"bilateral_gradient_sums<{CPP_TYPES[dtype.name]}>"
            launch(
                "bilateral_gradient_sums", name, blocks * part.axes[0].length, THREADS, arguments, shared=0
            )


def column_blocks(height: int, width: int, dtype: np.dtype, run_bytes: int) -> int:
    """Return how many blocks take an image, if each thread takes a run of a column, one number at least."""
    run = max(1, run_bytes // accumulator_dtype(dtype).itemsize)
    return -(-(-(-height // run) * width) // THREADS)


def described(arrays: Sequence[Any], steps: Sequence[tuple[int, int]], batch: int) -> list[Any]:
    """Return arrays as kernels take them: with base, sample's step and the other strides."""
    return [
        value
        for array, step in zip(arrays, steps, strict=False)
        for value in (array, *offsets(*step, *strides(array)[batch:]))
    ]
