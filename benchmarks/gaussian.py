"""`gaussian_filter` with a map of widths beside stored kernels, in torch and here, and its gradients."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _measure import Device, compare, random, run
from _report import OURS, Row

import cuvarconv

CASES = {"cpu": (512, 3.0), "gpu": (2048, 8.0)}  # height and width, and the largest σ
WIDE = 8.0  # the largest σ of further rows: what grows with the radius alone counts less there


def widths(size: int, largest: float) -> np.ndarray:
    """Return random widths up to the largest."""
    values = np.random.default_rng(5).uniform(0, largest, (size, size)).astype(np.float32)
    values[0, 0] = largest
    return values


def unfold(image: Any, kernels: Any) -> Any:
    """Compute Σ k[m,n,i,j] x[i+m,j+n] as people do it in PyTorch: unfold, product, sum."""
    from torch.nn.functional import unfold

    taps = kernels.shape[0]
    columns = unfold(image[None, None], (taps, taps), padding=taps // 2)
    return (columns[0] * kernels.view(taps * taps, -1)).sum(0).view(image.shape)


def rows(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    size, largest = (64, 3.0) if given.quick else CASES[machine.kind]
    work = f"σ up to {largest:g}, {size} × {size}"
    image, map_ = random(1, size, size), widths(size, largest)
    x, sigma = machine.ours(image), machine.ours(map_)
    kernels = cuvarconv.gaussian_weights(sigma)

    def blur(widths: Any = sigma) -> Any:
        return cuvarconv.gaussian_filter(x, widths, mode="constant")

    sides: dict[str, Callable[[], Any]] = {OURS: blur}
    sides["stored kernels"] = lambda: cuvarconv.correlate(x, kernels, mode="constant")
    if machine.kind == "cpu":
        tx, tk = machine.torchs(image), machine.torchs(machine.host(kernels))
        sides["torch unfold"] = lambda: unfold(tx, tk)
    measured = compare(machine, sides, given.repeats)
    on_gpu = machine.kind == "gpu"
    yield measured.row(work, "stored kernels", 10 if on_gpu else None, against="correlate, stored kernels")
    if not on_gpu:
        yield measured.row(work, "torch unfold", 10)
    for most in sorted({largest, WIDE}):
        yield from maps(machine, given, image, size, most, blur)
    yield from gradients(machine, given, work, x, sigma, blur)


def maps(
    machine: Device,
    given: argparse.Namespace,
    image: np.ndarray,
    size: int,
    largest: float,
    blur: Callable[[Any], Any],
) -> Iterator[Row]:
    """Compare smooth maps, whose mean is a third of their largest σ, with the largest everywhere."""
    ramp = largest * np.linspace(0, 1, size, dtype=np.float32) ** 2
    named = {
        "ramp along rows": np.ascontiguousarray(np.broadcast_to(ramp, (size, size))),
        "ramp along columns": np.ascontiguousarray(np.broadcast_to(ramp[:, None], (size, size))),
        "third of it": np.full((size, size), largest / 3, np.float32),
        "largest": np.full((size, size), largest, np.float32),
    }
    on_device = {name: machine.ours(map_) for name, map_ in named.items()}
    sides = {name: lambda map_=map_: blur(map_) for name, map_ in on_device.items()}
    measured = compare(machine, sides, given.repeats, tolerance=None)
    for name in list(named)[:-1]:
        work = f"{name}, up to {largest:g}, {size} × {size}"
        yield measured.row(work, "largest", 4, ours=name, against="largest σ everywhere")


def gradients(
    machine: Device, given: argparse.Namespace, work: str, x: Any, sigma: Any, blur: Callable[[], Any]
) -> Iterator[Row]:
    """Compare each gradient, and all, with the forward call."""
    grad = machine.ours(random(9, *x.shape))

    def backward(wrt: Any) -> Any:
        return cuvarconv.gaussian_filter_vjp(grad, x, sigma, wrt=wrt, mode="constant")

    sides = {
        "forward": blur,
        "∂input": lambda: backward("input"),
        "∂sigma": lambda: backward("sigma"),
        "all ∂": lambda: backward(("input", "sigma")),
    }
    measured = compare(machine, sides, given.repeats, tolerance=None)
    for name in list(sides)[1:]:
        target = 4.5 if name == "all ∂" else 2
        against = f"own forward: {name}"
        yield measured.row(work, "forward", target, ours=name, against=against, at_least=False)


def main() -> int:
    return run("gaussian", rows, rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
