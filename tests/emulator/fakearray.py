"""The stand-in for ``cupy.ndarray``: device memory, simulated, that refuses NumPy arrays."""

import contextlib
import functools
import math
import operator
import threading
import weakref

import numpy as np

from .fakedevice import CUDARuntimeError, Device, current_device

GUARD_BYTES = 1 << 16  # on both sides of every allocation, for what the checks do not see
ALIGNMENT = 256
POISON = 0xFF  # in every byte: NaN in every floating-point format


class MemoryPool:
    """Counts the bytes that arrays hold; `peak` may be reset."""

    def __init__(self):
        self.used = self.peak = 0

    def used_bytes(self):
        """Return the bytes in use."""
        return self.used

    def malloc(self, size):
        """Give what `allocate` counts."""

    def total_bytes(self):
        """Return the bytes in use: nothing is kept for later."""
        return self.used

    def free_all_blocks(self):
        """Do nothing, for the same reason."""

    def grow(self, size):
        """Count an allocation, or with a negative size its end."""
        self.used += size
        self.peak = max(self.peak, self.used)


memory_pool = MemoryPool()
_allocators = threading.local()


@contextlib.contextmanager
def using_allocator(allocator):
    """Ask another function for memory in this thread; what it returns is not used."""
    before = getattr(_allocators, "current", memory_pool.malloc)
    _allocators.current = allocator
    try:
        yield
    finally:
        _allocators.current = before


def allocate(shape, dtype=float, order="C"):
    """Return an uninitialised (poisoned) array on the current device."""
    shape = (int(shape),) if np.ndim(shape) == 0 else tuple(int(n) for n in shape)
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufcV" or dtype.char in "gG":  # the last two are long double
        raise ValueError(f"Unsupported dtype {dtype}")
    size = math.prod(shape) * dtype.itemsize
    getattr(_allocators, "current", memory_pool.malloc)(size)
    buffer = np.full(size + 2 * GUARD_BYTES + ALIGNMENT, POISON, np.uint8)
    start = GUARD_BYTES + -(buffer.ctypes.data + GUARD_BYTES) % ALIGNMENT
    memory_pool.grow(size)
    weakref.finalize(buffer, memory_pool.grow, -size)
    host = buffer[start : start + size].view(dtype).reshape(shape, order=order)
    return ndarray.of_host(host, current_device())


def to_device(value, dtype=None, order="K"):
    """Return a copy of a host array on the current device, its layout kept as ``order`` says."""
    value = np.asarray(value, dtype=dtype)
    if order in "KA":
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    result = allocate(value.shape, value.dtype, order)
    result.host[...] = value
    return result


# ---- NumPy's functions on device arrays ----------------------------------------------------------


def check_device(array):
    """Raise as CuPy does where devices cannot reach each other's memory."""
    if array.device.id != current_device():
        raise ValueError(
            f"The device where the array resides ({array.device.id}) is different from the "
            f"current device ({current_device()})."
        )


def check_aligned(*arrays):
    """Raise as a device does that reads or writes elements at addresses that it cannot."""
    for array in arrays:
        steps = [step for n, step in zip(array.shape, array.strides, strict=True) if n > 1]
        if array.size and any(step % array.itemsize for step in (array.data.ptr, *steps)):
            raise CUDARuntimeError("cudaErrorMisalignedAddress: misaligned address")


def _unwrap(value, sources):
    """Replace device arrays by their host arrays, within containers too, and collect them."""
    if isinstance(value, ndarray):
        check_device(value)
        sources.append(value)
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if type(value) in (tuple, list):
        return type(value)(_unwrap(item, sources) for item in value)
    return value


def _rewrap(result, sources):
    """Put NumPy's results on the device: views stay views, scalars become 0-d arrays."""
    if type(result) in (tuple, list):
        return type(result)(_rewrap(item, sources) for item in result)
    if not isinstance(result, np.ndarray | np.generic):
        return result
    result = np.asarray(result)
    for source in sources:
        if result is source.host:
            return source
        if np.may_share_memory(result, source.host):
            return ndarray.of_host(result, source.device.id, source)
    check_aligned(*sources)
    return to_device(result)


def lift(function):
    """Turn a function of NumPy arrays into one of device arrays, which refuses NumPy arrays."""

    @functools.wraps(function)
    def lifted(*args, **keywords):
        sources = []
        args = _unwrap(args, sources)
        keywords = {name: _unwrap(value, sources) for name, value in keywords.items()}
        with np.errstate(all="ignore"):  # a GPU does not warn
            result = function(*args, **keywords)
        return _rewrap(result, sources)

    return lifted


def _host_index(index):
    if isinstance(index, str):
        return index
    index = index if isinstance(index, tuple) else (index,)
    items = tuple(item.host if isinstance(item, ndarray) else item for item in index)
    # With an ellipsis NumPy returns a view where it would return a scalar.
    return items if any(item is Ellipsis for item in items) else (*items, Ellipsis)


class _Memory:
    """What ``array.data`` is: where the first element lies."""

    def __init__(self, array):
        self.ptr = array.host.__array_interface__["data"][0]
        self.device_id = array.device.id
        self.device = array.device


class _Flags:
    """Array flags; as in CuPy there is no ``writeable``."""

    def __init__(self, array):
        flags = array.host.flags
        self.c_contiguous = flags.c_contiguous
        self.f_contiguous = flags.f_contiguous
        self.forc = flags.forc
        self.fnc = flags.fnc
        self.owndata = array.base is None

    def __getitem__(self, name):
        return getattr(self, name.lower())


