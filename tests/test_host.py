"""The NumPy backend as a guest in its process: memory and threads."""

import math
import re
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tolerances import integers, noise

import cuvarconv

LIMIT = 64 << 20  # bytes beyond inputs and output
MIB = 1 << 20


def peak_beyond(output, call):
    """Return the bytes that a call allocates at its worst, on top of its output."""
    call_bytes = math.prod(output) * 4
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] - call_bytes
    finally:
        tracemalloc.stop()


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def small(*shape):
    """Return a view of one number: weights of any shape without their memory."""
    return np.broadcast_to(np.float32(1), shape)


# Name: input, weights, keywords.
CORRELATE = {
    "large images": (zeros(3, 2048, 2048), small(3, 3, 2048, 2048), {}),
    "many planes": (zeros(1 << 18, 4, 4), small(3, 3), {}),
    "many tiny planes": (zeros(1 << 21, 1, 1), small(3, 3), {}),
    "long rows": (zeros(1, 1 << 23), small(1, 3), {"mode": "wrap"}),
    "long columns": (zeros(1 << 23, 1), small(3, 1), {"mode": "wrap"}),
    "one window wider than memory": (zeros(1, 4), small(1, 1 << 15), {"dilation": 1 << 12}),
    "tall window": (zeros(4, 1 << 15), small(1 << 8, 1), {"dilation": 1 << 20}),
    "huge window": (zeros(256, 256), small(257, 129), {"mode": ("mirror", "wrap")}),
    "huge dilation": (zeros(1024, 1024), small(3, 3), {"dilation": 1 << 40, "mode": "nearest"}),
    "huge dilation of planes": (zeros(4096, 16, 16), small(5, 5), {"dilation": 1 << 30}),
    "huge stride": (zeros(4096, 4096), small(3, 3), {"stride": 1000}),
    "channels last": (zeros(512, 512, 16), small(3, 3), {"axes": (0, 1)}),
    "flipped image": (zeros(2048, 2048)[::-1, ::-1].T, small(5, 5), {}),
    "complex, dilated": (zeros(1024, 1024, dtype=np.complex128), small(5, 5), {"dilation": 300}),
    "long rows, strided": (zeros(1, 1 << 22), small(1, 16), {"stride": (1, 16)}),
    "integers": (zeros(2048, 2048, dtype=np.int32), small(5, 5), {}),
    "double precision weights": (zeros(2048, 1024), small(5, 5).astype(np.float64), {}),
    "complex weights": (zeros(1024, 1024), small(5, 5).astype(np.complex128), {}),
}


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("name", CORRELATE)
def test_correlate_needs_little_memory(name, workers):
    x, k, keywords = CORRELATE[name]
    shape = cuvarconv.correlate(x, k[:1, :1], **keywords).shape  # also fills caches
    with cuvarconv.set_workers(workers):
        used = peak_beyond(shape, lambda: cuvarconv.correlate(x, k, **keywords))
    result = np.result_type(x, np.complex64) if "c" in (x.dtype.kind, k.dtype.kind) else np.float32
    used -= math.prod(shape) * (np.dtype(result).itemsize - 4)
    assert used <= LIMIT, f"{used / MIB:.0f} MiB"


