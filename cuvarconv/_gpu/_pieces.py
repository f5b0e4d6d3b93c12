"""Cutting a call into launches whose arrays all hold the computing dtype.

A launcher describes its call once and walks it piece by piece::

    for piece in pieces(Piece(image, kernels, output, window), dtype, batch=ndim - 2):
        ...  # launch with piece.image, piece.kernels, piece.output, piece.window

`Piece` gathers: it is cut by the outputs of the window.  `AdjointPiece` is for gradients in an image: it
is cut by the pixels of the result, and `rows` and `columns` say which outputs read them; their inverse
tables reach the kernel through ``_geometry.inverse_arguments(piece.rows)``, and kernels/adjoint.cuh.
Where `image` and `kernels` were converted, they hold only those outputs, in the table's numbering.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import cupy
import numpy as np

from cuvarconv._axis import CVAL, Axis, InverseTable
from cuvarconv._blocks import Where, blocks
from cuvarconv._gpu._kept import uploaded
from cuvarconv._window import Window

if TYPE_CHECKING:
    from typing_extensions import Self

_WORKSPACE = 32 << 20  # bytes of converted arrays at a time; as much again while one is made
_MOST_ENTRIES = 1 << 20  # of an index table: 8 MiB
_MOST_OUTPUTS = 1 << 30  # per channel and launch: kernels count them in 32 bits


@dataclass(frozen=True)
class Piece:
    """A block of the output, with what it is computed from.

    `image` and `output` are (batch…, [C], H, W); `kernels`, what varies over the output, is
    (kh, kw, batch…, channels…, H, W) with axes of length 1 where it broadcasts.
    """

    image: Any
    kernels: Any
    output: Any
    window: Window

    def block(self, where: Where, batch: int) -> Self:
        """Return the part of the output at `where`, (batch…, rows, columns), channels whole."""
        channels = (slice(None),) * (self.output.ndim - len(where))
        lengths = (*self.kernels.shape[2 : 2 + batch], *self.kernels.shape[-2:])
        theirs = [slice(None) if n == 1 else part for part, n in zip(where, lengths, strict=True)]
        return replace(
            self,
            image=self.image[where[:batch]],
            kernels=self.kernels[(slice(None), slice(None), *theirs[:batch], ..., *theirs[batch:])],
            output=self.output[(*where[:batch], *channels, *where[batch:])],
            window=self.window.part(*where[batch:]),
        )

    def table_entries(self) -> tuple[int, int]:
        """Return the lengths of the two index tables."""
        return self.window.rows.entries, self.window.columns.entries

    def foreign_bytes(self, dtype: np.dtype) -> int:
        """Return what the arrays of another dtype take once converted."""
        rows, columns = self.table_entries()
        tile = rows * columns * self.image[..., 0, 0].size
        sizes = (
            (self.image, tile),
            (self.kernels, self.kernels.size),
            (self.output, self.output.size),
        )
        return sum(size * dtype.itemsize for array, size in sizes if array.dtype != dtype)

    def most(self) -> tuple[int, int]:
        """Return how many rows and columns a launch may take."""
        return most_outputs(self.window)

    def converted(self, dtype: np.dtype) -> Self:
        """Return the piece with its operands in the computing dtype."""
        piece = self
        if self.image.dtype != dtype:
            image = gathered(self.image, self.window, dtype)
            piece = replace(self, image=image, window=gathered_window(self.window))
        return replace(piece, kernels=piece.kernels.astype(dtype, copy=False))


@dataclass(frozen=True)
class Readers:
    """The outputs that read some neighbouring pixels along an axis: arguments of `Axis.inverse`."""

    axis: Axis
    first: int
    last: int
    every: bool = True

    def part(self, pixels: slice) -> Readers:
        """Return the readers of some of the pixels."""
        first, last, _ = pixels.indices(self.last - self.first)
        return replace(self, first=self.first + first, last=self.first + last)

    def alone(self) -> Readers:
        """Count these outputs only, from 0."""
        return replace(self, every=False)

    def table(self) -> InverseTable:
        """Return the inverse table."""
        return self.axis.inverse(slice(self.first, self.last), every=self.every)

    def entries(self) -> int:
        """Return the length of the table without its lists."""
        return self.axis.taps * (self.last - self.first)


@dataclass(frozen=True)
class AdjointPiece:
    """A block of pixels of the result, with what it is gathered from.

    `image` is (batch…, [C'], H_in, W_in), `kernels` (kh, kw, batch…, channels…, H_in, W_in) with axes of
    length 1 where it broadcasts, `output` (batch…, [C], H, W).
    """

    image: Any
    kernels: Any
    output: Any
    rows: Readers
    columns: Readers

    @classmethod
    def of(cls, image: Any, kernels: Any, output: Any, window: Window) -> AdjointPiece:
        """Describe a whole call; `window` is the forward window."""
        rows, columns = (Readers(axis, 0, axis.size) for axis in (window.rows, window.columns))
        return cls(image, kernels, output, rows, columns)

    def block(self, where: Where, batch: int) -> Self:
        """Return the part of the result at `where`, (batch…, rows, columns), channels whole."""
        channels = (slice(None),) * (self.output.ndim - len(where))
        lengths = self.kernels.shape[2 : 2 + batch]
        theirs = (slice(None) if n == 1 else part for part, n in zip(where[:batch], lengths, strict=True))
        return replace(
            self,
            image=self.image[where[:batch]],
            kernels=self.kernels[(slice(None), slice(None), *theirs)],
            output=self.output[(*where[:batch], *channels, *where[batch:])],
            rows=self.rows.part(where[batch]),
            columns=self.columns.part(where[batch + 1]),
        )

    def table_entries(self) -> tuple[int, int]:
        """Return the lengths of the two inverse tables, without their lists."""
        return self.rows.entries(), self.columns.entries()

    def foreign_bytes(self, dtype: np.dtype) -> int:
        """Return what the arrays of another dtype take at most, in any block of this size."""
        elements = self.output.size if self.output.dtype != dtype else 0
        if not self.image.dtype == self.kernels.dtype == dtype:
            read = [most_readers(part.axis, part.last - part.first) for part in (self.rows, self.columns)]
            elements += _size(self.image, read) + _size(self.kernels, read)
        return elements * dtype.itemsize

    def most(self) -> tuple[int, int]:
        """Return how many rows and columns a launch may take."""
        across = max(1, min(self.output.shape[-1], _MOST_ENTRIES // self.columns.axis.taps))
        down = min(_MOST_OUTPUTS // across, _MOST_ENTRIES // self.rows.axis.taps)
        return max(1, min(self.output.shape[-2], down)), across

    def converted(self, dtype: np.dtype) -> Self:
        """Return the piece with the outputs that are read, in the computing dtype, counted in 32 bits."""
        longest = max(self.rows.axis.length, self.columns.axis.length)
        if self.image.dtype == self.kernels.dtype == dtype and longest <= _MOST_OUTPUTS:
            return self
        rows, columns = self.rows.alone(), self.columns.alone()
        read = (rows.table().outputs, columns.table().outputs)
        image, kernels = (taken(array, *read, dtype) for array in (self.image, self.kernels))
        return replace(self, image=image, kernels=kernels, rows=rows, columns=columns)


Call = TypeVar("Call", bound="Cuttable")


class Cuttable(Protocol):
    """What `pieces` needs of a call; a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def output(self) -> Any:
        """The result, (batch…, [C], H, W)."""

    def block(self: Call, where: Where, batch: int) -> Call:
        """Return the part of the result at `where`, (batch…, rows, columns), channels whole."""

    def table_entries(self) -> tuple[int, int]:
        """Return the lengths of the two tables that a launch takes."""

    def foreign_bytes(self, dtype: np.dtype) -> int:
        """Return what the arrays of another dtype take once converted."""

    def most(self) -> tuple[int, int]:
        """Return how many rows and columns a launch may take."""

    def converted(self: Call, dtype: np.dtype) -> Call:
        """Return the piece with its operands in the computing dtype."""


def pieces(call: Call, dtype: np.dtype, *, batch: int, reserved: int = 0) -> Iterator[Call]:
    """Yield one launch's arrays at a time; the caller fills `output` before it takes the next.

    Arrays of another dtype are converted block by block, with their first `batch` axes and the
    image axes cut as far as the workspace asks for, less the bytes `reserved` by the caller.
    """
    if call.output.size == 0:
        return
    for where in _cut(call, dtype, batch, _WORKSPACE - reserved // 2):
        part = call.block(where, batch)
        target = part.output
        piece = part.converted(dtype)
        if target.dtype == dtype:
            yield piece
        else:
            piece = replace(piece, output=cupy.empty(target.shape, dtype))
            yield piece
            store(target, piece.output)


def operand_pieces(call: Piece, dtype: np.dtype, *, batch: int) -> Iterator[tuple[Where, Piece]]:
    """Yield pieces of a call that reads `output` too, a gradient that comes in, with their places.

    Half of the workspace is left to the caller, for sums.
    """
    if call.output.size == 0:
        return
    for where in _cut(call, dtype, batch, _WORKSPACE // 2):
        piece = call.block(where, batch).converted(dtype)
        yield where, replace(piece, output=piece.output.astype(dtype, copy=False))


def _cut(call: Cuttable, dtype: np.dtype, batch: int, workspace: int = _WORKSPACE) -> list[Where]:
    shape = (*call.output.shape[:batch], *call.output.shape[-2:])
    if call.foreign_bytes(dtype) == 0:
        whole_batch = [[slice(None)]] * batch
        runs = zip(shape[batch:], call.most(), strict=True)
        cuts = [[slice(at, min(at + run, n)) for at in range(0, n, run)] for n, run in runs]
        return list(itertools.product(*whole_batch, *cuts))
    return largest_blocks(shape, lambda where: fits(call.block(where, batch), dtype, workspace))


def largest_blocks(shape: tuple[int, ...], fits: Callable[[Where], bool]) -> list[Where]:
    """Cut an array into blocks of which the first, which no other exceeds, fits."""
    elements = _MOST_ENTRIES
    cut = blocks(shape, elements)
    while elements > 1 and not fits(cut[0]):
        elements //= 2
        cut = blocks(shape, elements)
    return cut


def most_outputs(window: Window) -> tuple[int, int]:
    """Return how many rows and columns of outputs a launch may take."""
    across = _run(window.columns, _MOST_OUTPUTS)
    return _run(window.rows, _MOST_OUTPUTS // across), across


def _run(axis: Axis, most: int) -> int:
    """Return how many outputs along an axis a launch takes."""
    run = max(1, min(axis.length, most))
    while run > 1 and axis.part(slice(run)).entries > _MOST_ENTRIES:
        run = -(-run // 2)
    return run


def fits(piece: Cuttable, dtype: np.dtype, workspace: int) -> bool:
    """Whether a piece's tables, and its arrays once converted, are small enough for one launch."""
    return max(piece.table_entries()) <= _MOST_ENTRIES and piece.foreign_bytes(dtype) <= workspace


def most_readers(axis: Axis, run: int) -> int:
    """Return a bound on how many outputs read `run` neighbouring pixels, wherever these lie."""

    def reading(positions: int) -> int:
        across = (positions - 1 + (axis.taps - 1) * axis.dilation) // axis.stride + 1
        return min(across, axis.taps * -(-positions // axis.stride)) if positions > 0 else 0

    count = reading(run)
    if axis.mode not in ("constant", "valid"):
        for overhang in (-axis.start, axis.start + axis.span - axis.size):
            folded_once = axis.mode != "nearest" and overhang < axis.size
            count += reading(min(overhang, run) if folded_once else overhang)
    return min(count, axis.length)


def _size(array: Any, read: list[int]) -> int:
    """Return the number of elements at `read` rows and columns of an array that may broadcast."""
    lengths = (min(part, n) for part, n in zip(read, array.shape[-2:], strict=True))
    return math.prod(array.shape[:-2]) * math.prod(lengths)


def gathered(image: Any, window: Window, dtype: np.dtype) -> Any:
    """Convert the pixels under a window, boundary included, and no others."""
    rows, columns = window.rows.table().sources, window.columns.table().sources
    inside = (uploaded(np.maximum(rows, 0))[:, None], uploaded(np.maximum(columns, 0)))
    image = image[(..., *inside)].astype(dtype)
    for axis, sources in ((-2, rows), (-1, columns)):
        outside = np.flatnonzero(sources == CVAL)
        if outside.size:
            index = uploaded(outside)
            image[(..., index, slice(None)) if axis == -2 else (..., index)] = window.cval
    return image


def gathered_window(window: Window) -> Window:
    """Return the window over what `gathered` makes."""
    return replace(window, rows=window.rows.gathered(), columns=window.columns.gathered())


def taken(array: Any, rows: np.ndarray, columns: np.ndarray, dtype: np.dtype) -> Any:
    """Return some rows and columns, the axes in memory as they were; what broadcasts stays short.

    It is a copy unless the rows are neighbours, the columns are, and the dtype is the array's.
    """
    order = sorted(range(array.ndim), key=lambda axis: abs(array.strides[axis]), reverse=True)
    index: list[Any] = [slice(None)] * array.ndim
    for axis, numbers in ((array.ndim - 2, rows), (array.ndim - 1, columns)):
        if array.shape[axis] > 1:
            index[axis] = _index(numbers)
    places = [place for place, axis in enumerate(order) if not isinstance(index[axis], slice)]
    if len(places) == 2:
        index[order[places[0]]] = index[order[places[0]]][:, None]
        if places[1] - places[0] > 1:  # index arrays that are no neighbours would come out in front
            down, across = order[places[0]], order[places[1]]
            order = [axis for axis in order if axis not in (down, across)] + [down, across]
    taken = array.transpose(order)[tuple(index[axis] for axis in order)].astype(dtype, copy=False)
    return taken.transpose(np.argsort(order).tolist())


def _index(outputs: np.ndarray) -> Any:
    """Return the numbers of outputs as a slice if they are neighbours, else as an array."""
    if len(outputs) == 0:
        return slice(0, 0)
    first, last = int(outputs[0]), int(outputs[-1]) + 1
    return slice(first, last) if last - first == len(outputs) else uploaded(outputs)


def store(target: Any, values: Any) -> None:
    """Write a block: integers truncate through int64, bool is ≠ 0, real arrays take the real part."""
    if target.dtype.kind != "c":
        values = values.real
    if target.dtype.kind in "iu":
        values = values.astype(np.int64)
    elif target.dtype.kind == "b":
        values = values != 0
    target[...] = values.astype(target.dtype)
