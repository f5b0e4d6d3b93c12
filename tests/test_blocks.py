"""Where work is cut: tiles and launches of the kernels, blocks and chunks of taps on the host."""

import sys
import threading

import emulator
import numpy as np
import pytest
import reference
import reference_gradients
from modulated_forms import check as check_modulated
from modulated_forms import factors, weights
from test_correlate import MODES, SAME_SIZE, check, correlated, kernels
from test_host import CALLS, replace_blocks
from tolerances import BFLOAT16, assert_equal, integers, stored

import cuvarconv

# ---- tiles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("mode", MODES)
def test_tiles_inside_the_image_and_across_its_border(xp, mode, dtype):
    """Rows of several tiles and of whole vectors: those inside are read as vectors."""
    x = integers((2, 5, 400), dtype)
    check(xp, x, kernels((1, 3), (), dtype), mode=mode, cval=2.0)


@pytest.mark.parametrize("width", [129, 130, 131, 400])
@pytest.mark.parametrize("origin", [-1, 0, 1])
def test_tiles_that_fill_their_rows(xp, width, origin):
    """127 + 33 columns: no room in a tile's rows for pixels beside them."""
    x = integers((1, width + 280))
    check(xp, x, kernels((1, 33)), origin=(0, origin), mode="wrap")


@pytest.mark.parametrize("shape", [(1, 130), (3, 130), (1, 400), (2, 3, 33)], ids=str)
def test_tiles_that_end_with_the_row(xp, shape):
    check(xp, integers(shape), kernels((1, 3)), mode="valid")
    padded = np.zeros((*shape[:-1], shape[-1] + -shape[-1] % 4), np.float32)
    padded[..., : shape[-1]] = integers(shape)
    view = xp.asarray(padded)[..., : shape[-1]]
    result = xp.to_numpy(cuvarconv.correlate(view, xp.asarray(kernels((1, 3))), mode="valid"))
    assert_equal(result, reference.correlate(integers(shape), kernels((1, 3)), mode="valid").astype("f4"))


@pytest.mark.parametrize("size", [(4, 128), (8, 128), (16, 32), (8, 256), (32, 64)], ids=str)
def test_outputs_that_fill_their_blocks(xp, size):
    check(xp, integers((2, *size)), kernels((2, 2), (2, 1, 1)))


def test_same_window_with_few_and_many_planes(xp):
    for planes in (1, 16, 1):
        check(xp, integers((planes, 90, 9)), kernels((5, 3)), stride=(5, 1))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
@pytest.mark.parametrize("size", [(1, 4096), (4096, 1), (64, 64)], ids=str)
def test_half_precision_is_summed_in_single_across_rows(xp, dtype, size):
    result = correlated(xp, np.ones((1, 3), dtype), np.ones(size, dtype))
    assert_equal(result, np.full((1, 3), 4096, dtype))
    result = xp.to_numpy(
        cuvarconv.modulated_correlate(
            *(xp.asarray(np.ones(s, dtype)) for s in ((1, 1, 3), (1, 1, *size), size))
        )
    )
    assert_equal(result, np.full((1, 1, 3), 4096, dtype))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_half_precision_is_rounded_to_nearest(xp, dtype):
    """Whole numbers whose sums are exact in float32 but not in the result."""
    x, k = integers((9, 10), dtype, low=-100, high=101), integers((3, 3), dtype, 1, low=-100, high=101)
    check(xp, x, k)
    expected = reference.correlate(x, k)
    assert (stored(expected, dtype).astype(float) != expected).any()


