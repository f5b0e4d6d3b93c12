"""The stand-in for the ``cupy`` module: as much of it as the library and its tests use."""

import functools
import threading
import types

import numpy as np

from . import fakedevice, launch
from .build import CompileException
from .fakearray import (
    Capsule,
    allocate,
    check_aligned,
    lift,
    memory_pool,
    ndarray,
    to_device,
    using_allocator,
)
from .fakedevice import current_device

_LIFTED = """
    abs absolute add all allclose any argmax argmin argsort array_equal atleast_1d atleast_2d
    atleast_3d broadcast_arrays ceil clip concatenate conj conjugate cos cumsum diff divide dot
    einsum equal exp expand_dims flip floor floor_divide greater greater_equal hypot imag isclose
    iscomplexobj isfinite isinf isnan isrealobj less less_equal log logical_and logical_not
    logical_or matmul max maximum mean median min minimum mod moveaxis multiply nan_to_num ndim
    negative nonzero not_equal outer pad percentile power prod ravel real repeat reshape roll round
    shape sign sin size sort sqrt square squeeze stack std subtract sum swapaxes take tan tanh
    tensordot tile transpose true_divide trunc var vdot where
"""
_SAME_AS_NUMPY = """
    bool bool_ broadcast_shapes complex64 complex128 complexfloating dtype e finfo float16 float32
    float64 floating generic iinfo inexact inf int8 int16 int32 int64 integer intp isscalar
    issubdtype nan newaxis number pi promote_types signedinteger uint8 uint16 uint32 uint64
    unsignedinteger
"""


# ---- making arrays -------------------------------------------------------------------------------


def empty(shape, dtype=float, order="C"):
    """Return an array of which every byte is 0xFF, NaN in every floating-point format."""
    return allocate(shape, dtype, order)


def full(shape, fill_value, dtype=None, order="C"):
    """Return an array of one value."""
    if dtype is None:
        dtype = np.result_type(getattr(fill_value, "dtype", fill_value))
    result = allocate(shape, dtype, order)
    result.fill(fill_value)
    return result


def zeros(shape, dtype=float, order="C"):
    """Return an array of zeros."""
    return full(shape, 0, dtype, order)


def ones(shape, dtype=float, order="C"):
    """Return an array of ones."""
    return full(shape, 1, dtype, order)


def empty_like(prototype, dtype=None, order="K", shape=None):
    """Return an uninitialised array with the shape and dtype of another."""
    if order in "KA":
        flags = prototype.flags
        order = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    return allocate(prototype.shape if shape is None else shape, dtype or prototype.dtype, order)


def zeros_like(a, dtype=None, order="K", shape=None):
    """Return zeros with the shape and dtype of another array."""
    result = empty_like(a, dtype, order, shape)
    result.fill(0)
    return result


def ones_like(a, dtype=None, order="K", shape=None):
    """Return ones with the shape and dtype of another array."""
    result = empty_like(a, dtype, order, shape)
    result.fill(1)
    return result


def full_like(a, fill_value, dtype=None, order="K", shape=None):
    """Return one value with the shape and dtype of another array."""
    result = empty_like(a, dtype, order, shape)
    result.fill(fill_value)
    return result


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """Return a device array from anything; NumPy arrays are copied to the current device."""
    same_dtype = dtype is None or np.dtype(dtype) == getattr(obj, "dtype", None)
    if isinstance(obj, ndarray):
        kept = obj.device.id == current_device() and same_dtype and obj.ndim >= ndmin
        in_order = order in (None, "K", "A") or obj.flags[f"{order}_contiguous"]
        if kept and in_order and not copy:
            return obj
        check_aligned(obj)
        obj = obj.host
    obj = np.array(obj, dtype=dtype, copy=None, ndmin=ndmin)
    return to_device(obj, order=order or "K")


def asarray(a, dtype=None, order=None, *, blocking=False):
    """Return a device array, without a copy where possible."""
    return array(a, dtype, copy=False, order=order)


def ascontiguousarray(a, dtype=None):
    """Return a C-contiguous device array, without a copy where possible."""
    return array(a, dtype, copy=False, order="C", ndmin=1)


def arange(*args, dtype=None):
    """Return evenly spaced values."""
    return to_device(np.arange(*args, dtype=dtype))


def linspace(*args, **keywords):
    """Return evenly spaced values within an interval."""
    return to_device(np.linspace(*args, **keywords))


def from_dlpack(array, device=None, copy=None):
    """Return a view of another object's device memory; only emulated memory can be had."""
    capsule = array.__dlpack__() if array.__dlpack_device__()[0] == 2 else None
    if not isinstance(capsule, Capsule):
        raise BufferError(f"{type(array).__name__} does not lie in emulated device memory")
    source = capsule.array
    return ndarray.of_host(source.host, source.device.id, source)


