"""Dask arrays: two workers beside the call in memory, building graphs, and memory as the image grows."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from _measure import Device, random, run
from _report import OURS, Row, folder
from distributed import Client, LocalCluster, wait

import cuvarconv
from cuvarconv._demo.measure import interleaved_seconds, peak_resident_bytes

TAPS = 5
GROWTH = 1.25  # of a worker's peak, smallest image to largest: flat, but for the scheduler's noise


def throughput_rows(side: int, chunk: int, given: argparse.Namespace) -> Iterator[Row]:
    """Compare two processes, whose blocks lie in their memory already, with the call on all threads."""
    operands = {
        "correlate": (random(1, side, side), random(2, TAPS, TAPS, side, side)),
        "modulated_correlate": (
            random(1, 16, side // 4, side // 4),
            random(2, 16, 16, TAPS, TAPS),
            random(3, TAPS, TAPS, side // 4, side // 4),
        ),
    }
    with _cluster(2) as cluster, Client(cluster) as client:
        for name, arrays in operands.items():
            function, size = getattr(cuvarconv, name), chunk if name == "correlate" else chunk // 4
            lazy = [
                array if array.shape[-1] == TAPS else client.persist(_made(array, size)) for array in arrays
            ]
            wait(lazy)
            new = itertools.count()  # a cval of its own for each call, or the cluster would have its result

            def blocks(function: Any = function, lazy: Any = lazy, new: Any = new) -> None:
                wait(client.persist(function(*lazy, mode="constant", cval=float(next(new)))))

            def whole(function: Any = function, arrays: Any = arrays, new: Any = new) -> Any:
                return function(*arrays, mode="constant", cval=float(next(new)))

            sides = {OURS: blocks, "in memory": whole}
            for call in sides.values():
                call()
            seconds = interleaved_seconds(sides, given.repeats)
            summary = {key: {"median": float(np.median(values))} for key, values in seconds.items()}
            ratio = summary["in memory"]["median"] / summary[OURS]["median"]
            shape = " × ".join(map(str, arrays[0].shape))
            yield Row(f"{name}, {shape}, blocks of {size}", "in memory", ratio, 0.7, True, "×", summary)


def _made(array: np.ndarray, size: int) -> Any:
    """Return random numbers in blocks, of an array's shape."""
    chunks = (*array.shape[:-2], size, size)
    return da.random.default_rng(1).random(array.shape, dtype=np.float32, chunks=chunks) - np.float32(0.5)


def _cluster(workers: int) -> Any:
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", memory_limit=None)


def graph_rows(side: int, given: argparse.Namespace) -> Iterator[Row]:
    """Time the call on side × side chunks."""
    image = da.zeros((side * 64, side * 64), chunks=64, dtype=np.float32)
    kernels = da.zeros((TAPS, TAPS, *image.shape), chunks=(TAPS, TAPS, 64, 64), dtype=np.float32)
    for name in ("correlate", "spread"):
        function = getattr(cuvarconv, name)
        times = []
        for _ in range(given.repeats):
            start = time.perf_counter()
            function(image, kernels)
            times.append(time.perf_counter() - start)
        median = float(np.median(times))
        seconds = {OURS: {"median": median}}
        yield Row(f"graph of {name}, {side**2} chunks", "seconds", median, 2, False, " s", seconds)


def memory_rows(sides: list[int], chunk: int, place: Path) -> Iterator[Row]:
    """Measure the most that a worker takes, for images of four sizes."""
    peaks = [_peak(side, chunk) for side in sides]
    _plot(sides, peaks, place)
    note = ", ".join(f"{peak / 2**20:.0f} MiB at {side}²" for side, peak in zip(sides, peaks, strict=True))
    work = f"peak of a worker, {sides[-1]}², blocks of {chunk}"
    yield Row(work, f"at {sides[0]}²", peaks[-1] / peaks[0], GROWTH, False, "×", note=note)


def _peak(side: int, chunk: int) -> int:
    def kernels(block_info: Any = None) -> np.ndarray:
        lengths = [last - first for first, last in block_info[None]["array-location"][2:]]
        return np.full((TAPS, TAPS, *lengths), np.float32(1 / TAPS**2))

    image = da.ones((side, side), chunks=chunk, dtype=np.float32)
    weights = da.map_blocks(
        kernels,
        chunks=((TAPS,), (TAPS,), *image.chunks),
        dtype=np.float32,
        meta=np.empty((0, 0, 0, 0), np.float32),
    )
    with _cluster(2) as cluster, Client(cluster) as client:
        cuvarconv.correlate(image, weights).mean().compute()
        return max(client.run(peak_resident_bytes).values())


def _plot(sides: list[int], peaks: list[int], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((6, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    operands = [(TAPS**2 + 2) * 4 * side**2 / 2**20 for side in sides]
    axes.loglog(sides, operands, "--", color="#a8a8a8", label="image, kernels and result")
    axes.loglog(sides, [peak / 2**20 for peak in peaks], "o-", color="#2a9d8f", label="peak of a worker")
    axes.set(xlabel="side of the image in pixels", ylabel="MiB")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def cpu_rows(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    shrink = 8 if given.quick else 1
    yield from throughput_rows(4096 // shrink, 1024 // shrink, given)
    yield from graph_rows(100 // shrink, given)
    sides = [side // shrink for side in (2048, 4096, 8192, 16384)]
    yield from memory_rows(sides, 512 // shrink, folder(machine.name, given) / "dask_memory.png")


def main() -> int:
    return run("dask_blocks", cpu_rows, cpu_rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
