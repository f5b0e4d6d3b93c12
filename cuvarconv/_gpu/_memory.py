"""Memory on the devices: which arrays overlap, and whose allocator gives it."""

from __future__ import annotations

import functools
import sys
from contextlib import AbstractContextManager
from typing import Any

import cupy


def may_share_memory(first: Any, second: Any) -> bool:
    """Whether the extents of two arrays overlap.

    CuPy's function of this name says no where two views came from another library one by one.
    """
    if not (first.size and second.size):
        return False
    (low, high), (other_low, other_high) = _extent(first), _extent(second)
    return low < other_high and other_low < high


def _extent(array: Any) -> tuple[int, int]:
    """Return the addresses of an array's first byte and of the one behind its last."""
    reach = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    first = array.data.ptr + sum(each for each in reach if each < 0)
    last = array.data.ptr + sum(each for each in reach if each > 0)
    return first, last + array.itemsize


def from_torch() -> AbstractContextManager[None]:
    """Take workspace from PyTorch's allocator, so that a CUDA graph that is captured keeps what it uses."""
    context: AbstractContextManager[None] = cupy.cuda.using_allocator(_torch_allocator().malloc)
    return context


@functools.cache
def _torch_allocator() -> Any:
    memory = sys.modules["torch"].cuda
    return cupy.cuda.PythonFunctionAllocator(
        lambda size, device: memory.caching_allocator_alloc(size, device),
        lambda pointer, device: memory.caching_allocator_delete(pointer),
    )


def of_cupy() -> AbstractContextManager[None]:
    """Take what stays after a call from CuPy's own pool: PyTorch expects to get back what a graph took."""
    context: AbstractContextManager[None] = cupy.cuda.using_allocator(cupy.get_default_memory_pool().malloc)
    return context
