"""Dask arrays: dtypes, axes, laziness, errors, blocks of other backends."""

import numpy as np
import pytest
from test_dask import IMAGE, SIZE, UNEVEN, _scheduler, assert_lazy, chunked, da, dask  # noqa: F401
from tolerances import assert_close, assert_equal, integers, noise

import cuvarconv

# ---- dtypes, axes, what broadcasts, what is empty ------------------------------------------------


@pytest.mark.parametrize(
    ("image", "kernel", "cval"),
    [
        ("uint8", "float32", 2.5),
        ("int16", "int8", 7),
        ("bool", "float64", 0.5),
        ("float16", "float16", 0.1),
        ("float32", "float64", 1 / 3),
        ("complex64", "float32", 1 + 2j),
        ("float32", "complex128", 2),
        (">f4", "<f8", 0.1),
    ],
)
def test_dtypes(image, kernel, cval):
    x, k = integers((3, *IMAGE), image), integers((*SIZE, *IMAGE), kernel, seed=1)
    lazy = chunked(x), chunked(k, 3)
    for keywords in ({}, {"output": np.complex64 if "c" in (x.dtype.kind, k.dtype.kind) else np.int32}):
        expected = cuvarconv.correlate(x, k, mode="constant", cval=cval, **keywords)
        result = cuvarconv.correlate(*lazy, mode="constant", cval=cval, **keywords)
        ((computed, known),) = assert_lazy(result, expected)
        assert_equal(computed, known)
        ((computed, known),) = assert_lazy(
            cuvarconv.spread(*lazy, **keywords), cuvarconv.spread(x, k, **keywords)
        )
        assert_equal(computed, known)
    expected = cuvarconv.correlate_vjp(x, x, k)
    for computed, known in assert_lazy(cuvarconv.correlate_vjp(lazy[0], *lazy), expected):
        assert_equal(computed, known)


def test_halves_are_summed_across_blocks_in_single_precision():
    ones, kernels = np.ones((1, 3 * 2049), np.float16), np.ones((1, 1), np.float16)
    lazy = da.from_array(ones, (1, 2049))
    gradient = cuvarconv.correlate_vjp(lazy, lazy, kernels, wrt="weights").compute()
    assert gradient == 6148  # the half nearest to 6147; 2049 itself would be rounded to 2048


def test_trees_of_sums():
    """More blocks than are added up at once, and at once again."""
    x = integers((1, 100))
    gradient = cuvarconv.correlate_vjp(
        da.from_array(x, 1), da.from_array(x, 1), np.ones((1, 1)), wrt="weights"
    )
    assert_equal(gradient.compute(), [[(x.astype(np.float64) ** 2).sum()]])


def test_infinite_parts():
    u = np.zeros((1, 3, 1, 5), complex)
    u[0, 1, 0, 2] = complex(1, np.inf)
    expected = cuvarconv.fold(u, (1, 5))
    assert expected[0, 2] == complex(1, np.inf)
    assert_equal(cuvarconv.fold(chunked(u), (1, 5)).compute(), expected)


def test_axes():
    x, k = integers((2, *IMAGE, 3)), integers((*SIZE, 3, 1, 3), seed=1)[..., :1]
    k = np.broadcast_to(integers((*SIZE, *IMAGE, 1), seed=1), (*SIZE, *IMAGE, 1))
    g = integers(x.shape, seed=2)
    lazy = [chunked(array, 2) for array in (g, x, k)]
    for axes in ((1, 2), (-2, 1)):
        flipped = k if axes == (1, 2) else integers((*SIZE, 1, IMAGE[1], 1))
        operands = (x, chunked(flipped))
        ((computed, known),) = assert_lazy(
            cuvarconv.correlate(*map(da.asarray, operands), axes=axes),
            cuvarconv.correlate(x, flipped, axes=axes),
        )
        assert_equal(computed, known)
    expected = cuvarconv.correlate_vjp(g, x, k, axes=(1, 2))
    for computed, known in assert_lazy(cuvarconv.correlate_vjp(*lazy, axes=(1, 2)), expected):
        assert_equal(computed, known)


