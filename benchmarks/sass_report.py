"""What the kernels for tensor cores are made of, as NVRTC compiles them; needs no GPU.

Run: ``python benchmarks/sass_report.py`` with the extra ``test`` and the wheel ``nvidia-cuda-nvdisasm``
installed (or ``nvdisasm`` on the path); writes ``benchmarks/results/tensor_cores.md``.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import nvrtc  # noqa: E402
from emulator import headers  # noqa: E402
from nvrtc_report import sources  # noqa: E402

TARGETS = ((12, 80), (12, 90), (13, 100), (13, 120))
COUNTED = {
    "matrix products": "HMMA",
    "fragment loads": "LDSM",
    "asynchronous copies": "LDGSTS",
    "128-bit loads": "LDG.E.128",
    "other loads": "LDG",
    "wide stores to shared memory": "STS.128",
}


def disassembler():
    """Return the path of nvdisasm."""
    wheels = [d / "nvidia" / "cu13" / "bin" / "nvdisasm" for d in headers.site_directories()]
    found = shutil.which("nvdisasm") or next((str(path) for path in wheels if path.is_file()), None)
    if found is None:
        raise SystemExit("nvdisasm: not found; install the wheel nvidia-cuda-nvdisasm")
    return found


def listings(cubin):
    """Return the lines of each kernel, by mangled name."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [disassembler(), "-c", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^\.text\.(\w+):$", text, flags=re.MULTILINE)
    return {name: body.splitlines() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def operations(lines):
    """Return the operations, with their modifiers."""
    pattern = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)")
    return [match[1] for match in map(pattern.match, lines) if match]


def rows(cuda, arch):
    """Yield one row of the table for each kernel of a target."""
    for text, names, options in sources(arch):
        if "_tensor<" not in names[0]:
            continue
        compiled = nvrtc.compile(text, names, cuda, arch, options)
        by_symbol = listings(compiled.cubin)
        for name in names:
            used = compiled.resources[name]
            every = operations(by_symbol[compiled.lowered_names[name]])
            counts = Counter()
            for operation in every:
                counts[next((k for k, start in COUNTED.items() if operation.startswith(start)), "")] += 1
            cells = (used.registers, used.spill_bytes, len(every), *(counts[kind] for kind in COUNTED))
            yield f"| `{name}` | {arch} | {' | '.join(map(str, cells))} |"


def main():
    """Write the report."""
    lines = [
        "# Kernels for tensor cores: registers, spilled bytes, instructions",
        "",
        f"| kernel | target | registers | spills | instructions | {' | '.join(COUNTED)} |",
        "| --- | ---: | ---: | ---: | ---: |" + " ---: |" * len(COUNTED),
        *(row for target in TARGETS for row in rows(*target)),
        "",
        "A matrix product multiplies 16 rows by 8 pixels over 32 bytes of K.  Loads count every branch:",
        "chunks of channels, single channels, the edge; some compilers write the first step apart.",
    ]
    path = ROOT / "benchmarks" / "results" / "tensor_cores.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(lines) - 7} rows")


if __name__ == "__main__":
    main()
