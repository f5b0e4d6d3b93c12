"""Threads of the NumPy backend under exceptions, interrupts, forks and at exit."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_host import CALLS, blas_threads, replace_blocks
from tolerances import assert_equal

import cuvarconv


@pytest.fixture(autouse=True)
def interruptible():
    """Let Ctrl-C interrupt, also in new processes, where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
@pytest.mark.parametrize("in_main", [True, False], ids=["this thread", "another thread"])
@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_an_exception_inside_breaks_nothing(monkeypatch, function, in_main, error, workers):
    if workers == 1 and not in_main:
        pytest.skip("one worker is this thread")
    operands = CALLS[function]()
    expected = getattr(cuvarconv, function)(*operands)
    running, done, raised, before = [], [], threading.Event(), blas_threads()
    main = threading.get_ident()

    def failing(block):
        running.append(None)
        try:
            if (threading.get_ident() == main) == in_main and not raised.is_set():
                raised.set()
                raise error("planted")
            raised.wait(10)  # leave a block for the thread that is to fail
            time.sleep(0.05)
            done.append(None)
            block()
        finally:
            running.pop()

    with monkeypatch.context() as patch, cuvarconv.set_workers(workers):
        replace_blocks(patch, function, failing)
        with pytest.raises(error, match="planted"):
            getattr(cuvarconv, function)(*operands)
        assert not running  # no thread still writes
        assert len(done) <= workers  # all stop after the block at hand
    assert blas_threads() == before
    with cuvarconv.set_workers(workers):
        assert_equal(getattr(cuvarconv, function)(*operands), expected)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system has no pthread_kill")
@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_ctrl_c_while_waiting_for_the_other_threads(monkeypatch, function):
    running, sent, main = [], threading.Event(), threading.main_thread().ident

    def slow(block):
        running.append(None)
        if threading.get_ident() == main:
            sent.wait(10)  # leave a block for another thread
        elif not sent.is_set():
            sent.set()
            time.sleep(0.3)  # by then the main thread waits
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.1)
        block()
        running.pop()

    replace_blocks(monkeypatch, function, slow)
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