@pytest.mark.parametrize("lazy", ["input", "weights", "modulation"])
def test_one_dask_array_is_enough(lazy):
    operands = {
        "input": integers((4, *IMAGE)),
        "weights": integers((2, 4, *SIZE), seed=1),
        "modulation": integers((*SIZE, *IMAGE), seed=2),
    }
    expected = cuvarconv.modulated_correlate(**operands)
    operands[lazy] = chunked(operands[lazy])
    ((computed, known),) = assert_lazy(cuvarconv.modulated_correlate(**operands), expected)
    assert_equal(computed, known)


def test_lists():
    result = cuvarconv.correlate([[1.0, 2.0, 3.0]], chunked(np.ones((1, 3)), 1))
    assert_equal(result.compute(), [[4.0, 6.0, 8.0]])


def test_chunks_of_results():
    """Chunks follow the input's, however the kernels are cut."""
    x, k = chunked(np.ones((2, *IMAGE)), 2, UNEVEN), chunked(np.ones((*SIZE, *IMAGE)), 4)
    for function in (cuvarconv.correlate, cuvarconv.spread):
        assert function(x, k).chunks == ((2,), *UNEVEN)
    assert cuvarconv.correlate(x, k[..., ::2, ::2], stride=2).chunks == ((2,), (1, 1, 2, 1), (2, 3, 1))
    assert cuvarconv.unfold(x, SIZE, "valid").chunks == ((2,), (3,), (4,), (2, 5), (2, 1, 5))
    gradient = cuvarconv.correlate_vjp(np.ones((2, *IMAGE)), x, k, wrt="weights")
    assert gradient.chunks == ((3,), (4,), *UNEVEN)


@pytest.mark.parametrize("shape", [(0, 5, 6), (2, 0, 6), (2, 5, 0)])
def test_empty(shape):
    x = np.ones(shape, np.float32)
    lazy, k = da.from_array(x), np.ones((3, 3), np.float32)
    for name in ("correlate", "spread"):
        function = getattr(cuvarconv, name)
        assert_lazy(function(lazy, k), function(x, k))
    for computed, known in assert_lazy(
        cuvarconv.correlate_vjp(lazy, lazy, k), cuvarconv.correlate_vjp(x, x, k)
    ):
        assert_equal(computed, known)
    nothing = cuvarconv.modulated_correlate(
        lazy[:, None][:, :0], np.ones((3, 0, 3, 3)), np.ones((3, 3, 1, 1))
    )
    assert nothing.shape == (shape[0], 3, *shape[1:])
    assert not nothing.compute().any()


def test_chunks_of_length_0():
    """Dask loses pixels of such arrays where it turns an axis round, as convolution does with kernels."""
    x, k = integers(IMAGE), integers((*SIZE, *IMAGE), seed=1)
    lazy_k = da.from_array(k, ((1, 0, 2, 0), (0, 4), (0, 9), (5, 0, 6)))
    lazy = cuvarconv.convolve(da.from_array(x, ((0, 4, 0, 5), (11, 0))), lazy_k)
    assert_equal(lazy.compute(), cuvarconv.convolve(x, k))


@pytest.mark.parametrize("samples", [(2, 1), (1, 2)])
def test_pixels_that_no_output_reads(samples):
    """Their gradient is 0, also in chunks that have no others, for samples in uneven chunks."""
    guide, g = noise((3, 2, 13, 14)), noise((2, 2, 3, 1, 2, 2), seed=1)
    lazy = da.from_array(guide, (samples, 2, 3, 4))
    keywords = {"wrt": "guide", "stride": 7}
    gradient = cuvarconv.affinity_vjp(g, lazy, (2, 2), **keywords)
    assert_close(gradient.compute(), cuvarconv.affinity_vjp(g, guide, (2, 2), **keywords))


# ---- laziness, errors ------------------------------------------------------------------------------


