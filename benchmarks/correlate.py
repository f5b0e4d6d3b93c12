"""`correlate` with a kernel per pixel beside torch's unfold; on a GPU beside the copy bandwidth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from _launch import launch_rows
from _measure import OURS, Cpu, Device, Gpu, Row, compare, random, run

import cuvarconv

CASES = [(1, 512, 15), (3, 512, 5), (16, 256, 7), (1, 2048, 5)]  # (C, H, k)


def unfold(image: Any, kernels: Any) -> Any:
    """Compute Σ k[m,n,i,j] x[c,i+m,j+n] as people do it in PyTorch: unfold, product, sum."""
    from torch.nn.functional import unfold

    kh, kw, height, width = kernels.shape
    columns = unfold(image[None], (kh, kw), padding=(kh // 2, kw // 2))
    columns = columns.view(image.shape[0], kh * kw, height * width)
    return (columns * kernels.view(1, kh * kw, -1)).sum(1).view(-1, height, width)


def per_pixel(
    machine: Device, case: tuple[int, int, int], given: argparse.Namespace
) -> tuple[dict[str, dict[str, float]], dict[str, int | None]]:
    """Measure one image size, zero boundary on both sides."""
    channels, height, taps = case
    image = random(1, channels, height, height)
    kernels = random(2, taps, taps, height, height)
    x, k = machine.ours(image), machine.ours(kernels)
    tx, tk = machine.torchs(image), machine.torchs(kernels)
    sides = {
        OURS: lambda: cuvarconv.correlate(x, k, mode="constant"),
        "torch unfold": lambda: unfold(tx, tk),
    }
    return compare(machine, sides, given.repeats)


def cpu_rows(machine: Cpu, given: argparse.Namespace) -> Iterator[Row]:
    for channels, height, taps in CASES:
        size = height // 8 if given.quick else height
        seconds, memory = per_pixel(machine, (channels, size, taps), given)
        ratio = seconds["torch unfold"]["median"] / seconds[OURS]["median"]
        work = f"C = {channels}, {size} × {size}, {taps} × {taps} per pixel"
        yield Row(work, "torch unfold", ratio, 5, True, "×", seconds, memory)
    yield small_call(machine, given)


def small_call(machine: Cpu, given: argparse.Namespace) -> Row:
    """Measure what a call costs beside scipy's, for one small image and one small kernel."""
    from scipy import ndimage

    image, kernel = random(3, 16, 16), random(4, 3, 3)
    sides = {
        OURS: lambda: cuvarconv.correlate(image, kernel),
        "scipy.ndimage": lambda: ndimage.correlate(image, kernel),
    }
    seconds, memory = compare(machine, sides, given.repeats, number=20 if given.quick else 500)
    ratio = seconds[OURS]["median"] / seconds["scipy.ndimage"]["median"]
    return Row("16 × 16, 3 × 3", "scipy.ndimage", ratio, 5, False, "×", seconds, memory)


def gpu_rows(machine: Gpu, given: argparse.Namespace) -> Iterator[Row]:
    height = 256 if given.quick else 2048
    for taps in (3, 5, 7, 9, 11):
        for channels in (1, 3, 4, 16):
            yield bandwidth(machine, channels, height, taps, given)
    yield from launch_rows(machine, given, "correlate")


def bandwidth(machine: Device, channels: int, height: int, taps: int, given: argparse.Namespace) -> Row:
    """Compare with a copy, both as bytes that must be moved per second."""
    x = machine.ours(random(1, channels, height, height))
    k = machine.ours(random(2, taps, taps, height, height))
    y = machine.ours(np.zeros((channels, height, height), np.float32))
    source = machine.ours(np.zeros((8 if given.quick else 512) << 18, np.float32))
    target = source.copy()

    def copy() -> None:
        target[...] = source

    sides = {OURS: lambda: cuvarconv.correlate(x, k, y, mode="constant"), "copy": copy}
    seconds, memory = compare(machine, sides, given.repeats, tolerance=None)
    compulsory = (x.nbytes + k.nbytes + y.nbytes) / seconds[OURS]["median"]
    copied = 2 * source.nbytes / seconds["copy"]["median"]
    work = f"C = {channels}, {height} × {height}, {taps} × {taps} per pixel"
    note = f"{compulsory / 1e9:.0f} of {copied / 1e9:.0f} GB/s"
    return Row(work, "copy", 100 * compulsory / copied, 80, True, " %", seconds, memory, note)


def main() -> int:
    return run("correlate", cpu_rows, gpu_rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
