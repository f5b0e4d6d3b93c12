"""Strides, batches and index tables: what a kernel is told of its arrays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._axis import Axis, IndexTable
from cuvarconv._gpu._kept import on_device
from cuvarconv._gpu._pieces import AdjointPiece, Piece, Readers

Offsets = tuple[int, ...]  # one per operand, in elements


@dataclass(frozen=True)
class BatchAxis:
    """A batch axis, or several that behave as one: its length and each operand's stride."""

    length: int
    strides: Offsets


@dataclass(frozen=True)
class Batch:
    """The part of a batch that one launch takes: where it starts and its axes."""

    bases: Offsets
    axes: tuple[BatchAxis, ...]


def strides(array: Any) -> Offsets:
    """Return the strides in elements, 0 along axes of length 1, which broadcast."""
    return tuple(
        0 if length == 1 else stride // array.itemsize
        for length, stride in zip(array.shape, array.strides, strict=True)
    )


def in_runs(array: Any, steps: Offsets, count: int) -> bool:
    """Whether `count` neighbours along the last axis can be moved by one aligned instruction.

    `steps` are all offsets that a kernel adds up: the base, and the strides, that axis' last.
    """
    *others, last = steps
    aligned = array.data.ptr % (count * array.itemsize) == 0
    return last == 1 and aligned and all(step % count == 0 for step in others)


def offsets(*values: int) -> tuple[np.int64, ...]:
    """Return strides and offsets as a kernel takes them."""
    return tuple(np.int64(value) for value in values)


def sizes(*values: int) -> tuple[np.int32, ...]:
    """Return counts as a kernel takes them."""
    return tuple(np.int32(value) for value in values)


def sample_axes(lengths: tuple[int, ...], arrays: Sequence[Any]) -> list[BatchAxis]:
    """Return the first axes of some arrays, of these lengths, merged; an array may be None."""
    steps = [(0,) * len(lengths) if array is None else strides(array)[: len(lengths)] for array in arrays]
    return merged([BatchAxis(*axis) for axis in zip(lengths, zip(*steps, strict=True), strict=True)])


def batch_axes(piece: Piece | AdjointPiece, count: int) -> list[BatchAxis]:
    """Return the first `count` axes of a piece's output, with the strides of its three arrays."""
    walked = zip(
        strides(piece.image)[:count],
        strides(piece.kernels)[2 : 2 + count],
        strides(piece.output)[:count],
        strict=True,
    )
    lengths = piece.output.shape[:count]
    return [BatchAxis(*axis) for axis in zip(lengths, walked, strict=True)]


def shared_and_own(axes: list[BatchAxis], operand: int) -> tuple[list[BatchAxis], list[BatchAxis]]:
    """Return the axes along which an operand stays the same, and the others, both merged."""
    shared = merged([axis for axis in axes if axis.strides[operand] == 0])
    own = merged([axis for axis in axes if axis.strides[operand] != 0])
    return shared, own


def merged(axes: list[BatchAxis]) -> list[BatchAxis]:
    """Join axes that can be walked as one, the longest first; axes of length 1 are dropped."""
    result: list[BatchAxis] = []
    kept = [axis for axis in axes if axis.length > 1]
    for axis in sorted(kept, key=lambda axis: [abs(stride) for stride in axis.strides], reverse=True):
        if result and result[-1].strides == tuple(axis.length * stride for stride in axis.strides):
            outer = result.pop()
            axis = BatchAxis(outer.length * axis.length, axis.strides)
        result.append(axis)
    return sorted(result, key=lambda axis: axis.length, reverse=True)


def launches(classes: list[list[BatchAxis]], most: tuple[int, ...], operands: int) -> Iterator[Batch]:
    """Walk all batch axes: of each class of axes the longest in the kernel, the others here.

    A launch takes at most ``most[k]`` entries along the axis of class k.
    """
    inside = [axes[0] if axes else BatchAxis(1, (0,) * operands) for axes in classes]
    outside = [axis for axes in classes for axis in axes[1:]]
    runs = [range(0, axis.length, limit) for axis, limit in zip(inside, most, strict=True)]
    for index in itertools.product(*(range(axis.length) for axis in outside)):
        for starts in itertools.product(*runs):
            walked = [*zip(outside, index, strict=True), *zip(inside, starts, strict=True)]
            bases = tuple(
                sum(axis.strides[operand] * at for axis, at in walked) for operand in range(operands)
            )
            cut = tuple(
                BatchAxis(min(axis.length - start, limit), axis.strides)
                for axis, start, limit in zip(inside, starts, most, strict=True)
            )
            yield Batch(bases, cut)


def table_arguments(axis: Axis, by_tap: bool) -> tuple[Any, ...]:
    """Return a kernel's four arguments for an axis: the table, its length and its two steps."""
    sources, table = on_device(_index_table, axis, by_tap)
    return sources, *sizes(len(table.sources), table.stride, table.dilation)


def _index_table(axis: Axis, by_tap: bool) -> tuple[np.ndarray, IndexTable]:
    table = axis.table(by_tap=by_tap)
    return table.sources, table


def inverse_arguments(readers: Readers) -> tuple[Any, ...]:
    """Return a kernel's two arguments for an axis: the inverse table and its number of pixels."""
    entries, pixels = on_device(_inverse_table, readers)
    return entries, *sizes(pixels)


def _inverse_table(readers: Readers) -> tuple[np.ndarray, int]:
    table = readers.table()
    return table.entries.astype(np.int32), table.pixels
