"""What the benchmarks share: devices, medians of interleaved calls, peak memory."""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from _report import OURS, RESULTS, Row, report
from _roofline import Ceilings, Cost

import cuvarconv
from cuvarconv._demo.measure import interleaved_seconds, peak_extra_bytes


class Cpu:
    """Host arrays, timed by the clock; both sides have the same number of threads."""

    kind = "cpu"

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.name = f"{_processor()}, {threads} threads"

    @contextmanager
    def entered(self) -> Iterator[None]:
        import torch

        torch.set_num_threads(self.threads)
        with cuvarconv.set_workers(self.threads), torch.inference_mode():
            yield

    def ours(self, array: np.ndarray) -> Any:
        return array

    def torchs(self, array: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(array)

    def host(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def time(
        self, sides: Mapping[str, Callable[[], Any]], repeats: int, number: int = 1
    ) -> dict[str, list[float]]:
        looped = {name: _loop(function, number) for name, function in sides.items()}
        seconds = interleaved_seconds(looped, repeats)
        return {name: [value / number for value in values] for name, values in seconds.items()}

    def memory(self, function: Callable[[], Any]) -> int | None:
        return peak_extra_bytes(function)


class Gpu:
    """CuPy arrays and CUDA tensors, timed by events on the stream that both libraries use."""

    kind = "gpu"
    threads = 1

    def __init__(self) -> None:
        import cupy
        import torch

        torch.cuda.init()  # what `time` uses of it does not do so
        name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"]
        self.name = name.decode() if isinstance(name, bytes) else name
        self._cupy = cupy

    @contextmanager
    def entered(self) -> Iterator[None]:
        import torch

        with torch.inference_mode():
            yield

    def ours(self, array: np.ndarray) -> Any:
        return self._cupy.asarray(array)

    def torchs(self, array: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(array).cuda()

    def host(self, array: Any) -> np.ndarray:
        return array.get() if hasattr(array, "get") else array.float().cpu().numpy()

    def time(
        self, sides: Mapping[str, Callable[[], Any]], repeats: int, number: int = 1
    ) -> dict[str, list[float]]:
        """Queue the calls behind a pause, so that the device never waits for the host."""
        import torch

        cuda, number = self._cupy.cuda, 10 * number
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, function in sides.items():
                function()
                start, end = cuda.Event(), cuda.Event()
                torch.cuda._sleep(20_000_000)  # cycles, about 10 ms
                start.record(cuda.Stream.null)
                _loop(function, number)()
                end.record(cuda.Stream.null)
                end.synchronize()
                seconds[name].append(1e-3 * cuda.get_elapsed_time(start, end) / number)
        return seconds

    def memory(self, function: Callable[[], Any]) -> int | None:
        """Return how far both libraries' pools grow: they keep the most that a call needed.

        The driver hands out pages of 2 MiB.
        """
        import torch

        self._cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()
        self._cupy.cuda.runtime.deviceSynchronize()
        before = self._cupy.cuda.runtime.memGetInfo()[0]
        function()
        self._cupy.cuda.runtime.deviceSynchronize()
        return max(0, before - self._cupy.cuda.runtime.memGetInfo()[0])


Device = Cpu | Gpu


def _loop(function: Callable[[], Any], number: int) -> Callable[[], Any]:
    if number == 1:
        return function

    def looped() -> None:
        for _ in range(number):
            function()

    return looped


def options(description: str | None) -> argparse.Namespace:
    """Read the command line that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--quick", action="store_true", help="small work, to see that it runs")
    parser.add_argument("--repeats", type=int, default=9, help="timed calls, at least 7")
    parser.add_argument("--threads", type=int, default=cuvarconv.get_workers(), help="on the host")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of results")
    given = parser.parse_args()
    if given.repeats < 7 and not given.quick:
        parser.error("--repeats: expected at least 7")
    return given


def device(given: argparse.Namespace) -> Device:
    """Return the device asked for; by default a GPU where CuPy finds one."""
    if given.device == "cpu" or (given.device == "auto" and not _gpu_found()):
        return Cpu(given.threads)
    return Gpu()


def _gpu_found() -> bool:
    try:
        import cupy

        return cupy.cuda.runtime.getDeviceCount() > 0
    except Exception:
        return False


@dataclass(frozen=True)
class Measured:
    """What `compare` found: times and peak extra memory of each side."""

    machine: Device
    seconds: dict[str, dict[str, float]]
    memory: dict[str, int | None]

    @cached_property
    def ceilings(self) -> Ceilings:
        """What the device reaches in a copy and in a matrix product at the time of this comparison."""
        return Ceilings.measure(self.machine, repeats=5)

    def row(
        self,
        work: str,
        other: str,
        target: float | None = None,
        *,
        ours: str = OURS,
        against: str = "",
        at_least: bool = True,
        note: str = "",
        cost: Cost | None = None,
    ) -> Row:
        """Compare two sides: how many times faster ours is, or else how many times the other's time.

        With a cost, the row also says where our time stands beside the machine's ceilings.
        """
        names = {OURS: ours, other: other}
        seconds = {name: self.seconds[side] for name, side in names.items()}
        memory = {name: self.memory[side] for name, side in names.items()}
        ratio = seconds[other]["median"] / seconds[OURS]["median"]
        if not at_least:
            ratio = 1 / ratio
        roof = cost and self.ceilings.position(cost, seconds[OURS]["median"])
        return Row(work, against or other, ratio, target, at_least, "×", seconds, memory, note, roof)


def compare(
    machine: Device,
    sides: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    number: int = 1,
    tolerance: float | None = 1e-4,
) -> Measured:
    """Check that the sides agree, then measure time and peak extra memory of each.

    A side returns an array or a tuple of them; within the tolerance, relative to the largest number
    of the first side's array, all must be the same.
    """
    if tolerance is not None:
        _check(machine, sides, tolerance)
    for function in sides.values():
        function()
    times = machine.time(sides, repeats, number)
    memory = {name: machine.memory(function) for name, function in sides.items()}
    return Measured(machine, {name: _summary(values) for name, values in times.items()}, memory)


def _check(machine: Device, sides: Mapping[str, Callable[[], Any]], tolerance: float) -> None:
    first, *others = sides
    expected = _on_host(machine, sides[first])
    for name in others:
        for mine, theirs in zip(expected, _on_host(machine, sides[name]), strict=True):
            error = np.subtract(theirs.reshape(mine.shape), mine, dtype=np.float64)
            error = np.abs(error, out=error).max()
            if not error <= tolerance * np.abs(mine).max():  # NaN differs as well
                raise AssertionError(f"{first} and {name} differ by {error}")


def _on_host(machine: Device, side: Callable[[], Any]) -> list[np.ndarray]:
    result = side()
    return [machine.host(array) for array in (result if isinstance(result, tuple) else (result,))]


def bandwidth(
    machine: Device,
    work: str,
    call: Callable[[], Any],
    moved: int,
    given: argparse.Namespace,
    target: float | None = None,
) -> Row:
    """Compare a call with a copy, both as bytes that must be moved per second."""
    source = machine.ours(np.zeros((8 if given.quick else 512) << 18, np.float32))
    duplicate = source.copy()

    def copy() -> None:
        duplicate[...] = source

    measured = compare(machine, {OURS: call, "copy": copy}, given.repeats, tolerance=None)
    seconds = {name: times["median"] for name, times in measured.seconds.items()}
    compulsory, copied = moved / seconds[OURS], 2 * source.nbytes / seconds["copy"]
    note = f"{compulsory / 1e9:.0f} of {copied / 1e9:.0f} GB/s"
    ratio = 100 * compulsory / copied
    return Row(work, "copy", ratio, target, True, " %", measured.seconds, measured.memory, note)


def _summary(seconds: list[float]) -> dict[str, float]:
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {
        "median": statistics.median(seconds),
        "quartile_1": quartiles[0],
        "quartile_3": quartiles[2],
        "minimum": min(seconds),
        "calls": len(seconds),
    }


def _processor() -> str:
    """Name the processor's model, where the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0].strip() if names else platform.machine()


def random(seed: int, *shape: int) -> np.ndarray:
    """Make uniform random float32 numbers in −½…½."""
    return np.random.default_rng(seed).random(shape, np.float32) - np.float32(0.5)


def sized(
    cases: Iterable[tuple[int, ...]], given: argparse.Namespace, quick: int
) -> Iterator[tuple[Any, ...]]:
    """Return cases (…, H, k) as they are, or H divided by `quick` where --quick is given."""
    for *others, height, taps in cases:
        yield *others, height // quick if given.quick else height, taps


def run(script: str, cpu_rows: Any, gpu_rows: Any, description: str | None) -> int:
    """Be the body of a benchmark's ``main``."""
    given = options(description)
    machine = device(given)
    rows = gpu_rows if machine.kind == "gpu" else cpu_rows
    with machine.entered():
        return report(script, machine.name, rows(machine, given), given)


if __name__ == "__main__":
    sys.exit("this file is what the benchmarks share; run correlate.py, say")
