"""`spread`, the adjoint of `correlate`, against the loops, on every backend."""

import itertools

import numpy as np
import pytest
import reference
from forms import EXACT, INEXACT, MODES, SAME_SIZE, VIEWS
from tolerances import BFLOAT16, assert_close, assert_equal, integers, noise, stored

import cuvarconv


def spots(shape, dtype=np.float32):
    return integers(shape, dtype, seed=3)


def kernels(size, varying=(), dtype=np.float32):
    return integers((*size, *varying), dtype, seed=7)


def spread(xp, z, k, **keywords):
    """Call the library on a backend's arrays; the result on the host."""
    return xp.to_numpy(cuvarconv.spread(xp.asarray(z), xp.asarray(k), **keywords))


def check(xp, z, k, **keywords):
    """Compare whole numbers with the loops, bit for bit."""
    result = spread(xp, z, k, **keywords)
    assert_equal(result, stored(reference.spread(z, k, **keywords), result.dtype))
    return result


# ---- the window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, "grid-mirror", "grid-constant", "grid-wrap"])
def test_every_mode(xp, mode):
    check(xp, spots((2, 6, 7)), kernels((3, 5), (6, 7)), mode=mode)


@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, mode):
    check(xp, spots((5, 6)), kernels((3, 4), (5, 6)), mode=mode)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 2), (2, 5)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    check(xp, spots(image), kernels((9, 12), image), mode=mode)


@pytest.mark.parametrize("origin", [*itertools.product(range(-2, 3), range(-2, 2))], ids=str)
def test_origins(xp, origin):
    check(xp, spots((5, 6)), kernels((5, 4), (5, 6)), origin=origin)


