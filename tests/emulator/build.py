"""Compile kernel sources for the CPU with g++, with a cache on disk that processes may share."""

import contextlib
import fcntl
import functools
import getpass
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

from . import headers

HERE = Path(__file__).resolve().parent
RUNTIME_SOURCES = ("scheduler.cpp", "memory.cpp", "profile.cpp")
SHIM_HEADERS = ("shim.h", "intrinsics.h", "copies.h", "matrix.h", "runtime.h")

_COMMON = (
    "-std=c++17",
    "-g",
    "-fno-var-tracking",  # line numbers are all that is wanted, in two thirds of the time
    "-fPIC",
    "-w",
    "-U_FORTIFY_SOURCE",  # its longjmp refuses to change stacks
    "-mfma",
    "-ffp-contract=off",  # fused only where the source says fma: the same bits as on the GPU
    "-fno-strict-aliasing",
    "-fno-tree-loop-distribute-patterns",  # a memset call would escape the memory checker
    "-fno-threadsafe-statics",
    "-fno-gnu-unique",  # or libraries with kernels of one name would share their static variables
)
_MODES = {
    "fast": ("-O2",),
    "check": (
        "-Og",  # builds in half the time of -O1, runs in one and a half
        "-ftrivial-auto-var-init=pattern",  # uninitialised variables are huge numbers, not zero
        "-fsanitize=thread",
        "--param=tsan-instrument-func-entry-exit=0",
        "-fsanitize=bounds,alignment,signed-integer-overflow,shift,integer-divide-by-zero",
    ),
}

# Plain C++ cannot say these two. The replacements keep the line numbers.
_DYNAMIC_SHARED = re.compile(
    r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\(\w+\)\s*)?"
    r"(?P<type>[\w:<>]+(?:\s+[\w:<>]+)*?)\s+(?P<name>\w+)\s*\[\s*\]\s*;"
)
_SHARED_ALIGNAS = re.compile(r"__shared__\s+(alignas\s*\(\w+\))")


class CompileException(Exception):
    """A source that does not compile; the same attributes as ``cupy.cuda.compiler``'s."""

    def __init__(self, msg, source, name, options, backend="nvrtc"):
        super().__init__(msg)
        self._msg = msg
        self.source = source
        self.name = name
        self.options = options
        self.backend = backend

    def __str__(self):
        return self._msg

    def get_message(self):
        """Return the compiler's log."""
        return self._msg

    def dump(self, f):
        """Write the log and the numbered source to a file object."""
        f.write(f"{self._msg}\n")
        for number, line in enumerate(self.source.split("\n"), 1):
            f.write(f"{number:4d} {line}\n")


def cache_directory():
    """Return the folder of built libraries, ``CUVARCONV_EMULATOR_CACHE`` if that is set."""
    path = os.environ.get("CUVARCONV_EMULATOR_CACHE")
    if not path:
        path = Path(tempfile.gettempdir()) / f"cuvarconv-emulator-{getpass.getuser()}"
    path = Path(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user: set CUVARCONV_EMULATOR_CACHE")
    return path


@functools.cache
def _toolchain():
    """Return what a build depends on besides the kernel: compiler, runtime, headers."""
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
    sources = [(HERE / name).read_text() for name in (*RUNTIME_SOURCES, *SHIM_HEADERS)]
    includes = [str(d) for d in headers.for_host_compiler()]
    return (version.stdout, *sources, *includes, *_COMMON)


@contextlib.contextmanager
def _lock(path):
    """Let one process at a time build a file, so that the others find it done."""
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_failures = {}  # a source that failed is not tried again by each test


def _cached(key, suffix, make):
    """Return the file for a key, made by ``make(temporary path)`` if it is not there yet."""
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
    if digest in _failures:
        raise _failures[digest]
    path = cache_directory() / (digest + suffix)
    if path.exists():
        return path
    with _lock(path):
        if not path.exists():
            temporary = path.with_name(f"{digest}.{os.getpid()}.tmp{suffix}")
            try:
                make(temporary)
            except CompileException as error:
                _failures[digest] = error
                raise
            temporary.replace(path)  # atomic: nobody sees half a file
    return path


def _compile(arguments, source, name, options):
    command = ["g++", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise CompileException(result.stderr, source, name, options, "g++")


def _runtime_object():
    def make(path):
        sources = [HERE / name for name in RUNTIME_SOURCES]
        _compile([*_COMMON, "-O2", "-r", "-nostdlib", *sources, "-o", path], "", "runtime", ())

    return _cached(("runtime", _toolchain()), ".o", make)


def translate(source, names):
    """Return the C++ translation unit for a CUDA source and the kernels wanted from it."""
    body = _DYNAMIC_SHARED.sub(
        r"\g<type>* const \g<name> = "
        r"reinterpret_cast<\g<type>*>(::emulator::dynamic_shared);",
        source,
    )
    body = _SHARED_ALIGNAS.sub(r"\1 __shared__", body)
    entries = "\n".join(f"EMULATOR_KERNEL({i}, {name})" for i, name in enumerate(names))
    return f'#include "shim.h"\n#line 1 "kernel.cu"\n{body}\n#line 1 "instantiations"\n{entries}\n'


def relevant_options(options):
    """Return those of NVRTC's options that matter to g++."""
    return tuple(o for o in options if o.startswith(("-D", "-U", "-I")))


def build_library(source, names, options=(), mode="check"):
    """
    Compile a CUDA source into a shared library that the emulator can run.

    Parameters
    ----------
    source : str
        The text of a ``.cu`` file, local includes expanded.
    names : sequence of str
        Name expressions of the kernels, such as ``"scale<float, 4>"``.
    options : sequence of str
        NVRTC's options; see `relevant_options`.
    mode : {"check", "fast"}
        Whether the memory checks are compiled in.

    Returns
    -------
    pathlib.Path
        The library, from the cache where possible.

    Raises
    ------
    CompileException
        With the log of g++.
    """
    unit = translate(source, names)
    definitions = relevant_options(options)
    includes = [f"-I{HERE}", *(f"-isystem{d}" for d in headers.for_host_compiler())]

    def make(path):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unit_path = Path(folder) / "kernel.cu"
            unit_path.write_text(unit)
            object_path = Path(folder) / "unit.o"
            flags = [*_COMMON, *_MODES[mode], *definitions, *includes, "-x", "c++"]
            _compile([*flags, "-c", unit_path, "-o", object_path], source, "kernel.cu", options)
            link = ["-shared", "-Wl,-Bsymbolic", "-o", path, object_path, _runtime_object()]
            _compile(link, source, "kernel.cu", options)

    return _cached((unit, definitions, mode, _MODES[mode], _toolchain()), ".so", make)
