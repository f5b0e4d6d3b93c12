"""`normalized_correlate`: missing pixels, certainties and variances, against the loops, on every backend."""

import re
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
from forms import MODES, SAME_SIZE
from hypothesis import given
from test_hypothesis import windows
from tolerances import BFLOAT16, TOLERANCE, assert_close, noise, relative_error

import cuvarconv


def normalized(xp, x, k, mask=None, variance=None, **keywords):
    """Call the library on a backend's arrays; the result, or both, on the host."""
    maps = {"mask": mask, "variance": variance}
    maps = {name: xp.asarray(array) for name, array in maps.items() if array is not None}
    result = cuvarconv.normalized_correlate(xp.asarray(x), xp.asarray(k), **maps, **keywords)
    if variance is None:
        return xp.to_numpy(result)
    return tuple(xp.to_numpy(array) for array in result)


def quotient(x, k, counts, variance=None, **keywords):
    """Divide the loops' sums; what does not count is 0 first."""
    counts = np.broadcast_to(counts, x.shape)
    wide = x.astype(reference.wide(x))
    total = reference.correlate(np.where(counts != 0, wide, 0) * counts, k, **keywords)
    weight = reference.correlate(counts.astype(float), k, **keywords)
    with np.errstate(invalid="ignore"):
        y = np.where(weight == 0, np.nan, total / weight)
        if variance is None:
            return y
        power = reference.correlate(
            counts.astype(float) ** 2 * variance, np.abs(k.astype(y.dtype)) ** 2, **keywords
        )
        return y, np.where(weight == 0, np.nan, power / np.abs(weight) ** 2)


def assert_same(actual, expected, dtype=None):
    """Compare with NaN in the same places."""
    missing = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(actual), missing)
    assert_close(np.where(missing, 0, actual), np.where(missing, 0, expected), dtype or actual.dtype)


def holes(shape, seed=0, share=0.4):
    """Return flags, false where a pixel is missing."""
    return np.random.default_rng([seed, 5]).random(shape) > share


def positive(shape, dtype="float64", seed=0):
    return np.random.default_rng([seed, 6]).uniform(0.2, 1, shape).astype(dtype)


@pytest.mark.parametrize("mode", [*MODES, "grid-mirror", "grid-constant", "grid-wrap"])
@pytest.mark.parametrize("size", [(3, 5), (4, 2), (1, 3), (9, 12)], ids=str)
def test_finite_pixels_count(xp, mode, size):
    if mode == "valid" and size == (9, 12):
        size = (6, 7)
    x = noise((2, 6, 7), "float64")
    there = holes(x.shape)
    k = positive(size)
    expected = quotient(x, k, there, mode=mode)
    x[~there] = np.resize([np.nan, np.inf, -np.inf], (~there).sum())
    assert_same(normalized(xp, x, k, mode=mode), expected)


@given(window=windows(), data=st.data())
def test_masks_certainties_and_variances(xp, window, data):
    image, size, keywords, out = window
    del keywords["cval"]
    x = noise((2, *image), "float64")
    shape = data.draw(st.sampled_from([(2, *image), image, (2, 1, 1), (1, image[1])]))
    counts = positive(shape, seed=1) * holes(shape, 1)
    variance = positive(data.draw(st.sampled_from([(2, *image), image, (1, 1)])), seed=2)
    k = positive(size + data.draw(st.sampled_from([(), out, (2, 1, 1), (2, *out)])), seed=3)
    expected = quotient(x, k, counts, variance, **keywords)
    hidden = np.broadcast_to(counts == 0, x.shape)
    results = normalized(xp, np.where(hidden, np.nan, x), k, counts, variance, **keywords)
    for actual, wanted in zip(results, expected, strict=True):
        assert_same(actual, wanted)


def test_a_hidden_variance_may_be_anything(xp):
    x, k = np.array([[1.0, 2.0, 3.0]]), np.ones((1, 3))
    mask, variance = np.array([[True, False, True]]), np.array([[4.0, np.nan, 8.0]])
    y, errors = normalized(xp, x, k, mask, variance, mode="constant")
    np.testing.assert_array_equal(y, [[1, 2, 3]])
    np.testing.assert_array_equal(errors, [[4, 3, 8]])


