"""`gaussian_filter` against scipy and the loops, on every backend."""

import itertools

import numpy as np
import pytest
import reference_gaussian
from forms import EXACT, INEXACT, MODES, SAME_SIZE, VIEWS
from gaussian_forms import angles, calls, check, device, gaussian_filter, sigmas
from hypothesis import given, settings
from scipy import ndimage
from tolerances import assert_close, integers, noise, stored

import cuvarconv

# ---- one σ: scipy --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*SAME_SIZE, "grid-mirror", "grid-constant", "grid-wrap"])
@pytest.mark.parametrize("sigma", [1, 0.4, 2.5, (2.0, 0.7), [0, 1.5], np.array([1.2, 0.0])], ids=str)
def test_one_sigma_is_scipys(xp, sigma, mode):
    x = noise((2, 11, 13), "float64")
    expected = ndimage.gaussian_filter(x, sigma, mode=mode, cval=0.7, axes=(-2, -1))
    assert_close(gaussian_filter(xp, x, sigma, mode=mode, cval=0.7), expected)
    assert_close(gaussian_filter(xp, x, sigma, 0, None, mode, 0.7, 4.0), expected)


@pytest.mark.parametrize("name", [*INEXACT[1:5]], ids=str)
def test_one_sigma_in_every_precision(xp, name):
    x = noise((2, 11, 13), name)
    y = gaussian_filter(xp, x, (1.3, 2.1))
    assert y.dtype == name
    assert_close(y, ndimage.gaussian_filter(x.astype(np.complex128), (0, 1.3, 2.1)))


@pytest.mark.parametrize("dtype", EXACT[:-1])
def test_integers_are_truncated_once(xp, dtype):
    x = integers((2, 9, 10), dtype, low=-100, high=100)
    expected = stored(ndimage.gaussian_filter(x.astype(np.float64), (0, 1.0, 1.5)), dtype)
    for sigma in ((1.0, 1.5), (np.full((9, 10), 1.0), 1.5)):
        y = gaussian_filter(xp, x, sigma)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("keywords", [{"radius": 3}, {"radius": (2, 5)}, {"truncate": 2.5}, {"truncate": 0}])
@pytest.mark.parametrize("sigma", [1.7, (1.0, 2.0)], ids=str)
def test_reach_of_one_sigma(xp, sigma, keywords):
    x = noise((9, 12), "float64")
    given = dict(keywords, radius=np.array(keywords["radius"])) if "radius" in keywords else keywords
    expected = ndimage.gaussian_filter(x, sigma, **keywords)
    assert_close(gaussian_filter(xp, x, sigma, **given), expected)
    constant = tuple(np.full((9, 12), s) for s in (sigma if isinstance(sigma, tuple) else (sigma, sigma)))
    assert_close(gaussian_filter(xp, x, constant, **keywords), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sigma", [0.0, 1.0, (2.0, 0.7), (0.0, 1.5)], ids=str)
def test_a_constant_map_is_the_number(xp, sigma, mode):
    x = noise((2, 17, 19), "float64")
    y = gaussian_filter(xp, x, sigma, mode=mode, cval=0.3)
    rows, columns = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    maps = np.full(y.shape[-2:], rows), np.full(y.shape[-2:], columns)
    assert_close(gaussian_filter(xp, x, maps, mode=mode, cval=0.3), y)
    assert_close(gaussian_filter(xp, x, (maps[0], columns), mode=mode, cval=0.3), y)
    if rows == columns:
        assert_close(gaussian_filter(xp, x, maps[0], mode=mode, cval=0.3, angle=0.8), y)


# ---- maps: the loops -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", [*MODES, *itertools.permutations(["reflect", "wrap", "constant", "valid"], 2)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_modes(xp, mode, turned):
    x, high = noise((12, 14), "float64"), 1.3
    modes = mode if isinstance(mode, tuple) else (mode, mode)
    shape = [size - 10 * (name == "valid") for size, name in zip(x.shape, modes, strict=True)]
    rows, columns = sigmas(shape, high), sigmas(shape, high, 1)
    angle = angles(shape) if turned else None
    if turned:
        rows, columns = np.full(shape, high), np.linspace(0.3, high, columns.size).reshape(shape)
    check(xp, x, (rows, columns), mode=mode, cval=0.5, angle=angle)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 2), (2, 5)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    x = noise((2, *image), "float64")
    check(xp, x, sigmas(image, 3.0), mode=mode)
    check(xp, x, (3.0, 0.5 + sigmas(image, 1.5)), mode=mode, angle=0.4)


