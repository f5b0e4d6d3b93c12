"""The Gaussian whose widths may differ at every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuvarconv._backend import receive
from cuvarconv._dtypes import check_cval, computing_dtype, filter_dtype
from cuvarconv._separable import correlate_separable, is_separable
from cuvarconv._shapes import image_axes_last, with_image
from cuvarconv._sigma import align_map, blur_window, check_order, named_angle, named_sigmas, names, reach
from cuvarconv._window import Window


def gaussian_filter(
    input: Any,
    sigma: Any,
    order: Any = 0,
    output: Any = None,
    mode: Any = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: Any = None,
    axes: Any = (-2, -1),
    angle: Any = None,
) -> Any:
    """Blur images by a Gaussian whose widths may differ at every pixel.

    .. math::

        y[…,i,j] = Σ_{Δr,Δc} k · x[…, i + Δr, j + Δc] / Σ_{Δr,Δc} k,
        k = exp(−½ (u² / σ_r² + v² / σ_c²)),
        u = cosθ·Δr + sinθ·Δc,  v = −sinθ·Δr + cosθ·Δc

    with σ_r, σ_c and θ those of pixel (i, j), over |Δr| ≤ ⌊truncate·s_r + ½⌋ and
    |Δc| ≤ ⌊truncate·s_c + ½⌋ where s_r, s_c are the kernel's standard deviations along rows and
    columns: σ_r and σ_c, with an angle √(σ_r² cos²θ + σ_c² sin²θ) and √(σ_r² sin²θ + σ_c² cos²θ).
    For a constant σ this is `scipy.ndimage.gaussian_filter` on the last two axes.

    Parameters
    ----------
    input : array_like
        Images, shape (…, H, W): NumPy, CuPy, PyTorch or JAX arrays, or lists.
    sigma : float or array_like, or a pair of them
        Standard deviation in pixels: a number, a map of at least two axes that broadcasts to the shape
        of the output, or a pair (rows, columns) of either, as a tuple, a list or an array of length 2.
        Where it is 0 a pixel stays as it is.
    order : int, optional
        0; derivatives are not supported.
    output : array or dtype, optional
        The array to write, or the dtype of the result, by default the input's.  It may overlap an
        operand.
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`.
    cval : scalar, optional
        The value outside under ``"constant"``.
    truncate : float, optional
        Radius of the kernels in standard deviations.
    radius : int or pair of int, optional
        Radius of all kernels in pixels (rows, columns), in place of `truncate`.
    axes : pair of int, optional
        The image axes, e.g. (0, 1) for channels-last pictures.  Maps follow the output's own order.
    angle : float or array_like, optional
        θ in radians, a number or a map: turns the axis of σ_r from that of the rows towards that of
        the columns.

    Returns
    -------
    array
        The caller's kind of array, on the same device, of the input's shape; under ``"valid"`` less
        the largest radius on either side.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported, and operands in different places.
    ValueError
        For values and shapes that do not fit; with an angle also where only one of σ_r and σ_c is 0.
        Nothing has been written then.

    See Also
    --------
    gaussian_filter_vjp : Its gradients.
    gaussian_weights : The same kernels, stored.

    Notes
    -----
    Kernels are made on the fly, in the input's precision (float64 for integers, whose results are
    truncated once), and a pixel beyond the radius does not count, not even if it is infinite or NaN.

    References
    ----------
    .. [1] `scipy.ndimage.gaussian_filter`, for one σ.

    Examples
    --------
    A point that is blurred on the right half of an image only:

    >>> import numpy as np
    >>> import cuvarconv
    >>> image = np.array([[0.0, 9.0, 0.0, 9.0, 0.0, 0.0]])
    >>> sigma = np.array([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]])
    >>> cuvarconv.gaussian_filter(image, sigma).round(2)
    array([[0.  , 9.  , 0.  , 4.08, 2.22, 0.53]])
    """
    check_order(order)
    with receive(output, input=input, **named_sigmas(sigma), **named_angle(angle)) as call:
        images = call.operands[0]
        order, window, sigmas, turn, reached = _read(call.operands, angle, mode, cval, truncate, radius, axes)
        result_dtype = call.output_dtype(filter_dtype(images.dtype, np.dtype(np.float32)))
        dtype = computing_dtype((images.dtype,), result_dtype)
        result = call.target(with_image(images.shape, order, window.output_shape), result_dtype)
        source, target = images.transpose(order), result.transpose(order)
        if is_separable(sigmas, turn, window):
            correlate_separable(call, source, sigmas, target, window, dtype=dtype)
        else:
            call.home.backend.gaussian(source, sigmas, turn, target, window, truncate=reached, dtype=dtype)
        return call.deliver(result)


def _read(
    operands: tuple[Any, ...],
    angle: Any,
    mode: Any,
    cval: complex,
    truncate: Any,
    radius: Any,
    axes: Any,
) -> tuple[tuple[int, ...], Window, tuple[Any, Any], Any, float | None]:
    """Return the order of axes with the image's last, the window, σ and the angle so ordered, and the reach.

    Operands are the image, one σ or two, and the angle unless that is None.
    """
    images, *maps = operands
    turn = None if angle is None else maps.pop()
    widths = (maps[0], maps[-1])
    order = image_axes_last(images.ndim, axes)
    check_cval(cval, images.dtype)
    reached, radii = reach(truncate, radius)
    window = blur_window(
        widths,
        turn,
        (images.shape[order[-2]], images.shape[order[-1]]),
        truncate=reached,
        radii=radii,
        mode=mode,
        cval=cval,
    )
    shape = with_image(images.shape, order, window.output_shape)
    aligned = [align_map(name, each, shape, order) for name, each in zip(names(maps), maps, strict=True)]
    turned = None if turn is None else align_map("angle", turn, shape, order)
    return order, window, (aligned[0], aligned[-1]), turned, reached
