"""Memory of temporary arrays is used again where the environment says to give it back."""

import os
import subprocess
import sys

import pytest

COUNT = """
import resource
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from cuvarconv._heap import recycled_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.empty(1 << 20, np.uint8)[:] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def inside():
    with recycled_memory():
        with recycled_memory():
            pages()
        return pages()

def counted():
    return pages(), inside(), pages()

print(*counted(), *ThreadPoolExecutor(1).submit(counted).result())
"""


def needs_glibc():
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        pytest.skip("needs glibc")


@pytest.mark.parametrize("threads", ["main", "other"])
def test_pages_are_used_again_inside_only(threads):
    needs_glibc()
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True, check=True
    )
    numbers = list(map(int, done.stdout.split()))
    before, inside, after = numbers[:3] if threads == "main" else numbers[3:]
    assert inside < 100
    assert before > 5000
    assert after > 5000


def test_nothing_is_set_where_the_environment_says_nothing(monkeypatch):
    from cuvarconv import _heap

    def refuse(*thresholds):
        raise AssertionError(thresholds)

    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setattr(_heap, "_set", refuse)
    _heap._thresholds.cache_clear()
    with _heap.recycled_memory():
        pass
    _heap._thresholds.cache_clear()


@pytest.mark.parametrize("error", [AttributeError, ValueError, OSError])
def test_other_c_libraries_are_left_alone(monkeypatch, error):
    """Without the function, with another list of names, and musl's, which has the name but no value."""
    from cuvarconv import _heap

    def confstr(name):
        raise error(name)

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setattr(os, "confstr", confstr, raising=False)
    caches = _heap._thresholds, _heap._mallopt
    for cache in caches:
        cache.cache_clear()
    with _heap.recycled_memory():
        assert _heap._thresholds() is None
    for cache in caches:
        cache.cache_clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_not_inside():
    """Also where another thread held the lock."""
    needs_glibc()
    code = """
import os
from cuvarconv import _heap

def used():
    with _heap.recycled_memory():
        return _heap._inside

with _heap.recycled_memory():
    _heap._lock.acquire()
    child = os.fork()
    if child == 0:
        os._exit(0 if used() == 1 and _heap._inside == 0 else 1)
    _heap._lock.release()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), used())
"""
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.split() == ["0", "1"]