def test_nothing_is_read_before_compute():
    read = []

    def block(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.ones((5, 5))

    x = da.map_blocks(block, chunks=((5,) * 4, (5,) * 4), dtype=np.float64, meta=np.empty((0, 0)))
    k = da.map_blocks(np.ones, (3, 3, 20, 5), chunks=((3,), (3,), (20,), (5,) * 4), dtype=np.float64)
    results = [
        cuvarconv.correlate(x, k),
        cuvarconv.spread(x, k),
        *cuvarconv.correlate_vjp(x, x, k),
        cuvarconv.fold(cuvarconv.unfold(x, 3), (20, 20)),
        cuvarconv.affinity(x, 3, channel_axis=None),
    ]
    assert read == []
    assert_equal(results[0][:5, :5].compute(), np.full((5, 5), 9.0))
    assert sorted(set(read)) == [(0, 0), (0, 1), (1, 0), (1, 1)]  # a corner, and what its windows reach


def test_same_call_same_name():
    x, k = chunked(noise((20, 20)), 5), noise((3, 3, 20, 20))
    names = {cuvarconv.correlate(x, k).name, cuvarconv.correlate(x, k).name}
    assert len(names) == 1
    assert cuvarconv.correlate(x, k, mode="wrap").name not in names
    assert cuvarconv.convolve(x, k).name not in names


def bad_calls():
    x, k = chunked(np.ones(IMAGE), 4), np.ones((*SIZE, *IMAGE))
    unknown = x[x.sum(axis=1) > 0]
    strange = da.map_blocks(np.ma.masked_array, x, meta=np.ma.masked_array(np.empty((0, 0))))
    return {
        "unknown chunks": (
            ValueError,
            r"^input: expected known chunk sizes.*compute_chunk_sizes",
            unknown,
            k,
            {},
        ),
        "shapes": (ValueError, r"^weights: .* S broadcasting to \(9, 11\)", x, chunked(k[..., :5]), {}),
        "masked blocks": (TypeError, r"^input: expected NumPy or CuPy arrays", strange, k, {}),
        "origin": (ValueError, r"^origin: ", x, k, {"origin": 3}),
        "output": (TypeError, r"^output: results of dask arrays are lazy", x, k, {"output": np.ones(IMAGE)}),
        "lazy output": (TypeError, r"^output: dask arrays are immutable", x, k, {"output": x}),
        "lazy output of arrays": (TypeError, r"^output: dask arrays are", np.ones(IMAGE), k, {"output": x}),
        "dtype": (TypeError, r"^input: dtype", x.astype("M8[s]"), k, {}),
    }


def test_lazy_widths_need_a_radius():
    x = chunked(np.ones(IMAGE), 4)
    with pytest.raises(
        ValueError, match=r"^radius: expected an int or a pair where sigma or angle is a dask"
    ):
        cuvarconv.gaussian_filter(np.ones(IMAGE), x)
    with pytest.raises(ValueError, match=r"^radius: "):
        cuvarconv.gaussian_filter(np.ones(IMAGE), 1.0, angle=x)
    with pytest.raises(ValueError, match=r"^radius: expected an int where sigma_spatial is a dask array"):
        cuvarconv.bilateral_filter(np.ones(IMAGE), x, 1.0)
    with pytest.raises(TypeError, match=r"^tolerance: expected None with dask arrays, whose blocks"):
        cuvarconv.gaussian_filter(x, np.ones(IMAGE), tolerance=0.01)
    with pytest.raises(TypeError, match=r"^sigma: gaussian_weights takes no dask arrays"):
        cuvarconv.gaussian_weights(x)


@pytest.mark.parametrize("case", bad_calls())
def test_errors_come_with_the_call(case):
    error, message, x, k, keywords = bad_calls()[case]
    with pytest.raises(error, match=message):
        cuvarconv.correlate(x, k, **keywords)


def test_other_libraries():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^weights: expected NumPy or CuPy arrays.*got torch\.Tensor"):
        cuvarconv.correlate(chunked(np.ones(IMAGE)), torch.ones(3, 3))


def test_linear_operator():
    with pytest.raises(TypeError, match=r"^weights: linear operators take no dask arrays.*compute"):
        cuvarconv.as_linear_operator(da.ones((3, 3)), (5, 5))


# ---- CuPy's blocks, xarray ----------------------------------------------------------------------------


def blocks_of(xp, array, chunks):
    """Return a dask array whose blocks are the backend's."""
    return da.from_array(array, chunks).map_blocks(
        xp.asarray, meta=xp.asarray(np.empty((0,) * array.ndim, array.dtype))
    )


@pytest.mark.parametrize("mode", ["mirror", "constant"])
def test_blocks_of_a_backend(xp, mode):
    x, k, g = integers((2, 8, 9)), integers((3, 3, 8, 9), seed=1), integers((2, 8, 9), seed=2)
    lazy_x, lazy_k = blocks_of(xp, x, 5), blocks_of(xp, k, 4)
    results = [
        cuvarconv.correlate(lazy_x, lazy_k, mode=mode),
        *cuvarconv.correlate_vjp(xp.asarray(g), lazy_x, lazy_k, mode=mode),
        cuvarconv.correlate_vjp(xp.asarray(g), lazy_x, xp.asarray(k[..., :1, :1]), mode=mode, wrt="weights"),
        cuvarconv.fold(cuvarconv.unfold(lazy_x, 3, mode), (8, 9), mode),
        cuvarconv.correlate(lazy_x, [[0, 1, 0], [1, -4, 1]], mode=mode),
        cuvarconv.gaussian_filter(lazy_x, 0, mode=mode),
        cuvarconv.normalized_correlate(lazy_x, lazy_k * 0 + 1, mode=mode),
    ]
    expected = [
        cuvarconv.correlate(x, k, mode=mode),
        *cuvarconv.correlate_vjp(g, x, k, mode=mode),
        cuvarconv.correlate_vjp(g, x, k[..., :1, :1], mode=mode, wrt="weights"),
        cuvarconv.fold(cuvarconv.unfold(x, 3, mode), (8, 9), mode),
        cuvarconv.correlate(x, [[0, 1, 0], [1, -4, 1]], mode=mode),
        cuvarconv.gaussian_filter(x, 0, mode=mode),
        cuvarconv.normalized_correlate(x, k * 0 + 1, mode=mode),
    ]
    for result, known in zip(results, expected, strict=True):
        assert type(result._meta) is xp.module.ndarray
        together = np.empty(result.numblocks, object)
        for index in np.ndindex(result.numblocks):
            together[index] = xp.to_numpy(result.blocks[index].compute())
        assert_equal(np.block(together.tolist()), known)


@pytest.mark.no_launch("an error")
def test_mixed_blocks(cuda_backend):
    x = np.ones(IMAGE)
    with pytest.raises(TypeError, match=r"^weights: expected numpy blocks, as input has, got cupy blocks"):
        cuvarconv.correlate(chunked(x), blocks_of(cuda_backend, np.ones((3, 3)), 3))
    with pytest.raises(TypeError, match=r"^weights: expected cupy blocks, as input has, got numpy blocks"):
        cuvarconv.correlate(blocks_of(cuda_backend, x, 4), np.ones((3, 3)))


def test_xarray():
    xarray = pytest.importorskip("xarray", reason="needs xarray (the extra `dask`)")
    x, k = noise((2, *IMAGE)), noise((*SIZE, *IMAGE), seed=1)
    images = xarray.DataArray(chunked(x, 4), dims=("time", "y", "x"))
    kernels = xarray.DataArray(chunked(k, 4), dims=("m", "n", "y", "x"))
    blurred = xarray.apply_ufunc(
        lambda image, kernel: cuvarconv.correlate(image, np.moveaxis(kernel, (-2, -1), (0, 1)), mode="wrap"),
        images,
        kernels,
        input_core_dims=[["y", "x"], ["y", "x", "m", "n"]],
        output_core_dims=[["y", "x"]],
        dask="allowed",
    )
    assert blurred.dims == ("time", "y", "x")
    assert isinstance(blurred.data, da.Array)
    assert_equal(blurred.compute().to_numpy(), cuvarconv.correlate(x, k, mode="wrap"))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda lazy: cuvarconv.correlate(lazy, np.ones((3, 3)), cval=lazy.sum()), "cval: expected a number"),
        (lambda lazy: cuvarconv.affinity(lazy, 3, lazy.sum(), channel_axis=None), "sigma: expected a number"),
    ],
    ids=["cval", "sigma"],
)
def test_no_number_is_computed_by_a_call(call, says):
    with pytest.raises(TypeError, match=says):
        call(da.ones((4, 5)))
