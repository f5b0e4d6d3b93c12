"""The bilateral filter on CUDA: what its kernels read, and how launches are planned and cut."""

import itertools
import sys

import emulator
import numpy as np
import pytest
import reference_bilateral
from forms import MODES
from test_kernels_correlate import ones
from tolerances import assert_close, noise
from traffic import PIXELS, read_by

import cuvarconv
from cuvarconv._window import make_window

WRT = ("input", "guide", "sigma_spatial", "sigma_range")


def module(name):
    """Return a module of the CUDA backend whose name is also a function's."""
    return sys.modules[f"cuvarconv._gpu.{name}"]


def filtered(backend, x, *sigmas, guide=None, **keywords):
    """Return the filter's result on the host."""
    if guide is not None:
        keywords["guide"] = backend.asarray(guide)
    sigmas = [backend.asarray(sigma) for sigma in sigmas]
    return backend.to_numpy(cuvarconv.bilateral_filter(backend.asarray(x), *sigmas, **keywords))


def gradients(backend, grad, x, guide, *sigmas, **keywords):
    """Return all gradients on the host."""
    arrays = (backend.asarray(array) for array in (grad, x, *sigmas))
    found = cuvarconv.bilateral_filter_vjp(*arrays, wrt=WRT, guide=backend.asarray(guide), **keywords)
    return [backend.to_numpy(array) for array in found]


# ---- traffic -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "features", "planes"),
    [(1, None, 1), (3, None, 3), (1, 1, 2), (3, 1, 4), (5, 1, 5 + 2), (6, None, 2 * 6)],
    ids=str,
)
def test_a_tile_requests_each_pixel_once(cuda_backend, profiled, channels, features, planes):
    """An image that is its own guide shares its tile; two groups of channels read their guide twice."""
    height, width, radius = 16, 256, 3
    x = ones(cuda_backend, channels, height, width)
    guide = None if features is None else ones(cuda_backend, features, height, width)
    rows = profiled(
        "bilateral",
        lambda: cuvarconv.bilateral_filter(x, 1.0, 1.0, radius=radius, guide=guide, channel_axis=0),
    )
    tile = (4 + 2 * radius) * (128 + 2 * radius) * 4
    assert sum(row.bytes for row in read_by(rows, PIXELS)) == planes * (4 * 2) * tile
    assert sum(row.bytes for row in read_by(rows, ">(y) = pack", access="write")) == x.nbytes


def test_pixels_come_from_shared_memory_without_bank_conflicts(cuda_backend, profiled):
    x = ones(cuda_backend, 16, 256)
    rows = profiled("bilateral", lambda: cuvarconv.bilateral_filter(x, 1.0, 1.0, radius=3))
    reads = read_by(rows, "pixels[c] = from[place<V>(c, pitch)]", space="shared")
    assert all(row.transactions == row.requests for row in reads)
    # for guide and image: V + TAPS - 1 = 7 pixels for 16 products, and V + 2 for the last three of 7 taps
    assert sum(row.requests for row in reads) == 2 * (7 + 6) * 7 * (16 * 256 // (4 * 32))


def test_blocks_with_small_radii_walk_few_taps(cuda_backend, profiled):
    sigma = np.full((8, 256), 0.4)
    sigma[0, :128] = 3.0  # one of four blocks

    def taps(sigma):
        sigma = cuda_backend.asarray(sigma)
        call = profiled("bilateral", lambda: cuvarconv.bilateral_filter(x, sigma, 1.0, truncate=1.0))
        return sum(row.requests for row in read_by(call, "pixels[c] = from[place", space="shared"))

    x = ones(cuda_backend, 8, 256)
    assert taps(sigma) < taps(np.full((8, 256), 3.0)) / 8  # a quarter of the blocks, a quarter of its rows


def test_gradients_request_an_output_once_for_several_pixels(cuda_backend, profiled):
    """Four pixels, one below the other, share what they read: ten rows of outputs under 7 taps each."""
    x = ones(cuda_backend, 16, 256)
    rows = profiled(
        "bilateral_gradient",
        lambda: cuvarconv.bilateral_filter_vjp(
            x, x, 1.0, 1.0, radius=3, guide=x, mode="constant", wrt="input"
        ),
    )
    inside = 7 + 10 + 10 + 7  # rows of outputs that exist for each four rows of pixels
    across = 7 * 256 - 2 * (1 + 2 + 3)
    reads = read_by(rows, "widen(given.data[")
    assert sum(row.bytes for row in reads) == 4 * inside * across
    assert all(row.transactions <= 5 * row.requests for row in reads)  # one sector more than a warp fills


# ---- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "features", "kernel"),
    [
        ("float32", 3, "bilateral<float>"),
        ("float32", 60, "bilateral_many_features<float>"),
        ("float64", 40, "bilateral_many_features<double>"),
        ("complex64", 3, "bilateral<c64>"),
        ("float16", 2, "bilateral<__half>"),
    ],
)
def test_guides_of_many_features_have_no_tile(cuda_backend, instantiations, dtype, features, kernel):
    x, guide = noise((5, 6), dtype), noise((features, 5, 6), dtype, 1).real
    sigmas = 1.5, 5.0
    with emulator.recording() as launched:
        found = filtered(cuda_backend, x, *sigmas, guide=guide, channel_axis=0, mode="constant", cval=0.5)
    assert kernel in launched.names
    expected = reference_bilateral.bilateral_filter(
        x, *sigmas, guide=guide, channel_axis=0, mode="constant", cval=0.5
    )
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("joint", "shared"), [(False, 6 << 10), (False, 8 << 10), (True, 10 << 10), (True, 14 << 10)]
)
def test_windows_too_large_for_a_tile(cuda_backend, instantiations, monkeypatch, shared, joint):
    """Taps come in chunks; each has its tile."""
    planned = module("bilateral")
    monkeypatch.setattr(planned, "shared_memory_per_block", lambda: shared)
    window = make_window((13, 13), (5, 36), mode="mirror", cval=0, origin=0, stride=1, dilation=1)
    tile = planned._plan(window, 1, 1, not joint, np.dtype(np.float32), shared).tile
    assert tile.row_taps < 13
    x = noise((5, 36))
    guide = noise((5, 36), seed=1) if joint else None
    sigma = np.minimum(np.abs(noise((5, 36), seed=2)), 2) * 1.5
    found = filtered(cuda_backend, x, sigma, 1.0, guide=guide, truncate=2.0, mode="mirror")
    expected = reference_bilateral.bilateral_filter(x, sigma, 1.0, guide=guide, truncate=2.0, mode="mirror")
    assert_close(found, expected)


