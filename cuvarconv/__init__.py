"""Spatially variant 2-D convolution for NumPy, CuPy and anything that speaks DLPack."""

from cuvarconv._affinity import affinity, affinity_vjp
from cuvarconv._bilateral import bilateral_filter, bilateral_filter_vjp
from cuvarconv._correlate import convolve, correlate, correlate_vjp
from cuvarconv._cpu import get_workers, set_workers
from cuvarconv._gaussian import gaussian_filter, gaussian_filter_vjp
from cuvarconv._gaussian_weights import gaussian_weights
from cuvarconv._levels import gaussian_levels
from cuvarconv._linear import as_linear_operator
from cuvarconv._local import local_correlate, local_correlate_vjp
from cuvarconv._modulated import modulated_correlate, modulated_correlate_vjp
from cuvarconv._normalized import normalized_correlate
from cuvarconv._spread import spread
from cuvarconv._unfold import fold, unfold

__all__ = [
    "affinity",
    "affinity_vjp",
    "as_linear_operator",
    "bilateral_filter",
    "bilateral_filter_vjp",
    "convolve",
    "correlate",
    "correlate_vjp",
    "fold",
    "gaussian_filter",
    "gaussian_filter_vjp",
    "gaussian_levels",
    "gaussian_weights",
    "get_workers",
    "local_correlate",
    "local_correlate_vjp",
    "modulated_correlate",
    "modulated_correlate_vjp",
    "normalized_correlate",
    "set_workers",
    "spread",
    "unfold",
]

__version__ = "0.1.0"
