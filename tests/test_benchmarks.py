"""The benchmarks run, and what they write is what they measured; how fast it is, no test asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
pytest.importorskip("torch", reason="the other side of most benchmarks")
pytest.importorskip("matplotlib", reason="draws the plots")


def run(script: str, output: Path) -> list[dict]:
    """Run a benchmark on small work and return its rows."""
    command = [
        sys.executable,
        str(BENCHMARKS / f"{script}.py"),
        "--quick",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    done = subprocess.run(
        [*command, "--repeats", "2", "--output", str(output)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)},
        timeout=600,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a target is missed, as it may be on small work
    (path,) = output.glob(f"*/quick/{script}.json")
    assert path.with_suffix(".png").stat().st_size > 0
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize("script", ["correlate", "modulated", "spread"])
def test_rows_hold_what_was_measured(script: str, tmp_path: Path) -> None:
    rows = run(script, tmp_path)
    assert len({row["work"] for row in rows}) >= 4
    for row in rows:
        ours, other = (times["median"] for times in row["seconds"].values())
        assert row["ratio"] == pytest.approx(other / ours if row["at_least"] else ours / other)
        assert row["roof"] is None or row["roof"]["share"] > 0
    assert any(row["roof"] for row in rows)


def test_position_below_the_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _roofline import Ceilings, Cost

    ceilings = Ceilings(bytes_per_s=10.0, operations_per_s=100.0)
    reading = ceilings.position(Cost(40, 100), seconds=8.0)  # 4 s to move, 1 s to compute
    assert (reading["bound"], reading["share"]) == ("memory", 0.5)
    computing = ceilings.position(Cost(40, 1000), seconds=40.0)  # 10 s to compute
    assert (computing["bound"], computing["share"]) == ("arithmetic", 0.25)


def test_cost_of_equation_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import modulated

    arrays = modulated.operands((2, 3, 5, 8, 3))
    least = modulated.cost((2, 3, 5, 8, 3))
    result = 2 * 5 * 8 * 8
    assert least.nbytes == sum(array.nbytes for array in arrays) + 4 * result
    assert least.operations == 2 * result * 3 * 9 + 2 * 3 * 9 * 8 * 8
