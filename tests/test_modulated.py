"""`modulated_correlate`, equation (2), against the loops, on every backend."""

import itertools

import numpy as np
import pytest
import reference
from tolerances import BFLOAT16, assert_close, assert_equal, integers, noise, stored

import cuvarconv

MODES = ["reflect", "mirror", "nearest", "wrap", "constant", "valid"]
SAME_SIZE = MODES[:-1]


def weights(outputs, channels, size=(3, 3), dtype=np.float32):
    return integers((outputs, channels, *size), dtype, seed=5, low=-3, high=4)


def factors(size, varying=(), dtype=np.float32):
    return integers((*size, *varying), dtype, seed=6, low=-2, high=3)


def modulated(xp, x, w, d, **keywords):
    """Call the library on a backend's arrays; the result on the host."""
    operands = (xp.asarray(operand) for operand in (x, w, d))
    return xp.to_numpy(cuvarconv.modulated_correlate(*operands, **keywords))


def check(xp, x, w, d, **keywords):
    """Compare whole numbers with the loops, bit for bit."""
    result = modulated(xp, x, w, d, **keywords)
    expected = reference.modulated_correlate(x, w, d, **keywords)
    assert_equal(result, stored(expected, result.dtype))
    return result


# ---- the window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, "grid-mirror", "grid-constant", "grid-wrap"])
def test_every_mode(xp, mode):
    size = (5, 6) if mode != "valid" else (3, 2)
    d = factors((3, 5), size)
    check(xp, integers((2, 5, 6)), weights(3, 2, (3, 5)), d, mode=mode, cval=3.0)


@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, mode):
    check(xp, integers((2, 6, 5)), weights(2, 2), factors((3, 3)), mode=mode, cval=-2.0)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (2, 2)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    x, w, d = integers((2, *image)), weights(2, 2, (5, 8)), factors((5, 8), image)
    check(xp, x, w, d, mode=mode, cval=1.0)


@pytest.mark.parametrize("origin", [*itertools.product(range(-2, 3), range(-2, 2))], ids=str)
def test_origins(xp, origin):
    x, w, d = integers((1, 5, 6)), weights(1, 1, (5, 4)), factors((5, 4), (5, 6))
    check(xp, x, w, d, origin=origin)


@pytest.mark.parametrize("size", [*itertools.product([1, 2, 4], [1, 2, 5])], ids=str)
def test_sizes(xp, size):
    check(xp, integers((2, 4, 5)), weights(2, 2, size), factors(size, (4, 5)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [2, (1, 4), (30, 40)], ids=str)
def test_stride(xp, stride, mode):
    x, w = integers((2, 7, 8)), weights(2, 2)
    check(xp, x, w, factors((3, 3)), stride=stride, mode=mode, cval=2.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dilation", [2, (1, 3), (3, 1)], ids=str)
def test_dilation(xp, dilation, mode):
    check(xp, integers((2, 7, 8)), weights(2, 2), factors((3, 3)), dilation=dilation, mode=mode)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("dilation", [7, (3, 1001)], ids=str)
def test_dilation_beyond_the_image(xp, dilation, mode):
    x, w, d = integers((2, 4, 5)), weights(2, 2, (3, 4)), factors((3, 4), (4, 5))
    check(xp, x, w, d, dilation=dilation, mode=mode, cval=-1.0, origin=(1, -2))


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_stride_dilation_and_origin_together(xp, mode):
    x, w, d = integers((2, 2, 9, 8)), weights(3, 2, (4, 3)), factors((4, 3), (2, 1, 5, 3))
    check(xp, x, w, d, mode=mode, stride=(2, 3), dilation=(3, 2), origin=(-2, 1), cval=4.0)


@pytest.mark.parametrize("size", [(1, 70), (33, 2), (17, 17)], ids=str)
def test_large_windows(xp, size):
    check(xp, integers((1, 3, 4)), weights(2, 1, size), factors(size, (3, 4)), mode="wrap")


def unfolded(x, w, d):
    """Equation (2) as unfold, product and sum, for sizes at which the loops are too slow."""
    kh, kw = w.shape[2:]
    margins = ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, margins, mode="symmetric"), (kh, kw), (1, 2))
    return np.einsum("ocmn,mnij,cijmn->oij", w, d, windows, dtype=np.float64, optimize=True)


