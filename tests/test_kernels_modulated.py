"""The CUDA kernels of the gradients of equation (2): their traffic, how work is split and cut."""

import contextlib

import emulator
import numpy as np
import pytest
import reference_gradients
from tolerances import assert_close, assert_equal, integers, noise, stored
from traffic import read_by

import cuvarconv

EACH = pytest.mark.parametrize("name", ["input", "weights", "modulation"])


def operands(
    channels=8, filters=8, image=(6, 40), size=(3, 3), batch=(), entries=(), make=integers, groups=1, **types
):
    """Return grad, input, weights and modulation, small whole numbers, one factor per output pixel."""
    shapes = {
        "grad": (*batch, filters, *image),
        "input": (*batch, channels, *image),
        "weights": (filters, channels // groups, *size),
        "modulation": (*size, *entries, *image),
    }
    small = {"low": -2, "high": 3} if make is integers else {}
    return [
        make(shape, types.get(name, np.float32), seed, **small)
        for seed, (name, shape) in enumerate(shapes.items())
    ]


def gradient(backend, arrays, name, **keywords):
    """Return one gradient, on the host."""
    on_device = map(backend.asarray, arrays)
    return backend.to_numpy(cuvarconv.modulated_correlate_vjp(*on_device, wrt=name, **keywords))


def expected(arrays, name, **keywords):
    """Return the same by loops."""
    results = reference_gradients.modulated_correlate_vjp(*arrays, **keywords)
    return dict(zip(("input", "weights", "modulation"), results, strict=True))[name]


def check(backend, arrays, name, **keywords):
    """Compare a gradient with the loops, bit for bit."""
    result = gradient(backend, arrays, name, **keywords)
    assert_equal(result, stored(expected(arrays, name, **keywords), result.dtype))


def quickly(backend):
    """Run without the emulator's checks, on a GPU as always."""
    if not backend.is_emulated:
        return contextlib.nullcontext()
    from emulator import launch

    return launch.configured(fast=True)


# ---- traffic -------------------------------------------------------------------------------------


def test_products_stay_in_registers(cuda_backend, profiled):
    """Of the gradient in the modulation only the result is written, each value once."""
    arrays = operands(16, 16)
    source = "modulated_modulation_gradient"
    rows = profiled(source, lambda: gradient(cuda_backend, arrays, "modulation"))
    written = [row for _, row in rows if (row.space, row.access) == ("global", "write")]
    assert sum(row.bytes for row in written) == arrays[3].nbytes


def test_patches_stay_in_shared_memory(cuda_backend, profiled):
    """Of the gradient in the weights only partial sums are written; g is read once for every 64 rows."""
    arrays = operands(16, 64, image=(16, 32), make=noise)
    rows = profiled("modulated_weights_gradient", lambda: gradient(cuda_backend, arrays, "weights"))
    splits = 16 * 32 // 128
    written = [row for _, row in rows if (row.space, row.access) == ("global", "write")]
    assert sum(row.bytes for row in written) == splits * arrays[2].nbytes
    reads = read_by(rows, "load_outputs")
    assert sum(row.bytes for row in reads) == 3 * arrays[0].nbytes  # 16·9 rows are three tiles
    assert all(row.transactions == 4 * row.requests for row in reads)  # whole lines


def test_the_modulation_is_not_read_for_each_output(cuda_backend, profiled):
    """The gradient in the image applies it to sums over all outputs."""
    few, many = (
        sum(row.bytes for row in read_by(rows, "factors[q] ="))
        for rows in (
            profiled("modulated_input_gradient", lambda o=o: gradient(cuda_backend, operands(4, o), "input"))
            for o in (1, 40)
        )
    )
    assert few == many


def multiplied(profiled, backend, arrays, **keywords):
    """Return how many bytes of weights the products of the gradient in the image read."""
    rows = profiled("modulated_input_gradient", lambda: gradient(backend, arrays, "input", **keywords))
    return sum(row.bytes for row in read_by(rows, "&left[k]", space="shared"))


def test_few_blocks_see_a_fold(cuda_backend, profiled):
    """A pixel that two outputs read costs its block a second pass, for that tap alone."""
    arrays = operands(4, 4, image=(64, 128))
    once = multiplied(profiled, cuda_backend, arrays, mode="wrap")
    assert once < multiplied(profiled, cuda_backend, arrays, mode="reflect") <= 1.3 * once


def test_a_stride_divides_the_work(cuda_backend, profiled):
    x, w = noise((4, 64, 64)), noise((4, 4, 3, 3))
    work = []
    for stride in (1, 2):
        d, g = noise((3, 3, 64 // stride, 64 // stride)), noise((4, 64 // stride, 64 // stride))
        arrays = [g, x, w, d]
        work.append(multiplied(profiled, cuda_backend, arrays, mode="constant", stride=stride))
    assert work[1] <= work[0] / 4


# ---- how work is split ---------------------------------------------------------------------------


@EACH
def test_bits_do_not_depend_on_the_order_of_blocks(cuda_backend, instantiations, name):
    if not cuda_backend.is_emulated:
        pytest.skip("only the emulator can change the order")
    from emulator import launch

    arrays = operands(5, 7, batch=(4,), make=noise)
    results = []
    for order in ("forward", "backward", 5):
        with launch.configured(order=order):
            results.append(gradient(cuda_backend, arrays, name))
    assert_equal(results[1], results[0])
    assert_equal(results[2], results[0])


@pytest.mark.parametrize(
    ("channels", "filters", "image", "least"),
    [(3, 3, (64, 64), 32), (64, 64, (64, 64), 264), (1, 1, (8, 8), 1)],
)
def test_small_weights_fill_the_device(cuda_backend, instantiations, channels, filters, image, least):
    arrays = operands(channels, filters, image)
    with quickly(cuda_backend), emulator.recording() as launched:
        gradient(cuda_backend, arrays, "weights")
    (blocks,) = (launch.grid[0] for launch in launched)
    assert least <= blocks <= 528


def test_small_images_fill_the_device(cuda_backend, instantiations):
    """Samples that share the modulation are summed by several blocks."""
    arrays = operands(2, 2, (4, 4), batch=(40,))
    with emulator.recording() as launched:
        result = gradient(cuda_backend, arrays, "modulation")
    assert launched[0].grid[0] == 40  # one tile of slots, one of pixels
    assert_equal(result, expected(arrays, "modulation").astype(np.float32))


@pytest.mark.parametrize(
    ("sums", "pixels", "splits"),
    [
        *[
            ((1, 64, 3, 3, 64), 8 << 14, 58),
            ((1, 256, 3, 3, 256), 8 << 14, 3),
            ((1, 1, 1, 1, 1), 1 << 24, 528),
        ],
        *[
            ((1, 64, 3, 3, 64), 1 << 12, 32),
            ((64, 1, 3, 3, 1), 1 << 20, 8),
            ((1, 512, 3, 3, 512), 1 << 20, 1),
        ],
    ],
    ids=str,
)
def test_pixels_are_split_by_shapes_alone(cuda_backend, sums, pixels, splits):
    from cuvarconv._gpu.modulated_gradient import _pixel_splits

    assert _pixel_splits(sums, pixels, np.dtype(np.float32), (min(sums[1], 64), 64)) == splits


@pytest.mark.parametrize(
    ("channels", "groups", "entries", "expected"),
    [
        *[(64, 1, 1, (1, 1, 64)), (64, 1, 64, (1, 64, 1)), (3, 1, 1, (1, 1, 4)), (2, 1, 1, (1, 1, 2))],
        *[(64, 4, 1, (1, 1, 16)), (64, 4, 8, (4, 2, 8)), (64, 64, 64, (64, 1, 1)), (6, 2, 3, (3, 1, 2))],
        (200, 1, 1, (1, 1, 64)),
    ],
)
def test_tiles_are_full_of_channels_or_of_taps(cuda_backend, channels, groups, entries, expected):
    from cuvarconv._gpu.modulated_gradient import _slots

    slots = _slots(channels, groups, entries, taps=25)
    assert (slots.families, slots.entries, slots.lanes) == expected
    assert slots.channels == channels // entries


def test_long_sums_keep_their_accuracy(cuda_backend, instantiations):
    arrays = operands(1, 1, (180, 200), (1, 3), batch=(3,), make=noise)
    with quickly(cuda_backend):
        results = [gradient(cuda_backend, arrays, name) for name in ("weights", "modulation")]
    for name, result in zip(("weights", "modulation"), results, strict=True):
        assert_close(result, expected([a.astype(np.float64) for a in arrays], name))


# ---- how work is cut -----------------------------------------------------------------------------


@pytest.fixture(params=[528, 1], ids=["many blocks", "few blocks"])
def small(request, cuda_backend, instantiations, monkeypatch):
    """Shrink the workspace to some dozen elements and launches to some pixels; split sums, or do not."""
    from cuvarconv._gpu import _pieces, modulated_gradient

    limits = {"_SUMS": 200, "_REPACKED": 100, "_MOST_PIXELS": 70, "_FEWEST_PIXELS": 3}
    for name, value in (limits | {"_ENOUGH_BLOCKS": request.param}).items():
        monkeypatch.setattr(modulated_gradient, name, value)
    monkeypatch.setattr(_pieces, "_WORKSPACE", 1 << 10)


@EACH
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("double", ["input", "weights", "grad", "grad modulation"])
def test_operands_are_converted_piece_by_piece(cuda_backend, small, name, groups, double):
    types = dict.fromkeys(double.split(), np.float64)
    arrays = operands(4, 6, (4, 5), (2, 3), (2,), (2,), groups=groups, **types)
    check(cuda_backend, arrays, name, groups=groups)


@EACH
@pytest.mark.parametrize("groups", [1, 2])
def test_sums_are_formed_piece_by_piece(cuda_backend, small, name, groups):
    arrays = operands(4, 6, (4, 5), (2, 3), (2, 3), (2,), groups=groups)
    check(cuda_backend, arrays, name, groups=groups)


@pytest.mark.parametrize("axis", [1, 2])
def test_weights_are_copied_piece_by_piece(cuda_backend, small, axis):
    from cuvarconv._gpu.modulated_gradient import weights_parts

    w = cuda_backend.asarray(integers((10, 5, 1, 2)))
    parts = weights_parts(w, 2, np.dtype(np.float32), axis=axis)
    assert [first for first, _ in parts] == [0, 1, 2, 3, 4]
    assert all(part.nbytes <= 100 for _, part in parts)


@EACH
def test_samples_that_lie_apart(cuda_backend, small, name):
    """Two batch axes that cannot be walked as one."""
    arrays = operands(2, 1, (4, 5), (2, 3), batch=(3, 2))
    g, x, w, d = map(cuda_backend.asarray, arrays)
    apart = cuda_backend.asarray(np.swapaxes(arrays[1], 0, 1).copy()).swapaxes(0, 1)
    assert apart.strides != x.strides
    result = cuvarconv.modulated_correlate_vjp(g, apart, w, d, wrt=name)
    assert_equal(cuda_backend.to_numpy(result), expected(arrays, name).astype(np.float32))


@pytest.mark.parametrize("kept", [(1, 1), (1, 5), (4, 1)], ids=str)
@pytest.mark.parametrize("batch", [(2, 1), (1, 3)], ids=str)
def test_pixels_are_summed_piece_by_piece(cuda_backend, small, kept, batch):
    g, x, w, _ = operands(4, 6, (4, 5), (2, 3), batch=(2, 3))
    check(cuda_backend, [g, x, w, integers((2, 3, *batch, 2, *kept))], "modulation")


@EACH
@pytest.mark.parametrize("kept", [(), (1, 1)], ids=str)
def test_workspace(cuda_backend, instantiations, name, kept):
    """Mixed dtypes are converted piece by piece, within 64 MiB, sums included."""
    if not cuda_backend.is_emulated:
        pytest.skip("the emulator's memory pool counts its peak")
    cupy = cuda_backend.module
    height, width = 1 << 10, 1 << 11
    grad, x = (cupy.broadcast_to(cupy.ones((1, 1, 1), kind), (1, height, width)) for kind in ("f8", "f4"))
    w = cupy.ones((1, 1, 1, 3), np.float32)
    d = cupy.broadcast_to(cupy.ones((1, 3, 1, 1), np.float32), (1, 3, *(kept or (height, width))))
    pool = cupy.get_default_memory_pool()
    before = pool.peak = pool.used_bytes()
    with quickly(cuda_backend):
        result = cuvarconv.modulated_correlate_vjp(grad, x, w, d, wrt=name, mode="wrap")
    assert float(result.max().get()) == {"input": 3, "weights": height * width, "modulation": 1}[name] * (
        height * width if kept and name == "modulation" else 1
    )
    assert before < pool.peak <= before + (64 << 20) + result.nbytes
