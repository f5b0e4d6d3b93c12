"""`correlate` and `convolve` against the loops, on every backend."""

import itertools
import math

import numpy as np
import pytest
import reference
from tolerances import BFLOAT16, assert_close, assert_equal, integers, noise, stored

import cuvarconv

MODES = ["reflect", "mirror", "nearest", "wrap", "constant", "valid"]
ALIASES = {"grid-mirror": "reflect", "grid-constant": "constant", "grid-wrap": "wrap"}
SAME_SIZE = MODES[:-1]


def correlated(xp, x, k, function="correlate", **keywords):
    """Call the library on a backend's arrays; the result on the host."""
    return xp.to_numpy(getattr(cuvarconv, function)(xp.asarray(x), xp.asarray(k), **keywords))


def check(xp, x, k, function="correlate", **keywords):
    """Compare whole numbers with the loops, bit for bit."""
    result = correlated(xp, x, k, function, **keywords)
    expected = getattr(reference, function)(x, k, **keywords)
    assert_equal(result, stored(expected, result.dtype))
    return result


def kernels(size, varying=(), dtype=np.float32, seed=7):
    return integers((*size, *varying), dtype, seed)


# ---- the window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, *ALIASES])
@pytest.mark.parametrize("function", ["correlate", "convolve"])
def test_every_mode(xp, function, mode):
    size = (8, 9) if mode != "valid" else (6, 5)
    check(xp, integers((2, 8, 9)), kernels((3, 5), size), function, mode=mode, cval=3.0)


@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, mode):
    check(xp, integers((7, 6)), kernels((3, 4)), mode=mode, cval=-2.0)


@pytest.mark.parametrize("alias", ALIASES)
def test_grid_modes_are_other_names(xp, alias):
    x, k = integers((4, 3)), kernels((7, 8))
    results = [correlated(xp, x, k, mode=mode, cval=5.0) for mode in (alias, ALIASES[alias])]
    assert_equal(*results)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 2), (2, 5)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    check(xp, integers(image), kernels((9, 12), image), mode=mode, cval=1.0)


@pytest.mark.parametrize("origin", [*itertools.product(range(-2, 3), range(-2, 2))], ids=str)
@pytest.mark.parametrize("function", ["correlate", "convolve"])
def test_origins(xp, function, origin):
    if function == "convolve":  # for even sizes it is the mirrored range that is legal
        origin = (origin[0], -origin[1] - 1)
    check(xp, integers((6, 7)), kernels((5, 4)), function, origin=origin)


@pytest.mark.parametrize("size", [*itertools.product([1, 2, 3, 6], [1, 2, 5])], ids=str)
@pytest.mark.parametrize("function", ["correlate", "convolve"])
def test_sizes(xp, function, size):
    check(xp, integers((5, 7)), kernels(size, (5, 7)), function)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [2, 3, (1, 4), (5, 1), (30, 40)], ids=str)
