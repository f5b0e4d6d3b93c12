"""Dtypes, extreme numbers and arrays of `bilateral_filter`, on every backend."""

import itertools

import numpy as np
import pytest
import reference_bilateral
from bilateral_forms import PRECISION, bilateral, check, each_kind, sigmas_of, widths
from forms import EXACT, INEXACT, VIEWS
from tolerances import BFLOAT16, assert_close, assert_equal, integers, noise, stored

import cuvarconv

# ---- numbers -------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32", "float64"], ids=str)
@pytest.mark.parametrize("mode", ["mirror", "constant"])
def test_dtypes(xp, dtype, mode, kind):
    check(xp, noise((2, 6, 5), dtype), *sigmas_of(kind, (6, 5)), channel_axis=0, mode=mode, radius=2)


@each_kind
@pytest.mark.parametrize(("image", "guide"), [*itertools.permutations(INEXACT, 2)], ids=str)
def test_guides_of_another_dtype(xp, image, guide, kind):
    if {image, guide} == {"float16", BFLOAT16}:
        pytest.skip("float16 and bfloat16 have no common dtype")
    if np.dtype(guide).kind == "c":
        pytest.skip("guides are real")
    x, g = noise((5, 6), image), noise((5, 6), guide, 1)
    coarsest = min(x.dtype.name, g.dtype.name, key=PRECISION.index)
    check(xp, x, *sigmas_of(kind, (5, 6)), guide=g, radius=1, dtype=coarsest)


@each_kind
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_images(xp, dtype, kind):
    x, g = noise((2, 5, 6), dtype), noise((5, 6), "float64", 1)
    check(xp, x, *sigmas_of(kind, (5, 6)), guide=g, radius=2, mode="constant", cval=0.4)


@pytest.mark.parametrize("dtype", EXACT)
def test_integer_images(xp, dtype):
    """Differences are those of numbers, not modulo 2ⁿ; the result is truncated once."""
    x = integers((5, 6), dtype, low=-50, high=100)
    y = bilateral(xp, x, 1.0, 20.0)
    assert_equal(y, stored(reference_bilateral.bilateral_filter(x, 1.0, 20.0), dtype))
    wide = bilateral(xp, x, 1.0, 20.0, output="float64")
    assert_close(wide, reference_bilateral.bilateral_filter(x, 1.0, 20.0))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_integer_guides(xp, dtype):
    x, g = noise((5, 6), "float64"), integers((5, 6), dtype, high=200)
    check(xp, x, 1.0, 3.0, guide=g)


@each_kind
@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32", "int64"], ids=str)
def test_dtypes_of_the_widths_do_not_matter(xp, dtype, kind):
    """They are no factors: results are in the images' precision, the widths in their own."""
    x = noise((5, 6), "float32")
    spatial, likeness = (np.ceil(4 * sigma).astype(dtype) for sigma in sigmas_of(kind, (5, 6)))
    check(xp, x, spatial, likeness, radius=2)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_kind
def test_units_do_not_matter(xp, dtype, scale, kind):
    """Where the square of a difference leaves the range of numbers, its quotient does not."""
    x = noise((5, 6), "float64")
    scaled = (x * scale).astype(dtype)
    spatial, likeness = sigmas_of(kind, (5, 6))
    check(xp, scaled, spatial, likeness * scale, radius=2)


@each_kind
def test_differences_far_beyond_the_width(xp, kind):
    """The range weight must not be lost in the rounding of large values."""
    x = (noise((6, 7), "float64") + 1000).astype(np.float32)
    check(xp, x, *sigmas_of(kind, (6, 7)), guide=noise((6, 7)) * 100 + 3000, radius=2)


