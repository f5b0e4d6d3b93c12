"""What the Gaussian's kernels read and compute, counted by the emulator, and how large their tiles are."""

import emulator
import numpy as np
import pytest
from scipy import ndimage
from tolerances import assert_close, noise
from traffic import PIXELS as TILE_PIXELS
from traffic import read_by

import cuvarconv
from cuvarconv._window import make_window

LINES, COLUMNS = 16, 32  # float32 outputs of a block
CHUNK = 8
SIDE = 32  # pixels of a block, along both axes, of the gradient in the image
NARROW, WIDE = 0.5, 3.0  # σ, and with truncate=4 the radii
RADII = {NARROW: 2, WIDE: 12}
PIXELS = "from[place<V>(c, pitch)]"


def size(rows):
    return sum(row.bytes for row in rows)


def image_reads(rows):
    """Return the bytes that are read of an image whose width allows no vectors."""
    return size(read_by(rows, TILE_PIXELS))


def tile_bytes(radius):
    padded = -(-radius // CHUNK) * CHUNK
    return 4 * (LINES + 2 * radius) * (COLUMNS + 2 * padded)


@pytest.fixture
def blurred(cuda_backend, profiled):
    """Return the traffic of a call with a σ map, on an image that wraps: every pixel exists."""

    def call(map_, **keywords):
        x = cuda_backend.asarray(noise(map_.shape, "float32"))
        sigma = cuda_backend.asarray(map_)
        return profiled("gaussian", lambda: cuvarconv.gaussian_filter(x, sigma, mode="wrap", **keywords))

    return call


def test_the_image_is_requested_once_per_tile(blurred):
    map_ = np.full((2 * LINES, 3 * COLUMNS - 1), NARROW)
    rows = blurred(map_)
    beyond = 2 * 4 * (LINES + 2 * RADII[NARROW])  # no output reads the last column of the last tiles
    assert image_reads(rows) == 6 * tile_bytes(RADII[NARROW]) - beyond
    assert size(row for _, row in rows if (row.space, row.access) == ("global", "write")) == 4 * map_.size


def test_kernels_are_not_read_from_memory(blurred):
    """Beside the image, only σ once per axis and pixel, and the index tables."""
    map_ = np.full((2 * LINES, 3 * COLUMNS - 1), NARROW)
    rows = blurred(map_)
    reads = size(row for _, row in rows if (row.space, row.access) == ("global", "read"))
    tables = size(row for line, row in rows if ".sources[" in line and row.access == "read")
    assert reads - image_reads(rows) - tables == 2 * map_.nbytes


@pytest.mark.parametrize("turned", [False, True])
def test_a_tile_reaches_as_far_as_its_own_widest_pixel(blurred, turned):
    angle = {"angle": 0.5} if turned else {}
    map_ = np.full((2 * LINES, 3 * COLUMNS - 1), NARROW)
    map_[LINES + 3, 5] = WIDE
    assert image_reads(blurred(map_, **angle)) == 5 * tile_bytes(RADII[NARROW]) + tile_bytes(RADII[WIDE])


@pytest.mark.parametrize("turned", [False, True])
def test_a_thread_walks_as_far_as_its_own_widest_pixel(blurred, turned):
    angle = {"angle": 0.5} if turned else {}
    map_ = np.full((2 * LINES, 2 * COLUMNS), NARROW)
    narrow = size(read_by(blurred(map_, **angle), PIXELS, space="shared"))
    wide = size(read_by(blurred(np.full_like(map_, WIDE), **angle), PIXELS, space="shared"))
    map_[::4, ::16] = WIDE  # in every fourth row a pixel of every fourth thread
    mixed = size(read_by(blurred(map_, **angle), PIXELS, space="shared"))
    assert wide > 8 * narrow
    assert 16 * mixed == 15 * narrow + wide


def test_a_pixel_is_read_for_several_outputs_and_taps_at_once(blurred):
    """Of the window's taps, fewer are read than half of those of each output."""
    map_ = np.full((2 * LINES, 2 * COLUMNS), 4.0)
    read = size(read_by(blurred(map_), PIXELS, space="shared")) / 4
    assert read < 0.5 * 33 * 33 * map_.size


@pytest.mark.parametrize(("dtype", "whole"), [("float32", 45), ("float64", 30), ("float16", 45)])
def test_tiles_have_a_fixed_size_at_most(cuda_backend, dtype, whole):
    from cuvarconv._gpu._widths import Reach

    def reach(radius):
        window = make_window(
            (2 * radius + 1,) * 2, (500, 600), mode="wrap", cval=0, origin=0, stride=1, dilation=1
        )
        return Reach.of(window, np.dtype(dtype)).shared

    assert reach(1) < 8 << 10
    assert all(reach(radius) < 60 << 10 for radius in range(whole))
    assert reach(200) == reach(2000) == 60 << 10


@pytest.mark.parametrize("angle", [None, 0.4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_that_are_walked_in_strips(cuda_backend, instantiations, angle, dtype):
    """Against the NumPy backend, which the loops check; also where something is infinite."""
    x, grad = noise((20, 37), dtype), noise((20, 37), dtype, 1)
    map_ = np.random.default_rng(1).uniform(0.1, 17, x.shape)
    limit = 1e-6 if dtype == "float32" else 1e-14
    for pixel in (0, np.inf):
        x[3, 4] = pixel
        y = cuvarconv.gaussian_filter(*(cuda_backend.asarray(each) for each in (x, map_)), angle=angle).get()
        expected = cuvarconv.gaussian_filter(x.astype(np.float64), map_, angle=angle)
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(y), finite)
        assert np.linalg.norm(y[finite] - expected[finite]) <= limit * np.linalg.norm(expected[finite])
    x[3, 4] = 0
    found = cuvarconv.gaussian_filter_vjp(
        *(cuda_backend.asarray(each) for each in (grad, x, map_)), angle=angle, wrt=("input", "sigma")
    )
    doubles = (each.astype(np.float64) for each in (grad, x, map_))
    expected = cuvarconv.gaussian_filter_vjp(*doubles, angle=angle, wrt=("input", "sigma"))
    for result, wanted in zip(found, expected, strict=True):
        assert np.linalg.norm(result.get() - wanted) <= 4 * limit * np.linalg.norm(wanted)


def test_gradients_read_the_outputs_that_reach_a_block(cuda_backend, profiled):
    """Once per block of pixels, and no others; the maps as far as the window goes."""
    map_ = np.full((2 * SIDE, 3 * SIDE), NARROW)
    map_[SIDE + 2, 2 * SIDE - 4] = WIDE
    grad = noise(map_.shape, "float32")
    arrays = [cuda_backend.asarray(each) for each in (grad, grad, map_)]
    rows = profiled(
        "gaussian_input_gradient",
        lambda: cuvarconv.gaussian_filter_vjp(*arrays, wrt="input", mode="wrap"),
    )
    narrow = 6 * (SIDE + 2 * RADII[NARROW]) ** 2
    beyond = 2 * 2 - 1  # blocks that one pixel reaches beside its own
    assert size(read_by(rows, "given[i * z_row")) == 4 * (narrow + beyond)


def test_strides_change_no_bit(cuda_backend, instantiations):
    x, map_ = noise((3, 40, 64), "float32"), np.random.default_rng(2).uniform(0, 3, (40, 64))
    arrays = [cuda_backend.asarray(each) for each in (x, x, map_)]
    turned = [cuda_backend.asarray(each.T.copy()).T for each in (x, x, map_)]
    for function, wrt in (
        (cuvarconv.gaussian_filter, {}),
        (cuvarconv.gaussian_filter_vjp, {"wrt": "input"}),
        (cuvarconv.gaussian_filter_vjp, {"wrt": "sigma"}),
    ):
        first = 0 if wrt else 1
        expected = function(*arrays[first:], **wrt).get()
        assert function(*turned[first:], **wrt).get().tobytes() == expected.tobytes()


def test_images_of_any_size_leave_device_memory_alone(cuda_backend, instantiations):
    """Images and maps of other dtypes are converted piece by piece, within the workspace of 64 MiB."""
    if not cuda_backend.is_emulated:
        pytest.skip("the emulator's memory pool counts its peak")
    from emulator import launch

    cupy, shape = cuda_backend.module, (1 << 11, 1 << 11)
    x = cupy.broadcast_to(cupy.ones((1, 1), np.int16), shape)
    map_ = cupy.empty(shape, np.float16)
    map_[...] = 0.3
    pool = cupy.get_default_memory_pool()
    for call in (
        lambda: cuvarconv.gaussian_filter(x, map_),
        lambda: cuvarconv.gaussian_filter_vjp(x, x, map_, wrt="input"),
        lambda: cuvarconv.gaussian_filter_vjp(x, x, map_, wrt="sigma"),
    ):
        before = pool.peak = pool.used_bytes()
        with launch.configured(fast=True):
            result = call()
        assert pool.peak <= before + result.nbytes + (64 << 20)
        del result


def test_static_and_dynamic_shared_memory_of_more_than_48_kib(cuda_backend, instantiations):
    """Neither is by itself; a device refuses both together unless it is asked for more."""
    x, map_ = noise((16, 32), "float32"), np.full((16, 32), 12.0)
    with emulator.recording() as launches:
        y = cuvarconv.gaussian_filter(*map(cuda_backend.asarray, (x, map_)), radius=(37, 41), mode="constant")
    (launch,) = launches
    assert (48 << 10) - 512 < launch.shared_mem <= 48 << 10
    kernels = [np.exp(-0.5 * (np.arange(-radius, radius + 1) / 12.0) ** 2) for radius in (37, 41)]
    kernel = np.outer(*(each / each.sum() for each in kernels))
    assert_close(y.get(), ndimage.correlate(x.astype(float), kernel, mode="constant"))
