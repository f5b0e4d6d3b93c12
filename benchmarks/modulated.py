"""Equation (2), `modulated_correlate`, beside torch's unfold·d + matmul and its plain conv2d."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _launch import launch_rows
from _measure import Cpu, Device, Gpu, compare, random, run, sized
from _report import OURS, Row
from _roofline import Cost

import cuvarconv

CASES = [  # (N, C, O, H, k)
    (1, 64, 64, 128, 3),
    (1, 16, 16, 256, 3),
    (1, 3, 3, 512, 5),
    (4, 32, 32, 128, 5),
    (1, 1, 1, 1024, 7),
]
UNFOLD = "unfold·d + matmul"
DEFORMABLE = "torchvision deform_conv2d"
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


def cost(case: tuple[int, int, int, int, int]) -> Cost:
    """Return the least that a call does: all operands in, the result out, the products d·x and the sums."""
    batch, channels, outputs, height, taps = case
    pixels, columns = batch * height**2, batch * channels * (taps * height) ** 2
    numbers = (channels + outputs) * pixels + channels * outputs * taps**2 + (taps * height) ** 2
    return Cost(4 * numbers, columns * (1 + 2 * outputs))


def deformable(machine: Device, arrays: tuple[Any, Any, Any]) -> Callable[[], Any] | None:
    """Return torchvision's deformable convolution without offsets, d as its mask, where it can be had."""
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError):  # not installed, or made for another torch
        return None
    image, weights, modulation = arrays
    batch, taps = image.shape[0], weights.shape[-1]
    entries, size = taps**2, image.shape[2:]
    mask = np.broadcast_to(modulation.reshape(entries, *size), (batch, entries, *size)).copy()
    x, w, m = machine.torchs(image), machine.torchs(weights), machine.torchs(mask)
    offsets = machine.torchs(np.zeros((batch, 2 * entries, *size), np.float32))
    return lambda: deform_conv2d(x, offsets, w, padding=taps // 2, mask=m)


def cpu_rows(machine: Cpu, given: argparse.Namespace) -> Iterator[Row]:
    from torch.nn.functional import conv2d

    for case in sized(CASES, given, 4):
        arrays = operands(case)
        image, weights, modulation = map(machine.torchs, arrays)
        sides: dict[str, Callable[[], Any]] = {
            OURS: lambda arrays=arrays: cuvarconv.modulated_correlate(*arrays, mode="constant"),
            UNFOLD: lambda x=image, w=weights, d=modulation: unfold(x, w, d),
        }
        deform = deformable(machine, arrays)
        if deform is not None:
            sides[DEFORMABLE] = deform
        work, least = describe(case), cost(case)
        measured = compare(machine, sides, given.repeats)
        yield measured.row(work, UNFOLD, 3, against=f"torch {UNFOLD}", cost=least)
        if deform is not None:
            yield measured.row(work, DEFORMABLE, cost=least)
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
        sides = {**mine, UNFOLD: lambda: unfold(image, weights, modulation)}
        measured = compare(machine, sides, given.repeats, tolerance=TOLERANCES[dtype])
        yield measured.row(work, UNFOLD, 8, against=f"torch {UNFOLD}", note=note)
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
