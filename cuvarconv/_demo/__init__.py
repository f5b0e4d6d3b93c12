"""``python -m cuvarconv demo``: blurs and filters of a photograph, their pictures and their cost."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import cuvarconv
from cuvarconv._demo.blurs import Blur, DepthBlur, IntensityBlur, unfold_formula
from cuvarconv._demo.filters import draw_filtered, filtered
from cuvarconv._demo.measure import interleaved_seconds, peak_extra_bytes
from cuvarconv._demo.panel import Row, check_matplotlib, draw
from cuvarconv._demo.pictures import DemoError, Picture, load, reason, save

__all__ = ["DemoError", "run"]

_BAND_BYTES = 64 << 20  # kernels in memory at a time
_UNFOLD_BYTES = 256 << 20  # what unfold may take in the comparison
_CHANNELS = 3


def run(options: argparse.Namespace) -> None:
    """Read, blur, compare, write; `options` are those of the command line."""
    check_matplotlib()
    progress = _Progress()
    with progress.stage("reading the picture"):
        picture = load(options.image, options.disparity, options.size)
        folder = _made(options.output)
    print(_headline(picture))
    rows, written = [], []
    for title, file_name, blur in _blurs(picture, options):
        with progress.stage(f"{title}: blurring") as advance:
            result, seconds = blurred(blur, advance)
        save(folder / file_name, result)
        rows.append(panel_row(picture, blur, result))
        written.append(file_name)
        print(f"\n{title}: {_described(blur, seconds)}")
        with progress.stage(f"{title}: comparing with unfold"):
            print(_comparison(blur, options.repeats))
    print("\nfilters that adapt to the image, weights made on the fly:")
    shown = []
    with progress.stage("filters that adapt"):
        for one in filtered(picture, options.sigma_max):
            print(f"  {one.title + ', ' + one.function:<52}{one.seconds:6.2f} s")
            shown.append(one)
    with progress.stage("drawing the panels"):
        draw(rows, folder / "panel.png", width=6.0)
        draw_filtered(shown, folder / "filters.png")
    print(f"\nwritten to {folder}: {', '.join(written)}, panel.png, filters.png")


def _made(folder: Path) -> Path:
    """Make the output folder, and see that it can be written to, before the work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".cuvarconv-demo"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DemoError(f"cannot write to {folder}: {reason(error)}") from None
    return folder


def _headline(picture: Picture) -> str:
    height, width = picture.colours.shape[:2]
    shrunk = ""
    if picture.original_size != (height, width):
        shrunk = f", shrunk from {picture.original_size[1]} × {picture.original_size[0]}"
    return (
        f"cuvarconv {cuvarconv.__version__} on NumPy arrays, {cuvarconv.get_workers()} threads\n"
        f"{picture.name}: {width} × {height} pixels{shrunk}"
    )


def _blurs(picture: Picture, options: argparse.Namespace) -> Iterator[tuple[str, str, Blur]]:
    yield (
        "blur by intensity",
        "intensity_blur.png",
        IntensityBlur(picture.colours, options.sigma_max),
    )
    if picture.disparity is not None:
        blur = DepthBlur(picture.colours, picture.disparity, options.focus, options.disc_max)
        yield "depth of field", "depth_blur.png", blur


