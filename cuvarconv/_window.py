"""The window: which pixel each tap of each output reads.  Arguments in, one frozen record out."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

from cuvarconv._arguments import int_pair, mode_pair, number
from cuvarconv._axis import Axis


@dataclass(frozen=True)
class Window:
    """Both axes of the window, and the value that stands outside the image under ``constant``."""

    rows: Axis
    columns: Axis
    cval: complex

    @property
    def output_shape(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.rows.length, self.columns.length

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.rows.size, self.columns.size

    def part(self, down: slice, across: slice) -> Window:
        """Return the window of a rectangle of outputs."""
        if (down.start, down.stop, across.start, across.stop) == (
            0,
            self.rows.length,
            0,
            self.columns.length,
        ):
            return self
        return Window(self.rows.part(down), self.columns.part(across), self.cval)

    def taps(self, rows: slice, columns: slice) -> Window:
        """Return the window cut down to some neighbouring taps."""
        if (rows.start, rows.stop, columns.start, columns.stop) == (0, self.rows.taps, 0, self.columns.taps):
            return self
        every = slice(None)
        return Window(self.rows.part(every, rows), self.columns.part(every, columns), self.cval)


def make_window(
    size: tuple[int, int],
    image: tuple[int, int],
    *,
    mode: Any,
    cval: Any,
    origin: Any,
    stride: Any,
    dilation: Any,
    flip: bool = False,
) -> Window:
    """Fill the record from scipy-style arguments; `flip` moves the origin as convolution does."""
    plain = type(mode) is str and type(origin) is type(stride) is type(dilation) is int
    rows, columns = (_cached_axes if plain else _make_axes)(
        size, image, mode, origin, stride, dilation, flip=flip
    )
    return Window(rows, columns, number("cval", cval))


def _make_axes(
    size: tuple[int, int],
    image: tuple[int, int],
    mode: Any,
    origin: Any,
    stride: Any,
    dilation: Any,
    *,
    flip: bool,
) -> tuple[Axis, Axis]:
    modes = mode_pair(mode)
    origins = int_pair("origin", origin)
    strides = int_pair("stride", stride, minimum=1)
    dilations = int_pair("dilation", dilation, minimum=1)
    rows, columns = (
        _make_axis(*arguments, flip=flip)
        for arguments in zip(("row", "column"), size, image, modes, origins, strides, dilations, strict=True)
    )
    return rows, columns


_cached_axes = functools.lru_cache(maxsize=512)(_make_axes)


@functools.lru_cache(maxsize=512)
def padded_window(
    size: tuple[int, int],
    image: tuple[int, int],
    *,
    modes: tuple[str, str],
    padding: tuple[tuple[int, int], tuple[int, int]],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Window:
    """Fill the record from padding before and after each axis, as neural networks count it."""
    rows, columns = (
        _axis(*arguments) for arguments in zip(size, image, modes, padding, stride, dilation, strict=True)
    )
    return Window(rows, columns, 0.0)


def padded_length(size: int, taps: int, padding: tuple[int, int], stride: int, dilation: int) -> int:
    """Return how many windows fit in a padded axis, one after the other."""
    return (size + sum(padding) - (taps - 1) * dilation - 1) // stride + 1


def _axis(taps: int, size: int, mode: str, padding: tuple[int, int], stride: int, dilation: int) -> Axis:
    length = padded_length(size, taps, padding, stride, dilation)
    return _normalised(Axis(taps, stride, dilation, -padding[0], size, length, mode))


@functools.lru_cache(maxsize=512)
def _make_axis(
    name: str,
    taps: int,
    size: int,
    mode: str,
    origin: int,
    stride: int,
    dilation: int,
    *,
    flip: bool,
) -> Axis:
    if mode == "valid":
        start = 0
        length = (size - (taps - 1) * dilation - 1) // stride + 1
        if origin:
            raise ValueError(f'origin: expected 0 with mode "valid", got {origin} ({name} axis)')
        if length < 1:
            raise ValueError(
                f'mode: "valid" needs a window that fits in the image, got {taps} taps with dilation '
                f"{dilation} on {size} pixels ({name} axis)"
            )
    else:
        lowest, highest = -(taps // 2), (taps - 1) // 2
        if not lowest <= origin <= highest:
            raise ValueError(
                f"origin: expected {lowest} … {highest} for {taps} taps ({name} axis), got {origin}"
            )
        if flip:
            origin = -origin - (taps % 2 == 0)
        start = -(taps // 2 + origin) * dilation
        length = -(-size // stride)
    axis = _normalised(Axis(taps, stride, dilation, start, size, length, mode))
    if abs(start) + max(axis.span, 0) + size >= 1 << 61:
        argument = "dilation" if (taps - 1) * dilation >= 1 << 60 else "stride"
        raise ValueError(
            f"{argument}: {taps} taps with stride {stride} and dilation {dilation} reach past 64-bit "
            f"indices ({name} axis)"
        )
    return axis


def _normalised(axis: Axis) -> Axis:
    """Set steps that are never taken to 1."""
    return replace(
        axis,
        stride=1 if axis.length == 1 else axis.stride,
        dilation=1 if axis.taps == 1 else axis.dilation,
    )


def adjoint_window(
    size: tuple[int, int],
    outputs: tuple[int, int],
    shape: Any,
    *,
    mode: Any,
    origin: Any,
    stride: Any,
    dilation: Any,
) -> Window:
    """Fill the record for the adjoint, from its operand's height and width; `shape` may name its result's."""
    image = _adjoint_image(size, outputs, shape, mode=mode, stride=stride, dilation=dilation)
    return make_window(size, image, mode=mode, cval=0.0, origin=origin, stride=stride, dilation=dilation)


def _adjoint_image(
    size: tuple[int, int], outputs: tuple[int, int], shape: Any, *, mode: Any, stride: Any, dilation: Any
) -> tuple[int, int]:
    """Return the image of which a window reads as many `outputs`; check it if `shape` names one."""
    strides = int_pair("stride", stride, minimum=1)
    dilations = int_pair("dilation", dilation, minimum=1)
    smallest = []
    for length, taps, name, step, spacing in zip(
        outputs, size, mode_pair(mode), strides, dilations, strict=True
    ):
        extent = (taps - 1) * spacing if name == "valid" else 0
        smallest.append((length - 1) * step + 1 + extent if length else 0)
    if shape is None:
        return smallest[0], smallest[1]
    rows, columns = given = int_pair("shape", shape, minimum=0)
    for axis, pixels in enumerate(given):
        low = smallest[axis]
        high = low + strides[axis] - 1 if outputs[axis] else 0
        if not low <= pixels <= high:
            raise ValueError(
                f"shape: expected {low}{f' … {high}' if high > low else ''} along axis {axis}, "
                f"as outputs {outputs} come from it, got {given}"
            )
    return rows, columns
