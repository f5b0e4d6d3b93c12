"""A Gaussian of many widths from a few: interpolation in log σ between uniform blurs."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._arguments import number
from cuvarconv._backend import Call, receive
from cuvarconv._blocks import blocks, matching
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._separable import correlate_separable, still_axis
from cuvarconv._sigma import largest_radii, named_sigmas, reach
from cuvarconv._window import Window

_COUNTS = (2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48)
_BETWEEN = 8  # widths between two nodes at which the error is computed
_JUMPS = 32  # radii at whose ends it is computed
_LINES = 256  # of a kernel, compared at once
_SAFETY = 1.1  # for the widths in between
_AT_ONCE = 1 << 18  # pixels whose coefficients are worked out together
_CENTRE = 1e-200  # stands for t − t_l where that is 0


@dataclass(frozen=True)
class GaussianLevels:
    """The widths of uniform blurs, and the largest error of the kernels interpolated between them.

    Pixels whose radius is 0 stay as they are and need no level.

    Attributes
    ----------
    sigmas : tuple of float
        Widths of the uniform blurs, ascending.
    error : float
        Bound of Σ |k − k'| for kernels k and their interpolation k': the result differs by at most
        this times the largest absolute value of the image.
    """

    sigmas: tuple[float, ...]
    error: float


def gaussian_levels(sigma: Any, tolerance: float, *, truncate: float = 4.0) -> GaussianLevels:
    """Return the uniform blurs from which ``gaussian_filter(…, tolerance=…)`` interpolates.

    .. math::

        k'_σ = Σ_l c_l(log σ) k_{σ_l},  Σ_{m,n} |k_σ − k'_σ| ≤ error ≤ tolerance

    where c_l are the Lagrange polynomials of Chebyshev nodes between the smallest and the largest
    log σ, and all kernels are truncated as they are in `gaussian_filter`.

    Parameters
    ----------
    sigma : float or array_like
        Map of widths, of which the smallest and the largest count.
    tolerance : float
        Largest error that is allowed, relative to the largest absolute value of the image.
    truncate : float, optional
        Radius of the kernels in standard deviations.

    Returns
    -------
    GaussianLevels
        Their widths, and the error.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported.
    ValueError
        For wrong values, and for a tolerance that truncated kernels cannot keep: they end in a step,
        which a larger `truncate` makes smaller.

    See Also
    --------
    gaussian_filter : What uses them.

    References
    ----------
    .. [1] L.-P. Berrut and L. N. Trefethen, "Barycentric Lagrange interpolation", SIAM Review 46, 2004.

    Examples
    --------
    >>> import cuvarconv
    >>> levels = cuvarconv.gaussian_levels([[1.0, 10.0]], 0.01)
    >>> len(levels.sigmas), levels.error <= 0.01
    (10, True)
    """
    sigmas = named_sigmas(sigma)
    if len(sigmas) != 1:
        raise ValueError("sigma: expected one for both axes, got a pair")
    with receive(None, **sigmas) as call:
        (widths,) = call.operands
        truncated, _ = reach(truncate, None)
        largest_radii((widths, widths), None, truncated, None)
        assert truncated is not None
        return _levels_of(widths, truncated, tolerance)


def check_levels(tolerance: Any, sigmas: tuple[Any, Any], angle: Any, truncate: float | None) -> None:
    """Refuse what cannot be interpolated."""
    if sigmas[0] is not sigmas[1]:
        raise ValueError("tolerance: expected one sigma for both axes, got a pair")
    if angle is not None:
        raise ValueError("tolerance: expected no angle")
    if truncate is None:
        raise ValueError("tolerance: expected no radius, as that of a kernel follows from its sigma")
    _positive(tolerance)


def _positive(tolerance: Any) -> float:
    value = number("tolerance", tolerance)
    if np.iscomplexobj(value) or not 0 < value.real < math.inf:
        raise ValueError(f"tolerance: expected a positive number, got {tolerance!r}")
    return float(value.real)


def correlate_levels(
    call: Call,
    input: Any,
    sigma: Any,
    output: Any,
    window: Window,
    *,
    truncate: float,
    tolerance: Any,
    dtype: np.dtype,
) -> None:
    """Add up uniform blurs, each times every pixel's coefficient; pixels whose radius is 0 stay."""
    dtype = accumulator_dtype(dtype)
    levels = _levels_of(sigma, truncate, tolerance).sigmas
    total, blurred = (call.fresh(output.shape, dtype) for _ in range(2))
    place, norm = (call.fresh(sigma.shape, np.dtype(np.float64)) for _ in range(2))
    _blur(call, input, 0.0, total, window, truncate, dtype)
    for where in blocks(sigma.shape, _AT_ONCE):
        place[where] = np.log(np.maximum(sigma[where].astype(np.float64), _smallest(truncate)))
        norm[where] = sum(_share(place[where], levels, at) for at in range(len(levels)))
    for at, width in enumerate(levels):
        _blur(call, input, width, blurred, window, truncate, dtype)
        for where in blocks(output.shape, _AT_ONCE):
            part = matching(sigma, where)
            coefficient = (_share(place[part], levels, at) / norm[part]).astype(total.real.dtype)
            term = coefficient * blurred[where]
            blurs = sigma[part].astype(np.float64) * truncate + 0.5 >= 1
            total[where] = np.where(blurs, term if at == 0 else total[where] + term, total[where])
    still = Window(still_axis(output.shape[-2]), still_axis(output.shape[-1]), 0.0)
    _blur(call, total, 0.0, output, still, truncate, dtype)


