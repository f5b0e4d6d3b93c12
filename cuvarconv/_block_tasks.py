"""What the tasks of a dask graph do; they run where the blocks are, and know nothing of dask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._backend import Call, home_of
from cuvarconv._cpu import set_workers
from cuvarconv._heap import recycled_memory
from cuvarconv._window import Window


@dataclass(frozen=True)
class Ones:
    """An array of ones, as large as the outputs, of which each task makes its part."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass(frozen=True)
class Place:
    """One block of outputs: the window over its pixels, in rows and columns of pieces; shapes."""

    window: Window
    rows: tuple[tuple[slice, int], ...]  # where the pieces stand, and their numbers among parts cut together
    columns: tuple[tuple[slice, int], ...]
    outputs: tuple[int, ...]  # (batch…, H_out, W_out)
    results: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Step:
    """Call a primitive on one block.  Patterns have numbers of blocks in the place of arrays."""

    primitive: str | Callable[..., None]
    operands: tuple[Any, ...]
    results: Any
    dtypes: tuple[np.dtype, ...]
    keywords: dict[str, Any]

    def __call__(self, place: Place, *blocks: Any) -> Any:
        """Put images together, compute on one host thread; return an array, or a tuple of them."""
        homes = [home_of(_leaf(block)) for block in blocks if not isinstance(block, Ones)]
        home = next((home for home in homes if home.device is not None), homes[0])
        backend, call = home.backend, Call(home, (), None, None)
        with home.entered(), set_workers(1):
            made = [
                backend.empty(shape, dtype) for shape, dtype in zip(place.results, self.dtypes, strict=True)
            ]
            with recycled_memory():
                self._compute(call, place, blocks, made)
        return made[0] if len(made) == 1 else tuple(made)

    def _compute(self, call: Call, place: Place, blocks: tuple[Any, ...], made: list[Any]) -> None:
        arrays = [_whole(call, place, block) for block in blocks]
        operands = (_filled(pattern, arrays) for pattern in self.operands)
        target = _filled(self.results, made)
        if isinstance(self.primitive, str):
            getattr(call.home.backend, self.primitive)(*operands, target, place.window, **self.keywords)
        else:
            self.primitive(call, *operands, target, place.window, **self.keywords)


def _leaf(block: Any) -> Any:
    while isinstance(block, list):
        block = block[0]
    return block


def _filled(pattern: Any, arrays: list[Any]) -> Any:
    if isinstance(pattern, tuple):
        return tuple(_filled(item, arrays) for item in pattern)
    return None if pattern is None else arrays[pattern]


def _whole(call: Call, place: Place, block: Any) -> Any:
    """Return the block itself, or an image from its pieces, which a list of lists holds."""
    if isinstance(block, Ones):
        return call.home.backend.ones(place.outputs, block.dtype)
    if not isinstance(block, list):
        return call.upload(block)  # numbers and lists came as NumPy's
    pieces = [
        [_picked(piece, (down, across)) for piece, (_, across) in zip(line, place.columns, strict=True)]
        for line, (_, down) in zip(block, place.rows, strict=True)
    ]
    first = pieces[0][0]
    shape = (*first.shape[:-2], *place.window.image_shape)
    if first.shape == shape:
        return first
    image = call.fresh(shape, first.dtype)
    for (rows, _), line in zip(place.rows, pieces, strict=True):
        for (columns, _), piece in zip(place.columns, line, strict=True):
            image[..., rows, columns] = piece
    return image


def cut(block: Any, rows: slice, columns: slice) -> Any:
    """Return a part of a block; a small part is copied, so that it does not keep the block alive."""
    part = block[..., rows, columns]
    return part.copy() if 2 * part.size < block.size else part


@dataclass(frozen=True)
class Edges:
    """Cut small parts of a block, which travel together, because each key costs the scheduler time."""

    rows: tuple[slice, ...]
    columns: tuple[slice, ...]
    left_out: tuple[int, int]  # the numbers of the largest, empty here

    def __call__(self, block: Any) -> list[list[Any]]:
        """Return copies, which do not keep the block alive."""
        return [
            [
                (block[..., :0, :0] if (a, b) == self.left_out else block[..., down, across]).copy()
                for b, across in enumerate(self.columns)
            ]
            for a, down in enumerate(self.rows)
        ]


def _picked(piece: Any, at: tuple[int, int]) -> Any:
    return piece[at[0]][at[1]] if isinstance(piece, list) else piece


@dataclass(frozen=True)
class Sum:
    """Add up parts of arrays, each at its own place in the last two axes, and store the sum in a dtype.

    A part is the whole array, one of `Edges`, or what slices say; one that is longer than its place is
    summed along that axis.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: tuple[Any, ...]
    places: tuple[tuple[slice, slice], ...]

    def __call__(self, arrays: list[Any]) -> Any:
        """Add in the order given."""
        pieces = [
            _picked(array, part) if isinstance(array, list) else array[(..., *part)]
            for array, part in zip(arrays, self.parts, strict=True)
        ]
        home = home_of(pieces[0])
        with home.entered():
            total = home.backend.empty(self.shape, pieces[0].dtype)
            total[...] = 0
            for piece, place in zip(pieces, self.places, strict=True):
                part = total[(..., *place)]
                for axis in (-2, -1):
                    if piece.shape[axis] != part.shape[axis]:
                        piece = piece.sum(axis=axis, keepdims=True)
                part += piece
            return stored(total, self.dtype)


def add_up(arrays: list[Any], dtype: np.dtype | None) -> Any:
    """Add arrays of one shape, in the order given, and store the sum in a dtype, if one is given."""
    with home_of(arrays[0]).entered():
        total = arrays[0].copy()
        for array in arrays[1:]:
            total += array
        return total if dtype is None else stored(total, dtype)


def stored(values: Any, dtype: np.dtype) -> Any:
    """Convert as primitives store: integers truncate through int64, bool is ≠ 0."""
    if dtype.kind == "b":
        return values != 0
    with np.errstate(all="ignore"):
        if dtype.kind in "iu":
            values = values.astype(np.int64)
        return values.astype(dtype, copy=False)


def joined_complex(real: Any, imaginary: Any) -> Any:
    """Return a complex array from its parts, without a product that would turn infinities to NaN."""
    dtype = np.result_type(real.dtype, np.complex64)
    with home_of(real).entered():
        joined = home_of(real).backend.empty(real.shape, dtype)
        joined.real[...], joined.imag[...] = real, imaginary
        return joined
