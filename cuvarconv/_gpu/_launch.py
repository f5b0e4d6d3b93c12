"""One module factory and one launcher for all kernels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import cupy

from cuvarconv._gpu._sources import kernel_source

OPTIONS = ("-std=c++17",)

# the T of a kernel, by computing dtype
CPP_TYPES = {
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "float32": "float",
    "float64": "double",
    "complex64": "c64",
    "complex128": "c128",
}

MOST_BLOCKS = (1 << 31) - 1
_RESERVED = 1 << 10  # bytes that the system takes of each block's shared memory


@cupy.memoize(for_each_device=True)
def _function(source: str, expression: str) -> Any:
    """Compile one instantiation, or load it from CuPy's disk cache."""
    module = cupy.RawModule(code=kernel_source(source), options=OPTIONS, name_expressions=(expression,))
    try:
        kernel = module.get_function(expression)
    except cupy.cuda.compiler.CompileException as error:
        raise RuntimeError(f"kernels/{source}.cu: {expression} does not compile:\n{error}") from error
    # All that there is: 48 KiB, unless asked for more, are for static and dynamic shared memory together.
    kernel.max_dynamic_shared_size_bytes = most_shared_memory() - kernel.shared_size_bytes
    return kernel


@dataclass(frozen=True)
class Launch:
    """A kernel of the current device, ready to be launched."""

    kernel: Any
    blocks: int
    threads: int
    arguments: tuple[Any, ...]
    shared: int

    def run(self, arguments: Sequence[Any]) -> None:
        """Launch on the current stream."""
        self.kernel((self.blocks,), (self.threads,), arguments, shared_mem=self.shared)

    def without(self, places: Sequence[int]) -> Launch:
        """Return the launch with some arguments left out, so that it keeps no array alive."""
        left = tuple(None if place in places else each for place, each in enumerate(self.arguments))
        return replace(self, arguments=left)


_watched = threading.local()


@contextmanager
def watching(see: Callable[[Launch], None]) -> Iterator[None]:
    """Show this thread's launches to `see`, one after the other."""
    before, _watched.see = getattr(_watched, "see", None), see
    try:
        yield
    finally:
        _watched.see = before


def launch(
    source: str, expression: str, blocks: int, threads: int, arguments: Sequence[Any], shared: int
) -> None:
    """Launch ``expression`` of ``kernels/<source>.cu`` on the current stream."""
    kernel = _function(source, expression)
    prepared = Launch(kernel, blocks, threads, tuple(arguments), shared)
    prepared.run(prepared.arguments)
    see = getattr(_watched, "see", None)
    if see is not None:
        see(prepared)


@cupy.memoize(for_each_device=True)
def most_shared_memory() -> int:
    """Return the bytes of shared memory that a block may have."""
    return int(cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"])


@cupy.memoize(for_each_device=True)
def shared_memory_per_block() -> int:
    """Return the bytes of shared memory with which two blocks fit on a multiprocessor."""
    half = cupy.cuda.Device().attributes["MaxSharedMemoryPerMultiprocessor"] // 2 - _RESERVED
    return min(most_shared_memory(), half)
