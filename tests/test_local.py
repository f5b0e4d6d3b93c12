"""`local_correlate`, the full variant kernel, against the loops and JAX, on every backend."""

import itertools

import numpy as np
import pytest
import reference
from forms import EXACT, INEXACT, MODES, SAME_SIZE, VIEWS, operands
from tolerances import BFLOAT16, assert_close, assert_equal, integers, noise, stored

import cuvarconv


def call(*arguments, **keywords):
    return operands("local_correlate", *arguments, **keywords)


def local(xp, x, k, **keywords):
    """Call the library on a backend's arrays; the result on the host."""
    return xp.to_numpy(cuvarconv.local_correlate(xp.asarray(x), xp.asarray(k), **keywords))


def check(xp, x, k, **keywords):
    """Compare whole numbers with the loops, bit for bit."""
    result = local(xp, x, k, **keywords)
    assert_equal(result, stored(reference.local_correlate(x, k, **keywords), result.dtype))
    return result


# ---- the window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, "grid-mirror", "grid-constant", "grid-wrap"])
def test_every_mode(xp, mode):
    check(xp, *call((5, 6), (3, 5), mode=mode), mode=mode, cval=3.0)


@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, mode):
    check(xp, *call((5, 6), mode=mode), mode=mode, cval=-2.0)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 2)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    check(xp, *call(image, (5, 8)), mode=mode, cval=1.0)


@pytest.mark.parametrize("origin", [*itertools.product([-2, 0, 2], [-2, -1, 1])], ids=str)
def test_origins(xp, origin):
    check(xp, *call((4, 5), (5, 4)), origin=origin)


@pytest.mark.parametrize("size", [*itertools.product([1, 2, 4], [1, 2, 5])], ids=str)
def test_sizes(xp, size):
    check(xp, *call((4, 5), size))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("stride", "dilation"), [(2, 1), ((1, 4), 1), ((30, 40), 1), (1, 2), (1, (1, 3)), ((2, 3), (3, 2))]
)
def test_stride_and_dilation(xp, stride, dilation, mode):
    window = {"stride": stride, "dilation": dilation, "mode": mode}
    check(xp, *call((8, 7), (3, 2), **window), cval=2.0, **window)


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_stride_dilation_and_origin_together(xp, mode):
    window = {"mode": mode, "stride": (2, 3), "dilation": (3, 1001), "origin": (-2, 1), "cval": 4.0}
    check(xp, *call((9, 8), (4, 3), batch=(2,), **window), **window)


@pytest.mark.parametrize("size", [(1, 70), (33, 2), (17, 17)], ids=str)
def test_large_windows(xp, size):
    check(xp, *call((3, 4), size, filters=2), mode="wrap")


# ---- channels and batches ------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "filters"), [(1, 1), (1, 4), (5, 1), (3, 7), (8, 8), (4, 16), (33, 2)])
def test_channels(xp, channels, filters):
    check(xp, *call((4, 3), channels=channels, filters=filters, batch=(2,)))


@pytest.mark.parametrize(
    ("channels", "filters", "image"), [(16, 16, (6, 40)), (3, 70, (4, 9)), (2, 3, (30, 50))], ids=str
)
def test_large_enough_for_several_tiles(xp, channels, filters, image):
    check(xp, *call(image, (3, 3), channels=channels, filters=filters), mode=("mirror", "wrap"))


@pytest.mark.parametrize("batch", [(1,), (3,), (2, 3), (1, 2, 1), (20,)], ids=str)
def test_batches_that_share_kernels(xp, batch):
    check(xp, *call((3, 4), batch=batch))


@pytest.mark.parametrize("varying", [(), (1,), (3,), (1, 1), (2, 1), (1, 3), (2, 3)], ids=str)
def test_kernels_with_batch_axes(xp, varying):
    x, k = call((3, 4), batch=(2, 3))
    check(xp, x, integers((3, 2, *varying, *k.shape[2:]), seed=8))


