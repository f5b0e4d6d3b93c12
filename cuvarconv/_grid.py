"""The blocks of outputs that tasks make, and the parts of arrays that go with each."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cuvarconv._arguments import is_lazy
from cuvarconv._block_tasks import Edges
from cuvarconv._chunks import Chunks, Parts, Reading, number_parts, output_chunks, pixel_chunks, read
from cuvarconv._window import Window

_MOST_TOGETHER = 0.25  # of a block's pixels; each neighbour gets all that travels together


@dataclass(frozen=True)
class Axes:
    """An array, and what its axes are: batch axes by number, others by letter."""

    array: Any
    labels: tuple[Any, ...]

    def length(self, label: Any) -> int:
        """Return the length along an axis; where there is none, 1."""
        return self.array.shape[self.labels.index(label)] if label in self.labels else 1

    def chunks(self, label: Any) -> Chunks | None:
        """Return the chunks along an axis, None unless it is a dask array's own."""
        if label not in self.labels or not is_lazy(self.array):
            return None
        return tuple(length for length in self.array.chunks[self.labels.index(label)] if length)


def _labelled(array: Any, letters: str) -> Axes:
    before, dots, after = letters.partition("…")
    batch = range(array.ndim - len(before) - len(after)) if dots else ()
    return Axes(array, (*before, *batch, *after))


def flat(arrays: Any, letters: Any, found: list[Axes]) -> Any:
    """Append labelled arrays to a list; return the same structure with their numbers."""
    if arrays is None:
        return None
    if isinstance(letters, tuple):
        return tuple(flat(*pair, found) for pair in zip(arrays, letters, strict=True))
    found.append(_labelled(arrays, letters))
    return len(found) - 1


class Grid:
    """The blocks of outputs, counted along batch axes, rows and columns; how they read the image."""

    def __init__(self, operands: list[Axes], window: Window) -> None:
        batch = [label for label in operands[0].labels if isinstance(label, int)]
        self.window = window
        self.labels = (*batch, "i", "j")
        axes = (window.rows, window.columns)
        pixels = [_found(operands, label, axis.size) for label, axis in zip("IJ", axes, strict=True)]
        lengths = [max(operand.length(label) for operand in operands) for label in batch]
        self.chunks: list[Chunks] = [
            _found(operands, label, length) or (length,) for label, length in zip(batch, lengths, strict=True)
        ]
        for label, own, axis in zip("ij", pixels, axes, strict=True):
            cuts = output_chunks(axis, own) if own else _found(operands, label, axis.length)
            self.chunks.append(cuts or (axis.length,))
        self.pixels = [
            own or pixel_chunks(axis, outputs)
            for own, axis, outputs in zip(pixels, axes, self.chunks[-2:], strict=True)
        ]
        (self._rows, self._row_parts), (self._columns, self._column_parts) = (
            number_parts([read(axis, part, own) for part in _parts(outputs)], own)
            for axis, own, outputs in zip(axes, self.pixels, self.chunks[-2:], strict=True)
        )
        self._edges: dict[tuple[int, int], Edges | None] = {}

    def blocks(self) -> Iterator[tuple[int, ...]]:
        """Count all blocks."""
        return itertools.product(*(range(len(chunks)) for chunks in self.chunks))

    def shape(self, block: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a block of outputs, (batch…, H_out, W_out)."""
        return tuple(chunks[at] for chunks, at in zip(self.chunks, block, strict=True))

    def readings(self, block: tuple[int, ...]) -> tuple[Reading, Reading]:
        """Return how a block reads rows and columns."""
        return self._rows[block[-2]], self._columns[block[-1]]

    def edges(self, row: int, column: int) -> Edges | None:
        """Return how to cut what blocks read of a chunk of pixels; None: each part for itself."""
        at = (row, column)
        if at not in self._edges:
            self._edges[at] = _edges(self._row_parts[row], self._column_parts[column])
        return self._edges[at]

    def sent(self, rows: Reading, columns: Reading) -> Edges | None:
        """Return how to cut what a block gives to others; None: each part for itself."""
        return _edges(rows.gathered, columns.gathered)

    def counted(self, array: Axes) -> list[int | None]:
        """Return the grid's axis behind each axis of an array; None: the array has one block there."""
        return [
            self.labels.index(label) if label in self.labels and array.length(label) > 1 else None
            for label in array.labels
        ]

    def is_scattered(self, array: Axes) -> bool:
        """Whether the array is an image, so that neighbouring blocks share pixels."""
        return "J" in array.labels

    def is_shared(self, array: Axes) -> bool:
        """Whether several blocks of outputs have the same block of the array."""
        counted = self.counted(array)
        return any(len(chunks) > 1 and at not in counted for at, chunks in enumerate(self.chunks))

    def block_shape(self, array: Axes, outputs: tuple[int, ...], window: Window) -> tuple[int, ...]:
        """Return the shape of what one block makes of a result."""
        front = tuple(
            length if number is None else outputs[number]
            for number, length in zip(self.counted(array), array.array.shape, strict=True)
        )
        return (*front[:-2], *window.image_shape) if self.is_scattered(array) else front

    def chunks_of(self, array: Axes) -> tuple[Chunks, ...]:
        """Return the chunks that an array has in this grid."""
        chunks = [
            (length,) if number is None else self.chunks[number]
            for number, length in zip(self.counted(array), array.array.shape, strict=True)
        ]
        return (*chunks[:-2], *self.pixels) if self.is_scattered(array) else tuple(chunks)


@functools.lru_cache(maxsize=1024)  # blocks share them, and those of one message are sent once
def _edges(rows: Parts, columns: Parts) -> Edges | None:
    """Return the parts of a block other than the largest one, if they are small enough to travel together."""
    down, across = max(rows.lengths), max(columns.lengths)
    pixels = sum(rows.lengths) * sum(columns.lengths) - down * across
    if pixels > _MOST_TOGETHER * rows.size * columns.size:
        return None
    return Edges(rows.slices, columns.slices, (rows.lengths.index(down), columns.lengths.index(across)))


def _found(operands: list[Axes], label: Any, length: int) -> Chunks | None:
    """Return the chunks of the first dask array that has the whole length along an axis."""
    candidates = (operand.chunks(label) for operand in operands)
    return next((chunks for chunks in candidates if chunks and sum(chunks) == length), None)


def _parts(chunks: Chunks) -> list[slice]:
    ends = list(itertools.accumulate(chunks))
    return [slice(end - length, end) for end, length in zip(ends, chunks, strict=True)]
