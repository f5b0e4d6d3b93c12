"""Reading scipy-style arguments: ints or pairs of them, modes, axes, numbers."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

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


def mode_pair(mode: Any) -> tuple[str, str]:
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
    plain = type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int
    if plain and minimum is None:
        return value
    try:
        if isinstance(value, str | bytes | dict | set | frozenset):
            raise TypeError
        many = isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0
        # `index` would make a number of what is a symbol to torch.compile
        pair = tuple(
            item if type(item) is int else operator.index(item)
            for item in (value if many else (value, value))
        )
    except TypeError:
        raise TypeError(f"{name}: expected an int or a pair of ints, got {value!r}") from None
    if len(pair) != 2:
        raise ValueError(f"{name}: expected an int or a pair of ints, got {len(pair)} of them")
    if minimum is not None and min(pair) < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value!r}")
    return pair[0], pair[1]


def number(name: str, value: Any) -> complex:
    """Read a number of any library as Python's: what `float` or `complex` takes, except text."""
    if type(value) is float:
        return value
    try:
        if isinstance(value, str | bytes) or is_lazy(value) or np.ndim(value):
            raise TypeError
        read = complex(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    return read if np.iscomplexobj(value) else read.real


def image_axes(axes: Any, ndim: int) -> tuple[int, int]:
    """Normalise `axes`, the two image axes of an array with `ndim` axes."""
    if isinstance(axes, int):
        raise ValueError(f"axes: expected a pair of ints (rows, columns), got {axes!r}")
    many = type(axes) is tuple or isinstance(axes, Iterable)
    rows, columns = int_pair("axes", axes if many else (axes,))
    for axis in (rows, columns):
        if not -ndim <= axis < ndim:
            raise ValueError(f"axes: {axis} is out of range for an input with {ndim} axes")
    rows, columns = rows % ndim, columns % ndim
    if rows == columns:
        raise ValueError(f"axes: expected two different axes, got {axes!r}")
    return rows, columns


def is_lazy(array: Any) -> bool:
    """Whether it is a dask array, whose values are not known before they are computed."""
    if type(array) is np.ndarray:
        return False
    library = getattr(sys.modules.get("dask"), "array", None)
    return isinstance(array, getattr(library, "Array", ()))
