"""`affinity` and its gradient, against the loops, on every backend."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import reference_affinity
from forms import EXACT, MODES, SAME_SIZE, VIEWS
from hypothesis import given, settings
from reference import Taps
from reference_gradients import modulated_correlate_vjp
from test_hypothesis import windows
from tolerances import BFLOAT16, assert_close, integers, noise

import cuvarconv

REAL = ["float16", BFLOAT16, "float32", "float64"]


def affinity(xp, guide, *arguments, **keywords):
    """Call the library on a backend's array; the result on the host."""
    return xp.to_numpy(cuvarconv.affinity(xp.asarray(guide), *arguments, **keywords))


def affinity_vjp(xp, grad, guide, *arguments, **keywords):
    return xp.to_numpy(
        cuvarconv.affinity_vjp(xp.asarray(grad), xp.asarray(guide), *arguments, wrt="guide", **keywords)
    )


PRECISION = ["bfloat16", "float16", "float32", "float64"]


def check(xp, guide, size, sigma=1.5, grad_dtype="float64", **keywords):
    """Compare both functions with the loops; also their shapes and dtypes."""
    d = affinity(xp, guide, size, sigma, **keywords)
    expected = reference_affinity.affinity(guide, size, sigma, **keywords)
    assert d.dtype == (np.float64 if guide.dtype.kind in "biu" else guide.dtype)
    assert_close(d, expected)
    g = noise(expected.shape, grad_dtype, 9)
    gradient = affinity_vjp(xp, g, guide, size, sigma, **keywords)
    expected = reference_affinity.affinity_vjp(g, guide, size, sigma, **keywords)
    assert gradient.dtype == d.dtype
    assert gradient.shape == guide.shape
    coarsest = min((d.dtype.name, np.dtype(grad_dtype).name), key=PRECISION.index)
    assert_close(gradient, expected, coarsest)


# ---- the window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, "grid-mirror", "grid-constant", "grid-wrap"])
@pytest.mark.parametrize("size", [(3, 5), (4, 2), (1, 3), (5, 1)], ids=str)
def test_modes_and_sizes(xp, mode, size):
    check(xp, noise((2, 3, 6, 7), "float64"), size, mode=mode)


@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, mode):
    check(xp, noise((2, 5, 6), "float64"), (3, 4), mode=mode)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 2), (2, 5)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    check(xp, noise((2, *image), "float64"), (9, 12), mode=mode)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("origin", [*itertools.product(range(-2, 3), range(-2, 2))], ids=str)
def test_origins(xp, origin, mode):
    check(xp, noise((2, 5, 6), "float64"), (5, 4), mode=mode, origin=origin)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), ((1, 4), 1), ((30, 40), 1), (1, 2), (1, (1, 3))])
def test_stride_and_dilation(xp, stride, dilation, mode):
    check(xp, noise((2, 8, 9), "float64"), (3, 2), mode=mode, stride=stride, dilation=dilation)


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_stride_dilation_and_origin_together(xp, mode):
    window = {"stride": (2, 3), "dilation": (3, 1001), "origin": (-2, 1)}
    check(xp, noise((2, 2, 9, 8), "float64"), (4, 3), mode=mode, **window)


@pytest.mark.parametrize("size", [3, np.int64(3), [3, 3], np.array([3, 3])], ids=repr)
def test_kinds_of_size(xp, size):
    guide = noise((2, 5, 6))
    np.testing.assert_array_equal(affinity(xp, guide, size), affinity(xp, guide, (3, 3)))


# ---- axes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 1, 3), (70,)], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_batch_axes_and_channels(xp, batch, channels):
    check(xp, noise((*batch, channels, 3, 4), "float64"), (3, 2))


@pytest.mark.parametrize("channel_axis", [-4, -3, -2, -1, 0, 1, 2, 3, None])
def test_channel_axis(xp, channel_axis):
    check(xp, noise((2, 3, 4, 5), "float64"), (3, 2), channel_axis=channel_axis)


def test_one_plane_without_channels(xp):
    guide = noise((4, 5), "float64")
    check(xp, guide, 3, channel_axis=None)
    one = affinity(xp, guide[None], 3)
    assert one.shape == (3, 3, 1, 4, 5)
    np.testing.assert_array_equal(one[:, :, 0], affinity(xp, guide, 3, channel_axis=None))


@pytest.mark.no_launch(reason="empty results")
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)], ids=str)
def test_empty_guides(xp, shape):
    d = affinity(xp, np.ones(shape), 3)
    assert d.shape == (3, 3, *shape[:-3], 1, *shape[-2:])
    assert affinity_vjp(xp, d, np.ones(shape), 3).shape == shape


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REAL, ids=str)
@pytest.mark.parametrize("mode", ["mirror", "constant"])
def test_dtypes(xp, dtype, mode):
    check(xp, noise((2, 3, 5, 6), dtype), (3, 3), 2.0, dtype, mode=mode)


