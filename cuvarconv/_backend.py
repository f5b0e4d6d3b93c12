"""From the caller's arrays to the sibling package that computes, and back."""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from cuvarconv import _cpu
from cuvarconv._dtypes import check_operand, check_output, requested_dtype

_HOST, _CUDA, _CUDA_HOST, _ROCM, _ROCM_HOST, _CUDA_MANAGED = 1, 2, 3, 10, 11, 13  # DLDeviceType

_CONVERSION = {
    "numpy": "numpy.asarray(…) on the host",
    "cupy": "cupy.asarray(…)",
    "torch": "torch.as_tensor(…, device=…)",
    "jax": "jax.numpy.asarray(…)",
}


@dataclass(frozen=True)
class Home:
    """Where a call's arrays live: the caller's library, and the CUDA device (None: the host)."""

    library: str
    device: int | None

    def __str__(self) -> str:
        place = "the host" if self.device is None else f"CUDA device {self.device}"
        return f"a {self.library} array on {place}"

    @property
    def backend(self) -> ModuleType:
        """The package that computes there, or, for dask arrays, the module that plans it block by block."""
        if self.library == "dask":
            return _package("cuvarconv._dask")
        return _cpu if self.device is None else _package("cuvarconv._gpu")

    def entered(self) -> AbstractContextManager[Any]:
        """Make the arrays' device and the caller's stream current, for the length of a call."""
        if self.device is None:
            return nullcontext()
        return self.backend.current(self.device, self.library)


_package = functools.cache(importlib.import_module)  # each call asks several times

_HOST_ARRAYS = Home("numpy", None)
_DASK_ARRAYS = Home("dask", None)


