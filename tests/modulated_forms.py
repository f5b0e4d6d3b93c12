"""Calls of `modulated_correlate` and what they are compared with."""

import numpy as np
import reference
from tolerances import assert_equal, integers, stored

import cuvarconv


def weights(outputs, channels, size=(3, 3), dtype=np.float32):
    return integers((outputs, channels, *size), dtype, seed=5, low=-3, high=4)


def factors(size, varying=(), dtype=np.float32):
    return integers((*size, *varying), dtype, seed=6, low=-2, high=3)


def modulated(xp, x, w, d, **keywords):
    """Call the library on a backend's arrays; the result on the host."""
    operands = (xp.asarray(operand) for operand in (x, w, d))
    return xp.to_numpy(cuvarconv.modulated_correlate(*operands, **keywords))


def check(xp, x, w, d, **keywords):
    """Compare whole numbers with the loops, bit for bit."""
    result = modulated(xp, x, w, d, **keywords)
    expected = reference.modulated_correlate(x, w, d, **keywords)
    assert_equal(result, stored(expected, result.dtype))
    return result


def unfolded(x, w, d):
    """Equation (2) as unfold, product and sum, for sizes at which the loops are too slow."""
    kh, kw = w.shape[2:]
    margins = ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, margins, mode="symmetric"), (kh, kw), (1, 2))
    return np.einsum("ocmn,mnij,cijmn->oij", w, d, windows, dtype=np.float64, optimize=True)
