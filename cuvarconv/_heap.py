"""What the C library does with free memory while blocks are computed."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them
_KEPT = 64 << 20  # bytes: the workspace of a call
_LARGEST = 32 << 20  # bytes: the most that glibc takes for what it asks of the system as one piece
_DEFAULT_MMAP_THRESHOLD = 128 << 10

_lock = threading.Lock()
_inside = 0


@contextmanager
def recycled_memory() -> Iterator[None]:
    """Let temporary arrays follow each other in the same memory, also in the workers of dask.

    These run with ``MALLOC_TRIM_THRESHOLD_=65536``.  Free memory goes back to the system at once then, and
    every temporary array is made of fresh pages, which the system clears first: three times the work.
    """
    global _inside
    given = _thresholds()
    if given is None:
        yield
        return
    with _lock:
        _inside += 1
        if _inside == 1:
            _set(_KEPT, _LARGEST)
    try:
        yield
    finally:
        with _lock:
            _inside = max(_inside - 1, 0)  # in a forked child it is 0 already
            if _inside == 0:
                _set(*given)


def _forget() -> None:
    """In a child process, end what its parent's other threads were inside of."""
    global _inside, _lock
    _lock = threading.Lock()
    given = _thresholds() if _inside else None
    _inside = 0
    if given is not None:
        _set(*given)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@functools.cache
def _thresholds() -> tuple[int, int] | None:
    """Return those that this process was started with; None where glibc finds its own, or is not there."""
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ or _mallopt() is None:
        return None
    try:
        trim = int(os.environ["MALLOC_TRIM_THRESHOLD_"])
        return trim, int(os.environ.get("MALLOC_MMAP_THRESHOLD_", _DEFAULT_MMAP_THRESHOLD))
    except ValueError:
        return None


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):  # no glibc; musl knows the name, but has no value
        return None
    return ctypes.CDLL(None).mallopt


def _set(trim: int, mmap: int) -> None:
    mallopt = _mallopt()
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, trim)
        mallopt(_MMAP_THRESHOLD, mmap)
