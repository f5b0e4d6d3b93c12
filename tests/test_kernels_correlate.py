"""`spread`, `unfold` and the gradient in the weights of `correlate`: their traffic, plans and cuts."""

import contextlib
import sys

import emulator
import numpy as np
import pytest
from test_correlate import MODES
from tolerances import assert_equal, integers
from traffic import read_by

import cuvarconv
from cuvarconv._window import make_window

# the lines of spread.cu that read kernels: inside, at the edge, and what a boundary mode folds back
KERNELS_OF_SPREAD = ("values[u][r] = from[", "exists ? from[", "widen(k.data[")


def read_bytes(rows, fragments):
    """Add up what several lines read; some may not run at all."""
    return sum(row.bytes for line, row in rows if any(f in line for f in fragments) and row.access == "read")


def ones(cuda_backend, *shape, dtype=np.float32):
    """Return an array of ones on the device."""
    return cuda_backend.asarray(np.ones(shape, dtype))


def module(name):
    """Return a module of the CUDA backend whose name is also a function's."""
    return sys.modules[f"cuvarconv._gpu.{name}"]


def spread_back(backend, y, k, image, **window):
    """Return the adjoint of `correlate` on an image of a given size, on the host."""
    arrays = (backend.asarray(a) for a in (y, k))
    return backend.to_numpy(cuvarconv.spread(*arrays, shape=image, **window))


def outputs_of(image, size, **window):
    """Return the shape of what `correlate` makes of an image."""
    return cuvarconv.correlate(np.zeros(image), np.zeros(size), **window).shape


# ---- spread --------------------------------------------------------------------------------------


@pytest.mark.parametrize("planes", [1, 3, 16])
@pytest.mark.parametrize("mode", ["reflect", "wrap", "constant"])
def test_spread_requests_each_kernel_value_once(cuda_backend, profiled, mode, planes):
    z, k = ones(cuda_backend, planes, 40, 96), ones(cuda_backend, 5, 5, 40, 96)
    rows = profiled("spread", lambda: cuvarconv.spread(z, k, mode=mode))
    lost = 0 if mode != "constant" else 25 * 40 * 96 - (5 * 40 - 6) * (5 * 96 - 6)
    assert read_bytes(rows, KERNELS_OF_SPREAD) == k.nbytes - 4 * lost
    inside = read_by(rows, KERNELS_OF_SPREAD[0])
    assert all(row.bytes == 4 * 32 * row.requests for row in inside)  # whole warps, side by side
    assert all(row.transactions <= 5 * row.requests for row in inside)  # one sector more than they fill


@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), ((2, 3), (3, 2)), (1, 4), (4, 4)])
def test_spread_with_steps_requests_each_kernel_value_once(cuda_backend, profiled, stride, dilation):
    z, k = ones(cuda_backend, 2, 20, 40), ones(cuda_backend, 5, 3, 20, 40)
    rows = profiled("spread", lambda: cuvarconv.spread(z, k, stride=stride, dilation=dilation))
    assert read_bytes(rows, KERNELS_OF_SPREAD) == k.nbytes


def test_spread_reads_pixels_from_shared_memory_by_vectors(cuda_backend, profiled):
    z, k = ones(cuda_backend, 16, 48, 96), ones(cuda_backend, 4, 4, 48, 96)
    rows = profiled("spread", lambda: cuvarconv.spread(z, k))
    reads = read_by(rows, "const Pack<A, R> pack", space="shared")
    assert all(row.transactions == 4 * row.requests for row in reads)  # 512 bytes, without bank conflicts
    assert sum(row.requests for row in reads) == 2 * 16 * 4 * 48 * 96 // (4 * 32)  # two for 16 products


def test_spread_writes_each_pixel_once(cuda_backend, profiled):
    z, k = ones(cuda_backend, 5, 33, 70), ones(cuda_backend, 3, 3, 33, 70)
    rows = profiled("spread", lambda: cuvarconv.spread(z, k))
    assert sum(row.bytes for row in read_by(rows, "Narrow<T>::from(totals", access="write")) == z.nbytes


