"""The gradient of the bilateral filter, for its image, its guide and both its σ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np

from cuvarconv._axis import NO_OUTPUT
from cuvarconv._blocks import Where, matching
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._gpu._bilateral_outputs import (
    FEWER_ROWS,
    FIELDS,
    ROWS,
    THREADS,
    GradientCall,
    Outputs,
    column_blocks,
    described,
    sum_taps,
)
from cuvarconv._gpu._geometry import (
    inverse_arguments,
    launches,
    offsets,
    sample_axes,
    sizes,
    table_arguments,
)
from cuvarconv._gpu._kept import on_device
from cuvarconv._gpu._launch import CPP_TYPES, MOST_BLOCKS, launch
from cuvarconv._gpu._pieces import Readers, largest_blocks, most_readers, store
from cuvarconv._gpu.bilateral import WIDTHS, matching_batch, real_dtype, truncation
from cuvarconv._window import Window

_CHANNELS = 4  # of a thread, the kernels' CHANNELS
_WORKSPACE = 32 << 20  # bytes of records, and of what is converted or summed with them
_MOST_ENTRIES = 1 << 20  # of an inverse table


def bilateral_gradient(
    grad: Any,
    input: Any,
    guide: Any,
    sigma_spatial: Any,
    sigma_range: Any,
    outputs: tuple[Any, Any, Any, Any],
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Write the gradients for (input, guide, sigma_spatial, sigma_range); None for what is not asked.

    `grad` is (batch…, C, H_out, W_out), the others are as for `bilateral`; along axes of length 1 gradients
    are summed.  Images of another dtype than the computing one are converted as a whole: they are rare.
    """
    for_input, for_guide, for_spatial, for_range = outputs
    batch = input.ndim - 3
    if for_guide is not None and for_guide.shape[:batch] != input.shape[:batch]:
        dtype = accumulator_dtype(dtype)  # a sum is stored before it is complete
    given, image = (array.astype(dtype, copy=False) for array in (grad, input))
    likeness = guide.astype(real_dtype(dtype), copy=False)
    call = GradientCall(given, image, likeness, sigma_spatial, sigma_range, window, truncation(truncate))
    if for_spatial is not None or for_range is not None:
        _fill_widths(call, for_spatial, for_range)
    if for_input is not None or for_guide is not None:
        _fill_images(call, for_input, for_guide)


def _fill_widths(call: GradientCall, *targets: Any) -> None:
    """Make one value per output, block by block, and add up what a σ stands for."""
    batch = len(call.batch)
    shape = (*call.batch, *call.window.output_shape)
    each = 2 * (WIDTHS.itemsize + call.weight.itemsize)
    totals = [target if target is None else _total(target, shape, call.weight) for target in targets]
    for where in largest_blocks(shape, lambda part: _size(part) * each <= _WORKSPACE):
        part, outputs = call.block(where[:batch]), Outputs.between(*where[batch:])
        made = [
            None if target is None else cupy.empty((*part.batch, *outputs.shape), call.weight)
            for target in targets
        ]
        sum_taps(part, outputs, None, *made)
        for target, total, values in zip(targets, totals, made, strict=True):
            if target is not None:
                _add(target, total, values, where)
    for target, total in zip(targets, totals, strict=True):
        if total is not None and total is not target:
            store(target, total)


