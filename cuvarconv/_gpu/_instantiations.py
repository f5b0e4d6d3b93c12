"""Every kernel that the library can ask for, by source file."""

from __future__ import annotations

import itertools

from cuvarconv._gpu._launch import CPP_TYPES
from cuvarconv._gpu.correlate import LANES, PLANES
from cuvarconv._gpu.modulated import TILES


def instantiations() -> dict[str, list[str]]:
    """List the name expressions of each ``kernels/<name>.cu``."""
    numbers = CPP_TYPES.values()
    return {
        "correlate": [
            f"correlate<{number}, {planes}, {lanes}>"
            for number, planes, lanes in itertools.product(numbers, PLANES, LANES)
        ],
        "modulated": [
            f"modulated_correlate<{number}, {outputs}, {pixels}>"
            for number, (outputs, pixels) in itertools.product(numbers, TILES)
        ],
    }
