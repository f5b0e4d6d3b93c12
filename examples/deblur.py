"""Recover a photograph from the blur of a lens that is worse in the corners than in the middle.

    python examples/deblur.py [IMAGE] [--size 320] [--iterations 16] [--output deblurred.png]

needs ``pip install 'cuvarconv[demo]'``.  Each pixel of the photograph is spread by a point spread
function (PSF) of its own, and a little noise is added.  `as_linear_operator` makes this blur an
operator A with its exact adjoint, and SciPy's `lsqr` finds the picture x with the smallest

    |A x − blurred|² + DAMPING² |x − blurred|²

once with the PSFs as they are, once with their mean in the place of each.  It prints how far this
goes at 1, 2, 4, … iterations, and writes a picture.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lens import lens_psfs
from scipy.ndimage import uniform_filter
from scipy.sparse.linalg import LinearOperator, lsqr

import cuvarconv
from cuvarconv._demo.panel import check_matplotlib
from cuvarconv._demo.pictures import DemoError, load

LENS = {"coma": 7.0, "astigmatism": 2.0, "defocus": 0.5}  # pixels, in the corners
NOISE = 0.003  # standard deviation; white is 1
DAMPING = 0.05


def main(arguments: list[str] | None = None) -> int:
    """Blur, recover, print, draw."""
    options = parsed(arguments)
    try:
        check_matplotlib()
        picture = load(options.image, None, options.size)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    truth = np.ascontiguousarray(np.moveaxis(picture.colours, -1, 0))
    psfs = lens_psfs(truth.shape[1:], **LENS)
    print(f"{picture.name}: {truth.shape[2]} × {truth.shape[1]} pixels, PSFs {len(psfs)} × {len(psfs)}")

    lens = blur(psfs, truth.shape)
    noise = np.random.default_rng(0).normal(0, NOISE, truth.size).astype(np.float32)
    blurred = lens @ truth.ravel() + noise
    steps = list(recoveries(lens, blurred, truth, options.iterations))

    print("with the mean PSF for all pixels:")
    uniform = recovery(blur(psfs.mean(axis=(2, 3)), truth.shape), blurred, truth, options.iterations)
    print(f"PSNR: blurred {steps[0].psnr:.1f} dB, recovered {steps[-1].psnr:.1f} dB")
    draw(options.output, truth, steps, uniform, psfs)
    print(f"written: {options.output}")
    return 0


def blur(psfs: np.ndarray, shape: tuple[int, ...]) -> LinearOperator:
    """Return the lens as an operator; light that leaves the picture is lost."""
    return cuvarconv.as_linear_operator(psfs, shape, mode="constant", form="scatter")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("image", nargs="?", type=Path, help="your photograph; default: scikit-image's")
    parser.add_argument("--size", type=positive, default=320, help="shrink to this length (default: 320)")
    parser.add_argument("--iterations", type=positive, default=16, help="of lsqr (default: 16)")
    parser.add_argument("--output", type=Path, default=Path("deblurred.png"), help="the picture to write")
    options = parser.parse_args(arguments)
    if not options.output.resolve().parent.is_dir():
        parser.error(f"no such folder: {options.output.parent}")
    return options


def positive(text: str) -> int:
    """Read an int of at least 1."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


@dataclass(frozen=True)
class Step:
    """A picture (C, H, W) after some iterations, and how good it is."""

    iterations: int
    image: np.ndarray
    residual: float
    psnr: float


def recoveries(lens: Any, blurred: np.ndarray, truth: np.ndarray, iterations: int) -> Iterator[Step]:
    """Yield the blurred picture, then that after 1, 2, 4, … iterations.

    `lsqr` keeps its iterates to itself, but what it returns when stopped after n is the n-th.
    """
    yield measured(0, lens, blurred, blurred, truth)
    count = 1
    while count < iterations:
        yield recovery(lens, blurred, truth, count)
        count *= 2
    yield recovery(lens, blurred, truth, iterations)


def recovery(lens: Any, blurred: np.ndarray, truth: np.ndarray, iterations: int) -> Step:
    """Run `lsqr` from the blurred picture."""
    result, *_ = lsqr(
        Reporting(lens, iterations), blurred, damp=DAMPING, x0=blurred, iter_lim=iterations, atol=0, btol=0
    )
    return measured(iterations, lens, blurred, result, truth)


def measured(iterations: int, lens: Any, blurred: np.ndarray, vector: np.ndarray, truth: np.ndarray) -> Step:
    """Print and return how well a picture explains the blurred one, and how near it is to the truth."""
    residual = np.linalg.norm(lens @ vector - blurred) / np.linalg.norm(blurred)
    image = np.clip(vector.reshape(truth.shape), 0, 1)
    psnr = -10 * np.log10(np.mean((image - truth) ** 2))
    print(f"{iterations:>4} iterations: residual {100 * residual:5.2f} %, PSNR {psnr:.1f} dB", flush=True)
    return Step(iterations, image, float(residual), float(psnr))