def test_kernels_that_are_views_of_one(xp):
    """What the output broadcasts may be given with zero strides."""
    x, k = call((3, 4), batch=(2,))
    for axis in range(6):
        line = k.take([0], axis)
        view = xp.module.broadcast_to(xp.asarray(line), k.shape)
        expected = reference.local_correlate(x, np.broadcast_to(line, k.shape))
        result = cuvarconv.local_correlate(xp.asarray(x), view)
        assert_equal(xp.to_numpy(result), expected.astype(np.float32))


# ---- other functions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((3, 3), {"mode": "valid"}),
        ((2, 4), {"mode": "valid", "stride": (2, 1), "dilation": (1, 2)}),
        ((3, 5), {"mode": "constant"}),
        ((3, 3), {"mode": "constant", "stride": 2, "dilation": (2, 1)}),
    ],
)
def test_jax_unshared_convolution(xp, size, window):
    jax = pytest.importorskip("jax")
    x, k = call((8, 9), size, batch=(2,), **window)
    steps = reference.pair(window.get("dilation", 1))
    ends = [(n - 1) // 2 * step for n, step in zip(size, steps, strict=True)]
    filters = np.moveaxis(k, (5, 4, 0, 1), (0, 1, 2, 3))  # (C_out, C_in, kh, kw, H_out, W_out)
    expected = jax.lax.conv_general_dilated_local(
        x,
        filters.reshape(filters.shape[0], -1, *filters.shape[-2:]),
        window_strides=reference.pair(window.get("stride", 1)),
        padding="VALID" if window["mode"] == "valid" else [(end, end) for end in ends],
        filter_shape=size,
        rhs_dilation=steps,
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
        precision=jax.lax.Precision.HIGHEST,
    )
    assert_equal(local(xp, x, k, **window), np.asarray(expected))


@pytest.mark.parametrize("mode", MODES)
def test_modulated_product_as_full_kernel(xp, mode):
    x, w, d = operands("modulated_correlate", (5, 6), batch=(2,), mode=mode)
    arrays = (xp.asarray(array) for array in (x, w, d))
    expected = xp.to_numpy(cuvarconv.modulated_correlate(*arrays, mode=mode, cval=2.0))
    assert_equal(local(xp, x, np.einsum("ocmn,mnij->mnijco", w, d), mode=mode, cval=2.0), expected)


def test_one_channel_is_correlate(xp):
    x, k = call((5, 6), channels=1, filters=1)
    assert_equal(local(xp, x, k)[0], reference.correlate(x[0], k[..., 0, 0]).astype(np.float32))


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*INEXACT, *EXACT], ids=str)
def test_whole_numbers_of_every_dtype(xp, dtype):
    assert check(xp, *call((3, 4), dtype=dtype)).dtype == (dtype if dtype in INEXACT else np.float64)


@pytest.mark.parametrize("dtype", INEXACT, ids=str)
@pytest.mark.parametrize(("channels", "filters"), [(3, 2), (17, 8)])
def test_noise(xp, channels, filters, dtype):
    x, k = call((5, 6), (3, 4), channels=channels, filters=filters, batch=(2,), dtype=dtype, make=noise)
    result = local(xp, x, k)
    assert result.dtype == dtype
    assert_close(result, reference.local_correlate(x, k))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32"], ids=str)
def test_many_products_are_summed_accurately(xp, dtype):
    rng = np.random.default_rng(0)
    x = (rng.random((150, 2, 3)) + 0.5).astype(dtype)
    k = ((rng.random((5, 7, 2, 3, 150, 1)) + 0.5) / 5000).astype(dtype)
    assert_close(local(xp, x, k), reference.local_correlate(x, k))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_half_precision_is_summed_in_single(xp, dtype):
    """A sum of ones stops at 2048 in float16, at 256 in bfloat16."""
    x, k = np.ones((512, 1, 3), dtype), np.ones((1, 8, 1, 3, 512, 2), dtype)
    assert_equal(local(xp, x, k), np.full((2, 1, 3), 4096, dtype))


