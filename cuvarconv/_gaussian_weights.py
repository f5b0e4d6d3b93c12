"""The Gaussians of every pixel as stored kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuvarconv._backend import receive
from cuvarconv._blocks import blocks, matching
from cuvarconv._dtypes import product_dtype
from cuvarconv._sigma import common_shape, extents, largest_radii, named_angle, named_sigmas, reach

_AT_ONCE = 1 << 18  # weights
_ON_DEVICE = 1 << 21  # the same there, where each step of a block is a launch
_THINNEST = 1e-150  # σ is raised to this, as 0 has no inverse


def gaussian_weights(sigma: Any, radius: Any = None, *, truncate: float = 4.0, angle: Any = None) -> Any:
    """Return the kernels with which `gaussian_filter` blurs.

    .. math::

        k[m,n,…] ∝ exp(−½ (u² / σ_r² + v² / σ_c²)),  Σ_{m,n} k[m,n,…] = 1,
        u = cosθ·Δr + sinθ·Δc,  v = −sinθ·Δr + cosθ·Δc,  Δr = m − r_r,  Δc = n − r_c

    within the radius of each kernel, and 0 beyond.

    Parameters
    ----------
    sigma : float or array_like, or a pair of them
        Standard deviation in pixels: a number, a map, or a pair (rows, columns) of either.
    radius : int or pair of int, optional
        Radius of all kernels in pixels, in place of `truncate`.
    truncate : float, optional
        Radius of the kernels in standard deviations.
    angle : float or array_like, optional
        θ in radians, a number or a map.

    Returns
    -------
    array
        Shape (2 r_r + 1, 2 r_c + 1) + S with the largest radii, where S is the shape to which σ and θ
        broadcast; of their common dtype, float64 for integers.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported.
    ValueError
        For values and shapes that do not fit.

    See Also
    --------
    gaussian_filter : The same without storing them.

    References
    ----------
    .. [1] `scipy.ndimage.gaussian_filter`, for one σ.

    Examples
    --------
    >>> import numpy as np
    >>> import cuvarconv
    >>> cuvarconv.gaussian_weights([[0.0, 0.5, 1.0]], radius=(0, 1))[0, :, 0].round(3)
    array([[0.   , 0.107, 0.274],
           [1.   , 0.787, 0.452],
           [0.   , 0.107, 0.274]])
    """
    with receive(None, **named_sigmas(sigma), **named_angle(angle)) as call:
        if call.home.library == "dask":
            raise TypeError("sigma: gaussian_weights takes no dask arrays; map it over their blocks")
        maps = list(call.operands)
        dtype = product_dtype(tuple(each.dtype for each in maps))
        turn = None if angle is None else maps.pop()
        sigmas = maps[0], maps[-1]
        truncated, radii = reach(truncate, radius)
        far = largest_radii(sigmas, turn, truncated, radii)
        shape = common_shape(*call.operands)
        size = 2 * far[0] + 1, 2 * far[1] + 1
        result = call.fresh((*size, *shape), dtype)
        steps = [call.upload(np.arange(-reached, reached + 1.0)) for reached in far]
        at_once = _AT_ONCE if call.home.device is None else _ON_DEVICE
        for where in blocks(shape, max(1, at_once // (size[0] * size[1]))):
            rows, columns, *turned = (
                each[(None,) * (len(shape) - each.ndim)]
                for each in (*sigmas, *([] if turn is None else [turn]))
            )
            part = [each[matching(each, where)].astype(np.float64) for each in (rows, columns, *turned)]
            with np.errstate(all="ignore"):
                result[(..., *where)] = _kernels(*part, steps=steps, truncate=truncated, far=far)
        return call.hand_over(result)


def _kernels(
    rows: Any,
    columns: Any,
    angle: Any = None,
    *,
    steps: list[Any],
    truncate: float | None,
    far: tuple[int, int],
) -> Any:
    """Return the kernels of a block, in double precision."""
    every = (None,) * rows.ndim
    down, across = steps[0][(slice(None), None, *every)], steps[1][(None, slice(None), *every)]
    if truncate is None:
        reached = [(width > 0) * length for width, length in zip((rows, columns), far, strict=True)]
    else:
        widths = (rows, columns) if angle is None else extents(rows, columns, angle)
        reached = [np.floor(truncate * width + 0.5) for width in widths]
    rows, columns = np.maximum(rows, _THINNEST), np.maximum(columns, _THINNEST)
    if angle is None:
        u, v = down / rows, across / columns
    else:
        cosine, sine = np.cos(angle), np.sin(angle)
        u, v = (cosine * down + sine * across) / rows, (cosine * across - sine * down) / columns
    kernels = np.exp(-0.5 * (u * u + v * v))
    kernels = kernels * (abs(down) <= reached[0]) * (abs(across) <= reached[1])
    return kernels / kernels.sum(axis=(0, 1))