@pytest.mark.parametrize("function", ["correlate", "convolve"])
def test_stride(xp, function, stride, mode):
    check(xp, integers((11, 10)), kernels((3, 4)), function, stride=stride, mode=mode, cval=2.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dilation", [2, (1, 3), (4, 1)], ids=str)
@pytest.mark.parametrize("function", ["correlate", "convolve"])
def test_dilation(xp, function, dilation, mode):
    check(xp, integers((13, 12)), kernels((3, 4)), function, dilation=dilation, mode=mode)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("dilation", [7, (50, 3), (3, 1001)], ids=str)
def test_dilation_beyond_the_image(xp, dilation, mode):
    x, k = integers((5, 6)), kernels((3, 4), (5, 6))
    check(xp, x, k, dilation=dilation, mode=mode, cval=-1.0, origin=(1, -2))


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_stride_dilation_and_origin_together(xp, mode):
    x, k = integers((2, 12, 11)), kernels((4, 3), (2, 6, 4))
    check(xp, x, k, mode=mode, stride=(2, 3), dilation=(3, 2), origin=(-2, 1), cval=4.0)


def test_window_that_just_fits_under_valid(xp):
    assert check(xp, integers((7, 9)), kernels((3, 2)), mode="valid", dilation=(3, 8)).shape == (1, 1)


def test_valid_along_one_axis_lets_the_other_have_an_origin(xp):
    check(xp, integers((7, 6)), kernels((3, 3)), mode=("valid", "wrap"), origin=(0, 1))


def test_numpy_integers_and_lists_as_arguments(xp):
    x, k = integers((6, 7)), kernels((3, 3))
    result = correlated(
        xp, x, k, mode=["wrap", "nearest"], origin=np.array([1, 0]), stride=np.int8(2), dilation=[1, 2]
    )
    expected = reference.correlate(x, k, ("wrap", "nearest"), origin=(1, 0), stride=2, dilation=(1, 2))
    assert_equal(result, expected.astype(np.float32))


def test_large_enough_for_several_tiles(xp):
    x, k = integers((3, 70, 150)), kernels((3, 3), (70, 150))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    result = correlated(xp, x, k)
    assert_equal(result, np.einsum("...ijmn,mnij->...ij", windows, k, dtype=np.float64))


@pytest.mark.parametrize("size", [(65, 3), (2, 130), (40, 40)], ids=str)
def test_large_windows(xp, size):
    check(xp, integers((6, 7)), kernels(size), mode="wrap")


# ---- axes and broadcasting -----------------------------------------------------------------------


@pytest.mark.parametrize("axes", [*itertools.permutations(range(4), 2)], ids=str)
def test_axes(xp, axes):
    x = integers((5, 4, 6, 3))
    check(xp, x, kernels((3, 2), x.shape), axes=axes, mode=("wrap", "constant"), origin=(1, -1))


@pytest.mark.parametrize("axes", [(0, 1), (-3, 1), (1, 0), [0, 1]], ids=str)
def test_channels_last(xp, axes):
    check(xp, integers((6, 5, 3)), kernels((3, 3), (1, 1, 3)), axes=axes)


def test_axes_with_stride_change_the_right_lengths(xp):
    x = integers((9, 2, 7, 3))
    assert check(xp, x, kernels((3, 3)), axes=(2, 0), stride=(2, 3)).shape == (3, 2, 4, 3)


@pytest.mark.parametrize(
    "varying",
    [
        (),
        (1,),
        (1, 1),
        (5, 6),
        (1, 6),
        (5, 1),
        (6,),
        (3, 1, 1),
        (3, 5, 6),
        (1, 5, 6),
        (2, 1, 5, 6),
        (2, 3, 1, 1),
        (2, 1, 1, 6),
        (2, 3, 5, 6),
        (1, 1, 1, 1),
    ],
    ids=str,
)
def test_broadcasting_of_weights(xp, varying):
    check(xp, integers((2, 3, 5, 6)), kernels((3, 2), varying))


@pytest.mark.parametrize("varying", [(), (3, 4), (2, 1, 1), (2, 3, 4)], ids=str)
def test_weights_meet_the_output_where_it_is_smaller(xp, varying):
    check(xp, integers((2, 6, 7)), kernels((3, 3), varying), stride=2)


def test_weights_follow_the_output_own_axis_order(xp):
    x, k = integers((5, 6, 2)), kernels((3, 3), (5, 6, 1))
    first = correlated(xp, x, k, axes=(0, 1))
    last = correlated(xp, np.moveaxis(x, -1, 0), k[..., 0])
    assert_equal(first, np.moveaxis(last, 0, -1))


def test_many_batch_axes(xp):
    check(xp, integers((2, 1, 2, 3, 1, 4, 5)), kernels((2, 3), (2, 3, 1, 1, 5)))


def test_batch_of_tiny_images(xp):
    check(xp, integers((70, 2, 2)), kernels((3, 3), (70, 1, 1)))


def test_input_broadcast_to_apply_several_kernels(xp):
    x, k = integers((5, 6)), kernels((3, 3), (4, 1, 1))
    view = xp.module.broadcast_to(xp.asarray(x), (4, 5, 6))
    result = xp.to_numpy(cuvarconv.correlate(view, xp.asarray(k)))
    assert_equal(result, reference.correlate(np.broadcast_to(x, (4, 5, 6)), k).astype(np.float32))


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


@pytest.mark.parametrize(
    "overlap",
    [
        lambda x: x,
        lambda x: x[::-1],
        lambda x: x[:, ::-1],
        lambda x: x.transpose(1, 0),
    ],
    ids=["same", "rows reversed", "columns reversed", "transposed"],
)
def test_output_overlaps_the_input(xp, overlap):
    values, k = integers((6, 6)), kernels((3, 3), (6, 6))
    x = xp.asarray(values.copy())
    output = overlap(x)
    assert cuvarconv.correlate(x, xp.asarray(k), output) is output
    assert_equal(xp.to_numpy(output), reference.correlate(values, k).astype(np.float32))


def test_output_overlaps_the_input_over_many_blocks(xp):
    """The first block writes what the last one reads."""
    values, k = integers((900, 400)), kernels((3, 1))
    x = xp.asarray(values.copy())
    expected = xp.to_numpy(cuvarconv.correlate(x, xp.asarray(k)))
    cuvarconv.correlate(x, xp.asarray(k), x[::-1])
    assert_equal(xp.to_numpy(x)[::-1], expected)


def test_output_shifted_against_the_input(xp):
    values, k = integers((9, 6)), kernels((3, 3))
    whole = xp.asarray(values.copy())
    cuvarconv.correlate(whole[:-1], xp.asarray(k), whole[1:])
    result = xp.to_numpy(whole)
    assert_equal(result[1:], reference.correlate(values[:-1], k).astype(np.float32))
    assert_equal(result[:1], values[:1])


def test_output_overlaps_the_weights(xp):
    x, values = integers((3, 3)), kernels((3, 3), (3, 3))
    k = xp.asarray(values.copy())
    cuvarconv.correlate(xp.asarray(x), k, k[1, 1])
    assert_equal(xp.to_numpy(k)[1, 1], reference.correlate(x, values).astype(np.float32))
    assert_equal(xp.to_numpy(k)[0], values[0])


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


# ---- small and special ---------------------------------------------------------------------------


@pytest.mark.no_launch(reason="there is nothing to compute")
@pytest.mark.parametrize(
    "shape", [(0, 4), (4, 0), (0, 0), (0, 3, 4), (2, 0, 4), (2**40, 0, 5), (0, 2**40, 2)], ids=str
)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_empty_arrays(xp, shape, mode):
    x = xp.module.empty(shape, np.float32)
    result = cuvarconv.correlate(x, xp.asarray(kernels((3, 3))), mode=mode, cval=1.0)
    assert result.shape == shape
    assert result.dtype == np.float32
    output = xp.module.empty(shape, np.float64)
    assert cuvarconv.correlate(x, xp.asarray(kernels((3, 3))), output, mode=mode) is output


@pytest.mark.no_launch(reason="there is nothing to compute")
def test_empty_weights_for_an_empty_image(xp):
    x, k = xp.module.empty((0, 4, 5)), xp.module.empty((3, 3, 0, 4, 5))
    assert cuvarconv.correlate(x, k).shape == (0, 4, 5)
    assert cuvarconv.correlate(x, k, stride=1, mode="wrap").shape == (0, 4, 5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 5), (5, 1), (1, 3, 1, 4, 1)], ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_axes_of_length_one(xp, shape, mode):
    check(xp, integers(shape), kernels((3, 3), shape), mode=mode, cval=2.0)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["input", "weights"])
