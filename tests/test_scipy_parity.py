"""With one kernel for all pixels, `correlate` and `convolve` are scipy.ndimage's on the last two axes."""

import itertools
import warnings
from fractions import Fraction

import numpy as np
import pytest
import reference
from scipy import ndimage
from tolerances import assert_close, assert_equal, integers, noise

import cuvarconv

MODES = ["reflect", "mirror", "nearest", "wrap", "constant"]
GRID_MODES = ["grid-mirror", "grid-constant", "grid-wrap"]
FUNCTIONS = ["correlate", "convolve"]
SIZES = [(1, 1), (1, 4), (3, 3), (4, 2), (5, 6)]
DTYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"),
    *("float32", "float64", "complex64", "complex128"),
]
ON_CUDA = ["uint8", "int64", "bool", "float32", "float64", "complex64", "complex128"]


def scipy_result(function, x, k, *arguments, **keywords):
    return getattr(ndimage, function)(x, k, *arguments, axes=(-2, -1), **keywords)


def our_result(xp, function, x, k, *arguments, **keywords):
    operands = xp.asarray(x), xp.asarray(k)
    return xp.to_numpy(getattr(cuvarconv, function)(*operands, *arguments, **keywords))


def check(xp, function, x, k, *arguments, **keywords):
    expected = scipy_result(function, x, k, *arguments, **keywords)
    assert_equal(our_result(xp, function, x, k, *arguments, **keywords), expected)


