"""`correlate` and `convolve` on arrays of every dtype and layout, and what they write."""

import math

import numpy as np
import pytest
import reference
from test_correlate import check, correlated, kernels
from tolerances import BFLOAT16, assert_close, assert_equal, integers, noise, stored

import cuvarconv

# ---- dtypes --------------------------------------------------------------------------------------

INEXACT = ["float16", "float32", "float64", "complex64", "complex128", BFLOAT16]
EXACT = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]


@pytest.mark.parametrize("dtype", [*INEXACT, *EXACT], ids=str)
@pytest.mark.parametrize("function", ["correlate", "convolve"])
def test_whole_numbers_of_every_dtype(xp, function, dtype):
    x, k = integers((2, 6, 7), dtype), kernels((3, 3), (6, 7), dtype)
    assert check(xp, x, k, function).dtype == dtype


@pytest.mark.parametrize("dtype", INEXACT, ids=str)
def test_noise(xp, dtype):
    x, k = noise((3, 9, 10), dtype), noise((5, 4, 9, 10), dtype, seed=1)
    result = correlated(xp, x, k)
    assert result.dtype == dtype
    assert_close(result, reference.correlate(x, k))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32"], ids=str)
def test_many_taps_are_summed_accurately(xp, dtype):
    x = (np.random.default_rng(0).random((4, 5)) + 1).astype(dtype)
    k = (np.random.default_rng(1).random((70, 70)) / 4900).astype(dtype)
    assert_close(correlated(xp, x, k, mode="wrap"), reference.correlate(x, k, "wrap"))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_half_precision_is_summed_in_single(xp, dtype):
    """A sum of ones stops at 2048 in float16, at 256 in bfloat16."""
    result = correlated(xp, np.ones((1, 3), dtype), np.ones((1, 4096), dtype))
    assert_equal(result, np.full((1, 3), 4096, dtype))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_half_precision_reaches_a_wider_output_unrounded(xp, dtype):
    """The first sum is odd and beyond 2048; the second overflows float16."""
    ones = np.ones((1, 3), dtype), np.ones((1, 2115), dtype)
    assert_equal(correlated(xp, *ones, output=np.float32), np.full((1, 3), 2115, np.float32))
    large = np.full((3, 3), 8192, dtype), np.ones((3, 3), dtype)
    assert_equal(correlated(xp, *large, output=np.float64), np.full((3, 3), 9 * 8192.0))


@pytest.mark.parametrize(
    ("images", "weights", "result"),
    [
        ("float32", "float64", "float32"),
        ("float64", "float32", "float64"),
        ("float16", "float32", "float16"),
        ("float32", "complex64", "complex64"),
        ("float64", "complex64", "complex128"),
        ("float16", "complex64", "complex64"),
        ("complex64", "float64", "complex64"),
        ("complex128", "float32", "complex128"),
        ("int16", "complex128", "complex64"),
        ("int64", "complex64", "complex128"),
        ("uint8", "float32", "uint8"),
        ("int32", "float16", "int32"),
        ("uint8", "int64", "uint8"),
        ("uint64", "int64", "uint64"),
        ("float32", "int8", "float32"),
        ("bool", "float64", "bool"),
        ("float64", "bool", "float64"),
        (BFLOAT16, "float32", BFLOAT16),
        ("float32", BFLOAT16, "float32"),
    ],
    ids=str,
)
def test_mixed_dtypes(xp, images, weights, result):
    x, k = integers((6, 7), images), kernels((3, 3), (6, 7), weights)
    assert check(xp, x, k).dtype == result


@pytest.mark.parametrize(("images", "weights"), [("float32", "float64"), ("float64", "float32")], ids=str)
def test_products_are_formed_in_the_wider_dtype(xp, images, weights):
    x, k = noise((6, 7), images), noise((3, 3), weights)
    result = correlated(xp, x, k, output=np.float64)
    assert_close(result, reference.correlate(x, k), np.float64)


