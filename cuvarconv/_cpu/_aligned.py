"""Arrays, and rows of them, that start at lines of the cache, and whose pages are there.

Where AVX-512 writes across two lines NumPy takes twice as long, and `np.empty` starts large arrays 16 bytes
behind one.  `np.zeros` takes pages that the system maps when they are first read, and again when they are
written, which stops all threads.
"""

from __future__ import annotations

import math
from ctypes import addressof, c_char
from typing import Any

import numpy as np

LINE = 64  # bytes; also what JAX asks for to take an array without copying it


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Allocate an array that starts at a line."""
    dtype = np.dtype(dtype)
    memory = np.empty(math.prod(shape) * dtype.itemsize + LINE, np.uint8)
    offset = -addressof(c_char.from_buffer(memory.data)) % LINE  # the array's own ways to ask are slower
    return np.ndarray(shape, dtype, memory, offset)


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Allocate such an array and fill it with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def pitch(length: int, dtype: np.dtype) -> int:
    """Return a number of elements, from one row to the next, so that all rows start at lines."""
    together = max(1, LINE // dtype.itemsize)
    return -(-length // together) * together
