"""`correlate` and `convolve` against the loops, on every backend."""

import itertools

import numpy as np
import pytest
import reference
from tolerances import assert_equal, integers, noise, stored

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