@pytest.mark.parametrize("dtype", EXACT[:-1])
def test_integers_are_truncated_toward_zero(xp, dtype):
    x = np.array([[1, 2, 3, 5, 0]], dtype)
    result = correlated(xp, x, np.array([[0.75]], np.float32))
    assert_equal(result, np.array([[0, 1, 2, 3, 0]], dtype))


@pytest.mark.parametrize("dtype", EXACT[:-1])
def test_integers_wrap_around(xp, dtype):
    x = np.array([[1, 2, 100, 0]], dtype)
    factors = np.array([[-3.5]]), np.array([[70001.0]]), np.array([[-70001000003.0]])
    for k in factors:
        result = correlated(xp, x, k)
        exact = [math.trunc(float(value) * k.item()) for value in x.ravel()]
        bits = np.iinfo(dtype).bits
        wrapped = np.array([value % 2**bits for value in exact], f"uint{bits}").view(dtype)
        assert_equal(result, wrapped[None])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "float32"])
def test_integer_results_beyond_24_bits_are_exact(xp, dtype):
    """They are computed in float64, also where both operands are shorter."""
    x = np.array([[127, 125, -3]], dtype)
    result = correlated(xp, x, np.array([[1234577.0]], np.float32), output=np.int64)
    assert_equal(result, np.array([[127, 125, -3]]) * 1234577)


def test_bool_output_is_not_zero(xp):
    x = np.array([[True, False, True]])
    for factor in (2.0, -1.0, 0.25, 256.0):
        assert_equal(correlated(xp, x, np.array([[factor]])), x)
    cancelled = correlated(xp, np.ones((1, 2), bool), np.array([[1.0, -1.0]]))
    assert_equal(cancelled, np.zeros((1, 2), bool))


@pytest.mark.parametrize("function", ["correlate", "convolve"])
@pytest.mark.parametrize(
    ("images", "weights"),
    [("complex64", "complex64"), ("float32", "complex64"), ("complex64", "float32")],
)
def test_conjugation(xp, function, images, weights):
    x, k = integers((5, 6), images), kernels((2, 3), (5, 6), weights)
    result = check(xp, x, k, function)
    if weights == "complex64":
        other = getattr(reference, function)(x, k.conj())
        assert not np.array_equal(result, other)


def test_complex_cval(xp):
    check(xp, integers((4, 5), "complex64"), kernels((3, 3)), mode="constant", cval=2 - 3j)


@pytest.mark.parametrize("value", [2, 2.5, True, np.float32(2.5), np.int8(-3)], ids=repr)
def test_kinds_of_cval(xp, value):
    check(xp, integers((3, 4)), 2 * kernels((3, 3)), mode="constant", cval=value)


def test_cval_is_not_rounded_to_the_input(xp):
    k = np.array([[1.0, 1.0, 1.0]])
    result = correlated(xp, np.array([[1, 1]], np.int32), k, mode="constant", cval=0.5)
    assert_equal(result, np.array([[2, 2]], np.int32))  # 2.5 truncated
    result = correlated(xp, np.array([[1, 1]], np.uint8), 2 * k, mode="constant", cval=-0.5)
    assert_equal(result, np.array([[3, 3]], np.uint8))


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">u4", ">c8", ">f2"])
def test_big_endian_arrays(dtype):
    x, k = integers((5, 6), dtype), kernels((3, 3), (5, 6), dtype)
    result = cuvarconv.correlate(x, k)
    native = np.dtype(dtype).newbyteorder("=")
    assert result.dtype == native
    assert_equal(result, cuvarconv.correlate(x.astype(native), k.astype(native)))
    into = np.empty((5, 6), dtype)
    assert cuvarconv.correlate(x, k, into) is into
    assert_equal(into.astype(native), result)


# ---- output --------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["float64", np.float64, np.dtype("f8"), float], ids=repr)
def test_output_as_dtype(xp, output):
    x, k = integers((5, 6)), kernels((3, 3))
    result = correlated(xp, x, k, output=output)
    assert result.dtype == np.float64
    assert_equal(result, reference.correlate(x, k))


