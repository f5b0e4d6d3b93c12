"""The CUDA backend; ``_cpu`` has the same names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    import cupy
except ImportError as error:
    raise ImportError(
        "arrays on a CUDA device need CuPy: pip install 'cuvarconv[cuda12]' or 'cuvarconv[cuda13]', "
        f"whichever your driver supports ({error})"
    ) from error

from cuvarconv._gpu.correlate import correlate
from cuvarconv._gpu.modulated import modulated_correlate

__all__ = ["correlate", "current", "empty", "may_share_memory", "modulated_correlate", "view"]

empty = cupy.empty
may_share_memory = cupy.may_share_memory


@contextmanager
def current(device: int, library: str) -> Iterator[None]:
    """Make `device` and the caller's current stream CuPy's."""
    with cupy.cuda.Device(device):
        if library == "torch":
            stream = sys.modules["torch"].cuda.current_stream(device)
            with cupy.cuda.Stream.from_external(_Stream(stream.cuda_stream)):
                yield
        else:
            yield


@dataclass(frozen=True)
class _Stream:
    """Another library's stream, by the protocol that CuPy reads; older torch lacks it."""

    pointer: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.pointer


def view(name: str, array: Any) -> Any:
    """View the caller's array as CuPy's; lists and scalars are copied to the device."""
    if isinstance(array, cupy.ndarray):
        return array
    if not hasattr(array, "__dlpack__") or isinstance(array, np.generic):
        return cupy.asarray(np.asarray(array))
    if name == "output" and not hasattr(array, "__setitem__"):
        raise TypeError("output: the array is immutable; leave output out and use the result")
    try:
        return cupy.from_dlpack(array)
    except Exception as error:
        raise TypeError(f"{name}: CuPy cannot read this array through DLPack: {error}") from error
