"""Launch emulated kernels: the stand-ins for ``cupy.RawModule`` and ``cupy.RawKernel``."""

import contextlib
import ctypes
import os
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from .arguments import KernelError, pack, parse_signature
from .build import build_library, relevant_options
from .fakedevice import Device, current_device, current_stream
from .launches import Launch, note, three

BATCH_SIZE = 24  # kernels per build: a second for the headers, then several kernels a second
_CHECK_LEVELS = {"nothing": 0, "bounds": 1, "races": 2, "profile": 3}
_ORDERS = {"forward": 0, "backward": 1}
_MESSAGE_BYTES = 2000
_PROFILE_ROWS = 4000


@dataclass(frozen=True)
class Settings:
    """
    How kernels run.

    Parameters
    ----------
    order : {"forward", "backward"} or int
        Order of the threads in a block and of the blocks; an integer from 2 seeds a permutation.
    check : {"races", "bounds", "profile"}
        What is checked; "races" includes "bounds", "profile" counts transactions instead of races.
    fast : bool
        Run without any check, ten times faster; a bug may then crash the process.
    """

    order: str | int = "forward"
    check: str = "races"
    fast: bool = False

    def __post_init__(self):
        if self.check not in ("races", "bounds", "profile"):
            raise ValueError(f"check={self.check!r}: not one of races, bounds, profile")
        if self.order not in _ORDERS and not (isinstance(self.order, int) and self.order >= 2):
            raise ValueError(f"order={self.order!r}: neither forward, backward nor a seed from 2")


_settings = Settings()
_launch_lock = threading.Lock()  # the runtime's state is global: one launch at a time


def configure(**changes):
    """Change the settings for all following launches; see `Settings`. Returns the old ones."""
    global _settings
    old, _settings = _settings, replace(_settings, **changes)
    return old


@contextlib.contextmanager
def configured(**changes):
    """Change the settings within a ``with`` block."""
    global _settings
    old = configure(**changes)
    try:
        yield
    finally:
        _settings = old


# ---- profile -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LineProfile:
    """
    The memory traffic of one instruction in one launch.

    ``line`` is ``file:line``, and after each ``<`` where that is inlined into.
    ``transactions`` counts 32-byte sectors (global memory) or wavefronts (shared memory), summed
    over all warps; ``requests`` counts executions by a warp, ``bytes`` what the lanes asked for.
    """

    kernel: str
    line: str
    space: str
    access: str
    requests: int
    bytes: int
    transactions: int


_profiles = []


@contextlib.contextmanager
def profiling():
    """Count memory transactions within a ``with`` block; yields a list of `LineProfile`."""
    lines = []
    _profiles.append(lines)
    try:
        with configured(check="profile"):
            yield lines
    finally:
        _profiles[:] = [active for active in _profiles if active is not lines]


# ---- libraries -----------------------------------------------------------------------------------