def test_nothing_outside_counts_under_constant(xp):
    np.testing.assert_array_equal(normalized(xp, np.full((3, 4), 7.0), np.ones((5, 5)), mode="constant"), 7)


def test_a_pixel_that_counts_may_be_nan(xp):
    y = normalized(xp, np.array([[1.0, np.nan, 3.0, 4.0]]), np.ones((1, 2)), np.ones((1, 4)), mode="constant")
    np.testing.assert_array_equal(y, [[1, np.nan, np.nan, 3.5]])


def test_no_warning_for_what_is_not_finite(xp):
    """Warnings are errors in these tests."""
    x, k = np.array([[1.0, np.inf, 3.0, 4.0]], np.complex64), np.ones((1, 3), np.complex64)
    y = normalized(xp, x, k, np.ones((1, 4)), mode="constant")
    np.testing.assert_array_equal(np.isfinite(y), [[False, False, False, True]])
    hidden = np.zeros((1, 4), bool)
    assert normalized(xp, x.real, k.real, hidden, output=np.dtype(np.int32)).shape == (1, 4)


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_no_pixel_under_the_window_gives_nan(xp, mode):
    y = normalized(xp, np.full((3, 4), np.nan), np.ones((3, 3)), mode=mode)
    assert np.isnan(y).all()


def test_weights_that_cancel_give_nan(xp):
    y = normalized(xp, np.array([[1.0, 2.0, 5.0]]), np.array([[1.0, 0.0, -1.0]]), mode="wrap")
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    "dtype", ["float16", BFLOAT16, "float32", "float64", "complex64", "complex128"], ids=str
)
@pytest.mark.parametrize("flags", ["bool", "uint8", "int64"])
def test_dtypes(xp, dtype, flags):
    x, k = noise((2, 9, 8), dtype), positive((3, 3, 9, 8)).astype(dtype)
    there = holes((9, 8))
    y = normalized(xp, x, k, there.astype(flags))
    assert y.dtype == np.dtype(dtype)
    assert_same(y, quotient(x, k, there))


def test_half_precision_is_summed_in_single(xp):
    x = np.full((40, 40), 1000, np.float16)
    np.testing.assert_array_equal(normalized(xp, x, np.ones((15, 15), np.float16)), x)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "bool"])
def test_integers_come_out_as_double(xp, dtype):
    x = np.arange(30).reshape(5, 6).astype(dtype)
    there = holes(x.shape)
    y = normalized(xp, x, np.ones((3, 3), int), there)
    assert y.dtype == np.float64
    assert_same(y, quotient(x, np.ones((3, 3)), there))


def test_a_certainty_times_a_byte_does_not_wrap(xp):
    x = np.full((4, 5), 200, np.uint8)
    np.testing.assert_array_equal(normalized(xp, x, np.ones((3, 3)), np.full((4, 5), 3, np.uint8)), 200)


def test_complex_weights_are_conjugated(xp):
    x, k = noise((6, 7), "complex128"), noise((3, 3, 6, 7), "complex128", 1)
    y, variance = normalized(xp, x, k, holes((6, 7)), positive((6, 7)))
    expected = quotient(x, k, holes((6, 7)), positive((6, 7)))
    assert_same(y, expected[0])
    assert variance.dtype == np.float64
    assert_same(variance, expected[1])


@pytest.mark.parametrize("axes", [(0, 1), (2, 0), (-1, -2)], ids=str)
def test_axes(xp, axes):
    x = np.moveaxis(noise((3, 6, 7), "float64"), (-2, -1), axes)
    there = holes(x.shape)
    k = positive((3, 3, *x.shape), seed=1)
    expected = quotient(x, k, there, axes=axes)
    assert_same(normalized(xp, x, k, there, axes=axes), expected)


