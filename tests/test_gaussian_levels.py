"""`gaussian_filter` with a tolerance, against the exact result, on every backend."""

import re

import numpy as np
import pytest
from forms import MODES
from gaussian_forms import gaussian_filter, sigmas
from reference_gaussian import gaussian_weights
from test_host_gradients import bits_over_workers
from tolerances import noise

import cuvarconv


def signs(shape, dtype="float64"):
    """Return an image of ±1, for which errors of the kernels add up."""
    return np.sign(noise(shape, "float64", 3)).astype(dtype)


def widths(low, high, shape=(30, 31)):
    values = np.exp(np.random.default_rng(1).uniform(*np.log(np.maximum([low, high], 0.05)), shape))
    values.flat[0], values.flat[-1] = low, high
    return values.clip(low, high)


@pytest.mark.parametrize(("low", "high"), [(1, 4), (0.3, 3), (0, 3), (2.5, 2.5), (0.05, 0.1), (0, 0)])
@pytest.mark.parametrize(("tolerance", "truncate"), [(0.03, 4.0), (1e-3, 4.0), (1e-3, 3.0), (1e-5, 6.0)])
def test_the_error_is_within_the_tolerance(low, high, tolerance, truncate):
    x, map_ = signs((30, 31)), widths(low, high)
    try:
        levels = cuvarconv.gaussian_levels(map_, tolerance, truncate=truncate)
    except ValueError as error:
        least = float(re.search(r"at least (\S+) for", str(error))[1])
        assert tolerance < least < 0.03
        tolerance = 1.1 * least
        levels = cuvarconv.gaussian_levels(map_, tolerance, truncate=truncate)
    assert levels.error <= tolerance
    exact = cuvarconv.gaussian_filter(x, map_, truncate=truncate)
    y = cuvarconv.gaussian_filter(x, map_, truncate=truncate, tolerance=tolerance)
    assert abs(y - exact).max() <= levels.error + 1e-13


@pytest.mark.parametrize("mode", [*MODES, ("wrap", "constant")])
def test_modes(xp, mode):
    x = signs((2, 30, 31))
    modes = mode if isinstance(mode, tuple) else (mode, mode)
    shape = [size - 20 * (name == "valid") for size, name in zip(x.shape[1:], modes, strict=True)]
    map_ = sigmas(shape, 2.5)
    exact = cuvarconv.gaussian_filter(x, map_, mode=mode, cval=1.0)
    y = gaussian_filter(xp, x, map_, mode=mode, cval=1.0, tolerance=0.01)
    assert 0 < abs(y - exact).max() <= 0.01


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "int16", "uint8"])
def test_dtypes(xp, dtype):
    x = (100 * noise((3, 20, 21), "complex128" if dtype == "complex64" else "float64")).astype(dtype)
    map_ = sigmas((20, 21), 2.0)
    exact = cuvarconv.gaussian_filter(x, map_)
    y = gaussian_filter(xp, x, map_, tolerance=0.01)
    assert y.dtype == dtype
    wide = np.complex128 if dtype == "complex64" else np.float64
    limit = 0.01 * abs(x.astype(wide)).max() + (dtype == "float16") * 0.1 + (np.dtype(dtype).kind in "iu")
    assert abs(y.astype(wide) - exact.astype(wide)).max() <= limit


def test_where_sigma_is_0_pixels_stay(xp):
    x, map_ = noise((20, 21), "float32"), sigmas((20, 21), 2.0)
    map_[5:9, 3:7] = 0
    map_[5, 3] = 0.124  # radius 0
    y = gaussian_filter(xp, x, map_, tolerance=0.01)
    np.testing.assert_array_equal(y[5:9, 3:7], x[5:9, 3:7])


def test_maps_that_broadcast_and_axes(xp):
    x, map_ = signs((12, 3, 13)), sigmas((12, 1, 13), 2.0)
    exact = cuvarconv.gaussian_filter(x, map_, axes=(0, 2))
    assert abs(gaussian_filter(xp, x, map_, axes=(0, 2), tolerance=0.01) - exact).max() <= 0.01


def test_one_sigma_is_exact(xp):
    x = noise((12, 13), "float64")
    np.testing.assert_array_equal(
        gaussian_filter(xp, x, 2.0, tolerance=0.5), xp.to_numpy(cuvarconv.gaussian_filter(xp.asarray(x), 2.0))
    )


@pytest.mark.parametrize("width", [1.0, 1.37, 2.9, 4.0])
def test_the_error_bounds_that_of_the_kernels(width):
    """Of a single width between those of the map: Σ |k − k'|, from the response to a point."""
    map_ = np.full((41, 41), width)
    map_[0, 0], map_[0, 1] = 1.0, 4.0
    point = np.zeros((41, 41))
    point[20, 20] = 1
    levels = cuvarconv.gaussian_levels(map_, 0.02)
    y = cuvarconv.gaussian_filter(point, map_, mode="constant", tolerance=0.02)
    y[0, :2] = 0
    kernel = gaussian_weights(width)
    reach = kernel.shape[0] // 2
    y[20 - reach : 21 + reach, 20 - reach : 21 + reach] -= kernel
    assert abs(y).sum() <= levels.error <= 0.02


def test_more_levels_for_a_smaller_tolerance():
    map_ = np.array([[1.0, 10.0]])
    counts = [len(cuvarconv.gaussian_levels(map_, tolerance).sigmas) for tolerance in (0.1, 0.01, 0.001)]
    assert counts == sorted(set(counts))
    levels = cuvarconv.gaussian_levels(map_, 0.01)
    assert list(levels.sigmas) == sorted(levels.sigmas)
    assert 1 < levels.sigmas[0] < levels.sigmas[-1] < 10


def test_the_same_bits_for_any_number_of_workers():
    image, map_ = noise((2, 200, 300)), sigmas((200, 300), 3.0)
    assert len(bits_over_workers(lambda: cuvarconv.gaussian_filter(image, map_, tolerance=0.01))) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sigma": (np.ones((4, 5)), 1.0)}, "tolerance: .*pair"),
        ({"angle": 0.5}, "tolerance: .*angle"),
        ({"radius": 2}, "tolerance: .*radius"),
        ({"tolerance": 0}, "tolerance: .*positive.*got 0"),
        ({"tolerance": -1.0}, "tolerance: .*positive"),
        ({"tolerance": np.nan}, "tolerance: .*positive"),
        ({"tolerance": 1e-14}, "tolerance: .*at least.*truncate"),
    ],
    ids=str,
)
def test_wrong_calls(changes, says):
    map_ = np.linspace(0, 2, 20).reshape(4, 5)
    output = np.full((4, 5), 7.0)
    arguments = {"sigma": map_, "tolerance": 0.01} | changes
    with pytest.raises(ValueError, match=f"^{says}"):
        cuvarconv.gaussian_filter(np.ones((4, 5)), output=output, **arguments)
    assert (output == 7).all()


def test_wrong_calls_of_levels():
    with pytest.raises(ValueError, match=r"^sigma: .*pair"):
        cuvarconv.gaussian_levels((1.0, 2.0), 0.1)
    with pytest.raises(ValueError, match=r"^sigma: .*not negative"):
        cuvarconv.gaussian_levels([[1.0, -2.0]], 0.1)
    with pytest.raises(TypeError, match=r"^tolerance: .*number"):
        cuvarconv.gaussian_levels([[1.0, 2.0]], "0.1")
