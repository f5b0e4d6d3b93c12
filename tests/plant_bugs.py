"""Plant bugs, one at a time, in a copy of the repository, and see whether the tests catch each.

    python tests/plant_bugs.py [--list] [--only N …] [--jobs N] [--write FILE]

The exit status is 0 if the tests pass on the untouched copy and fail on every planted bug.  A test
has to fail, or to crash: a copy that hangs or cannot be built or imported does not count.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from planted import PLANTED

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cuvarconv", "kernels", "tests", "pyproject.toml")
TIMEOUT = 600  # seconds per run of tests
LONGEST_REASON = 160


@dataclass(frozen=True)
class Bug:
    """A bug, by the text that it replaces in a file, and the tests that are to catch it."""

    number: int
    file: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...]

    def plant(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise SystemExit(
                f"bug {self.number}: {self.file} has {text.count(self.old)} times, not once:\n{self.old}"
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True)
class Outcome:
    """How a run of tests ended: the first failure, by test and reason, or why there is none."""

    caught: bool
    passed: bool
    test: str
    reason: str
    seconds: float


def all_bugs() -> list[Bug]:
    bugs = [(file, *bug, tests) for file, tests, listed in PLANTED for bug in listed]
    return [Bug(number, *bug) for number, bug in enumerate(bugs, start=1)]


def copy(source: Path, target: Path) -> None:
    target.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=ignore)
        else:
            shutil.copy2(source / name, target / name)


def environment(root: Path) -> dict[str, str]:
    """Import from a copy alone; keep what the emulator builds of broken kernels out of the user's cache."""
    return os.environ | {
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUVARCONV_EMULATOR_CACHE": str(root.parent / "emulator"),
    }


def check_import(root: Path) -> None:
    """Make sure that a copy is what its tests would test, and not an installed package."""
    code = "import cuvarconv; print(cuvarconv.__file__)"
    command = [sys.executable, "-c", code]
    process = subprocess.run(
        command, cwd=root, env=environment(root), capture_output=True, text=True, check=True
    )
    if not Path(process.stdout.strip()).is_relative_to(root):
        raise SystemExit(f"the tests would import {process.stdout.strip()}")


def run_tests(root: Path, tests: tuple[str, ...]) -> Outcome:
    report = root / "report.xml"
    options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options]
    start = time.monotonic()
    try:
        process = subprocess.run(
            [*command, *tests],
            cwd=root,
            env=environment(root),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(False, False, "", f"still running after {TIMEOUT} s", TIMEOUT)
    seconds = time.monotonic() - start
    if process.returncode == 0:
        return Outcome(False, True, "", "all tests pass", seconds)
    test, reason = first_failure(report) if process.returncode == 1 and report.exists() else ("", "")
    if not test and process.returncode < 0:
        test, reason = crash(process.stderr, -process.returncode)
    if not test:
        last = (process.stdout + process.stderr).strip().splitlines()[-1:]
        return Outcome(False, False, "", f"pytest ended with {process.returncode}: {' '.join(last)}", seconds)
    return Outcome("CompileException" not in reason, False, test, reason, seconds)


def first_failure(report: Path) -> tuple[str, str]:
    """Return the first failing test and its reason from pytest's XML report."""
    for case in ElementTree.parse(report).iter("testcase"):
        for kind in ("failure", "error"):
            found = case.find(kind)
            if found is not None:
                file = case.get("classname", "").replace(".", "/").removeprefix("tests/")
                reason = " ".join(found.get("message", "").split()).removeprefix("emulator.arguments.")
                return f"{file}.py::{case.get('name')}", reason
    return "", ""


def crash(traceback: str, number: int) -> tuple[str, str]:
    """Return the test that Python's fault handler names, and the signal."""
    inside = re.search(r'tests/(test_\w+\.py)", line \d+ in (test_\w+)', traceback)
    return (f"{inside[1]}::{inside[2]}", f"crash: {signal.strsignal(number)}") if inside else ("", "")


def short(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "…"


def try_bug(bug: Bug, clean: Path) -> Outcome:
    root = clean.parent / f"bug{bug.number}"
    copy(clean, root)
    try:
        bug.plant(root)
        return run_tests(root, bug.tests)
    finally:
        shutil.rmtree(root)


def control(bugs: list[Bug], clean: Path, jobs: int) -> bool:
    """Run the untouched copy through every selection of tests that the bugs meet."""
    selections = list(dict.fromkeys(bug.tests for bug in bugs))
    roots = [clean.parent / f"control{number}" for number in range(len(selections))]
    for root in roots:
        copy(clean, root)
    check_import(roots[0])
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(run_tests, roots, selections))
    for selection, outcome in zip(selections, outcomes, strict=True):
        line = "passes" if outcome.passed else f"FAILS: {outcome.test} {outcome.reason}"
        print(f"control, {outcome.seconds:5.1f} s: {' '.join(selection)}: {line}", flush=True)
    return all(outcome.passed for outcome in outcomes)


def try_all(bugs: list[Bug], clean: Path, jobs: int) -> dict[Bug, Outcome]:
    outcomes = {}
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(try_bug, bug, clean): bug for bug in bugs}
        for future in as_completed(running):
            bug, outcome = running[future], future.result()
            outcomes[bug] = outcome
            verdict = "caught" if outcome.caught else "MISSED"
            print(f"{len(outcomes):3d}/{len(bugs)} {verdict}, {outcome.seconds:5.1f} s: ", end="")
            print(
                f"{bug.number} {bug.file}: {bug.what}\n        {outcome.test} {short(outcome.reason)}",
                flush=True,
            )
    return {bug: outcomes[bug] for bug in bugs}


def markdown(outcomes: dict[Bug, Outcome]) -> str:
    caught = sum(outcome.caught for outcome in outcomes.values())
    lines = [
        "# Planted bugs",
        "",
        f"{caught} of {len(outcomes)} bugs, each planted alone, are caught; without a bug all tests pass. "
        "Made by `python tests/plant_bugs.py --write FILE`; the seconds include building the kernels.",
        "",
        "| # | file | bug | caught by | reason | s |",
        "| ---: | --- | --- | --- | --- | ---: |",
    ]
    for bug, outcome in outcomes.items():
        test = f"`{outcome.test}`" if outcome.caught else "**missed**"
        cells = (str(bug.number), bug.file, bug.what, test, short(outcome.reason), f"{outcome.seconds:.0f}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--list", action="store_true", help="list the bugs and stop")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="plant these bugs only")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="bugs at a time (default: 2)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="save the table as Markdown")
    options = parser.parse_args()
    bugs = [bug for bug in all_bugs() if options.only is None or bug.number in options.only]
    if options.list:
        for bug in bugs:
            print(f"{bug.number:3d} {bug.file}: {bug.what}")
        return 0
    if not bugs:
        parser.error(f"--only: expected numbers from 1 to {len(all_bugs())}")
    with tempfile.TemporaryDirectory(prefix="planted-bugs-") as folder:
        clean = Path(folder).resolve() / "clean"
        copy(ROOT, clean)
        for bug in bugs:  # every text is looked for before anything runs
            path = clean / bug.file
            text = path.read_text(encoding="utf-8")
            bug.plant(clean)
            path.write_text(text, encoding="utf-8")
        if not control(bugs, clean, options.jobs):
            return 1
        outcomes = try_all(bugs, clean, options.jobs)
    if options.write:
        options.write.write_text(markdown(outcomes), encoding="utf-8")
    missed = [bug.number for bug, outcome in outcomes.items() if not outcome.caught]
    print(f"{len(bugs) - len(missed)} of {len(bugs)} caught" + (f"; missed: {missed}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
