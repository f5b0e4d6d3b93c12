"""Kernels from the likeness of features: the modulation of pixel-adaptive convolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cuvarconv._arguments import int_pair, is_lazy
from cuvarconv._backend import receive
from cuvarconv._dtypes import computing_dtype, product_dtype
from cuvarconv._gradients import Gradient, check_gradient, gradients
from cuvarconv._shapes import with_channels
from cuvarconv._window import Window, make_window


def affinity(
    guide: Any,
    size: Any,
    sigma: float = 1.0,
    *,
    channel_axis: int | None = -3,
    mode: Any = "reflect",
    origin: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Return Gaussian weights of how alike each pixel's features are to those at the window's centre.

    .. math::

        d[m,n,…,i,j] = exp(−½ Σ_c (g[…,c, p_m, q_n] − g[…,c, p, q])² / σ²)

    where (p_m, q_n) is the pixel under tap (m, n) of output (i, j) and (p, q) the one under the
    window's centre, tap (kh // 2 + origin, kw // 2 + origin).  Under ``"constant"`` taps outside are 0.

    Parameters
    ----------
    guide : array_like
        Features, real, shape (…, C, H, W).
    size : int or pair of int
        The window, kh and kw.
    sigma : float, optional
        Width of the Gaussian, in the guide's units.
    channel_axis : int or None, optional
        Axis of the features; None for a guide of shape (…, H, W).
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`.
    origin : int or pair of int, optional
        Shift of the window's centre in taps.
    stride, dilation : int or pair of int, optional
        Step in pixels between windows, and between taps.

    Returns
    -------
    array
        Shape (kh, kw, …, 1, H_out, W_out), the modulation that `modulated_correlate` takes; without the
        axis of length 1 for ``channel_axis=None``.  Of the guide's dtype, float64 for integers.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported.
    ValueError
        For values and shapes that do not fit.

    See Also
    --------
    affinity_vjp : Its gradient.
    modulated_correlate : What takes the result.

    References
    ----------
    .. [1] H. Su, V. Jampani, D. Sun, O. Gallo, E. Learned-Miller and J. Kautz, "Pixel-adaptive
       convolutional neural networks", CVPR 2019, eq. (3).

    Examples
    --------
    An edge between 0 and 9 that a filter shall not cross:

    >>> import numpy as np
    >>> import cuvarconv
    >>> guide = np.array([[0.0, 0.0, 9.0, 9.0]])
    >>> cuvarconv.affinity(guide, (1, 3), channel_axis=None)[0, :, 0].round(3)
    array([[1., 1., 0., 1.],
           [1., 1., 1., 1.],
           [1., 0., 1., 1.]])
    """
    with receive(None, guide=guide) as call:
        (given,) = call.operands
        features = _features(given, channel_axis)
        window, centre = _window(features, size, mode, origin, stride, dilation)
        dtype = product_dtype((given.dtype,))
        result = call.fresh((*_taps(window), *_result_shape(features, window, channel_axis)), dtype)
        target = result if channel_axis is None else result[..., 0, :, :]
        call.home.backend.affinity(
            features,
            target,
            window,
            centre=centre,
            sharpness=_sharpness(sigma),
            dtype=computing_dtype((given.dtype,), dtype),
        )
        return call.hand_over(result)


def affinity_vjp(
    grad: Any,
    guide: Any,
    size: Any,
    sigma: float = 1.0,
    *,
    wrt: Any = ("guide",),
    channel_axis: int | None = -3,
    mode: Any = "reflect",
    origin: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Return the gradient of `affinity` in the guide.

    With e = grad · d / σ², where d is the affinity,

    .. math::

        dL/dg[…,c,h,w] = Σ e·(g[centre] − g[…,c,h,w]) + Σ_{m,n} e·(g[…,c, p_m, q_n] − g[…,c,h,w])

    the first sum over all outputs and taps that read (h, w), the second over all taps of the output
    whose centre it is.

    Parameters
    ----------
    grad : array_like
        Gradient of the loss in the affinity, of its shape.
    guide, size, sigma, channel_axis, mode, origin, stride, dilation
        As for `affinity`.
    wrt : str or tuple of str, optional
        ``"guide"``, the one operand.

    Returns
    -------
    tuple of one array, or the array
        Of the guide's shape and dtype (float64 for integers); the array itself if `wrt` is a name.

    Raises
    ------
    TypeError, ValueError
        As `affinity`, and for a `grad` that has not the affinity's shape.

    References
    ----------
    .. [1] H. Su et al., "Pixel-adaptive convolutional neural networks", CVPR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import cuvarconv
    >>> guide = np.array([[0.0, 1.0]])
    >>> grad = np.array([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1) * [1.0, 0.0]  # likeness of 0 and 1
    >>> cuvarconv.affinity_vjp(grad, guide, (1, 3), wrt="guide", channel_axis=None).round(3)
    array([[ 0.607, -0.607]])
    """
    with receive(None, grad=grad, guide=guide) as call:
        given, features = call.operands[0], _features(call.operands[1], channel_axis)
        window, centre = _window(features, size, mode, origin, stride, dilation)
        shape = _result_shape(features, window, channel_axis)
        check_gradient(given.shape, (*_taps(window), *shape))

        def fill_guide(result: Any, dtype: np.dtype) -> None:
            call.home.backend.affinity_gradient(
                given if channel_axis is None else given[..., 0, :, :],
                features,
                _features(result, channel_axis),
                window,
                centre=centre,
                sharpness=_sharpness(sigma),
                dtype=dtype,
            )

        return gradients(call, wrt, guide=Gradient(call.operands[1], call.operands, fill_guide))


def _features(guide: Any, channel_axis: Any) -> Any:
    """View the guide as (…, C, H, W)."""
    if guide.dtype.kind == "c":
        raise TypeError(f"guide: expected real features, got {guide.dtype}")
    return with_channels("guide", guide, channel_axis)


def _window(
    features: Any, size: Any, mode: Any, origin: Any, stride: Any, dilation: Any
) -> tuple[Window, tuple[int, int]]:
    """Return the window and the tap at its centre."""
    taps, shift = int_pair("size", size, minimum=1), int_pair("origin", origin)
    window = make_window(
        taps, features.shape[-2:], mode=mode, cval=0.0, origin=shift, stride=stride, dilation=dilation
    )
    return window, (taps[0] // 2 + shift[0], taps[1] // 2 + shift[1])


def _taps(window: Window) -> tuple[int, int]:
    return window.rows.taps, window.columns.taps


def _result_shape(features: Any, window: Window, channel_axis: Any) -> tuple[int, ...]:
    channels = () if channel_axis is None else (1,)
    return (*features.shape[:-3], *channels, *window.output_shape)


def _sharpness(sigma: Any) -> float:
    """Return 1/σ."""
    try:
        if isinstance(sigma, str | bytes) or is_lazy(sigma):
            raise TypeError
        width = float(sigma)
    except (TypeError, ValueError):
        raise TypeError(f"sigma: expected a number, got {sigma!r}") from None
    if not 0 < width < math.inf or 1 / width == math.inf:
        raise ValueError(f"sigma: expected a positive number, got {sigma!r}")
    return 1 / width