@pytest.mark.parametrize(
    ("channels", "outputs", "size"),
    [(1, 1, (70, 150)), (40, 70, (9, 33)), (130, 3, (8, 8)), (3, 130, (17, 40))],
    ids=str,
)
def test_large_enough_for_several_tiles(xp, channels, outputs, size):
    x, w, d = integers((channels, *size)), weights(outputs, channels), factors((3, 3), size)
    assert_equal(modulated(xp, x, w, d), unfolded(x, w, d).astype(np.float32))


# ---- channels, groups, batches -------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (1, 2, 1)], ids=str)
def test_batch_axes(xp, batch):
    check(xp, integers((*batch, 2, 4, 5)), weights(3, 2), factors((3, 3), (4, 5)))


@pytest.mark.parametrize(
    ("channels", "outputs", "groups"),
    [(4, 4, 1), (4, 4, 2), (4, 4, 4), (4, 2, 2), (2, 6, 2), (6, 3, 3), (1, 5, 1), (3, 9, 3)],
    ids=str,
)
def test_groups(xp, channels, outputs, groups):
    x, w = integers((2, channels, 4, 5)), weights(outputs, channels // groups)
    check(xp, x, w, factors((3, 3), (channels, 4, 5)), groups=groups)


@pytest.mark.parametrize(
    "varying",
    [
        (),
        (1,),
        (1, 1),
        (4, 5),
        (1, 5),
        (4, 1),
        (5,),
        (6, 1, 1),
        (6, 4, 5),
        (1, 4, 5),
        (2, 1, 1, 1),
        (2, 1, 4, 5),
        (2, 6, 1, 1),
        (2, 6, 4, 1),
        (2, 6, 4, 5),
        (1, 6, 1, 5),
    ],
    ids=str,
)
def test_broadcasting_of_modulation(xp, varying):
    check(xp, integers((2, 6, 4, 5)), weights(3, 6), factors((3, 3), varying))


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("entries", [1, 2, 3, 4, 6, 12])
def test_channel_groups_of_modulation(xp, groups, entries):
    """Channel c uses entry c·G // C_in, also where these groups straddle those of the weights."""
    x, w = integers((2, 12, 3, 4)), weights(12, 12 // groups, (2, 3))
    check(xp, x, w, factors((2, 3), (entries, 3, 4)), groups=groups)


@pytest.mark.parametrize("varying", [(2, 1, 1), (3, 2, 1, 1), (3, 2, 4, 5), (1, 3, 4, 1)], ids=str)
def test_channel_groups_with_other_axes_that_broadcast(xp, varying):
    check(xp, integers((3, 6, 4, 5)), weights(4, 3), factors((3, 3), varying), groups=2)


@pytest.mark.parametrize("varying", [(3, 4), (2, 1, 1), (2, 3, 4)], ids=str)
def test_modulation_meets_the_output_where_it_is_smaller(xp, varying):
    check(xp, integers((2, 6, 7)), weights(3, 2), factors((3, 3), varying), stride=2)


def test_modulation_broadcast_over_two_batch_axes(xp):
    check(xp, integers((2, 3, 4, 3, 4)), weights(2, 4), factors((3, 3), (3, 1, 3, 4)))
    check(xp, integers((2, 3, 4, 3, 4)), weights(2, 4), factors((3, 3), (2, 1, 2, 1, 4)))


def test_uniform_modulation_is_plain_convolution(xp):
    x, w = integers((2, 5, 6)), weights(3, 2)
    result = modulated(xp, x, w, np.ones((3, 3), np.float32))
    planes = [[reference.correlate(x[c], w[o, c]) for c in range(2)] for o in range(3)]
    assert_equal(result, np.sum(planes, axis=1).astype(np.float32))


def test_one_channel_is_correlate(xp):
    x, d = integers((1, 5, 6)), factors((3, 3), (5, 6))
    result = modulated(xp, x, np.ones((1, 1, 3, 3), np.float32), d)
    assert_equal(result, reference.correlate(x, d).astype(np.float32))


# ---- dtypes --------------------------------------------------------------------------------------

INEXACT = ["float16", "float32", "float64", "complex64", "complex128", BFLOAT16]
EXACT = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]


@pytest.mark.parametrize("dtype", [*INEXACT, *EXACT], ids=str)
def test_whole_numbers_of_every_dtype(xp, dtype):
    x, w, d = integers((2, 4, 5), dtype), weights(2, 2, dtype=dtype), factors((3, 3), (4, 5), dtype)
    assert check(xp, x, w, d).dtype == (dtype if dtype in INEXACT else np.float64)


@pytest.mark.parametrize("dtype", INEXACT, ids=str)
def test_noise(xp, dtype):
    x, w, d = (
        noise(shape, dtype, seed) for seed, shape in enumerate([(2, 5, 7, 8), (4, 5, 3, 3), (3, 3, 7, 8)])
    )
    result = modulated(xp, x, w, d)
    assert result.dtype == dtype
    assert_close(result, reference.modulated_correlate(x, w, d))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32"], ids=str)
def test_many_products_are_summed_accurately(xp, dtype):
    x, w, d = (
        (np.random.default_rng(seed).random(shape) + 0.5).astype(dtype)
        for seed, shape in enumerate([(200, 3, 4), (2, 200, 5, 5), (5, 5, 3, 4)])
    )
    w = (w / 10000).astype(dtype)
    wide = (array.astype(np.float64) for array in (x, w, d))
    assert_close(modulated(xp, x, w, d), unfolded(*wide))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_half_precision_is_summed_in_single(xp, dtype):
    """A sum of ones stops at 2048 in float16, at 256 in bfloat16."""
    x, w, d = (np.ones(shape, dtype) for shape in ((512, 1, 3), (1, 512, 1, 8), (1, 8)))
    assert_equal(modulated(xp, x, w, d), np.full((1, 1, 3), 4096, dtype))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_products_of_half_precision_are_not_rounded(xp, dtype):
    """(1 + e)² − (1 + 2e) = e², which is lost where d·x is rounded."""
    e = 2.0**-10 if dtype == "float16" else 2.0**-7
    x = np.array([1 + e, 1 + 2 * e]).reshape(2, 1, 1).astype(dtype)
    d = np.array([1 + e, 1]).reshape(1, 1, 2, 1, 1).astype(dtype)
    w = np.array([1, -1]).reshape(1, 2, 1, 1).astype(dtype)
    assert_equal(modulated(xp, x, w, d), np.full((1, 1, 1), e * e, dtype))


@pytest.mark.parametrize(
    ("images", "shared", "local", "result"),
    [
        ("float32", "float32", "float64", "float64"),
        ("float32", "float64", "float32", "float64"),
        ("float64", "float32", "float32", "float64"),
        ("float16", "float16", "float32", "float32"),
        ("uint8", "float32", "float32", "float32"),
        ("int32", "float32", "float32", "float64"),
        ("uint8", "int8", "bool", "float64"),
        ("float32", "complex64", "float32", "complex64"),
        ("float32", "float32", "complex128", "complex128"),
        ("complex64", "float64", "float32", "complex128"),
        ("float32", "int8", "bool", "float32"),
        (BFLOAT16, "float32", BFLOAT16, "float32"),
    ],
    ids=str,
)
def test_mixed_dtypes(xp, images, shared, local, result):
    x = integers((2, 4, 5), images)
    w, d = weights(2, 2, dtype=shared), factors((3, 3), (4, 5), local)
    assert check(xp, x, w, d).dtype == result


def test_products_are_formed_in_the_widest_dtype(xp):
    x, w, d = noise((2, 4, 5)), noise((3, 2, 3, 3), "float64"), noise((3, 3, 4, 5))
    assert_close(modulated(xp, x, w, d), reference.modulated_correlate(x, w, d))


def test_nothing_is_conjugated(xp):
    dtype = "complex64"
    x, w, d = integers((2, 4, 5), dtype), weights(2, 2, dtype=dtype), factors((3, 3), (4, 5), dtype)
    result = check(xp, x, w, d)
    for operands in ((x.conj(), w, d), (x, w.conj(), d), (x, w, d.conj())):
        assert not np.array_equal(result, reference.modulated_correlate(*operands))


def test_complex_cval(xp):
    x, w, d = integers((2, 4, 5), "complex64"), weights(2, 2), factors((3, 3), (4, 5))
    check(xp, x, w, d, mode="constant", cval=2 - 3j)


@pytest.mark.parametrize("output", ["int16", "uint8", "bool"])
def test_output_of_integers_is_truncated(xp, output):
    x = np.array([[[-3, 2, 301, 1, 0]]], np.float32)
    result = modulated(xp, x, np.full((1, 1, 1, 1), 1.5), np.ones((1, 1)), output=np.dtype(output))
    expected = np.array([[[-4, 3, 451, 1, 0]]]).astype(output)
    assert_equal(result, expected)


def test_big_endian_arrays():
    x, w, d = integers((2, 4, 5), ">f4"), weights(2, 2, dtype=">f4"), factors((3, 3), (4, 5), ">f8")
    result = cuvarconv.modulated_correlate(x, w, d)
    assert result.dtype == np.float64
    assert_equal(result, reference.modulated_correlate(x, w, d))
    into = np.empty((2, 4, 5), ">i4")
    assert cuvarconv.modulated_correlate(x, w, d, into) is into
    assert_equal(into.astype(np.float64), result)


# ---- output and strides --------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["float64", np.float64, np.dtype("f8"), float], ids=repr)
def test_output_as_dtype(xp, output):
    x, w, d = integers((2, 4, 5)), weights(3, 2), factors((3, 3), (4, 5))
    result = modulated(xp, x, w, d, output=output)
    assert_equal(result, reference.modulated_correlate(x, w, d))


LAYOUTS = {
    "contiguous": lambda module: module.zeros((2, 3, 6, 5), np.float32),
    "Fortran": lambda module: module.zeros((2, 3, 6, 5), np.float32, order="F"),
    "channels last": lambda module: module.moveaxis(module.zeros((2, 6, 5, 3), np.float32), -1, 1),
    "reversed": lambda module: module.zeros((2, 3, 6, 5), np.float32)[::-1, ::-1, ::-1, ::-1],
    "every other": lambda module: module.zeros((2, 6, 12, 15), np.float32)[:, ::2, ::2, 1::3],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 3])
