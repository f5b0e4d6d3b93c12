"""The adjoint of `correlate`: every input pixel is spread by its own kernel."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._axis import NO_OUTPUT
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    Batch,
    batch_axes,
    inverse_arguments,
    launches,
    offsets,
    shared_and_own,
    sizes,
    strides,
)
from cuvarconv._gpu._kept import on_device
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch, shared_memory_per_block
from cuvarconv._gpu._pieces import AdjointPiece, Readers, pieces
from cuvarconv._gpu._replay import replayed
from cuvarconv._window import Window

PLANES = (1, 4, 16)  # planes per block, the kernel's P
THREADS = 128  # per block
_SHARED = 112 << 10  # bytes of tile for most planes, at most
_EVERYWHERE = 48 << 10  # every device has them
_TOGETHER = 4  # rows of taps, the kernel's TAPS_IN_FLIGHT
_MOST_PLANES = 1 << 24
_MOST_CLASSES = 8  # of pixels along an axis: larger strides go through the inverse tables
_FARTHEST = 1 << 29  # position, and
_WIDEST = 1 << 20  # step between taps, that the kernel computes with in 32 bits
_INSIDE, _ALONE = 1, 2  # flags of a plan


@replayed
def spread(
    input: Any,
    weights: Any,
    output: Any,
    window: Window,
    *,
    dtype: np.dtype,
) -> None:
    """Launch over pieces of the result and over the batch.

    `input` is (batch…, H_in, W_in), `weights` (kh, kw, batch…, H_in, W_in) with axes of length 1 where
    they broadcast, `output` (batch…, H, W); `window` is that of `correlate`, from H × W pixels to
    H_in × W_in; `dtype` is the computing dtype.
    """
    call = AdjointPiece.of(input, weights, output, window)
    for piece in pieces(call, dtype, batch=output.ndim - 2):
        shared, own = shared_and_own(batch_axes(piece, output.ndim - 2), operand=1)
        planes = min(shared[0].length, _MOST_PLANES) if shared else 1
        plan = _plan(piece.rows, piece.columns, planes, dtype, shared_memory_per_block())
        blocks_per_group = plan.tiles * -(-planes // plan.planes)
        most_groups = max(1, MOST_BLOCKS // blocks_per_group)
        for batch in launches([own, shared], (most_groups, planes), operands=3):
            _launch(piece, plan, batch, dtype)


@dataclass(frozen=True)
class _Direct:
    """The reads along an axis without a boundary in between: i·stride + m·dilation + start = pixel.

    Pixels fall into classes modulo the stride.  Each is (first tap, taps, output that reads the class'
    first pixel through the first tap); further taps lie `tap_step` apart, their outputs `output_step` back.
    """

    classes: tuple[tuple[int, int, int], ...]
    tap_step: int
    output_step: int
    outputs: int  # of the axis, as the inverse table counts them

    @property
    def taps(self) -> int:
        return max(taps for _, taps, _ in self.classes)

    def tiles(self, pixels: int, block: int) -> int:
        """Return how many blocks of pixels each class is cut into."""
        return (pixels - 1) // len(self.classes) // block + 1


@functools.lru_cache(maxsize=512)
def _direct(readers: Readers) -> _Direct:
    """Find the direct reads; none at all where they are no pattern that the kernel knows."""
    axis, outputs = readers.axis, readers.table().outputs
    gaps = len(outputs) == 0 or outputs[-1] - outputs[0] >= len(outputs)
    far = abs(axis.start) + axis.span + axis.size > _FARTHEST or axis.dilation > _WIDEST
    if gaps or far or axis.stride > _MOST_CLASSES:
        return _Direct(((0, 0, 0),), 1, 1, len(outputs))
    common = math.gcd(axis.stride, axis.dilation)
    tap_step = axis.stride // common
    classes = []
    for pixel in range(axis.stride):
        positions = (readers.first + pixel - m * axis.dilation - axis.start for m in range(tap_step))
        found = [(m, at // axis.stride) for m, at in enumerate(positions) if at % axis.stride == 0]
        tap, output = found[0] if found else (axis.taps, 0)
        classes.append((tap, max(0, -(-(axis.taps - tap) // tap_step)), output - int(outputs[0])))
    return _Direct(tuple(classes), tap_step, axis.dilation // common, len(outputs))


def _plan_table(readers: Readers, block: int, whole: bool) -> tuple[np.ndarray, _Direct]:
    """List the classes, and of each class' blocks what spares the kernel work.

    `_INSIDE` if all direct reads of its pixels exist (and if `whole`, all of its pixels), `_ALONE` if there
    are no others.
    """
    direct, table = _direct(readers), readers.table()
    entries = table.entries[: readers.entries()].reshape(-1, table.pixels)
    tiles = direct.tiles(table.pixels, block)
    flags = np.full((len(direct.classes), tiles * block), _ALONE if whole else _ALONE | _INSIDE, np.int32)
    for cls, (tap, taps, first) in enumerate(direct.classes):
        listed = entries[:, cls :: len(direct.classes)]
        steps = np.arange(taps)
        outputs = first + np.arange(listed.shape[1]) - steps[:, None] * direct.output_step
        exists = (outputs >= 0) & (outputs < len(table.outputs))
        expected = np.full_like(listed, NO_OUTPUT)
        expected[tap + steps * direct.tap_step] = np.where(exists, outputs, NO_OUTPUT)
        inside, alone = exists.all(0), (listed == expected).all(0)
        flags[cls, : listed.shape[1]] = _INSIDE * inside + _ALONE * alone
    flags = np.bitwise_and.reduce(flags.reshape(-1, tiles, block), axis=2)
    return np.concatenate([np.array(direct.classes, np.int32).ravel(), flags.ravel()]), direct


@dataclass(frozen=True)
class _Plan:
    """How one block works: planes and lanes, and the taps whose pixels its tile holds at once."""

    planes: int
    lanes: int
    rows: int  # of pixels in a block
    tiles: int
    row_taps: int
    column_taps: int
    pitch: int
    shared: int


@functools.lru_cache(maxsize=512)
def _plan(rows: Readers, columns: Readers, planes: int, dtype: np.dtype, shared_limit: int) -> _Plan:
    """Choose the largest tile that fits: all taps, else fewer rows of taps, else fewer columns."""
    number = accumulator_dtype(dtype)
    per_block = next((count for count in PLANES if planes <= count), PLANES[-1])
    down, across = _direct(rows), _direct(columns)
    height, width = (readers.last - readers.first for readers in (rows, columns))
    lanes = 8 if -(-width // len(across.classes)) <= 8 else 32
    run = 16 // number.itemsize  # pixels of a thread
    block = THREADS // lanes * run
    tiles = down.tiles(height, block) * len(down.classes) * across.tiles(width, lanes) * len(across.classes)

    def holding(row_taps: int, column_taps: int) -> _Plan:
        if not down.taps or not across.taps:
            return _Plan(per_block, lanes, block, tiles, 1, 1, 0, 0)
        runs = (block + (row_taps - 1) * down.output_step - 1) // run + 1
        pitch = (runs | 1) * run
        tile_columns = lanes + (column_taps - 1) * across.output_step
        shared = min(planes, per_block) * tile_columns * pitch * number.itemsize
        return _Plan(per_block, lanes, block, tiles, row_taps, column_taps, pitch, shared)

    # a tile for the most planes decides, so that sums have one order, however many planes there are
    limit = min(_SHARED, max(_EVERYWHERE, shared_limit)) // PLANES[-1] * min(planes, per_block)
    row_taps, column_taps = max(1, down.taps), max(1, across.taps)
    while holding(row_taps, column_taps).shared > limit and max(row_taps, column_taps) > 1:
        if row_taps > _TOGETHER:
            row_taps = -(-row_taps // (2 * _TOGETHER)) * _TOGETHER
        elif row_taps > 1:
            row_taps = -(-row_taps // 2)
        else:
            column_taps = -(-column_taps // 2)
    return holding(row_taps, column_taps)  # with one tap it fits everywhere


def _launch(piece: AdjointPiece, plan: _Plan, batch: Batch, dtype: np.dtype) -> None:
    (groups, own), (planes, shared) = ((axis.length, axis.strides) for axis in batch.axes)
    image, kernels, output = piece.image, piece.kernels, piece.output
    arguments = [
        *(image, *offsets(batch.bases[0], own[0], shared[0], *strides(image)[-2:])),
        *(kernels, *offsets(batch.bases[1], own[1], *strides(kernels)[:2], *strides(kernels)[-2:])),
        *(output, *offsets(batch.bases[2], own[2], shared[2], *strides(output)[-2:])),
    ]
    outputs = []
    for readers, block, whole in ((piece.rows, plan.rows, True), (piece.columns, plan.lanes, False)):
        table, direct = on_device(_plan_table, readers, block, whole)
        steps = sizes(len(direct.classes), direct.tap_step, direct.output_step)
        arguments += [*inverse_arguments(readers), table, *steps]
        outputs.append(direct.outputs)
    arguments += [
        *sizes(piece.rows.axis.taps, piece.columns.axis.taps, *outputs, planes),
        *sizes(plan.lanes, plan.row_taps, plan.column_taps, plan.pitch),
    ]
    name = f"spread<{CPP_TYPES[dtype.name]}, {plan.planes}>"
    blocks = plan.tiles * -(-planes // plan.planes) * groups
    launch("spread", name, blocks, THREADS, arguments, plan.shared)