def legal_origins(taps, function):
    if function == "convolve" and taps % 2 == 0:  # −origin − 1 must be legal for `correlate`
        return range(-(taps // 2), taps // 2)
    return range(-(taps // 2), (taps - 1) // 2 + 1)


def is_sound(x, size, mode):
    """Whether scipy can be the oracle: in mode reflect it reads garbage far outside of the image.

    Seen in scipy 1.17.1 with 2 pixels, 9 taps and origin 4; the loops stand in for it there.
    """
    return mode not in ("reflect", "grid-mirror") or all(
        taps <= pixels for taps, pixels in zip(size, x.shape[-2:], strict=True)
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", [*MODES, *GRID_MODES])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_modes_and_all_legal_origins(xp, function, mode, size):
    x, k = integers((2, 6, 7)), integers(size, seed=1)
    for origin in itertools.product(*(legal_origins(taps, function) for taps in size)):
        check(xp, function, x, k, mode=mode, cval=2.0, origin=origin)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_same_origins_are_refused(function, size):
    x, k = integers((6, 7)), np.ones(size)
    for axis, taps in enumerate(size):
        legal = legal_origins(taps, function)
        for bad in (legal[0] - 1, legal[-1] + 1):
            origin = (bad, 0) if axis == 0 else (0, bad)
            if function == "convolve":  # 0 is legal for every size there, too
                assert 0 in legal
            with pytest.raises(ValueError, match="Invalid origin"):
                scipy_result(function, x, k, origin=origin)
            with pytest.raises(ValueError, match=r"^origin: expected"):
                getattr(cuvarconv, function)(x, k, origin=origin)


@pytest.mark.parametrize("image", [(1, 1), (1, 3), (2, 2), (3, 2), (2, 9)], ids=str)
@pytest.mark.parametrize("mode", [*MODES, *GRID_MODES])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_windows_larger_than_the_image(xp, function, mode, image):
    x = integers(image)
    for size in [(9, 9), (5, 12), (12, 1)]:
        k = integers(size, seed=1)
        origins = [legal_origins(taps, function) for taps in size]
        for origin in [tuple(o[0] for o in origins), (0, 0), tuple(o[-1] for o in origins)]:
            keywords = {"mode": mode, "cval": 2.0, "origin": origin}
            if is_sound(x, size, mode):
                check(xp, function, x, k, **keywords)
            else:
                expected = getattr(reference, function)(x, k, **keywords)
                assert_equal(our_result(xp, function, x, k, **keywords), expected.astype(x.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_dtypes(xp, function, dtype):
    if xp.name == "cuda" and dtype not in ON_CUDA:
        pytest.skip("seven dtypes are enough on CUDA; test_correlate.py has them all")
    x = integers((2, 6, 7), dtype)
    for mode, size in itertools.product([*MODES, *GRID_MODES], [(3, 3), (4, 1)]):
        for weights_dtype in {dtype, "float64"}:
            k = integers(size, weights_dtype, seed=1)
            check(xp, function, x, k, mode=mode, cval=3.0)


@pytest.mark.parametrize(
    ("images", "weights"),
    [
        *itertools.product(["uint8", "int32", "float32", "complex64"], ["int16", "complex128"]),
        *itertools.product(["bool", "int64", "float64", "complex128"], ["bool", "complex64"]),
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_mixed_dtypes(function, images, weights):
    x, k = integers((6, 7), images), integers((3, 2), weights, seed=1)
    expected = scipy_result(function, x, k)
    assert_equal(getattr(cuvarconv, function)(x, k), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_noise(xp, function, dtype):
    x, k = noise((2, 11, 13), dtype), noise((5, 4), dtype, seed=1)
    result = our_result(xp, function, x, k)
    expected = scipy_result(function, x, k)
    assert result.dtype == expected.dtype
    assert_close(result, expected)


@pytest.mark.parametrize("factor", [0.3, -0.75, 1.5, -2.25, 300.7])
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype[0] in "iu"])
def test_truncation_and_wrap_around_of_integers(dtype, factor):
    x, k = integers((6, 7), dtype, high=100), np.array([[factor]])
    assert_equal(cuvarconv.correlate(x, k), scipy_result("correlate", x, k))


@pytest.mark.parametrize("output", ["int16", "uint8", "float32", "float64"])
@pytest.mark.parametrize(
    "kind", [str, np.dtype, lambda name: np.dtype(name).type], ids=["name", "dtype", "type"]
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_output_as_dtype(function, kind, output):
    x, k = integers((6, 7)), integers((3, 2), seed=1)
    keywords = {"output": kind(output)}
    expected = scipy_result(function, x, k, **keywords)
    assert_equal(getattr(cuvarconv, function)(x, k, **keywords), expected)


@pytest.mark.parametrize("output", [int, float, bool, np.bool_], ids=repr)
def test_output_as_type(output):
    x, k = integers((6, 7)), integers((3, 2), seed=1)
    expected = scipy_result("correlate", x, k, output)
    assert_equal(cuvarconv.correlate(x, k, output), expected)


@pytest.mark.parametrize("output", ["int16", "uint8", "bool", "float32", "float64"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_output_array(xp, function, output):
    x, k = integers((6, 7)), integers((3, 2), seed=1)
    expected, into = np.empty((6, 7), output), xp.asarray(np.empty((6, 7), output))
    scipy_result(function, x, k, expected)
    getattr(cuvarconv, function)(xp.asarray(x), xp.asarray(k), into)
    assert_equal(xp.to_numpy(into), expected)


@pytest.mark.parametrize("output", ["complex64", np.complex64, np.dtype("c16"), complex], ids=repr)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_complex_output_of_complex_operands(function, output):
    x, k = integers((6, 7), "complex64"), integers((3, 2), "complex64", seed=1)
    expected = scipy_result(function, x, k, output)
    assert_equal(getattr(cuvarconv, function)(x, k, output), expected)


@pytest.mark.parametrize("output", [np.float32, np.dtype("f8"), int, np.float16], ids=repr)
def test_real_dtype_for_complex_operands_is_promoted_with_a_warning(output):
    x, k = integers((6, 7), "complex64"), integers((3, 2), seed=1)
    with pytest.warns(UserWarning, match="promoting"):
        expected = scipy_result("correlate", x, k, output)
    with pytest.warns(UserWarning, match=r"^output: promoting") as record:
        result = cuvarconv.correlate(x, k, output)
    assert record[0].filename == __file__
    assert_equal(result, expected)


@pytest.mark.parametrize("cval", [2.0, 1 - 3j, np.complex64(2j), -1, True], ids=repr)
@pytest.mark.parametrize("weights", ["float32", "complex64"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_complex_input_and_cval(xp, function, weights, cval):
    x, k = integers((5, 6), "complex64"), integers((3, 2), weights, seed=1)
    check(xp, function, x, k, mode="constant", cval=cval)


@pytest.mark.parametrize(
    "cval", [3, 2.5, True, np.float32(1.5), np.uint8(7), np.array(2.0), Fraction(1, 2)], ids=repr
)
def test_kinds_of_cval_that_scipy_takes(cval):
    x, k = integers((5, 6)), integers((3, 2), seed=1)
    expected = scipy_result("correlate", x, k, mode="constant", cval=cval)
    assert_equal(cuvarconv.correlate(x, k, mode="constant", cval=cval), expected)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_batch_axes(xp, function, batch):
    check(xp, function, integers((*batch, 5, 6)), integers((3, 2), seed=1), mode="wrap")


@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 2), (-3, -1), (1, 3)], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_axes(xp, function, axes):
    x, k = integers((4, 5, 3, 6)), integers((3, 2), seed=1)
    expected = getattr(ndimage, function)(x, k, axes=axes, origin=(1, -1))
    assert_equal(our_result(xp, function, x, k, axes=axes, origin=(1, -1)), expected)


def test_lists():
    x, k = [[1, 2, 3], [4, 5, 6]], [[1, 2]]
    assert_equal(cuvarconv.correlate(x, k), ndimage.correlate(x, k))


def test_overlapping_output():
    expected = integers((6, 7))
    x, k = expected.copy(), integers((3, 3), seed=1)
    ndimage.correlate(expected, k, expected)
    cuvarconv.correlate(x, k, x)
    assert_equal(x, expected)


@pytest.mark.no_launch(reason="there is nothing to compute")
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 3, 4), (2, 3, 0)], ids=str)
def test_empty_images(xp, shape):
    check(xp, "correlate", np.empty(shape), np.ones((3, 3)))


X, K = integers((3, 4), "float64"), np.ones((3, 3))
COMPLEX = X + 1j

REFUSED = {
    "weights of three axes": ((X, np.ones((3, 3, 3))), {}),
    "weights of one axis": ((X, np.ones(3)), {}),
    "weights without taps": ((X, np.ones((0, 3))), {}),
    "input of one axis": ((X[0], K), {}),
    "scalar input": ((5.0, K), {}),
    "object input": ((X.astype(object), K), {}),
    "longdouble input": ((X.astype(np.longdouble), K), {}),
    "bytes input": ((np.full((3, 4), b"a"), K), {}),
    "strings": ((np.full((3, 4), "a"), K), {}),
    "dates": ((np.zeros((3, 4), "M8[s]"), K), {}),
    "origin too large": ((X, K), {"origin": 2}),
    "origin too small": ((X, K), {"origin": -2}),
    "three origins": ((X, K), {"origin": (0, 0, 0)}),
    "one origin in a tuple": ((X, K), {"origin": (1,)}),
    "fractional origin": ((X, K), {"origin": 0.5}),
    "origin as text": ((X, K), {"origin": "a"}),
    "origin None": ((X, K), {"origin": None}),
    "unknown mode": ((X, K), {"mode": "edge"}),
    "mode in capitals": ((X, K), {"mode": "REFLECT"}),
    "mode as bytes": ((X, K), {"mode": b"reflect"}),
    "mode as number": ((X, K), {"mode": 3}),
    "mode None": ((X, K), {"mode": None}),
    "cval as text": ((X, K), {"cval": "a"}),
    "cval None": ((X, K), {"cval": None}),
    "cval as list": ((X, K), {"cval": [1.0]}),
    "complex cval": ((X, K), {"cval": 1j}),
    "complex cval with complex weights": ((X, K + 0j), {"cval": 1j}),
    "axes twice the same": ((X, K), {"axes": (0, 0)}),
    "axes beyond": ((X, K), {"axes": (0, 2)}),
    "one axis": ((X, K), {"axes": (0,)}),
    "fractional axes": ((X, K), {"axes": 0.5}),
    "axes as text": ((X, K), {"axes": "ab"}),
    "output of another shape": ((X, K, np.empty((4, 3))), {}),
    "output with another number of axes": ((X, K, np.empty((1, 3, 4))), {}),
    "real output for complex operands": ((COMPLEX, K, np.empty((3, 4))), {}),
    "real output for complex weights": ((X, K + 0j, np.empty((3, 4))), {}),
    "name of a real dtype for complex operands": ((COMPLEX, K, "float32"), {}),
    "complex output for real operands": ((X, K, np.empty((3, 4), complex)), {}),
    "complex dtype for real operands": ((X, K, np.complex64), {}),
    "output as list": ((X, K, [1.0]), {}),
    "output as number": ((X, K, 5), {}),
    "output bool by name": ((X, K, "bool"), {}),
    "output object": ((X, K, object), {}),
    "output list type": ((X, K, list), {}),
    "output bytes": ((X, K, "S3"), {}),
    "output longdouble": ((X, K, np.longdouble), {}),
    "output dates": ((X, K, "M8[s]"), {}),
    "output abstract": ((X, K, np.floating), {}),
    "output nonsense": ((X, K, "no such dtype"), {}),
}


@pytest.mark.parametrize("call", REFUSED)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_scipy_refuses_is_refused(function, call):
    arguments, keywords = REFUSED[call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception):  # noqa: B017, PT011 each of scipy's own kinds
            getattr(ndimage, function)(*arguments, **keywords)
    with pytest.raises((TypeError, ValueError), match=r"^(input|weights|output|mode|cval|origin|axes): "):
        getattr(cuvarconv, function)(*arguments, **keywords)


def test_float16_is_an_extension():
    x, k = noise((6, 7), "float16"), noise((3, 3), "float16", seed=1)
    with pytest.raises(RuntimeError):
        ndimage.correlate(x, k)
    assert_close(cuvarconv.correlate(x, k), ndimage.correlate(x.astype(float), k.astype(float)))


def test_tiny_weights_are_not_dropped_as_in_scipy():
    x, k = np.array([[1e20, 1.0]]), np.array([[1e-16, 1.0, 0.0]])
    np.testing.assert_array_equal(cuvarconv.correlate(x, k), reference.correlate(x, k), strict=True)