def _total(target: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Return where sums are added up, cleared; None where there is nothing to sum."""
    if target.shape == shape:
        return None
    if target.dtype != dtype:
        return cupy.zeros(target.shape, dtype)
    target[...] = 0
    return target


def _add(target: Any, total: Any, values: Any, where: Where) -> None:
    place = matching(target, where)
    if total is None:
        store(target[place], values)
        return
    summed = tuple(axis for axis, n in enumerate(target.shape) if n == 1)
    total[place] += values.sum(axis=summed, keepdims=True, dtype=WIDTHS).astype(total.dtype)


def _size(where: Where) -> int:
    return math.prod(part.stop - part.start for part in where)


@dataclass(frozen=True)
class _Region:
    """A rectangle of pixels of a part of the batch, and the outputs that read them."""

    call: GradientCall
    rows: Readers
    columns: Readers

    @classmethod
    def of(cls, call: GradientCall, where: Where) -> _Region:
        """Return the pixels at `where`, (batch…, rows, columns)."""
        window = call.window
        rows, columns = (
            Readers(axis, part.start, part.stop, every=False)
            for axis, part in zip((window.rows, window.columns), where[-2:], strict=True)
        )
        return cls(call.block(where[:-2]), rows, columns)

    @property
    def shape(self) -> tuple[int, int]:
        """How many pixels there are."""
        return self.rows.last - self.rows.first, self.columns.last - self.columns.first

    def fits(self, foreign: int) -> bool:
        """Whether the workspace has room for this region, of which each pixel takes `foreign` bytes too."""
        call = self.call
        axes = (self.rows, self.columns)
        if max(part.entries() for part in axes) > _MOST_ENTRIES:
            return False
        outputs = math.prod(most_readers(part.axis, part.last - part.first) for part in axes)
        each = FIELDS * call.weight.itemsize + 2 * WIDTHS.itemsize
        if "wrap" in (call.window.rows.mode, call.window.columns.mode):  # outputs from both ends are copied
            each += 2 * call.image.shape[-3] * call.image.dtype.itemsize
            each += call.guide.shape[-3] * call.guide.dtype.itemsize
        return math.prod(call.batch) * (outputs * each + math.prod(self.shape) * foreign) <= _WORKSPACE


def _fill_images(call: GradientCall, for_input: Any, for_guide: Any) -> None:
    """Gather both gradients region by region; what a guide is shared by is added up."""
    summed = None
    if for_guide is not None:
        shape = (*call.batch, *for_guide.shape[-3:])
        summed = _total(for_guide, shape, call.guide.dtype)
    foreign = sum(
        array.shape[-3] * working.dtype.itemsize
        for array, working in ((for_input, call.image), (for_guide, call.guide))
        if array is not None and array.dtype != working.dtype
    )
    pixels = (*call.batch, *call.image.shape[-2:])
    for where in largest_blocks(pixels, lambda part: _Region.of(call, part).fits(foreign)):
        region = _Region.of(call, where)
        y = None if for_input is None else _pixels(for_input, where)
        z = None if for_guide is None else _pixels(for_guide if summed is None else summed, where)
        image, guide = _native(y, call.image.dtype), _native(z, call.guide.dtype)
        _gather(region, image, guide, add_up=summed is not None)
        for target, values in ((y, image), (z, guide)):
            if values is not target:
                store(target, values)
    if summed is not None and summed is not for_guide:
        store(for_guide, summed)


def _pixels(array: Any, where: Where) -> Any:
    """Return an image's pixels at `where`, (batch…, rows, columns), channels whole."""
    return array[(*matching_batch(array, where[:-2]), slice(None), *where[-2:])]


def _native(target: Any, dtype: np.dtype) -> Any:
    """Return what a kernel may write: the target if it is of this dtype."""
    if target is None or target.dtype == dtype:
        return target
    return cupy.empty(target.shape, dtype)


def _gather(region: _Region, for_input: Any, for_guide: Any, *, add_up: bool) -> None:
    """Make the records of all outputs that read the region's pixels, and gather from them."""
    call = region.call
    window, dtype = call.window, call.image.dtype
    outputs = Outputs.reading(region.rows, region.columns)
    records = cupy.empty((*call.batch, FIELDS, math.prod(outputs.shape)), call.weight)
    sum_taps(call, outputs, records, None, None, means=for_guide is not None)
    read = (outputs.of(call.grad, dtype), outputs.centres(call.guide, window), records, call.guide)
    if for_input is not None:
        _launch_gather("bilateral_input_gradient", region, outputs, (*read, for_input), add_up=False)
    if for_guide is not None:
        arrays = (*read, for_guide, call.image, outputs.centres(call.image, window))
        _launch_gather("bilateral_guide_gradient", region, outputs, arrays, add_up=add_up)


def _launch_gather(
    kernel: str, region: _Region, outputs: Outputs, arrays: tuple[Any, ...], *, add_up: bool
) -> None:
    """Launch over the batch; `arrays` are in the kernel's order, the records third and the result fifth."""
    call, batch = region.call, len(region.call.batch)
    window, dtype = call.window, call.image.dtype
    name = f"{kernel}<{CPP_TYPES[dtype.name]}>"
    rows = ROWS if len(arrays) == 5 else FEWER_ROWS
    blocks = column_blocks(*region.shape, dtype, rows) * -(-arrays[4].shape[-3] // _CHANNELS)
    for length, steps in _samples(call.batch, arrays, arrays[4] if add_up else call.image, blocks):
        arguments = described(arrays[:2], steps, batch)
        arguments += [arrays[2], *offsets(*steps[2]), np.int32(call.uniform()), *sizes(*outputs.shape)]
        arguments += described(arrays[3:5], steps[3:], batch)
        for readers in (region.rows, region.columns):
            folded, around = on_device(_around, readers)
            arguments += [*sizes(readers.axis.taps // 2, *around), folded, *inverse_arguments(readers)]
        arguments += sizes(region.rows.first, region.columns.first)
        arguments += sizes(call.image.shape[-3], call.guide.shape[-3])
        if len(arrays) > 5:
            arguments += described(arrays[5:], steps[5:], batch)
            for readers in (region.rows, region.columns):
                arguments += [table_arguments(readers.axis, False)[0]]
                arguments += sizes(readers.first - readers.axis.start)
            arguments += [np.int32(add_up), np.float64(window.cval.real), np.float64(window.cval.imag)]
        launch("bilateral_gradient", name, blocks * length, THREADS, arguments, shared=0)


def _around(readers: Readers) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Find the outputs centred around pixels: pixel h at the centre of output h + shift, first … last − 1.

    The array says of which pixels there are other readers, across a boundary.
    """
    axis, table = readers.axis, readers.table()
    radius = axis.taps // 2
    centre = -radius - axis.start  # the output centred at pixel 0
    low = max(0, readers.first + centre - radius)
    high = max(low, min(axis.length, readers.last + centre + radius))
    first = int(np.searchsorted(table.outputs, low))
    last, shift = first + high - low, readers.first + centre - low + first
    entries = table.entries[: readers.entries()].reshape(axis.taps, -1)
    direct = np.arange(table.pixels) + shift + radius - np.arange(axis.taps)[:, None]
    expected = np.where((direct >= first) & (direct < last), direct, NO_OUTPUT)
    return (entries != expected).any(axis=0).astype(np.int32), (shift, first, last)


def _samples(
    lengths: tuple[int, ...], arrays: tuple[Any, ...], result: Any, blocks: int
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield how many samples a launch takes, and the base and the step of each array.

    What is added up in a `result` comes sample by sample, in the order of the axes.
    """
    summed = [n > 1 == length for n, length in zip(lengths, result.shape, strict=False)]
    own = tuple(1 if flag else n for n, flag in zip(lengths, summed, strict=True))
    alone = [
        sample_axes(tuple(n if axis == at else 1 for axis, n in enumerate(lengths)), arrays)
        for at, flag in enumerate(summed)
        if flag
    ]
    most = (max(1, MOST_BLOCKS // blocks), *[1] * len(alone))
    for part in launches([sample_axes(own, arrays), *alone], most, operands=len(arrays)):
        steps = list(zip(part.bases, part.axes[0].strides, strict=True))
        yield part.axes[0].length, steps
