"""Every kernel that the library can ask for, by source file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from cuvarconv._gpu._launch import CPP_TYPES
from cuvarconv._gpu._paths import TENSOR_CAPABILITY, TENSOR_SUM_TILES, TENSOR_TILES, TENSOR_TYPES
from cuvarconv._gpu._tiles import LANES
from cuvarconv._gpu.correlate import PLANES
from cuvarconv._gpu.local import OUTPUTS, SAMPLES
from cuvarconv._gpu.modulated import TILES
from cuvarconv._gpu.modulated_gradient import OUTPUTS as GRADIENT_OUTPUTS
from cuvarconv._gpu.modulated_gradient import SLOT_TILES
from cuvarconv._gpu.unfold import BITS

REAL = ("float16", "bfloat16", "float32", "float64")


def instantiations(capability: int = TENSOR_CAPABILITY) -> dict[str, list[str]]:
    """List the name expressions of each ``kernels/<name>.cu`` for a device of a compute capability."""
    return _general() | (_on_tensor_cores() if capability >= TENSOR_CAPABILITY else {})


def _general() -> dict[str, list[str]]:
    numbers = CPP_TYPES.values()
    return {
        "affinity": [
            f"{kernel}<{CPP_TYPES[name]}>"
            for kernel, name in itertools.product(("affinity", "affinity_gradient"), REAL)
        ],
        "bilateral": [
            *(f"bilateral<{number}>" for number in numbers),
            *(f"bilateral_many_features<{number}>" for number in numbers),
        ],
        "bilateral_gradient": [
            *(f"bilateral_input_gradient<{number}>" for number in numbers),
            *(f"bilateral_guide_gradient<{number}>" for number in numbers),
        ],
        "bilateral_gradient_sums": [f"bilateral_gradient_sums<{number}>" for number in numbers],
        "correlate": [
            f"correlate<{number}, {planes}, {lanes}>"
            for number, planes, lanes in itertools.product(numbers, PLANES, LANES)
        ],
        "correlate_gradient": [
            *(
                f"correlate_gradient<{number}, {planes}>"
                for number, planes in itertools.product(numbers, PLANES)
            ),
            *(f"correlate_gradient_sum<{number}>" for number in numbers),
        ],
        "gaussian": [f"gaussian<{each}>" for each in _gaussians()],
        "gaussian_gradient": [f"gaussian_sigma_gradient<{each}>" for each in _gaussians()],
        "gaussian_input_gradient": [
            *(f"gaussian_input_gradient<{each}>" for each in _gaussians()),
            *(f"gaussian_norm<{each}>" for each in _gaussians() if each.startswith(("float", "double"))),
        ],
        "local": [f"local_correlate<{number}, {shape}>" for number, shape in _local_shapes()],
        "local_gradient": list(_local_gradients()),
        "modulated": _tiled("modulated_correlate", TILES),
        "modulated_input_gradient": _tiled("modulated_input_gradient", TILES),
        "modulated_modulation_gradient": _tiled("modulated_modulation_gradient", SLOT_TILES),
        "modulated_weights_gradient": [
            f"modulated_weights_gradient<{number}, {outputs}>"
            for number, outputs in itertools.product(numbers, GRADIENT_OUTPUTS)
        ],
        "spread": [f"spread<{number}, {planes}>" for number, planes in itertools.product(numbers, PLANES)],
        "unfold": [f"unfold<{bits}>" for bits, _ in BITS.values()],
    }


def _gaussians() -> Iterator[str]:
    """Yield "T, turned": complex images are computed as two real ones."""
    for name, turned in itertools.product(REAL, ("false", "true")):
        yield f"{CPP_TYPES[name]}, {turned}"


def _tiled(kernel: str, tiles: tuple[tuple[int, int], ...]) -> list[str]:
    return [
        f"{kernel}<{number}, {rows}, {columns}>"
        for number, (rows, columns) in itertools.product(CPP_TYPES.values(), tiles)
    ]


def _on_tensor_cores() -> dict[str, list[str]]:
    found = {}
    for source, kernel, tiles in (
        ("modulated_tensor", "modulated_correlate_tensor", TENSOR_TILES),
        ("modulated_input_gradient_tensor", "modulated_input_gradient_tensor", TENSOR_TILES),
        ("modulated_modulation_gradient_tensor", "modulated_modulation_gradient_tensor", TENSOR_SUM_TILES),
        ("modulated_weights_gradient_tensor", "modulated_weights_gradient_tensor", TENSOR_SUM_TILES),
    ):
        found[source] = [
            f"{kernel}<{CPP_TYPES[name]}, {rows}, {pixels}>"
            for name, (rows, pixels) in itertools.product(TENSOR_TYPES, tiles)
        ]
    return found


def _local_shapes() -> Iterator[tuple[str, str]]:
    """Yield (T, "V, S") of the kernels for full kernels."""
    for name, number in CPP_TYPES.items():
        for outputs, samples in itertools.product(sorted({1, OUTPUTS[name]}), (1, SAMPLES[name])):
            yield number, f"{outputs}, {samples}"


def _local_gradients() -> Iterator[str]:
    for number, shape in _local_shapes():
        yield f"local_input_gradient<{number}, {shape}>"
    for name, number in CPP_TYPES.items():
        for outputs in sorted({1, OUTPUTS[name]}):
            yield f"local_kernels_gradient<{number}, {outputs}>"
