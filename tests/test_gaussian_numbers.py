"""Numbers of `gaussian_filter`: dtypes, extreme widths, NaN, on every backend."""

import numpy as np
import pytest
import reference_gaussian
from forms import INEXACT, SAME_SIZE
from gaussian_forms import check, gaussian_filter, sigmas
from scipy import ndimage
from tolerances import assert_close, integers, noise

import cuvarconv


@pytest.mark.parametrize("dtype", INEXACT, ids=str)
@pytest.mark.parametrize("angle", [None, 0.7])
def test_dtypes(xp, dtype, angle):
    check(xp, noise((2, 9, 10), dtype), 0.1 + sigmas((9, 10), 1.5), angle=angle, cval=0.5, mode="constant")


@pytest.mark.parametrize("angle", [None, 0.5])
def test_long_sums_lose_nothing(xp, angle):
    check(xp, 1 + noise((5, 6), "float32"), np.full((5, 6), 10.0), angle=angle)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("angle", [None, 0.7])
@pytest.mark.parametrize("as_map", [True, False], ids=["map", "number"])
def test_distant_pixels_of_narrow_kernels_do_not_count(xp, dtype, angle, as_map):
    """Four pixels away the weight is 2e-39, within the window, and the value 1e30."""
    x, sigma = noise((12, 13), dtype), 0.3
    x[5, 6] = 1e30
    keywords = {"radius": 6, "angle": angle}
    y = gaussian_filter(xp, x, np.full(x.shape, sigma) if as_map else sigma, **keywords)
    expected = reference_gaussian.gaussian_filter(x, sigma, **keywords)
    rows, columns = np.indices(x.shape)
    far = np.maximum(abs(rows - 5), abs(columns - 6)) >= 4
    assert_close(y[far], expected[far])


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
