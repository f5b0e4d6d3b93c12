"""Forward and backward of `cuvarconv.torch` beside autograd through unfold and torch's plain conv2d."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from _measure import Device, compare, random, run, sized
from _report import OURS, Row
from gradients import AUTOGRAD, CASES, Case, correlate_case, local_case, modulated_case, with_autograd

UNFOLD, CONV2D = f"{AUTOGRAD} through unfold", "conv2d"
LAYERS = {
    "correlate": "pixelwise_conv2d",
    "modulated_correlate": "modulated_conv2d",
    "local_correlate": "local_conv2d",
}


def layer(case: Case, taps: int) -> Case:
    """Return the same work for a function of `cuvarconv.torch`."""
    import cuvarconv.torch

    formula = partial(getattr(cuvarconv.torch, LAYERS[case.function]), padding=taps // 2)
    return replace(case, formula=formula, torchs=tuple(case.operands.values()))


def plain(case: Case, taps: int) -> Case:
    """Return plain convolution with the same images and the same shared kernel."""
    from torch.nn.functional import conv2d

    images, weights, _ = case.torchs
    return replace(case, formula=partial(conv2d, padding=taps // 2), torchs=(images, weights))


def rows(machine: Device, case: Case, taps: int, given: argparse.Namespace) -> Iterator[Row]:
    """Measure the result together with the gradients of all operands."""
    ours = layer(case, taps)
    shape = ours.formula(*map(machine.torchs, ours.torchs)).shape
    grad = random(9, *shape)
    sides: dict[str, Callable[[], Any]] = {
        OURS: with_autograd(machine, ours, grad),
        UNFOLD: with_autograd(machine, case, grad),
    }
    work = f"{LAYERS[case.function].removesuffix('_conv2d')}, {case.size}"
    yield compare(machine, sides, given.repeats).row(work, UNFOLD)
    if case.function == "modulated_correlate":
        sides = {OURS: sides[OURS], CONV2D: with_autograd(machine, plain(case, taps), grad)}
        measured = compare(machine, sides, given.repeats, tolerance=None)
        yield measured.row(work, CONV2D, against="torch conv2d", at_least=False)


def all_rows(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    of_correlate, of_modulated, of_local = CASES[machine.kind]
    for sizes in sized(of_modulated, given, 4):
        yield from rows(machine, modulated_case(sizes), sizes[-1], given)
    for sizes in sized(of_correlate, given, 8):
        yield from rows(machine, correlate_case(sizes), sizes[-1], given)
    for sizes in sized(of_local, given, 4):
        yield from rows(machine, local_case(sizes), sizes[-1], given)


def main() -> int:
    return run("torch_layers", all_rows, all_rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
