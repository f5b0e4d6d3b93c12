"""What the benchmarks share: devices, medians of interleaved calls, peak memory, records, plots."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import cuvarconv
from cuvarconv._demo.measure import interleaved_seconds, peak_extra_bytes

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("numpy", "scipy", "torch", "cupy-cuda12x", "cupy-cuda13x", "ml_dtypes")
OURS = "cuvarconv"


@dataclass
class Row:
    """One line of a table: medians in seconds, and the ratio that has a target."""

    work: str
    against: str
    ratio: float
    target: float
    at_least: bool
    unit: str
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    @property
    def goal(self) -> str:
        """The target in words."""
        return f"{'≥' if self.at_least else '≤'} {self.target:g}{self.unit}"

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold; a row that did not run has no ratio."""
        ratio = self.ratio if math.isfinite(self.ratio) else None
        return asdict(self) | {"ratio": ratio, "met": self.met}


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


def compare(
    machine: Device,
    sides: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    number: int = 1,
    tolerance: float | None = 1e-4,
) -> tuple[dict[str, dict[str, float]], dict[str, int | None]]:
    """Check that the sides agree, then measure time and peak extra memory of each."""
    if tolerance is not None:
        results = [machine.host(function()).astype(np.float64) for function in sides.values()]
        for result in results[1:]:
            error = np.abs(result.reshape(results[0].shape) - results[0]).max()
            if error > tolerance * np.abs(results[0]).max():
                raise AssertionError(f"the sides differ by {error}: {list(sides)}")
        del results
    for function in sides.values():
        function()
    times = machine.time(sides, repeats, number)
    memory = {name: machine.memory(function) for name, function in sides.items()}
    return {name: _summary(values) for name, values in times.items()}, memory


def _summary(seconds: list[float]) -> dict[str, float]:
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {
        "median": statistics.median(seconds),
        "quartile_1": quartiles[0],
        "quartile_3": quartiles[2],
        "minimum": min(seconds),
        "calls": len(seconds),
    }


def report(script: str, machine: Device, rows: Iterable[Row], given: argparse.Namespace) -> int:
    """Print rows as they come; save them as JSON and as a plot.  Return 1 if a target is missed."""
    print(f"{script} on {machine.name}")
    print(
        f"{'work':<40}{'against':<24}{OURS:>11}{'other':>11}{'ratio':>9}  "
        f"{'target':<8}{'':8}  peak extra memory"
    )
    done = []
    for row in rows:
        done.append(row)
        print(_line(row), flush=True)
    place = given.output / _slug(machine.name)
    if given.quick:
        place /= "quick"
    place.mkdir(parents=True, exist_ok=True)
    record = {
        "script": script,
        "device": machine.name,
        "quick": given.quick,
        "when": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {"cuvarconv": _state(), **_versions()},
        "rows": [row.record() for row in done],
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (place / f"{script}.json").write_text(text + "\n", encoding="utf-8")
    _plot(done, f"{script} on {machine.name}", place / f"{script}.png")
    print(f"{sum(row.met for row in done)} of {len(done)} targets met")
    return int(not all(row.met for row in done))


def _line(row: Row) -> str:
    other = next((side for side in row.seconds if side != OURS), OURS)
    ours, theirs = (
        _short_time(row.seconds[side]["median"]) if side in row.seconds else "–" for side in (OURS, other)
    )
    memory = " and ".join(
        "not measured" if value is None else f"{value / 2**20:.1f} MiB" for value in row.memory.values()
    )
    verdict = "met" if row.met else "NOT MET"
    ratio = f"{row.ratio:.2f}{row.unit}" if math.isfinite(row.ratio) else "–"
    return (
        f"{row.work:<40}{row.against:<24}{ours:>11}{theirs:>11}{ratio:>9}  "
        f"{row.goal:<8}{verdict:<8}  {memory}{'  ' + row.note if row.note else ''}"
    )


def _short_time(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} µs"


def _plot(done: list[Row], title: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in done if math.isfinite(row.ratio)]
    margin = [  # above 1: the target is reached, whichever way it points
        row.ratio / row.target if row.at_least else row.target / row.ratio for row in rows
    ]
    figure = Figure((10, 0.9 + 0.32 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = ["#2a9d8f" if row.met else "#e76f51" for row in rows]
    beyond = [value - 1 for value in margin]
    bars = axes.barh(range(len(rows)), beyond, left=1, color=colours, height=0.7)
    labels = [f"{row.ratio:.2f}{row.unit} (target {row.goal})" for row in rows]
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row.work}  {row.against}" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(0.8, *margin) / 5, max(2.0, *margin) * 4)
    axes.set_xlabel("how far beyond the target (right of the line: met)", fontsize=9)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _state() -> str:
    """Return the version, and the commit where this is a checkout."""
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return cuvarconv.__version__
    return f"{cuvarconv.__version__}, commit {done.stdout.strip()}"


def _processor() -> str:
    """Name the processor's model, where the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0].strip() if names else platform.machine()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def random(seed: int, *shape: int) -> np.ndarray:
    """Make uniform random float32 numbers in −½…½."""
    return np.random.default_rng(seed).random(shape, np.float32) - np.float32(0.5)


def run(script: str, cpu_rows: Any, gpu_rows: Any, description: str | None) -> int:
    """Be the body of a benchmark's ``main``."""
    given = options(description)
    machine = device(given)
    rows = gpu_rows if machine.kind == "gpu" else cpu_rows
    with machine.entered():
        return report(script, machine, rows(machine, given), given)


if __name__ == "__main__":
    sys.exit("this file is what the benchmarks share; run correlate.py or modulated.py")