def test_no_tap_is_skipped(xp, where, special):
    x, k = np.zeros((5, 6), np.float32), np.zeros((3, 3), np.float32)
    (x if where == "input" else k)[1, 1] = special
    result = correlated(xp, x, k)
    with np.errstate(invalid="ignore"):
        assert_equal(result, reference.correlate(x, k).astype(np.float32))
    assert np.isnan(result).any()


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_nan_stays_where_its_windows_are(xp, mode):
    x = integers((7, 8))
    x[3, 4] = np.nan
    result = check(xp, x, kernels((3, 3)), mode=mode)
    assert np.isnan(result).sum() == 9


def test_infinity_times_a_weight(xp):
    x = np.array([[0, np.inf, 0, -np.inf, 0]], np.float32)
    result = correlated(xp, x, np.array([[1.0, 2.0, 1.0]], np.float32))
    assert_equal(result, np.array([[np.inf, np.inf, np.nan, -np.inf, -np.inf]], np.float32))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64"])
def test_nan_to_integer_gives_no_warning(xp, dtype):
    x = np.array([[np.nan, np.inf, 1e30, 3.0]])
    result = correlated(xp, x, np.ones((1, 1)), output=dtype)
    assert result[0, 3] == 3


def test_overflow_gives_no_warning(xp):
    x = np.full((2, 3), 6e4, np.float16)
    result = correlated(xp, x, np.ones((1, 3), np.float16))
    assert_equal(result, np.full((2, 3), np.inf, np.float16))
    x = np.full((2, 3), 3e38, np.float32)
    assert_equal(correlated(xp, x, np.full((1, 1), 2, np.float32)), np.full((2, 3), np.inf, np.float32))


