"""`unfold` and its adjoint `fold`, against the loops and PyTorch, on every backend."""

import itertools

import numpy as np
import pytest
import reference
from forms import EXACT, INEXACT, MODES, SAME_SIZE, VIEWS
from tolerances import BFLOAT16, assert_close, assert_equal, integers, noise

import cuvarconv


def unfold(xp, x, size, **keywords):
    """Call the library on a backend's array; the result on the host."""
    return xp.to_numpy(cuvarconv.unfold(xp.asarray(x), size, **keywords))


def fold(xp, columns, shape, **keywords):
    return xp.to_numpy(cuvarconv.fold(xp.asarray(columns), shape, **keywords))


def columns_of(image, size, dtype=np.float32, batch=(), **window):
    """Return whole numbers that fold to an image of this shape."""
    return integers((*batch, *size, *reference.Taps(image, size, **window).shape), dtype, seed=2)


def check(xp, image, size, cval=0, batch=(), **window):
    """Compare both functions with the loops, bit for bit."""
    x, columns = integers((*batch, *image)), columns_of(image, size, batch=batch, **window)
    unfolded = unfold(xp, x, size, cval=cval, **window)
    assert_equal(unfolded, reference.unfold(x, size, cval=cval, **window))
    folded = fold(xp, columns, image, **window)
    assert_equal(folded, reference.fold(columns, image, **window))
    assert unfolded.dtype == folded.dtype == np.float32


# ---- the window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, "grid-mirror", "grid-constant", "grid-wrap"])
def test_every_mode(xp, mode):
    check(xp, (6, 7), (3, 5), mode=mode, cval=3, batch=(2,))


@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, mode):
    check(xp, (5, 6), (3, 4), mode=mode, cval=-2)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 2), (2, 5)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    check(xp, image, (9, 12), mode=mode, cval=1)


@pytest.mark.parametrize("origin", [*itertools.product(range(-2, 3), range(-2, 2))], ids=str)
def test_origins(xp, origin):
    check(xp, (5, 6), (5, 4), origin=origin)


@pytest.mark.parametrize("size", [*itertools.product([1, 2, 6], [1, 2, 5])], ids=str)
def test_sizes(xp, size):
    check(xp, (4, 6), size)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), ((1, 4), 1), ((30, 40), 1), (1, 2), (1, (1, 3))])
def test_stride_and_dilation(xp, stride, dilation, mode):
    check(xp, (8, 9), (3, 2), stride=stride, dilation=dilation, mode=mode, cval=2)


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_stride_dilation_and_origin_together(xp, mode):
    window = {"stride": (2, 3), "dilation": (3, 1001), "origin": (-2, 1)}
    check(xp, (9, 8), (4, 3), mode=mode, cval=4, batch=(2,), **window)


@pytest.mark.parametrize("batch", [(1,), (3,), (2, 1, 3), (70,)], ids=str)
def test_batch_axes(xp, batch):
    check(xp, (3, 4), (3, 2), batch=batch)


