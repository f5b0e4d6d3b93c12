"""Blocks of work over host threads."""

from __future__ import annotations

import functools
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

Block = TypeVar("Block")

# NumPy copies operands to a buffer where two of their rows fit into it, which takes as long as adding them.
_BUFFER = 512  # numbers

_WITH_AVX512 = "SkylakeX", "Cooperlake", "SapphireRapids"  # what OpenBLAS calls its kernels

_requested: ContextVar[int | None] = ContextVar("cuvarconv_workers", default=None)


def get_workers() -> int:
    """Return the number of host threads that functions use.

    It is the number of processors that this process may run on, unless `set_workers` says
    otherwise.  Arrays on a CUDA device do not use host threads.

    Returns
    -------
    int

    Examples
    --------
    >>> import cuvarconv
    >>> with cuvarconv.set_workers(2):
    ...     cuvarconv.get_workers()
    2
    """
    requested = _requested.get()
    return _processors() if requested is None else requested


def set_workers(workers: int) -> AbstractContextManager[None]:
    """Use `workers` host threads within a ``with`` block.

    The results are the same bits for any number of threads.

    Parameters
    ----------
    workers : int
        At least 1.

    Raises
    ------
    TypeError
        If `workers` is not an int.
    ValueError
        If it is below 1.

    Examples
    --------
    >>> import cuvarconv
    >>> with cuvarconv.set_workers(1):
    ...     cuvarconv.correlate([[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0]])
    array([[1., 2.],
           [3., 4.]])
    """
    try:
        count = operator.index(workers)
    except TypeError:
        raise TypeError(f"workers: expected an int, got {workers!r}") from None
    if count < 1:
        raise ValueError(f"workers: expected at least 1, got {count}")
    return _workers(count)


@contextmanager
def _workers(count: int) -> Iterator[None]:
    token = _requested.set(count)
    try:
        yield
    finally:
        _requested.reset(token)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Pool:
    """Threads that outlive a call; made on first use, anew after a fork and for more workers."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._size = 0
        self._executor: ThreadPoolExecutor | None = None

    def executor(self, size: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None or self._size < size:
                if self._executor is not None:
                    self._executor.shutdown(wait=False)  # what it was given still runs
                self._executor = ThreadPoolExecutor(size, thread_name_prefix="cuvarconv")
                self._size = size
            return self._executor


_pool = _Pool()


def for_each(
    function: Callable[[Block], None], blocks: Sequence[Block], *, most_workers: int = 1 << 30
) -> None:
    """Call `function` on every block, in this thread and in up to `get_workers` − 1 others.

    The first exception, Ctrl-C included, stops all of them after the block at hand.
    """
    jobs = min(len(blocks), most_workers)
    helpers = min(get_workers(), jobs) - 1 if jobs > 1 else 0
    if helpers < 1:
        _call_on_all(function, blocks)
        return
    crew = _Crew(function, blocks)
    try:
        for _ in range(helpers):
            _submit(crew.help, helpers)
        crew.work()
        crew.finish()
    except BaseException:  # Ctrl-C comes anywhere: leave no thread behind that still writes
        crew.finish()
        raise
    if crew.errors:
        raise crew.errors.pop(0)


@np.errstate(all="ignore")
def _call_on_all(function: Callable[[Block], None], blocks: Iterable[Block]) -> None:
    np.setbufsize(_BUFFER)  # `errstate` sets it back
    for block in blocks:
        function(block)


class _Crew:
    """The threads that share the blocks of one call."""

    def __init__(self, function: Callable[[Block], None], blocks: Sequence[Block]) -> None:
        self.errors: list[BaseException] = []
        self._function, self._pending = function, iter(blocks)
        self._state = threading.Condition()  # guards what follows, and the blocks
        self._closed = False
        self._helping = 0

    def work(self) -> None:
        """Take block after block, until there are none or someone has failed."""
        _call_on_all(self._function, self._taken())

    def _taken(self) -> Iterator[Any]:
        while True:
            with self._state:
                block = None if self._closed else next(self._pending, None)
            if block is None:
                return
            yield block

    def help(self) -> None:
        """Work in a thread of the pool, unless that starts too late."""
        with self._state:
            if self._closed:
                return
            self._helping += 1
        try:
            self.work()
        except BaseException as error:  # raised again by the caller's thread
            self.errors.append(error)
            self._closed = True
        finally:
            with self._state:
                self._helping -= 1
                self._state.notify_all()

    def finish(self) -> None:
        """Give out no more blocks, and wait for those at hand."""
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: self._helping == 0)


def _submit(task: Callable[[], None], size: int) -> None:
    """Give the pool a task, unless no thread can be had, as at the interpreter's exit."""
    previous = None
    while (executor := _pool.executor(size)) is not previous:
        try:
            executor.submit(task)
            return
        except RuntimeError:  # perhaps replaced by a larger pool between the two calls
            previous = executor


class _SerialBlas:
    """BLAS kept to one thread while any call is inside: the blocks are what runs in parallel."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._threads: list[int] = []  # that each library had before

    def _leave(self) -> None:
        """In a child process, end the limits of calls that its parent was inside of."""
        before = self._threads if self._inside else []
        self._forget()
        if before:
            _set_threads(before)

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._threads = [library.get_num_threads() for library in _blas_libraries()]
                _set_threads([1] * len(self._threads))
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _set_threads(self._threads)


serial_blas = _SerialBlas()


@functools.cache
def _blas_libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


@functools.cache
def has_small_products() -> bool:
    """Whether BLAS multiplies small matrices without putting them in order first, up to twice as fast.

    OpenBLAS does with AVX-512, in float32 and float64.
    """
    return any(getattr(library, "architecture", None) in _WITH_AVX512 for library in _blas_libraries())


def _set_threads(counts: list[int]) -> None:
    """Set the threads of each BLAS library; `ThreadpoolController.limit` would take several times as long.

    threadpoolctl 3.8 ignores all threads but the first one that sets those of OpenBLAS, while here the
    last call to leave, in any thread, ends the limit.
    """
    from threadpoolctl import OpenBLASController

    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)
    for library, count in zip(_blas_libraries(), counts, strict=True):
        library.set_num_threads(count)