class _LaunchRequest(ctypes.Structure):
    """``emulator::Launch``."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_size_t),
        ("order", ctypes.c_long),
        ("check", ctypes.c_int),
        ("entry", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
    )


class _Argument(ctypes.Structure):
    """``emulator::Argument``."""

    _fields_ = (
        ("low", ctypes.c_size_t),
        ("high", ctypes.c_size_t),
        ("mask", ctypes.c_void_p),
        ("read_only", ctypes.c_int),
        ("name", ctypes.c_char_p),
    )


class _Library:
    """A compiled source: the kernels of one name list."""

    def __init__(self, path, names):
        self.path = path
        self.names = names
        self._dll = ctypes.CDLL(str(path))

    def entry(self, name):
        function = getattr(self._dll, f"emulator_run_{self.names.index(name)}")
        return ctypes.cast(function, ctypes.c_void_p)

    def parameters(self, name):
        function = getattr(self._dll, f"emulator_signature_{self.names.index(name)}")
        function.restype = ctypes.c_char_p
        return parse_signature(function().decode())

    def launch(self, request, regions):
        """Run a kernel. Returns None, or the message of its failure."""
        arguments = (_Argument * len(regions))(
            *(
                _Argument(
                    region.low,
                    region.high,
                    None if region.mask is None else region.mask.ctypes.data,
                    region.read_only,
                    region.name.encode(),
                )
                for region in regions
            )
        )
        message, offset = ctypes.create_string_buffer(_MESSAGE_BYTES), ctypes.c_size_t()
        failed = self._dll.emulator_launch(
            ctypes.byref(request),
            arguments,
            len(regions),
            message,
            ctypes.c_size_t(_MESSAGE_BYTES),
            ctypes.byref(offset),
        )
        if not failed:
            return None
        at = f" at {self.source_line(offset.value)}" if offset.value else ""
        return message.value.decode() + at

    def source_line(self, offset):
        """Return ``file:line``, and after ``<`` those that it is inlined into."""
        command = ["addr2line", "-i", "-e", str(self.path), hex(offset - 1)]
        output = subprocess.run(command, capture_output=True, text=True).stdout
        lines = re.sub(r" \(discriminator \d+\)", "", output).split("\n")
        return " < ".join(Path(line).name for line in lines if line)

    def profile(self, kernel):
        """Yield the profile of the last launch, which was of the named kernel."""
        rows = (ctypes.c_uint64 * 6 * _PROFILE_ROWS)()
        for row in rows[: self._dll.emulator_profile(rows, _PROFILE_ROWS)]:
            offset, shared, write, *counts = row
            space, access = "shared" if shared else "global", "write" if write else "read"
            yield LineProfile(kernel, self.source_line(offset), space, access, *counts)


_batches = {}  # source text -> tuples of names that are built together
_libraries = {}
_libraries_lock = threading.Lock()


def batch(code, names):
    """
    Announce kernels of a source, so that the first that is used brings the others with it.

    A translation unit costs seconds, one more kernel in it a fraction of that.

    Parameters
    ----------
    code : str
        The source, exactly as it will be given to ``RawModule``.
    names : iterable of str
        Name expressions of the kernels.
    """
    known = {name for group in _batches.get(code, ()) for name in group}
    new = [name for name in dict.fromkeys(names) if name not in known]
    groups = [tuple(new[i : i + BATCH_SIZE]) for i in range(0, len(new), BATCH_SIZE)]
    _batches.setdefault(code, []).extend(groups)


def prebuild(options=(), fast=False, workers=None):
    """Build all announced batches now, in parallel, for modules with the given options."""
    groups = [(code, names) for code, lists in _batches.items() for names in lists]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        list(pool.map(lambda group: _load(*group, options, fast), groups))


def _load(code, names, options, fast):
    mode = "fast" if fast else "check"
    key = (code, names, relevant_options(options), mode)
    with _libraries_lock:
        library = _libraries.get(key)
    if library is None:
        library = _Library(build_library(code, names, options, mode), names)
        with _libraries_lock:
            library = _libraries.setdefault(key, library)
    return library


# ---- kernels -------------------------------------------------------------------------------------


class RawKernel:
    """What `RawModule.get_function` returns: call it with grid, block and arguments."""

    shared_size_bytes = 1 << 10  # static: more than any kernel has that has dynamic shared memory too

    def __init__(self, module, name):
        self._module = module
        self._shared_limit = Device.attributes["MaxSharedMemoryPerBlock"] - self.shared_size_bytes
        self.name = name

    @property
    def max_dynamic_shared_size_bytes(self):
        """The most dynamic shared memory that a launch may ask for."""
        return self._shared_limit

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        if not 0 <= size <= Device.attributes["MaxSharedMemoryPerBlockOptin"] - self.shared_size_bytes:
            raise KernelError(f"{self.name}: CUDA_ERROR_INVALID_VALUE: shared memory of {size}")
        self._shared_limit = size

    def __call__(self, grid, block, args, *, shared_mem=0):
        settings = _settings
        _check_tuple("grid", grid)
        _check_tuple("block", block)
        grid, block = three(grid), three(block)
        self._check_geometry(grid, block, shared_mem)
        library = self._module.library(self.name, settings.fast)
        packed = pack(self.name, library.parameters(self.name), args)
        addresses = (ctypes.c_void_p * len(packed.addresses))(*packed.addresses)
        request = _LaunchRequest(
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            shared_mem,
            _ORDERS.get(settings.order, settings.order),
            _CHECK_LEVELS["nothing" if settings.fast else settings.check],
            library.entry(self.name),
            ctypes.cast(addresses, ctypes.c_void_p),
        )
        with _launch_lock:
            failure = library.launch(request, packed.regions)
            if failure is None and settings.check == "profile":
                lines = list(library.profile(self.name))
                for profile in _profiles:
                    profile.extend(lines)
        if failure is not None:
            raise KernelError(f"{self.name}: {failure}")
        note(Launch(self.name, grid, block, shared_mem, current_device(), current_stream().ptr))

    def _check_geometry(self, grid, block, shared_mem):
        threads = block[0] * block[1] * block[2]
        if threads > 1024 or block[2] > 64 or grid[0] > 2**31 - 1 or max(grid[1:]) > 65535:
            raise KernelError(f"{self.name}: CUDA_ERROR_INVALID_VALUE: grid {grid}, block {block}")
        if not 0 <= shared_mem <= self._shared_limit:
            raise KernelError(
                f"{self.name}: CUDA_ERROR_INVALID_VALUE: {shared_mem} bytes of shared memory, "
                f"{self._shared_limit} allowed"
            )


def _check_tuple(name, sizes):
    if not isinstance(sizes, tuple) or not 1 <= len(sizes) <= 3:
        raise TypeError(f"{name} must be a tuple of one to three integers, not {sizes!r}")


class RawModule:
    """Stands in for ``cupy.RawModule``."""

    def __init__(self, code=None, *, path=None, options=(), backend="nvrtc", name_expressions=None, **others):
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if not isinstance(options, tuple):
            raise TypeError("compile options should be a tuple")
        self.code = Path(path).read_text() if code is None else code
        self.options = options
        self.backend = backend
        self.name_expressions = name_expressions
        self._names = tuple(name_expressions or _extern_c_kernels(self.code))

    def compile(self, log_stream=None):
        """Compile all kernels; raises ``cupy.cuda.compiler.CompileException``."""
        for name in self._names:
            self.library(name, _settings.fast)

    def get_function(self, name):
        """Return a kernel of this module by its name expression."""
        if name not in self._names:
            raise KernelError(f"{name}: CUDA_ERROR_NOT_FOUND: named symbol not found")
        self.library(name, _settings.fast)
        return RawKernel(self, name)

    def library(self, name, fast):
        """Return the library with a kernel, that of its batch if it belongs to one."""
        groups = (group for group in _batches.get(self.code, ()) if name in group)
        return _load(self.code, next(groups, self._names), self.options, fast)


def _extern_c_kernels(code):
    pattern = r'extern\s+"C"[^;{(]*?__global__[^;{(]*?(\w+)\s*\('
    return re.findall(pattern, code)
