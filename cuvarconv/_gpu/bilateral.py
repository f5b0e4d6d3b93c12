"""The bilateral filter: y[c,p] = Σ_q w_s w_r x[c,q] / Σ_q w_s w_r."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    Batch,
    in_runs,
    launches,
    offsets,
    sample_axes,
    sizes,
    strides,
    table_arguments,
)
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch, shared_memory_per_block
from cuvarconv._gpu._pieces import gathered, gathered_window, most_outputs, pieces
from cuvarconv._gpu._replay import replayed
from cuvarconv._gpu._tiles import THREADS, Tiling, lanes, tiling
from cuvarconv._window import Window

_CHANNELS = 4  # of a block, the kernels' CHANNELS
_SHARED = 64 << 10  # bytes of tiles per block, at most
WIDTHS = np.dtype(np.float64)  # what both σ are read in: radii are exact


@replayed
def bilateral(
    input: Any,
    guide: Any,
    sigma_spatial: Any,
    sigma_range: Any,
    output: Any,
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Launch over pieces of the output and over the batch.

    `input` and `output` are (batch…, C, H, W), `guide` (batch…, features, H, W) and real, both σ
    (batch…, H_out, W_out), these three with axes of length 1 where they broadcast.  `dtype` is the
    computing dtype; radii are int(truncate·σ + 0.5), or the window's for None.
    """
    likeness = input if _same(guide, input) else guide
    batch = output.ndim - 3
    call = FilterPiece(input, likeness, sigma_spatial, sigma_range, output, window)
    for piece in pieces(call, dtype, batch=batch):
        channels, features = piece.image.shape[-3], piece.guide.shape[-3]
        same = _same(piece.image, piece.guide)
        plan = _plan(piece.window, channels, features, same, dtype, shared_memory_per_block())
        samples = sample_axes(piece.output.shape[:batch], piece.arrays)
        most = max(1, MOST_BLOCKS // plan.blocks(piece.window, channels))
        for part in launches([samples], (most,), operands=len(piece.arrays)):
            _launch(piece, plan, part, truncate, dtype)


@dataclass(frozen=True)
class FilterPiece:
    """A block of the output, with what it is computed from; see `bilateral`."""

    image: Any
    guide: Any
    spatial: Any
    range: Any
    output: Any
    window: Window

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The arrays that a kernel takes, in its order."""
        return self.image, self.guide, self.spatial, self.range, self.output

    def block(self, where: Where, batch: int) -> FilterPiece:
        """Return the part of the output at `where`, (batch…, rows, columns), channels whole."""
        image = self.image[where[:batch]]
        guide = self.guide[matching_batch(self.guide, where[:batch])]
        return FilterPiece(
            image,
            image if self.guide is self.image else guide,
            self.spatial[matching(self.spatial, where)],
            self.range[matching(self.range, where)],
            self.output[(*where[:batch], slice(None), *where[batch:])],
            self.window.part(*where[batch:]),
        )

    def table_entries(self) -> tuple[int, int]:
        """Return the lengths of the two index tables."""
        return self.window.rows.entries, self.window.columns.entries

    def foreign_bytes(self, dtype: np.dtype) -> int:
        """Return what the arrays of another dtype take once converted."""
        bytes_taken = sum(
            WIDTHS.itemsize * sigma.size for sigma in (self.spatial, self.range) if sigma.dtype != WIDTHS
        )
        if self.output.dtype != dtype:
            bytes_taken += self.output.size * dtype.itemsize
        if self._is_foreign(dtype):
            rows, columns = self.table_entries()
            planes = math.prod(self.image.shape[:-2])
            planes += math.prod(self.guide.shape[:-2]) if self.guide is not self.image else 0
            bytes_taken += rows * columns * planes * dtype.itemsize
        return bytes_taken

    def most(self) -> tuple[int, int]:
        """Return how many rows and columns a launch may take."""
        return most_outputs(self.window)

    def converted(self, dtype: np.dtype) -> FilterPiece:
        """Return the piece with its operands in the dtypes that a kernel takes."""
        piece = self
        if self._is_foreign(dtype):
            image = gathered(self.image, self.window, dtype)
            real = replace(self.window, cval=self.window.cval.real)
            guide = gathered(self.guide, real, real_dtype(dtype)) if self.guide is not self.image else image
            piece = replace(self, image=image, guide=guide, window=gathered_window(self.window))
        spatial, range_ = (sigma.astype(WIDTHS, copy=False) for sigma in (self.spatial, self.range))
        return replace(piece, spatial=spatial, range=range_)

    def _is_foreign(self, dtype: np.dtype) -> bool:
        return self.image.dtype != dtype or self.guide.dtype != real_dtype(dtype)


def matching_batch(operand: Any, where: Where) -> Where:
    """Return the part of an operand with batch axes in front that meets `where`."""
    lengths = operand.shape[: len(where)]
    return tuple(slice(None) if length == 1 else part for part, length in zip(where, lengths, strict=True))


def real_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype of real parts."""
    return np.dtype(dtype.char.lower()) if dtype.kind == "c" else dtype


def _same(array: Any, other: Any) -> bool:
    """Whether two arrays are views of the same elements."""

    def view(array: Any) -> tuple[Any, ...]:
        return array.data.ptr, array.dtype, array.shape, array.strides

    return view(array) == view(other)


@dataclass(frozen=True)
class _Plan:
    """The tile of a block; none where not one tap's features fit."""

    tile: Tiling | None
    same: bool  # whether the image's tile is the guide's
    shared: int

    def blocks(self, window: Window, channels: int) -> int:
        """Return the number of blocks for one sample."""
        tiles = self.tile.tiles(window) if self.tile else -(-math.prod(window.output_shape) // THREADS)
        return tiles * -(-channels // _CHANNELS)


@functools.lru_cache(maxsize=512)
def _plan(
    window: Window, channels: int, features: int, same: bool, dtype: np.dtype, shared_limit: int
) -> _Plan:
    number, weight = accumulator_dtype(dtype), accumulator_dtype(real_dtype(dtype))
    own = features * THREADS * (16 // number.itemsize) * weight.itemsize
    planes = -(-features * weight.itemsize // number.itemsize) + (0 if same else min(channels, _CHANNELS))
    limit = min(_SHARED, shared_limit) - own
    tile = tiling(window, lanes(window, number), planes, number, limit)
    if tile.shared > limit:
        return _Plan(None, same, 0)
    return _Plan(tile, same, tile.shared + own)


def _launch(piece: FilterPiece, plan: _Plan, batch: Batch, truncate: float | None, dtype: np.dtype) -> None:
    window, tile = piece.window, plan.tile
    (samples,) = batch.axes
    arguments: list[Any] = []
    for operand, array in enumerate(piece.arrays):
        steps = (batch.bases[operand], samples.strides[operand], *strides(array)[piece.output.ndim - 3 :])
        arguments.append(array)
        if tile and len(steps) == 5:
            whole = array is piece.output or array.shape[-1] % tile.vector == 0
            arguments.append(np.int32(whole and in_runs(array, steps, tile.vector)))
        arguments += offsets(*steps)
    rows, columns = table_arguments(window.rows, False), table_arguments(window.columns, False)
    arguments += [*rows[:2], *columns[:2]] if tile else [rows[0], columns[0]]
    arguments += sizes(window.rows.taps // 2, window.columns.taps // 2, *window.output_shape)
    arguments += sizes(piece.image.shape[-3], piece.guide.shape[-3])
    if tile:
        arguments += sizes(plan.same, tile.lanes, tile.row_taps, tile.column_taps, tile.pitch)
    arguments += [np.float64(value) for value in (truncation(truncate), window.cval.real, window.cval.imag)]
    number = CPP_TYPES[dtype.name]
    name = f"bilateral<{number}>" if tile else f"bilateral_many_features<{number}>"
    blocks = plan.blocks(window, piece.image.shape[-3]) * samples.length
    launch("bilateral", name, blocks, THREADS, arguments, plan.shared)


def truncation(truncate: float | None) -> float:
    """Return `truncate` as kernels take it: negative for the whole window."""
    return -1.0 if truncate is None else truncate
