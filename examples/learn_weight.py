"""Learn the shared kernel w of a blur that differs from pixel to pixel, from one photograph.

    python examples/learn_weight.py [IMAGE] [--steps 220] [--size 256] [--seed 0]
        [--output learned_weight.png]

needs ``pip install 'cuvarconv[demo,torch]'``.  The photograph x is blurred by equation (2),

    y[o,i,j] = Σ_{c,m,n} w[o,c,m,n] d[m,n,i,j] x[c,i+m,j+n]

where d is known: Gaussians, as wide as the pixel is bright, each with sum 1.  From x, d and y alone
gradient descent (L-BFGS) finds w, beginning with w = 0.  The exit status is 1 if the relative error
|w found − w| / |w| is above 10⁻³.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Progress, command_line, curve, parsed, show
from torch import Tensor

from cuvarconv._demo.panel import check_matplotlib
from cuvarconv._demo.pictures import DemoError, load
from cuvarconv.torch import modulated_conv2d

SIDE = 5  # taps of w and d
SIGMA_MAX = 3.0  # pixels, where the photograph is white
LUMA = (0.2126, 0.7152, 0.0722)  # how bright red, green and blue are
GOAL = 1e-3


def main(arguments: list[str] | None = None) -> int:
    """Blur, learn, print, draw."""
    parser = command_line("Learn w of equation (2).", size=256, steps=220, output="learned_weight.png")
    options = parsed(parser, arguments)
    try:
        check_matplotlib()
        picture = load(options.image, None, options.size)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    torch.manual_seed(options.seed)
    image = torch.tensor(np.moveaxis(picture.colours, -1, 0), dtype=torch.float64)
    sigma = SIGMA_MAX * torch.tensordot(image.new_tensor(LUMA), image, dims=1)
    blur, truth = Blur(image, gaussians(sigma)), prism()
    print(f"{picture.name}: {sigma.shape[1]} × {sigma.shape[0]} pixels, w: {tuple(truth.shape)}")

    course = learned(blur, truth, options.steps)
    error = relative_error(course.weight, truth)
    print(f"relative error of w: {error:.1e} after {len(course.losses)} evaluations")
    draw(options.output, blur, sigma, truth, course)
    print(f"written: {options.output}")
    if error > GOAL:
        print(f"error: that is above {GOAL:.0e}; --steps {2 * options.steps} may do", file=sys.stderr)
    return int(error > GOAL)


@dataclass(frozen=True)
class Blur:
    """Equation (2) with a known image (C, H, W) and modulation (kh, kw, H, W)."""

    image: Tensor
    modulation: Tensor

    def __call__(self, weight: Tensor) -> Tensor:
        """Return y."""
        return modulated_conv2d(self.image, weight, self.modulation, padding="same", padding_mode="replicate")


def gaussians(sigma: Tensor) -> Tensor:
    """Return d (kh, kw, H, W): Gaussians for a map of widths (H, W), each with sum 1."""
    taps = torch.arange(SIDE, dtype=sigma.dtype)[:, None, None] - SIDE // 2
    one_axis = torch.exp(-0.5 * (taps / sigma.clamp(min=1e-3)) ** 2)
    one_axis = one_axis / one_axis.sum(dim=0)
    return one_axis[:, None] * one_axis[None, :]


def prism() -> Tensor:
    """Return the w to be found: it pulls red, green and blue apart, and mixes them a little, at random."""
    down, right = torch.meshgrid(*[torch.linspace(-1, 1, SIDE, dtype=torch.float64)] * 2, indexing="ij")
    weight = 0.1 * torch.randn(3, 3, SIDE, SIDE, dtype=torch.float64)
    for c, ramp in enumerate((right, -down, -right)):
        weight[c, c] += 1 + ramp
    return weight


@dataclass
class Course:
    """How the learning went: of each evaluation the loss and the error of w, and the last w."""

    losses: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    weight: Tensor | None = None


def learned(blur: Blur, truth: Tensor, evaluations: int) -> Course:
    """Find w from what it does to the image; the truth itself only serves to report the error.

    Taps far from the centre have small d, and would learn slowly.  What is learned is therefore
    w·scale, where scale is the size of d at each tap.  And torch's L-BFGS takes no notice of changes
    below 1e-10, hence the large unit of the loss.
    """
    scale = blur.modulation.square().mean(dim=(2, 3)).sqrt()
    scaled = torch.zeros_like(truth, requires_grad=True)
    target = blur(truth)
    unit = 1e-9 * slopes(target)
    progress, course = Progress(evaluations), Course()
    optimizer = torch.optim.LBFGS(
        [scaled],
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=100,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = slopes(blur(scaled / scale) - target) / unit
        loss.backward()
        course.losses.append(1e-9 * loss.item())
        course.errors.append(relative_error(scaled.detach() / scale, truth))
        progress.step(f"loss {course.losses[-1]:.1e}, error of w {course.errors[-1]:.1e}")
        return loss

    optimizer.step(evaluate)
    course.weight = scaled.detach() / scale
    return course


def slopes(picture: Tensor) -> Tensor:
    """Return the sum of squared differences between neighbouring pixels.

    The loss compares slopes because photographs are smooth: the pixels under neighbouring taps are so
    alike that the squared error itself would hardly tell the taps apart.
    """
    return picture.diff(dim=-1).square().sum() + picture.diff(dim=-2).square().sum()


def relative_error(weight: Tensor, truth: Tensor) -> float:
    """Return |weight − truth| / |truth|."""
    return float((weight - truth).norm() / truth.norm())


def draw(path: Path, blur: Blur, sigma: Tensor, truth: Tensor, course: Course) -> None:
    """Draw the pictures, the kernels and how the learning went."""
    from matplotlib.figure import Figure

    target, result = blur(truth).numpy(), blur(course.weight).numpy()
    height = 3.8 * min(max(sigma.shape[0] / sigma.shape[1], 0.4), 1.8)
    figure = Figure((13, 2 * height + 4.1), layout="compressed", dpi=110)
    cells = figure.subplots(3, 3, height_ratios=(height, height, 3.6))

    show(cells[0, 0], blur.image.numpy(), "photograph x")
    scale(cells[0, 1], sigma.numpy(), "width of the Gaussians d, pixels", cmap="magma", vmin=0)
    show(cells[0, 2], target, "blurred with the true w: y")
    show(cells[1, 0], result, "blurred with the w found")
    difference = np.abs(result - target).max(axis=0)
    scale(cells[1, 1], difference, "their difference (white is 1)", cmap="magma", vmin=0)
    curve(cells[1, 2], course.losses, color="#1f6fb4", label="loss")
    curve(cells[1, 2], course.errors, color="#c8501e", label="relative error of w")
    cells[1, 2].set(yscale="log", xlabel="evaluations of the loss")
    cells[1, 2].axhline(GOAL, color="#c8501e", lw=0.8, ls="--")
    cells[1, 2].legend(frameon=False)

    most = float(truth.abs().max())
    colours = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    scale(cells[2, 0], tiles(truth), "true w: c →, o ↓, each 5 × 5", **colours)
    scale(cells[2, 1], tiles(course.weight), "w found", **colours)
    off = tiles(course.weight - truth)
    most = float(np.nanmax(np.abs(off)))
    scale(cells[2, 2], off, "difference", cmap="RdBu_r", vmin=-most, vmax=most)
    figure.savefig(path, format="png")


def scale(axes: Any, image: np.ndarray, title: str, **keywords: Any) -> None:
    """Draw a map with a bar that tells what its colours mean."""
    bar = axes.figure.colorbar(show(axes, image, title, **keywords), ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.formatter.set_powerlimits((-2, 3))


def tiles(weight: Tensor) -> np.ndarray:
    """Put the kernels (O, C, kh, kw) side by side, with gaps of NaN."""
    gaps = np.pad(weight.numpy(), ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=np.nan)
    rows, columns = (a * b for a, b in zip(gaps.shape[:2], gaps.shape[2:], strict=True))
    return gaps.transpose(0, 2, 1, 3).reshape(rows, columns)[1:, 1:]


if __name__ == "__main__":
    torch.set_num_threads(1)  # in pictures as small as these, threads wait more than they work
    sys.exit(main())