def test_layouts_of_the_output(xp, layout, groups):
    x, w, d = integers((2, 3, 6, 5)), weights(3, 3 // groups), factors((3, 3), (6, 5))
    output = LAYOUTS[layout](xp.module)
    operands = (xp.asarray(operand) for operand in (x, w, d))
    assert cuvarconv.modulated_correlate(*operands, output, groups=groups) is output
    expected = reference.modulated_correlate(x, w, d, groups=groups)
    assert_equal(xp.to_numpy(output), expected.astype(np.float32))


VIEWS = {
    "Fortran": lambda xp, a: xp.module.asarray(xp.asarray(a), order="F"),
    "reversed": lambda xp, a: xp.asarray(a[::-1, ::-1, ::-1, ::-1].copy())[::-1, ::-1, ::-1, ::-1],
    "transposed": lambda xp, a: xp.asarray(a.T.copy()).T,
    "every other": lambda xp, a: xp.asarray(np.repeat(np.repeat(a, 2, -1), 3, 1))[:, ::3, :, 1::2],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("strided", [0, 1, 2])
def test_strides_of_the_operands(xp, strided, view):
    arrays = [integers((2, 2, 6, 5)), weights(3, 2), factors((3, 3), (6, 5))]
    expected = reference.modulated_correlate(*arrays)
    operands = [xp.asarray(array) for array in arrays]
    operands[strided] = VIEWS[view](xp, arrays[strided])
    result = cuvarconv.modulated_correlate(*operands)
    assert_equal(xp.to_numpy(result), expected.astype(np.float32))


@pytest.mark.parametrize("strided", [0, 1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_zero_strides(xp, strided, axis):
    arrays = [integers((2, 2, 6, 5)), weights(3, 2), factors((3, 3), (6, 5))]
    shape, line = arrays[strided].shape, arrays[strided].take([0], axis)
    arrays[strided] = np.broadcast_to(line, shape)
    operands = [xp.asarray(array) for array in arrays]
    operands[strided] = xp.module.broadcast_to(xp.asarray(line), shape)
    result = cuvarconv.modulated_correlate(*operands)
    assert_equal(xp.to_numpy(result), reference.modulated_correlate(*arrays).astype(np.float32))


def test_output_overlaps_the_input(xp):
    values, w, d = integers((2, 2, 4, 5)), weights(2, 2), factors((3, 3), (4, 5))
    x = xp.asarray(values.copy())
    output = x[::-1]
    assert cuvarconv.modulated_correlate(x, xp.asarray(w), xp.asarray(d), output) is output
    expected = reference.modulated_correlate(values, w, d)
    assert_equal(xp.to_numpy(output), expected.astype(np.float32))


def test_output_overlaps_the_input_over_many_blocks(xp):
    """The first block writes what the last one reads."""
    values, w, d = integers((2, 450, 400)), weights(2, 2, (2, 1)), factors((2, 1))
    x = xp.asarray(values.copy())
    operands = x, xp.asarray(w), xp.asarray(d)
    expected = xp.to_numpy(cuvarconv.modulated_correlate(*operands))
    cuvarconv.modulated_correlate(*operands, x[:, ::-1])
    assert_equal(xp.to_numpy(x)[:, ::-1], expected)


def test_output_overlaps_the_weights(xp):
    x, values, d = integers((3, 3, 3)), weights(3, 3), factors((3, 3))
    w = xp.asarray(values.copy())
    cuvarconv.modulated_correlate(xp.asarray(x), w, xp.asarray(d), w[1])
    expected = reference.modulated_correlate(x, values, d).astype(np.float32)
    assert_equal(xp.to_numpy(w)[1], expected)


def test_output_overlaps_the_modulation(xp):
    x, w, values = integers((3, 4, 5)), weights(3, 3), factors((3, 3), (4, 5))
    d = xp.asarray(values.copy())
    cuvarconv.modulated_correlate(xp.asarray(x), xp.asarray(w), d, d[:, 1])
    expected = reference.modulated_correlate(x, w, values).astype(np.float32)
    assert_equal(xp.to_numpy(d)[:, 1], expected)


def test_operands_are_not_changed(xp):
    arrays = [integers((2, 4, 5)), weights(3, 2), factors((3, 3), (4, 5))]
    operands = [xp.asarray(array.copy()) for array in arrays]
    cuvarconv.modulated_correlate(*operands)
    for operand, array in zip(operands, arrays, strict=True):
        assert_equal(xp.to_numpy(operand), array)


# ---- small and special ---------------------------------------------------------------------------


@pytest.mark.no_launch(reason="there is nothing to compute")
@pytest.mark.parametrize("shape", [(2, 0, 4), (2, 4, 0), (0, 2, 4, 5), (2**40, 2, 0, 4)], ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_empty_images(xp, shape, mode):
    x = xp.module.empty(shape, np.float32)
    w, d = xp.asarray(weights(3, 2)), xp.asarray(factors((3, 3)))
    result = cuvarconv.modulated_correlate(x, w, d, mode=mode)
    assert result.shape == (*shape[:-3], 3, *shape[-2:])
    assert result.dtype == np.float32


@pytest.mark.no_launch(reason="there is nothing to compute")
def test_no_output_channels(xp):
    operands = integers((2, 4, 5)), np.empty((0, 2, 3, 3), np.float32), factors((3, 3), (4, 5))
    assert modulated(xp, *operands).shape == (0, 4, 5)


@pytest.mark.no_launch(reason="zeros need no kernel")
@pytest.mark.parametrize("varying", [(), (4, 5), (1, 4, 5), (0, 4, 5)], ids=str)
def test_no_input_channels_give_zeros(xp, varying):
    x, w = np.empty((2, 0, 4, 5), np.float32), np.empty((3, 0, 3, 3), np.float32)
    result = modulated(xp, x, w, np.ones((3, 3, *varying), np.float32))
    assert_equal(result, np.zeros((2, 3, 4, 5), np.float32))


@pytest.mark.parametrize("image", [(1, 1), (1, 5), (5, 1)], ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_images_of_length_one(xp, image, mode):
    check(xp, integers((1, *image)), weights(1, 1), factors((3, 3), image), mode=mode, cval=2.0)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 2], ids=["input", "weights", "modulation"])
def test_no_product_is_skipped(xp, where, special):
    arrays = [np.zeros(shape, np.float32) for shape in ((2, 4, 5), (3, 2, 3, 3), (3, 3, 4, 5))]
    arrays[where][1, 1, 1] = special
    result = modulated(xp, *arrays)
    with np.errstate(invalid="ignore"):
        expected = reference.modulated_correlate(*arrays)
    assert_equal(result, expected.astype(np.float32))
    assert np.isnan(result).any()
    assert not np.isnan(result).all()


def test_nan_stays_in_its_sample_and_group(xp):
    x = integers((2, 4, 5, 6))
    x[1, 3, 2, 2] = np.nan
    result = check(xp, x, weights(4, 2), factors((3, 3), (5, 6)), groups=2)
    assert np.isnan(result).sum() == 2 * 9
    assert np.isfinite(result[0]).all()
    assert np.isfinite(result[1, :2]).all()


# ---- 64-bit extents ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_image_with_more_than_2_32_rows(xp, mode):
    """Rows that are one in memory; tables, strides and lengths need 64 bits."""
    rows, stride = 2**33 + 3, 2**32
    row, w, d = integers((2, 1, 6)), weights(3, 2), factors((3, 3))
    operands = xp.asarray(w), xp.asarray(d)
    x = xp.module.broadcast_to(xp.asarray(row), (2, rows, 6))
    result = xp.to_numpy(cuvarconv.modulated_correlate(x, *operands, mode=mode, stride=(stride, 1), cval=9.0))
    small = np.broadcast_to(row, (2, 3, 6))
    expected = reference.modulated_correlate(small, w, d, mode=mode, cval=9.0)
    assert_equal(result, expected[:, [0, 1, 1]].astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_elements_more_than_2_31_apart(xp, axis):
    """Two samples, channels or rows 2³¹ + 64 bytes apart; what lies between is never touched."""
    if xp.is_emulated:
        pytest.skip("the emulator fills and checks every byte that it allocates")
    step = 2**31 + 64
    memory = xp.module.empty(step + 512, np.int8)
    shape = (2, 2, 2, 7)
    strides = np.array([28, 14, 7, 1])
    strides[axis] = step
    x = integers(shape, np.int8)
    view = xp.as_strided(memory, shape, tuple(int(stride) for stride in strides))
    view[...] = xp.asarray(x)
    w, d = weights(2, 2, dtype=np.int8), factors((3, 3), (2, 7), np.int8)
    operands = xp.asarray(w), xp.asarray(d)
    expected = stored(reference.modulated_correlate(x, w, d), np.int8)
    assert_equal(xp.to_numpy(cuvarconv.modulated_correlate(view, *operands, "int8")), expected)
    cuvarconv.modulated_correlate(xp.asarray(x), *operands, view)
    assert_equal(xp.to_numpy(view.copy()), expected)


# ---- calls ---------------------------------------------------------------------------------------


def test_lists():
    result = cuvarconv.modulated_correlate([[[1, 2]], [[3, 4]]], [[[[2]], [[1]]]], [[[5, 6]]])
    assert_equal(result, np.array([[[25.0, 48.0]]]))


def test_positional_order():
    x, w, d = integers((2, 4, 5)), weights(3, 2), factors((3, 3))
    positional = cuvarconv.modulated_correlate(x, w, d, None, "constant", 2.0, (1, 0))
    named = cuvarconv.modulated_correlate(x, w, d, mode="constant", cval=2.0, origin=(1, 0))
    assert_equal(positional, named)


def test_the_same_call_gives_the_same_bits(xp):
    arrays = (noise((3, 20, 30)), noise((4, 3, 5, 5)), noise((5, 5, 20, 30)))
    operands = [xp.asarray(array) for array in arrays]
    first, second = (xp.to_numpy(cuvarconv.modulated_correlate(*operands)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
