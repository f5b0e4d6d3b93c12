"""The NumPy backend as a guest in its process: memory, threads, interrupts and forks."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tolerances import assert_equal, noise

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


@pytest.mark.parametrize("function", CALLS)
def test_workers_share_the_work(monkeypatch, function):
    """Blocks run in as many threads as there are workers, and in no more."""
    module = sys.modules[f"cuvarconv._cpu.{'modulated' if function[0] == 'm' else 'correlate'}"]
    threads, several, store = set(), threading.Event(), module.store

    def watched(*arguments):
        threads.add(threading.get_ident())
        if len(threads) > 1:
            several.set()
        if cuvarconv.get_workers() > 1:  # one thread alone might take all blocks
            several.wait(10)
        return store(*arguments)

    monkeypatch.setattr(module, "store", watched)
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


# ---- interrupts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
@pytest.mark.parametrize("in_main", [True, False], ids=["this thread", "another thread"])
@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_an_exception_inside_breaks_nothing(monkeypatch, function, in_main, error, workers):
    if workers == 1 and not in_main:
        pytest.skip("one worker is this thread")
    operands = CALLS[function]()
    expected = getattr(cuvarconv, function)(*operands)
    module = sys.modules[f"cuvarconv._cpu.{'modulated' if function[0] == 'm' else 'correlate'}"]
    running, stored, raised, before = [], [], threading.Event(), blas_threads()
    main, store = threading.get_ident(), module.store

    def failing(*arguments):
        running.append(None)
        try:
            if (threading.get_ident() == main) == in_main and not raised.is_set():
                raised.set()
                raise error("planted")
            raised.wait(10)  # leave a block for the thread that is to fail
            time.sleep(0.05)
            stored.append(None)
            store(*arguments)
        finally:
            running.pop()

    with monkeypatch.context() as patch, cuvarconv.set_workers(workers):
        patch.setattr(module, "store", failing)
        with pytest.raises(error, match="planted"):
            getattr(cuvarconv, function)(*operands)
        assert not running  # no thread still writes
        assert len(stored) <= workers  # all stop after the block at hand
    assert blas_threads() == before
    with cuvarconv.set_workers(workers):
        assert_equal(getattr(cuvarconv, function)(*operands), expected)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system has no pthread_kill")
@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_ctrl_c_while_waiting_for_the_other_threads(monkeypatch, function):
    module = sys.modules[f"cuvarconv._cpu.{'modulated' if function[0] == 'm' else 'correlate'}"]
    running, sent = [], threading.Event()
    store, main = module.store, threading.main_thread().ident

    def slow(*arguments):
        running.append(None)
        if threading.get_ident() == main:
            sent.wait(10)  # leave a block for another thread
        elif not sent.is_set():
            sent.set()
            time.sleep(0.3)  # by then the main thread waits
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.1)
        store(*arguments)
        running.pop()

    monkeypatch.setattr(module, "store", slow)
    with cuvarconv.set_workers(3), pytest.raises(KeyboardInterrupt):
        getattr(cuvarconv, function)(*CALLS[function]())
    assert sent.is_set()
    assert not running


@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_no_more_threads_to_be_had(monkeypatch, function):
    operands = CALLS[function]()
    expected = getattr(cuvarconv, function)(*operands)

    def refuse(*arguments, **keywords):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    with cuvarconv.set_workers(3):
        assert_equal(getattr(cuvarconv, function)(*operands), expected)


def python(code, *arguments):
    """Run code in a fresh interpreter, warnings as errors; its standard output."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 0, process.stderr
    return process.stdout


SETUP = """
import os, signal, sys, threading, time
import numpy as np
import cuvarconv, threadpoolctl
x, w, d = (np.ones(shape, np.float32) for shape in ((32, 256, 256), (32, 32, 5, 5), (5, 5, 256, 256)))
output = np.empty_like(x)
calls = {
    "correlate": lambda: cuvarconv.correlate(x, d, output),
    "modulated_correlate": lambda: cuvarconv.modulated_correlate(x, w, d, output),
}
call = calls[sys.argv[1]]
blas = lambda: [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
before = blas()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill")
@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_ctrl_c(function):
    code = (
        SETUP
        + """
for delay in (0.01, 0.05, 0.1, 0.2):
    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        while True:
            with cuvarconv.set_workers(3):
                call()
    except KeyboardInterrupt:
        output[...] = 0
    time.sleep(0.05)
    assert not output.any(), "a thread still writes"
    assert blas() == before
    expected = {"correlate": 25, "modulated_correlate": 800}[sys.argv[1]]
    assert (call() == expected).all()
print("fine")
"""
    )
    assert python(code, function) == "fine\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "during a call"])
def test_fork(function, busy):
    """A child process makes its own threads, also where the parent was inside of a call."""
    code = (
        SETUP.replace("import os,", "import warnings; warnings.simplefilter('ignore'); import os,")
        + """
with cuvarconv.set_workers(2):
    expected = call()
    if sys.argv[2] == "True":
        stop = threading.Event()
        def work():
            with cuvarconv.set_workers(2):
                while not stop.is_set():
                    call()
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.1)
    for _ in range(5):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            right = (call() == expected).all() and blas() == before
            right = right and any(t.name.startswith("cuvarconv") for t in threading.enumerate())
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0, "the child hung or differs"
        time.sleep(0.013)
    if sys.argv[2] == "True":
        stop.set()
        thread.join()
    assert (call() == expected).all()
    assert blas() == before
print("fine")
"""
    )
    assert python(code, function, str(busy)) == "fine\n"


@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_calls_at_exit(function):
    code = (
        SETUP
        + """
import atexit
def late():
    with cuvarconv.set_workers(3):
        print(call().shape)
atexit.register(late)
"""
    )
    assert python(code, function) == "(32, 256, 256)\n"


def test_set_workers_checks_at_once():
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        cuvarconv.set_workers(0)


@pytest.mark.parametrize("step", [np.array(2), 1 << 62], ids=["0-d array", "beyond any image"])
def test_steps_of_any_kind_and_size(step):
    x, k = np.arange(12.0).reshape(3, 4), np.ones((1, 1))
    stride = min(int(step), 1 << 30)
    np.testing.assert_array_equal(cuvarconv.correlate(x, k, stride=step), x[::stride, ::stride])
    np.testing.assert_array_equal(cuvarconv.correlate(x, k, dilation=step), x)


def test_output_whose_elements_share_memory_is_refused():
    memory = np.zeros(4)
    output = np.lib.stride_tricks.as_strided(memory, (3, 4), (0, 8))
    with pytest.raises(ValueError, match=r"output: elements share memory \(strides \(0, 8\)\)"):
        cuvarconv.correlate(np.ones((3, 4)), [[1.0]], output)
    assert not memory.any()
