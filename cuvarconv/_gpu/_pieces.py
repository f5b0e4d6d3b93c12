"""Cutting a call into launches whose arrays all hold the computing dtype."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cupy
import numpy as np

from cuvarconv._blocks import Where, blocks, matching
from cuvarconv._window import CVAL, Axis, Window

_WORKSPACE = 32 << 20  # bytes of converted arrays at a time; as much again while one is made
_MOST_ENTRIES = 1 << 20  # of an index table: 8 MiB
_MOST_OUTPUTS = 1 << 30  # per channel and launch: kernels count them in 32 bits


@dataclass(frozen=True)
class Piece:
    """A block of the output, with what it is computed from.

    `image` and `output` are (batch…, [C], H, W); `kernels`, what varies over the output, is
    (kh, kw, batch…, [G], H, W) with axes of length 1 where it broadcasts.
    """

    image: Any
    kernels: Any
    output: Any
    window: Window

    def block(self, where: Where, batch: int) -> Piece:
        """Return the part of the output at `where`, (batch…, rows, columns), channels whole."""
        channels = (slice(None),) * (self.output.ndim - len(where))
        whole = (*where[:batch], *channels, *where[batch:])
        return Piece(
            self.image[where[:batch]],
            self.kernels[(slice(None), slice(None), *matching(self.kernels, whole))],
            self.output[whole],
            self.window.part(*where[batch:]),
        )

    def foreign_bytes(self, dtype: np.dtype) -> int:
        """Return what the arrays of another dtype take once converted."""
        rows, columns = self.window.rows, self.window.columns
        tile = rows.entries * columns.entries * self.image[..., 0, 0].size
        sizes = (
            (self.image, tile),
            (self.kernels, self.kernels.size),
            (self.output, self.output.size),
        )
        return sum(size * dtype.itemsize for array, size in sizes if array.dtype != dtype)


def pieces(call: Piece, dtype: np.dtype, *, batch: int) -> Iterator[Piece]:
    """Yield one launch's arrays at a time; the caller fills `output` before it takes the next.

    Arrays of another dtype are converted block by block, with their first `batch` axes and the
    image axes cut as far as the workspace asks for.
    """
    if call.output.size == 0:
        return
    for where in _cut(call, dtype, batch):
        piece = call.block(where, batch)
        target = piece.output
        if piece.image.dtype != dtype:
            piece = _gathered(piece, dtype)
        if piece.kernels.dtype != dtype:
            piece = replace(piece, kernels=piece.kernels.astype(dtype))
        if target.dtype == dtype:
            yield piece
        else:
            piece = replace(piece, output=cupy.empty(target.shape, dtype))
            yield piece
            _store(target, piece.output)


def _cut(call: Piece, dtype: np.dtype, batch: int) -> list[Where]:
    shape = (*call.output.shape[:batch], *call.window.output_shape)
    if call.foreign_bytes(dtype) == 0:
        whole_batch = [[slice(None)]] * batch
        across = _run(call.window.columns, _MOST_OUTPUTS)
        down = _run(call.window.rows, _MOST_OUTPUTS // across)
        runs = zip(shape[batch:], (down, across), strict=True)
        cuts = [[slice(at, min(at + run, n)) for at in range(0, n, run)] for n, run in runs]
        return list(itertools.product(*whole_batch, *cuts))
    elements = _MOST_ENTRIES
    cut = blocks(shape, elements)
    while elements > 1 and not _fits(call.block(cut[0], batch), dtype):
        elements //= 2
        cut = blocks(shape, elements)
    return cut


def _run(axis: Axis, most: int) -> int:
    """Return how many outputs along an axis a launch takes."""
    run = max(1, min(axis.length, most))
    while run > 1 and axis.part(slice(run)).entries > _MOST_ENTRIES:
        run = -(-run // 2)
    return run


def _fits(piece: Piece, dtype: np.dtype) -> bool:
    longest = max(piece.window.rows.entries, piece.window.columns.entries)
    return longest <= _MOST_ENTRIES and piece.foreign_bytes(dtype) <= _WORKSPACE


def _gathered(piece: Piece, dtype: np.dtype) -> Piece:
    """Convert the pixels under the windows of a block, boundary included, and no others."""
    rows, columns = piece.window.rows.table().sources, piece.window.columns.table().sources
    inside = (cupy.asarray(np.maximum(rows, 0))[:, None], cupy.asarray(np.maximum(columns, 0)))
    image = piece.image[(..., *inside)].astype(dtype)
    for axis, sources in ((-2, rows), (-1, columns)):
        outside = np.flatnonzero(sources == CVAL)
        if outside.size:
            index = cupy.asarray(outside)
            image[(..., index, slice(None)) if axis == -2 else (..., index)] = piece.window.cval
    window = replace(piece.window, rows=piece.window.rows.gathered(), columns=piece.window.columns.gathered())
    return replace(piece, image=image, window=window)


def _store(target: Any, values: Any) -> None:
    """Write a block: integers truncate through int64, bool is ≠ 0."""
    if target.dtype.kind in "iu":
        values = values.astype(np.int64)
    elif target.dtype.kind == "b":
        values = values != 0
    target[...] = values.astype(target.dtype)