@pytest.mark.parametrize(
    ("images", "kernels", "result"),
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
def test_mixed_dtypes(xp, images, kernels, result):
    assert check(xp, *call((3, 4), dtype=[images, kernels])).dtype == result


def test_nothing_is_conjugated(xp):
    x, k = call((3, 4), dtype="complex64")
    result = check(xp, x, k, mode="constant", cval=2 - 3j)
    for others in ((x.conj(), k), (x, k.conj())):
        assert not np.array_equal(result, reference.local_correlate(*others, mode="constant", cval=2 - 3j))


def test_big_endian_arrays():
    x, k = call((3, 4), dtype=">f4")
    result = cuvarconv.local_correlate(x, k)
    assert result.dtype == np.float32
    assert_equal(result, reference.local_correlate(x, k).astype(np.float32))


# ---- output and strides --------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["float64", "int16", np.dtype("u1"), bool], ids=repr)
def test_output_as_dtype(xp, output):
    x, k = call((3, 4))
    result = local(xp, x, k + 0.5, output=output)
    assert result.dtype == output
    assert_equal(result, stored(reference.local_correlate(x, k + 0.5), output))


LAYOUTS = {
    "contiguous": lambda module: module.zeros((2, 3, 4, 5), np.float32),
    "Fortran": lambda module: module.zeros((2, 3, 4, 5), np.float32, order="F"),
    "channels last": lambda module: module.moveaxis(module.zeros((2, 4, 5, 3), np.float32), -1, 1),
    "reversed": lambda module: module.zeros((2, 3, 4, 5), np.float32)[::-1, ::-1, ::-1, ::-1],
    "every other": lambda module: module.zeros((2, 6, 8, 15), np.float32)[:, ::2, ::2, 1::3],
    "of another dtype": lambda module: module.zeros((2, 3, 4, 5), np.float64),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_output(xp, layout):
    x, k = call((4, 5), batch=(2,))
    output = LAYOUTS[layout](xp.module)
    output[...] = 77  # what was there does not count
    assert cuvarconv.local_correlate(xp.asarray(x), xp.asarray(k), output) is output
    assert_equal(xp.to_numpy(output), reference.local_correlate(x, k).astype(output.dtype))


@pytest.mark.parametrize("overlapped", [0, 1], ids=["input", "kernels"])
def test_output_overlaps_an_operand(xp, overlapped):
    arrays = call((4, 5), channels=3, filters=3)
    expected = reference.local_correlate(*arrays).astype(np.float32)
    given = [xp.asarray(array.copy()) for array in arrays]
    output = given[0] if overlapped == 0 else given[1][1, 1, ..., 0].transpose(2, 0, 1)
    assert cuvarconv.local_correlate(*given, output) is output
    assert_equal(xp.to_numpy(output), expected)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("strided", [0, 1], ids=["input", "kernels"])
@pytest.mark.parametrize(("channels", "filters"), [(2, 3), (8, 8)])
def test_strides_of_the_operands(xp, channels, filters, strided, view):
    arrays = call((4, 5), channels=channels, filters=filters, batch=(2,))
    given = [xp.asarray(array) for array in arrays]
    given[strided] = VIEWS[view](xp, arrays[strided])
    expected = reference.local_correlate(*arrays)
    assert_equal(xp.to_numpy(cuvarconv.local_correlate(*given)), expected.astype(np.float32))


@pytest.mark.parametrize(
    "order", [(4, 5, 0, 1, 2, 3), (5, 4, 0, 1, 2, 3), (0, 1, 4, 5, 2, 3), (2, 3, 0, 1, 4, 5)]
)
def test_kernels_stored_in_another_order(xp, order):
    """As (C_in, C_out, kh, kw, H, W) and the like, transposed into place."""
    x, k = call((4, 5), channels=4, filters=3)
    stored_otherwise = xp.asarray(k.transpose(order).copy())
    view = stored_otherwise.transpose([int(axis) for axis in np.argsort(order)])
    expected = reference.local_correlate(x, k)
    assert_equal(xp.to_numpy(cuvarconv.local_correlate(xp.asarray(x), view)), expected.astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_zero_strides_of_the_input(xp, axis):
    x, k = call((4, 5), channels=3)
    line = x.take([0], axis)
    view = xp.module.broadcast_to(xp.asarray(line), x.shape)
    expected = reference.local_correlate(np.broadcast_to(line, x.shape), k)
    assert_equal(xp.to_numpy(cuvarconv.local_correlate(view, xp.asarray(k))), expected.astype(np.float32))


# ---- small, special and repeated -----------------------------------------------------------------


@pytest.mark.no_launch(reason="there is nothing to compute")
@pytest.mark.parametrize("shape", [(2, 0, 4), (2, 4, 0), (0, 2, 3, 4), (0, 3, 2, 0, 4)], ids=str)
def test_empty_images(xp, shape):
    *batch, _, height, width = shape
    x, k = np.empty(shape, np.float32), np.ones((3, 3, height, width, 2, 5), np.float32)
    for mode in SAME_SIZE:
        assert local(xp, x, k, mode=mode).shape == (*batch, 5, height, width)


@pytest.mark.no_launch(reason="there is nothing to compute")
def test_no_output_channels(xp):
    assert local(xp, *call((3, 4), filters=0)).shape == (0, 3, 4)


@pytest.mark.no_launch(reason="zeros need no kernel")
def test_no_input_channels_give_zeros(xp):
    result = local(xp, *call((3, 4), channels=0, batch=(2,)))
    assert_equal(result, np.zeros((2, 3, 3, 4), np.float32))


@pytest.mark.parametrize("image", [(1, 1), (1, 5), (5, 1)], ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_images_of_length_one(xp, image, mode):
    check(xp, *call(image, (3, 3)), mode=mode, cval=2.0)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1], ids=["input", "kernels"])
def test_no_product_is_skipped(xp, where, special):
    arrays = [np.zeros_like(array) for array in call((4, 5))]
    arrays[where][(1,) * arrays[where].ndim] = special
    with np.errstate(invalid="ignore"):
        expected = reference.local_correlate(*arrays)
    result = local(xp, *arrays)
    assert_equal(result, expected.astype(np.float32))
    assert np.isnan(result).any()
    assert not np.isnan(result).all()


def test_the_same_call_gives_the_same_bits(xp):
    arrays = [xp.asarray(array) for array in call((12, 20), (3, 3), channels=8, filters=8, make=noise)]
    first, second = (xp.to_numpy(cuvarconv.local_correlate(*arrays)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_operands_are_not_changed(xp):
    arrays = call((4, 5), dtype="complex64")
    given = [xp.asarray(array.copy()) for array in arrays]
    cuvarconv.local_correlate(*given)
    for operand, array in zip(given, arrays, strict=True):
        assert_equal(xp.to_numpy(operand), array)


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_other_libraries(library):
    module = pytest.importorskip(library)
    x, k = (module.asarray(array) for array in call((4, 5)))
    result = cuvarconv.local_correlate(x, k)
    assert type(result) is type(x)
    assert_equal(np.asarray(result), cuvarconv.local_correlate(np.asarray(x), np.asarray(k)))


def test_lists_and_positional_order():
    kernels = np.array([2, 5]).reshape(1, 1, 1, 2, 1, 1)
    assert_equal(cuvarconv.local_correlate([[[1, 2]]], kernels.tolist()), np.array([[[2.0, 10.0]]]))
    x, k = call((4, 5), (3, 3))
    positional = cuvarconv.local_correlate(x, k, None, "constant", 2.0, (1, 0))
    named = cuvarconv.local_correlate(x, k, mode="constant", cval=2.0, origin=(1, 0))
    assert_equal(positional, named)
