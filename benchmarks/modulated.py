"""Equation (2), `modulated_correlate`, beside torch's unfold·d + matmul and its plain conv2d."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

from _launch import launch_rows
from _measure import Cpu, Device, Gpu, compare, random, run, sized
from _report import OURS, Row

import cuvarconv

CASES = [  # (N, C, O, H, k)
    (1, 64, 64, 128, 3),
    (1, 16, 16, 256, 3),
    (1, 3, 3, 512, 5),
    (4, 32, 32, 128, 5),
    (1, 1, 1, 1024, 7),
]
TOLERANCES = {"float32": 1e-4, "TF32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}


def unfold(image: Any, weights: Any, modulation: Any) -> Any:
    """Compute equation (2) as people do it in PyTorch: unfold, product, matmul."""
    from torch.nn.functional import unfold

    batch, channels, height, width = image.shape
    outputs, _, kh, kw = weights.shape
    columns = unfold(image, (kh, kw), padding=(kh // 2, kw // 2))
    columns = columns.view(batch, channels, kh * kw, -1) * modulation.view(kh * kw, -1)
    result = weights.view(outputs, -1) @ columns.view(batch, channels * kh * kw, -1)
    return result.view(batch, outputs, height, width)


def operands(case: tuple[int, int, int, int, int]) -> tuple[Any, Any, Any]:
    batch, channels, outputs, height, taps = case
    return (
        random(1, batch, channels, height, height),
        random(2, outputs, channels, taps, taps),
        random(3, taps, taps, height, height),
    )


def describe(case: tuple[int, int, int, int, int]) -> str:
    batch, channels, outputs, height, taps = case
    return f"N C O = {batch} {channels} {outputs}, {height} × {height}, {taps} × {taps}"


def cpu_rows(machine: Cpu, given: argparse.Namespace) -> Iterator[Row]:
    from torch.nn.functional import conv2d

    for case in sized(CASES, given, 4):
        arrays = operands(case)
        image, weights, modulation = map(machine.torchs, arrays)
        sides: dict[str, Callable[[], Any]] = {
            OURS: lambda arrays=arrays: cuvarconv.modulated_correlate(*arrays, mode="constant"),
            "unfold·d + matmul": lambda x=image, w=weights, d=modulation: unfold(x, w, d),
        }
        work = describe(case)
        measured = compare(machine, sides, given.repeats)
        yield measured.row(work, "unfold·d + matmul", 3, against="torch unfold·d + matmul")
        if case[1] < 16:
            continue
        sides = {
            OURS: sides[OURS],
            "conv2d": lambda x=image, w=weights, p=case[-1] // 2: conv2d(x, w, padding=p),
        }
        measured = compare(machine, sides, given.repeats, tolerance=None)
        yield measured.row(work, "conv2d", 2, against="torch conv2d", at_least=False)


def gpu_rows(machine: Gpu, given: argparse.Namespace) -> Iterator[Row]:
    batch, height = (1, 32) if given.quick else (8, 128)
    for dtype in TOLERANCES:
        for channels in (32, 64, 128, 256):
            case = (batch, channels, channels, height, 3)
            try:
                yield from gpu_case(machine, case, dtype, given)
            except (TypeError, ImportError, ValueError, RuntimeError) as error:  # e.g. no bfloat16
                work, nothing = f"C = O = {channels}, 3 × 3, {dtype}", math.nan
                yield Row(work, "not run", nothing, 8, True, "×", note=" ".join(str(error).split()))
    yield from launch_rows(machine, given, "modulated_correlate")


def gpu_case(
    machine: Device, case: tuple[int, int, int, int, int], dtype: str, given: argparse.Namespace
) -> Iterator[Row]:
    """Measure one number of channels; TF32 is allowed to the other side alone."""
    import torch
    from torch.nn.functional import conv2d

    stored = "float32" if dtype == "TF32" else dtype
    kind = _numpy_dtype(stored)
    x, w, d = (machine.ours(array).astype(kind) for array in operands(case))
    image, weights, modulation = (
        machine.torchs(array).to(getattr(torch, stored)) for array in operands(case)
    )
    last = torch.channels_last
    image_last, weights_last = (t.contiguous(memory_format=last) for t in (image, weights))
    mine = {OURS: lambda: cuvarconv.modulated_correlate(x, w, d, mode="constant")}
    precise = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "TF32"
    torch.backends.cudnn.benchmark = True
    work = f"C = O = {case[1]}, 3 × 3, {dtype}"
    note = "TF32 on torch's side only" if dtype == "TF32" else ""
    try:
        sides = {**mine, "unfold·d + matmul": lambda: unfold(image, weights, modulation)}
        measured = compare(machine, sides, given.repeats, tolerance=TOLERANCES[dtype])
        yield measured.row(work, "unfold·d + matmul", 8, against="torch unfold·d + matmul", note=note)
        sides = {
            **mine,
            "conv2d": lambda: conv2d(image, weights, padding=1),
            "conv2d, channels last": lambda: conv2d(image_last, weights_last, padding=1),
        }
        measured = compare(machine, sides, given.repeats, tolerance=None)
        medians = {name: times["median"] for name, times in measured.seconds.items() if name != OURS}
        faster = min(medians, key=medians.__getitem__)
        yield measured.row(work, faster, 1.5, against=f"cuDNN {faster}", at_least=False, note=note)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = precise


def _numpy_dtype(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return name


def main() -> int:
    return run("modulated", cpu_rows, gpu_rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
