"""Spatially variant 2-D convolution for NumPy, CuPy and anything that speaks DLPack."""

from cuvarconv._correlate import convolve, correlate
from cuvarconv._cpu import get_workers, set_workers
from cuvarconv._modulated import modulated_correlate

__all__ = [
    "convolve",
    "correlate",
    "get_workers",
    "modulated_correlate",
    "set_workers",
]

__version__ = "0.1.0"
