"""What the CUDA kernels do to memory, counted by the emulator, and how the launcher reports errors."""

import contextlib
import importlib

import emulator
import numpy as np
import pytest
from tolerances import assert_equal, integers
from traffic import PIXEL_VECTORS, PIXELS, read_by

import cuvarconv
from cuvarconv._window import make_window

# where correlate.cu reads kernels: by vectors, and value by value
KERNEL_VECTORS, KERNEL_VALUES = "copy_async(&to, reinterpret_cast", "copy_async(&to.v[v]"


@pytest.fixture
def few_blocks(cuda_backend, monkeypatch):
    """Let 16 planes share a block, however few blocks that makes."""
    monkeypatch.setattr(_module("correlate"), "_ENOUGH_BLOCKS", 1)
    _module("correlate")._plan.cache_clear()
    yield
    _module("correlate")._plan.cache_clear()


def _module(name):
    return importlib.import_module(f"cuvarconv._gpu.{name}")


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex128"])
@pytest.mark.parametrize("planes", [1, 3, 16])
def test_each_kernel_value_is_requested_once_for_all_planes(
    cuda_backend, profiled, few_blocks, planes, dtype
):
    height, width, size = 12, 128, 5
    x = cuda_backend.asarray(np.ones((planes, height, width), dtype))
    k = cuda_backend.asarray(np.ones((size, size, height, width), dtype))
    rows = profiled("correlate", lambda: cuvarconv.correlate(x, k))
    reads = read_by(rows, KERNEL_VECTORS)
    assert sum(row.bytes for row in reads) == k.nbytes
    assert sum(row.transactions for row in reads) == k.nbytes // 32  # whole sectors, each once
    vector = min(16, 4 * k.itemsize)  # of bytes, as many numbers as make 16 in float32 at least
    assert all(row.bytes == vector * 32 * row.requests for row in reads)  # by whole warps


@pytest.mark.parametrize("width", [125, 126])
def test_unaligned_kernels_are_requested_once_too(cuda_backend, profiled, few_blocks, width):
    x = cuda_backend.asarray(np.ones((2, 12, width), np.float32))
    k = cuda_backend.asarray(np.ones((3, 7, 12, width), np.float32))
    rows = profiled("correlate", lambda: cuvarconv.correlate(x, k))
    assert sum(row.bytes for row in read_by(rows, KERNEL_VALUES)) == k.nbytes


def test_two_blocks_of_planes_request_it_twice(cuda_backend, profiled, few_blocks):
    x = cuda_backend.asarray(np.ones((17, 4, 128), np.float32))
    k = cuda_backend.asarray(np.ones((3, 3, 4, 128), np.float32))
    rows = profiled("correlate", lambda: cuvarconv.correlate(x, k))
    assert sum(row.bytes for row in read_by(rows, KERNEL_VECTORS)) == 2 * k.nbytes


def test_interior_tiles_take_the_vector_path(cuda_backend, profiled):
    """Of three tiles along a row, the middle one lies inside the image."""
    x = cuda_backend.asarray(np.ones((1, 8, 384), np.float32))
    k = cuda_backend.asarray(np.ones((3, 3, 1, 1), np.float32))
    rows = profiled("correlate", lambda: cuvarconv.correlate(x, k, mode="wrap"))
    vector, scalar = (read_by(rows, fragment) for fragment in (PIXEL_VECTORS, PIXELS))
    tile_rows = 2 * (4 + 2)  # two tiles of 4 outputs, one row of taps above and below each
    assert sum(row.bytes for row in vector) == tile_rows * 34 * 16  # a pixel on either side of 128
    assert sum(row.bytes for row in scalar) == 2 * tile_rows * 130 * 4


