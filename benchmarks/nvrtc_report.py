"""What NVRTC says of every kernel on every target, and what follows for an H200; needs no GPU.

Run: ``python benchmarks/nvrtc_report.py [--sources NAME …] [--targets CUDA,ARCH …]`` with the extra ``test``
installed; writes ``benchmarks/results/nvrtc.md``, for what is named (default: everything).
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import emulator  # noqa: E402
import nvrtc  # noqa: E402
from test_nvrtc import FURTHER_TARGETS, TARGETS, threads_per_block  # noqa: E402

HOPPER = (13, 90)
REGISTERS, THREADS, BLOCKS, SHARED = 1 << 16, 2048, 32, 228 << 10  # of a multiprocessor of sm_90
SYSTEM = 1 << 10  # bytes of shared memory that a block takes besides its own

# calls whose traffic is memory: function, shapes, and what a block has in flight at most, in bytes
CALLS = {
    "correlate 1 × 2048², 5 × 5": ("correlate", ((2048, 2048), (5, 5, 2048, 2048)), 16 << 10),
    "correlate 4 × 2048², 5 × 5": ("correlate", ((4, 2048, 2048), (5, 5, 2048, 2048)), 24 << 10),
    "correlate 16 × 512², 7 × 7": ("correlate", ((16, 512, 512), (7, 7, 512, 512)), 24 << 10),
    "correlate 1 × 64², 5 × 5": ("correlate", ((64, 64), (5, 5, 64, 64)), 16 << 10),
    "correlate 256 × 32², 5 × 5": ("correlate", ((256, 32, 32), (5, 5, 32, 32)), 24 << 10),
    "spread 1 × 2048², 5 × 5": ("spread", ((2048, 2048), (5, 5, 2048, 2048)), 128 * 16 * 4),
    "spread 16 × 2048², 5 × 5": ("spread", ((16, 2048, 2048), (5, 5, 2048, 2048)), 128 * 16 * 4),
    "local_correlate 16 → 16, 512², 3 × 3": (
        *("local_correlate", ((16, 512, 512), (3, 3, 512, 512, 16, 16))),
        128 * 8 * 16,
    ),
    "local_correlate 8 × 16 → 16, 512², 3 × 3": (
        *("local_correlate", ((8, 16, 512, 512), (3, 3, 512, 512, 16, 16))),
        128 * 4 * 16,
    ),
}


def sources(wanted, arch):
    """Return (text, names, options) of each source file for a compute capability."""
    emulator.install()  # `_gpu` imports cupy, which may not find a driver here
    from cuvarconv._gpu._instantiations import instantiations
    from cuvarconv._gpu._launch import OPTIONS
    from cuvarconv._gpu._sources import kernel_source

    found = instantiations(arch)
    return [(kernel_source(source), found[source], OPTIONS) for source in wanted or found]


def compile_all(job):
    """Compile everything for one target; return what is reported by name, and seconds per kernel."""
    (cuda, arch), texts = job
    started = time.process_time()
    found = {}
    for text, names, options in texts:
        compiled = nvrtc.compile(text, names, cuda, arch, options)
        for name in names:
            body = compiled.body(name)
            loads = tuple(nvrtc.vector_loads(body, bits) for bits in (128, 64))
            found[name] = (compiled.resources[name], loads, nvrtc.matrix_instructions(body))
    return found, (time.process_time() - started) / len(found)


def registers_table(targets, results):
    """Yield the registers of all targets as lines of Markdown."""
    heads = [f"{arch} ({cuda})" for cuda, arch in targets]
    yield "# Registers per thread, by kernel and compute capability (CUDA version)"
    yield ""
    yield "`+n` after a number: n bytes of spill stores and loads. Threads per block beside the name."
    yield ""
    yield f"| kernel | threads | {' | '.join(heads)} |"
    yield "| --- | ---: |" + " ---: |" * len(heads)
    for name in max((found for found, _ in results), key=len):
        cells = []
        for found, _ in results:
            if name not in found:  # the device has no instructions for it
                cells.append("")
                continue
            used = found[name][0]
            cells.append(f"{used.registers}" + (f" +{used.spill_bytes}" if used.spill_bytes else ""))
        yield f"| `{name}` | {threads_per_block(name)} | {' | '.join(cells)} |"
    yield ""
    seconds = ", ".join(f"{head}: {each:.2f} s" for head, (_, each) in zip(heads, results, strict=True))
    yield f"Mean CPU time to compile one kernel when all are compiled together: {seconds}."


def blocks_at_once(registers, threads, shared):
    """Return how many blocks a multiprocessor of sm_90 holds."""
    warps = threads // 32
    by_registers = REGISTERS // (-(-registers // 8) * 8 * 32) // warps
    return min(by_registers, THREADS // threads, BLOCKS, SHARED // (shared + SYSTEM))


def hopper_table(found):
    """Yield what is seen in the code for sm_90."""
    yield ""
    yield "# Code for sm_90"
    yield ""
    yield "Loads from global memory as they stand in the code (PTX), by their width for a thread; matrix:"
    yield "tensor core instructions; warps: of 64, that registers and static shared memory leave room for."
    yield ""
    yield "| kernel | 128-bit | 64-bit | matrix | registers | spills | static shared | warps |"
    yield "| --- |" + " ---: |" * 7
    for name, (used, (wide, narrow), matrix) in found.items():
        threads = threads_per_block(name)
        warps = blocks_at_once(used.registers, threads, used.shared_bytes) * threads // 32
        cells = (wide, narrow, matrix, used.registers, used.spill_bytes, used.shared_bytes, warps)
        yield f"| `{name}` | {' | '.join(map(str, cells))} |"


class Planned:
    """A kernel that is not launched; it says what it would have been launched with."""

    def __init__(self, name):
        self.name = name

    def __call__(self, grid, block, arguments, shared_mem):
        self.blocks, self.shared = grid[0], shared_mem


def planned(function, shapes):
    """Return the kernel that a call would launch, with the arrays' contents unset."""
    import cupy

    import cuvarconv
    from cuvarconv._gpu import _launch

    launched = []

    def make(source, expression):
        launched.append(Planned(expression))
        return launched[-1]

    compiled, _launch._function = _launch._function, make
    try:
        getattr(cuvarconv, function)(*(cupy.empty(shape, np.float32) for shape in shapes))
    finally:
        _launch._function = compiled
    return launched[0]


