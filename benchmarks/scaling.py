"""How time grows with pixels, taps, channels, samples and threads: linear where the work is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import correlate
import modulated
import numpy as np
from _measure import Device, compare, device, options
from _report import OURS, Row, folder, report

import cuvarconv

Curve = list[tuple[str, float, dict[str, Any]]]  # label, work in units of the first, keywords of the case


def curves(quick: bool) -> dict[str, Curve]:
    """Return what is varied, one thing at a time."""
    side = 64 if quick else 256
    sides = [side, 2 * side, 4 * side, 8 * side]
    taps = [3, 5, 9, 15]
    many = [1, 4, 16, 64]
    return {
        "correlate: pixels": [(f"{n}²", (n / side) ** 2, {"height": n}) for n in sides],
        "correlate: taps": [(f"{k}²", (k / 3) ** 2, {"height": 2 * side, "taps": k}) for k in taps],
        "correlate: channels": [(f"{c}", c, {"height": side, "channels": c}) for c in many],
        "modulated: pixels": [(f"{n}²", (n / side) ** 2, {"height": n, "mixed": 8}) for n in sides[:3]],
        "modulated: taps": [(f"{k}²", (k / 3) ** 2, {"height": side, "taps": k, "mixed": 8}) for k in taps],
        "modulated: samples": [
            (f"{n}", n, {"height": side // 2, "batch": n, "mixed": 8}) for n in (1, 2, 4, 8)
        ],
    }


def call(
    machine: Device, *, height: int, taps: int = 3, channels: int = 1, batch: int = 1, mixed: int = 0
) -> Callable[[], Any]:
    """Return a call of `modulated_correlate` if channels are mixed, else of `correlate`."""
    if mixed:
        operands = modulated.operands((batch, mixed, mixed, height, taps))
        function = cuvarconv.modulated_correlate
    else:
        operands = correlate.operands((channels, height, taps))
        function = cuvarconv.correlate
    arrays = [machine.ours(array) for array in operands]
    return lambda: function(*arrays, mode="constant")


def rows(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    """Measure each point beside the first of its curve; the ratio is time per work beside the first's."""
    for curve, points in curves(given.quick).items():
        (_, _, smallest), *others = points
        first = call(machine, **smallest)
        for label, work, size in others:
            sides = {"smallest": first, OURS: call(machine, **size)}
            measured = compare(machine, sides, given.repeats, tolerance=None)
            yield _relative(f"{curve} {label}", f"{points[0][0]} × {work:g}", measured, work)
    yield from threads(machine, given)


def threads(machine: Device, given: argparse.Namespace) -> Iterator[Row]:
    """Measure one thread beside all, on a host."""
    most = cuvarconv.get_workers()
    if machine.kind == "gpu" or most == 1:
        return
    for name, one in (
        ("correlate", call(machine, height=1024, taps=5)),
        ("modulated", call(machine, height=256, mixed=16)),
    ):

        def alone(one: Callable[[], Any] = one) -> Any:
            with cuvarconv.set_workers(1):
                return one()

        measured = compare(machine, {OURS: one, "one thread": alone}, given.repeats)
        yield measured.row(f"{name}: {most} threads", "one thread")


def _relative(work: str, against: str, measured: Any, times: float) -> Row:
    row = measured.row(work, "smallest", against=against, at_least=False)
    row.ratio /= times
    return row


def draw(done: list[Row], path: Path) -> None:
    """Draw time against work for each curve, both logarithmic; a straight grey line is linear."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    drawn = [row for row in done if "threads" not in row.work]
    names = list(dict.fromkeys(row.work.rpartition(" ")[0] for row in drawn))
    figure = Figure((11, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(2, 3).flat, names, strict=True):
        some = [row for row in drawn if row.work.rpartition(" ")[0] == name]
        start = np.median([row.seconds["smallest"]["median"] for row in some])
        work = [1.0, *(float(row.against.rpartition(" ")[2]) for row in some)]
        seconds = [start, *(row.seconds[OURS]["median"] for row in some)]
        axes.loglog(work, [1e3 * start * each for each in work], color="#a8a8a8", label="linear")
        axes.loglog(work, [1e3 * each for each in seconds], "o-", color="#2a9d8f", label="measured")
        axes.set(title=name, xlabel=f"work ({some[0].against.partition(' ')[0]} is 1)", ylabel="ms")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    figure.savefig(path)


def main() -> int:
    """Measure, and draw the curves."""
    given = options(__doc__)
    machine = device(given)
    done: list[Row] = []

    def kept() -> Iterator[Row]:
        for row in rows(machine, given):
            done.append(row)
            yield row

    with machine.entered():
        status = report("scaling", machine.name, kept(), given)
    draw(done, folder(machine.name, given) / "scaling_curves.png")
    return status


if __name__ == "__main__":
    sys.exit(main())
