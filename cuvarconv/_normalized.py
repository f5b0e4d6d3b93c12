"""Weighted means over the pixels that count: convolution with missing data."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuvarconv._backend import receive
from cuvarconv._dtypes import accumulator_dtype, computing_dtype, is_exact, product_dtype
from cuvarconv._shapes import align, align_map, image_axes_last, kernel_size, with_image
from cuvarconv._window import make_window


def normalized_correlate(
    input: Any,
    weights: Any,
    mask: Any = None,
    *,
    mode: Any = "reflect",
    origin: Any = 0,
    variance: Any = None,
    output: Any = None,
    axes: Any = (-2, -1),
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Correlate the pixels that count, and divide by the weights that met one.

    .. math::

        y[…,i,j] = Σ_{m,n} k[m,n,…,i,j] c[…,p,q] x[…,p,q] / Σ_{m,n} k[m,n,…,i,j] c[…,p,q]

    with (p, q) the pixel under tap (m, n), as for `correlate`, and c the `mask`.  Pixels with c = 0 do
    not count whatever they hold, NaN included, so missing ones are filled from their surroundings.

    Parameters
    ----------
    input : array_like
        Images, shape (…, H, W).
    weights : array_like
        Kernels, shape (kh, kw) + S, where S broadcasts to the output's shape; conjugated if complex.
    mask : array_like, optional
        How much each pixel counts: bool, or a real certainty, of a shape that broadcasts to the
        input's.  Without it those pixels count that are finite.
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`.  Reflected or repeated pixels count as those
        that they repeat; under ``"constant"`` nothing outside counts, and there is no `cval`.
    origin : int or pair of int, optional
        Shift of the window in taps.
    variance : array_like, optional
        Variance of each pixel, real, of a shape that broadcasts to the input's.  The result is then a
        pair, and its second array the variance of the first, errors of different pixels being
        independent: Σ |k c|² variance / |Σ k c|².
    output : array or dtype, optional
        Where to put y, or its dtype.
    axes : pair of int, optional
        The image axes.
    stride, dilation : int or pair of int, optional
        Step in pixels between outputs, and between taps.

    Returns
    -------
    array, or pair of arrays
        y, of the dtype that ``numpy.result_type`` gives for the inexact operands, float64 if there is
        none; NaN where the divisor is 0, as where no pixel under the window counts.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported, and a complex `mask` or `variance`.
    ValueError
        For values and shapes that do not fit.

    Notes
    -----
    A pixel that repeats another at the border (mode ``"reflect"``) has the same error, so that the
    propagated variance is right away from borders, and under ``"constant"`` and ``"valid"``.

    References
    ----------
    .. [1] H. Knutsson and C.-F. Westin, "Normalized and differential convolution", CVPR 1993.
    .. [2] `astropy.convolution.convolve`, which fills NaN in the same way.

    Examples
    --------
    A missing pixel takes the mean of its neighbours:

    >>> import numpy as np
    >>> import cuvarconv
    >>> image = np.array([[1.0, np.nan, 3.0, 5.0]])
    >>> cuvarconv.normalized_correlate(image, np.ones((1, 3)))
    array([[1.        , 2.        , 4.        , 4.33333333]])
    """
    optional = {"mask": mask, "variance": variance}
    given = {name: array for name, array in optional.items() if array is not None}
    with receive(output, input=input, weights=weights, **given) as call:
        images, kernels = call.operands[:2]
        maps = dict(zip(given, call.operands[2:], strict=True))
        order = image_axes_last(images.ndim, axes)
        window = make_window(
            kernel_size("weights", kernels.shape),
            (images.shape[order[-2]], images.shape[order[-1]]),
            mode=mode,
            cval=0.0,
            origin=origin,
            stride=stride,
            dilation=dilation,
        )
        shape = with_image(images.shape, order, window.output_shape)
        kernels_last = align("weights", kernels, shape, order)
        for name, array in maps.items():
            maps[name] = _aligned(name, array, images.shape, order)
        dtype = _dtype(images, kernels, *maps.values())
        result = call.target(shape, call.output_dtype(dtype))
        computing = accumulator_dtype(computing_dtype((dtype,), result.dtype))
        backend, operands = call.home.backend, (images.transpose(order), kernels_last, maps.get("mask"))
        with np.errstate(all="ignore"):  # 0/0 is what is meant
            backend.normalized(*operands, result.transpose(order), window, dtype=computing)
        if variance is None:
            return call.deliver(result)
        errors = call.fresh(shape, np.empty((), dtype).real.dtype)
        with np.errstate(all="ignore"):
            backend.normalized_variance(
                *operands, maps["variance"], errors.transpose(order), window, dtype=computing
            )
        return call.deliver(result), call.hand_over(errors)


def _aligned(name: str, array: Any, shape: tuple[int, ...], order: tuple[int, ...]) -> Any:
    if array.dtype.kind == "c":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return align_map(name, array, shape, order)


def _dtype(*operands: Any) -> np.dtype:
    """Return the result's dtype; counts and flags leave that of the data as it is."""
    inexact = tuple(operand.dtype for operand in operands if not is_exact(operand.dtype))
    return product_dtype(inexact or (np.dtype(np.float64),))