@pytest.mark.parametrize(
    ("joint", "kind"),
    [(False, "numbers"), (False, "maps"), (True, "numbers")],
    ids=["alone", "alone with maps", "joint"],
)
@pytest.mark.parametrize("offset", [0, 1e4, -3e5])
def test_offsets_lose_only_their_own_rounding_on_the_host(offset, joint, kind):
    """No pixel is off by more than two steps between numbers of its size: differences are summed."""
    x = (noise((3, 6, 40)) + offset).astype(np.float32)
    keywords = {"guide": noise((3, 6, 40), seed=1) + np.float32(offset)} if joint else {}
    keywords |= {"radius": 3, "channel_axis": 0}
    y = cuvarconv.bilateral_filter(x, *sigmas_of(kind, (6, 40)), **keywords)
    expected = reference_bilateral.bilateral_filter(x, *sigmas_of(kind, (6, 40)), **keywords)
    assert np.all(abs(y - expected) <= 2 * np.spacing(max(abs(x).max(), np.float32(1))))


@pytest.mark.parametrize("joint", [False, True], ids=["alone", "joint"])
@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1e-44])
def test_the_largest_and_the_smallest_numbers_on_the_host(value, joint):
    """Sums of them leave the range of numbers, means do not."""
    x = np.full((4, 5), value, np.float32)
    keywords = {"guide": noise((4, 5))} if joint else {}
    np.testing.assert_array_equal(cuvarconv.bilateral_filter(x, 1.0, 0.5, radius=2, **keywords), x)
    x[::2, 1::2] = 0.25 * value
    x[1::2, ::2] = -value
    sigmas = 1.0, 0.5 if joint else max(abs(value), 1e-40)
    y = cuvarconv.bilateral_filter(x, *sigmas, radius=2, **keywords)
    expected = reference_bilateral.bilateral_filter(x, *sigmas, radius=2, **keywords)
    assert np.all(abs(y - expected) <= 4 * np.spacing(abs(x).max()))


@each_kind
def test_values_far_beyond_all_others_on_the_host(kind):
    """What is unlike all others by the whole range of numbers is left alone, and leaves them alone."""
    x = noise((6, 7))
    x[2, 3], x[3, 3] = 3e38, -3e38
    spatial, likeness = sigmas_of(kind, (6, 7))
    sigmas = spatial, 0.2 * likeness
    y = cuvarconv.bilateral_filter(x, *sigmas, radius=2)
    np.testing.assert_array_equal(y[2:4, 3], x[2:4, 3])
    others = abs(x) < 1e38
    expected = reference_bilateral.bilateral_filter(x, *sigmas, radius=2)
    assert_close(y[others], expected[others])


def test_infinite_pixels_with_a_guide(xp):
    """They are infinite wherever they count."""
    x, g = noise((5, 12), "float64"), noise((5, 12), "float64", 1)
    x[2, 3] = np.inf
    y = bilateral(xp, x, 1.0, 0.8, guide=g, radius=1)
    expected = reference_bilateral.bilateral_filter(x, 1.0, 0.8, guide=g, radius=1)
    np.testing.assert_array_equal(np.isposinf(y), np.isposinf(expected))
    assert np.isposinf(y).sum() == 9
    assert_close(y[:, 5:], expected[:, 5:])


