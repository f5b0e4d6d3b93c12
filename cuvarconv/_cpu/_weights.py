"""Weights that are exponentials of numbers up to 0, where those that are too small to count may be 0.

Processors take ten to twenty times as long for numbers below the smallest normal one, and for exponentials,
products and sums that are.  They do not count beside the weight 1 of a pixel for itself, unless that pixel is
0: quotients of two filters with one guide, of an image with holes and of where it has none, need them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

_POWERS = {4: -100, 8: -900}  # of two, by the size of numbers; steps between larger numbers are normal ones


def may_vanish(features: np.ndarray, sharpness: float, falloff: float = 0.0) -> bool:
    """Whether exp(−falloff − Σ_f (sharpness·(f − f'))²) may be so small for two of the features (f, …)."""
    axes = tuple(range(1, features.ndim))
    spans = features.max(axis=axes).astype(np.float64) - features.min(axis=axes).astype(np.float64)
    return vanishes(-falloff - float(np.sum(np.square(spans * sharpness))), features.dtype)


def vanishes(exponent: float, dtype: np.dtype) -> bool:
    """Whether a weight of some exponent, or of NaN, is too small to count."""
    return not exponent > _least(dtype)[0]


def exponentials(exponents: np.ndarray, *, vanish: bool) -> Iterator[partial[Any]]:
    """Yield the calls that overwrite exponents with their weights; some may vanish, or none."""
    if not vanish:
        yield partial(np.exp, exponents, exponents)
        return
    exponent, weight = _least(exponents.dtype)
    yield partial(np.maximum, exponents, exponent, out=exponents)
    yield partial(np.exp, exponents, exponents)
    yield partial(np.subtract, exponents, weight, exponents)


@functools.cache
def _least(dtype: np.dtype) -> tuple[np.floating, np.floating]:
    """Return an exponent and its weight, as NumPy makes it for many."""
    exponent = dtype.type(_POWERS[dtype.itemsize] * math.log(2))
    return exponent, np.exp(np.full(64, exponent))[0]
