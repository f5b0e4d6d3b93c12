"""Which dtypes are computed in, and which come out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

_INEXACT = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")


def check_operand(name: str, dtype: np.dtype) -> None:
    """Refuse dtypes that no backend computes with."""
    if dtype.name not in _INEXACT and dtype.kind not in "biu":
        raise TypeError(
            f"{name}: dtype {dtype} is not supported; expected integers, bool or one of "
            + ", ".join(_INEXACT)
        )


def is_exact(dtype: np.dtype) -> bool:
    """Whether the dtype holds integers or booleans."""
    return dtype.kind in "biu"


def computing_dtype(operands: tuple[np.dtype, ...], output: np.dtype) -> np.dtype:
    """Return the dtype that operands are converted to before they are multiplied.

    ``numpy.result_type`` of the operands.  Where that or the output is an integer it is float64,
    so that the truncation of an integer result sees the same value as scipy's.
    """
    dtype = np.result_type(*operands)
    return np.dtype(np.float64) if is_exact(dtype) or is_exact(output) else _native(dtype)


def accumulator_dtype(computing: np.dtype) -> np.dtype:
    """Half precision is summed in float32, everything else in itself."""
    return np.dtype(np.float32) if computing.itemsize == 2 else computing


def product_dtype(operands: tuple[np.dtype, ...]) -> np.dtype:
    """Return the default output of functions without a scipy namesake."""
    dtype = np.result_type(*operands)
    return np.dtype(np.float64) if is_exact(dtype) else _native(dtype)


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
    if any(operand.kind == "c" for operand in operands) and dtype.kind != "c":
        warnings.warn(f"output: promoting {dtype} to complex", stacklevel=4)
        return _complex(dtype)
    return _native(dtype)


def _complex(dtype: np.dtype) -> np.dtype:
    return np.promote_types(np.float32 if dtype.itemsize == 2 and dtype.kind in "fV" else dtype, np.complex64)


def _native(dtype: np.dtype) -> np.dtype:
    return dtype.newbyteorder("=")


def check_cval(cval: Any, computing: np.dtype) -> None:
    """Refuse a `cval` that is no number, or complex where the data are real."""
    if not isinstance(cval, int | float | complex | np.number | np.bool_):
        raise TypeError(f"cval: expected a number, got {cval!r}")
    if isinstance(cval, complex | np.complexfloating) and computing.kind != "c":
        raise TypeError(f"cval: expected a real number for real data, got {cval!r}")
