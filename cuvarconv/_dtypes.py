"""Which dtypes are computed in, and which come out."""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any

import numpy as np

_INEXACT = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
_COMMON = frozenset(map(np.dtype, "?bBhHiIlLqQefdFD"))  # known without asking for the name


def check_operand(name: str, dtype: np.dtype) -> None:
    """Refuse dtypes that no backend computes with."""
    if dtype not in _COMMON and dtype.kind not in "biu" and dtype.name not in _INEXACT:
        raise TypeError(
            f"{name}: dtype {dtype} is not supported; expected integers, bool or one of "
            + ", ".join(_INEXACT)
        )


def is_exact(dtype: np.dtype) -> bool:
    """Whether the dtype holds integers or booleans."""
    return dtype.kind in "biu"


@functools.lru_cache(maxsize=512)
def computing_dtype(operands: tuple[np.dtype, ...], output: np.dtype) -> np.dtype:
    """Return the dtype that operands are converted to before they are multiplied.

    ``numpy.result_type`` of the operands.  Where that or the output is an integer it is float64,
    so that the truncation of an integer result sees the same value as scipy's; where it is a half
    precision that the output is not, float32, so that the sum is not rounded on its way.
    """
    dtype = _common(operands)
    if is_exact(dtype) or is_exact(output):
        return np.dtype(np.float64)
    return np.dtype(np.float32) if dtype.itemsize == 2 and output != dtype else _native(dtype)


def accumulator_dtype(computing: np.dtype) -> np.dtype:
    """Half precision is summed in float32, everything else in itself."""
    return np.dtype(np.float32) if computing.itemsize == 2 else computing


def product_dtype(operands: tuple[np.dtype, ...]) -> np.dtype:
    """Return the default output of functions without a scipy namesake."""
    dtype = _common(operands)
    return np.dtype(np.float64) if is_exact(dtype) else _native(dtype)


@functools.lru_cache(maxsize=512)
def filter_dtype(input: np.dtype, weights: np.dtype) -> np.dtype:
    """Return scipy.ndimage's default output: the input's dtype, complex if either operand is."""
    if "c" in (input.kind, weights.kind):
        return _complex(input)
    return _native(input)


def requested_dtype(output: Any, operands: tuple[np.dtype, ...]) -> np.dtype:
    """Read ``output=`` given as a dtype; real ones become complex (with scipy's warning)."""
    try:
        dtype = np.dtype(output)
    except TypeError:
        raise TypeError(f"output: expected an array, a dtype or None, got {output!r}") from None
    check_operand("output", dtype)
    named = isinstance(output, str)
    if named and dtype.kind == "b":
        raise TypeError(f"output: expected the name of a numeric dtype, got {output!r}")
    if named or dtype.kind == "c" or not any(operand.kind == "c" for operand in operands):
        check_output(dtype, operands)
        return dtype
    warnings.warn(f"output: promoting {dtype} to complex", stacklevel=_caller())
    return _complex(dtype)


def check_output(dtype: np.dtype, operands: tuple[np.dtype, ...]) -> None:
    """Refuse, as scipy does, real results of complex operands and complex ones of real operands."""
    kind = "complex" if any(operand.kind == "c" for operand in operands) else "real"
    if (dtype.kind == "c") != (kind == "complex"):
        raise TypeError(f"output: expected a {kind} dtype for {kind} operands, got {dtype}")


def _caller() -> int:
    """Return the `stacklevel`, for a warning of the calling function, of the code that uses us."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] == "cuvarconv":
        level, frame = level + 1, frame.f_back
    return level


def _common(operands: tuple[np.dtype, ...]) -> np.dtype:
    try:
        return np.result_type(*operands)
    except TypeError:  # bfloat16 meets float16 or integers of more than 8 bits
        names = " and ".join(dict.fromkeys(dtype.name for dtype in operands))
        raise TypeError(
            f"operands of the dtypes {names} have no common dtype; "
            "expected some that numpy.result_type can join, so convert one operand, e.g. to float32"
        ) from None


def _complex(dtype: np.dtype) -> np.dtype:
    return np.promote_types(np.float32 if dtype.itemsize == 2 and dtype.kind in "fV" else dtype, np.complex64)


def _native(dtype: np.dtype) -> np.dtype:
    return dtype.newbyteorder("=")


def check_cval(cval: Any, image: np.dtype) -> None:
    """Refuse a `cval` that is complex where the data are real."""
    if type(cval) is not float and image.kind != "c" and np.iscomplexobj(cval):
        raise TypeError(f"cval: expected a real number for real data, got {cval!r}")
