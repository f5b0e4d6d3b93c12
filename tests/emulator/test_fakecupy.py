"""The stand-in for cupy behaves as CuPy does where the library depends on it."""

import operator
from types import SimpleNamespace

import numpy as np
import pytest

import emulator

REASON = emulator.unavailable()
if REASON:
    pytest.skip(REASON, allow_module_level=True)

from emulator import fakecupy, fakedevice  # noqa: E402  they import what only Linux has
from emulator.arguments import KernelError  # noqa: E402

ml_dtypes = pytest.importorskip("ml_dtypes")
cupy = fakecupy.make_modules()["cupy"]


@pytest.fixture
def x():
    return cupy.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))


# ---- NumPy and device arrays do not mix ----------------------------------------------------------


def test_not_a_numpy_array(x):
    assert not isinstance(x, np.ndarray)
    assert not hasattr(x, "__cuda_array_interface__")
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
        np.asarray(x)


@pytest.mark.parametrize("function", [operator.add, operator.mul, operator.eq, operator.iadd])
@pytest.mark.parametrize("reverse", [False, True])
def test_operators_refuse_numpy_arrays(x, function, reverse):
    operands = (x, np.ones((3, 4)))
    with pytest.raises(TypeError, match="Unsupported type"):
        function(*(operands[::-1] if reverse else operands))


def test_functions_and_assignment_refuse_numpy_arrays(x):
    for call in (
        lambda: cupy.add(x, np.ones(4)),
        lambda: np.add(x, np.ones(4)),
        lambda: cupy.copyto(x, np.ones(4)),
        lambda: cupy.where(np.ones(4, bool), x, x),
        lambda: operator.setitem(x, 0, np.ones(4)),
        lambda: cupy.from_dlpack(np.ones(4)),
    ):
        with pytest.raises((TypeError, BufferError)):
            call()


def test_operators(x):
    host = x.get()
    for result, expected in (
        (x + 1, host + 1),
        (2.0 / (x + 1), 2 / (host + 1)),
        (np.float32(3) * x, 3 * host),
        (x @ x.T, host @ host.T),
        (-x, -host),
        (x > 3, host > 3),
        (np.exp(x), np.exp(host)),
        (np.sum(x, axis=0), host.sum(0)),
        (cupy.moveaxis(x, 0, -1), host.T),
        (cupy.conj(x), host),
    ):
        assert isinstance(result, cupy.ndarray)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result.get(), expected)


def test_in_place(x):
    same = x
    x += 1
    assert same is x
    np.testing.assert_array_equal(x.get(), np.arange(1, 13).reshape(3, 4))


def test_reductions_are_0d_arrays(x):
    for reduced in (x.max(), x.sum(), (x > 5).any(), x[1, 2]):
        assert isinstance(reduced, cupy.ndarray)
        assert reduced.shape == ()
    assert float(x.max()) == 11
    assert int(x.min()) == 0
    assert bool((x >= 0).all())
    assert x[1, 2].item() == 6


# ---- layout --------------------------------------------------------------------------------------


def test_views_share_memory(x):
    for view in (
        x.T,
        x[::-1],
        x[1],
        x[1, 2],
        x.reshape(4, 3),
        x.ravel(),
        x[:, None],
        x.view(np.int32),
    ):
        assert view.base is x
        assert cupy.shares_memory(view, x)
    assert x[::2].T[1:].base is x
    assert x[::-1].data.ptr == x.data.ptr + 32
    assert x[1:].data.ptr - x.data.ptr == 16
    x[1, 2][...] = 99
    assert float(x[1, 2]) == 99
    assert not cupy.shares_memory(x[::2], x[1::2])
    assert not cupy.shares_memory(x, x.copy())


def test_complex_parts():
    z = cupy.asarray(np.array([1 + 2j, 3 + 4j], np.complex64))
    z.imag[...] = 0
    np.testing.assert_array_equal(z.get(), [1, 3])
    assert z.real.strides == (8,)
    assert float(cupy.ones(3).imag.max()) == 0


def test_flags_and_layout(x):
    assert x.flags.c_contiguous
    assert not x.T.flags.c_contiguous
    assert x.T.flags["F_CONTIGUOUS"]
    assert not hasattr(x.flags, "writeable")
    assert (x.shape, x.strides, x.ndim, x.size, x.itemsize, x.nbytes) == (
        (3, 4),
        (16, 4),
        2,
        12,
        4,
        48,
    )
    assert cupy.ascontiguousarray(x) is x
    assert cupy.ascontiguousarray(x.T).flags.c_contiguous
    assert len(x) == 3
    assert [row.shape for row in x] == [(4,)] * 3


def test_broadcast_to_copies_nothing(x):
    wide = cupy.broadcast_to(x[:, None], (3, 5, 4))
    assert wide.strides == (16, 0, 4)
    assert wide.base is x
    assert cupy.shares_memory(wide, x)


