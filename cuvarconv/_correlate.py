"""Correlation and convolution with one kernel per location, shared by the channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuvarconv._backend import receive
from cuvarconv._dtypes import check_cval, computing_dtype, filter_dtype
from cuvarconv._gradients import Gradient, check_gradient, gradients
from cuvarconv._shapes import align, image_axes_last, kernel_size, with_image
from cuvarconv._window import make_window


def correlate(
    input: Any,
    weights: Any,
    output: Any = None,
    mode: Any = "reflect",
    cval: complex = 0.0,
    origin: Any = 0,
    *,
    axes: Any = (-2, -1),
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Correlate images with a kernel that may differ at every pixel.

    .. math::

        y[…,i,j] = Σ_{m,n} k[m,n,…,i,j] · x[…, i·s + m·d − c_h, j·s + n·d − c_w]

    where s is the stride, d the dilation and c = (size // 2 + origin)·d the kernel's centre.
    Complex kernels are conjugated.  With ``weights`` of shape (kh, kw) this is
    `scipy.ndimage.correlate` on the last two axes.

    Parameters
    ----------
    input : array_like
        Images, shape (…, H, W): NumPy, CuPy, PyTorch, JAX or dask arrays, or lists.
    weights : array_like
        Kernels, shape (kh, kw) + S, where S broadcasts to the shape of the output: (kh, kw) is one
        kernel for all, (kh, kw, H, W) one per pixel, (kh, kw, C, 1, 1) one per channel,
        (kh, kw, N, 1, H, W) one per sample and pixel.  Nothing is expanded in memory.
    output : array or dtype, optional
        The array to write, or the dtype of the result.  By default the input's dtype, complex if
        either operand is.  It may overlap an operand.
    mode : str or pair of str, optional
        What lies outside the image, one name or (rows, columns):

        - ``"reflect"`` or ``"grid-mirror"`` (d c b a | a b c d | d c b a), the default
        - ``"mirror"`` (d c b | a b c d | c b a)
        - ``"nearest"`` (a a a a | a b c d | d d d d)
        - ``"wrap"`` or ``"grid-wrap"`` (a b c d | a b c d | a b c d)
        - ``"constant"`` or ``"grid-constant"`` (v v v v | a b c d | v v v v), v being `cval`
        - ``"valid"``: only outputs whose whole window lies inside
    cval : scalar, optional
        The value outside under ``"constant"``.
    origin : int or pair of int, optional
        Shift of the kernel's centre in taps, −(size // 2) … (size − 1) // 2; positive to later taps.
    axes : pair of int, optional
        The image axes, e.g. (0, 1) for channels-last pictures.  S follows the output's own order.
    stride, dilation : int or pair of int, optional
        Step in pixels between outputs, and between taps.

    Returns
    -------
    array
        The caller's kind of array, on the same device.  H_out = ⌈H / stride⌉; under ``"valid"``
        ⌊(H − (kh − 1)·dilation − 1) / stride⌋ + 1.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported, and operands in different places.
    ValueError
        For values and shapes that do not fit.  Nothing has been written then.

    See Also
    --------
    convolve : The same with the kernel flipped.
    modulated_correlate : A shared kernel that mixes channels, modulated at each pixel.

    Notes
    -----
    Products are formed in ``numpy.result_type(input, weights)``, float64 if that or the output is an
    integer, and summed in that, at least in float32.  Integer results are truncated.  No tap is
    skipped: 0·NaN is NaN.

    References
    ----------
    .. [1] B. Mildenhall, J. T. Barron, J. Chen, D. Sharlet, R. Ng and R. Carroll, "Burst denoising with
       kernel prediction networks", CVPR 2018: one kernel per pixel.

    Examples
    --------
    A box blur on the left half of an image only:

    >>> import numpy as np
    >>> import cuvarconv
    >>> image = np.array([[9.0, 0.0, 9.0, 0.0]])
    >>> weights = np.zeros((1, 3, 1, 4))
    >>> weights[0, :, 0, :2] = 1 / 3  # mean of three neighbours
    >>> weights[0, 1, 0, 2:] = 1  # identity
    >>> cuvarconv.correlate(image, weights)
    array([[6., 6., 9., 0.]])
    """
    return _filter(input, weights, output, mode, cval, origin, axes, stride, dilation, flip=False)