@pytest.mark.parametrize("image", [(1, 1), (1, 5), (5, 1)], ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_images_of_length_one(xp, image, mode):
    check(xp, image, (3, 3), mode=mode, cval=2)


@pytest.mark.parametrize(
    ("image", "size", "window"),
    [((70, 150), (3, 3), {}), ((8, 9), (40, 33), {"mode": "wrap"}), ((90, 40), (2, 5), {"stride": (2, 3)})],
    ids=["image", "window", "strided"],
)
def test_large_enough_for_several_blocks(xp, image, size, window):
    check(xp, image, size, batch=(2,), **window)


def test_size_as_an_int(xp):
    assert_equal(unfold(xp, integers((4, 5)), 3), reference.unfold(integers((4, 5)), (3, 3)))


@pytest.mark.parametrize("extra", [(0, 0), (1, 0), (0, 2)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_every_shape_with_the_forward_size(xp, mode, extra):
    least = reference.spread_shape((3, 2), (2, 3), mode, (2, 3), 1)
    shape = (least[0] + extra[0], least[1] + extra[1])
    columns = integers((2, 3, 3, 2))
    result = fold(xp, columns, shape, mode=mode, stride=(2, 3))
    assert_equal(result, reference.fold(columns, shape, mode, stride=(2, 3)))


# ---- other libraries and other functions ---------------------------------------------------------

# As torch pads `(k // 2)·dilation` on both sides; even sizes agree where a stride hides the last window.
TORCH = [
    ((6, 7), (3, 5), {}),
    ((6, 7), (3, 5), {"stride": (2, 3)}),
    ((6, 7), (3, 5), {"dilation": (2, 1)}),
    ((9, 8), (5, 1), {"stride": 3, "dilation": (1, 4)}),
    ((5, 7), (2, 4), {"stride": 2}),
    ((6, 7), (2, 3), {"mode": "valid"}),
    ((9, 8), (2, 3), {"mode": "valid", "stride": (2, 1), "dilation": (3, 2)}),
]


def torch_window(size, mode="constant", stride=1, dilation=1):
    """Return the keywords of torch's functions."""
    steps = reference.pair(dilation)
    padding = [0 if mode == "valid" else n // 2 * step for n, step in zip(size, steps, strict=True)]
    return {"kernel_size": size, "stride": stride, "dilation": dilation, "padding": padding}


@pytest.mark.parametrize("batch", [(2, 3), (1, 1)], ids=str)
@pytest.mark.parametrize(("image", "size", "window"), TORCH)
def test_torch_unfold(xp, image, size, window, batch):
    torch = pytest.importorskip("torch")
    x = noise((*batch, *image))
    expected = torch.nn.functional.unfold(torch.from_numpy(x), **torch_window(size, **window)).numpy()
    result = unfold(xp, x, size, **{"mode": "constant", **window})
    np.testing.assert_array_equal(result.reshape(expected.shape), expected, strict=True)


@pytest.mark.parametrize("batch", [(2, 3), (1, 1)], ids=str)
@pytest.mark.parametrize(("image", "size", "window"), TORCH)
def test_torch_fold(xp, image, size, window, batch):
    torch = pytest.importorskip("torch")
    window = {"mode": "constant", **window}
    columns = columns_of(image, size, batch=batch, **window)
    flat = torch.from_numpy(columns.reshape(batch[0], batch[1] * size[0] * size[1], -1))
    expected = torch.nn.functional.fold(flat, image, **torch_window(size, **window))
    assert_equal(fold(xp, columns, image, **window), expected.numpy())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_adjoint(xp, mode, dtype):
    window = {"mode": mode, "stride": (2, 1), "dilation": (1, 3)}
    x = noise((2, 9, 8), dtype)
    y = unfold(xp, x, (3, 2), **window)
    columns = noise(y.shape, dtype, seed=1)
    back = fold(xp, columns, x.shape[-2:], **window)
    assert abs(np.vdot(y, columns) - np.vdot(x, back)) <= 1e-12 * np.linalg.norm(y) * np.linalg.norm(columns)


@pytest.mark.parametrize("mode", MODES)
def test_correlate_and_spread_by_unfold_and_fold(xp, mode):
    x, k = integers((2, 6, 7)), integers((3, 2), seed=1)
    summed = (unfold(xp, x, (3, 2), mode=mode, cval=2) * k[..., None, None]).sum((-4, -3))
    assert_equal(summed, reference.correlate(x, k, mode, 2.0))
    spots = x[:, None, None] * k[..., None, None]
    shape = reference.spread_shape((6, 7), (3, 2), mode, 1, 1)
    assert_equal(fold(xp, spots, shape, mode=mode), reference.spread(x, k, mode))


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*INEXACT, *EXACT], ids=str)
def test_every_dtype(xp, dtype):
    x, columns = integers((2, 4, 5), dtype), columns_of((4, 5), (3, 2), dtype)
    unfolded, folded = unfold(xp, x, (3, 2), mode="constant", cval=1), fold(xp, columns, (4, 5))
    assert unfolded.dtype == dtype
    assert folded.dtype == (dtype if dtype in INEXACT else np.float64)
    assert_equal(unfolded, reference.unfold(x, (3, 2), "constant", 1))
    assert_equal(folded, reference.fold(columns, (4, 5)))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_values_are_copied_as_they_are(xp, dtype):
    """A float64 would lose the last bits."""
    x = np.array([[2**62 + 1, 2**53 + 1]], dtype)
    assert_equal(unfold(xp, x, (1, 1)), x[None, None])


@pytest.mark.parametrize("dtype", INEXACT, ids=str)
def test_sums_of_noise(xp, dtype):
    columns = noise((5, 4, 6, 7), dtype)
    assert_close(fold(xp, columns, (6, 7)), reference.fold(columns, (6, 7)))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_half_precision_is_summed_in_single(xp, dtype):
    """A sum of ones stops at 2048 in float16, at 256 in bfloat16."""
    result = fold(xp, np.ones((1, 4096, 1, 3), dtype), (1, 3), mode="wrap")
    assert_equal(result, np.full((1, 3), 4096, dtype))


@pytest.mark.parametrize(
    ("dtype", "cval", "value"),
    [
        ("uint8", -1, 255),
        ("int8", 200, -56),
        ("int16", 2.7, 2),
        ("uint8", -2.7, 254),
        ("uint64", -1.0, 2**64 - 1),
        ("int32", 2.0**31, -(2**31)),
        ("bool", 0.5, True),
        ("float16", 1e6, np.inf),
        ("float32", 0.1, 0.1),
    ],
)
def test_cval_is_stored_as_results_are(xp, dtype, cval, value):
    """Integers are truncated, then taken modulo 2ⁿ; nothing warns."""
    result = unfold(xp, np.ones((1, 1), dtype), (1, 3), mode="constant", cval=cval)
    assert_equal(result, np.array([value, 1, value], dtype).reshape(1, 3, 1, 1))


@pytest.mark.parametrize("dtype", ["int8", "uint64", "bool"])
def test_nan_as_cval_of_integers_does_not_fail(xp, dtype):
    result = unfold(xp, np.ones((1, 1), dtype), (1, 3), mode="constant", cval=np.nan)
    assert result[0, 1, 0, 0] == 1


def test_complex_cval(xp):
    x = integers((4, 5), "complex64")
    result = unfold(xp, x, (3, 3), mode="constant", cval=2 - 3j)
    assert_equal(result, reference.unfold(x, (3, 3), "constant", 2 - 3j))


def test_big_endian_arrays():
    x, columns = integers((4, 5), ">f4"), columns_of((4, 5), (3, 2), ">i2")
    native = cuvarconv.unfold(x.astype("f4"), (3, 2))
    assert_equal(cuvarconv.unfold(x, (3, 2)).astype("f4"), native)
    assert_equal(cuvarconv.fold(columns, (4, 5)), reference.fold(columns, (4, 5)))


# ---- strides, small and special ------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_strides(xp, view):
    x, columns = integers((2, 4, 5)), columns_of((4, 5), (3, 2), batch=(2,))
    unfolded = cuvarconv.unfold(VIEWS[view](xp, x), (3, 2))
    assert_equal(xp.to_numpy(unfolded), reference.unfold(x, (3, 2)))
    folded = cuvarconv.fold(VIEWS[view](xp, columns), (4, 5))
    assert_equal(xp.to_numpy(folded), reference.fold(columns, (4, 5)))
    for result in (unfolded, folded):
        assert result.flags.c_contiguous


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4])
def test_zero_strides(xp, axis):
    shape = (2, 3, 2, 4, 5)
    line = integers(shape).take([0], axis)
    view = xp.module.broadcast_to(xp.asarray(line), shape)
    expected = reference.fold(np.broadcast_to(line, shape), (4, 5))
    assert_equal(xp.to_numpy(cuvarconv.fold(view, (4, 5))), expected.astype(np.float32))
    assert_equal(xp.to_numpy(cuvarconv.unfold(view, 3)), reference.unfold(np.broadcast_to(line, shape), 3))