@pytest.mark.parametrize(("guide", "grad"), [*itertools.permutations(REAL, 2)], ids=str)
def test_gradients_of_another_dtype(xp, guide, grad):
    if {guide, grad} == {"float16", BFLOAT16}:
        pytest.skip("float16 and bfloat16 have no common dtype")
    check(xp, noise((2, 3, 4, 5), guide), (3, 3), 2.0, grad)


@pytest.mark.parametrize("dtype", EXACT)
def test_integer_guides(xp, dtype):
    """Their differences are those of numbers, not modulo 2ⁿ."""
    guide = integers((2, 4, 5), dtype)
    check(xp, guide, 3, 3.0)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1, 20.0, np.float32(2.5), np.array(0.7)], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigma(xp, dtype, sigma):
    guide = noise((2, 4, 5), dtype) * np.dtype(dtype).type(sigma)
    check(xp, guide, 3, sigma, dtype)


@pytest.mark.parametrize(
    ("dtype", "sigma"), [("float32", 1e-30), ("float32", 1e30), ("float64", 1e-200), ("float64", 1e200)]
)
def test_sigma_beyond_the_range_of_its_square(xp, dtype, sigma):
    """Equal features are alike for any σ; for a tiny one nothing else is, for a huge one everything."""
    guide = integers((2, 4, 5), dtype)
    guide[:, 1:3] = guide[:, 1:2]
    assert_close(affinity(xp, guide, 3, sigma), reference_affinity.affinity(guide, 3, sigma))
    gradient = affinity_vjp(xp, noise((3, 3, 1, 4, 5), dtype), guide, 3, sigma)
    np.testing.assert_allclose(gradient, 0, atol=1e-25)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_differences_whose_square_overflows(xp, dtype):
    guide = np.array([[[0, 1, 1, -1]]], dtype) * np.finfo(dtype).max * np.dtype(dtype).type(0.4)
    expected = np.array([[0, 1, 0, 1], [1, 1, 1, 1], [0, 1, 0, 1]])  # reflect repeats the ends
    expected[0], expected[2] = [1, 0, 1, 0], [0, 1, 0, 1]
    np.testing.assert_array_equal(affinity(xp, guide, (1, 3))[0, :, 0, 0], expected)
    gradient = affinity_vjp(xp, np.ones((1, 3, 1, 1, 4), dtype), guide, (1, 3))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", ["reflect", "valid"])
def test_values_that_are_not_finite(xp, value, mode):
    guide = noise((2, 6, 7), "float64")
    guide[1, 2, 3] = value
    d = affinity(xp, guide, 3, mode=mode)
    with np.errstate(invalid="ignore"):
        expected = reference_affinity.affinity(guide, 3, mode=mode)
    assert np.isnan(expected).sum() == (17 if np.isnan(value) else 1)
    np.testing.assert_allclose(d, expected, rtol=1e-14)