# ---- other functions -----------------------------------------------------------------------------


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    """Return a copy in host memory."""
    if not isinstance(a, ndarray):
        return np.asarray(a, order=order)
    return a.get(order=order, out=out)


def broadcast_to(array, shape):
    """Return a view with zero strides."""
    view = np.broadcast_to(array.host, shape)
    view.flags.writeable = True  # as in CuPy, whose arrays are always writeable
    return ndarray.of_host(view, array.device.id, array)


def as_strided(x, shape=None, strides=None):
    """Return a view with the given strides, in bytes."""
    view = np.lib.stride_tricks.as_strided(x.host, shape, strides)
    return ndarray.of_host(view, x.device.id, x)


def copyto(dst, src, casting="same_kind", where=None):
    """Copy values from an array or scalar into an array."""
    lift(np.copyto)(dst, src, casting=casting, where=True if where is None else where)


def shares_memory(a, b, max_work=None):
    """Return whether two arrays have an element in common."""
    if a is b and a.size:
        return True
    return a.device == b.device and bool(np.shares_memory(a.host, b.host, max_work=max_work))


def result_type(*arrays_and_dtypes):
    """Return the dtype of an operation on arrays and dtypes."""
    return np.result_type(*(a.host if isinstance(a, ndarray) else a for a in arrays_and_dtypes))


def can_cast(from_, to, casting="safe"):
    """Return whether a dtype or an array's may be cast to another."""
    return np.can_cast(getattr(from_, "dtype", from_), to, casting)


def get_array_module(*args):
    """Return this module if any argument is a device array, else numpy."""
    return make_modules()["cupy"] if any(isinstance(a, ndarray) for a in args) else np


_memos = []


def memoize(for_each_device=False):
    """Return a decorator that remembers a function's results, per device if asked."""

    def decorator(function):
        memo, lock = {}, threading.RLock()
        _memos.append(memo)

        @functools.wraps(function)
        def remembered(*args, **keywords):
            key = (current_device() if for_each_device else -1, args, frozenset(keywords.items()))
            with lock:
                if key not in memo:
                    memo[key] = function(*args, **keywords)
                return memo[key]

        return remembered

    return decorator


def clear_memo():
    """Forget what all memoised functions remember."""
    for memo in _memos:
        memo.clear()


def get_default_memory_pool():
    """Return the object that counts device memory; it also has ``peak``."""
    return memory_pool


# ---- the module ----------------------------------------------------------------------------------


def _module(name, **members):
    module = types.ModuleType(name)
    module.__dict__.update(members)
    return module


def _cuda_modules():
    runtime = _module(
        "cupy.cuda.runtime",
        CUDARuntimeError=fakedevice.CUDARuntimeError,
        deviceSynchronize=lambda: None,
        driverGetVersion=lambda: fakedevice.VERSION,
        getDevice=current_device,
        getDeviceCount=lambda: fakedevice.DEVICE_COUNT,
        getDeviceProperties=fakedevice.device_properties,
        is_hip=False,
        runtimeGetVersion=lambda: fakedevice.VERSION,
        setDevice=fakedevice.set_device,
    )
    compiler = _module("cupy.cuda.compiler", CompileException=CompileException)
    cuda = _module(
        "cupy.cuda",
        Device=fakedevice.Device,
        Stream=fakedevice.Stream,
        compiler=compiler,
        get_current_stream=fakedevice.current_stream,
        is_available=lambda: True,
        runtime=runtime,
        using_allocator=using_allocator,
    )
    return cuda, compiler, runtime


@functools.cache
def make_modules():
    """Return the stand-in ``cupy`` and its submodules, by name, for ``sys.modules``."""
    cuda, compiler, runtime = _cuda_modules()
    stride_tricks = _module("cupy.lib.stride_tricks", as_strided=as_strided)
    lib = _module("cupy.lib", stride_tricks=stride_tricks, __path__=[])
    functions = (
        empty, full, zeros, ones, empty_like, zeros_like, ones_like, full_like, array, asarray,
        ascontiguousarray, arange, linspace, from_dlpack, asnumpy, broadcast_to, copyto,
        shares_memory, result_type, can_cast, get_array_module, memoize,
        clear_memo, get_default_memory_pool,
    )  # fmt: skip
    cupy = _module(
        "cupy",
        __version__="14.0.0+emulator",
        __path__=[],  # makes it a package, whose submodules can be imported
        is_fake=True,
        ndarray=ndarray,
        RawModule=launch.RawModule,
        RawKernel=launch.RawKernel,
        cuda=cuda,
        lib=lib,
        is_available=lambda: True,
        **{f.__name__: f for f in functions},
        **{name: lift(getattr(np, name)) for name in _LIFTED.split()},
        **{name: getattr(np, name) for name in _SAME_AS_NUMPY.split()},
    )
    cuda.__path__ = []
    modules = (cupy, cuda, compiler, runtime, lib, stride_tricks)
    return {module.__name__: module for module in modules}