# ---- cuts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [*itertools.product(["wrap", "reflect", "valid"], repeat=2)], ids="-".join)
def test_regions_do_not_matter(cuda_backend, instantiations, monkeypatch, modes):
    """Cut into small regions, gradients have the same bits, and sums almost."""
    x, guide = noise((2, 2, 9, 20)), noise((2, 3, 9, 20), seed=1)
    sigma = np.abs(noise((2, 9, 20), seed=2))
    inside = tuple(slice(2, -2) if mode == "valid" else slice(None) for mode in modes)
    sigmas = sigma[(..., *inside)], np.float32(1.0)
    grad = noise((2, 2, *sigmas[0].shape[-2:]), seed=3)
    keywords = {"radius": 2, "mode": modes, "channel_axis": 1}
    whole = gradients(cuda_backend, grad, x, guide, *sigmas, **keywords)
    workspace = (6, 3, 2)[modes.count("valid")]  # KiB: the region's size is the result's
    monkeypatch.setattr(module("bilateral_gradient"), "_WORKSPACE", workspace << 10)
    with emulator.recording() as launched:
        cut = gradients(cuda_backend, grad, x, guide, *sigmas, **keywords)
    assert launched.names.count("bilateral_guide_gradient<float>") > 2
    for name, a, b in zip(WRT, whole, cut, strict=True):
        if name == "sigma_range":
            assert_close(b, a)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", MODES)
def test_cuts_of_converted_images(cuda_backend, instantiations, monkeypatch, mode):
    x = np.random.default_rng(0).integers(0, 256, (2, 11, 30)).astype(np.uint8)
    sigma = np.abs(noise((11, 30), seed=2))
    keywords = {"radius": 1, "mode": mode, "cval": 7.0, "output": np.float64}
    maps = (sigma[1:-1, 1:-1] if mode == "valid" else sigma, 40.0)
    whole = filtered(cuda_backend, x, *maps, **keywords)
    monkeypatch.setattr(module("_pieces"), "_WORKSPACE", 4 << 10)
    np.testing.assert_array_equal(filtered(cuda_backend, x, *maps, **keywords), whole)


def test_launches_of_few_blocks(cuda_backend, instantiations, monkeypatch):
    """Samples come in several launches where a grid has no room; a shared guide sums them in order."""
    x, guide, sigma = noise((5, 2, 6, 7)), noise((2, 6, 7), seed=1), np.abs(noise((5, 6, 7), seed=2))
    calls = (
        lambda: [filtered(cuda_backend, x, sigma, 1.0, guide=guide, channel_axis=-3)],
        lambda: gradients(cuda_backend, x, x, guide, sigma, np.float32(1), channel_axis=-3, radius=2),
    )
    expected = [call() for call in calls]
    for name in ("bilateral", "bilateral_gradient", "_bilateral_outputs"):
        monkeypatch.setattr(module(name), "MOST_BLOCKS", 2)
    for call, arrays in zip(calls, expected, strict=True):
        for array, again in zip(arrays, call(), strict=True):
            np.testing.assert_array_equal(array, again)


@pytest.mark.parametrize("wrt", ["input", "guide", "sigma_range"])
def test_gradients_of_large_images_leave_device_memory_alone(cuda_backend, instantiations, wrt):
    if not cuda_backend.is_emulated:
        pytest.skip("the emulator's memory pool counts its peak")
    from emulator import launch

    cupy = cuda_backend.module
    one = cupy.ones((1, 1), np.float32)
    image = cupy.broadcast_to(one, (1 << 10, 1 << 11))
    sigma = cupy.broadcast_to(one, image.shape)
    pool = cupy.get_default_memory_pool()
    before = pool.peak = pool.used_bytes()
    with launch.configured(fast=True):
        result = cuvarconv.bilateral_filter_vjp(image, image, sigma, sigma, guide=image, radius=0, wrt=wrt)
    assert result.max() == (wrt == "input")
    assert pool.peak <= before + result.nbytes + (64 << 20)
