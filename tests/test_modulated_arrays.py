"""`modulated_correlate`: dtypes, output arrays, strides and extents, on every backend."""

import numpy as np
import pytest
import reference
from forms import SAME_SIZE
from modulated_forms import check, factors, modulated, unfolded, weights
from tolerances import BFLOAT16, assert_close, assert_equal, integers, noise, stored

import cuvarconv

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
