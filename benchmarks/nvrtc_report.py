"""Registers and spills of every kernel on every target, as NVRTC reports them; needs no GPU.

Run: ``python benchmarks/nvrtc_report.py`` with the extra ``test`` installed; writes
``benchmarks/results/nvrtc.md``.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import emulator  # noqa: E402
import nvrtc  # noqa: E402
from test_nvrtc import TARGETS, threads_per_block  # noqa: E402


def sources(arch):
    """Return (text, names, options) of each source file for a compute capability."""
    emulator.install()  # `_gpu` imports cupy, which may not find a driver here
    from cuvarconv._gpu._instantiations import instantiations
    from cuvarconv._gpu._launch import OPTIONS
    from cuvarconv._gpu._sources import kernel_source

    return [(kernel_source(source), names, OPTIONS) for source, names in instantiations(arch).items()]


def compile_all(job):
    """Compile everything for one target; return resources by name and seconds per kernel."""
    (cuda, arch), texts = job
    started = time.perf_counter()
    found = {}
    for text, names, options in texts:
        found.update(nvrtc.compile(text, names, cuda, arch, options).resources)
    return found, (time.perf_counter() - started) / len(found)


def table(results):
    """Return the report as lines of Markdown."""
    heads = [f"{arch} ({cuda})" for cuda, arch in TARGETS]
    yield "# Registers per thread, by kernel and compute capability (CUDA version)"
    yield ""
    yield "`+n` after a number: n bytes of spill stores and loads. Threads per block beside the name."
    yield ""
    yield f"| kernel | threads | {' | '.join(heads)} |"
    yield "| --- | ---: |" + " ---: |" * len(heads)
    for name in max((found for found, _ in results), key=len):
        cells = []
        for found, _ in results:
            used = found.get(name)  # None: the device has no instructions for it
            if used is None:
                cells.append("")
                continue
            cells.append(f"{used.registers}" + (f" +{used.spill_bytes}" if used.spill_bytes else ""))
        yield f"| `{name}` | {threads_per_block(name)} | {' | '.join(cells)} |"
    yield ""
    seconds = ", ".join(f"{head}: {each:.2f} s" for head, (_, each) in zip(heads, results, strict=True))
    yield f"Mean time to compile one kernel when all are compiled together: {seconds}."


def main():
    """Write the report."""
    with ProcessPoolExecutor(2) as pool:
        results = list(pool.map(compile_all, [(target, sources(target[1])) for target in TARGETS]))
    path = ROOT / "benchmarks" / "results" / "nvrtc.md"
    path.write_text("\n".join(table(results)) + "\n", encoding="utf-8")
    print(
        f"{max(len(found) for found, _ in results)} kernels on {len(TARGETS)} targets: "
        f"{path.relative_to(ROOT)}"
    )


if __name__ == "__main__":
    main()
