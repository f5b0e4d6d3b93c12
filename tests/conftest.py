"""The backends that the tests of array functions run on, and settings for property-based tests."""

import contextlib
import os
import sys
import zlib

import emulator
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from traffic import traffic

# Examples are the same in every run, so that a failure in CI is the failure at home.
settings.register_profile(
    "cuvarconv",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("cuvarconv")

NO_LAUNCH = "no_launch(reason): on CUDA the test launches no kernel (errors, empty results)"


CUPY = pytest.StashKey()


def pytest_configure(config):
    """Settle what `cupy` is before anything imports the library."""
    config.addinivalue_line("markers", NO_LAUNCH)
    cupy = _real_cupy()
    if cupy is not None:
        emulator.watch(cupy)
    elif os.environ.get("CUVARCONV_DEVICE") != "gpu" and emulator.unavailable() is None:
        cupy = emulator.install()
    config.stash[CUPY] = cupy


PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Let fixtures see whether their test has passed."""
    report = yield
    if call.when == "call":
        item.stash[PASSED] = report.passed
    return report


class Backend:
    """Arrays of one backend, made from NumPy arrays and back."""

    name = "numpy"
    module = np
    is_emulated = False

    def asarray(self, array):
        """Return the backend's array, with a NumPy array's values."""
        return np.asarray(array)

    def to_numpy(self, array):
        """Return a result as a NumPy array; anything but the backend's own array is an error."""
        assert type(array) is np.ndarray
        return array

    def as_strided(self, array, shape, strides):
        """Return a view with these strides, in bytes."""
        return np.lib.stride_tricks.as_strided(array, shape, strides)


class CudaBackend(Backend):
    """CuPy, real or the emulator's stand-in."""

    name = "cuda"

    def __init__(self, module):
        self.module = module
        self.is_emulated = getattr(module, "is_fake", False)

    def asarray(self, array):
        array = np.asarray(array)
        return self.module.asarray(array.astype(array.dtype.newbyteorder("="), copy=False))

    def to_numpy(self, array):
        assert type(array) is self.module.ndarray
        return array.get()

    def as_strided(self, array, shape, strides):
        return self.module.lib.stride_tricks.as_strided(array, shape, strides)


def _real_cupy():
    """Return CuPy where it finds a GPU, else None."""
    try:
        import cupy

        available = cupy.cuda.runtime.getDeviceCount() > 0
    except Exception:  # not installed, no driver, no device
        return None
    return cupy if available else None


@pytest.fixture(scope="session")
def cuda_backend(pytestconfig):
    """CuPy on a GPU, else on the emulator; skipped by name where neither runs."""
    cupy = pytestconfig.stash[CUPY]
    if cupy is not None:
        return CudaBackend(cupy)
    if os.environ.get("CUVARCONV_DEVICE") == "gpu":
        pytest.fail("CUVARCONV_DEVICE=gpu, but CuPy finds no GPU")
    pytest.skip(f"no GPU, and {emulator.unavailable()}")


@pytest.fixture(scope="session")
def instantiations(cuda_backend):
    """Every kernel that the library may launch; on the emulator they are built together."""
    from cuvarconv._gpu._instantiations import instantiations
    from cuvarconv._gpu._sources import kernel_source

    by_source = instantiations()
    if cuda_backend.is_emulated:
        from emulator import launch

        for source, names in by_source.items():
            launch.batch(kernel_source(source), names)
        launch.prebuild()
    return {name for names in by_source.values() for name in names}


@pytest.fixture
def profiled(cuda_backend, instantiations):
    """Count the memory traffic of a call by source line; see `traffic`."""
    if not cuda_backend.is_emulated:
        pytest.skip("counts come from the emulator; a GPU's come from its profiler")
    return traffic


@pytest.fixture(autouse=True)
def planned_afresh():
    """Let no test launch what another one has planned, with other limits perhaps."""
    module = sys.modules.get("cuvarconv._gpu._kept")
    if module is not None:
        module.kept.clear()


def _shuffled(name, backend):
    """On the emulator, run threads forward, backward or in random order, by the name of a test."""
    if not backend.is_emulated:
        return contextlib.nullcontext()
    from emulator import launch

    orders = ("forward", "backward", 7)
    return launch.configured(order=orders[zlib.crc32(name.encode()) % len(orders)])


@pytest.fixture(params=["numpy", "cuda"])
def xp(request):
    """One backend after the other; on CUDA, fails where the test has launched no kernel."""
    if request.param == "numpy":
        yield Backend()
        return
    backend = request.getfixturevalue("cuda_backend")
    known = request.getfixturevalue("instantiations")
    with _shuffled(request.node.name, backend), emulator.recording() as launches:
        yield backend
    assert set(launches.names) <= known
    passed = request.node.stash.get(PASSED, False)
    if passed and request.node.get_closest_marker("no_launch") is None:
        assert launches, "the test has launched no kernel"


@pytest.fixture(scope="session")
def cuda_tensors(pytestconfig):
    """Skip by name where PyTorch and CuPy do not both find a GPU."""
    torch = pytest.importorskip("torch")
    cupy = pytestconfig.stash[CUPY]
    if cupy is not None and not getattr(cupy, "is_fake", False) and torch.cuda.is_available():
        return
    if os.environ.get("CUVARCONV_DEVICE") == "gpu":
        pytest.fail("CUVARCONV_DEVICE=gpu, but PyTorch and CuPy do not both find a GPU")
    pytest.skip("no GPU that PyTorch and CuPy both find")


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Where PyTorch's tensors live, one place after the other."""
    if request.param == "cuda":
        request.getfixturevalue("cuda_tensors")
    return request.param