def _blur(
    call: Call,
    input: Any,
    width: float,
    output: Any,
    window: Window,
    truncate: float,
    dtype: np.dtype,
) -> None:
    """Blur by one width, with its own radius within the window."""
    radius = int(truncate * width + 0.5)
    taps = [
        slice(axis.taps // 2 - radius, axis.taps // 2 + radius + 1) for axis in (window.rows, window.columns)
    ]
    sigma = np.array(width)
    correlate_separable(call, input, (sigma, sigma), output, window.taps(*taps), dtype=dtype)


def _share(place: Any, sigmas: tuple[float, ...], at: int) -> Any:
    """Return the share of a node, which over the sum of all is its Lagrange polynomial."""
    count = len(sigmas)
    scale = (-1) ** at * math.sin((2 * at + 1) * math.pi / (2 * count))
    distance = place - math.log(sigmas[at])
    return scale / (distance + (distance == 0) * _CENTRE)


def _levels_of(sigma: Any, truncate: float, tolerance: Any) -> GaussianLevels:
    tolerance = _positive(tolerance)
    high = float(sigma.max()) if sigma.size else 0.0
    if truncate * high + 0.5 < 1:
        return GaussianLevels((), 0.0)
    return _levels(max(float(sigma.min()), _smallest(truncate)), high, truncate, tolerance)


def _smallest(truncate: float) -> float:
    """Return the width below which the radius is 0."""
    return 0.5 / truncate if truncate else 1.0


@functools.lru_cache(maxsize=256)
def _levels(low: float, high: float, truncate: float, tolerance: float) -> GaussianLevels:
    if low == high:
        return GaussianLevels((low,), 0.0)
    best = math.inf
    for count in _COUNTS:
        sigmas = _nodes(low, high, count)
        error = _SAFETY * _largest_error(sigmas, low, high, truncate)
        if error <= tolerance:
            return GaussianLevels(sigmas, error)
        best = min(best, error)
    raise ValueError(
        f"tolerance: expected at least {best:.2g} for sigma from {low:g} to {high:g} and truncate = "
        f"{truncate:g}, got {tolerance:g}; a larger truncate may allow it"
    )


def _nodes(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return Chebyshev nodes between log `low` and log `high`, as widths."""
    angles = (2 * np.arange(count) + 1) * np.pi / (2 * count)
    middle, half = math.log(low * high) / 2, math.log(high / low) / 2
    return tuple(np.exp(middle - half * np.cos(angles)).tolist())


def _largest_error(sigmas: tuple[float, ...], low: float, high: float, truncate: float) -> float:
    """Return the largest Σ |k − k'| over widths between the nodes, and at the ends of every radius."""
    steps = np.linspace(math.log(low), math.log(high), _BETWEEN * len(sigmas) + 1)
    jumps = (np.arange(1, _JUMPS) - 0.5) / truncate
    ends = np.concatenate([jumps * (1 - 1e-12), jumps * (1 + 1e-12)])
    widths = np.concatenate([np.exp(steps).clip(low, high), ends[(ends >= low) & (ends <= high)]])
    reach = int(truncate * high + 0.5)
    nodes = np.stack([_half_line(width, truncate, reach) for width in sigmas])
    largest = 0.0
    for width in widths.tolist():
        line = _half_line(width, truncate, reach)
        shares = np.array([_share(np.float64(math.log(width)), sigmas, at) for at in range(len(sigmas))])
        weighted = nodes.T * (shares / shares.sum())
        error = 0.0
        for at in range(0, reach + 1, _LINES):
            some = slice(at, at + _LINES)
            error += float(np.abs(np.outer(line[some], line) - weighted[some] @ nodes).sum())
        largest = max(largest, error)
    return largest


def _half_line(width: float, truncate: float, reach: int) -> np.ndarray:
    """Return the weights along one axis, those on either side of the centre added up."""
    steps = np.arange(reach + 1)
    weights = np.exp(-0.5 * (steps / width) ** 2) * (steps <= int(truncate * width + 0.5))
    weights[1:] *= 2
    return weights / weights.sum()
