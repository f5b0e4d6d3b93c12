"""What the benchmarks write: a table as the rows come, then JSON and a plot."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cuvarconv

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("numpy", "scipy", "torch", "jax", "jaxlib", "cupy-cuda12x", "cupy-cuda13x", "ml_dtypes")
OURS = "cuvarconv"


@dataclass
class Row:
    """One line of a table: medians in seconds, and a ratio, which has a target or None."""

    work: str
    against: str
    ratio: float
    target: float | None
    at_least: bool
    unit: str
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)
    note: str = ""
    roof: dict[str, Any] | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached, None where there is none."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    @property
    def goal(self) -> str:
        """The target in words."""
        return "–" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g}{self.unit}"

    @property
    def margin(self) -> float:
        """How far beyond the target, above 1 where it is reached; without a target, beyond equality."""
        target = (100 if self.unit == " %" else 1) if self.target is None else self.target
        return self.ratio / target if self.at_least else target / self.ratio

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold; a row that did not run has no ratio."""
        ratio = self.ratio if math.isfinite(self.ratio) else None
        return asdict(self) | {"ratio": ratio, "met": self.met}


def report(script: str, device: str, rows: Iterable[Row], given: argparse.Namespace) -> int:
    """Print rows as they come; save them as JSON and as a plot.  Return 1 if a target is missed."""
    print(f"{script} on {device}")
    print(
        f"{'work':<49}{'against':<36}{OURS:>11}{'other':>11}{'ratio':>9}  "
        f"{'target':<8}{'':8}  peak extra memory"
    )
    done = []
    for row in rows:
        done.append(row)
        print(_line(row), flush=True)
    place = folder(device, given)
    record = {
        "script": script,
        "device": device,
        "quick": given.quick,
        "when": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {"cuvarconv": _state(), **_versions()},
        "rows": [row.record() for row in done],
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (place / f"{script}.json").write_text(text + "\n", encoding="utf-8")
    _plot(done, f"{script} on {device}", place / f"{script}.png")
    verdicts = [row.met for row in done if row.met is not None]
    print(f"{sum(verdicts)} of {len(verdicts)} targets met")
    return int(not all(verdicts))


def folder(device: str, given: argparse.Namespace) -> Path:
    """Return where the results of a device are written, made if need be."""
    place = given.output / _slug(device)
    if given.quick:
        place /= "quick"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _line(row: Row) -> str:
    other = next((side for side in row.seconds if side != OURS), OURS)
    ours, theirs = (
        short_time(row.seconds[side]["median"]) if side in row.seconds else "–" for side in (OURS, other)
    )
    memory = " and ".join(
        "not measured" if value is None else f"{value / 2**20:.1f} MiB" for value in row.memory.values()
    )
    verdict = {True: "met", False: "NOT MET", None: ""}[row.met]
    notes = "".join(f"  {note}" for note in (roof_share(row.roof), row.note) if note)
    return (
        f"{row.work:<49}{row.against:<36}{ours:>11}{theirs:>11}{_ratio(row):>9}  "
        f"{row.goal:<8}{verdict:<8}  {memory}{notes}"
    )


def roof_share(roof: dict[str, Any] | None) -> str:
    """Write how near to the ceiling a row comes, and to which."""
    return f"{100 * roof['share']:.0f} % of {roof['bound']}" if roof else ""


def _ratio(row: Row) -> str:
    return f"{row.ratio:.2f}{row.unit}" if math.isfinite(row.ratio) else "–"


def short_time(seconds: float) -> str:
    """Write a time in milliseconds or microseconds."""
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} µs"


def _plot(done: list[Row], title: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    rows = [row for row in done if math.isfinite(row.ratio)]
    figure = Figure((11, 0.9 + 0.32 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = {True: "#2a9d8f", False: "#e76f51", None: "#a8a8a8"}
    bars = axes.barh(
        range(len(rows)),
        [row.margin - 1 for row in rows],
        left=1,
        color=[colours[row.met] for row in rows],
        height=0.7,
    )
    labels = [f"{_ratio(row)} (target {row.goal})" for row in rows]
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row.work}  {row.against}" for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    low, high = _limits([row.margin for row in rows])
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    steps = (1, 2, 5) if high < 1000 * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=9)
    meaning = "how far beyond the target (right of the line: met)"
    if any(row.target is None for row in rows):
        meaning += "; grey: no target, how far beyond the other side"
    axes.set_xlabel(meaning, fontsize=9)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _limits(margins: list[float]) -> tuple[float, float]:
    """Return the ends of the logarithmic axis, with room for the labels at the ends of the bars."""
    low, high = min(0.8, *margins), max(1.25, *margins)
    room = (high / low) ** 0.45
    return low / (room if min(margins) < 1 else 1), high * room


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _state() -> str:
    """Return the version, and the commit where this is a checkout."""
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return cuvarconv.__version__
    return f"{cuvarconv.__version__}, commit {done.stdout.strip()}"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-")
