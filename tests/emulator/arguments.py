"""Check a launch's arguments against the kernel's C++ signature, and lay them out in memory."""

import ctypes
import re
from dataclasses import dataclass

import numpy as np

from .fakearray import ndarray
from .fakedevice import current_device

# C++ types, as the compiler names them, that may hold one element of a dtype.
_SCALARS = {
    "bool": {"bool"},
    "int8": {"signed char", "char"},
    "int16": {"short"},
    "int32": {"int"},
    "int64": {"long", "long long"},
    "uint8": {"unsigned char"},
    "uint16": {"unsigned short"},
    "uint32": {"unsigned int"},
    "uint64": {"unsigned long", "unsigned long long"},
    "float16": {"__half"},
    "bfloat16": {"__nv_bfloat16"},
    "float32": {"float"},
    "float64": {"double"},
    "complex64": {"float2", "complex<float>"},
    "complex128": {"double2", "complex<double>"},
}
# Vector types through which a kernel may also read an array of a dtype.
_VECTORS = {
    "int8": {"char2", "char4"},
    "int16": {"short2", "short4"},
    "int32": {"int2", "int4"},
    "uint8": {"uchar2", "uchar4"},
    "uint16": {"ushort2", "ushort4"},
    "uint32": {"uint2", "uint4"},
    "float16": {"__half2"},
    "bfloat16": {"__nv_bfloat162"},
    "float32": {"float2", "float4"},
    "float64": {"double2", "double4"},
    "complex64": {"float4"},
}
_KNOWN = set().union(*_SCALARS.values(), *_VECTORS.values())


class KernelError(RuntimeError):
    """A launch that a GPU would refuse, or a bug in a kernel that the emulator found."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel; for a pointer, `size`, `align` and `type` are the pointee's."""

    is_pointer: bool
    is_const: bool
    size: int
    align: int
    type: str

    def __str__(self):
        const = "const " if self.is_const else ""
        return f"{const}{self.type}{'*' if self.is_pointer else ''}"

    def accepts(self, dtype, by_value):
        """Whether elements of a dtype may go through this parameter."""
        if self.type == "void":
            return True
        name = self.type
        if name in _SCALARS.get(dtype.name, ()):
            return True
        if not by_value and name in _VECTORS.get(dtype.name, ()):
            return True
        # A struct of the source's own, such as one for complex numbers: only its size is known.
        own_struct = name not in _KNOWN and dtype.name not in ("bfloat16", "float16")
        return own_struct and dtype.kind in "cV" and dtype.itemsize == self.size


@dataclass(frozen=True)
class Region:
    """The bytes that an array argument makes legal for a kernel."""

    low: int
    high: int
    mask: np.ndarray | None  # of the bytes from low to high; None: all of them
    read_only: bool
    name: str

    def covered(self, low, high):
        """Return which of some bytes within the extent belong to elements; True for all."""
        return True if self.mask is None else self.mask[low - self.low : high - self.low]

    def overlaps(self, other):
        """Whether the two have a byte in common."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        if low >= high:
            return False
        return bool(np.any(self.covered(low, high) & other.covered(low, high)))


@dataclass(frozen=True)
class Packed:
    """Arguments as the kernel wants them: the address of each value."""

    addresses: list
    regions: list
    keep_alive: list


def parse_signature(text):
    """Return the parameters in the text that the library describes a kernel with."""
    parameters = []
    for entry in filter(None, text.split(";")):
        pointer, const, size, align, name = entry.split("|")
        name = re.sub(r"[\w:]+::(?=complex<)", "", name)
        parameters.append(Parameter(pointer == "1", const == "1", int(size), int(align), name))
    return tuple(parameters)


def pack(kernel_name, parameters, values):
    """
    Check the arguments of a launch and lay them out.

    Raises
    ------
    KernelError
        If there are too many or too few, or one has the wrong kind, type, alignment or device, or
        an array that the kernel may write overlaps another.
    """
    if len(values) != len(parameters):
        raise KernelError(f"{kernel_name}: {len(values)} arguments for {len(parameters)} parameters")
    packed = Packed([], [], [])
    for position, (value, parameter) in enumerate(zip(values, parameters, strict=True)):
        where = f"{kernel_name}: argument {position}"
        if parameter.is_pointer:
            holder, region = _pack_pointer(where, position, parameter, value)
            packed.addresses.append(ctypes.addressof(holder))
            if region is not None:
                packed.regions.append(region)
        else:
            holder = _pack_scalar(where, parameter, value)
            packed.addresses.append(holder.ctypes.data)
        packed.keep_alive.append(holder)
    _check_overlap(kernel_name, packed.regions)
    return packed


def _pack_pointer(where, position, parameter, value):
    if value is None:
        return ctypes.c_void_p(0), None
    if not isinstance(value, ndarray):
        raise KernelError(f"{where}: {type(value).__name__} for a parameter {parameter}")
    if value.device.id != current_device():
        raise KernelError(f"{where}: array on device {value.device.id}, launch on device {current_device()}")
    if not parameter.accepts(value.dtype, by_value=False):
        raise KernelError(f"{where}: dtype {value.dtype} for a parameter {parameter}")
    address = value.data.ptr
    if parameter.type != "void" and value.size and address % parameter.align:
        raise KernelError(f"{where}: misaligned for a parameter {parameter}")
    host = value.host
    low, high = np.lib.array_utils.byte_bounds(host) if host.size else (address, address)
    name = f"argument {position} ({parameter})"
    region = Region(low, high, _element_mask(host, low, high), parameter.is_const, name)
    return ctypes.c_void_p(address), region


def _element_mask(host, low, high):
    """Return which bytes of the extent belong to elements, or None if all do."""
    if host.flags.forc or not host.size:
        return None
    host = host[tuple(slice(1) if stride == 0 else slice(None) for stride in host.strides)]
    mask = np.zeros(high - low, np.uint8)
    start = host.__array_interface__["data"][0] - low
    elements = np.lib.stride_tricks.as_strided(mask[start:], (*host.shape, host.itemsize), (*host.strides, 1))
    elements[...] = 1
    return None if mask.all() else mask


def _pack_scalar(where, parameter, value):
    if isinstance(value, ndarray):
        raise KernelError(f"{where}: an array for a parameter {parameter}")
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise KernelError(
                f"{where}: a numpy.ndarray of shape {value.shape}; "
                "only those of size one can be passed, by value"
            )
    elif not isinstance(value, (bool, int, float, complex, np.number, np.bool_)):
        raise KernelError(f"{where}: {type(value).__name__} for a parameter {parameter}")
    holder = np.array(value)  # as CuPy does: int becomes int64, float float64
    if holder.itemsize != parameter.size or not parameter.accepts(holder.dtype, by_value=True):
        raise KernelError(f"{where}: {holder.dtype} for a parameter {parameter}")
    return holder


def _check_overlap(kernel_name, regions):
    """Refuse an output that shares memory with another argument, as __restrict__ promises."""
    for i, region in enumerate(regions):
        for other in regions[:i]:
            if not (region.read_only and other.read_only) and region.overlaps(other):
                raise KernelError(f"{kernel_name}: {region.name} overlaps {other.name}")
