"""The NumPy backend; ``_gpu`` has the same names."""

import math
from typing import Any

import numpy as np

from cuvarconv._cpu._workers import get_workers, set_workers
from cuvarconv._cpu.correlate import correlate
from cuvarconv._cpu.modulated import modulated_correlate

__all__ = [
    "correlate",
    "empty",
    "get_workers",
    "may_share_memory",
    "modulated_correlate",
    "set_workers",
]

_ALIGNMENT = 64  # bytes: what JAX asks for to take an array without copying it

may_share_memory = np.may_share_memory


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Allocate an aligned array."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    offset = -memory.__array_interface__["data"][0] % _ALIGNMENT
    return memory[offset : offset + nbytes].view(dtype).reshape(shape)
