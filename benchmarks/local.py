"""Full kernels, `local_correlate`, beside JAX's locally connected layer and torch's unfold + einsum."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _launch import launch_rows
from _measure import Device, Gpu, bandwidth, compare, random, run, sized
from _report import OURS, Row
from _roofline import Cost

import cuvarconv

Case = tuple[int, int, int, int]  # (N, C = C_out, H, k)
MAIN: Case = (1, 16, 64, 3)
CASES: list[Case] = [MAIN, (4, 16, 64, 3), (1, 4, 64, 3), (1, 64, 64, 3)]
GPU_CASES: list[Case] = [(1, 16, 256, 3), (4, 16, 256, 3), (1, 4, 256, 3)]
TORCH = "torch unfold + einsum"
# Axes of our (kh, kw, H, W, C, O) in JAX's layouts of kernels; C, kh and kw are one axis there.
LAYOUTS = {"OIHW": (5, 4, 0, 1, 2, 3), "HWIO": (2, 3, 4, 0, 1, 5)}
JAX_NAMES = {"OIHW": "JAX OIHW (default)", "HWIO": "JAX HWIO"}


def operands(case: Case) -> tuple[Any, Any]:
    """Make images and the kernels that all of them share."""
    batch, channels, height, taps = case
    image = random(1, batch, channels, height, height)
    return image, random(2, taps, taps, height, height, channels, channels)


def describe(case: Case) -> str:
    batch, channels, height, taps = case
    return f"N = {batch}, {channels} → {channels}, {height} × {height}, {taps} × {taps}"


def cost(case: Case) -> Cost:
    """Return the least that a call does: images and kernels in, as many images out, the sums."""
    batch, channels, height, taps = case
    image, kernels = batch * channels * height**2, (taps * height * channels) ** 2
    return Cost(4 * (2 * image + kernels), 2 * batch * kernels)


def unfold(image: Any, kernels: Any) -> Any:
    """Compute Σ k[m,n,i,j,c,o] x[c,i+m,j+n] as people do it in PyTorch: unfold, einsum."""
    import torch
    from torch.nn.functional import unfold

    kh, kw, height, width, _, outputs = kernels.shape
    columns = unfold(image, (kh, kw), padding=(kh // 2, kw // 2))
    matrices = kernels.permute(2, 3, 4, 0, 1, 5).reshape(height * width, -1, outputs)
    result = torch.einsum("npl,lpo->nol", columns, matrices)
    return result.reshape(-1, outputs, height, width)


def for_torch(kernels: np.ndarray) -> np.ndarray:
    """Return the same kernels in the memory order in which `unfold` need not copy them."""
    order = LAYOUTS["HWIO"]
    return np.ascontiguousarray(kernels.transpose(order)).transpose(np.argsort(order))


class Jax:
    """JAX's `conv_general_dilated_local` on the CPU, compiled, with one layout of the kernels."""

    def __init__(self, image: np.ndarray, kernels: np.ndarray, layout: str, threads: int) -> None:
        os.environ["NPROC"] = str(threads)  # XLA reads it when JAX computes for the first time
        import jax

        jax.config.update("jax_platforms", "cpu")
        size = kernels.shape[:2]
        ordered = kernels.transpose(LAYOUTS[layout])
        joined = layout.index("I")
        shape = (*ordered.shape[:joined], -1, *ordered.shape[joined + 3 :])
        self._back = ordered.shape, np.argsort(LAYOUTS[layout])
        self._operands = jax.device_put(image), jax.device_put(ordered.reshape(shape))

        def formula(x: Any, k: Any) -> Any:
            return jax.lax.conv_general_dilated_local(
                x, k, (1, 1), "SAME", size, dimension_numbers=("NCHW", layout, "NCHW")
            )

        self._formula = formula
        self._compiled = jax.jit(formula)

    def forward(self) -> Any:
        return self._compiled(*self._operands).block_until_ready()

    def value_and_grad(self, grad: np.ndarray) -> Callable[[], tuple[Any, ...]]:
        """Return a call for the result and both gradients of the loss Σ grad·result."""
        import jax

        def loss(x: Any, k: Any, g: Any) -> tuple[Any, Any]:
            result = self._formula(x, k)
            return jax.numpy.vdot(result, g), result

        compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        operands = *self._operands, jax.device_put(grad)
        shape, order = self._back

        def call() -> tuple[Any, ...]:
            (_, result), (in_image, in_kernels) = jax.block_until_ready(compiled(*operands))
            return result, in_image, np.asarray(in_kernels).reshape(shape).transpose(order)

        return call


def jax_sides(machine: Device, image: np.ndarray, kernels: np.ndarray) -> dict[str, Jax]:
    """Return JAX with each layout of kernels, under the names of the sides; it runs on the CPU only."""
    if machine.kind == "gpu":
        return {}
    return {name: Jax(image, kernels, layout, machine.threads) for layout, name in JAX_NAMES.items()}


def beside_others(machine: Device, case: Case, given: argparse.Namespace) -> Iterator[Row]:
    """Measure one case beside both libraries; the target is set against JAX's default layout."""
    image, kernels = operands(case)
    x, k = machine.ours(image), machine.ours(kernels)
    tx, tk = machine.torchs(image), machine.torchs(for_torch(kernels))
    others = {name: side.forward for name, side in jax_sides(machine, image, kernels).items()}
    sides: dict[str, Callable[[], Any]] = {
        OURS: lambda: cuvarconv.local_correlate(x, k, mode="constant"),
        **others,
        TORCH: lambda: unfold(tx, tk),
    }
    measured = compare(machine, sides, given.repeats)
    for name in (*others, TORCH):
        aimed = case[:2] == MAIN[:2] and name == JAX_NAMES["OIHW"]
        yield measured.row(describe(case), name, 4 if aimed else None, cost=cost(case))


def cpu_rows(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    for case in sized(CASES, given, 4):
        yield from beside_others(machine, case, given)


def gpu_rows(machine: Gpu, given: argparse.Namespace) -> Iterator[Row]:
    for case in sized([(1, 16, 512, 3), (1, 4, 512, 3)], given, 8):
        yield beside_copy(machine, case, given)
    for case in sized(GPU_CASES, given, 4):
        yield from beside_others(machine, case, given)
    yield from launch_rows(machine, given, "local_correlate")


def beside_copy(machine: Gpu, case: Case, given: argparse.Namespace) -> Row:
    x, k = map(machine.ours, operands(case))
    y = x.copy()
    target = 80 if case[:2] == MAIN[:2] else None
    return bandwidth(
        machine,
        describe(case),
        lambda: cuvarconv.local_correlate(x, k, y, mode="constant"),
        cost(case).nbytes,
        given,
        target,
    )


def main() -> int:
    return run("local", cpu_rows, gpu_rows, __doc__)


if __name__ == "__main__":
    sys.exit(main())