@pytest.mark.parametrize("planes", [1, 3, 16])
def test_all_threads_load_a_tile(cuda_backend, profiled, few_blocks, planes):
    """Rows of a tile that end within a warp leave no lanes idle, so that more loads are in flight."""
    x = cuda_backend.asarray(np.ones((planes, 4, 384), np.float32))
    k = cuda_backend.asarray(np.ones((5, 5, 4, 384), np.float32))
    rows = profiled("correlate", lambda: cuvarconv.correlate(x, k, mode="wrap"))
    cells = planes * 8 * 34  # of 4 pixels, two of them before the tile
    reads = read_by(rows, PIXEL_VECTORS)
    assert sum(row.bytes for row in reads) == 16 * cells
    assert sum(row.requests for row in reads) == -(-cells // 32)


@pytest.mark.parametrize(
    ("channels", "size", "blocks"),
    [(1, 64, 8), (256, 32, 128), (1, 2048, 8192), (16, 512, 512), (16, 64, 128), (3, 300, 190)],
)
def test_blocks_of_small_and_large_images(cuda_backend, channels, size, blocks):
    """Few pixels with many channels make as many blocks as the device has multiprocessors, about."""
    correlate = _module("correlate")
    window = make_window((5, 5), (size, size), mode="reflect", cval=0, origin=0, stride=1, dilation=1)
    planes, tile = correlate._plan(window, channels, 1, np.dtype(np.float32), 113 << 10, 227 << 10)
    assert tile.tiles(window) * -(-channels // planes) == blocks


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("size", [1, 3, 15])
@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("most", [64 << 10, 96 << 10, 99 << 10], ids=["sm_75", "sm_70", "sm_86"])
def test_a_block_has_no_more_shared_memory_than_there_is(cuda_backend, dtype, size, channels, most):
    correlate = _module("correlate")
    window = make_window((size, size), (64, 64), mode="reflect", cval=0, origin=0, stride=1, dilation=1)
    limit = min(most, most // 2 - (1 << 10))  # of a device with as much on a multiprocessor
    planes, tile = correlate._plan(window, channels, 1 << 10, np.dtype(dtype), limit, most)
    assert correlate._AHEAD[planes] + tile.shared <= most


@pytest.mark.parametrize(
    "window", [{}, {"mode": "constant", "cval": 2}, {"stride": 2}, {"dilation": (2, 3)}], ids=str
)
@pytest.mark.parametrize("planes", [1, 3, 16, 19])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_every_number_of_planes_and_lanes(cuda_backend, instantiations, few_blocks, dtype, planes, window):
    """Small images would not have many planes in a block; whole numbers are compared bit for bit."""
    for width in (11, 160):
        x = integers((planes, 6, width), dtype, low=-3, high=4)
        k = integers(
            (3, 5, *cuvarconv.correlate(x[0], np.ones((3, 5)), **window).shape), dtype, 1, low=-3, high=4
        )
        with emulator.recording() as launched:
            result = cuvarconv.correlate(cuda_backend.asarray(x), cuda_backend.asarray(k), **window)
        assert_equal(result.get(), cuvarconv.correlate(x, k, **window))
        (name,) = launched.names
        assert f", {min(16, planes) if planes != 3 else 4}, " in name


def test_modulated_patches_stay_out_of_global_memory(cuda_backend, profiled):
    x = cuda_backend.asarray(np.ones((8, 16, 16), np.float32))
    w = cuda_backend.asarray(np.ones((8, 8, 3, 3), np.float32))
    d = cuda_backend.asarray(np.ones((3, 3, 16, 16), np.float32))
    rows = profiled("modulated", lambda: cuvarconv.modulated_correlate(x, w, d))
    written = sum(row.bytes for _, row in rows if (row.space, row.access) == ("global", "write"))
    assert written == 8 * 16 * 16 * 4


def test_weights_of_any_size_leave_device_memory_alone(cuda_backend, instantiations):
    """Mixed dtypes are converted piece by piece, within the workspace of 64 MiB."""
    if not cuda_backend.is_emulated:
        pytest.skip("the emulator's memory pool counts its peak")
    from emulator import launch

    cupy = cuda_backend.module
    x = cupy.broadcast_to(cupy.ones((1, 1), np.float64), (1 << 11, 1 << 12))
    k = cupy.broadcast_to(cupy.ones((3, 3), np.float32)[:, :, None, None], (3, 3, 1 << 11, 1 << 12))
    output = cupy.empty((1 << 11, 1 << 12), np.float32)
    pool = cupy.get_default_memory_pool()
    before = pool.peak = pool.used_bytes()
    with launch.configured(fast=True):
        cuvarconv.correlate(x, k, output)
    assert output.min() == output.max() == 9
    assert before < pool.peak <= before + (64 << 20)


def test_a_kernel_that_does_not_compile_is_named(cuda_backend, monkeypatch):
    from cuvarconv._gpu import _launch

    monkeypatch.setattr(
        _launch, "kernel_source", lambda name: "template <int N> __global__ void broken() { nonsense; }"
    )
    with pytest.raises(RuntimeError, match=r"kernels/some\.cu: broken<3> does not compile:[^$]*nonsense"):
        _launch.launch("some", "broken<3>", 1, 32, (), 0)


def test_index_tables_stay_small(cuda_backend, instantiations):
    """Windows wider than memory: taps and outputs together would list 2³⁵ entries."""
    from cuvarconv._gpu._pieces import Piece, _cut

    cupy = cuda_backend.module
    wide = cupy.broadcast_to(cupy.ones((1, 1), np.float32), (1, 1 << 20))
    kernels = cupy.broadcast_to(cupy.ones((1, 1, 1, 1), np.float32), (1, 1 << 15, 1, 1))
    for stride, dilation in ((1, 1), (1, 1 << 25), (500, 1)):
        window = make_window(
            (1, 1 << 15), (1, 1 << 20), mode="wrap", cval=0, origin=0, stride=stride, dilation=dilation
        )
        output = cupy.broadcast_to(cupy.ones((1, 1), np.float32), window.output_shape)
        call = Piece(wide, kernels, output, window)
        cut = _cut(call, np.dtype(np.float32), 0)
        assert sum(part.stop - part.start for _, part in cut) == window.columns.length
        assert max(window.columns.part(part).entries for _, part in cut) <= 1 << 20


@pytest.mark.parametrize("role", ["input", "weights", "output"])
def test_batches_between_which_alignment_is_lost(cuda_backend, instantiations, role):
    """Two batch axes that cannot be walked as one; the outer stride is odd, the others are not."""
    cupy = cuda_backend.module

    def loose(values):
        """Return a copy of (2, n, …) whose halves lie an odd number of elements apart."""
        inner = values[0].size
        memory = cupy.zeros(2 * inner + 1, values.dtype)
        steps = np.array(values.strides)
        steps[0] = (inner + 1) * values.itemsize
        view = cuda_backend.as_strided(memory, values.shape, tuple(int(step) for step in steps))
        view[...] = cuda_backend.asarray(values)
        return view

    rng = np.random.default_rng(3)
    x = rng.integers(-4, 5, (2, 3, 8, 32)).astype(np.float32)
    k = rng.integers(-3, 4, (2, 3, 3, 3, 8, 32)).astype(np.float32)
    place = {"input": cuda_backend.asarray, "weights": cuda_backend.asarray, "output": cuda_backend.asarray}
    place[role] = loose
    kernels = place["weights"](k).transpose(2, 3, 0, 1, 4, 5)
    output = place["output"](np.zeros_like(x))
    cuvarconv.correlate(place["input"](x), kernels, output)
    expected = cuvarconv.correlate(x, k.transpose(2, 3, 0, 1, 4, 5))
    np.testing.assert_array_equal(output.get(), expected)


@pytest.mark.parametrize(
    "shapes", [((64, 128, 256), (1, 1, 64, 1, 1)), ((3000, 16, 16), (1, 1, 3000, 16, 16))]
)
def test_one_launch_for_a_whole_batch(cuda_backend, instantiations, shapes):
    x, k = (cuda_backend.asarray(np.ones(shape, np.float32)) for shape in shapes)
    quickly = contextlib.nullcontext()
    if cuda_backend.is_emulated:
        from emulator import launch

        quickly = launch.configured(fast=True)
    with quickly, emulator.recording() as launched:
        result = cuvarconv.correlate(x, k)
    assert len(launched) == 1
    assert float(result.min().get()) == float(result.max().get()) == 1


# ---- full kernels --------------------------------------------------------------------------------

# what each function does to k: its source and the line that reads or writes k
FULL_KERNELS = {
    None: ("local", "k[u] = load_once", "read"),
    "input": ("local_gradient", "k[u][r] = load_once", "read"),
    "kernels": ("local_gradient", "*to = values", "write"),
}


def full_kernels(cuda_backend, samples, channels, outputs, image=(3, 32), size=(3, 3), dtype=np.float32):
    """Return operands of `local_correlate` and a gradient that comes in."""
    shapes = (samples, outputs, *image), (samples, channels, *image), (*size, *image, channels, outputs)
    rng = np.random.default_rng(5)
    return [cuda_backend.asarray(rng.standard_normal(shape).astype(dtype)) for shape in shapes]


def full(arrays, wrt):
    """Call `local_correlate`, or one of its gradients."""
    grad, x, k = arrays
    if wrt is None:
        return cuvarconv.local_correlate(x, k)
    return cuvarconv.local_correlate_vjp(grad, x, k, wrt=wrt)


@pytest.mark.parametrize("wrt", FULL_KERNELS)
@pytest.mark.parametrize(
    ("samples", "channels", "outputs", "dtype"),
    [(1, 16, 16, "float32"), (8, 16, 16, "float32"), (1, 64, 64, "float32"), (4, 16, 16, "float16")],
)
def test_each_value_of_full_kernels_is_moved_once(
    cuda_backend, profiled, wrt, samples, channels, outputs, dtype
):
    arrays = full_kernels(cuda_backend, samples, channels, outputs, dtype=dtype)
    nbytes = arrays[2].nbytes
    source, fragment, access = FULL_KERNELS[wrt]
    rows = profiled(source, lambda: full(arrays, wrt))
    moved = read_by(rows, fragment, access)
    assert sum(row.bytes for row in moved) == nbytes
    assert sum(row.transactions for row in moved) == nbytes // 32  # whole sectors, each once
    assert all(row.bytes == 16 * 32 * row.requests for row in moved)  # 128 bits each, by whole warps
    assert not any("values = *to" in line and row.access == "read" for line, row in rows)


@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 3), (5, 2), (33, 17), (3, 16)])
def test_other_channels_move_no_value_twice_either(cuda_backend, profiled, channels, outputs):
    arrays = full_kernels(cuda_backend, 1, channels, outputs, image=(2, 9))
    for wrt, (source, fragment, access) in FULL_KERNELS.items():
        rows = profiled(source, lambda wrt=wrt: full(arrays, wrt))
        assert sum(row.bytes for row in read_by(rows, fragment, access)) == arrays[2].nbytes