def test_as_strided(x):
    windows = cupy.lib.stride_tricks.as_strided(x, (3, 3, 2), (16, 4, 4))
    assert windows.base is x
    np.testing.assert_array_equal(windows.get()[:, :, 1], x.get()[:, 1:])


def test_creation():
    assert np.isnan(cupy.empty((2, 3), np.float16).get()).all()
    assert cupy.empty(3).data.ptr % 256 == 0
    assert cupy.full((2,), 7, np.int8).get().tolist() == [7, 7]
    assert cupy.ones((2,), cupy.float32).dtype == np.float32
    assert cupy.arange(3, dtype=np.int64).get().tolist() == [0, 1, 2]
    assert cupy.zeros_like(cupy.ones((2, 3), order="F")).flags.f_contiguous
    assert cupy.array([1, 2], dtype=np.float32).dtype == np.float32
    assert cupy.zeros((0, 3)).size == 0
    assert cupy.asarray(x := cupy.ones(2)) is x
    assert cupy.array(x) is not x
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cupy.empty(3, object)


def test_bfloat16():
    host = np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3)
    device = cupy.asarray(host)
    assert device.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(device.T.get(), host.T)
    assert device.astype(np.float32).dtype == np.float32
    assert cupy.result_type(device, np.float32) == np.float32
    np.testing.assert_array_equal((device + device).get(), host + host)


def test_set_and_get(x):
    x.set(np.zeros((3, 4), np.float32))
    assert float(x.sum()) == 0
    out = np.ones((3, 4), np.float32)
    assert x.get(out=out) is out
    assert out.sum() == 0
    with pytest.raises(ValueError, match="set to"):
        x.set(np.zeros((3, 4)))


# ---- protocols -----------------------------------------------------------------------------------


def test_dlpack(x):
    class Foreign:
        __dlpack_device__ = x.__dlpack_device__
        __dlpack__ = x.__dlpack__

    assert x.__dlpack_device__() == (2, 0)
    view = cupy.from_dlpack(Foreign())
    assert (view.data.ptr, view.strides, view.dtype) == (x.data.ptr, x.strides, x.dtype)
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever NumPy says, it gets nothing
        np.from_dlpack(x)


def test_array_namespace(x):
    assert x.__array_namespace__() is cupy
    assert cupy.get_array_module(x) is cupy
    assert cupy.get_array_module(np.ones(2)) is np


# ---- devices and streams -------------------------------------------------------------------------


def test_devices(x):
    assert cupy.cuda.runtime.getDeviceCount() == 2
    with cupy.cuda.Device(1) as device:
        assert cupy.cuda.runtime.getDevice() == 1
        assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
        y = cupy.zeros((3, 4), np.float32)
        assert cupy.asarray(x).device == device
    assert cupy.cuda.runtime.getDevice() == 0
    assert (x.device.id, y.device.id, y[1:].device.id) == (0, 1, 1)
    assert y.__dlpack_device__() == (2, 1)
    assert not cupy.shares_memory(x, y)
    with pytest.raises(ValueError, match=r"resides \(1\) is different from the current device \(0\)"):
        x + y
    with pytest.raises(fakedevice.CUDARuntimeError):
        cupy.cuda.Device(2)


def test_launch_on_another_device():
    code = 'extern "C" __global__ void f(int* x) { *x = 1; }'
    with cupy.cuda.Device(1):
        y = cupy.zeros(1, np.int32)
        cupy.RawModule(code=code).get_function("f")((1,), (1,), (y,))
    assert int(y[0].get()) == 1
    with pytest.raises(KernelError, match="array on device 1, launch on device 0"):
        cupy.RawModule(code=code).get_function("f")((1,), (1,), (y,))


def test_streams():
    assert cupy.cuda.get_current_stream().ptr == 0
    other = SimpleNamespace(__cuda_stream__=lambda: (0, 77))
    with cupy.cuda.Stream.from_external(other):
        assert cupy.cuda.get_current_stream().ptr == 77
        with cupy.cuda.Stream() as inner:
            assert cupy.cuda.get_current_stream() == inner
        assert cupy.cuda.get_current_stream().ptr == 77
        with cupy.cuda.Device(1):
            assert cupy.cuda.get_current_stream().ptr == 0
    assert cupy.cuda.get_current_stream().ptr == 0


def test_memoize():
    calls = []

    @cupy.memoize(for_each_device=True)
    def remembered(value):
        calls.append(value)
        return value

    for device in (0, 0, 1, 1):
        with cupy.cuda.Device(device):
            assert remembered(5) == 5
    assert calls == [5, 5]


def test_memory_is_counted():
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    array = cupy.empty(1000, np.float32)
    view = array[10:]
    assert pool.used_bytes() == before + 4000
    del array
    assert pool.used_bytes() == before + 4000
    del view
    assert pool.used_bytes() == before