def convolve(
    input: Any,
    weights: Any,
    output: Any = None,
    mode: Any = "reflect",
    cval: complex = 0.0,
    origin: Any = 0,
    *,
    axes: Any = (-2, -1),
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Convolve images with a kernel that may differ at every pixel.

    .. math::

        y[…,i,j] = Σ_{m,n} k[m,n,…,i,j] · x[…, i·s − m·d + c_h, j·s − n·d + c_w]

    It is `correlate` with the kernel flipped along its two kernel axes and the origin moved as
    `scipy.ndimage.convolve` moves it; complex kernels are not conjugated.  Each output pixel still
    gathers with its own kernel.

    Parameters
    ----------
    input : array_like
        Images, shape (…, H, W).
    weights : array_like
        Kernels, shape (kh, kw) + S, where S broadcasts to the shape of the output.
    output : array or dtype, optional
        The array to write, or the dtype of the result.
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`.
    cval : scalar, optional
        The value outside under ``"constant"``.
    origin : int or pair of int, optional
        Shift of the kernel's centre in taps.
    axes : pair of int, optional
        The image axes.
    stride, dilation : int or pair of int, optional
        Step in pixels between outputs, and between taps.

    Returns
    -------
    array
        The caller's kind of array, on the same device.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported, and operands in different places.
    ValueError
        For values and shapes that do not fit.  Nothing has been written then.

    See Also
    --------
    correlate : The same without the flip; its documentation has the details.

    References
    ----------
    .. [1] `scipy.ndimage.convolve`, for one kernel.

    Examples
    --------
    >>> import numpy as np
    >>> import cuvarconv
    >>> cuvarconv.convolve(np.array([[0.0, 1.0, 0.0, 0.0]]), [[1.0, 2.0, 3.0]])
    array([[1., 2., 3., 0.]])
    """
    return _filter(input, weights, output, mode, cval, origin, axes, stride, dilation, flip=True)


def _filter(
    input: Any,
    weights: Any,
    output: Any,
    mode: Any,
    cval: complex,
    origin: Any,
    axes: Any,
    stride: Any,
    dilation: Any,
    *,
    flip: bool,
) -> Any:
    with receive(output, input=input, weights=weights) as call:
        images, kernels = call.operands
        order = image_axes_last(images.ndim, axes)
        window = make_window(
            kernel_size("weights", kernels.shape),
            (images.shape[order[-2]], images.shape[order[-1]]),
            mode=mode,
            cval=cval,
            origin=origin,
            stride=stride,
            dilation=dilation,
            flip=flip,
        )
        shape = with_image(images.shape, order, window.output_shape)
        kernels_last = align("weights", kernels, shape, order)
        result_dtype = call.output_dtype(filter_dtype(images.dtype, kernels.dtype))
        dtype = computing_dtype((images.dtype, kernels.dtype), result_dtype)
        check_cval(window.cval, images.dtype)
        result = call.target(shape, result_dtype)
        call.home.backend.correlate(
            images.transpose(order),
            kernels_last[::-1, ::-1] if flip else kernels_last,
            result.transpose(order),
            window,
            dtype=dtype,
            conjugate=kernels.dtype.kind == "c" and not flip,
        )
        return call.deliver(result)


def correlate_vjp(
    grad: Any,
    input: Any,
    weights: Any,
    *,
    wrt: Any = ("input", "weights"),
    mode: Any = "reflect",
    cval: complex = 0.0,
    origin: Any = 0,
    axes: Any = (-2, -1),
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Return the gradients of `correlate`.

    For y = correlate(x, k) and a loss L with gradient g in y,

    .. math::

        dL/dx = spread(g, k),
        dL/dk[m,n,…,i,j] = Σ conj(g[…,i,j]) · x[…, i·s + m·d − c_h, j·s + n·d − c_w]

    the sum running over the axes along which the kernels are shared.

    Parameters
    ----------
    grad : array_like
        Gradient of the loss in the result, of the result's shape.
    input, weights : array_like
        The operands of `correlate`.
    wrt : str or tuple of str, optional
        The operands whose gradients are asked for; the others are not computed.
    mode, cval, origin, axes, stride, dilation
        As for `correlate`.

    Returns
    -------
    tuple of arrays, or one array
        One gradient for each name in `wrt`, in its order; for a single name the gradient itself.  Each
        has its operand's shape and dtype (float64 for integers).

    Raises
    ------
    TypeError, ValueError
        As `correlate`, for a `grad` that has not the result's shape, and for unknown names in `wrt`.

    See Also
    --------
    spread : The gradient in the input, as a function of its own.

    Notes
    -----
    Complex gradients are G with dL = Re Σ conj(G)·dp, PyTorch's convention; a real operand gets the real
    part.  The sums are formed in an order that depends on shapes alone: the same call gives the same bits.

    References
    ----------
    .. [1] B. Mildenhall et al., "Burst denoising with kernel prediction networks", CVPR 2018, which
       trains a network to predict one kernel per pixel through these gradients.

    Examples
    --------
    >>> import numpy as np
    >>> import cuvarconv
    >>> x = np.array([[1.0, 2.0, 3.0]])
    >>> k = np.ones((1, 3, 1, 3))
    >>> g = np.array([[0.0, 1.0, 0.0]])  # the loss is the middle pixel
    >>> cuvarconv.correlate_vjp(g, x, k, wrt="input")
    array([[1., 1., 1.]])
    >>> cuvarconv.correlate_vjp(g, x, k, wrt="weights")[0, :, 0, 1]
    array([1., 2., 3.])
    """
    with receive(None, grad=grad, input=input, weights=weights) as call:
        given, images, kernels = call.operands
        order = image_axes_last(images.ndim, axes)
        window = make_window(
            kernel_size("weights", kernels.shape),
            (images.shape[order[-2]], images.shape[order[-1]]),
            mode=mode,
            cval=cval,
            origin=origin,
            stride=stride,
            dilation=dilation,
        )
        check_cval(window.cval, images.dtype)
        shape = with_image(images.shape, order, window.output_shape)
        check_gradient(given.shape, shape)
        kernels_last = align("weights", kernels, shape, order)
        backend, given_last = call.home.backend, given.transpose(order)

        def fill_input(result: Any, dtype: np.dtype) -> None:
            backend.spread(given_last, kernels_last, result.transpose(order), window, dtype=dtype)

        def fill_weights(result: Any, dtype: np.dtype) -> None:
            backend.correlate_weights_gradient(
                given_last,
                images.transpose(order),
                align("weights", result, shape, order),
                window,
                dtype=dtype,
            )

        return gradients(
            call,
            wrt,
            input=Gradient(images, (given, kernels), fill_input),
            weights=Gradient(kernels, (given, images), fill_weights),
        )
