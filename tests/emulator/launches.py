"""A log of kernel launches, the same for the emulator and for a real GPU."""

import contextlib
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """One launch: the kernel's name expression, its geometry, and where it ran."""

    name: str
    grid: tuple
    block: tuple
    shared_mem: int
    device: int
    stream: int  # the stream's pointer; 0 is the default stream


class Launches(list):
    """The launches that were recorded, in order."""

    @property
    def names(self):
        """The kernels' name expressions, in order."""
        return [launch.name for launch in self]

    @property
    def counts(self):
        """How often each kernel was launched."""
        return {name: self.names.count(name) for name in dict.fromkeys(self.names)}


_active = []
_lock = threading.Lock()


@contextlib.contextmanager
def recording():
    """Record the launches, by all threads, within a ``with`` block; yields a `Launches`."""
    launches = Launches()
    with _lock:
        _active.append(launches)
    try:
        yield launches
    finally:
        with _lock:  # by identity: two empty lists are equal
            _active[:] = [active for active in _active if active is not launches]


def three(sizes):
    """Return a grid or block with three entries; CuPy raises 0 to 1 too."""
    return tuple(max(1, int(size)) for size in (*sizes, 1, 1)[:3])


def note(launch):
    """Add a launch to all logs that are being recorded."""
    with _lock:
        for launches in _active:
            launches.append(launch)


class _RecordedKernel:
    """A ``cupy.RawKernel`` that notes its launches and is otherwise the original."""

    def __init__(self, kernel, name, cupy):
        self.__dict__.update(_kernel=kernel, _name=name, _cupy=cupy)

    def __getattr__(self, attribute):
        return getattr(self._kernel, attribute)

    def __setattr__(self, attribute, value):
        setattr(self._kernel, attribute, value)

    def __call__(self, grid, block, args, *, shared_mem=0, **keywords):
        self._kernel(grid, block, args, shared_mem=shared_mem, **keywords)
        cuda = self._cupy.cuda
        device, stream = cuda.runtime.getDevice(), cuda.get_current_stream().ptr
        note(Launch(self._name, three(grid), three(block), shared_mem, device, stream))


class _RecordedModule:
    """A ``cupy.RawModule`` whose kernels are recorded."""

    def __init__(self, module, cupy):
        self.__dict__.update(_module=module, _cupy=cupy)

    def __getattr__(self, attribute):
        return getattr(self._module, attribute)

    def get_function(self, name):
        """Return the named kernel, recorded."""
        return _RecordedKernel(self._module.get_function(name), name, self._cupy)


def watch(cupy):
    """Make the real cupy record its launches. Call before the library makes its kernels."""
    original = cupy.RawModule

    def recorded_module(*args, **keywords):
        return _RecordedModule(original(*args, **keywords), cupy)

    cupy.RawModule = recorded_module