@pytest.mark.parametrize(
    ("outputs", "size"), [(4, (16, 16)), (8, (8, 16)), (40, (8, 8)), (40, (8, 16))], ids=str
)
@pytest.mark.parametrize("groups", [1, 2])
def test_pixels_that_fill_their_blocks(xp, outputs, size, groups):
    x, w = integers((2, 2, *size)), weights(outputs, 2 // groups, (2, 1))
    check_modulated(xp, x, w, factors((2, 1)), groups=groups)


# ---- launches ------------------------------------------------------------------------------------


def test_batch_axes_in_order_take_one_launch(cuda_backend, instantiations):
    x = cuda_backend.asarray(np.ones((2, 3, 4, 5, 6), np.float32))
    k = cuda_backend.asarray(np.ones((3, 3), np.float32))
    w = cuda_backend.asarray(np.ones((2, 4, 3, 3), np.float32))
    with emulator.recording() as launches:
        cuvarconv.correlate(x, k)
    assert len(launches) == 1
    with emulator.recording() as launches:
        cuvarconv.modulated_correlate(x, w, k)
    assert len(launches) == 1


@pytest.mark.parametrize("varying", [(), (13, 1, 1), (6, 7)], ids=str)
def test_batches_beyond_one_launch(cuda_backend, instantiations, monkeypatch, varying):

    monkeypatch.setattr(sys.modules["cuvarconv._gpu.correlate"], "MOST_BLOCKS", 5)
    monkeypatch.setattr(sys.modules["cuvarconv._gpu.correlate"], "_MOST_PLANES", 5)
    monkeypatch.setattr(sys.modules["cuvarconv._gpu.modulated"], "MOST_BLOCKS", 5)
    with emulator.recording() as launches:
        check(cuda_backend, integers((13, 6, 7)), kernels((3, 3), varying))
        check_modulated(cuda_backend, integers((13, 2, 4, 5)), weights(3, 2), factors((3, 3)))
    assert len(launches) >= 3 + 3


@pytest.mark.parametrize("mode", MODES)
def test_long_axes_and_large_pieces(cuda_backend, instantiations, monkeypatch, mode):
    """Pieces of the output, cut as for large images, have their own windows and kernels."""

    monkeypatch.setattr(sys.modules["cuvarconv._gpu._pieces"], "_MOST_ENTRIES", 16)
    for dtype in (np.float32, np.float64):
        x = integers((3, 9, 21), dtype)
        shape = (3, 9, 21) if mode != "valid" else (3, 7, 18)
        check(cuda_backend, x, kernels((3, 4), shape), mode=mode, cval=2.0)
        check_modulated(
            cuda_backend, x[None], weights(2, 3, (3, 4)), factors((3, 4), (1, *shape)), mode=mode, cval=2.0
        )


def test_second_device(cuda_backend, instantiations):
    """Index tables, kept between calls, are those of the arrays' own device."""
    cupy = cuda_backend.module
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one device only")
    x, k = integers((6, 7)), kernels((3, 3), (6, 7))
    w, d = weights(2, 1), factors((3, 3), (6, 7))
    for device in (0, 1, 0):
        with cupy.cuda.Device(device):
            arrays = [cuda_backend.asarray(array) for array in (x, k, x[None], w, d)]
        with emulator.recording() as launches:
            results = cuvarconv.correlate(*arrays[:2]), cuvarconv.modulated_correlate(*arrays[2:])
        assert [launch.device for launch in launches] == [device, device]
        assert [result.device.id for result in results] == [device, device]
        assert_equal(results[0].get(), reference.correlate(x, k).astype(np.float32))
        assert_equal(results[1].get(), reference.modulated_correlate(x[None], w, d).astype(np.float32))


# ---- blocks on the host --------------------------------------------------------------------------


@pytest.fixture(params=[(3000, 200, 12, 0), (3000, 200, 12, 300), (30, 5, 256, 0), (5, 1, 1, 4)], ids=str)
def tiny_blocks(request, monkeypatch):
    """Cut small calls on the NumPy backend as large ones are cut: blocks, chunks of taps, halos."""

    def cut(module, **limits):
        for name, value in limits.items():
            monkeypatch.setattr(sys.modules[f"cuvarconv._cpu.{module}"], name, value)

    cut("_tiles", _SMALL=0, _TOGETHER=16)
    block, slab, terms, small = request.param
    cut("correlate", BLOCK=160, _LEAST=(1, 1), _AT_ONCE=0, _ROW_AT_ONCE=0 if block > 30 else 1 << 18)
    cut("spread", BLOCK=160, SHARED_BY=(4, 8))
    cut("unfold", BLOCK=160, _TILE=240, _LEAST=1)
    cut("correlate_gradient", BLOCK=160, _TILE=240)
    cut("_sums", SHARED_BY=(4, 8))
    cut("_columns", _BLOCK=block, MATRIX=block, _SLAB=slab, _PRODUCTS=slab, _TERMS=terms, _ALL_TERMS=terms)
    cut("_columns", _PACKED=1 << 10)
    cut("_columns", has_small_products=lambda: small > 0, _SMALL=small, _PIXELS=2)
    cut("modulated_gradient", _PIECE=slab)


WINDOWS = [
    {},
    {"stride": (2, 3)},
    {"dilation": (3, 2)},
    {"stride": (2, 1), "dilation": (1, 3), "origin": (1, -1)},
]


@pytest.mark.parametrize("keywords", WINDOWS, ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_blocks_have_their_own_pixels_taps_and_kernels(tiny_blocks, mode, keywords):
    x = integers((2, 12, 17))
    outputs = (2, -(-12 // keywords.get("stride", (1, 1))[0]), -(-17 // keywords.get("stride", (1, 1))[1]))
    keywords = {"mode": mode, "cval": 3.0, **keywords}
    k = kernels((5, 4), outputs)
    assert_equal(cuvarconv.correlate(x, k, **keywords), reference.correlate(x, k, **keywords).astype("f4"))
    w, d = weights(6, 2, (5, 4)), factors((5, 4), outputs)
    result = cuvarconv.modulated_correlate(x, w, d, **keywords)
    assert_equal(result, reference.modulated_correlate(x, w, d, **keywords).astype("f4"))


@pytest.mark.parametrize("keywords", WINDOWS, ids=str)
@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("varying", [(2, 1), (4,)], ids=["per sample", "per channel"])
def test_gradients_in_blocks(tiny_blocks, varying, mode, keywords):
    outputs = tuple(-(-n // step) for n, step in zip((7, 9), keywords.get("stride", (1, 1)), strict=True))
    x, w, d = integers((2, 4, 7, 9)), weights(6, 2, (4, 3)), factors((4, 3), (*varying, *outputs))
    g, keywords = integers((2, 6, *outputs), seed=5), {"mode": mode, "cval": 3.0, "groups": 2, **keywords}
    expected = reference_gradients.modulated_correlate_vjp(g, x, w, d, **keywords)
    for result, exact in zip(
        cuvarconv.modulated_correlate_vjp(g, x, w, d, **keywords), expected, strict=True
    ):
        assert_equal(result, exact.astype("f4"))


@pytest.mark.parametrize("keywords", WINDOWS, ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_windows_and_adjoints_in_blocks(tiny_blocks, mode, keywords):
    x, keywords = integers((2, 12, 17)), {"mode": mode, **keywords}
    outputs = tuple(-(-n // step) for n, step in zip((12, 17), keywords.get("stride", (1, 1)), strict=True))
    k, g = kernels((5, 4), (2, *outputs)), integers((2, *outputs), seed=5)
    assert_equal(cuvarconv.unfold(x, (5, 4), **keywords), reference.unfold(x, (5, 4), **keywords))
    expected = reference_gradients.correlate_vjp(g, x, k, **keywords)
    for result, exact in zip(cuvarconv.correlate_vjp(g, x, k, **keywords), expected, strict=True):
        assert_equal(result, exact.astype("f4"))


@pytest.mark.parametrize("where", ["input", "weights"])
def test_no_tap_is_skipped_in_any_block(tiny_blocks, where):
    x, k = np.zeros((5, 6), np.float32), np.zeros((3, 3), np.float32)
    (x if where == "input" else k)[1, 1] = np.nan
    assert_equal(cuvarconv.correlate(x, k), reference.correlate(x, k).astype(np.float32))


@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_no_more_workers_than_their_memory_allows(monkeypatch, function):
    threads = set()

    def watched(block):
        threads.add(threading.get_ident())
        block()

    replace_blocks(monkeypatch, function, watched)
    planned = sys.modules[f"cuvarconv._cpu.{'_columns' if function[0] == 'm' else 'correlate'}"]
    monkeypatch.setattr(planned, "WORKSPACE", 1)
    with cuvarconv.set_workers(16):
        getattr(cuvarconv, function)(*CALLS[function]())
    assert threads == {threading.get_ident()}
