"""`bilateral_filter` beside kornia's `bilateral_blur`, and its gradients beside its own forward call."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _measure import Device, compare, random, run, sized
from _report import OURS, Row

import cuvarconv

KORNIA = "kornia"
CASES = [(1, 512, 15), (3, 512, 7)]  # (C, H, window)
SPATIAL, RANGE = 3.0, 0.1


def describe(case: tuple[int, int, int]) -> str:
    channels, height, taps = case
    return f"C = {channels}, {height} × {height}, {taps} × {taps}"


def beside_kornia(machine: Device, case: tuple[int, int, int], given: argparse.Namespace) -> Iterator[Row]:
    """Measure the same window and the same boundary; kornia has no maps of widths."""
    from kornia.filters import bilateral_blur

    channels, height, taps = case
    image = random(1, channels, height, height)
    x, tensor = machine.ours(image), machine.torchs(image)[None]
    keywords: dict[str, Any] = {"channel_axis": 0, "radius": taps // 2, "mode": "mirror"}
    spatial, likeness = (
        machine.ours(np.full((height, height), sigma, np.float32)) for sigma in (SPATIAL, RANGE)
    )
    kernel = taps, RANGE, (SPATIAL, SPATIAL)
    sides = {
        OURS: lambda: cuvarconv.bilateral_filter(x, SPATIAL, RANGE, **keywords),
        KORNIA: lambda: bilateral_blur(tensor, *kernel, "reflect", "l2")[0],
        "maps": lambda: cuvarconv.bilateral_filter(x, spatial, likeness, **keywords),
    }
    measured = compare(machine, sides, given.repeats)
    target = 1.5 if taps == CASES[0][2] and machine.kind == "cpu" else None
    yield measured.row(describe(case), KORNIA, target)
    yield measured.row(f"{describe(case)}, σ maps", KORNIA, ours="maps")


def gradients(
    machine: Device, case: tuple[int, int, int], given: argparse.Namespace, *, maps: bool
) -> Iterator[Row]:
    """Measure each gradient beside the result, with a guide and without."""
    channels, height, taps = case
    x, guide, grad = (machine.ours(random(seed, channels, height, height)) for seed in (1, 2, 3))
    sigmas = [
        machine.ours(np.full((height, height), sigma, np.float32)) if maps else sigma
        for sigma in (SPATIAL, RANGE)
    ]
    keywords: dict[str, Any] = {"channel_axis": 0, "radius": taps // 2}
    work = f"{describe(case)}{', σ maps' if maps else ''}"
    for joint in (True, False):
        if joint:
            keywords["guide"] = guide
        else:
            del keywords["guide"]
        names = ("input", *(("guide",) if joint else ()), "sigma_spatial", "sigma_range")
        sides: dict[str, Callable[[], Any]] = {
            "forward": lambda: cuvarconv.bilateral_filter(x, *sigmas, **keywords)
        }
        for name in names:
            sides[f"∂{name}"] = lambda name=name: cuvarconv.bilateral_filter_vjp(
                grad, x, *sigmas, wrt=name, **keywords
            )
        sides["all ∂"] = lambda names=names: cuvarconv.bilateral_filter_vjp(
            grad, x, *sigmas, wrt=names, **keywords
        )
        measured = compare(machine, sides, given.repeats, tolerance=None)
        for name in list(sides)[1:]:
            target = 4.5 if name == "all ∂" else 2
            against = f"own forward{', joint' if joint else ''}: {name}"
            yield measured.row(work, "forward", target, ours=name, against=against, at_least=False)


def rows(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    if importlib.util.find_spec(KORNIA) is None:
        print(f"{KORNIA} is not installed: no rows beside it")
    else:
        for case in sized(CASES, given, 8):
            yield from beside_kornia(machine, case, given)
    for case in sized(CASES[:1], given, 8):
        yield from gradients(machine, case, given, maps=False)
        yield from gradients(machine, case, given, maps=True)


def main() -> int:
    return run("bilateral", rows, rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
