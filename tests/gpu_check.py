"""Steps of ``gpu.py``: to compile all kernels at once, and to compare calls with NumPy's results."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

# After one of these every further call of the process fails; launches say it in the driver's words.
LOST = re.compile(
    "cudaError(IllegalAddress|MisalignedAddress|LaunchFailure|IllegalInstruction|HardwareStackError|"
    "InvalidAddressSpace|InvalidPc|Assert)|"
    "CUDA_ERROR_(ILLEGAL_ADDRESS|MISALIGNED_ADDRESS|LAUNCH_FAILED|ILLEGAL_INSTRUCTION|HARDWARE_STACK_ERROR|"
    "INVALID_ADDRESS_SPACE|INVALID_PC|ASSERT)|"
    "illegal memory access|misaligned address|unspecified launch failure|illegal instruction|"
    "invalid program counter|device-side assert"
)
LIBRARIES: dict[str, Callable[[Any, Any], Any]] = {
    "torch": lambda torch, array: torch.asarray(array, device="cuda"),
    "jax": lambda jax, array: jax.numpy.asarray(array),
}


def compile_kernels(folder: Path, workers: int | None) -> bool:
    """Compile each instantiation in one of many processes."""
    from cuvarconv._gpu._instantiations import instantiations

    work = [(source, name) for source, names in instantiations().items() for name in names]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        done = dict(pool.map(compiled, *zip(*work, strict=True)))
    write(folder / "compile.json", done)
    failed = [name for name, result in done.items() if isinstance(result, str)]
    print(f"{len(done)} kernels compiled, failed:", failed or "none")
    return not failed


def compiled(source: str, name: str) -> tuple[str, float | str]:
    """Compile one instantiation and load it; return how many seconds that took, or what went wrong."""
    from cuvarconv._gpu._launch import _function

    start = time.perf_counter()
    try:
        _function(source, name)
    except Exception as error:
        print(f"FAILED {name}: {error}", flush=True)
        return name, f"{type(error).__name__}: {error}"
    return name, time.perf_counter() - start


def check(folder: Path, minutes: float, *, emulated: bool) -> bool:
    """Make all calls once, on CuPy's arrays, and one on those of other libraries."""
    import emulator
    from gpu_calls import DTYPES, calls

    if emulated:
        cupy = emulator.install()
    else:
        cupy = importlib.import_module("cupy")
        emulator.watch(cupy)
    rows: list[dict[str, Any]] = []
    end = time.monotonic() + 60 * minutes
    for call in calls(DTYPES[:1] if emulated else DTYPES):
        with emulator.recording() as launched:
            start = time.perf_counter()
            error, problem = np.nan, ""
            try:
                found = call.on(cupy.asarray)
                error = call.error(found, call.expected())
            except Exception as raised:
                problem = " ".join(f"{type(raised).__name__}: {raised}".split())
        right = error <= call.tolerance
        row = {"call": call.name, "right": right, "error": repr(error), "tolerance": call.tolerance}
        row |= {
            "problem": problem,
            "kernels": sorted(launched.counts),
            "seconds": time.perf_counter() - start,
        }
        rows.append(row)
        print(f"{'ok' if right else 'WRONG':6}{call.name:52}{error:9.1e}  {problem:.300}", flush=True)
        write(folder / "check.json", rows)
        if time.monotonic() > end or LOST.search(problem):
            print("stopped: out of time, or the CUDA context is lost")
            return False
    others = [] if emulated else [library(*each) for each in LIBRARIES.items()]
    wrong = sum(not row["right"] for row in rows)
    kernels = {name for row in rows for name in row["kernels"]}
    print(f"{len(rows)} calls, {wrong} wrong; {len(kernels)} kernels")
    return wrong == 0 and all(others)


def library(name: str, convert: Callable[[Any, Any], Any]) -> bool:
    """Call with another library's arrays on the device, if it is installed."""
    if importlib.util.find_spec(name) is None:
        return True
    from tolerances import noise

    import cuvarconv

    x, k = noise((20, 40)), noise((3, 3, 20, 40), seed=1)
    try:
        module = importlib.import_module(name)
        result = cuvarconv.correlate(convert(module, x), convert(module, k))
        far = abs(result - convert(module, cuvarconv.correlate(x, k))).max()
        right, found = bool(far < 1e-5), f"on {result.device}, {float(far):.1e} from NumPy's result"
    except Exception as error:
        right, found = False, f"{type(error).__name__}: {error}"
    print(f"{'ok' if right else 'WRONG':6}{name} {found}", flush=True)
    return right


def write(path: Path, what: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(what, indent=1, default=str) + "\n", encoding="utf-8")
