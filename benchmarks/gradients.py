"""Gradients beside the forward call, and beside torch's autograd through unfold and JAX's value_and_grad."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import correlate
import local
import modulated
import numpy as np
from _measure import Device, compare, random, run, sized
from _report import OURS, Row

import cuvarconv

AUTOGRAD = "torch autograd"
GPU_MODULATED = [(8, channels, channels, 128, 3) for channels in (32, 64, 128, 256)]
CASES: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "cpu": (correlate.CASES, modulated.CASES, [local.MAIN]),
    "gpu": (correlate.GPU_CASES, GPU_MODULATED, [(1, 16, 256, 3)]),
}


@dataclass(frozen=True)
class Case:
    """One operator and its operands, and the same in torch; the order of their memory may differ."""

    function: str
    size: str
    operands: dict[str, np.ndarray]
    formula: Callable[..., Any]
    torchs: tuple[np.ndarray, ...]

    @property
    def work(self) -> str:
        return f"{self.function.removesuffix('_correlate')}, {self.size}"


def correlate_case(sizes: tuple[int, int, int]) -> Case:
    image, kernels = correlate.operands(sizes)
    operands = {"input": image, "weights": kernels}
    return Case("correlate", correlate.describe(sizes), operands, correlate.unfold, (image, kernels))


def modulated_case(sizes: tuple[int, int, int, int, int]) -> Case:
    arrays = modulated.operands(sizes)
    operands = dict(zip(("input", "weights", "modulation"), arrays, strict=True))
    return Case("modulated_correlate", modulated.describe(sizes), operands, modulated.unfold, arrays)


def local_case(sizes: local.Case) -> Case:
    image, kernels = local.operands(sizes)
    operands = {"input": image, "kernels": kernels}
    torchs = (image, local.for_torch(kernels))
    return Case("local_correlate", local.describe(sizes), operands, local.unfold, torchs)


def with_autograd(machine: Device, case: Case, grad: np.ndarray) -> Callable[[], tuple[Any, ...]]:
    """Return a call for torch's result and all its gradients."""
    import torch

    with torch.inference_mode(False):  # tensors of inference mode have no gradients
        operands = [machine.torchs(array).requires_grad_() for array in case.torchs]
        seed = machine.torchs(grad)

    def call() -> tuple[Any, ...]:
        with torch.inference_mode(False), torch.enable_grad():
            result = case.formula(*operands)
            return result.detach(), *torch.autograd.grad(result, operands, seed)

    return call


def rows(machine: Device, case: Case, given: argparse.Namespace) -> Iterator[Row]:
    """Measure result and gradients beside other libraries, then each gradient beside the result."""
    operands = [machine.ours(array) for array in case.operands.values()]
    names = tuple(case.operands)

    def forward() -> Any:
        return getattr(cuvarconv, case.function)(*operands, mode="constant")

    grad = random(9, *forward().shape)
    seed = machine.ours(grad)

    def backward(wrt: Any = names) -> Any:
        return getattr(cuvarconv, f"{case.function}_vjp")(seed, *operands, wrt=wrt, mode="constant")

    others = {AUTOGRAD: with_autograd(machine, case, grad)}
    if case.function == "local_correlate":
        for name, side in local.jax_sides(machine, *case.operands.values()).items():
            others[name] = side.value_and_grad(grad)
    measured = compare(machine, {OURS: lambda: (forward(), *backward()), **others}, given.repeats)
    for name in others:
        yield measured.row(case.work, name, against=f"{name}: result + all ∂")
    sides: dict[str, Callable[[], Any]] = {"forward": forward}
    for name in names:
        sides[f"∂{name}"] = lambda name=name: backward(name)
    sides["all ∂"] = backward
    measured = compare(machine, sides, given.repeats, tolerance=None)
    for name in list(sides)[1:]:
        target = 4.5 if name == "all ∂" else 2
        against = f"own forward: {name}"
        yield measured.row(case.work, "forward", target, ours=name, against=against, at_least=False)


def all_rows(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    of_correlate, of_modulated, of_local = CASES[machine.kind]
    for sizes in sized(of_correlate, given, 8):
        yield from rows(machine, correlate_case(sizes), given)
    for sizes in sized(of_modulated, given, 4):
        yield from rows(machine, modulated_case(sizes), given)
    for sizes in sized(of_local, given, 4):
        yield from rows(machine, local_case(sizes), given)
    if machine.kind == "cpu":
        yield from fresh_results(machine, given)


def fresh_results(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    """Measure what new memory costs: gradients as large as all kernels are written to some."""
    for megabytes in (38, 206):
        again = np.ones(megabytes * 250_000, np.float32)
        sides: dict[str, Callable[[], Any]] = {
            "new": lambda again=again: np.full(again.shape, 1, np.float32),
            "again": lambda again=again: again.fill(1),
        }
        measured = compare(machine, sides, given.repeats, tolerance=None)
        yield measured.row(
            f"fresh result, {megabytes} MB", "again", ours="new", against="filled again", at_least=False
        )


def main() -> int:
    return run("gradients", all_rows, all_rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