# Name: input, weights, modulation, keywords.
MODULATED = {
    "large images": (zeros(3, 1024, 1024), small(4, 3, 3, 3), small(3, 3, 1024, 1024), {}),
    "usual": (zeros(2, 64, 128, 128), small(64, 64, 3, 3), small(3, 3, 128, 128), {}),
    "many inputs": (zeros(1 << 18, 4, 4), small(1, 1 << 18, 3, 3), small(3, 3), {}),
    "many inputs, larger": (zeros(1 << 14, 16, 16), small(2, 1 << 14, 3, 3), small(3, 3), {}),
    "many outputs": (zeros(1, 8, 8), small(1 << 18, 1, 3, 3), small(3, 3), {}),
    "many groups": (zeros(1 << 16, 8, 8), small(1 << 16, 1, 3, 3), small(3, 3), {"groups": 1 << 16}),
    "large weights": (zeros(1 << 11, 4, 4), small(1 << 11, 1 << 11, 3, 3), small(3, 3), {}),
    "many samples": (zeros(1 << 15, 2, 4, 4), small(2, 2, 3, 3), small(3, 3), {}),
    "long rows": (zeros(1, 1, 1 << 21), small(1, 1, 1, 3), small(1, 3), {"mode": "wrap"}),
    "long columns": (zeros(1, 1 << 21, 1), small(1, 1, 3, 1), small(3, 1), {"mode": "wrap"}),
    "huge window": (zeros(2, 64, 64), small(2, 2, 129, 65), small(129, 65), {"mode": "wrap"}),
    "wide window": (zeros(16, 1, 64), small(2, 16, 1, 4096), small(1, 4096), {"mode": "wrap"}),
    "huge dilation": (zeros(16, 256, 256), small(8, 16, 3, 3), small(3, 3), {"dilation": 1 << 40}),
    "huge stride": (zeros(2, 2048, 2048), small(2, 2, 3, 3), small(3, 3), {"stride": 500}),
    "straddling groups": (
        *(zeros(384, 64, 64), small(128, 3, 3, 3), small(3, 3, 96, 64, 64)),
        {"groups": 128},
    ),
}


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("name", MODULATED)
def test_modulated_correlate_needs_little_memory(name, workers):
    *operands, keywords = MODULATED[name]
    x, w, _ = operands
    images = cuvarconv.correlate(x, small(1, 1), stride=keywords.get("stride", 1)).shape
    shape = (*images[:-3], len(w), *images[-2:])
    tiny = zeros(1, 1, 1), zeros(1, 1, 1, 1), zeros(1, 1)
    cuvarconv.modulated_correlate(*tiny)  # loads threadpoolctl
    with cuvarconv.set_workers(workers):
        used = peak_beyond(shape, lambda: cuvarconv.modulated_correlate(*operands, **keywords))
    assert used <= LIMIT, f"{used / MIB:.0f} MiB"


def worst_block(monkeypatch, module, call):
    """Return the bytes of the largest block times the workers that may be inside, as if all met there."""
    peaks = [0]

    def one_by_one(function, blocks, *, most_workers):
        def measured(block):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            function(block)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)

        for_each(measured, blocks, most_workers=1)
        peaks.append(max(peaks) * min(cuvarconv.get_workers(), len(blocks), most_workers))

    for_each = module.for_each
    monkeypatch.setattr(module, "for_each", one_by_one)
    peak_beyond((0,), call)
    return peaks[-1]


@pytest.mark.parametrize("workers", [4, 16, 64])
@pytest.mark.parametrize("columns", [4, 7])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("keywords", [{}, {"dilation": 400, "mode": "wrap"}], ids=str)
def test_blocks_of_all_workers_need_little_memory(monkeypatch, keywords, dtype, columns, workers):
    x, k = zeros(1000, 1024, dtype=dtype), small(1, columns, 1000, 1024)
    calls = {
        "correlate": lambda: cuvarconv.correlate(x, k, **keywords),
        "unfold": lambda: cuvarconv.unfold(x, (1, columns), **keywords),
    }
    with cuvarconv.set_workers(workers):
        for name, call in calls.items():
            used = worst_block(monkeypatch, sys.modules[f"cuvarconv._cpu.{name}"], call)
            assert 0 < used <= LIMIT, f"{name}: {used / MIB:.0f} MiB"


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex128", "int32"])
@pytest.mark.parametrize("output", [(1 << 14, 14, 64), (1 << 10, 8, 1000)], ids=str)
@pytest.mark.parametrize("size", [3, 21])
def test_blocks_of_many_outputs_need_little_memory(monkeypatch, size, output, dtype):
    """Sums in another dtype, products of several runs of taps, and pieces of large weights."""
    operands = small(1, *output[1:]), small(output[0], 1, size, size), small(size, size)
    x, w, d = (
        np.broadcast_to(operand[(0,) * operand.ndim].astype(dtype), operand.shape) for operand in operands
    )
    result = np.empty(output, dtype)
    cuvarconv.modulated_correlate(x[:, :1, :1], w[:1], d)  # loads threadpoolctl
    with cuvarconv.set_workers(16):
        module = sys.modules["cuvarconv._cpu.modulated"]
        used = worst_block(monkeypatch, module, lambda: cuvarconv.modulated_correlate(x, w, d, result))
    assert 0 < used <= LIMIT, f"{used / MIB:.0f} MiB"