@pytest.mark.parametrize("size", [*itertools.product([1, 2, 3, 6], [1, 2, 5])], ids=str)
def test_sizes(xp, size):
    check(xp, spots((4, 6)), kernels(size, (4, 6)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [2, 3, (1, 4), (5, 1), (30, 40)], ids=str)
def test_stride(xp, stride, mode):
    check(xp, spots((4, 3)), kernels((3, 4), (4, 3)), stride=stride, mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dilation", [2, (1, 3), (4, 1)], ids=str)
def test_dilation(xp, dilation, mode):
    check(xp, spots((6, 5)), kernels((3, 4), (6, 5)), dilation=dilation, mode=mode)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("dilation", [7, (50, 3), (3, 1001)], ids=str)
def test_dilation_beyond_the_image(xp, dilation, mode):
    check(xp, spots((4, 5)), kernels((3, 4), (4, 5)), dilation=dilation, mode=mode, origin=(1, -2))


@pytest.mark.parametrize("mode", MODES)
def test_stride_dilation_and_origin_together(xp, mode):
    origin = 0 if mode == "valid" else (-2, 1)
    z, k = spots((2, 4, 3)), kernels((4, 3), (2, 4, 3))
    check(xp, z, k, mode=mode, stride=(2, 3), dilation=(3, 2), origin=origin)


@pytest.mark.parametrize("dilation", [2**31 - 1, 2**31 + 1, 2**40 + 3], ids=hex)
@pytest.mark.parametrize("mode", ["nearest", "wrap", "constant"])
def test_dilation_beyond_32_bits(xp, dilation, mode):
    equivalent = dilation % 6 + 6 if mode == "wrap" else 60
    z, k = spots((6, 6)), kernels((3, 3))
    expected = reference.spread(z, k, mode, dilation=equivalent)
    assert_equal(spread(xp, z, k, mode=mode, dilation=dilation), expected.astype(np.float32))


@pytest.mark.parametrize("size", [(65, 3), (2, 130), (40, 40)], ids=str)
def test_large_windows(xp, size):
    check(xp, spots((3, 4)), kernels(size, (3, 4)), mode=("wrap", "mirror"))


@pytest.mark.parametrize(
    ("image", "size", "keywords"),
    [
        ((3, 70, 150), (3, 3), {}),
        ((70, 150), (5, 2), {"mode": ("mirror", "wrap"), "dilation": (3, 40)}),
        ((40, 90), (4, 3), {"mode": "nearest", "stride": (3, 2)}),
    ],
    ids=["planes", "dilated", "strided"],
)
def test_large_enough_for_several_tiles(xp, image, size, keywords):
    check(xp, spots(image), kernels(size, image[-2:]), **keywords)


# ---- the shape of the result ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "stride", "dilation", "shape"),
    [
        ("reflect", 1, 1, (4, 5)),
        ("wrap", 2, 5, (7, 9)),
        ("valid", 1, 1, (6, 6)),
        ("valid", (2, 3), (1, 4), (9, 17)),
        (("valid", "mirror"), 3, 2, (14, 13)),
    ],
)
def test_default_shape(xp, mode, stride, dilation, shape):
    result = spread(xp, spots((4, 5)), kernels((3, 2)), mode=mode, stride=stride, dilation=dilation)
    assert result.shape == shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("extra", [(0, 1), (1, 0), (2, 1)], ids=str)
def test_every_shape_with_the_forward_size(xp, extra, mode):
    z, k = spots((3, 4)), kernels((2, 3), (3, 4))
    least = reference.spread_shape((3, 4), (2, 3), mode, (3, 2), (2, 1))
    shape = (least[0] + extra[0], least[1] + extra[1])
    assert check(xp, z, k, mode=mode, stride=(3, 2), dilation=(2, 1), shape=shape).shape == shape


@pytest.mark.parametrize("shape", [[5, 6], np.array([5, 6]), (np.int64(5), np.uint8(6))], ids=repr)
def test_kinds_of_shape(xp, shape):
    result = spread(xp, spots((3, 3)), kernels((3, 3)), stride=2, shape=shape)
    assert_equal(result, reference.spread(spots((3, 3)), kernels((3, 3)), stride=2, shape=(5, 6)))


# ---- what it means -------------------------------------------------------------------------------


def test_a_point_becomes_its_kernel(xp):
    z, k = np.zeros((7, 8), np.float32), kernels((3, 5), (7, 8))
    z[3, 4] = 1
    result = spread(xp, z, k)
    assert_equal(result[2:5, 2:7], k[:, :, 3, 4])
    assert np.count_nonzero(result) == np.count_nonzero(k[:, :, 3, 4])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_adjoint_of_correlate(xp, mode, dtype):
    x, k = noise((2, 9, 8), dtype), noise((3, 4, 2, 1, 1), dtype, seed=1)
    window = {"mode": mode, "stride": (2, 1), "dilation": (1, 2)}
    y = xp.to_numpy(cuvarconv.correlate(xp.asarray(x), xp.asarray(k), **window))
    z = noise(y.shape, dtype, seed=2)
    back = spread(xp, z, k, shape=x.shape[-2:], **window)
    assert abs(np.vdot(y, z) - np.vdot(x, back)) <= 1e-12 * np.linalg.norm(y) * np.linalg.norm(z)


@pytest.mark.parametrize("mode", MODES)
def test_what_happens_to_the_sum(xp, mode):
    """Normalised kernels keep it, wherever light comes back or has room; ``constant`` loses some."""
    k = np.abs(kernels((5, 4), (6, 7)))
    k[0, 0] += 100 - k.sum((0, 1))
    z = np.abs(spots((6, 7))) + 1
    total = spread(xp, z, k, mode=mode).sum()
    assert (total < 100 * z.sum()) if mode == "constant" else (total == 100 * z.sum())


@pytest.mark.parametrize("mode", ["wrap", "constant"])
@pytest.mark.parametrize("origin", [0, (1, -1)], ids=str)
def test_one_kernel_is_scipy_convolution(xp, mode, origin):
    ndimage = pytest.importorskip("scipy.ndimage")
    z, k = spots((6, 7)), kernels((3, 5))
    expected = ndimage.convolve(z, k, mode=f"grid-{mode}", origin=origin)
    assert_equal(spread(xp, z, k, mode=mode, origin=origin), expected)


@pytest.mark.parametrize("stride", [1, 2, (3, 1)], ids=str)
@pytest.mark.parametrize("dilation", [1, (2, 3)], ids=str)
@pytest.mark.parametrize(("mode", "size"), [("valid", (2, 3)), ("constant", (3, 5))])
def test_one_kernel_is_transposed_convolution_in_torch(xp, mode, size, stride, dilation):
    torch = pytest.importorskip("torch")
    z, k = spots((2, 4, 3)), kernels(size)
    steps = np.broadcast_to(dilation, 2)
    padding = [0, 0] if mode == "valid" else [int(n // 2 * step) for n, step in zip(size, steps, strict=True)]
    expected = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(z[:, None]),
        torch.from_numpy(k[None, None]),
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    result = spread(xp, z, k, mode=mode, stride=stride, dilation=dilation)
    assert_equal(result, expected.numpy()[:, 0])


# ---- axes and broadcasting -----------------------------------------------------------------------


@pytest.mark.parametrize("axes", [*itertools.permutations(range(4), 2), (-3, 0), [0, 1]], ids=str)
def test_axes(xp, axes):
    z = spots((3, 4, 2, 5))
    check(xp, z, kernels((3, 2), z.shape), axes=axes, mode=("wrap", "valid"), origin=(1, 0), stride=(2, 1))


@pytest.mark.parametrize(
    "varying",
    [(), (1,), (4, 5), (1, 5), (4, 1), (5,), (3, 1, 1), (3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (2, 1, 1, 5)],
    ids=str,
)
def test_broadcasting_of_weights_to_the_input(xp, varying):
    check(xp, spots((2, 3, 4, 5)), kernels((3, 2), varying), stride=2)


@pytest.mark.parametrize(
    ("images", "varying"), [((2, 1, 2, 3, 1, 3, 4), (2, 3, 1, 1, 4)), ((70, 2, 2), (70, 1, 1))], ids=str
)
def test_many_batches(xp, images, varying):
    check(xp, spots(images), kernels((2, 3), varying))


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*INEXACT, *EXACT], ids=str)
def test_whole_numbers_of_every_dtype(xp, dtype):
    z, k = spots((2, 4, 5), dtype), kernels((3, 3), (4, 5), dtype)
    assert check(xp, z, k).dtype == (dtype if dtype in INEXACT else np.float64)


@pytest.mark.parametrize("dtype", INEXACT, ids=str)
@pytest.mark.parametrize("mode", ["reflect", "valid"])
def test_noise(xp, mode, dtype):
    z, k = noise((3, 9, 10), dtype), noise((5, 4, 9, 10), dtype, seed=1)
    result = spread(xp, z, k, mode=mode)
    assert result.dtype == dtype
    assert_close(result, reference.spread(z, k, mode))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_half_precision_is_summed_in_single(xp, dtype):
    """A sum of ones stops at 2048 in float16, at 256 in bfloat16."""
    result = spread(xp, np.ones((1, 3), dtype), np.ones((1, 4096), dtype), mode="wrap")
    assert_equal(result, np.full((1, 3), 4096, dtype))


@pytest.mark.parametrize(
    ("images", "weights", "result"),
    [
        ("float32", "float64", "float64"),
        ("float16", "float32", "float32"),
        ("uint8", "float32", "float32"),
        ("int32", "float32", "float64"),
        ("int8", "bool", "float64"),
        ("float32", "complex64", "complex64"),
        ("complex64", "float64", "complex128"),
        (BFLOAT16, "float32", "float32"),
    ],
    ids=str,
)
def test_mixed_dtypes(xp, images, weights, result):
    assert check(xp, spots((4, 5), images), kernels((3, 3), (4, 5), weights)).dtype == result


def test_nothing_is_conjugated(xp):
    z, k = spots((4, 5), "complex64"), kernels((3, 3), (4, 5), "complex64")
    result = check(xp, z, k)
    for others in ((z.conj(), k), (z, k.conj())):
        assert not np.array_equal(result, reference.spread(*others))


def test_big_endian_arrays():
    z, k = spots((4, 5), ">f4"), kernels((3, 3), (4, 5), ">f4")
    result = cuvarconv.spread(z, k)
    assert result.dtype == np.float32
    assert_equal(result, reference.spread(z, k).astype(np.float32))


# ---- output and strides --------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["float64", "int16", np.dtype("u1"), bool], ids=repr)
def test_output_as_dtype(xp, output):
    z, k = spots((4, 5)), kernels((3, 3), (4, 5)) + 0.5
    result = spread(xp, z, k, output=output)
    assert result.dtype == output
    assert_equal(result, stored(reference.spread(z, k), output))


LAYOUTS = {
    "contiguous": lambda module: module.zeros((2, 7, 9), np.float32),
    "Fortran": lambda module: module.zeros((2, 7, 9), np.float32, order="F"),
    "reversed": lambda module: module.zeros((2, 7, 9), np.float32)[::-1, ::-1, ::-1],
    "every other": lambda module: module.zeros((2, 14, 27), np.float32)[:, ::2, 1::3],
    "of another dtype": lambda module: module.zeros((2, 7, 9), np.float64),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_output(xp, layout):
    z, k = spots((2, 4, 5)), kernels((3, 2), (4, 5))
    output = LAYOUTS[layout](xp.module)
    output[...] = 77  # what was there does not count
    assert cuvarconv.spread(xp.asarray(z), xp.asarray(k), output, stride=2) is output
    assert_equal(xp.to_numpy(output), reference.spread(z, k, stride=2).astype(output.dtype))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("strided", [0, 1])
def test_strides_of_the_operands(xp, strided, view):
    arrays = [spots((2, 4, 5)), kernels((3, 4), (4, 5))]
    operands = [xp.asarray(array) for array in arrays]
    operands[strided] = VIEWS[view](xp, arrays[strided])
    assert_equal(xp.to_numpy(cuvarconv.spread(*operands)), reference.spread(*arrays).astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_zero_strides(xp, axis):
    line, k = spots((2, 4, 5)).take([0], axis), kernels((3, 3), (4, 5))
    view = xp.module.broadcast_to(xp.asarray(line), (2, 4, 5))
    expected = reference.spread(np.broadcast_to(line, (2, 4, 5)), k)
    assert_equal(xp.to_numpy(cuvarconv.spread(view, xp.asarray(k))), expected.astype(np.float32))


# ---- small, special and repeated -----------------------------------------------------------------


@pytest.mark.no_launch(reason="there is nothing to compute")
@pytest.mark.parametrize(
    ("shape", "stride", "result"),
    [((0, 4), 1, (0, 4)), ((4, 0), (2, 1), (7, 0)), ((0, 3, 4), 2, (0, 5, 7)), ((2, 0, 4), 3, (2, 0, 10))],
)
def test_empty_arrays(xp, shape, stride, result):
    z = np.empty(shape, np.float32)
    for mode in SAME_SIZE:
        assert spread(xp, z, kernels((3, 3)), mode=mode, stride=stride).shape == result


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (1, 3, 1, 4, 1)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_axes_of_length_one(xp, shape, mode):
    check(xp, spots(shape), kernels((3, 3), shape), mode=mode)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1], ids=["input", "weights"])
def test_no_tap_is_skipped(xp, where, special):
    arrays = [np.zeros((5, 6), np.float32), np.zeros((3, 3), np.float32)]
    arrays[where][1, 1] = special
    with np.errstate(invalid="ignore"):
        expected = reference.spread(*arrays)
    result = spread(xp, *arrays)
    assert_equal(result, expected.astype(np.float32))
    assert np.isnan(result).any()


def test_what_is_lost_does_no_harm(xp):
    """NaN that leaves the image under ``constant`` does not come back."""
    z, k = spots((4, 5)), kernels((3, 3), (4, 5))
    k[0, :, 0] = k[:, 2, :, 4] = np.nan
    assert np.isfinite(check(xp, z, k, mode="constant")).all()


def test_the_same_call_gives_the_same_bits(xp):
    first, second = (spread(xp, noise((40, 50)), noise((5, 5, 40, 50))) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_operands_are_not_changed(xp):
    arrays = [spots((4, 5), "complex64"), kernels((3, 3), (4, 5), "complex64")]
    operands = [xp.asarray(array.copy()) for array in arrays]
    cuvarconv.spread(*operands)
    for operand, array in zip(operands, arrays, strict=True):
        assert_equal(xp.to_numpy(operand), array)


def test_lists_and_positional_order():
    assert_equal(cuvarconv.spread([[1, 2]], [[1, 2, 1]]), np.array([[5.0, 7.0]]))
    operands = spots((4, 5)), kernels((3, 3))
    assert_equal(cuvarconv.spread(*operands, None, "wrap"), cuvarconv.spread(*operands, mode="wrap"))