def test_a_nan_stays_where_it_is_read(xp):
    guide = noise((2, 6, 7), "float64")
    guide[1, 2, 3] = np.nan
    g = noise((3, 3, 1, 6, 7), "float64", 1)
    expected = reference_affinity.affinity_vjp(g, guide, 3)
    assert 0 < np.isnan(expected).sum() < expected.size
    np.testing.assert_allclose(affinity_vjp(xp, g, guide, 3), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_half_precision_is_summed_in_float32(xp, dtype):
    """4000 features that differ by 1; and 4096 taps between two pixels, that differ by 1 as well."""
    guide = np.zeros((4000, 1, 2), dtype)
    guide[..., 1] = 1
    d = affinity(xp, guide, (1, 2), 100)
    assert d[0, 0, 0, 0, 1] == np.exp(np.float64(-0.2)).astype(dtype)
    g = np.ones((1, 4097, 1, 1, 2), dtype)
    gradient = affinity_vjp(xp, g, guide[:1], (1, 4097), mode="nearest")
    assert_close(gradient[0], np.exp(-0.5) * np.array([[4096, -4096]]))


# ---- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_strided_arrays(xp, view):
    guide, g = noise((2, 3, 5, 6), "float64"), noise((3, 2, 2, 1, 5, 6), "float64", 1)
    strided = VIEWS[view](xp, guide)
    assert_close(xp.to_numpy(cuvarconv.affinity(strided, (3, 2))), affinity(xp, guide, (3, 2)))
    result = cuvarconv.affinity_vjp(VIEWS[view](xp, g), strided, (3, 2), wrt="guide")
    assert_close(xp.to_numpy(result), affinity_vjp(xp, g, guide, (3, 2)))


def test_gradients_of_one_number(xp):
    """As `sum` sends them: a view with no strides."""
    guide, shape = noise((2, 4, 5), "float64"), (3, 3, 1, 4, 5)
    g = xp.as_strided(xp.asarray(np.array([2.0])), shape, (0,) * 5)
    result = xp.to_numpy(cuvarconv.affinity_vjp(g, xp.asarray(guide), 3, wrt="guide"))
    assert_close(result, reference_affinity.affinity_vjp(np.full(shape, 2.0), guide, 3))


def test_kinds_of_wrt(xp):
    guide, g = xp.asarray(noise((2, 4, 5))), xp.asarray(noise((3, 3, 1, 4, 5)))
    alone = xp.to_numpy(cuvarconv.affinity_vjp(g, guide, 3, wrt="guide"))
    for keywords in ({}, {"wrt": ("guide",)}, {"wrt": ["guide"]}):
        (same,) = cuvarconv.affinity_vjp(g, guide, 3, **keywords)
        np.testing.assert_array_equal(xp.to_numpy(same), alone)
    assert cuvarconv.affinity_vjp(g, guide, 3, wrt=()) == ()


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_arrays_of_other_libraries(library):
    pytest.importorskip(library)
    from test_dispatch import kind, make

    guide, g = noise((2, 4, 5)), noise((3, 3, 1, 4, 5), seed=1)
    result = cuvarconv.affinity(make(library, guide), 3)
    assert isinstance(result, kind(library))
    np.testing.assert_array_equal(np.asarray(result), cuvarconv.affinity(guide, 3))
    (gradient,) = cuvarconv.affinity_vjp(make(library, g), make(library, guide), 3)
    assert isinstance(gradient, kind(library))
    np.testing.assert_array_equal(np.asarray(gradient), cuvarconv.affinity_vjp(g, guide, 3)[0])


def test_lists():
    d = cuvarconv.affinity([[0, 0, 1]], (1, 3), channel_axis=None)
    assert_close(d, reference_affinity.affinity(np.array([[0, 0, 1]]), (1, 3), channel_axis=None))


# ---- what it is for ------------------------------------------------------------------------------


def test_pixel_adaptive_convolution(xp):
    """The chain rule through the modulation that it makes."""
    x, w, guide = (
        noise((2, 3, 5, 6), "float64"),
        noise((4, 3, 3, 3), "float64", 1),
        noise((2, 2, 5, 6), "float64", 2),
    )
    g = noise((2, 4, 5, 6), "float64", 3)
    d = affinity(xp, guide, 3)
    y = cuvarconv.modulated_correlate(*map(xp.asarray, (x, w, d)))
    assert xp.to_numpy(y).shape == (2, 4, 5, 6)
    back = cuvarconv.modulated_correlate_vjp(*map(xp.asarray, (g, x, w, d)), wrt="modulation")
    expected = reference_affinity.affinity(guide, 3)
    assert_close(d, expected)
    in_guide = reference_affinity.affinity_vjp(modulated_correlate_vjp(g, x, w, expected)[2], guide, 3)
    assert_close(affinity_vjp(xp, xp.to_numpy(back), guide, 3), in_guide)


# ---- property-based ------------------------------------------------------------------------------


@st.composite
def calls(draw):
    """Draw a guide, the window's size, and keywords."""
    image, size, keywords, _ = draw(windows())
    del keywords["cval"]
    shape = [*draw(st.lists(st.integers(1, 3), max_size=2)), *image]
    if draw(st.booleans()):
        keywords["channel_axis"] = None
    else:
        at = draw(st.integers(0, len(shape)))
        shape.insert(at, draw(st.integers(1, 5)))
        keywords["channel_axis"] = draw(st.sampled_from([at, at - len(shape)]))
    return noise(shape, "float64", draw(st.integers(0, 2**32 - 1))), size, keywords


@given(call=calls(), sigma=st.floats(0.5, 8))
def test_any_call(xp, call, sigma):
    guide, size, keywords = call
    check(xp, guide, size, sigma, **keywords)


@settings(max_examples=50)
@given(call=calls())
def test_finite_differences(xp, call):
    guide, size, keywords = call
    direction, step = noise(guide.shape, "float64", 5), 1e-6
    ahead, behind = (affinity(xp, guide + sign * step * direction, size, 2.0, **keywords) for sign in (1, -1))
    g = noise(ahead.shape, "float64", 6)
    slope = np.vdot(g, ahead - behind) / (2 * step)
    found = np.vdot(affinity_vjp(xp, g, guide, size, 2.0, **keywords), direction)
    assert abs(found - slope) <= 1e-8 * (1 + np.linalg.norm(g) * np.linalg.norm(direction))


@settings(max_examples=50)
@given(call=calls())
def test_properties(xp, call):
    """Between 0 and 1, 1 at the centre, and blind to what all features have in common."""
    guide, size, keywords = call
    d = affinity(xp, guide, size, **keywords)
    assert ((d >= 0) & (d <= 1)).all()
    middle = [k // 2 + shift for k, shift in zip(size, keywords["origin"], strict=True)]
    np.testing.assert_array_equal(d[tuple(middle)], 1)
    assert_close(affinity(xp, guide + 3, size, **keywords), d, "float32")
    assert d.shape[-2:] == Taps(_image(guide, keywords["channel_axis"]), size, **_window(keywords)).shape


def _image(guide, channel_axis):
    return reference_affinity.features_first(guide, channel_axis).shape[-2:]


def _window(keywords):
    return {name: value for name, value in keywords.items() if name != "channel_axis"}
