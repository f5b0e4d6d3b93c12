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
    parser.add_argument(
        "--size", type=positive, default=size, help=f"shrink to this length (default: {size})"
    )
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
        last = self._done >= self._steps
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


def zoom(whole: Any, detail: Any, image: np.ndarray, corner: tuple[int, int], side: tuple[int, int]) -> None:
    """Frame a part of a picture (C, H, W) that is drawn already, and draw that part enlarged."""
    from matplotlib.patches import Rectangle

    (top, left), (height, width) = corner, side
    whole.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, ec=FRAME, lw=1.6))
    show(detail, image[:, top : top + height, left : left + width], interpolation="nearest")
    for spine in detail.spines.values():
        spine.set(color=FRAME, linewidth=2)


def curve(axes: Any, values: Sequence[float], **keywords: Any) -> None:
    """Draw values against steps."""
    axes.plot(np.arange(1, len(values) + 1), values, **keywords)
    axes.grid(alpha=0.3)
