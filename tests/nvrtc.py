"""Compile kernels with the real NVRTC, which needs no GPU, and read what it says of each kernel."""

import ctypes
import functools
import re
from dataclasses import dataclass

from emulator import headers


class NvrtcError(RuntimeError):
    """A source that NVRTC refuses; the message is its log."""


@dataclass(frozen=True)
class Resources:
    """What one kernel uses, per thread (registers, stack, spills) or per block (shared memory)."""

    registers: int
    stack_bytes: int
    spill_bytes: int  # stores and loads together
    shared_bytes: int  # static


@dataclass(frozen=True)
class Compiled:
    """The result of `compile`: resources by name expression, and the code itself."""

    resources: dict
    lowered_names: dict  # the mangled name of each name expression
    cubin: bytes
    ptx: str
    log: str

    def body(self, name):
        """Return the PTX of one kernel."""
        entry = re.search(rf"\.entry {re.escape(self.lowered_names[name])}\b.*?\n}}", self.ptx, re.DOTALL)
        return entry[0]


@functools.cache
def libraries():
    """Return the paths of the NVRTC libraries in the installed wheels, by major CUDA version."""
    found = {}
    for directory in headers.site_directories():
        for path in sorted(directory.glob("nvidia/*/lib/libnvrtc.so.1[23]")):
            found.setdefault(int(path.name[-2:]), path)
    return found


@functools.cache
def _load(cuda):
    path = libraries()[cuda]
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):  # not found by itself in some wheels
        ctypes.CDLL(str(builtins))
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def compile(source, names, cuda, arch, options=()):
    """
    Compile kernels for one architecture.

    Parameters
    ----------
    source : str
        The text of a ``.cu`` file, local includes expanded.
    names : sequence of str
        Name expressions of the kernels, such as ``"scale<float, 4>"``.
    cuda : int
        The compiler's major version, a key of `libraries`.
    arch : int
        The compute capability without its dot, such as 80.
    options : sequence of str
        Further options, such as ``-std=c++17``. CuPy's own are added here.

    Returns
    -------
    Compiled

    Raises
    ------
    NvrtcError
        With the compiler's log.
    """
    program = _Program(_load(cuda), source)
    try:
        for name in names:
            program.check("nvrtcAddNameExpression", name.encode())
        includes = [f"-I{d}" for d in headers.from_wheels(cuda)]
        # CuPy adds the first two.
        given = ["-ftz=true", "--device-as-default-execution-space", f"-arch=sm_{arch}"]
        log = program.compile([*given, "--ptxas-options=-v", *options, *includes])
        lowered = {name: program.lowered_name(name) for name in names}
        by_symbol = _parse_resources(log)
        resources = {name: by_symbol[symbol] for name, symbol in lowered.items()}
        return Compiled(resources, lowered, program.cubin(), program.ptx(), log)
    finally:
        program.destroy()


class _Program:
    """An ``nvrtcProgram`` and the calls on it."""

    def __init__(self, library, source):
        self._library = library
        self._handle = ctypes.c_void_p()
        code = library.nvrtcCreateProgram(
            ctypes.byref(self._handle), source.encode(), b"kernel.cu", 0, None, None
        )
        self._raise_for(code, "nvrtcCreateProgram")

    def _raise_for(self, code, what):
        if code:
            raise NvrtcError(f"{what}: {self._library.nvrtcGetErrorString(code).decode()}")

    def check(self, function, *arguments):
        """Call a function of NVRTC on the program."""
        self._raise_for(getattr(self._library, function)(self._handle, *arguments), function)

    def _text(self, what):
        size = ctypes.c_size_t()
        self.check(f"nvrtcGet{what}Size", ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.check(f"nvrtcGet{what}", buffer)
        return buffer.raw

    def compile(self, options):
        """Return the log, or raise with it."""
        texts = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        failed = self._library.nvrtcCompileProgram(self._handle, len(options), texts)
        log = self._text("ProgramLog").rstrip(b"\0").decode()
        if failed:
            raise NvrtcError(log or self._library.nvrtcGetErrorString(failed).decode())
        return log

    def lowered_name(self, name):
        """Return the mangled name of a name expression."""
        text = ctypes.c_char_p()
        self.check("nvrtcGetLoweredName", name.encode(), ctypes.byref(text))
        return text.value.decode()

    def cubin(self):
        """Return the compiled code, an ELF file."""
        return self._text("CUBIN")

    def ptx(self):
        """Return the code before it was assembled."""
        return self._text("PTX").rstrip(b"\0").decode()

    def destroy(self):
        """Free the program."""
        self._library.nvrtcDestroyProgram(ctypes.byref(self._handle))


def vector_loads(body, bits=128):
    """Count the loads from global memory in a kernel's PTX that move so many bits for a thread."""
    loads = re.findall(r"ld\.global[.:\w]*?(?:\.v(\d))?\.[a-z](\d+)\b", body)
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], (\d+)", body)
    return sum(int(count or 1) * int(each) == bits for count, each in loads) + sum(
        8 * int(each) == bits for each in copies
    )


def matrix_instructions(body):
    """Count the tensor core instructions in a kernel's PTX."""
    return len(re.findall(r"\b(?:mma\.sync|wgmma\.mma_async)", body))


def _parse_resources(log):
    """Return the resources of each kernel, by mangled name, from the report of ptxas."""

    def number(pattern, text):
        match = re.search(pattern, text)
        return int(match[1]) if match else 0

    resources = {}
    for report in log.split("Compiling entry function ")[1:]:
        spills = number(r"(\d+) bytes spill stores", report)
        spills += number(r"(\d+) bytes spill loads", report)
        resources[report.split("'")[1]] = Resources(
            registers=number(r"Used (\d+) registers", report),
            stack_bytes=number(r"(\d+) bytes stack frame", report),
            spill_bytes=spills,
            shared_bytes=number(r"(\d+) bytes smem", report),
        )
    return resources
