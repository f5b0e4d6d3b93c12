"""The scatter form, `spread`, beside torch's product + fold, and `unfold` and `fold` beside torch's own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from _launch import launch_rows
from _measure import Device, Gpu, bandwidth, compare, random, run, sized
from _report import OURS, Row
from _roofline import Cost
from correlate import CASES, GPU_CASES, describe, operands

import cuvarconv

Case = tuple[int, int, int]  # (C, H, k)
UPSAMPLING: list[Case] = [(64, 64, 5)]  # to 128 × 128
GPU_UPSAMPLING: list[Case] = [*UPSAMPLING, (64, 256, 5)]


def product_and_fold(image: Any, kernels: Any, stride: int) -> Any:
    """Compute Σ k[m,n,i,j] z[c,i,j] at (i·s + m, j·s + n) as people do it in PyTorch: product, fold."""
    from torch.nn.functional import fold

    kh, kw, height, width = kernels.shape
    columns = image.view(-1, 1, height * width) * kernels.view(1, kh * kw, -1)
    columns = columns.view(1, -1, height * width)
    size = (height * stride, width * stride)
    return fold(columns, size, (kh, kw), padding=(kh // 2, kw // 2), stride=stride)[0]


def spread_rows(machine: Device, case: Case, given: argparse.Namespace, stride: int = 1) -> Iterator[Row]:
    """Measure one image size; what leaves the image is lost on both sides."""
    image, kernels = operands(case)
    z, k = machine.ours(image), machine.ours(kernels)
    tz, tk = machine.torchs(image), machine.torchs(kernels)
    shape = (case[1] * stride, case[1] * stride)

    def spread() -> Any:
        return cuvarconv.spread(z, k, mode="constant", stride=stride, shape=shape)

    sides = {OURS: spread, "torch product + fold": lambda: product_and_fold(tz, tk, stride)}
    work = f"{'spread' if stride == 1 else f'upsampling ×{stride}'}, {describe(case)}"
    least = Cost(z.nbytes * (1 + stride**2) + k.nbytes, 2 * kernels.size * image.shape[0])
    yield compare(machine, sides, given.repeats).row(work, "torch product + fold", cost=least)
    if machine.kind == "gpu":
        yield bandwidth(machine, work, spread, least.nbytes, given)


def copying_rows(machine: Device, case: Case, given: argparse.Namespace) -> Iterator[Row]:
    """Measure unfold and fold, which only move numbers or add them."""
    from torch.nn import functional

    channels, height, taps = case
    image, columns = random(1, channels, height, height), random(2, channels, taps, taps, height, height)
    x, u = machine.ours(image), machine.ours(columns)
    tx, tu = machine.torchs(image)[None], machine.torchs(columns).view(1, -1, height * height)
    shape, window = (height, height), {"kernel_size": taps, "padding": taps // 2}
    size = f"C = {channels}, {height} × {height}, {taps} × {taps}"
    pairs = {
        "unfold": (
            lambda: cuvarconv.unfold(x, taps, "constant"),
            lambda: functional.unfold(tx, **window),
        ),
        "fold": (
            lambda: cuvarconv.fold(u, shape, "constant"),
            lambda: functional.fold(tu, shape, **window),
        ),
    }
    for name, (ours, torchs) in pairs.items():
        other, work = f"torch {name}", f"{name}, {size}"
        yield compare(machine, {OURS: ours, other: torchs}, given.repeats).row(work, other)
        if machine.kind == "gpu":
            yield bandwidth(machine, work, ours, x.nbytes + u.nbytes, given)


def cpu_rows(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    yield from all_rows(machine, CASES, UPSAMPLING, given)


def gpu_rows(machine: Gpu, given: argparse.Namespace) -> Iterator[Row]:
    yield from all_rows(machine, GPU_CASES, GPU_UPSAMPLING, given)
    yield from launch_rows(machine, given, "spread")


def all_rows(
    machine: Device, cases: list[Case], upsampling: list[Case], given: argparse.Namespace
) -> Iterator[Row]:
    for case in sized(cases, given, 8):
        yield from spread_rows(machine, case, given)
    for case in sized(upsampling, given, 4):
        yield from spread_rows(machine, case, given, stride=2)
    for case in sized(cases, given, 8):
        yield from copying_rows(machine, case, given)


def main() -> int:
    return run("spread", cpu_rows, gpu_rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