@pytest.mark.parametrize("likeness", [1e-12, 1e-3, 1e12, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_widths_far_from_the_pixels_sizes(xp, dtype, likeness):
    x = noise((6, 7), dtype)
    x[:3] *= 1e-12
    check(xp, x, 1.0, likeness, radius=2)
    small = bilateral(xp, x, 1.0, likeness, radius=1)[0]
    expected = reference_bilateral.bilateral_filter(x, 1.0, likeness, radius=1)[0]
    assert_close(small, expected)


@each_kind
@pytest.mark.parametrize("name", ["sigma_spatial", "sigma_range"])
@pytest.mark.parametrize("keywords", [{"radius": 2}, {"truncate": 4.0}], ids=str)
def test_a_width_of_0_leaves_the_pixel_as_it_is(xp, name, keywords, kind):
    x = noise((5, 6), "float64")
    x[3, 3] = np.nan
    spatial, likeness = sigmas_of(kind, (5, 6))
    sigmas = {"sigma_spatial": spatial, "sigma_range": likeness}
    sigmas[name] = 0.0 if kind == "numbers" else np.where(np.eye(5, 6), 0.0, sigmas[name])
    y = bilateral(xp, x, *sigmas.values(), **keywords)
    np.testing.assert_array_equal(y[np.eye(5, 6) > 0], x[np.eye(5, 6) > 0])
    expected = reference_bilateral.bilateral_filter(x, *sigmas.values(), **keywords)
    np.testing.assert_allclose(y, expected, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tiny", [1e-45, 1e-30, 1e-300])
@each_kind
def test_the_narrowest_widths(xp, dtype, tiny, kind):
    """Equal pixels are alike for any σ_r, and no tap but the centre is near for a tiny σ_s."""
    x = np.array([[1, 1, 2, 2, 2, 1]], dtype)
    shape = () if kind == "numbers" else (1, 6)
    narrow, one = np.full(shape, tiny), np.full(shape, 1.0)
    np.testing.assert_array_equal(bilateral(xp, x, one, narrow, radius=2), x)
    np.testing.assert_array_equal(bilateral(xp, x, narrow, one, radius=2), x)
    np.testing.assert_array_equal(bilateral(xp, x, narrow, narrow, radius=2), x)


@each_kind
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", ["reflect", "valid"])
def test_values_that_are_not_finite(xp, value, mode, kind):
    """They are read by every window that has them, and by no other."""
    x = noise((9, 10), "float64")
    x[4, 5] = value
    sigmas = sigmas_of(kind, (5, 6) if mode == "valid" else (9, 10))
    y = bilateral(xp, x, *sigmas, mode=mode, radius=2)
    assert np.isnan(y).sum() == 25
    expected = reference_bilateral.bilateral_filter(x, *sigmas, mode=mode, radius=2)
    np.testing.assert_allclose(y, expected, rtol=1e-13)


@each_kind
def test_guides_that_are_not_finite(xp, kind):
    """An infinite guide is unlike all others, and nothing is like it; NaN spreads."""
    x, g = noise((7, 12), "float64"), noise((7, 12), "float64", 1)
    g[3, 3], g[3, 8] = np.inf, np.nan
    y = bilateral(xp, x, *sigmas_of(kind, (7, 12)), guide=g, radius=1)
    assert np.isnan(y).sum() == 1 + 9
    expected = reference_bilateral.bilateral_filter(x, *sigmas_of(kind, (7, 12)), guide=g, radius=1)
    np.testing.assert_allclose(y, expected, rtol=1e-13)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_lies_beyond_a_radius_does_not_leak(xp, value):
    """A pixel's own radius ends its window, although other pixels' windows are wider."""
    x = noise((7, 9), "float64")
    x[3, 4] = value
    spatial = np.where(np.arange(9) % 2, 0.5, 1.0) * np.ones((7, 1))
    y = bilateral(xp, x, spatial, 1.0, truncate=2.0)
    expected = np.zeros((7, 9), bool)
    for i, j in np.ndindex(7, 9):
        expected[i, j] = max(abs(i - 3), abs(j - 4)) <= (1 if j % 2 else 2)
    np.testing.assert_array_equal(np.isnan(y), expected)
    g = noise((7, 9), "float64", 1)
    joint = bilateral(xp, x, spatial, 1.0, truncate=2.0, guide=g)
    np.testing.assert_array_equal(np.isfinite(joint), ~expected)
    joint = bilateral(xp, g, spatial, 1.0, truncate=2.0, guide=np.where(np.isnan(x), x, 0))
    np.testing.assert_array_equal(np.isnan(joint), expected & np.isnan(value))


@each_kind
def test_long_sums(xp, kind):
    """5041 taps of about the same weight."""
    x = np.random.default_rng(1).random((2, 3), np.float32) + 1
    sigmas = (50.0, 3.0) if kind == "numbers" else (np.full((2, 3), 50.0), np.full((2, 3), 3.0))
    check(xp, x, *sigmas, radius=35, mode="wrap")


# ---- arrays --------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("view", VIEWS)
def test_strided_arrays(xp, view, kind):
    x, g = noise((2, 4, 6), "float64"), noise((2, 4, 6), "float64", 1)
    sigmas = sigmas_of(kind, (2, 4, 6))
    strided = [VIEWS[view](xp, a) for a in (x, g, *sigmas)] if kind == "maps" else [x, g, *sigmas]
    if kind == "numbers":
        strided[:2] = [VIEWS[view](xp, a) for a in (x, g)]
    images, guide, *given = strided
    y = xp.to_numpy(cuvarconv.bilateral_filter(images, *given, guide=guide, radius=1))
    assert_close(y, bilateral(xp, x, *sigmas, guide=g, radius=1))


def test_views_without_strides(xp):
    x = xp.as_strided(xp.asarray(np.array([2.0])), (3, 4, 5), (0, 0, 0))
    sigma = xp.as_strided(xp.asarray(np.array([0.7])), (4, 5), (0, 0))
    assert_close(xp.to_numpy(cuvarconv.bilateral_filter(x, sigma, sigma)), np.full((3, 4, 5), 2.0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", np.dtype("float64")], ids=repr)
def test_output_dtypes(xp, dtype):
    x = noise((5, 6), "float32") * 10
    y = bilateral(xp, x, 1.0, 5.0, output=dtype)
    assert y.dtype == dtype
    expected = reference_bilateral.bilateral_filter(x, 1.0, 5.0)
    assert_close(y, stored(expected, dtype), "float32")


def test_output_arrays(xp):
    x = noise((5, 6), "float64")
    output = xp.asarray(np.full((5, 6), 9.0))
    result = cuvarconv.bilateral_filter(xp.asarray(x), 1.0, 0.5, output=output)
    assert result is output
    assert_close(xp.to_numpy(output), reference_bilateral.bilateral_filter(x, 1.0, 0.5))


@pytest.mark.parametrize("name", ["input", "guide", "sigma_range"])
def test_output_over_an_operand(xp, name):
    arrays = {"input": noise((5, 6), "float64"), "guide": noise((5, 6), "float64", 1)}
    arrays["sigma_range"] = widths((5, 6), 0.5, 1)
    expected = reference_bilateral.bilateral_filter(sigma_spatial=1.0, **_renamed(arrays))
    given = {key: xp.asarray(array.copy()) for key, array in arrays.items()}
    cuvarconv.bilateral_filter(**given, sigma_spatial=1.0, output=given[name])
    assert_close(xp.to_numpy(given[name]), expected)


def _renamed(arrays):
    return {"x" if key == "input" else key: array for key, array in arrays.items()}


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_arrays_of_other_libraries(library):
    pytest.importorskip(library)
    from test_dispatch import kind, make

    x, g, sigma = noise((4, 5)), noise((4, 5), seed=1), widths((4, 5), 0.5, 1, "float32")
    arrays = [make(library, array) for array in (x, sigma, g)]
    result = cuvarconv.bilateral_filter(arrays[0], arrays[1], 0.5, guide=arrays[2])
    assert isinstance(result, kind(library))
    np.testing.assert_array_equal(np.asarray(result), cuvarconv.bilateral_filter(x, sigma, 0.5, guide=g))


def test_lists():
    y = cuvarconv.bilateral_filter([[0.0, 1.0, 5.0]], [[1.0, 0.5, 0.0]], [1.0, 2.0, 3.0])
    expected = reference_bilateral.bilateral_filter(
        np.array([[0.0, 1.0, 5.0]]), np.array([[1.0, 0.5, 0.0]]), np.array([1.0, 2.0, 3.0])
    )
    assert_close(y, expected)
