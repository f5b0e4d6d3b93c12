"""The window: which pixel each tap of each output reads.  Arguments in, one frozen record out."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

CVAL = -1  # the entry of an index table that stands for "outside: cval"
NO_OUTPUT = -1  # the entry of an inverse table for a pixel that no output reads

_MODES = {
    "reflect": "reflect",
    "grid-mirror": "reflect",
    "mirror": "mirror",
    "nearest": "nearest",
    "wrap": "wrap",
    "grid-wrap": "wrap",
    "constant": "constant",
    "grid-constant": "constant",
    "valid": "valid",
}

_CACHED_ENTRIES = 1 << 14  # longer index tables are made anew, so that the cache stays below 16 MiB


@dataclass(frozen=True)
class IndexTable:
    """Source pixels along one axis; tap m of output i reads ``sources[i*stride + m*dilation]``.

    ``sources[first:last]`` is one run of neighbouring pixels inside the image, the part that
    a slice can copy; it is empty where the table lists taps one after the other.
    """

    sources: np.ndarray
    stride: int
    dilation: int
    first: int
    last: int
    outside: bool  # whether any entry is CVAL


@dataclass(frozen=True)
class InverseTable:
    """Which outputs read a pixel through a tap: the index table the other way round.

    ``entries[m*pixels + h]`` is the one output that reads pixel `h` through tap `m`, `NO_OUTPUT`, or,
    where a boundary mode makes several outputs read it, ``-2 - at``: then ``entries[at]`` says how many,
    and they follow.  Outputs are counted along `outputs`, those that read any of the pixels.
    """

    entries: np.ndarray
    pixels: int
    outputs: np.ndarray


@dataclass(frozen=True)
class Axis:
    """The window along one image axis: tap m of output i reads ``i*stride + m*dilation + start``."""

    taps: int
    stride: int
    dilation: int
    start: int
    size: int
    length: int
    mode: str

    @property
    def span(self) -> int:
        """Number of positions from the first to the last one read."""
        return (self.length - 1) * self.stride + (self.taps - 1) * self.dilation + 1

    @property
    def shorter_by_tap(self) -> bool:
        """Whether one row of outputs per tap is a shorter list than all positions."""
        return self.taps * self.length < self.span

    @property
    def entries(self) -> int:
        """Length of the index table."""
        return min(self.taps * self.length, self.span)

    def part(self, outputs: slice, taps: slice = slice(None)) -> Axis:
        """Return the window of some neighbouring outputs, or of some neighbouring taps."""
        first, last, _ = outputs.indices(self.length)
        tap, end, _ = taps.indices(self.taps)
        if (first, last, tap, end) == (0, self.length, 0, self.taps):
            return self
        return replace(
            self,
            start=self.start + first * self.stride + tap * self.dilation,
            length=last - first,
            taps=end - tap,
        )

    def gathered(self) -> Axis:
        """Return the window over an image that holds the entries of `table`, in their order."""
        table = self.table()
        return replace(
            self,
            stride=table.stride,
            dilation=table.dilation,
            start=0,
            size=len(table.sources),
            mode="valid",
        )

    def table(self, *, by_tap: bool | None = None) -> IndexTable:
        """Look up every source once, here, so that no backend needs to know the mode.

        One entry per position, or, where that is longer (dilated windows wider than the image,
        strides beyond the window) or where `by_tap` asks for it, one row of outputs per tap.
        """
        if by_tap is None:
            by_tap = self.shorter_by_tap
        entries = self.taps * self.length if by_tap else self.span
        make = _cached_table if entries <= _CACHED_ENTRIES else _make_table
        return make(self, by_tap)

    @property
    def steps(self) -> tuple[int, int]:
        """The table's stride and dilation: tap m of output i reads entry i·stride + m·dilation."""
        return (1, self.length) if self.shorter_by_tap else (self.stride, self.dilation)

    def entries_of(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the table's entries that stand for the pixels first … last−1, and these pixels.

        Of a long table only the part is made that has them, and what lies outside the image.
        """
        if self.shorter_by_tap:
            taps = (self.start + tap * self.dilation for tap in range(self.taps))
            lines = [(place, self.stride, self.length) for place in taps]
        else:
            lines = [(self.start, 1, self.span)]
        found, sources = [], []
        for number, (place, step, count) in enumerate(lines):
            entries = _candidates(place, step, count, self.size, first, last)
            pixels = _sources(entries * step + place, self)
            inside = (pixels >= first) & (pixels < last)
            found.append(entries[inside] + number * count)
            sources.append(pixels[inside])
        return np.concatenate(found), np.concatenate(sources)

    def inverse(self, pixels: slice = slice(None), *, every: bool = True) -> InverseTable:
        """Look up the outputs that read some neighbouring pixels, for what gathers the adjoint.

        Outputs keep their numbers if `every` one is counted, whether it reads these pixels or not.
        """
        first, last, _ = pixels.indices(self.size)
        small = self.taps * (last - first) <= _CACHED_ENTRIES
        return (_cached_inverse if small else _make_inverse)(self, first, last, every)


def _make_table(axis: Axis, by_tap: bool) -> IndexTable:
    if by_tap:
        taps = np.arange(axis.taps, dtype=np.int64)[:, None] * axis.dilation
        outputs = np.arange(axis.length, dtype=np.int64) * axis.stride
        positions = (taps + outputs).ravel() + axis.start
        stride, dilation, first, last = 1, axis.length, 0, 0
    else:
        positions = np.arange(axis.start, axis.start + axis.span, dtype=np.int64)
        stride, dilation = axis.stride, axis.dilation
        first = min(max(0, -axis.start), axis.span)
        last = max(first, min(axis.span, axis.size - axis.start))
    sources = _sources(positions, axis)
    sources.flags.writeable = False
    return IndexTable(sources, stride, dilation, first, last, bool((sources == CVAL).any()))


_cached_table = functools.lru_cache(maxsize=128)(_make_table)


def _candidates(place: int, step: int, count: int, size: int, first: int, last: int) -> np.ndarray:
    """Return the k in 0 … count−1 with k·step + place in first … last−1, or outside of 0 … size−1."""
    before, begin, end, after = (
        min(max(0, -((place - position) // step)), count) for position in (0, first, last, size)
    )
    return np.concatenate([np.arange(before), np.arange(begin, end), np.arange(after, count)])


def _make_inverse(axis: Axis, first: int, last: int, every: bool) -> InverseTable:
    stride, dilation = axis.steps
    read, sources = axis.entries_of(first, last)
    steps = read - np.arange(axis.taps)[:, None] * dilation
    reached, rest = np.divmod(steps, stride)
    taps, at = np.nonzero((rest == 0) & (reached >= 0) & (reached < axis.length))
    reached, pixels = reached[taps, at], last - first
    outputs = np.arange(axis.length) if every else np.unique(reached)
    if not every:
        reached = np.searchsorted(outputs, reached)
    slots = taps * pixels + sources[at] - first
    return InverseTable(_listed(slots, reached, axis.taps * pixels), pixels, outputs)


def _listed(slots: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Put the values of each slot in its place, or in a list behind all slots if there are several."""
    order = np.argsort(slots, kind="stable")
    slots, values = slots[order], values[order]
    counts = np.bincount(slots, minlength=count)
    starts = np.cumsum(counts) - counts
    several = np.flatnonzero(counts > 1)
    lengths = counts[several] + 1
    lists = np.full(count, count)
    lists[several] += np.cumsum(lengths) - lengths
    entries = np.full(count + lengths.sum(), NO_OUTPUT, np.int64)
    entries[several] = -2 - lists[several]
    entries[lists[several]] = counts[several]
    ranks = np.arange(len(slots)) - starts[slots]
    alone = counts[slots] == 1
    entries[np.where(alone, slots, lists[slots] + 1 + ranks)] = values
    entries.flags.writeable = False
    return entries


_cached_inverse = functools.lru_cache(maxsize=128)(_make_inverse)


def _sources(positions: np.ndarray, axis: Axis) -> np.ndarray:
    size = axis.size
    if axis.mode in ("constant", "valid"):
        return np.where((positions >= 0) & (positions < size), positions, CVAL)
    if axis.mode == "nearest":
        return np.clip(positions, 0, size - 1)
    if axis.mode == "wrap":
        return positions % size
    if axis.mode == "reflect":
        folded = positions % (2 * size)
        return np.minimum(folded, 2 * size - 1 - folded)
    period = max(1, 2 * size - 2)  # mirror: the edge pixel is not repeated
    folded = positions % period
    return np.minimum(folded, period - folded)


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
        return Window(self.rows.part(down), self.columns.part(across), self.cval)

    def taps(self, rows: slice, columns: slice) -> Window:
        """Return the window cut down to some neighbouring taps."""
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
    modes = _mode_pair(mode)
    origins = int_pair("origin", origin)
    strides = int_pair("stride", stride, minimum=1)
    dilations = int_pair("dilation", dilation, minimum=1)
    rows, columns = (
        _make_axis(*arguments, flip=flip)
        for arguments in zip(("row", "column"), size, image, modes, origins, strides, dilations, strict=True)
    )
    return Window(rows, columns, _number("cval", cval))


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


def adjoint_image(
    size: tuple[int, int], outputs: tuple[int, int], shape: Any, *, mode: Any, stride: Any, dilation: Any
) -> tuple[int, int]:
    """Return the image of which a window reads as many `outputs`; check it if `shape` names one."""
    strides = int_pair("stride", stride, minimum=1)
    dilations = int_pair("dilation", dilation, minimum=1)
    smallest = []
    for length, taps, name, step, spacing in zip(
        outputs, size, _mode_pair(mode), strides, dilations, strict=True
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


def _mode_pair(mode: Any) -> tuple[str, str]:
    pair = (mode, mode) if isinstance(mode, str) else mode
    if not isinstance(pair, tuple | list) or not all(isinstance(name, str) for name in pair):
        raise TypeError(f"mode: expected a name or a pair of names (rows, columns), got {mode!r}")
    if len(pair) != 2:
        raise ValueError(f"mode: expected one name or two (rows, columns), got {len(pair)}")
    for name in pair:
        if name not in _MODES:
            raise ValueError(f"mode: expected one of {', '.join(_MODES)}, got {name!r}")
    return _MODES[pair[0]], _MODES[pair[1]]


def int_pair(name: str, value: Any, minimum: int | None = None) -> tuple[int, int]:
    """Read an int or a pair of ints (rows, columns)."""
    if type(value) is int and (minimum is None or value >= minimum):
        return value, value
    try:
        if isinstance(value, str | bytes | dict | set | frozenset):
            raise TypeError
        many = isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0
        pair = tuple(operator.index(item) for item in (value if many else (value, value)))
    except TypeError:
        raise TypeError(f"{name}: expected an int or a pair of ints, got {value!r}") from None
    if len(pair) != 2:
        raise ValueError(f"{name}: expected an int or a pair of ints, got {len(pair)} of them")
    if minimum is not None and min(pair) < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value!r}")
    return pair[0], pair[1]


def _number(name: str, value: Any) -> complex:
    """Read a number of any library as Python's: what `float` or `complex` takes, except text."""
    if type(value) is float:
        return value
    try:
        if isinstance(value, str | bytes) or np.ndim(value):
            raise TypeError
        number = complex(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    return number if np.iscomplexobj(value) else number.real


def image_axes(axes: Any, ndim: int) -> tuple[int, int]:
    """Normalise `axes`, the two image axes of an array with `ndim` axes."""
    if isinstance(axes, int):
        raise ValueError(f"axes: expected a pair of ints (rows, columns), got {axes!r}")
    rows, columns = int_pair("axes", axes if isinstance(axes, Iterable) else (axes,))
    for axis in (rows, columns):
        if not -ndim <= axis < ndim:
            raise ValueError(f"axes: {axis} is out of range for an input with {ndim} axes")
    if rows % ndim == columns % ndim:
        raise ValueError(f"axes: expected two different axes, got {axes!r}")
    return rows % ndim, columns % ndim
