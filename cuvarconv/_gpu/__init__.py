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
if int(cupy.__version__.partition(".")[0]) < 14:
    raise ImportError(
        f"arrays on a CUDA device need CuPy 14.0 or later, got {cupy.__version__}: "
        "pip install -U 'cuvarconv[cuda12]' or 'cuvarconv[cuda13]'"
    )

from cuvarconv._gpu._kept import uploaded
from cuvarconv._gpu._memory import from_torch, may_share_memory
from cuvarconv._gpu._pieces import store
from cuvarconv._gpu.affinity import affinity, affinity_gradient
from cuvarconv._gpu.bilateral import bilateral
from cuvarconv._gpu.bilateral_gradient import bilateral_gradient
from cuvarconv._gpu.correlate import correlate
from cuvarconv._gpu.correlate_gradient import correlate_weights_gradient
from cuvarconv._gpu.gaussian import gaussian
from cuvarconv._gpu.gaussian_gradient import gaussian_sigma_gradient
from cuvarconv._gpu.gaussian_input_gradient import gaussian_input_gradient
from cuvarconv._gpu.local import local_correlate
from cuvarconv._gpu.local_gradient import local_input_gradient, local_kernels_gradient
from cuvarconv._gpu.modulated import modulated_correlate
from cuvarconv._gpu.modulated_gradient import (
    modulated_modulation_gradient,
    modulated_weights_gradient,
)
from cuvarconv._gpu.modulated_input_gradient import modulated_input_gradient
from cuvarconv._gpu.spread import spread
from cuvarconv._gpu.unfold import unfold
from cuvarconv._quotients import Quotients

__all__ = [
    "affinity",
    "affinity_gradient",
    "bilateral",
    "bilateral_gradient",
    "correlate",
    "correlate_weights_gradient",
    "current",
    "empty",
    "gaussian",
    "gaussian_input_gradient",
    "gaussian_sigma_gradient",
    "linear_operator",
    "local_correlate",
    "local_input_gradient",
    "local_kernels_gradient",
    "may_share_memory",
    "modulated_correlate",
    "modulated_input_gradient",
    "modulated_modulation_gradient",
    "modulated_weights_gradient",
    "normalized",
    "normalized_variance",
    "ones",
    "spread",
    "store",
    "unfold",
    "view",
]

empty = cupy.empty

_quotients = Quotients(correlate, cupy.empty, store)
normalized, normalized_variance = _quotients.normalized, _quotients.normalized_variance


def ones(shape: tuple[int, ...], dtype: Any) -> Any:
    """View a single 1 as an array."""
    return cupy.broadcast_to(cupy.ones((), dtype), shape)


def linear_operator(shape: tuple[int, int], **functions: Any) -> Any:
    """Make CuPy's linear operator."""
    from cupyx.scipy.sparse.linalg import LinearOperator

    return LinearOperator(shape, **functions)


@contextmanager
def current(device: int, library: str) -> Iterator[None]:
    """Make `device` and the caller's current stream CuPy's."""
    with cupy.cuda.Device(device):
        if library == "torch":
            stream = sys.modules["torch"].cuda.current_stream(device)
            with (
                cupy.cuda.Stream.from_external(_Stream(stream.cuda_stream)),
                from_torch(),
            ):
                yield
        else:
            try:
                yield
            finally:
                if library != "cupy":  # JAX does not know that this stream still reads its operands
                    cupy.cuda.get_current_stream().synchronize()


@dataclass(frozen=True)
class _Stream:
    """Another library's stream, by the protocol that CuPy reads; older torch lacks it."""

    pointer: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.pointer


def view(name: str, array: Any) -> Any:
    """View the caller's array as CuPy's; lists and scalars are copied to the device."""
    if isinstance(array, cupy.ndarray):
        return _aligned(name, array)
    if not hasattr(array, "__dlpack__") or isinstance(array, np.generic | np.ndarray):
        return uploaded(np.asarray(array))
    if name == "output" and not hasattr(array, "__setitem__"):
        raise TypeError("output: the array is immutable; leave output out and use the result")
    try:
        given = cupy.from_dlpack(array)
    except Exception as error:
        raise TypeError(f"{name}: CuPy cannot read this array through DLPack: {error}") from error
    return _aligned(name, given)


def _aligned(name: str, array: Any) -> Any:
    """Refuse an array that no kernel can read, nor CuPy: one such access is the end of a CUDA context."""
    steps = (stride for length, stride in zip(array.shape, array.strides, strict=True) if length > 1)
    if array.data.ptr % array.itemsize or any(stride % array.itemsize for stride in steps):
        raise ValueError(
            f"{name}: expected every element at a multiple of {array.itemsize}, the bytes of {array.dtype}, "
            f"got address {array.data.ptr:#x} and strides {array.strides}; some start within an item"
        )
    return array