def test_output(xp):
    x, k = xp.asarray(np.array([[1, 2, 9]])), xp.asarray(np.ones((1, 3)))
    output = xp.asarray(np.zeros((1, 3), np.int16))
    assert cuvarconv.normalized_correlate(x, k, output=output) is output
    np.testing.assert_array_equal(xp.to_numpy(output), [[1, 4, 6]])
    assert cuvarconv.normalized_correlate(x, k, output="float32").dtype == np.float32


def test_empty_batch(xp, request):
    request.applymarker(pytest.mark.no_launch(reason="nothing to do"))
    assert normalized(xp, np.ones((0, 4, 5)), np.ones((3, 3))).shape == (0, 4, 5)


@pytest.mark.parametrize("mode", ["reflect", "wrap", "constant"])
def test_many_blocks(mode):
    x = noise((2, 700, 500), "float32")
    x[holes(x.shape, share=0.9)] = np.nan
    k = positive((3, 5), "float32")
    there = np.isfinite(x)
    sums = (
        cuvarconv.correlate(np.where(there, x, 0), k, mode=mode),
        cuvarconv.correlate(there * 1.0, k, mode=mode),
    )
    with np.errstate(invalid="ignore"):
        expected = np.where(sums[1] == 0, np.nan, sums[0] / sums[1])
    assert_same(cuvarconv.normalized_correlate(x, k, mode=mode), expected, "float32")


def test_memory():
    x, k = np.ones((1, 1500, 1500)), np.ones((9, 9, 1500, 1500), np.float32)
    tracemalloc.start()
    try:
        results = cuvarconv.normalized_correlate(x, k, x > 0, variance=x)
        peak = tracemalloc.get_traced_memory()[1] - sum(array.nbytes for array in results) - x.size
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    np.testing.assert_allclose(results[1], 1 / 81)


@pytest.mark.parametrize("boundary", ["fill", "wrap"])
def test_agrees_with_astropy(boundary):
    from astropy import convolution

    x, k = noise((20, 21), "float64"), positive((5, 3))
    x[~holes(x.shape, share=0.2)] = np.nan
    expected = convolution.convolve(x, k, boundary=boundary, fill_value=np.nan, nan_treatment="interpolate")
    mode = {"fill": "constant", "wrap": "wrap"}[boundary]
    actual = cuvarconv.normalized_correlate(x, k[::-1, ::-1], mode=mode)
    assert relative_error(actual, expected) <= TOLERANCE["float64"]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (
            {"mask": np.ones((2, 5))},
            ValueError,
            "mask: expected a number or a map that broadcasts to (4, 5), got shape (2, 5)",
        ),
        (
            {"mask": np.ones((1, 4, 5))},
            ValueError,
            "mask: expected a number or a map that broadcasts to (4, 5)",
        ),
        ({"mask": np.ones((4, 5), complex)}, TypeError, "mask: expected real numbers, got complex128"),
        (
            {"variance": np.ones((4, 5), complex)},
            TypeError,
            "variance: expected real numbers, got",
        ),
        (
            {"variance": np.ones((4, 1, 5))},
            ValueError,
            "variance: expected a number or a map",
        ),
        ({"weights": np.ones((3, 3, 4, 4))}, ValueError, "weights: expected shape (kh, kw) + S"),
        ({"weights": np.ones(3)}, ValueError, "weights: "),
        ({"input": np.ones(5)}, ValueError, "input: "),
        ({"mode": "around"}, ValueError, "mode: "),
        ({"origin": 2}, ValueError, "origin: "),
        ({"output": np.zeros((4, 4))}, ValueError, "output: expected shape (4, 5), got (4, 4)"),
        ({"output": "complex64"}, TypeError, "output: "),
    ],
    ids=str,
)
@pytest.mark.no_launch(reason="errors come before any kernel")
def test_wrong_calls(xp, changes, error, says):
    arguments = {"input": np.ones((4, 5)), "weights": np.ones((3, 3))} | changes
    given = {name: xp.asarray(a) if isinstance(a, np.ndarray) else a for name, a in arguments.items()}
    with pytest.raises(error, match="^" + re.escape(says)):
        cuvarconv.normalized_correlate(**given)
    if "output" in given and not isinstance(given["output"], str):
        np.testing.assert_array_equal(xp.to_numpy(given["output"]), 0)
