"""Spatially variant 2-D convolution for NumPy, CuPy and anything that speaks DLPack."""

from cuvarconv._correlate import convolve, correlate, correlate_vjp
from cuvarconv._cpu import get_workers, set_workers
from cuvarconv._modulated import modulated_correlate
from cuvarconv._spread import spread
from cuvarconv._unfold import fold, unfold

__all__ = [
    "convolve",
    "correlate",
    "correlate_vjp",
    "fold",
    "get_workers",
    "modulated_correlate",
    "set_workers",
    "spread",
    "unfold",
]

__version__ = "0.1.0"