def test_an_overlapping_output_costs_one_copy():
    x = zeros(2048, 2048)
    used = peak_beyond((0,), lambda: cuvarconv.correlate(x, small(3, 3), x))
    assert x.nbytes <= used <= x.nbytes + LIMIT


def test_the_probe_sees_memory():
    assert peak_beyond((0,), lambda: zeros(LIMIT + MIB, dtype=np.uint8)) > LIMIT


# ---- workers -------------------------------------------------------------------------------------

CALLS = {
    "correlate": lambda: (noise((6, 300, 400)), noise((3, 3, 300, 400), seed=1)),
    "convolve": lambda: (noise((6, 300, 400), np.float64), noise((5, 4), seed=1)),
    "modulated_correlate": lambda: (
        *(noise((2, 16, 120, 130)), noise((24, 16, 3, 3), seed=1)),
        noise((3, 3, 120, 130), seed=2),
    ),
}


@pytest.mark.parametrize("function", CALLS)
def test_the_same_bits_for_any_number_of_workers(function):
    operands = CALLS[function]()
    results = []
    for workers in (1, 2, 3, 5, 2, 1):
        with cuvarconv.set_workers(workers):
            results.append(getattr(cuvarconv, function)(*operands).tobytes())
    assert len(set(results)) == 1


# Name: image, window, keywords.  One row of taps is too much to be read at once, in blocks of some sizes.
CUT_ROWS = {
    "windows wider than the image": ((1000, 400), (1, 1500), {"mode": "wrap"}),
    "strides": ((1600, 1600), (3, 7), {"mode": "mirror", "stride": (4, 5)}),
    "dilation": ((200, 33, 35), (5, 4), {"dilation": (3, 50)}),
    "tiny planes": ((5000, 3, 7), (31, 31), {"mode": "constant"}),
}


@pytest.mark.parametrize("name", CUT_ROWS)
def test_the_same_bits_where_rows_of_taps_are_cut(name):
    shape, window, keywords = CUT_ROWS[name]
    x, k = noise(shape), noise(window, seed=1)
    results = set()
    for workers in (1, 2, 3, 5, 16):
        with cuvarconv.set_workers(workers):
            results.add(cuvarconv.correlate(x, k, **keywords).tobytes())
    assert len(results) == 1


def replace_blocks(monkeypatch, function, run):
    """Let `run(block)` run every block of a function instead of the block itself."""
    module = sys.modules[f"cuvarconv._cpu.{'modulated' if function[0] == 'm' else 'correlate'}"]
    for_each = module.for_each

    def replaced(block, *arguments, **keywords):
        for_each(lambda where: run(lambda: block(where)), *arguments, **keywords)

    monkeypatch.setattr(module, "for_each", replaced)


@pytest.mark.parametrize("function", CALLS)
def test_workers_share_the_work(monkeypatch, function):
    """Blocks run in as many threads as there are workers, and in no more."""
    threads, several = set(), threading.Event()

    def watched(block):
        threads.add(threading.get_ident())
        if len(threads) > 1:
            several.set()
        if cuvarconv.get_workers() > 1:  # one thread alone might take all blocks
            several.wait(10)
        block()

    replace_blocks(monkeypatch, function, watched)
    operands = CALLS[function]()
    for workers in (1, 2, 3):
        threads.clear()
        several.clear()
        with cuvarconv.set_workers(workers):
            getattr(cuvarconv, function)(*operands)
        assert threading.get_ident() in threads
        assert len(threads) <= workers
        assert workers == 1 or len(threads) > 1


def test_set_workers_nests_and_ends():
    before = cuvarconv.get_workers()
    with cuvarconv.set_workers(3):
        with cuvarconv.set_workers(np.int64(2)):
            assert cuvarconv.get_workers() == 2
        assert cuvarconv.get_workers() == 3
        with pytest.raises(KeyError), cuvarconv.set_workers(7):
            raise KeyError
        assert cuvarconv.get_workers() == 3
    assert cuvarconv.get_workers() == before


