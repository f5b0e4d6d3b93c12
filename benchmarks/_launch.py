"""What a call costs on a GPU before any work is done: compiling, loading, launching."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _measure import Gpu, random
from _report import OURS, Row

import cuvarconv

OPERANDS = {
    "correlate": ((16, 16), (3, 3, 16, 16)),
    "modulated_correlate": ((4, 16, 16), (4, 4, 3, 3), (3, 3, 16, 16)),
    "local_correlate": ((4, 16, 16), (3, 3, 16, 16, 4, 4)),
    "spread": ((16, 16), (3, 3, 16, 16)),
}
FIRST_CALL = """
import sys, time
import cupy
import cuvarconv
operands = [cupy.ones(shape, cupy.float32) for shape in {shapes}]
operands[0].sum().get()
start = time.perf_counter()
cuvarconv.{function}(*operands)
cupy.cuda.runtime.deviceSynchronize()
print(time.perf_counter() - start)
"""


def launch_rows(machine: Gpu, given: argparse.Namespace, function: str) -> Iterator[Row]:
    """Measure the first call, with an empty and a filled disk cache, and the launch overhead."""
    compiled, loaded = first_calls(function)
    yield Row(f"{function}, first call", "empty disk cache", compiled, 1, False, " s")
    yield Row(f"{function}, first call", "filled disk cache", loaded, 0.1, False, " s")
    yield overhead(machine, given, function)


def first_calls(function: str) -> tuple[float, float]:
    """Return the seconds of the first call in two fresh processes that share a new disk cache."""
    program = FIRST_CALL.format(shapes=OPERANDS[function], function=function)
    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "CUPY_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            seconds.append(float(done.stdout))
    return seconds[0], seconds[1]


def overhead(machine: Gpu, given: argparse.Namespace, function: str) -> Row:
    """Compare the host time of a small call with that of launching an empty kernel."""
    import cupy

    operands = [machine.ours(random(1, *shape)) for shape in OPERANDS[function]]
    bare = cupy.RawKernel('extern "C" __global__ void empty(float* x, int n) {}', "empty")
    arguments = (operands[0], np.int32(1))
    call = getattr(cuvarconv, function)
    sides: dict[str, Callable[[], Any]] = {
        OURS: lambda: call(*operands),
        "bare launch": lambda: bare((1,), (64,), arguments),
    }
    repeats, number = given.repeats, 20 if given.quick else 500
    seconds = {}
    for name, side in sides.items():
        times = [_host_seconds(side, number) for _ in range(repeats + 1)][1:]
        seconds[name] = {"median": statistics.median(times), "minimum": min(times)}
    extra = 1e6 * (seconds[OURS]["median"] - seconds["bare launch"]["median"])
    return Row(f"{function}, small call", "bare RawKernel", extra, 30, False, " µs", seconds)


def _host_seconds(function: Callable[[], Any], number: int) -> float:
    import cupy

    cupy.cuda.runtime.deviceSynchronize()
    start = time.perf_counter()
    for _ in range(number):
        function()
    seconds = (time.perf_counter() - start) / number
    cupy.cuda.runtime.deviceSynchronize()
    return seconds
