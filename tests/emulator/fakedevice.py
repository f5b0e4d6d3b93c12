"""Simulated CUDA devices and streams: the stand-ins for ``cupy.cuda.Device`` and its kin."""

import threading

DEVICE_COUNT = 2
VERSION = 12090  # of the CUDA runtime and driver that are simulated


class CUDARuntimeError(RuntimeError):
    """Stands in for ``cupy.cuda.runtime.CUDARuntimeError``."""


class _ThreadState(threading.local):
    """The current device and streams, which belong to the host thread."""

    def __init__(self):
        self.device = 0
        self.streams = {}  # by device


_thread = _ThreadState()


def current_device():
    """Return the id of the current device."""
    return _thread.device


def set_device(device):
    """Make a device current."""
    device = int(device)
    if not 0 <= device < DEVICE_COUNT:
        raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
    _thread.device = device


class Device:
    """A simulated device; a test may change the class attributes to simulate another chip."""

    compute_capability = "90"
    attributes = {  # noqa: RUF012  one for all devices, on purpose
        "ComputeCapabilityMajor": 9,
        "ComputeCapabilityMinor": 0,
        "MaxGridDimX": 2**31 - 1,
        "MaxGridDimY": 65535,
        "MaxGridDimZ": 65535,
        "MaxSharedMemoryPerBlock": 48 << 10,
        "MaxSharedMemoryPerBlockOptin": 227 << 10,
        "MaxSharedMemoryPerMultiprocessor": 228 << 10,
        "MaxThreadsPerBlock": 1024,
        "MaxThreadsPerMultiProcessor": 2048,
        "MultiProcessorCount": 132,
        "WarpSize": 32,
    }
    mem_info = (70 << 30, 80 << 30)

    def __init__(self, device=None):
        self.id = current_device() if device is None else int(device)
        if not 0 <= self.id < DEVICE_COUNT:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._previous = []

    def __enter__(self):
        self._previous.append(current_device())
        set_device(self.id)
        return self

    def __exit__(self, *exception):
        set_device(self._previous.pop())

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def use(self):
        """Make this device current."""
        set_device(self.id)

    def synchronize(self):
        """Do nothing: launches are finished when they return."""


class _BaseStream:
    capturing = False

    def __init__(self, ptr, device_id):
        self.ptr = ptr
        self.device_id = device_id
        self.done = True
        self._previous = []

    def _key(self):
        return current_device() if self.device_id < 0 else self.device_id

    def __enter__(self):
        self._previous.append(_thread.streams.get(self._key(), Stream.null))
        self.use()
        return self

    def __exit__(self, *exception):
        _thread.streams[self._key()] = self._previous.pop()

    def __eq__(self, other):
        return isinstance(other, _BaseStream) and self.ptr == other.ptr

    def __hash__(self):
        return hash(self.ptr)

    def __repr__(self):
        return f"<{type(self).__name__} {self.ptr} (device {self.device_id})>"

    def use(self):
        """Make this stream current on its device."""
        _thread.streams[self._key()] = self
        return self

    def synchronize(self):
        """Do nothing: launches are finished when they return."""

    def is_capturing(self):
        """Return whether the stream is being captured: only where a test says so."""
        return self.capturing


class Stream(_BaseStream):
    """A stream of its own, or the null stream."""

    _next_ptr = 0x5000

    def __init__(self, null=False, non_blocking=False, ptds=False):
        if not null:
            Stream._next_ptr += 0x10
        super().__init__(0 if null else Stream._next_ptr, -1 if null else current_device())

    @classmethod
    def from_external(cls, other):
        """Return another library's stream, which tells its version and pointer."""
        version, ptr = other.__cuda_stream__()
        if version != 0:
            raise ValueError(f"unknown version {version} of the stream protocol")
        stream = cls(null=True)
        stream.ptr = int(ptr)
        return stream


Stream.null = Stream(null=True)


def current_stream(device_id=-1):
    """Return the current stream of a device, by default the current one."""
    return _thread.streams.get(current_device() if device_id < 0 else device_id, Stream.null)


def device_properties(device):
    """Return what ``cupy.cuda.runtime.getDeviceProperties`` does, in part."""
    attributes = Device(device).attributes
    major, minor = divmod(int(Device.compute_capability), 10)
    return {
        "name": b"emulated device",
        "major": major,
        "minor": minor,
        "multiProcessorCount": attributes["MultiProcessorCount"],
        "sharedMemPerBlock": attributes["MaxSharedMemoryPerBlock"],
        "sharedMemPerBlockOptin": attributes["MaxSharedMemoryPerBlockOptin"],
        "sharedMemPerMultiprocessor": attributes["MaxSharedMemoryPerMultiprocessor"],
        "maxThreadsPerBlock": attributes["MaxThreadsPerBlock"],
        "warpSize": attributes["WarpSize"],
        "totalGlobalMem": Device.mem_info[1],
    }