@pytest.mark.parametrize("shape", [(6, 7), (1, 7), (6, 1), (3, 1, 1), (2, 1, 6, 1), (2, 3, 6, 7)], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_maps_that_broadcast(xp, shape, turned):
    x = noise((2, 3, 6, 7), "float64")
    map_ = sigmas(shape, 1.5) + (0.1 if turned else 0)
    angle = angles((3, 6, 1)) if turned else None
    check(xp, x, map_, angle=angle)
    check(xp, x, (map_, 0.8), angle=angle)
    check(xp, x, [0.8, map_], angle=angle)


@pytest.mark.parametrize("axes", [(0, 1), (2, 0), (-1, 1), (1, 2)])
def test_axes(xp, axes):
    x = noise((5, 6, 4), "float64")
    check(xp, x, sigmas((5, 6, 4)), axes=axes)
    check(xp, x, (sigmas((6, 1)), sigmas((5, 1, 1), 1.5, 1)), axes=axes)
    check(xp, x, (1.0, 2.0), axes=axes, radius=2)
    check(xp, x, (1.0, 2.0), axes=axes, angle=angles((6, 4)))


@pytest.mark.parametrize(
    "keywords", [{"radius": 2}, {"radius": (1, 4)}, {"truncate": 2.5}, {"truncate": 0.0}]
)
@pytest.mark.parametrize("angle", [None, 0.7])
def test_reach(xp, keywords, angle):
    x = noise((2, 8, 9), "float64")
    check(xp, x, (0.1 + sigmas((8, 9), 1.5), 1.2), angle=angle, **keywords)


def test_radii_are_rounded_in_double_precision(xp):
    """4·σ + ½ just below a whole number; in float32 it would be that number."""
    sigma = np.full((1, 9), 0.125 * (1 - 2**-40) + 1)
    x = np.zeros((1, 9))
    x[0, 4] = 1
    assert np.count_nonzero(gaussian_filter(xp, x, (0.0, sigma))) == 9
    assert np.count_nonzero(gaussian_filter(xp, x.astype(np.float32), (0.0, sigma))) == 9
    below = np.full((1, 11), 1.125 * (1 - 2**-40))
    x = np.zeros((1, 11), np.float32)
    x[0, 5] = 1
    assert np.count_nonzero(gaussian_filter(xp, x, (0.0, below), mode="constant")) == 9
    assert np.count_nonzero(gaussian_filter(xp, x, (0.0, np.full((1, 11), 1.125)), mode="constant")) == 11


# ---- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_strided_arrays(xp, view):
    x, map_ = noise((2, 8, 9), "float64"), sigmas((2, 8, 9))
    strided = VIEWS[view](xp, x), VIEWS[view](xp, map_)
    assert_close(
        xp.to_numpy(cuvarconv.gaussian_filter(*strided)), reference_gaussian.gaussian_filter(x, map_)
    )
    assert_close(xp.to_numpy(cuvarconv.gaussian_filter(strided[0], 1.2)), gaussian_filter(xp, x, 1.2))


@pytest.mark.parametrize("sigma", [1.3, "map"], ids=str)
def test_output(xp, sigma):
    x = noise((2, 8, 9), "float32")
    sigma = sigmas((8, 9)) if sigma == "map" else sigma
    expected = reference_gaussian.gaussian_filter(x, sigma)
    for dtype in ("float32", "float64", "int32"):
        out = xp.asarray(np.full((9, 2, 8), 7, dtype)).transpose(1, 2, 0)
        result = cuvarconv.gaussian_filter(xp.asarray(100 * x), device(xp, sigma), output=out)
        assert result is out
        if dtype == "int32":
            assert abs(xp.to_numpy(out) - 100 * expected).max() <= 1
        else:
            assert_close(xp.to_numpy(out), 100 * expected, "float32")
    assert gaussian_filter(xp, x, sigma, output="float64").dtype == np.float64
    own = xp.asarray(x.copy())
    cuvarconv.gaussian_filter(own, device(xp, sigma), output=own)
    assert_close(xp.to_numpy(own), expected)


def test_output_may_be_the_map(xp):
    x, map_ = noise((8, 9), "float64"), sigmas((8, 9))
    shared = xp.asarray(map_.copy())
    cuvarconv.gaussian_filter(xp.asarray(x), shared, output=shared)
    assert_close(xp.to_numpy(shared), reference_gaussian.gaussian_filter(x, map_))


@pytest.mark.no_launch(reason="empty results")
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0)], ids=str)
def test_empty_images(xp, shape):
    for sigma in (1.0, np.ones(shape), (np.ones(shape[1:]), 1.0)):
        assert gaussian_filter(xp, np.ones(shape), sigma).shape == shape
    assert gaussian_filter(xp, np.ones(shape), np.ones(shape), angle=1.0).shape == shape


def test_lists():
    y = cuvarconv.gaussian_filter([[0, 0, 8.0], [0, 0, 0]], [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    x, map_ = np.array([[0, 0, 8.0], [0, 0, 0]]), np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    assert_close(y, reference_gaussian.gaussian_filter(x, map_))
    pair = cuvarconv.gaussian_filter(x, [map_.tolist(), (2 * map_).tolist()])
    assert_close(pair, reference_gaussian.gaussian_filter(x, (map_, 2 * map_)))
    stack = np.stack([x, x]), np.stack([map_, 2 * map_])  # an array of three axes is one map
    assert_close(cuvarconv.gaussian_filter(*stack), reference_gaussian.gaussian_filter(*stack))


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_arrays_of_other_libraries(library):
    pytest.importorskip(library)
    from test_dispatch import kind, make

    x, map_ = noise((4, 5)), sigmas((4, 5)).astype(np.float32)
    for sigma in (map_, (map_, 1.0), 1.5, np.float32([1.0, 2.0])):
        given = make(library, sigma) if isinstance(sigma, np.ndarray) else sigma
        given = (make(library, map_), 1.0) if isinstance(sigma, tuple) else given
        y = cuvarconv.gaussian_filter(make(library, x), given)
        assert isinstance(y, kind(library))
        np.testing.assert_array_equal(np.asarray(y), cuvarconv.gaussian_filter(x, sigma))


# ---- property-based ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(call=calls())
def test_any_call(xp, call):
    x, sigma, keywords = call
    check(xp, x, sigma, **keywords)
