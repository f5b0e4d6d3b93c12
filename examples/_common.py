"""What the examples share: the command line, a line of progress, and parts of pictures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FRAME = "#ffd21f"


def command_line(description: str, *, size: int, steps: int, output: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("image", nargs="?", type=Path, help="your photograph; default: scikit-image's")
    parser.add_argument("--size", type=positive, default=size, help=f"shrink to this length (default: {size})")
    parser.add_argument("--steps", type=positive, default=steps, help=f"of learning (default: {steps})")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default: 0)")
    parser.add_argument("--output", type=Path, default=Path(output), help=f"picture (default: {output})")
    return parser


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line, and complain early of an output that has no folder."""
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


class Progress:
    """A line with a bar, written anew at each step; ten lines in all where the output is no terminal."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done, self._start = steps, 0, time.perf_counter()

    def step(self, text: str) -> None:
        """Say that a step is done, and what came of it."""
        self._done += 1
        last = self._done == self._steps
        seconds = time.perf_counter() - self._start
        tenths = 10 * self._done // self._steps
        line = f"[{'#' * tenths:<10}] {self._done}/{self._steps} {seconds:5.1f} s  {text}"
        if sys.stderr.isatty():
            print(f"\r{line:<78}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif tenths > 10 * (self._done - 1) // self._steps:
            print(line, file=sys.stderr, flush=True)


def show(axes: Any, image: np.ndarray, title: str = "", **keywords: Any) -> Any:
    """Draw a picture (C, H, W) in 0…1, or a map (H, W), without ticks."""
    axes.set_title(title, fontsize=11)
    axes.set(xticks=(), yticks=())
    shown = np.clip(np.moveaxis(image, 0, -1), 0, 1) if image.ndim == 3 else image
    return axes.imshow(shown, **keywords)


def mark(axes: Any, top: int, left: int, side: tuple[int, int]) -> None:
    """Frame the part of a picture that a zoom shows."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left - 0.5, top - 0.5), side[1], side[0], fill=False, ec=FRAME, lw=1.6))


def show_part(axes: Any, image: np.ndarray, top: int, left: int, side: tuple[int, int]) -> None:
    """Draw the framed part of a picture (C, H, W), enlarged."""
    show(axes, image[:, top : top + side[0], left : left + side[1]], interpolation="nearest")
    for spine in axes.spines.values():
        spine.set(color=FRAME, linewidth=2)


def curve(axes: Any, values: Sequence[float], title: str, xlabel: str, **keywords: Any) -> None:
    """Draw values against steps, on a logarithmic scale."""
    axes.semilogy(np.arange(1, len(values) + 1), values, **keywords)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(xlabel, fontsize=10)
    axes.grid(alpha=0.3)
