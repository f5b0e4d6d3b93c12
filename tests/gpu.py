"""
The first run on a GPU, in steps of a few minutes each: ``python tests/gpu.py STEP FOLDER``.

compile FOLDER   compile every kernel into CuPy's cache on disk, on all cores; else other steps wait for it
check FOLDER     versions, then 260 calls that launch every kernel, compared with NumPy's results
tests FOLDER     the tests that use a GPU; ``--part 1/3``: a third of them; further names are paths for pytest
sanitize FOLDER  the same calls under compute-sanitizer, its four tools at once; further names: some of them
bench FOLDER     the benchmarks one after the other; further names: some of them; ``--quick``: small work

Each step prints what it finds as it finds it, writes logs and JSON into the folder, ends by itself after
``--minutes`` and returns 0 if all is well.  ``--kernels FILE`` unpacks CuPy's cache from a file before the
step, if it is there, and packs it after it, so that another machine need not compile.

Needs CuPy, SciPy, ml_dtypes, pytest, pytest-xdist and hypothesis; PyTorch for some tests and for `bench`, and
CUDA's compute-sanitizer.

``check --emulator`` runs on the emulator.  That was run so far, and the other steps with a CuPy whose device
was a sham, to see that they do what they say; nothing ran on a GPU, and compute-sanitizer not at all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpu_check import check, compile_kernels, write

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
CACHE = Path(tempfile.gettempdir()) / "cuvarconv_gpu_kernels"
# Warnings of other packages' newest versions are no errors here.
PYTEST = (
    *("-o", "addopts=", "-o", "filterwarnings=default", "--strict-markers", "-p", "gpu_plugin"),
    *("-p", "no:cacheprovider", "-q", "--tb=short", "-rfE", "--dist=worksteal", "--max-worker-restart=40"),
)
SANITIZER = (
    shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer",
    *("--error-exitcode", "9", "--report-api-errors", "no"),
)
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SCRIPTS = (
    *("correlate", "modulated", "local", "spread", "gradients", "gaussian", "bilateral"),
    *("torch_layers", "scaling"),
)


def described_and_checked(given: argparse.Namespace) -> bool:
    """Print what is installed and which device there is, and make the calls."""
    for command in ([sys.executable, "-m", "cuvarconv", "info"], ["nvidia-smi"]):
        if shutil.which(command[0]):
            run(command, given.folder / "device.log", minutes=1)
    return check(given.folder, given.minutes, emulated=given.emulator)


def tests(given: argparse.Namespace) -> bool:
    """Run pytest; failures.jsonl and tests.log grow as it goes, tests.xml is written at its end."""
    name = f"tests-{given.part.replace('/', '-of-')}"
    command = [sys.executable, "-m", "pytest", *PYTEST, "-n", str(given.workers or 8)]
    command += [f"--gpu-part={given.part}", f"--gpu-failures={given.folder / name}.failures.jsonl"]
    command += [f"--junitxml={given.folder / name}.xml"]
    return run([*command, *(given.names or ["tests"])], given.folder / f"{name}.log", given.minutes) == 0


def sanitize(given: argparse.Namespace) -> bool:
    """Run the calls under all tools at once, each in a process of its own."""
    limit = ["timeout", "--kill-after=10s", f"{round(60 * given.minutes)}s"]
    running = {}
    for tool in given.names or TOOLS:
        command = [*limit, *SANITIZER, "--tool", tool, sys.executable, str(TESTS / "gpu_calls.py")]
        log = (given.folder / f"{tool}.log").open("w", encoding="utf-8")
        running[tool] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    codes = {tool: process.wait() for tool, process in running.items()}
    for tool, code in codes.items():
        lines = (given.folder / f"{tool}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        verdict = {0: "nothing found", 9: "ERRORS", 124: "out of time"}.get(code, f"failed with {code}")
        found = [line for line in lines if "=========" in line and "COMPUTE-SANITIZER" not in line]
        print(f"{tool}: {verdict}", *found[:40], sep="\n    ")
    return not any(codes.values())


def bench(given: argparse.Namespace) -> bool:
    """Run the benchmarks; a target that is missed counts as a failure, as in the scripts themselves."""
    end, codes = time.monotonic() + 60 * given.minutes, {}
    for script in given.names or SCRIPTS:
        command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--device", "gpu"]
        command += ["--output", str(given.folder), *(["--quick"] if given.quick else [])]
        left = (end - time.monotonic()) / 60
        codes[script] = run(command, given.folder / "bench.log", left) if left > 0 else None
    write(given.folder / "bench.json", codes)
    return not any(code is None or code for code in codes.values())


def run(command: Sequence[str], log: Path, minutes: float) -> int:
    """Run a command, its output printed and added to a log; interrupt it when time is up."""
    print("$", *command, flush=True)
    limit = ["timeout", "--signal=INT", "--kill-after=20s", f"{max(1, round(60 * minutes))}s"]
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*limit, *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for line in process.stdout or ():
            print(line, end="", flush=True)
            file.write(line)
            file.flush()
        return process.wait()


@contextlib.contextmanager
def kept_kernels(file: Path | None) -> Iterator[None]:
    """Unpack CuPy's cache before, and pack it after."""
    CACHE.mkdir(exist_ok=True)
    if file is not None and file.exists():
        with tarfile.open(file) as archive:
            archive.extractall(CACHE, filter="data")
    yield
    if file is not None:
        with tarfile.open(file, "w:gz") as archive:
            archive.add(CACHE, ".")


STEPS = {
    "compile": lambda given: compile_kernels(given.folder, given.workers),
    "check": described_and_checked,
    "tests": tests,
    "sanitize": sanitize,
    "bench": bench,
}


def main() -> int:
    """Run a step; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("folder", type=Path, help="where logs and JSON go")
    parser.add_argument("names", nargs="*", help="of tests, tools or benchmarks")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which the step ends")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="of the tests")
    parser.add_argument("--workers", type=int, help="processes at a time, to compile and for tests")
    parser.add_argument("--kernels", type=Path, help="file with compiled kernels")
    parser.add_argument("--quick", action="store_true", help="small benchmarks")
    parser.add_argument("--emulator", action="store_true", help="check the emulator's results, in float32")
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ["CUPY_CACHE_DIR"] = str(CACHE)
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if given.step == "tests":
        os.environ["JAX_PLATFORMS"] = "cpu"
    if not given.emulator:
        os.environ["CUVARCONV_DEVICE"] = "gpu"
    sys.path.insert(0, str(ROOT))
    with kept_kernels(given.kernels):
        right = STEPS[given.step](given)
    print(f"{given.step}: {'all is well' if right else 'NOT all is well'}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