class Reporting(LinearOperator):
    """An operator that writes a line for each iteration of `lsqr`, which applies the adjoint once in each."""

    def __init__(self, operator: Any, iterations: int) -> None:
        super().__init__(operator.dtype, operator.shape)
        self._operator, self._iterations = operator, iterations
        self._done, self._start = -1, time.perf_counter()  # the first adjoint starts the solver
        self._end = "\r" if sys.stderr.isatty() else "\n"

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        return self._operator.matvec(vector)

    def _rmatvec(self, vector: np.ndarray) -> np.ndarray:
        result = self._operator.rmatvec(vector)
        self._done += 1
        if self._done:
            seconds = time.perf_counter() - self._start
            line = f"     iteration {self._done} of {self._iterations}, {seconds:.1f} s "
            print(line, end=self._end, file=sys.stderr, flush=True)
        return result


def draw(path: Path, truth: np.ndarray, steps: list[Step], uniform: Step, psfs: np.ndarray) -> None:
    """Draw the pictures, what a corner of each looks like, the PSFs and the way that `lsqr` went."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shown = (
        (steps[0].image, f"blurred, noisy: {steps[0].psnr:.1f} dB"),
        (uniform.image, f"recovered with the mean PSF: {uniform.psnr:.1f} dB"),
        (steps[-1].image, f"recovered with all PSFs: {steps[-1].psnr:.1f} dB"),
        (truth, "truth"),
    )
    shape = truth.shape[1:]
    height = 3.4 * min(max(shape[0] / shape[1], 0.4), 1.8)
    figure = Figure((14.2, 2 * height + 3.9), layout="constrained", dpi=110)
    pictures, curves = figure.subfigures(2, 1, height_ratios=(2 * height + 0.5, 3.4))
    cells = pictures.subplots(2, 4)
    top, left, rows, columns = worst_place(uniform.image - truth)
    zoom = (slice(top, top + rows), slice(left, left + columns))
    for (image, title), whole, detail in zip(shown, *cells, strict=True):
        whole.set_title(title, fontsize=12)
        whole.imshow(np.moveaxis(image, 0, -1))
        whole.add_patch(Rectangle((left - 0.5, top - 0.5), columns, rows, fill=False, ec="#ffd21f", lw=1.6))
        detail.imshow(np.moveaxis(image[(slice(None), *zoom)], 0, -1))
        whole.set_axis_off()
        detail.set(xticks=(), yticks=())
        for spine in detail.spines.values():
            spine.set(color="#ffd21f", linewidth=2.5)
    draw_curves(curves, steps, psfs)
    figure.savefig(path, format="png")


def worst_place(error: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the place where a picture is farthest from the truth."""
    rows, columns = (max(1, length // 4) for length in error.shape[1:])
    energy = uniform_filter((error**2).sum(axis=0), (rows, columns), mode="constant")
    row, column = np.unravel_index(int(energy.argmax()), energy.shape)
    top = min(max(int(row) - rows // 2, 0), error.shape[1] - rows)
    left = min(max(int(column) - columns // 2, 0), error.shape[2] - columns)
    return top, left, rows, columns


def draw_curves(figure: Any, steps: list[Step], psfs: np.ndarray) -> None:
    """Draw PSFs from all over the picture, and residual and PSNR against the iterations."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    spots, residual, psnr = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    spots.set_title("PSFs: where the light of a point goes", fontsize=12)
    spots.imshow(spot_diagram(psfs), cmap="gray_r")
    spots.set(xticks=(), yticks=())
    iterations = [step.iterations for step in steps]
    ticks = [n for n in iterations if 1.5 * n < iterations[-1]] + iterations[-1:]
    residual.semilogy(iterations, [100 * step.residual for step in steps], "o-", color="#1f6fb4")
    residual.set_title("residual |Ax − blurred| / |blurred|, %", fontsize=12)
    psnr.plot(iterations, [step.psnr for step in steps], "o-", color="#c8501e")
    psnr.set_title("PSNR against the truth, dB", fontsize=12)
    residual.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    residual.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    residual.yaxis.set_minor_locator(NullLocator())
    for axes in (residual, psnr):
        axes.set_xscale("symlog", base=2, linthresh=1)
        axes.set_xticks(ticks, labels=ticks)
        axes.set_xlabel("iterations of lsqr", fontsize=11)
        axes.grid(alpha=0.3)


def spot_diagram(psfs: np.ndarray, longest: int = 7) -> np.ndarray:
    """Put PSFs from a grid of places side by side, each as dark as the others."""
    shape = psfs.shape[2:]
    counts = [max(1, round(longest * length / max(shape))) for length in shape]
    i, j = (((np.arange(n) + 0.5) * length / n).astype(int) for n, length in zip(counts, shape, strict=True))
    spots = psfs[:, :, i[:, None], j]
    tiles = np.sqrt(spots / spots.max(axis=(0, 1)))
    return tiles.transpose(2, 0, 3, 1).reshape(counts[0] * len(psfs), -1)


if __name__ == "__main__":
    sys.exit(main())
