"""Dask arrays: two workers beside the call in memory, building graphs, and memory as the image grows."""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from _measure import Device, run
from _report import OURS, Row, folder
from distributed import Client, LocalCluster, wait

import cuvarconv
from cuvarconv._demo.measure import interleaved_seconds, peak_resident_bytes
from cuvarconv._heap import recycled_memory

TAPS = 5
ALONE = "blocks alone"
KEYWORDS = {"gaussian_filter": {"radius": 4}}  # σ in 0…1; the largest of a dask array is not known
GROWTH = 1.25  # of a worker's peak, smallest image to largest; the image grows 64 times


def throughput_rows(side: int, chunk: int, given: argparse.Namespace) -> Iterator[Row]:
    """Compare two processes, whose blocks lie in their memory already, with the call on all threads.

    Results stay in the processes.  The ceiling is the same call on the blocks alone, which need nothing
    of their neighbours then.
    """
    quarter = side // 4
    shapes = {
        "correlate": [(side, side), (TAPS, TAPS, side, side)],
        "gaussian_filter": [(side // 2, side // 2)] * 2,
        "modulated_correlate": [(16, quarter, quarter), (16, 16, TAPS, TAPS), (TAPS, TAPS, quarter, quarter)],
    }
    with _cluster(2) as cluster, Client(cluster) as client:
        for name, lengths in shapes.items():
            size = chunk if name == "correlate" else lengths[0][-1] // 2
            sides = _sides(client, name, [_numbers(*shape) for shape in lengths], size)
            for call in sides.values():
                call()
            seconds = interleaved_seconds(sides, given.repeats)
            summary = {key: {"median": float(np.median(values))} for key, values in seconds.items()}
            work = f"{name}, {' × '.join(map(str, lengths[0]))}, blocks of {size}"
            for ours, target in ((OURS, 0.7), (ALONE, None)):
                ratio = summary["in memory"]["median"] / summary[ours]["median"]
                title = work if ours == OURS else f"{name}, {ALONE}"
                shown = {OURS: summary[ours], "in memory": summary["in memory"]}
                yield Row(title, "in memory", ratio, target, True, "×", shown)


def _sides(client: Client, name: str, arrays: list[np.ndarray], size: int) -> dict[str, Any]:
    """Return three ways to do the same work.  Each call has its own cval, or dask would have its result."""
    function = functools.partial(getattr(cuvarconv, name), mode="constant", **KEYWORDS.get(name, {}))
    small = {at: array for at, array in enumerate(arrays) if array.shape[-1] == TAPS}  # goes with the tasks
    large = [array for at, array in enumerate(arrays) if at not in small]
    lazy = client.persist([_made(array, size) for array in large])
    wait(lazy)
    new = itertools.count()

    def on_large(*large: Any, cval: float) -> Any:
        operands = list(large)
        for at, array in small.items():
            operands.insert(at, array)
        return function(*operands, cval=cval)

    def on_one_thread(*blocks: np.ndarray, cval: float) -> np.ndarray:
        with cuvarconv.set_workers(1), recycled_memory():
            return on_large(*blocks, cval=cval)

    def blocks() -> None:
        wait(client.persist(on_large(*lazy, cval=float(next(new)))))

    def alone() -> None:
        dropped = list(range(max(array.ndim for array in lazy) - lazy[0].ndim))
        meta = np.empty((0,) * lazy[0].ndim, np.float32)
        cval = float(next(new))
        made = da.map_blocks(on_one_thread, *lazy, cval=cval, drop_axis=dropped, dtype=np.float32, meta=meta)
        wait(client.persist(made))

    return {OURS: blocks, ALONE: alone, "in memory": lambda: on_large(*large, cval=float(next(new)))}


def _made(array: np.ndarray, size: int) -> Any:
    """Return random numbers in blocks, of an array's shape, made by the processes."""
    chunks = (*array.shape[:-2], size, size)
    return da.random.default_rng(1).random(array.shape, dtype=np.float32, chunks=chunks)


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, np.float32)


def _cluster(workers: int) -> Any:
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", memory_limit=None)


def graph_rows(side: int, given: argparse.Namespace) -> Iterator[Row]:
    """Time the call on side × side chunks, with kernels in the same chunks and in others."""
    image = da.zeros((side * 64, side * 64), chunks=64, dtype=np.float32)
    for name, size in (("correlate", 64), ("correlate", 100), ("spread", 64)):
        kernels = da.zeros((TAPS, TAPS, *image.shape), chunks=(TAPS, TAPS, size, size), dtype=np.float32)
        function = getattr(cuvarconv, name)
        times = []
        for _ in range(given.repeats):
            start = time.perf_counter()
            function(image, kernels)
            times.append(time.perf_counter() - start)
        median = float(np.median(times))
        seconds = {OURS: {"median": median}}
        work = f"graph of {name}, {side**2} chunks" + (", kernels in others" if size != 64 else "")
        yield Row(work, "seconds", median, 2, False, " s", seconds)


def memory_rows(sides: list[int], chunk: int, place: Path) -> Iterator[Row]:
    """Measure the most that a worker takes, for images of four sizes, as the median of three runs.

    With dask's own setting, 1.1, workers make kernels ahead of the pixels that they belong to.
    """
    peaks: dict[float, list[int]] = {1.1: [], 1.0: []}
    for (saturation, found), side in itertools.product(peaks.items(), sides):
        found.append(int(np.median([_peak(side, chunk, saturation) for _ in range(3)])))
    _plot(sides, peaks, place)
    for saturation, found in peaks.items():
        note = ", ".join(
            f"{peak / 2**20:.0f} MiB at {side}²" for side, peak in zip(sides, found, strict=True)
        )
        work = f"peak of a worker, {sides[-1]}², saturation {saturation}"
        yield Row(work, f"at {sides[0]}²", found[-1] / found[0], GROWTH, False, "×", note=note)


def _peak(side: int, chunk: int, saturation: float) -> int:
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
    setting = dask.config.set({"distributed.scheduler.worker-saturation": saturation})
    with setting, _cluster(2) as cluster, Client(cluster) as client:
        cuvarconv.correlate(image, weights).mean().compute()
        return max(client.run(peak_resident_bytes).values())


def _plot(sides: list[int], peaks: dict[float, list[int]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((6, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    operands = [(TAPS**2 + 2) * 4 * side**2 / 2**20 for side in sides]
    axes.loglog(sides, operands, "--", color="#a8a8a8", label="image, kernels and result")
    for (saturation, found), line in zip(peaks.items(), ("o--", "o-"), strict=True):
        label = f"peak of a worker, worker-saturation {saturation}"
        axes.loglog(sides, [peak / 2**20 for peak in found], line, color="#2a9d8f", label=label)
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