def blurred(
    blur: Blur, advance: Callable[[float], None] = lambda fraction: None
) -> tuple[np.ndarray, dict[str, float]]:
    """Compute the whole picture in bands of rows, so that few kernels are in memory at a time."""
    height, width = blur.spread.shape
    rows = max(1, _BAND_BYTES // (4 * width * (2 * blur.radius + 1) ** 2))
    seconds = {"kernels": 0.0, "function": 0.0}
    bands = []
    for top in range(0, height, rows):
        start = time.perf_counter()
        operands = blur.operands(slice(top, min(top + rows, height)))
        made = time.perf_counter()
        result = blur.correlate(*operands)
        seconds["kernels"] += made - start
        seconds["function"] += time.perf_counter() - made
        bands.append(blur.picture(result))
        advance(min(1.0, (top + rows) / height))
    return np.concatenate(bands), seconds


def _described(blur: Blur, seconds: dict[str, float]) -> str:
    side = 2 * blur.radius + 1
    return (
        f"{blur.function}, window {side} × {side}, a kernel for each pixel\n"
        f"  whole picture: {seconds['function']:.2f} s, and "
        f"{seconds['kernels']:.2f} s to make the kernels"
    )


def panel_row(picture: Picture, blur: Blur, result: np.ndarray) -> Row:
    """Describe a blur for the panel."""
    if isinstance(blur, DepthBlur):
        middle = f"disc radius in pixels, ∝ |disparity − {blur.focus:.1f}|"
        titles = ("disparity: near is bright", middle, "correlate: depth of field")
        return Row(picture.colours, blur.spread, result, titles, picture.disparity)
    titles = ("photograph", "σ in pixels, ∝ intensity", "modulated_correlate: blur by intensity")
    return Row(picture.colours, blur.spread, result, titles)


def _comparison(blur: Blur, repeats: int) -> str:
    """Measure both sides on the middle of the picture, as much of it as unfold's memory allows."""
    part = _middle(blur)
    operands = blur.operands(*part)
    name, convert, formula = unfold_formula(blur.function)
    converted = tuple(map(convert, blur.channels_first(*operands)))
    sides: dict[str, Callable[[], Any]] = {
        "cuvarconv": lambda: blur.correlate(*operands),
        name: lambda: formula(*converted),
    }
    with _same_threads():
        expected = np.asarray(formula(*converted))
        result = blur.correlate(*operands)
        seconds = {
            side: statistics.median(times) for side, times in interleaved_seconds(sides, repeats).items()
        }
        memory = {side: peak_extra_bytes(function) for side, function in sides.items()}
    height, width = (axis.stop - axis.start for axis in part)
    where = "the whole picture" if (height, width) == blur.spread.shape else "the middle"
    deviation = np.abs(blur.channels_first(result)[0] - expected).max()
    return (
        f"  beside {name}, {where}, {width} × {height} pixels:\n"
        f"    largest deviation from the formula: {deviation:.1e} (values 0…1, float32)\n"
        + _table(name, seconds, memory, repeats)
    )


def _middle(blur: Blur) -> tuple[slice, slice]:
    """Return the rows and columns whose unfolded columns, and their product, fit the memory."""
    taps = (2 * blur.radius + 1) ** 2
    pixels = _UNFOLD_BYTES // (2 * 4 * _CHANNELS * taps)
    height, width = blur.spread.shape
    scale = min(1.0, (pixels / (height * width)) ** 0.5)
    part = []
    for length in (height, width):
        kept = max(1, int(length * scale))
        part.append(slice((length - kept) // 2, (length - kept) // 2 + kept))
    return part[0], part[1]


def _table(name: str, seconds: dict[str, float], memory: dict[str, int | None], repeats: int) -> str:
    lines = [f"    {'':<22}{'cuvarconv':>14}{name:>14}{'ratio':>9}"]
    ours, theirs = seconds["cuvarconv"], seconds[name]
    lines.append(
        f"    {'time':<22}{1e3 * ours:>11.1f} ms{1e3 * theirs:>11.1f} ms{theirs / ours:>8.1f}×"
        f"   medians of {repeats}"
    )
    mine, unfolds = memory["cuvarconv"], memory[name]
    if mine is None or unfolds is None:
        lines.append(f"    {'peak extra memory':<22}not measured: needs Linux's /proc and glibc")
    else:
        ratio = f"{unfolds / mine:>8.0f}×" if mine else f"{'–':>9}"
        lines.append(
            f"    {'peak extra memory':<22}{mine / 2**20:>10.1f} MiB{unfolds / 2**20:>10.1f} MiB"
            f"{ratio}   resident, result included"
        )
    return "\n".join(lines)


@contextmanager
def _same_threads() -> Iterator[None]:
    """Let PyTorch, where it is in use, have as many threads as cuvarconv."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(cuvarconv.get_workers())
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Progress:
    """Stages on stderr: a line each, which a terminal sees move."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._live = sys.stderr.isatty()

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Announce a stage; what it yields takes the fraction that is done."""

        def show(end: str, fraction: float | None = None) -> None:
            elapsed = time.perf_counter() - self._start
            done = "" if fraction is None else f" {100 * fraction:3.0f} %"
            sys.stderr.write(f"{chr(13) * self._live}[{elapsed:5.1f} s] {name}{done}{end}")
            sys.stderr.flush()

        def advance(fraction: float) -> None:
            if self._live:
                show("", fraction)

        show("" if self._live else "\n")
        try:
            yield advance
        finally:
            if self._live:
                sys.stderr.write("\n")