class Call(NamedTuple):
    """One call: its home, its operands as that backend's arrays, and what `output` asked for."""

    home: Home
    operands: tuple[Any, ...]
    output: Any
    given: Any  # what the caller passed as `output`

    def output_dtype(self, default: np.dtype) -> np.dtype:
        """Return the dtype of the result, `default` unless `output` says otherwise."""
        if self.output is not None:
            return self.output.dtype
        if self.given is None:
            return default
        dtype = requested_dtype(self.given, tuple(operand.dtype for operand in self.operands))
        if not dtype.isnative and self.home.library != "numpy":
            raise TypeError(f"output: expected native byte order for {self.home.library}, got {dtype}")
        return dtype

    def target(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Return the array to write: the caller's, or a new one where theirs overlaps an operand."""
        backend, output = self.home.backend, self.output
        if output is None:
            return self.fresh(shape, dtype)
        if output.shape != shape:
            raise ValueError(f"output: expected shape {shape}, got {output.shape}")
        check_output(output.dtype, tuple(operand.dtype for operand in self.operands))
        odd = any(stride % output.itemsize for stride in output.strides)
        if odd or any(backend.may_share_memory(output, operand) for operand in self.operands):
            return self.fresh(shape, dtype)
        return output

    def fresh(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Return a new array of the backend."""
        if math.prod(shape) * dtype.itemsize > sys.maxsize:
            raise ValueError(f"the result would have the shape {shape} ({dtype}), more than can be addressed")
        return self.home.backend.empty(shape, dtype)

    def upload(self, array: Any) -> Any:
        """Return an array that was made on the host as one of the backend; its own arrays as they are."""
        if self.home.device is None or not isinstance(array, np.ndarray | np.generic):
            return array
        copy = self.home.backend.empty(array.shape, array.dtype)
        copy.set(np.asarray(array))
        return copy

    def composed(self, function: Callable[..., None], *arrays: Any, **keywords: Any) -> None:
        """Call a function of primitives with this call first, for dask arrays block by block."""
        if self.home.library == "dask":
            self.home.backend.composed(function, *arrays, **keywords)
        else:
            function(self, *arrays, **keywords)

    def deliver(self, result: Any) -> Any:
        """Hand the result back as the caller's kind of array, or in the caller's own."""
        if self.output is not None:
            if result is not self.output:
                self.output[...] = result
            if self.home.library == "torch":  # tell autograd, as torch's own in-place functions do
                sys.modules["torch"].autograd.graph.increment_version(self.given)
            return self.given
        return self.hand_over(result)

    def hand_over(self, result: Any) -> Any:
        """Return a new array of the backend as the caller's kind of array."""
        if self.home.library == "dask":
            return self.home.backend.hand_over(result, self.operands)
        if self.home.library in ("numpy", "cupy"):
            return result
        return _module_of(self.home.library).from_dlpack(result)


def receive(output: Any, **arrays: Any) -> AbstractContextManager[Call]:
    """Open a call: find the arrays' home, go there, and view all of them as its arrays."""
    if type(output).__module__ == "torch" and type(output).__name__ == "dtype":
        output = np.dtype(str(output).removeprefix("torch."))
    if not _is_dtype(output):
        _check_array(output)
        arrays["output"] = output
    home = _common_home(arrays)
    if home.device is None:
        return nullcontext(_call(home, arrays, output))
    return _call_on_device(home, arrays, output)


@contextmanager
def _call_on_device(home: Home, arrays: dict[str, Any], output: Any) -> Iterator[Call]:
    with home.entered():
        yield _call(home, arrays, output)


def _call(home: Home, arrays: dict[str, Any], output: Any) -> Call:
    if "output" not in arrays:
        _check_returnable(home)
    views = {name: _view(name, array, home) for name, array in arrays.items()}
    for name, view in views.items():
        check_operand(name, view.dtype)
    target = views.pop("output", None)
    if target is not None:
        _check_writable(target, home)
    return Call(home, tuple(views.values()), target, output)


def _is_dtype(output: Any) -> bool:
    return output is None or isinstance(output, str | type | np.dtype)


def _check_array(output: Any) -> None:
    """Refuse what could only be copied into an array, and would not see the result."""
    if _library(output) == "dask":
        raise TypeError("output: dask arrays are immutable; leave output out and use the result")
    shared = isinstance(output, np.ndarray) or hasattr(output, "__dlpack__")
    if not shared or isinstance(output, np.generic):
        raise TypeError(f"output: expected an array, a dtype or None, got {output!r:.60}")


def _check_returnable(home: Home) -> None:
    """Refuse, before any work, a library that cannot take the result."""
    if home.library not in ("numpy", "cupy", "dask") and not hasattr(_module_of(home.library), "from_dlpack"):
        raise TypeError(
            f"input: {home.library} has no from_dlpack to take the result with; "
            "pass numpy.from_dlpack(…) of each operand, or an output array"
        )


def _common_home(arrays: dict[str, Any]) -> Home:
    if all(type(array) is np.ndarray for array in arrays.values()):
        return _HOST_ARRAYS
    homes = {name: home for name, array in arrays.items() if (home := _home(name, array))}
    if not homes:
        return _HOST_ARRAYS
    if any(home is _DASK_ARRAYS for home in homes.values()):
        _DASK_ARRAYS.backend.check(arrays)
        return _DASK_ARRAYS
    first, common = next(iter(homes.items()))
    for name, home in homes.items():
        if home != common:
            raise TypeError(
                f"{name} is {home}, {first} is {common}; convert one of them, "
                f"e.g. {name} with {_CONVERSION.get(common.library, 'from_dlpack')}"
            )
    return common


def _home(name: str, array: Any) -> Home | None:
    """Find where an array lives; None for lists and scalars, which go wherever the others are."""
    if type(array) is np.ndarray:
        return _HOST_ARRAYS
    if isinstance(array, list | tuple | int | float | complex | np.generic):
        return None
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: masked arrays are refused, because their mask would be ignored; "
            "pass array.filled(…) or array.data"
        )
    library = _library(array)
    if library == "dask":
        return _DASK_ARRAYS
    if library == "jax" and isinstance(array, sys.modules["jax"].core.Tracer):
        raise TypeError(
            f"{name}: a JAX tracer has no values to read; call this function outside of jit, grad and vmap"
        )
    if getattr(array, "requires_grad", False) is True:
        raise TypeError(
            f"{name}: the tensor requires grad, which the array functions would ignore; "
            f"use cuvarconv.torch, or pass {name}.detach()"
        )
    if library == "cupy" and not array.size:  # without an address to ask for
        return Home(library, array.device.id)
    if not hasattr(array, "__dlpack_device__"):
        return _HOST_ARRAYS
    try:
        kind, device = array.__dlpack_device__()
    except Exception as error:
        raise TypeError(f"{name}: {type(array).__name__} cannot be read through DLPack: {error}") from error
    if kind in (_HOST, _CUDA_HOST):
        return Home(library, None)
    if kind in (_CUDA, _CUDA_MANAGED):
        return Home(library, int(device))
    where = "a ROCm device" if kind in (_ROCM, _ROCM_HOST) else f"DLPack device type {int(kind)}"
    raise TypeError(f"{name}: lives on {where}; expected host memory or a CUDA device")


def home_of(array: Any) -> Home:
    """Return where an array lives that is known to be one."""
    return _home("array", array) or _HOST_ARRAYS


def _library(array: Any) -> str:
    for name, kind in (
        ("dask", "array.Array"),
        ("jax", "Array"),
        ("torch", "Tensor"),
        ("cupy", "ndarray"),
    ):
        library: Any = sys.modules.get(name)
        for attribute in kind.split("."):
            library = getattr(library, attribute, None)
        if library is not None and isinstance(array, library):
            return name
    if isinstance(array, np.ndarray):
        return "numpy"
    return type(array).__module__.partition(".")[0] if hasattr(array, "__dlpack__") else "numpy"


def _module_of(library: str) -> Any:
    return sys.modules["jax"].numpy if library == "jax" else sys.modules[library]


def _view(name: str, array: Any, home: Home) -> Any:
    if home is _HOST_ARRAYS and type(array) is np.ndarray:
        return array
    given, array = array, resolved(array)
    if name == "output" and home.library == "jax":
        raise TypeError("output: JAX arrays are immutable; leave output out and use the result")
    if name == "output" and array is not given:
        raise TypeError(
            "output: a tensor with pending conjugation or negation cannot be written in place; "
            "pass output.resolve_conj().resolve_neg()"
        )
    if home.device is not None or home.library == "dask":
        return home.backend.view(name, array)
    if home.library == "numpy" or not hasattr(array, "__dlpack__") or isinstance(array, np.generic):
        return _asarray(name, array)
    try:
        return np.from_dlpack(array)
    except Exception as error:
        raise TypeError(
            f"{name}: NumPy cannot read this {home.library} array through DLPack ({error}); "
            "convert its dtype or layout first"
        ) from error


def resolved(array: Any) -> Any:
    """Carry out the conjugation and negation that PyTorch keeps pending on a tensor."""
    for method in ("resolve_conj", "resolve_neg"):
        if hasattr(array, method):
            array = getattr(array, method)()
    return array


def _asarray(name: str, array: Any) -> np.ndarray:
    try:
        return np.asarray(array)
    except Exception as error:
        raise TypeError(f"{name}: cannot be read as an array: {error}") from error


def _check_writable(target: Any, home: Home) -> None:
    if target.size and any(
        n > 1 and stride == 0 for n, stride in zip(target.shape, target.strides, strict=True)
    ):
        raise ValueError(
            f"output: elements share memory (strides {target.strides}); expected an array of its own"
        )
    if home.device is None and not target.flags.writeable:
        raise ValueError("output: the array is read-only")
