"""`gaussian_filter` against scipy and the loops, on every backend."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import reference_gaussian
from forms import EXACT, INEXACT, MODES, SAME_SIZE, VIEWS
from hypothesis import given, settings
from scipy import ndimage
from tolerances import assert_close, integers, noise, stored

import cuvarconv


def device(xp, value):
    """Move arrays to the backend, those of a pair too."""
    if isinstance(value, tuple | list):
        return type(value)(device(xp, each) for each in value)
    return xp.asarray(value) if isinstance(value, np.ndarray) else value


def gaussian_filter(xp, x, sigma, *arguments, angle=None, **keywords):
    """Call the library on a backend's arrays; the result on the host."""
    return xp.to_numpy(
        cuvarconv.gaussian_filter(
            xp.asarray(x), device(xp, sigma), *arguments, angle=device(xp, angle), **keywords
        )
    )


def sigmas(shape, high=2.0, seed=0):
    """Return a map from 0 to `high`, both ends included."""
    values = np.random.default_rng([seed, 5]).uniform(0, high, shape)
    values.flat[0], values.flat[-1] = high, 0
    return values


def angles(shape, seed=0):
    return np.random.default_rng([seed, 6]).uniform(-4, 4, shape)


def check(xp, x, sigma, **keywords):
    """Compare with the loops; also the dtype."""
    y = gaussian_filter(xp, x, sigma, **keywords)
    assert y.dtype == x.dtype
    expected = reference_gaussian.gaussian_filter(x, sigma, **keywords)
    assert_close(y, expected)
    return y


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


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INEXACT, ids=str)
@pytest.mark.parametrize("angle", [None, 0.7])
def test_dtypes(xp, dtype, angle):
    check(xp, noise((2, 9, 10), dtype), 0.1 + sigmas((9, 10), 1.5), angle=angle, cval=0.5, mode="constant")


@pytest.mark.parametrize("angle", [None, 0.5])
def test_long_sums_lose_nothing(xp, angle):
    check(xp, 1 + noise((5, 6), "float32"), np.full((5, 6), 10.0), angle=angle)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_wide_kernels(xp, dtype, wide):
    """Of maps in single and in double precision."""
    map_ = sigmas((3, 4), 15.0).astype(wide)
    check(xp, noise((3, 4), dtype), map_)
    check(xp, noise((3, 4), dtype), (map_, np.linspace(0.1, 9, 4, dtype=wide)[None]))


@pytest.mark.parametrize("rows", [True, False])
def test_lines_of_thousands_of_taps(xp, rows):
    """In single precision so many terms, added one after another, would miss the tolerance."""
    map_ = np.linspace(500, 1000, 12).reshape(4, 3)
    check(xp, noise((4, 3)), (map_, 0 * map_) if rows else (0 * map_, map_))


def direct(x, sigma, at):
    """Return a pixel of the filtered plane by its equation, mode reflect."""
    radii = [int(4.0 * float(s) + 0.5) for s in sigma]
    window = np.pad(x.astype(np.float64), max(radii), mode="symmetric")
    centre = [place + max(radii) for place in at]
    rows, columns = (np.arange(-r, r + 1) for r in radii)
    down, across = (
        np.exp(-0.5 * (steps / (float(s) or 1)) ** 2) for steps, s in zip((rows, columns), sigma, strict=True)
    )
    kernel = np.outer(down, across)
    pixels = window[np.ix_(rows + centre[0], columns + centre[1])]
    return (kernel * pixels).sum() / kernel.sum()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["ramp", "blobs", "pair", "one radius"])
def test_large_images(form, dtype):
    """They are cut where the radii differ; single pixels by the equation."""
    shape = 150, 530
    down, across = np.linspace(0, 1, 150)[:, None], np.linspace(0, 1, 530)
    maps = {
        "ramp": [3 * across**2 + 0 * down] * 2,
        "blobs": [2.5 * np.sin(9 * down) ** 2 * np.cos(7 * across) ** 4] * 2,
        "pair": [2 * down + 0 * across, 3 * across**2 + 0 * down],
        "one radius": [2 + 0.1 * down * across] * 2,
    }[form]
    x, maps = noise((2, *shape), dtype), [each.astype(dtype) for each in maps]
    y = cuvarconv.gaussian_filter(x, tuple(maps) if form == "pair" else maps[0])
    rng = np.random.default_rng(4)
    spots = [tuple(rng.integers(0, length) for length in x.shape) for _ in range(150)]
    expected = [direct(x[plane], [each[i, j] for each in maps], (i, j)) for plane, i, j in spots]
    assert_close(y[tuple(np.transpose(spots))], np.array(expected))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "uint8", "bool"])
def test_dtypes_of_sigma(xp, dtype):
    """The widths are taken as they are."""
    map_ = (sigmas((9, 10), 3)).astype(dtype)
    check(xp, noise((9, 10), "float64"), map_)
    check(xp, noise((9, 10), "float64"), map_, angle=np.float32(0.5))


