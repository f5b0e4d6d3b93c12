"""Blur an image that does not fit into memory, from a zarr store to a zarr store, on a cluster of processes.

The image, 20 000 × 20 000 pixels by default, is a photograph repeated, with noise.  The blur is that of a
lens whose focus is known at 5 × 5 points: the kernel of each pixel is a Gaussian with widths interpolated
between them, made block by block where it is used.  All kernels together would take 78 GB.

    pip install -e ".[dask,demo]"
    python examples/gigapixel.py --size 4000
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from _common import positive, show
from distributed import Client, LocalCluster, progress

import cuvarconv
from cuvarconv._demo.measure import peak_resident_bytes
from cuvarconv._demo.pictures import DemoError, load

TAPS = 7
LIMIT = 1e9  # bytes that a worker may take

# Widths of the blur in pixels, along rows and columns, at 5 × 5 points of the picture.
DISTANCE = np.hypot(*np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)))
WIDTHS = np.stack([0.3 + 1.2 * DISTANCE**2 / 2, 0.3 + 0.6 * DISTANCE**2 / 2]).astype(np.float32)


def photograph(name: Path | None) -> np.ndarray:
    """Read a photograph in grey, by default scikit-image's."""
    return load(name, None, 1 << 30).colours.mean(axis=-1, dtype=np.float32)


def image_block(photo: np.ndarray, block_info: Any = None) -> np.ndarray:
    """Return a block of the photograph, repeated, with noise."""
    place = block_info[None]["array-location"]
    rows, columns = (np.arange(*span) % length for span, length in zip(place, photo.shape, strict=True))
    noise = np.random.default_rng([place[0][0], place[1][0]]).normal(size=(len(rows), len(columns)))
    return photo[np.ix_(rows, columns)] + np.float32(0.01) * noise.astype(np.float32)


def kernel_block(size: int, block_info: Any = None) -> np.ndarray:
    """Return the kernels of a block, (k, k, H, W): Gaussians of sum 1, as wide as the field says."""
    rows, columns = block_info[None]["array-location"][2:]
    widths = interpolated(WIDTHS, *(np.arange(*span) / max(1, size - 1) for span in (rows, columns)))
    taps = np.arange(TAPS, dtype=np.float32).reshape(-1, 1, 1) - TAPS // 2
    down, across = (np.exp(-0.5 * (taps / sigma) ** 2) for sigma in widths)
    down /= down.sum(axis=0)
    across /= across.sum(axis=0)
    return down[:, None] * across


def interpolated(field: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Interpolate a coarse field (…, 5, 5) linearly at relative positions 0…1."""
    for places, length in ((rows, field.shape[1]), (columns, field.shape[2])):
        at = places * (length - 1)
        low = np.minimum(at.astype(int), length - 2)
        share = (at - low).astype(np.float32)
        field = (1 - share) * field[:, low].swapaxes(1, 2) + share * field[:, low + 1].swapaxes(1, 2)
    return field


def run(client: Client, task: Any, title: str) -> float:
    """Compute behind a progress bar; return seconds."""
    print(title, flush=True)
    start = time.perf_counter()
    future = client.compute(task)
    progress(future, notebook=False)
    future.result()
    print()
    return time.perf_counter() - start


def draw(before: Any, after: Any, path: Path) -> None:
    """Draw thumbnails of both images, and the middle and a corner of both as they are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = before.shape[0]
    step, side = max(1, size // 500), min(160, size // 2)
    figure = Figure((10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    middle = slice(size // 2 - side // 2, size // 2 + side // 2)
    for line, image, name in zip(panels, (before, after), ("before", "after"), strict=True):
        small = da.coarsen(np.mean, image, {0: step, 1: step}, trim_excess=True)
        parts = dask.compute(small, image[middle, middle], image[-side:, -side:])
        titles = (f"{name}, {size} × {size}", "the middle", "the lower right corner")
        for axes, part, title in zip(line, parts, titles, strict=True):
            show(axes, part, title, cmap="gray", vmin=0, vmax=1)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> int:
    """Make the image, blur it, draw both; 1 if a worker took too much memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path, help="your photograph; default: scikit-image's")
    parser.add_argument("--size", type=positive, default=20_000, help="of the image, in pixels")
    parser.add_argument("--chunk", type=positive, default=500, help="size of its blocks, in pixels")
    parser.add_argument("--workers", type=positive, default=2, help="processes of one thread")
    parser.add_argument("--output", type=Path, default=Path("gigapixel"), help="folder to write to")
    given = parser.parse_args(arguments)
    try:
        photo = photograph(given.image)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    given.output.mkdir(parents=True, exist_ok=True)
    stores = [str(given.output / name) for name in ("before.zarr", "after.zarr")]
    chunks = da.core.normalize_chunks(given.chunk, (given.size, given.size))
    with (
        LocalCluster(n_workers=given.workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        image = da.map_blocks(
            image_block,
            dask.delayed(photo),
            chunks=chunks,
            dtype=np.float32,
            meta=np.empty((0, 0), np.float32),
        )
        run(client, image.to_zarr(stores[0], overwrite=True, compute=False), "making the image")
        before = da.from_zarr(stores[0])
        kernels = da.map_blocks(
            kernel_block,
            given.size,
            chunks=((TAPS,), (TAPS,), *chunks),
            dtype=np.float32,
            meta=np.empty((0, 0, 0, 0), np.float32),
        )
        blurred = cuvarconv.correlate(before, kernels, mode="mirror")
        seconds = run(client, blurred.to_zarr(stores[1], overwrite=True, compute=False), "blurring it")
        draw(before, da.from_zarr(stores[1]), given.output / "gigapixel.png")
        peaks = [peak for peak in client.run(peak_resident_bytes).values() if peak is not None]
    print(f"blurred {given.size**2 / 1e6:.0f} million pixels in {seconds:.0f} s")
    shown = ", ".join(f"{peak / 1e6:.0f} MB" for peak in peaks) or "not measured: needs Linux's /proc"
    print(f"peak memory of the workers: {shown}")
    if max(peaks, default=0) > LIMIT:
        print(f"error: that is above {LIMIT / 1e6:.0f} MB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
