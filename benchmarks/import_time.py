"""What ``import cuvarconv`` costs after ``import numpy``: median of fresh interpreters, in ms."""

import argparse
import statistics
import subprocess
import sys

TARGET_MS = 50
PROBE = """
import time
import numpy
start = time.perf_counter()
import cuvarconv
print(1e3 * (time.perf_counter() - start))
"""


def import_times(runs: int) -> list[float]:
    """Import times in ms; a first run, which may write byte code, is not counted."""
    command = [sys.executable, "-c", PROBE]
    outputs = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(runs + 1)
    ]
    return [float(output) for output in outputs[1:]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="fresh interpreters (default 11)")
    times = import_times(parser.parse_args().runs)
    median = statistics.median(times)
    print(
        f"import cuvarconv, beyond numpy: median {median:.1f} ms, min {min(times):.1f} ms, "
        f"max {max(times):.1f} ms of {len(times)} runs (target: below {TARGET_MS} ms)"
    )
    return int(median >= TARGET_MS)


if __name__ == "__main__":
    sys.exit(main())
