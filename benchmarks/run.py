"""All benchmarks, one after the other in one process, and one table of what they wrote."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from _measure import device, options
from _report import folder, roof_share, short_time

SCRIPTS = (
    "correlate",
    "modulated",
    "local",
    "spread",
    "gradients",
    "gaussian",
    "bilateral",
    "dask_blocks",
    "torch_layers",
    "scaling",
)
HEADINGS = ("work", "against", "cuvarconv", "other", "ratio", "target", "", "of the ceiling")


def main() -> int:
    """Run every script with the options given; return 1 if a target is missed."""
    given = options(__doc__)
    missed = [name for name in SCRIPTS if importlib.import_module(name).main()]
    place = folder(device(given).name, given)
    (place / "table.md").write_text(table(place), encoding="utf-8")
    print(f"targets missed in: {', '.join(missed) or 'none'}; {place / 'table.md'}")
    return int(bool(missed))


def table(place: Path) -> str:
    """Return the rows of all JSON files as Markdown."""
    lines = []
    for name in SCRIPTS:
        path = place / f"{name}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            lines += ["", f"## `{name}`, {record['when']}, {record['versions']['cuvarconv']}", ""]
            lines += [_cells(*HEADINGS), _cells(*("---" for _ in HEADINGS))]
            lines += [_line(row) for row in record["rows"]]
    device_name = record["device"] if lines else "no device"
    return f"# Benchmarks on {device_name}\n" + "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    times = [short_time(some["median"]) for some in row["seconds"].values()]
    ours, theirs = (*times, "–", "–")[:2]
    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}{row['unit']}"
    target = (
        "–" if row["target"] is None else f"{'≥' if row['at_least'] else '≤'} {row['target']:g}{row['unit']}"
    )
    verdict = {True: "met", False: "**not met**", None: ""}[row["met"]]
    share = roof_share(row.get("roof"))
    return _cells(row["work"], row["against"], ours, theirs, ratio, target, verdict, share)


def _cells(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


if __name__ == "__main__":
    sys.exit(main())
