"""`correlate` with a kernel per pixel beside torch's unfold; on a GPU beside the copy bandwidth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from _launch import launch_rows
from _measure import Cpu, Device, Gpu, Measured, bandwidth, compare, random, run, sized
from _report import OURS, Row
from _roofline import Cost

import cuvarconv

CASES = [(1, 512, 15), (3, 512, 5), (16, 256, 7), (1, 2048, 5)]  # (C, H, k)
GPU_CASES = [(1, 2048, 11), (3, 2048, 5), (16, 2048, 3)]  # torch's copies of the input fit as well


def unfold(image: Any, kernels: Any) -> Any:
    """Compute Σ k[m,n,i,j] x[c,i+m,j+n] as people do it in PyTorch: unfold, product, sum."""
    from torch.nn.functional import unfold

    kh, kw, height, width = kernels.shape
    columns = unfold(image[None], (kh, kw), padding=(kh // 2, kw // 2))
    columns = columns.view(image.shape[0], kh * kw, height * width)
    return (columns * kernels.view(1, kh * kw, -1)).sum(1).view(-1, height, width)


def operands(case: tuple[int, int, int]) -> tuple[Any, Any]:
    channels, height, taps = case
    return random(1, channels, height, height), random(2, taps, taps, height, height)


def describe(case: tuple[int, int, int]) -> str:
    channels, height, taps = case
    return f"C = {channels}, {height} × {height}, {taps} × {taps} per pixel"


def cost(case: tuple[int, int, int]) -> Cost:
    """Return the least that a call does: kernels and image in, as large an image out."""
    channels, height, taps = case
    image, kernels = channels * height**2, (taps * height) ** 2
    return Cost(4 * (2 * image + kernels), 2 * channels * kernels)


def per_pixel(machine: Device, case: tuple[int, int, int], given: argparse.Namespace) -> Measured:
    """Measure one image size, zero boundary on both sides."""
    image, kernels = operands(case)
    x, k = machine.ours(image), machine.ours(kernels)
    tx, tk = machine.torchs(image), machine.torchs(kernels)
    sides = {
        OURS: lambda: cuvarconv.correlate(x, k, mode="constant"),
        "torch unfold": lambda: unfold(tx, tk),
    }
    return compare(machine, sides, given.repeats)


def cpu_rows(machine: Cpu, given: argparse.Namespace) -> Iterator[Row]:
    for case in sized(CASES, given, 8):
        yield per_pixel(machine, case, given).row(describe(case), "torch unfold", 5, cost=cost(case))
    yield fixed_kernel(machine, given)
    yield small_call(machine, given)


def fixed_kernel(machine: Device, given: argparse.Namespace) -> Row:
    """Measure one kernel for all pixels beside SciPy's, or CuPy's copy of it on a GPU."""
    if machine.kind == "gpu":
        from cupyx.scipy import ndimage
    else:
        from scipy import ndimage

    height = 128 if given.quick else 1024
    image, kernel = machine.ours(random(3, height, height)), machine.ours(random(4, 7, 7))
    other = ndimage.__name__
    sides = {
        OURS: lambda: cuvarconv.correlate(image, kernel),
        other: lambda: ndimage.correlate(image, kernel),
    }
    least = Cost(2 * image.nbytes, 2 * kernel.size * image.size)
    work = f"{height} × {height}, one 7 × 7 kernel"
    return compare(machine, sides, given.repeats).row(work, other, cost=least)


def small_call(machine: Cpu, given: argparse.Namespace) -> Row:
    """Measure what a call costs beside scipy's, for one small image and one small kernel."""
    from scipy import ndimage

    image, kernel = random(3, 16, 16), random(4, 3, 3)
    sides = {
        OURS: lambda: cuvarconv.correlate(image, kernel),
        "scipy.ndimage": lambda: ndimage.correlate(image, kernel),
    }
    measured = compare(machine, sides, given.repeats, number=20 if given.quick else 500)
    return measured.row("16 × 16, 3 × 3", "scipy.ndimage", 5, at_least=False)


def gpu_rows(machine: Gpu, given: argparse.Namespace) -> Iterator[Row]:
    cases = [(channels, 2048, taps) for taps in (3, 5, 7, 9, 11) for channels in (1, 3, 4, 16)]
    for case in sized(cases, given, 8):
        yield beside_copy(machine, case, given)
    for case in sized(GPU_CASES, given, 8):
        yield per_pixel(machine, case, given).row(describe(case), "torch unfold", cost=cost(case))
    yield fixed_kernel(machine, given)
    yield from launch_rows(machine, given, "correlate")


def beside_copy(machine: Gpu, case: tuple[int, int, int], given: argparse.Namespace) -> Row:
    x, k = map(machine.ours, operands(case))
    y = x.copy()
    moved = cost(case).nbytes
    return bandwidth(
        machine, describe(case), lambda: cuvarconv.correlate(x, k, y, mode="constant"), moved, given, 80
    )


def main() -> int:
    return run("correlate", cpu_rows, gpu_rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