@pytest.mark.parametrize("make", [lambda s: s, lambda s: (s, 1.0)], ids=["map", "pair"])
@pytest.mark.parametrize("angle", [None, 0.5])
def test_constants_stay(xp, make, angle):
    x = np.full((9, 10), 3.0)
    map_ = make(0.2 + sigmas((9, 10)))
    for mode in SAME_SIZE:
        assert_close(gaussian_filter(xp, x, map_, mode=mode, cval=3.0, angle=angle), x)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int16"])
def test_sigma_0_is_the_identity(xp, dtype):
    x = integers((2, 5, 6), dtype)
    if dtype != "int16":
        x.flat[7], x.flat[20] = np.nan, np.inf
    map_ = np.zeros((5, 6))
    for sigma in (0, 0.0, map_, (0, map_), (0.0, 0.0)):
        np.testing.assert_array_equal(gaussian_filter(xp, x, sigma), x)
        np.testing.assert_array_equal(gaussian_filter(xp, x, sigma, radius=2), x)
    np.testing.assert_array_equal(gaussian_filter(xp, x, map_, angle=0.3), x)


@pytest.mark.parametrize("tiny", [1e-320, 1e-160, 1e-30, 0.02])
@pytest.mark.parametrize("angle", [None, 0.5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiny_sigma(xp, tiny, angle, dtype):
    x = noise((5, 6), dtype)
    for map_ in (np.full((5, 6), tiny), np.full((5, 6), tiny, np.float32)):
        for keywords in ({}, {"radius": 2}):
            np.testing.assert_array_equal(gaussian_filter(xp, x, map_, angle=angle, **keywords), x)


@pytest.mark.parametrize("angle", [None, 0.5])
def test_huge_sigma_is_the_mean(xp, angle):
    x = noise((5, 6), "float64")
    for sigma in (np.full((5, 6), 1e200), 1e9):
        y = gaussian_filter(xp, x, sigma, radius=2, angle=angle)
        assert_close(y, ndimage.uniform_filter(x, 5))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("angle", [None, 0.5])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_what_is_not_finite_stays_within_reach(xp, value, angle, dtype):
    x = noise((14, 15), dtype)
    x[6, 7] = value
    map_ = (0.1 if angle else 0) + sigmas((14, 15))
    y = gaussian_filter(xp, x, map_, angle=angle)
    expected = reference_gaussian.gaussian_filter(x, map_, angle=angle)
    assert 0 < np.isfinite(expected).sum() < expected.size
    for part in (np.real, np.imag):
        np.testing.assert_allclose(part(y), part(expected), rtol=1e-10)


def test_infinities_of_both_signs(xp):
    x = noise((14, 15), "float64")
    x[6, 7], x[6, 9] = np.inf, -np.inf
    map_ = sigmas((14, 15))
    y = gaussian_filter(xp, x, map_)
    expected = reference_gaussian.gaussian_filter(x, map_)
    assert np.isnan(expected).any()
    assert np.isinf(expected).any()
    np.testing.assert_allclose(y, expected, rtol=1e-10)


@pytest.mark.parametrize("angle", [None, 0.5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_numbers_do_not_overflow(xp, dtype, angle):
    x = np.full((9, 10), np.finfo(dtype).max * 0.9, dtype)
    assert_close(gaussian_filter(xp, x, sigmas((9, 10)) + 0.5, angle=angle) / x, np.ones((9, 10)), dtype)


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


@st.composite
def calls(draw):
    """Draw an image, σ and keywords."""
    image = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    shape = (*draw(st.lists(st.integers(1, 3), max_size=2)), *image)
    mode = draw(st.tuples(*[st.sampled_from(SAME_SIZE)] * 2))
    seed = draw(st.integers(0, 2**32 - 1))
    angle = draw(st.sampled_from([None, "number", "map"]))
    lowest = 0 if angle is None else 0.05

    def map_(number):
        lengths = tuple(draw(st.sampled_from([1, length])) for length in shape)
        return lowest + sigmas(lengths, draw(st.floats(0.1, 2)), seed + number)

    sigma = draw(st.sampled_from(["one", "pair", "mixed"]))
    sigma = map_(1) if sigma == "one" else (map_(1), map_(2) if sigma == "pair" else draw(st.floats(0.2, 2)))
    if angle is not None:
        angle = draw(st.floats(-4, 4)) if angle == "number" else angles(shape, seed)
    keywords = {"mode": mode, "cval": draw(st.floats(-2, 2)), "angle": angle}
    if draw(st.booleans()):
        keywords["radius"] = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    else:
        keywords["truncate"] = draw(st.floats(0, 4))
    return noise(shape, "float64", seed), sigma, keywords


@settings(max_examples=60)
@given(call=calls())
def test_any_call(xp, call):
    x, sigma, keywords = call
    check(xp, x, sigma, **keywords)