@pytest.mark.no_launch(reason="there is nothing to compute")
@pytest.mark.parametrize("image", [(0, 4), (4, 0), (0, 3, 4), (2, 0, 4)], ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_empty_arrays(xp, image, mode):
    *batch, height, width = image
    columns = np.empty((*batch, 3, 2, height, width), np.float32)
    assert unfold(xp, np.empty(image, np.float32), (3, 2), mode=mode).shape == columns.shape
    assert fold(xp, columns, (height, width), mode=mode).shape == image


def test_special_values_stay_where_they_are(xp):
    x, columns = integers((4, 5)), columns_of((4, 5), (3, 3))
    x[1, 2], x[3, 0] = np.nan, -np.inf
    assert_equal(
        unfold(xp, x, (3, 3), mode="constant", cval=np.inf), reference.unfold(x, 3, "constant", np.inf)
    )
    columns[1, 1, 1, 2], columns[0, 0, 0, 0] = np.inf, np.nan  # the second is lost
    result = fold(xp, columns, (4, 5), mode="constant")
    assert_equal(result, reference.fold(columns, (4, 5), "constant"))
    assert np.count_nonzero(~np.isfinite(result)) == 1


def test_the_same_call_gives_the_same_bits(xp):
    columns = xp.asarray(noise((5, 5, 40, 50)))
    first, second = (xp.to_numpy(cuvarconv.fold(columns, (40, 50))) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_operands_are_not_changed(xp):
    for array, call in ((integers((4, 5)), cuvarconv.unfold), (integers((3, 3, 4, 5)), cuvarconv.fold)):
        operand = xp.asarray(array.copy())
        result = call(operand, (4, 5))
        result[...] = 77
        assert_equal(xp.to_numpy(operand), array)


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_other_libraries(library):
    module = pytest.importorskip(library)
    x = module.asarray(integers((4, 5)))
    result = cuvarconv.unfold(x, (3, 2))
    assert type(result) is type(x)
    assert type(cuvarconv.fold(result, (4, 5))) is type(x)
    assert_equal(np.asarray(result), reference.unfold(np.asarray(x), (3, 2)))


def test_lists_and_positional_order():
    assert_equal(cuvarconv.unfold([[1, 2]], (1, 3))[0], np.array([[[1, 1]], [[1, 2]], [[2, 2]]]))
    assert_equal(cuvarconv.fold([[[[1, 2]], [[3, 4]]]], (1, 2)), np.array([[6.0, 4.0]]))
    x = integers((4, 5))
    positional = cuvarconv.unfold(x, (3, 3), "constant", 2.0, (1, 0))
    assert_equal(positional, cuvarconv.unfold(x, (3, 3), mode="constant", cval=2.0, origin=(1, 0)))
    assert_equal(cuvarconv.fold(positional, (4, 5), "wrap"), cuvarconv.fold(positional, (4, 5), mode="wrap"))


@pytest.mark.no_launch(reason="the result is refused")
@pytest.mark.parametrize(
    "call",
    [
        lambda x: cuvarconv.unfold(x, 10**15),
        lambda x: cuvarconv.spread(x, x[:1, :1], stride=1 << 40),
    ],
)
def test_a_result_that_cannot_be_addressed(xp, call):
    with pytest.raises(ValueError, match=r"result would have the shape \(\d+, \d+"):
        call(xp.asarray(np.ones((5, 5))))