@pytest.mark.parametrize(("samples", "passes"), [(8, 1), (9, 2), (17, 3)])
@pytest.mark.parametrize("wrt", [None, "input"])
def test_samples_share_passes_over_full_kernels(cuda_backend, profiled, wrt, samples, passes):
    arrays = full_kernels(cuda_backend, samples, 4, 4)
    source, fragment, access = FULL_KERNELS[wrt]
    rows = profiled(source, lambda: full(arrays, wrt))
    assert sum(row.bytes for row in read_by(rows, fragment, access)) == passes * arrays[2].nbytes


@pytest.mark.parametrize("wrt", FULL_KERNELS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_strides_of_full_kernels_do_not_change_a_bit(cuda_backend, instantiations, wrt, dtype):
    """Sums are cut by shapes alone, whether k is read in vectors or one by one, shared or not."""
    arrays = full_kernels(cuda_backend, 3, 16, 24, image=(4, 5), dtype=dtype)
    expected = full(arrays, wrt).get()
    k = arrays[2].get()
    shifted = cuda_backend.module.empty(k.size + 1, k.dtype)[1:].reshape(k.shape)
    shifted[...] = arrays[2]
    transposed = cuda_backend.asarray(k.transpose(5, 1, 0, 3, 2, 4).copy()).transpose(2, 1, 4, 3, 5, 0)
    unshared = cuda_backend.asarray(np.repeat(k[:, :, None], 3, 2))
    for other in (shifted, transposed, unshared):
        if wrt != "kernels":
            assert full([*arrays[:2], other], wrt).get().tobytes() == expected.tobytes()
    x = cuda_backend.asarray(arrays[1].get().transpose(3, 0, 2, 1).copy()).transpose(1, 3, 2, 0)
    assert full([arrays[0], x, arrays[2]], wrt).get().tobytes() == expected.tobytes()


@pytest.mark.parametrize("batch", [(150,), (70, 3), (2, 3, 5), (2, 1, 3, 2, 2)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_full_kernels_gradient_adds_up_any_batch(cuda_backend, instantiations, batch, dtype):
    """More samples, and more axes of them, than a launch takes; whole numbers, so that order is no matter."""
    rng = np.random.default_rng(6)
    grad, x = (rng.integers(-2, 3, (*batch, 2, 2, 3)).astype(dtype) for _ in range(2))
    k = np.zeros((1, 2, 2, 3, 2, 2), dtype)
    arrays = [cuda_backend.asarray(array.T.copy()).T for array in (grad, x)]
    result = cuvarconv.local_correlate_vjp(*arrays, cuda_backend.asarray(k), wrt="kernels")
    expected = cuvarconv.local_correlate_vjp(*(a.astype(np.float64) for a in (grad, x, k)), wrt="kernels")
    np.testing.assert_array_equal(result.get(), expected.astype(dtype))


@pytest.mark.parametrize("wrt", FULL_KERNELS)
def test_full_kernels_of_any_size_leave_device_memory_alone(cuda_backend, instantiations, wrt):
    if not cuda_backend.is_emulated:
        pytest.skip("the emulator's memory pool counts its peak")
    from emulator import launch

    cupy = cuda_backend.module
    grad, x = (cupy.broadcast_to(cupy.ones((1,) * 4, np.float64), (2, 16, 64, 64)) for _ in range(2))
    k = cupy.broadcast_to(cupy.ones((1,) * 6, np.float32), (3, 3, 64, 64, 16, 16))
    pool = cupy.get_default_memory_pool()
    before = pool.peak = pool.used_bytes()
    with launch.configured(fast=True):
        result = full((grad, x, k), wrt)
    assert result.min() == result.max() == (2 if wrt == "kernels" else 144)
    assert pool.peak <= before + result.nbytes + (64 << 20)
