"""What stays on the devices between calls: tables, and plans that refer to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

import cupy
import numpy as np

from cuvarconv._gpu._memory import of_cupy


def uploaded(array: Any) -> Any:
    """Copy an array of the host to the current device."""
    if _is_capturing():  # a replay would copy what lies there by then
        raise RuntimeError(
            "a CUDA graph cannot copy from the host what this call needs: make the same call once before the "
            "capture, with operands that are arrays on the device, of one dtype"
        )
    return cupy.asarray(array)


def _is_capturing() -> bool:
    try:
        return bool(cupy.cuda.get_current_stream().is_capturing())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "StreamCaptureImplicit" in str(error):  # of the null stream while another stream is captured
            return True
        raise


class _Kept:
    """What was made for a key, kept for the next call that asks for it.

    A table is complete before it is kept, so that every stream may read it.  It is dropped a whole
    generation after its last use, with the devices idle in between, so that no kernel still reads it.
    """

    _MOST = 4 << 20  # bytes in a generation
    _LONGEST = 1 << 20

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._previous = self._kept
        self._bytes = 0

    def find(self, *key: Hashable) -> Any:
        """Return what is kept on the current device under a key, or None."""
        return self._kept.get((cupy.cuda.runtime.getDevice(), *key))

    def keep(self, made: Any, nbytes: int, *key: Hashable) -> None:
        """Keep something on the current device that counts as so many bytes; nothing during a capture."""
        if _is_capturing():
            return
        with self._lock:
            if self._bytes > self._MOST:
                self._drop()
            self._kept[(cupy.cuda.runtime.getDevice(), *key)] = made
            self._bytes += nbytes

    def table(self, make: Callable[..., tuple[np.ndarray, Any]], *what: Hashable) -> tuple[Any, Any]:
        """Return what `make` returns for `what`, the array on the current device."""
        found = self.find(make, *what)
        if found is None:
            entries, record = make(*what)
            with of_cupy():
                found = (uploaded(entries), record)
            if entries.nbytes <= self._LONGEST:
                cupy.cuda.get_current_stream().synchronize()
                self.keep(found, entries.nbytes, make, *what)
        return found

    def tables(self) -> set[int]:
        """Return the identities of all tables that are kept."""
        with self._lock:
            return {id(made[0]) for made in self._kept.values() if isinstance(made, tuple)}

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._drop()
            self._drop()

    def _drop(self) -> None:
        for device in {key[0] for key in self._previous}:
            cupy.cuda.Device(device).synchronize()
        self._previous, self._kept, self._bytes = self._kept, {}, 0


kept = _Kept()
on_device = kept.table