def launches_table(found):
    """Yield what calls that move memory would have in flight on an H200."""
    yield ""
    yield "# What would be launched on an H200 (planned here, never run)"
    yield ""
    yield "KiB in flight: of the largest operand, requested by a multiprocessor before it waits, at most."
    yield "About 32 are needed to keep the memory busy (4.8 TB/s on 132 multiprocessors, 0.8 µs)."
    yield ""
    yield "| call (float32) | kernel | blocks | blocks at once | warps at once | KiB in flight |"
    yield "| --- | --- |" + " ---: |" * 4
    for call, (function, shapes, in_flight) in CALLS.items():
        kernel = planned(function, shapes)
        if kernel.name not in found:
            continue
        used, threads = found[kernel.name][0], threads_per_block(kernel.name)
        blocks = blocks_at_once(used.registers, threads, used.shared_bytes + kernel.shared)
        blocks = min(blocks, -(-kernel.blocks // 132))
        cells = (kernel.blocks, blocks, blocks * threads // 32, blocks * in_flight >> 10)
        yield f"| {call} | `{kernel.name}` | {' | '.join(map(str, cells))} |"


def main():
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", nargs="+", default=[])
    parser.add_argument(
        "--targets",
        nargs="+",
        default=[f"{cuda},{arch}" for cuda, arch in sorted([*TARGETS, *FURTHER_TARGETS])],
    )
    given = parser.parse_args()
    targets = [tuple(int(part) for part in target.split(",")) for target in given.targets]
    with ProcessPoolExecutor(2) as pool:
        results = list(
            pool.map(compile_all, [(target, sources(given.sources, target[1])) for target in targets])
        )
    lines = [*registers_table(targets, results)]
    if given.sources:
        lines[1:1] = ["", f"Of the sources {', '.join(given.sources)} alone."]
    if HOPPER in targets:
        hopper = results[targets.index(HOPPER)][0]
        lines += [*hopper_table(hopper), *launches_table(hopper)]
    path = ROOT / "benchmarks" / "results" / "nvrtc.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    count = max(len(found) for found, _ in results)
    print(f"{count} kernels on {len(targets)} targets: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
