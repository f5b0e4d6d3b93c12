"""What is planted: (file, tests, [(bug, text, replacement), …]) for every file."""

from planted import (
    bilateral,
    dask,
    gaussian,
    gpu_calls,
    gpu_plan,
    host,
    kernels_correlate,
    kernels_modulated,
    library,
    local,
)

PLANTED = [
    *kernels_correlate.PLANTED,
    *kernels_modulated.PLANTED,
    *gpu_calls.PLANTED,
    *gpu_plan.PLANTED,
    *library.PLANTED,
    *host.PLANTED,
    *gaussian.PLANTED,
    *bilateral.PLANTED,
    *local.PLANTED,
    *dask.PLANTED,
]