def test_set_workers_holds_for_its_own_thread():
    with cuvarconv.set_workers(7), ThreadPoolExecutor(1) as pool:
        assert pool.submit(cuvarconv.get_workers).result() != 7


@pytest.mark.parametrize("function", CALLS)
def test_calls_from_several_threads(function):
    operands = CALLS[function]()
    expected = getattr(cuvarconv, function)(*operands)
    start = threading.Barrier(6)

    def call(number):
        start.wait()
        with cuvarconv.set_workers(number % 3 + 1):
            return getattr(cuvarconv, function)(*operands).tobytes()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(call, range(6))) == {expected.tobytes()}


def blas_threads():
    import threadpoolctl

    return [info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]


def test_blas_keeps_its_threads():
    before = blas_threads()
    assert before
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: cuvarconv.modulated_correlate(*CALLS["modulated_correlate"]()), range(6)))
    assert blas_threads() == before


def test_blas_stays_in_its_thread_while_workers_multiply(monkeypatch):
    """All BLAS libraries, of which the list is made anew: it lacks what was loaded after the first call."""
    module, seen = sys.modules["cuvarconv._cpu.modulated"], []
    multiply = module.multiply
    sys.modules["cuvarconv._cpu._workers"]._blas_libraries.cache_clear()

    def watched(*arguments):
        seen.extend(blas_threads())
        return multiply(*arguments)

    monkeypatch.setattr(module, "multiply", watched)
    cuvarconv.modulated_correlate(*CALLS["modulated_correlate"]())
    assert set(seen) == {1}


def test_set_workers_checks_at_once():
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        cuvarconv.set_workers(0)


@pytest.mark.parametrize("step", [np.array(2), 1 << 62], ids=["0-d array", "beyond any image"])
def test_steps_of_any_kind_and_size(step):
    x, k = np.arange(12.0).reshape(3, 4), np.ones((1, 1))
    stride = min(int(step), 1 << 30)
    np.testing.assert_array_equal(cuvarconv.correlate(x, k, stride=step), x[::stride, ::stride])
    np.testing.assert_array_equal(cuvarconv.correlate(x, k, dilation=step), x)


def test_distant_taps_of_large_images():
    """All of their pixels are looked up, in many pieces."""
    x, k, step = integers((3, 300, 400)), integers((2, 3), seed=1), (1 << 20) + 1
    rows = (np.arange(300)[:, None] + step * np.arange(-1, 1)) % 300
    columns = (np.arange(400)[:, None] + step * np.arange(-1, 2)) % 400
    expected = sum(k[m, n] * x[:, rows[:, m]][..., columns[:, n]] for m, n in np.ndindex(k.shape))
    result = cuvarconv.correlate(x, k, mode="wrap", dilation=step)
    np.testing.assert_array_equal(result, expected)
    each = cuvarconv.modulated_correlate(
        x[:, None], k[None, None], np.ones((2, 3)), mode="wrap", dilation=step
    )
    np.testing.assert_array_equal(each[:, 0], expected)


@pytest.mark.parametrize("dtype", ["int16", "bool"])
def test_large_results_of_integers(dtype):
    x = integers((600, 700)).astype(dtype)
    np.testing.assert_array_equal(cuvarconv.correlate(x, [[1]]), x)


def test_output_whose_elements_share_memory_is_refused():
    memory = np.zeros(4)
    output = np.lib.stride_tricks.as_strided(memory, (3, 4), (0, 8))
    with pytest.raises(ValueError, match=r"output: elements share memory \(strides \(0, 8\)\)"):
        cuvarconv.correlate(np.ones((3, 4)), [[1.0]], output)
    assert not memory.any()


@pytest.mark.parametrize(
    ("workers", "error", "says"),
    [
        (0, ValueError, "workers: expected at least 1, got 0"),
        (-3, ValueError, "workers: expected at least 1, got -3"),
        (1.5, TypeError, "workers: expected an int, got 1.5"),
        (None, TypeError, "workers: expected an int, got None"),
    ],
)
def test_wrong_number_of_workers(workers, error, says):
    before = cuvarconv.get_workers()
    with pytest.raises(error, match=f"^{re.escape(says)}$"), cuvarconv.set_workers(workers):
        pass
    assert cuvarconv.get_workers() == before