def test_a_nan_outside_the_window_of_valid_does_no_harm(xp):
    check(xp, integers((5, 6)), kernels((3, 3)), mode="valid", cval=np.nan)


def test_nan_as_cval(xp):
    result = check(xp, integers((5, 6)), kernels((3, 3)), mode="constant", cval=np.nan)
    assert np.isfinite(result[1:-1, 1:-1]).all()


# ---- 64-bit extents ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_image_with_more_than_2_32_rows(xp, mode):
    """Rows that are one in memory; tables, strides and lengths need 64 bits."""
    rows, stride = 2**33 + 5, 2**31
    row, k = integers((1, 6)), kernels((3, 3))
    x = xp.module.broadcast_to(xp.asarray(row), (rows, 6))
    result = xp.to_numpy(cuvarconv.correlate(x, xp.asarray(k), mode=mode, stride=(stride, 1), cval=9.0))
    assert result.shape == (5, 6)
    inside = reference.correlate(np.broadcast_to(row, (3, 6)), k, mode=mode, cval=9.0)
    assert_equal(result[1:], np.broadcast_to(inside[1], (4, 6)).astype(np.float32))
    assert_equal(result[0], inside[0].astype(np.float32))


@pytest.mark.parametrize("dilation", [2**31 - 1, 2**31 + 1, 2**40 + 3], ids=hex)
@pytest.mark.parametrize("mode", ["nearest", "wrap", "constant"])
def test_dilation_beyond_32_bits(xp, dilation, mode):
    equivalent = dilation % 6 + 6 if mode == "wrap" else 60
    x, k = integers((6, 6)), kernels((3, 3))
    result = correlated(xp, x, k, mode=mode, dilation=dilation)
    expected = reference.correlate(x, k, mode, dilation=equivalent)
    assert_equal(result, expected.astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1])
def test_elements_more_than_2_31_apart(xp, axis):
    """Two images, or two rows, 2³¹ + 64 bytes apart; the memory between is never touched."""
    if xp.is_emulated:
        pytest.skip("the emulator fills and checks every byte that it allocates")
    step = 2**31 + 64
    memory = xp.module.empty(step + 256, np.int8)
    shape, strides = ((2, 6, 7), (step, 7, 1)) if axis == 0 else ((3, 2, 7), (7, step, 1))
    x = integers(shape, np.int8)
    view = xp.as_strided(memory, shape, strides)
    view[...] = xp.asarray(x)
    k = kernels((3, 3), (), np.int8)
    result = xp.to_numpy(cuvarconv.correlate(view, xp.asarray(k)))
    assert_equal(result, stored(reference.correlate(x, k), np.int8))
    backwards = xp.to_numpy(cuvarconv.correlate(view[::-1, ::-1], xp.asarray(k)))
    assert_equal(backwards, stored(reference.correlate(x[::-1, ::-1], k), np.int8))
    cuvarconv.correlate(xp.asarray(x), xp.asarray(k), view)
    assert_equal(xp.to_numpy(view.copy()), result)


# ---- calls ---------------------------------------------------------------------------------------


def test_lists_and_scalars():
    result = cuvarconv.correlate([[1, 2], [3, 4]], [[2]])
    assert_equal(result, np.array([[2, 4], [6, 8]]))
    assert type(result) is np.ndarray


def test_positional_order_is_that_of_scipy():
    x, k = integers((4, 5)), kernels((3, 3))
    positional = cuvarconv.correlate(x, k, None, "constant", 2.0, (1, 0))
    named = cuvarconv.correlate(x, k, output=None, mode="constant", cval=2.0, origin=(1, 0))
    assert_equal(positional, named)


def test_the_same_call_gives_the_same_bits(xp):
    x, k = xp.asarray(noise((40, 50))), xp.asarray(noise((5, 5, 40, 50)))
    first, second = (xp.to_numpy(cuvarconv.correlate(x, k)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
