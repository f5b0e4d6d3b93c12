"""Time and peak memory of a call, measured in the same way for every library."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_SETTLED = 0.025  # seconds


def interleaved_seconds(sides: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Time several functions in turns, so that what else the machine does meets all of them.

    Each timed call follows untimed ones of the same function, for 25 ms at least: it finds its own
    data in the caches, and the threads of the other library have gone to sleep.  Those of OpenMP
    keep a processor busy for about 12 ms after their last work.

    Parameters
    ----------
    sides : mapping of str to callable
        What to time.
    repeats : int
        Timed calls of each.

    Returns
    -------
    dict of str to list of float
        Seconds, one entry per timed call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, function in sides.items():
            start = time.perf_counter()
            while time.perf_counter() < start + _SETTLED:
                function()
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_extra_bytes(function: Callable[[], Any]) -> int | None:
    """Measure how far the process's resident memory rises while a function runs.

    Every allocator counts, NumPy's as well as PyTorch's; so does what the function returns.  Free
    memory that the C library holds back is given back to the system first, because a call that
    reuses it would look smaller than it is.

    Parameters
    ----------
    function : callable
        It should have run before, on small operands, so that libraries are loaded.

    Returns
    -------
    int or None
        Bytes, or None where the system cannot tell (anything but Linux).
    """
    try:
        before = _reset_peak()
    except (OSError, LookupError):
        return None
    function()
    return max(0, _status_bytes("VmHWM") - before)


def peak_resident_bytes() -> int | None:
    """Return the most memory that this process has held since it began, None where that is unknown.

    What `resource.getrusage` reports on Linux is handed down from the process that started this one.
    """
    try:
        return _status_bytes("VmHWM")
    except (OSError, LookupError):
        return None


def _reset_peak() -> int:
    """Set the recorded peak to the memory in use now, and return that."""
    _CLEAR_REFS.write_text("5", encoding="ascii")  # raises OSError where there is no such file
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:  # musl
        raise LookupError("malloc_trim")
    trim(0)
    _CLEAR_REFS.write_text("5", encoding="ascii")
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    match = re.search(
        rf"^{name}:\s+(\d+) kB$",
        _STATUS.read_text(encoding="utf-8", errors="replace"),
        re.MULTILINE,
    )
    if match is None:
        raise LookupError(name)
    return int(match[1]) << 10