class Capsule:
    """What ``__dlpack__`` returns: only `from_dlpack` of the stand-in understands it."""

    def __init__(self, array):
        self.array = array


# ---- the array -----------------------------------------------------------------------------------


class ndarray:
    """An array in simulated device memory. `host` is the memory itself, for the emulator only."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, order="C"):
        fresh = allocate(shape, dtype, order)
        self.host, self.base, self.device = fresh.host, None, fresh.device

    @classmethod
    def of_host(cls, host, device, base=None):
        """Wrap memory that belongs to a device; `base` is the array that it is a view of."""
        array = cls.__new__(cls)
        array.host = host
        array.device = Device(device)
        array.base = base if base is None or base.base is None else base.base
        return array

    def _view(self, host):
        return ndarray.of_host(host, self.device.id, self)

    # ---- leaving the device

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        if method != "__call__":
            return NotImplemented
        return lift(ufunc)(*inputs, **keywords)

    def __array_function__(self, function, types, args, keywords):
        own = getattr(self.__array_namespace__(), function.__name__, None)
        return NotImplemented if own is None else own(*args, **keywords)

    def __array_namespace__(self, api_version=None):
        from . import fakecupy  # which imports this module

        return fakecupy.make_modules()["cupy"]

    def __dlpack_device__(self):
        return (2, self.device.id)  # kDLCUDA

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        return Capsule(self)

    def get(self, stream=None, order="C", out=None, blocking=True):
        """Return a copy in host memory."""
        check_aligned(self)
        if out is None:
            return np.array(self.host, order=order)
        out[...] = self.host
        return out

    def item(self, *index):
        """Return one element as a Python number."""
        return self.host.item(*index)

    def tolist(self):
        """Return the elements as nested lists of Python numbers."""
        return self.host.tolist()

    def __bool__(self):
        return bool(self.host)

    def __int__(self):
        return int(self.host)

    def __float__(self):
        return float(self.host)

    def __complex__(self):
        return complex(self.host)

    def __index__(self):
        return operator.index(self.host)

    def __repr__(self):
        return repr(self.host)

    # ---- layout

    shape = property(lambda self: self.host.shape)
    strides = property(lambda self: self.host.strides)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    data = property(_Memory)
    flags = property(_Flags)
    T = property(lambda self: self._view(self.host.T))
    mT = property(lambda self: self._view(self.host.mT))
    real = property(lambda self: self._view(self.host.real))

    @property
    def imag(self):
        """The imaginary part: a view, or zeros if the array is real."""
        if self.dtype.kind == "c":
            return self._view(self.host.imag)
        return to_device(np.zeros(self.shape, self.dtype))

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        return _rewrap(self.host[_host_index(index)], (self,))

    def __setitem__(self, index, value):
        check_device(self)
        target, sources = self[index], []
        value = _unwrap(value, sources)
        check_aligned(target, *sources)
        self.host[_host_index(index)] = value

    def view(self, dtype=None):
        """Return a view, of another dtype if one is given."""
        return self._view(self.host.view() if dtype is None else self.host.view(dtype))

    # ---- copies

    def set(self, value, stream=None):
        """Copy a NumPy array of the same shape and dtype into this one."""
        if not isinstance(value, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if value.dtype != self.dtype or value.shape != self.shape:
            raise ValueError(f"{value.dtype} {value.shape} set to {self.dtype} {self.shape}")
        self.host[...] = value

    def fill(self, value):
        """Set all elements to one value."""
        check_device(self)
        self.host.fill(_unwrap(value, []))

    def copy(self, order="C"):
        """Return a copy, on the current device."""
        check_aligned(self)
        return to_device(self.host, order=order)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        """Return a copy of another dtype, or this array if ``copy=False`` allows."""
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        check_device(self)
        check_aligned(self)
        with np.errstate(all="ignore"):
            return to_device(self.host.astype(dtype), order=order)


def _comparison_or_arithmetic(function, reverse=False):
    lifted = lift(function)
    accepted = (ndarray, np.ndarray, np.generic, int, float, complex)

    def method(self, other):
        if not isinstance(other, accepted):
            return NotImplemented
        return lifted(other, self) if reverse else lifted(self, other)

    return method


_ARITHMETIC = "add sub mul truediv floordiv mod pow and or xor lshift rshift matmul"
_COMPARISONS = "eq ne lt le gt ge"
_UNARY = "neg pos abs invert"
_METHODS = """
    all any argmax argmin argsort clip conj conjugate cumprod cumsum diagonal dot flatten max mean
    min nonzero prod ravel repeat reshape round squeeze std sum swapaxes take trace transpose var
"""


def _add_methods():
    for name in _ARITHMETIC.split():
        function = getattr(operator, f"__{name}__")
        setattr(ndarray, f"__{name}__", _comparison_or_arithmetic(function))
        setattr(ndarray, f"__r{name}__", _comparison_or_arithmetic(function, reverse=True))
        in_place = getattr(operator, f"__i{name}__")
        setattr(ndarray, f"__i{name}__", _comparison_or_arithmetic(in_place))
    for name in _COMPARISONS.split():
        setattr(ndarray, f"__{name}__", _comparison_or_arithmetic(getattr(operator, name)))
    for name in _UNARY.split():
        setattr(ndarray, f"__{name}__", lift(getattr(operator, name)))
    for name in _METHODS.split():
        setattr(ndarray, name, lift(getattr(np.ndarray, name)))


_add_methods()
