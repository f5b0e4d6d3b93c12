"""The gradients of equation (2), y[o,i,j] = Σ_{c,m,n} w[o,c,m,n] d[m,n,i,j] x[c,i+m,j+n]."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cupy
import numpy as np

from cuvarconv._blocks import Where, blocks, matching
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._geometry import (
    Batch,
    batch_axes,
    in_runs,
    launches,
    merged,
    offsets,
    shared_and_own,
    sizes,
    strides,
    table_arguments,
)
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS
from cuvarconv._gpu._paths import (
    Kernel,
    Product,
    expression,
    packed,
    tensor_kernel,
    tensor_sum_tile,
)
from cuvarconv._gpu._pieces import Piece, operand_pieces, store
from cuvarconv._window import Window

OUTPUTS = (4, 16, 64)  # of a block of the gradient in the weights, the kernel's BO, by those of a group
_ROWS = 64  # (m,n,c) of the same block
_WEIGHT_THREADS = 256
SLOT_TILES = ((16, 128), (64, 64))  # rows and pixels of a block of the gradient in the modulation
_MICRO = 4  # rows, and pixels, of a thread
_ENOUGH_BLOCKS = 528  # four for each of 132 multiprocessors
_FEWEST_PIXELS = 128  # of one part of a sum
_MOST_PIXELS = 1 << 30  # in a sum: kernels count them in 32 bits
_REPACKED = 16 << 20  # bytes of weights at a time, copied so that threads read them side by side
_SUMS = 16 << 20  # bytes of sums that are not in the result yet


def modulated_weights_gradient(
    grad: Any,
    input: Any,
    modulation: Any,
    output: Any,
    window: Window,
    *,
    groups: int,
    dtype: np.dtype,
) -> None:
    """Split the sum over pixels and samples, then add up its parts in order.

    `grad` is (batch…, C_out, H_out, W_out), `output` (C_out, C_in/groups, kh, kw), the others are as for
    `modulated_correlate`; `dtype` is the computing dtype.
    """
    if output.size == 0:
        return
    call = Piece(input, modulation, grad, window)
    by_group = output.reshape(groups, len(output) // groups, *output.shape[1:])
    number = accumulator_dtype(dtype)
    for some, *taps in _weights_cut(by_group.shape, _SUMS // number.itemsize):
        target = by_group[(slice(None), some, slice(None), *taps)].transpose(0, 1, 3, 4, 2)
        part = replace(call, kernels=call.kernels[tuple(taps)], window=window.taps(*taps))
        kernel = _weights_kernel(target.shape, dtype)
        splits = _pixel_splits(target.shape, grad.size // grad.shape[-3], number, kernel.tile)
        sums = cupy.zeros((splits, *target.shape), number)
        for _, piece in operand_pieces(part, dtype, batch=grad.ndim - 3):
            samples = merged(batch_axes(piece, grad.ndim - 3))
            most = max(1, _MOST_PIXELS // math.prod(piece.window.output_shape))
            for batch in launches([samples], (most,), operands=3):
                _launch_weights(piece, sums, some.start, batch, kernel)
        store(target, sums[0] if len(sums) == 1 else sums.sum(axis=0))


def _weights_cut(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Cut (groups, outputs, C_in/groups, kh, kw) by outputs, rows and columns of taps to `most` elements."""
    groups, outputs, channels, *taps = shape
    lengths = [outputs, *taps]
    while math.prod(lengths) * groups * channels > most and max(lengths) > 1:
        cut = 0 if lengths[0] > OUTPUTS[-1] else lengths.index(max(lengths))
        lengths[cut] = -(-lengths[cut] // 2)
    runs = zip((outputs, *taps), lengths, strict=True)
    return itertools.product(*([slice(at, min(at + run, n)) for at in range(0, n, run)] for n, run in runs))


def _weights_kernel(sums: tuple[int, ...], dtype: np.dtype) -> Kernel:
    """Choose the kernel for sums (groups, outputs, kh, kw, C_in/groups)."""
    groups, outputs, *taps, channels = sums
    name = "modulated_weights_gradient"
    product = Product(dtype, outputs, channels, math.prod(taps), groups, pixels=0, one_factor=True)
    tile = tensor_sum_tile(product)
    if tile is not None:
        return Kernel(f"{name}_tensor", expression(f"{name}_tensor", dtype, tile), tile, tile[1])
    per_block = next((count for count in OUTPUTS if outputs <= count), OUTPUTS[-1])
    return Kernel(name, f"{name}<{CPP_TYPES[dtype.name]}, {per_block}>", (per_block, _ROWS), _WEIGHT_THREADS)


def _weights_blocks(sums: tuple[int, ...], tile: tuple[int, int]) -> int:
    """Return how many blocks share the sums, (groups, outputs, kh, kw, C_in/groups), of one split."""
    groups, outputs, *rows = sums
    return groups * -(-outputs // tile[0]) * -(-math.prod(rows) // tile[1])


def _pixel_splits(sums: tuple[int, ...], pixels: int, number: np.dtype, tile: tuple[int, int]) -> int:
    """Return into how many parts each sum over pixels is split, so that small weights fill the device."""
    held = _SUMS // (math.prod(sums) * number.itemsize)
    return max(1, min(_ENOUGH_BLOCKS // _weights_blocks(sums, tile), -(-pixels // _FEWEST_PIXELS), held))


def _launch_weights(piece: Piece, sums: Any, first_output: int, batch: Batch, kernel: Kernel) -> None:
    window = piece.window
    splits, groups, outputs, kh, kw, channels = sums.shape
    (samples,) = batch.axes
    rows, _, *row_steps = table_arguments(window.rows, window.rows.shorter_by_tap)
    columns, _, *column_steps = table_arguments(window.columns, window.columns.shorter_by_tap)
    x, d, g = (strides(array) for array in (piece.image, piece.kernels, piece.output))
    arguments = (
        *(piece.output, *offsets(batch.bases[2] + first_output * g[-3], samples.strides[2], *g[-3:])),
        *(piece.image, *offsets(batch.bases[0], samples.strides[0], *x[-3:])),
        *(piece.kernels, *offsets(batch.bases[1], samples.strides[1], *d[:2], *d[-3:])),
        *(sums, rows, *row_steps, columns, *column_steps),
        *sizes(kh, kw, *window.output_shape, samples.length, groups, channels),
        *sizes(outputs, piece.output.shape[-3] // groups, piece.image.shape[-3] // piece.kernels.shape[-3]),
        *(np.int32(splits), np.float64(window.cval.real), np.float64(window.cval.imag)),
    )
    count = splits * _weights_blocks(sums.shape[1:], kernel.tile)
    kernel.launch(count, arguments)


def modulated_modulation_gradient(
    grad: Any,
    input: Any,
    weights: Any,
    output: Any,
    window: Window,
    *,
    groups: int,
    dtype: np.dtype,
) -> None:
    """Sum over channels and over samples that share the modulation in the kernel, over pixels afterwards.

    `output` is (kh, kw, batch…, G, H_out, W_out) with axes of length 1 where the modulation was shared, the
    others are as for `modulated_correlate`; `dtype` is the computing dtype.
    """
    if grad.size == 0 or input.size == 0:
        output[...] = 0
        return
    slots = _slots(input.shape[-3], groups, output.shape[-3], math.prod(output.shape[:2]))
    slots = _tensor_slots(slots, weights, groups, dtype) or slots
    splits = _sample_splits(slots, grad.shape, output.shape)
    number, pixels = accumulator_dtype(dtype), output.shape[-2:]
    call = _Products(grad, input, weights, window, slots, groups, dtype)
    if output.dtype == number and pixels == window.output_shape and splits == 1:
        call.add_to(output[None], fresh=True)
        return
    per_place = splits * math.prod(output.shape[:2]) * output.shape[-3]
    room = max(1, _SUMS // (number.itemsize * per_place))
    for region in blocks((*output.shape[2:-3], *pixels), room):
        target = output[(slice(None), slice(None), *region[:-2], slice(None), *region[-2:])]
        store(target, call.part(region, output.shape).total(target.shape, splits, room))


@dataclass(frozen=True)
class _Slots:
    """How blocks of the gradient in the modulation divide the channels; see the kernel."""

    families: int
    entries: int  # of a family
    channels: int  # of an entry
    lanes: int
    tile: tuple[int, int]
    taps: int
    product: Product | None = None  # on tensor cores: of the channels of an entry, summed over outputs

    def blocks(self, pixels: int) -> int:
        """Return the number of blocks for one sample."""
        rows, columns = self.tile
        return self.families * -(-self.taps * self.entries // (rows // self.lanes)) * -(-pixels // columns)


def _slots(channels: int, groups: int, entries: int, taps: int) -> _Slots:
    """Choose the smallest tile that holds all slots of a family."""
    families, each = (groups, entries // groups) if entries % groups == 0 else (entries, 1)
    together = min(channels // groups, channels // entries)  # in one group and one entry
    lanes = together if together <= 2 else -(-together // _MICRO) * _MICRO
    tile = next((tile for tile in SLOT_TILES if taps * each * lanes <= tile[0]), SLOT_TILES[-1])
    return _Slots(families, each, channels // entries, min(lanes, tile[0]), tile, taps)


def _tensor_slots(slots: _Slots, weights: Any, groups: int, dtype: np.dtype) -> _Slots | None:
    """Return slots that fill a tile each, if tensor cores are chosen."""
    outputs, channels = weights.shape[:2]
    together = min(channels, slots.channels)
    product = Product(dtype, together, outputs // groups, 1, groups, pixels=0, one_factor=True)
    tile = tensor_sum_tile(product)
    return None if tile is None else replace(slots, lanes=tile[0], tile=tile, product=product)


def _sample_splits(slots: _Slots, grad: tuple[int, ...], output: tuple[int, ...]) -> int:
    """Return into how many parts the sum over samples is split, so that small images fill the device."""
    own = math.prod(output[2:-3])
    shared = math.prod(grad[:-3]) // own
    return max(1, min(_ENOUGH_BLOCKS // (own * slots.blocks(math.prod(grad[-2:]))), shared))


@dataclass(frozen=True)
class _Products:
    """What the gradient in the modulation is summed from: grad, input and weights."""

    grad: Any
    input: Any
    weights: Any
    window: Window
    slots: _Slots
    groups: int
    dtype: np.dtype

    def part(self, region: Where, output: tuple[int, ...]) -> _Products:
        """Return what is summed into a region, (batch…, rows, columns), of an output of a given shape."""
        lengths = (*output[2:-3], *output[-2:])
        *images, down, across = (
            slice(None) if n == 1 else part for part, n in zip(region, lengths, strict=True)
        )
        window = self.window.part(down, across)
        grad = self.grad[(*images, slice(None), down, across)]
        return replace(self, grad=grad, input=self.input[tuple(images)], window=window)

    def total(self, shape: tuple[int, ...], splits: int, room: int) -> Any:
        """Return the sum, (kh, kw, batch…, G, H, W); the last two of length 1 where pixels are summed."""
        total, number = None, accumulator_dtype(self.dtype)
        summed = [n if k == 1 else 1 for k, n in zip(shape[-2:], self.window.output_shape, strict=True)]
        elements = math.prod(shape[2:-3]) * math.prod(shape[-2:])
        for cell in blocks(tuple(summed), max(1, room // elements)):
            place = tuple(slice(None) if n == 1 else part for part, n in zip(cell, summed, strict=True))
            part = replace(self, grad=self.grad[(..., *place)], window=self.window.part(*place))
            sums = cupy.zeros((splits, *shape[:-2], *part.window.output_shape), number)
            part.add_to(sums, fresh=False)
            over = tuple(axis for axis, n in zip((-2, -1), summed, strict=True) if n > 1)
            values = sums.sum(axis=(0, *over), keepdims=True)[0] if splits > 1 or over else sums[0]
            total = values if total is None else total + values
        return total

    def add_to(self, sums: Any, *, fresh: bool) -> None:
        """Add to (splits, kh, kw, batch…, G, H, W), or assign it where `fresh`."""
        batch = self.grad.ndim - 3
        nothing = cupy.empty((1,) * (self.grad.ndim + 2), self.dtype)  # kernels are written, not read
        call = Piece(self.input, nothing, self.grad, self.window)
        parts = weights_parts(self.weights, self.groups, self.dtype, axis=1)
        shared, _ = shared_and_own(batch_axes(replace(call, kernels=sums[0]), batch), operand=1)
        at_once = self.grad.dtype == self.input.dtype == self.dtype and len(parts) == 1 and len(shared) < 2
        if fresh and not at_once:
            sums[...] = 0
        for first_output, part in parts:
            product = self.slots.product and replace(self.slots.product, channels=part.shape[1])
            matrix = matrix_of(part, self.dtype) if product is None else _packed_matrix(part, product)
            for where, piece in operand_pieces(call, self.dtype, batch=batch):
                place = sums[(..., *matching(sums, (*where[:batch], slice(None), *where[batch:])))]
                axes = batch_axes(replace(piece, kernels=place[0]), batch)
                each = len(sums) * self.slots.blocks(math.prod(piece.window.output_shape))
                shared, own = shared_and_own(axes, operand=1)
                for some in launches([own, shared], (max(1, MOST_BLOCKS // each), _MOST_PIXELS), operands=3):
                    weights = matrix, product, first_output
                    arguments = self._arguments(piece, place, weights, some, fresh and at_once)
                    self._kernel(product).launch(each * some.axes[0].length, arguments)

    def _kernel(self, product: Product | None) -> Kernel:
        name, tile = "modulated_modulation_gradient", self.slots.tile
        if product is None:
            return Kernel(name, expression(name, self.dtype, tile), tile, math.prod(tile) // _MICRO**2)
        return tensor_kernel(name, product, tile)

    def _arguments(
        self,
        piece: Piece,
        sums: Any,
        weights: tuple[Any, Product | None, int],
        batch: Batch,
        assign: bool,
    ) -> tuple[Any, ...]:
        window, slots = piece.window, self.slots
        matrix, product, first_output = weights
        kh, kw, groups, outputs, channels = matrix.shape
        (samples, own), (shared, common) = ((axis.length, axis.strides) for axis in batch.axes)
        rows, _, *row_steps = table_arguments(window.rows, window.rows.shorter_by_tap)
        columns, _, *column_steps = table_arguments(window.columns, window.columns.shorter_by_tap)
        x, y, g = (strides(array) for array in (piece.image, sums, piece.output))
        group, base = piece.output.shape[-3] // groups * g[-3], batch.bases[2] + first_output * g[-3]
        layout: tuple[Any, ...] = offsets(*strides(matrix))
        counts = [slots.channels, slots.lanes, channels, outputs]
        if product is not None:
            steps = (base, own[2], common[2], group if groups > 1 else 0, *g[-2:], g[-3])
            layout, outputs = sizes(product.padded), product.channels
            counts = [slots.channels, channels, outputs, in_runs(piece.output, steps, product.chunk)]
        return (
            *(piece.output, *offsets(base, own[2], common[2], group, *g[-3:])),
            *(piece.image, *offsets(batch.bases[0], own[0], common[0], *x[-3:])),
            *(matrix, *layout),
            *(sums, np.int32(not assign), *offsets(batch.bases[1], own[1], *y[:3], *y[-3:])),
            *(rows, *row_steps, columns, *column_steps),
            *sizes(kh, kw, *window.output_shape, samples, shared, len(sums), slots.families, slots.entries),
            *sizes(*counts),
            *(np.float64(window.cval.real), np.float64(window.cval.imag)),
        )


def _packed_matrix(part: Any, product: Product) -> Any:
    """Copy weights to (kh, kw, groups, padded outputs, channels), outputs side by side."""
    groups, outputs, channels, kh, kw = part.shape
    rows = part.transpose(3, 4, 0, 2, 1).reshape(-1, outputs, 1, 1)
    matrix = packed(rows, product).reshape(kh, kw, groups, channels, product.padded)
    return matrix.transpose(0, 1, 2, 4, 3)


def weights_parts(weights: Any, groups: int, dtype: np.dtype, *, axis: int) -> list[tuple[int, Any]]:
    """Cut weights along one axis of (groups, outputs, channels, kh, kw); small ones stay whole."""
    by_group = weights.reshape(groups, len(weights) // groups, *weights.shape[1:])
    length = by_group.shape[axis]
    run = max(1, min(length, _REPACKED * length // (weights.size * dtype.itemsize)))
    before = (slice(None),) * axis
    return [(first, by_group[(*before, slice(first, first + run))]) for first in range(0, length, run)]


def matrix_of(part: Any, dtype: np.dtype) -> Any:
    """Copy weights to (kh, kw, groups, outputs, channels), so that threads read channels side by side."""
    return part.transpose(3, 4, 0, 1, 2).astype(dtype, order="C")
