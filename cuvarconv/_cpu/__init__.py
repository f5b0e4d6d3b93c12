"""The NumPy backend; ``_gpu`` has the same names."""

from typing import Any

import numpy as np

from cuvarconv._cpu._aligned import empty
from cuvarconv._cpu._tiles import store
from cuvarconv._cpu._workers import get_workers, set_workers
from cuvarconv._cpu.affinity import affinity, affinity_gradient
from cuvarconv._cpu.bilateral import bilateral
from cuvarconv._cpu.bilateral_gradient import bilateral_gradient
from cuvarconv._cpu.correlate import correlate
from cuvarconv._cpu.correlate_gradient import correlate_weights_gradient
from cuvarconv._cpu.gaussian import gaussian
from cuvarconv._cpu.gaussian_gradient import gaussian_input_gradient, gaussian_sigma_gradient
from cuvarconv._cpu.local import local_correlate
from cuvarconv._cpu.local_gradient import local_input_gradient, local_kernels_gradient
from cuvarconv._cpu.modulated import modulated_correlate
from cuvarconv._cpu.modulated_gradient import (
    modulated_input_gradient,
    modulated_modulation_gradient,
    modulated_weights_gradient,
)
from cuvarconv._cpu.spread import spread
from cuvarconv._cpu.unfold import unfold
from cuvarconv._quotients import Quotients

__all__ = [
    "affinity",
    "affinity_gradient",
    "bilateral",
    "bilateral_gradient",
    "correlate",
    "correlate_weights_gradient",
    "empty",
    "gaussian",
    "gaussian_input_gradient",
    "gaussian_sigma_gradient",
    "get_workers",
    "linear_operator",
    "local_correlate",
    "local_input_gradient",
    "local_kernels_gradient",
    "may_share_memory",
    "modulated_correlate",
    "modulated_input_gradient",
    "modulated_modulation_gradient",
    "modulated_weights_gradient",
    "normalized",
    "normalized_variance",
    "ones",
    "set_workers",
    "spread",
    "store",
    "unfold",
]

may_share_memory = np.may_share_memory

_quotients = Quotients(correlate, np.empty, store)
normalized, normalized_variance = _quotients.normalized, _quotients.normalized_variance


def ones(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """View a single 1 as an array."""
    return np.broadcast_to(np.ones((), dtype), shape)


def linear_operator(shape: tuple[int, int], **functions: Any) -> Any:
    """Make SciPy's linear operator."""
    from scipy.sparse.linalg import LinearOperator

    return LinearOperator(shape, **functions)