@pytest.mark.parametrize("dtype", ["float16", "float64", "int16", "uint8", "bool"])
def test_output_array_of_another_dtype(xp, dtype):
    x, k = integers((5, 6)), kernels((3, 3))
    output = xp.asarray(np.full((5, 6), 77, dtype))
    assert cuvarconv.correlate(xp.asarray(x), xp.asarray(k), output) is output
    assert_equal(xp.to_numpy(output), stored(reference.correlate(x, k), dtype))


LAYOUTS = {
    "contiguous": lambda module: module.zeros((2, 6, 5), np.float32),
    "Fortran": lambda module: module.zeros((2, 6, 5), np.float32, order="F"),
    "transposed": lambda module: module.zeros((5, 6, 2), np.float32).transpose(2, 1, 0),
    "reversed": lambda module: module.zeros((2, 6, 5), np.float32)[::-1, ::-1, ::-1],
    "every other": lambda module: module.zeros((2, 12, 15), np.float32)[:, ::2, 1::3],
    "inside": lambda module: module.zeros((4, 9, 8), np.float32)[1:3, 2:8, 3:],
    "field": lambda module: module.zeros((2, 6, 5, 3), np.float32)[..., 1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_output(xp, layout):
    x, k = integers((2, 6, 5)), kernels((3, 2), (6, 5))
    output = LAYOUTS[layout](xp.module)
    assert cuvarconv.correlate(xp.asarray(x), xp.asarray(k), output) is output
    assert_equal(xp.to_numpy(output), reference.correlate(x, k).astype(np.float32))


def test_writes_nothing_beside_a_strided_output(xp):
    whole = xp.module.zeros((9, 12), np.float32)
    cuvarconv.correlate(xp.asarray(integers((4, 5)) + 10), xp.asarray(np.ones((1, 1))), whole[1:9:2, 1:6])
    written = xp.to_numpy(whole) != 0
    assert written[1:9:2, 1:6].all()
    assert written.sum() == 20


def test_output_overlapping_with_another_dtype(xp):
    values = integers((4, 6), np.float32)
    x = xp.asarray(values.copy())
    output = x.view(np.int32)
    cuvarconv.correlate(x, xp.asarray(np.ones((3, 3), np.float32)), output)
    expected = reference.correlate(values, np.ones((3, 3)))
    assert_equal(xp.to_numpy(output), expected.astype(np.int32))


# ---- strides -------------------------------------------------------------------------------------

VIEWS = {
    "Fortran": lambda xp, a: xp.module.asarray(xp.asarray(a), order="F"),
    "reversed": lambda xp, a: xp.asarray(a[..., ::-1, ::-1].copy())[..., ::-1, ::-1],
    "transposed": lambda xp, a: xp.asarray(a.swapaxes(-1, -2).copy()).swapaxes(-1, -2),
    "batch inside": lambda xp, a: xp.module.moveaxis(xp.asarray(np.moveaxis(a, 0, -1).copy()), -1, 0),
    "every other": lambda xp, a: xp.asarray(np.repeat(np.repeat(a, 2, -1), 3, -2))[..., ::3, 1::2],
}


@pytest.mark.parametrize("view", VIEWS)
def test_strides_of_the_input(xp, view):
    x, k = integers((2, 6, 7)), kernels((3, 3), (6, 7))
    result = cuvarconv.correlate(VIEWS[view](xp, x), xp.asarray(k))
    assert_equal(xp.to_numpy(result), reference.correlate(x, k).astype(np.float32))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("function", ["correlate", "convolve"])
def test_strides_of_the_weights(xp, function, view):
    x, k = integers((2, 6, 7)), kernels((3, 4), (6, 7))
    result = getattr(cuvarconv, function)(xp.asarray(x), VIEWS[view](xp, k))
    assert_equal(xp.to_numpy(result), getattr(reference, function)(x, k).astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_zero_strides(xp, axis):
    shape = [2, 6, 7]
    x = np.broadcast_to(integers(shape).take([0], axis), shape)
    k = kernels((3, 3), (6, 7))
    view = xp.module.broadcast_to(xp.asarray(x.take([0], axis)), shape)
    assert view.strides[axis] == 0
    result = cuvarconv.correlate(view, xp.asarray(k))
    assert_equal(xp.to_numpy(result), reference.correlate(x, k).astype(np.float32))


def test_overlapping_windows_as_input(xp):
    signal = integers((12,))
    step = signal.itemsize
    x = np.lib.stride_tricks.as_strided(signal, (6, 7), (step, step))
    view = xp.as_strided(xp.asarray(signal), (6, 7), (step, step))
    k = kernels((3, 3))
    result = cuvarconv.correlate(view, xp.asarray(k))
    assert_equal(xp.to_numpy(result), reference.correlate(x, k).astype(np.float32))


def test_misaligned_input():
    memory = np.zeros(6 * 7 * 4 + 1, np.uint8)
    x = memory[1:].view(np.float32).reshape(6, 7)
    x[...] = integers((6, 7))
    output = np.zeros(6 * 7 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(6, 7)
    assert not x.flags.aligned
    k = kernels((3, 3), (6, 7))
    cuvarconv.correlate(x, k, output)
    assert_equal(output, reference.correlate(x, k).astype(np.float32))


@pytest.mark.no_launch(reason="an access that is not aligned would end the CUDA context")
@pytest.mark.parametrize("xp", ["cuda"], indirect=True)
@pytest.mark.parametrize("name", ["input", "weights", "output"])
def test_misaligned_device_memory_is_refused(xp, name):
    given = {key: np.ones((6, 7), np.complex128) for key in ("input", "output")}
    given = {key: xp.asarray(array) for key, array in {**given, "weights": np.ones((6, 7, 6, 7))}.items()}
    shape = given[name].shape
    memory = xp.asarray(np.ones(2 * math.prod(shape) + 1))
    given[name] = memory[1:].view(np.complex128).reshape(shape)
    with pytest.raises(ValueError, match=f"{name}: .*multiple of 16"):
        cuvarconv.correlate(**given)
    assert (xp.to_numpy(memory) == 1).all()


@pytest.mark.no_launch(reason="an access that is not aligned would end the CUDA context")
@pytest.mark.parametrize("xp", ["cuda"], indirect=True)
@pytest.mark.parametrize("name", ["input", "output"])
def test_rows_that_start_within_an_item_are_refused_on_a_device(xp, name):
    memory = xp.asarray(np.ones((6, 15), np.float32))
    given = {key: xp.asarray(np.ones((6, 7), np.complex64)) for key in ("input", "output")}
    given[name] = xp.as_strided(memory.ravel()[:84].view(np.complex64), (6, 7), (60, 8))
    with pytest.raises(ValueError, match=f"{name}: .*multiple of 8, .*strides \\(60, 8\\)"):
        cuvarconv.correlate(**given, weights=xp.asarray(np.ones((3, 3), np.float32)))
    assert (xp.to_numpy(memory) == 1).all()


def test_read_only_operands_stay_as_they_are():
    x, k = integers((6, 7)), kernels((3, 3), (6, 7))
    copies = x.copy(), k.copy()
    x.flags.writeable = k.flags.writeable = False
    assert_equal(cuvarconv.correlate(x, k), reference.correlate(x, k).astype(np.float32))
    assert_equal(x, copies[0])
    assert_equal(k, copies[1])


def test_operands_are_not_changed(xp):
    values, factors = integers((6, 7), "complex64"), kernels((3, 3), (), "complex64")
    x, k = xp.asarray(values.copy()), xp.asarray(factors.copy())
    cuvarconv.correlate(x, k)
    assert_equal(xp.to_numpy(x), values)
    assert_equal(xp.to_numpy(k), factors)


def test_the_result_is_new_and_contiguous(xp):
    x = xp.asarray(integers((6, 7)).T.copy()).T
    result = cuvarconv.correlate(x, xp.asarray(np.ones((1, 1), np.float32)))
    assert result.flags.c_contiguous
    assert result is not x
    result[...] = -1
    assert not (xp.to_numpy(x) == -1).all()