def test_spread_looks_at_inverse_tables_only_where_pixels_are_folded_back(cuda_backend, profiled):
    z, k = ones(cuda_backend, 40, 96), ones(cuda_backend, 3, 3, 40, 96)
    rows = profiled("spread", lambda: cuvarconv.spread(z, k, mode="constant"))
    assert not [line for line, _ in rows if "table.entries" in line]
    rows = profiled("spread", lambda: cuvarconv.spread(z, k, mode="reflect"))
    assert [line for line, _ in rows if "table.entries" in line]


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_the_number_of_planes_does_not_change_a_bit(cuda_backend, instantiations, dtype):
    """Each plane's sum has one order, in tiles of the same taps."""
    rng = np.random.default_rng(4)
    z, k = (rng.standard_normal(shape).astype(dtype) for shape in ((17, 24, 33), (23, 27, 24, 33)))
    together = spread_back(cuda_backend, z, k, (24, 33))
    for plane in (0, 16):
        assert_equal(together[plane], spread_back(cuda_backend, z[plane], k, (24, 33)))
        assert_equal(together[plane], spread_back(cuda_backend, z[[plane] * 3], k, (24, 33))[1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [1, 2])
def test_spread_in_chunks_of_taps(cuda_backend, instantiations, monkeypatch, mode, stride):
    for name in ("_SHARED", "_EVERYWHERE"):
        monkeypatch.setattr(module("spread"), name, 40 << 10)
    size, window = (19, 14), {"mode": mode, "stride": stride}
    z = integers((5, *outputs_of((40, 36), size, **window)), low=-3, high=4)
    k = integers((*size, *z.shape[1:]), low=-3, high=4)
    expected = cuvarconv.spread(z, k, shape=(40, 36), **window)
    assert_equal(spread_back(cuda_backend, z, k, (40, 36), **window), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["_MOST_CLASSES", "_FARTHEST"])
def test_spread_by_inverse_tables_alone(cuda_backend, instantiations, monkeypatch, mode, name):
    """As for strides beyond the classes of pixels, or positions beyond 32 bits."""
    monkeypatch.setattr(module("spread"), name, 0)
    module("spread")._direct.cache_clear()
    window = {"mode": mode, "stride": (2, 1), "dilation": (1, 2)}
    z = integers((3, *outputs_of((11, 13), (4, 3), **window)), low=-3, high=4)
    k = integers((4, 3, *z.shape[1:]), low=-3, high=4)
    with monkeypatch.context() as patch:
        patch.setattr(
            module("spread"), "on_device", lambda make, *what: (_device(make(*what)), make(*what)[1])
        )
        result = spread_back(cuda_backend, z, k, (11, 13), **window)
    module("spread")._direct.cache_clear()
    assert_equal(result, cuvarconv.spread(z, k, shape=(11, 13), **window))


def _device(made):
    return module("_kept").cupy.asarray(made[0])


# ---- unfold --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "complex64", "complex128"])
def test_unfold_writes_each_element_once_by_vectors(cuda_backend, profiled, dtype):
    x = ones(cuda_backend, 2, 8, 512, dtype=dtype)
    rows = profiled("unfold", lambda: cuvarconv.unfold(x, (3, 3)))
    writes = read_by(rows, "reinterpret_cast<Pack<T, V>*>(y)", access="write")
    assert sum(row.bytes for row in writes) == 9 * x.nbytes
    assert all(row.bytes == 16 * 32 * row.requests == 32 * row.transactions for row in writes)


def test_unfold_keeps_every_bit(cuda_backend, instantiations):
    bits = np.random.default_rng(5).integers(0, 1 << 32, (6, 9), np.uint32)  # NaNs of all kinds, too
    expected = cuvarconv.unfold(bits, (2, 3))
    result = cuda_backend.to_numpy(cuvarconv.unfold(cuda_backend.asarray(bits.view(np.float32)), (2, 3)))
    assert_equal(result.view(np.uint32), expected)


# ---- the gradient in the weights -----------------------------------------------------------------


def weights_gradient(cuda_backend, g, x, k, **window):
    """Return the gradient of `correlate` in its weights, on the host."""
    arrays = (cuda_backend.asarray(a) for a in (g, x, k))
    return cuda_backend.to_numpy(cuvarconv.correlate_vjp(*arrays, wrt="weights", **window))


@pytest.mark.parametrize("planes", [1, 3, 16])
def test_each_gradient_is_written_once_by_vectors(cuda_backend, profiled, planes):
    x, k = ones(cuda_backend, planes, 12, 128), ones(cuda_backend, 5, 5, 12, 128)
    rows = profiled("correlate_gradient", lambda: cuvarconv.correlate_vjp(x, x, k, wrt="weights"))
    writes = read_by(rows, "reinterpret_cast<Pack<T, V>*>(y)", access="write")
    assert sum(row.bytes for row in writes) == k.nbytes
    assert all(row.bytes == 16 * 32 * row.requests == 32 * row.transactions for row in writes)


def test_rows_of_taps_share_blocks_where_there_are_enough(cuda_backend, profiled, monkeypatch):
    """The gradient that comes in is read once for all taps, or once for each row of them."""
    x, k = ones(cuda_backend, 2, 8, 128), ones(cuda_backend, 3, 3, 8, 128)
    for enough, times in ((1056, 3), (2, 1)):
        monkeypatch.setattr(module("correlate_gradient"), "_ENOUGH_BLOCKS", enough)
        rows = profiled("correlate_gradient", lambda: cuvarconv.correlate_vjp(x, x, k, wrt="weights"))
        assert sum(row.bytes for row in read_by(rows, "Pack<T, V>*>(from)")) == times * x.nbytes


def test_sums_over_pixels_read_an_image_once_for_each_block_of_taps(cuda_backend, profiled):
    x, k = ones(cuda_backend, 3, 32, 128), ones(cuda_backend, 4, 8)
    rows = profiled("correlate_gradient", lambda: cuvarconv.correlate_vjp(x, x, k, wrt="weights"))
    assert sum(row.bytes for row in read_by(rows, "Pack<T, V>*>(from)")) == 2 * x.nbytes


VARYING = [(), (3, 1, 1), (2, 1, 1, 1), (9, 1), (1, 35), (3, 1, 35), (2, 3, 9, 1)]


@pytest.mark.parametrize("varying", [*VARYING, (9, 35), (3, 9, 35), (2, 1, 9, 35)], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_strides_do_not_change_a_bit_of_a_gradient(cuda_backend, instantiations, varying, dtype):
    rng = np.random.default_rng(6)
    x, g = (rng.standard_normal((2, 3, 9, 35)).astype(dtype) for _ in range(2))
    k = np.zeros((3, 2, *varying), dtype)
    apart = np.asfortranarray(x), np.ascontiguousarray(g.transpose(1, 3, 0, 2)).transpose(2, 0, 3, 1)
    expected = weights_gradient(cuda_backend, g, x, k)
    arrays = (
        cuda_backend.module.asarray(apart[1], order="K"),
        cuda_backend.module.asarray(apart[0], order="K"),
    )
    result = cuvarconv.correlate_vjp(*arrays, cuda_backend.asarray(k), wrt="weights")
    assert_equal(cuda_backend.to_numpy(result), expected)


@pytest.mark.parametrize("varying", [*VARYING, (9, 35), (2, 1, 9, 35)], ids=str)
def test_sums_that_are_cut(cuda_backend, instantiations, monkeypatch, varying):
    """Regions, parts, launches and stretches of sums, cut as for large arrays."""
    for name, value in (("_SUMS", 2000), ("MOST_BLOCKS", 7), ("_MOST_TILES", 3), ("_ENOUGH_BLOCKS", 20)):
        monkeypatch.setattr(module("correlate_gradient"), name, value)
    for dtype in (np.float32, np.float64):
        x, g = (integers((2, 3, 9, 35), dtype, seed, low=-3, high=4) for seed in range(2))
        k = np.zeros((3, 2, *varying), np.float32)
        expected = cuvarconv.correlate_vjp(g, x, k, wrt="weights", mode="mirror")
        assert_equal(weights_gradient(cuda_backend, g, x, k, mode="mirror"), expected)


def test_planes_beyond_one_pass_are_added_in_float32(cuda_backend, instantiations):
    x = np.full((2100, 1, 8), 1, np.float16)  # in float16, 2048 + 1 is 2048
    assert weights_gradient(cuda_backend, x, x, np.ones((1, 1, 1, 8), np.float16)).max() == 2100
    assert weights_gradient(cuda_backend, x, x, np.ones((1, 1), np.float16)).max() == 8 * 2100


# ---- cuts and workspace --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", ["spread", "weights"])
def test_long_axes_and_foreign_dtypes(cuda_backend, instantiations, monkeypatch, function, mode):
    """Pieces of images, cut as for large ones, have tables of their own; converted outputs new numbers."""
    monkeypatch.setattr(module("_pieces"), "_MOST_ENTRIES", 24)
    monkeypatch.setattr(module("_pieces"), "_WORKSPACE", 6000)
    shape = outputs_of((9, 21), (3, 4), mode=mode, dilation=(2, 1))
    for dtype in (np.float32, np.float64, np.int16):
        x, g = integers((3, 9, 21), dtype, low=-3, high=4), integers((3, *shape), dtype, 1, low=-3, high=4)
        k = integers((3, 4, *shape), np.float32, 2, low=-3, high=4)
        window = {"mode": mode, "dilation": (2, 1)}
        if function == "spread":
            result = spread_back(cuda_backend, g, k, (9, 21), **window)
            assert_equal(result, cuvarconv.spread(g, k, shape=(9, 21), **window))
        else:
            expected = cuvarconv.correlate_vjp(g, x, k, wrt="weights", **window)
            assert_equal(weights_gradient(cuda_backend, g, x, k, **window), expected)


@pytest.mark.parametrize("varying", [(), (13, 1, 1), (6, 7)], ids=str)
def test_batches_beyond_one_launch(cuda_backend, instantiations, monkeypatch, varying):
    for name in ("spread", "unfold", "correlate_gradient"):
        monkeypatch.setattr(module(name), "MOST_BLOCKS", 5)
    monkeypatch.setattr(module("spread"), "_MOST_PLANES", 5)
    x, k = integers((13, 6, 7)), integers((3, 3, *varying))
    assert_equal(spread_back(cuda_backend, x, k, (6, 7)), cuvarconv.spread(x, k))
    with emulator.recording() as launches:
        unfolded = cuda_backend.to_numpy(cuvarconv.unfold(cuda_backend.asarray(x), (3, 2)))
    assert len(launches) >= 3
    assert_equal(unfolded, cuvarconv.unfold(x, (3, 2)))
    expected = cuvarconv.correlate_vjp(x, x, k, wrt="weights")
    assert_equal(weights_gradient(cuda_backend, x, x, k), expected)


def test_inverse_tables_stay_small(cuda_backend, instantiations):
    from cuvarconv._gpu._pieces import AdjointPiece, _cut

    cupy = cuda_backend.module
    window = make_window((1, 1 << 10), (1, 1 << 13), mode="wrap", cval=0, origin=0, stride=1, dilation=1)
    image = cupy.broadcast_to(cupy.ones((1, 1), np.float32), (1, 1 << 13))
    call = AdjointPiece.of(image, cupy.ones((1, 1, 1, 1), np.float32), image, window)
    cut = _cut(call, np.dtype(np.float32), 0)
    assert sum(part.stop - part.start for _, part in cut) == 1 << 13
    assert max(call.block(where, 0).columns.entries() for where in cut) <= 1 << 20


@pytest.mark.parametrize("function", ["spread", "weights", "sum"])
def test_operands_of_any_size_leave_device_memory_alone(cuda_backend, instantiations, function):
    """Mixed dtypes are converted piece by piece, within the workspace of 64 MiB."""
    if not cuda_backend.is_emulated:
        pytest.skip("the emulator's memory pool counts its peak")
    from emulator import launch

    cupy, size = cuda_backend.module, (1 << 11, 1 << 11)
    wide = cupy.broadcast_to(cupy.ones((1, 1), np.float64), size)
    kernels = cupy.ones((1, 2), np.float32)
    if function != "sum":
        kernels = cupy.broadcast_to(kernels[:, :, None, None], (1, 2, *size))
    result = cupy.empty(size, np.float32)
    pool = cupy.get_default_memory_pool()
    before = pool.peak = pool.used_bytes()
    with launch.configured(fast=True):
        if function == "spread":
            cuvarconv.spread(wide, kernels, result, mode="wrap")
        else:
            result = cuvarconv.correlate_vjp(wide, wide, kernels, wrt="weights", mode="wrap")
    own = 0 if function == "spread" else result.nbytes
    expected = {"spread": 2, "weights": 1, "sum": size[0] * size[1]}[function]
    assert result.min() == result.max() == expected
    assert before < pool.peak <= before + own + (64 << 20)


@pytest.mark.parametrize("planes", [(), (64, 16)])
def test_one_launch_for_a_whole_batch(cuda_backend, instantiations, planes):
    x, k = ones(cuda_backend, *planes, 16, 16), ones(cuda_backend, 3, 3, 16, 16)
    quickly = contextlib.nullcontext()
    if cuda_backend.is_emulated:
        from emulator import launch

        quickly = launch.configured(fast=True)
    with quickly, emulator.recording() as launched:
        cuvarconv.spread(x, k)
        cuvarconv.unfold(x, 3)
        cuvarconv.correlate_vjp(x, x, k, wrt="weights")
    assert len(launched) == 3


def test_sums_in_half_precision_are_stored_once_complete(cuda_backend, instantiations, monkeypatch):
    """Each later launch adds 1/2 to 2048, which half precision cannot hold."""
    monkeypatch.setattr(module("correlate_gradient"), "_MOST_TILES", 16)
    x = np.full((65, 4, 5), 1 / 32, np.float16)
    x[0] = 2048
    g, k = np.ones_like(x), np.ones((1, 1, 4, 5), np.float16)
    operands = map(cuda_backend.asarray, (g, x, k))
    result = cuda_backend.to_numpy(cuvarconv.correlate_vjp(*operands, wrt="weights"))
    assert_equal(result, np.full_like(k, 2050))


def test_unfold_reads_nothing_behind_the_last_pixel(cuda_backend, instantiations):
    """Rows lie 128 apart, but the last one ends with the memory."""
    memory = cuda_backend.module.empty(39 * 128 + 126, np.float32)
    memory[...] = cuda_backend.asarray(integers((memory.size,)))
    x = cuda_backend.module.lib.stride_tricks.as_strided(memory, (40, 126), (512, 4))
    expected = cuvarconv.unfold(cuda_backend.to_numpy(x), (2, 2), mode="valid")
    assert_equal(cuda_backend.to_numpy(cuvarconv.unfold(x, (2, 2), mode="valid")), expected)
