"""The Gaussian whose widths may differ at every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuvarconv._backend import receive
from cuvarconv._blur import read_blur
from cuvarconv._dtypes import computing_dtype, filter_dtype
from cuvarconv._gaussian_adjoint import Backward
from cuvarconv._gradients import Gradient, check_gradient, gradients
from cuvarconv._levels import check_levels, correlate_levels
from cuvarconv._separable import correlate_separable
from cuvarconv._shapes import with_image
from cuvarconv._sigma import check_order, named_angle, named_sigmas


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
    tolerance: Any = None,
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
        Two nested lists, e.g. ``[[[1, 2]], [[3, 4]]]``, are a pair of maps; a map of three axes is given
        as an array.  Where σ is 0 a pixel stays as it is.
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
    tolerance : float, optional
        Largest error, relative to the largest absolute value of the image, that is allowed for the sake
        of speed: the result is interpolated between uniform blurs, see `gaussian_levels`, which pays
        for wide kernels.  For one `sigma` for both axes; what is not finite may spread further.

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
        blur = read_blur(call.operands, angle, mode, cval, truncate, radius, axes)
        if tolerance is not None:
            check_levels(tolerance, blur.sigmas, blur.angle, blur.truncate)
            if call.home.library == "dask":
                raise TypeError(
                    "tolerance: expected None with dask arrays, whose blocks would each choose levels "
                    f"of their own, got {tolerance!r}"
                )
        result_dtype = call.output_dtype(filter_dtype(images.dtype, np.dtype(np.float32)))
        dtype = computing_dtype((images.dtype,), result_dtype)
        result = call.target(with_image(images.shape, blur.order, blur.window.output_shape), result_dtype)
        source, target = images.transpose(blur.order), result.transpose(blur.order)
        operands, reached = (source, blur.sigmas), blur.truncate
        if blur.separable:
            call.composed(correlate_separable, *operands, target, blur.window, dtype=dtype)
        elif tolerance is not None and reached is not None:
            levels = {"truncate": reached, "tolerance": tolerance, "dtype": dtype}
            with np.errstate(all="ignore"):
                correlate_levels(call, source, blur.sigmas[0], target, blur.window, **levels)
        else:
            backend = call.home.backend
            backend.gaussian(*operands, blur.angle, target, blur.window, truncate=reached, dtype=dtype)
        return call.deliver(result)


def gaussian_filter_vjp(
    grad: Any,
    input: Any,
    sigma: Any,
    *,
    wrt: Any = ("input", "sigma"),
    mode: Any = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    radius: Any = None,
    axes: Any = (-2, -1),
    angle: Any = None,
) -> Any:
    """Return the gradients of `gaussian_filter`.

    For a loss L with gradient g in the result, and normalised kernels k whose radii are held fixed,

    .. math::

        dL/dx = spread(g, k),
        dL/dσ_r[…,i,j] = Σ g · Σ_{Δr,Δc} k · (u² − E[u²]) / σ_r³ · x[…, i + Δr, j + Δc],
        dL/dσ_c[…,i,j] = Σ g · Σ_{Δr,Δc} k · (v² − E[v²]) / σ_c³ · x[…, i + Δr, j + Δc],
        dL/dθ[…,i,j] = Σ g · Σ_{Δr,Δc} k · (uv − E[uv]) · (1 / σ_c² − 1 / σ_r²) · x[…, i + Δr, j + Δc]

    with u and v as there, E the mean over the kernel, and the outer sum over the axes along which pixels
    share a σ or θ. Where σ is 0 its gradient is 0. A number that is added to the image, and to `cval`,
    changes none of them, but the gradient in one σ for all pixels loses digits to it, in float32 about 1e-4
    of the gradient where the number is 100 times the image's standard deviation: take it off before.

    Parameters
    ----------
    grad : array_like
        Gradient of the loss in the result, of the result's shape.
    input, sigma : array_like
        The operands of `gaussian_filter`.
    wrt : str or tuple of str, optional
        Out of ``"input"``, ``"sigma"`` and, where there is one, ``"angle"``.
    mode, cval, truncate, radius, axes, angle
        As for `gaussian_filter`.

    Returns
    -------
    tuple of arrays, or one array
        One gradient for each name in `wrt`, in its order; for a single name the gradient itself.  Each
        has its operand's shape and dtype (float64 for integers); for a pair of sigmas it is a pair.

    Raises
    ------
    TypeError, ValueError
        As `gaussian_filter`, for a `grad` that has not the result's shape, and for unknown names in `wrt`.

    See Also
    --------
    correlate_vjp : The same for kernels that are stored.

    References
    ----------
    .. [1] E. Shelhamer, D. Wang and T. Darrell, "Blurring the line between structure and learning to
       optimize and adapt receptive fields", 2019: learning σ by its gradient.

    Examples
    --------
    The peak of a point falls as σ grows:

    >>> import numpy as np
    >>> import cuvarconv
    >>> x = np.array([[0.0, 0.0, 1.0, 0.0, 0.0]])
    >>> g = np.array([[0.0, 0.0, 1.0, 0.0, 0.0]])  # the loss is the middle pixel
    >>> sigma = np.ones((1, 5))
    >>> cuvarconv.gaussian_filter_vjp(g, x, sigma, wrt="sigma").round(3) + 0.0
    array([[ 0.   ,  0.   , -0.399,  0.   ,  0.   ]])
    """
    with receive(None, grad=grad, input=input, **named_sigmas(sigma), **named_angle(angle)) as call:
        given, images, *maps = call.operands
        blur = read_blur(call.operands[1:], angle, mode, cval, truncate, radius, axes)
        check_gradient(given.shape, with_image(images.shape, blur.order, blur.window.output_shape))
        backward, both = Backward(call, given, images, blur), (given, images)
        known = {}
        if angle is not None:
            known["angle"] = Gradient(maps.pop(), both, backward.fill_angle)
        widths = tuple(maps) if len(maps) == 2 else maps[0]
        return gradients(
            call,
            wrt,
            input=Gradient(images, (given,), backward.fill_input),
            sigma=Gradient(widths, both, backward.fill_sigma),
            **known,
        )
