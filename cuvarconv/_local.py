"""Full kernels: every location has its own, for every pair of channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuvarconv._backend import receive
from cuvarconv._dtypes import check_cval, computing_dtype, product_dtype
from cuvarconv._gradients import Gradient, check_gradient, gradients
from cuvarconv._shapes import align_full, kernel_size
from cuvarconv._window import Window, make_window


def local_correlate(
    input: Any,
    kernels: Any,
    output: Any = None,
    mode: Any = "reflect",
    cval: complex = 0.0,
    origin: Any = 0,
    *,
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Correlate images with a kernel of its own for every pixel and every pair of channels.

    .. math::

        y[…,o,i,j] = Σ_{m,n,c} k[m,n,…,i,j,c,o] · x[…,c, i·s + m·d − p_h, j·s + n·d − p_w]

    where s is the stride, d the dilation and p = (size // 2 + origin)·d the kernel's centre.
    Nothing is conjugated.

    Parameters
    ----------
    input : array_like
        Images, shape (…, C_in, H, W): NumPy, CuPy, PyTorch, JAX or dask arrays, or lists.
    kernels : array_like
        Kernels, shape (kh, kw, H_out, W_out, C_in, C_out), or (kh, kw, …, H_out, W_out, C_in, C_out)
        with batch axes that broadcast to those of the input.
    output : array or dtype, optional
        The array to write, or the dtype of the result.  By default ``numpy.result_type(input,
        kernels)``, float64 for integers.  It may overlap an operand.
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`.
    cval : scalar, optional
        The value outside under ``"constant"``.
    origin : int or pair of int, optional
        Shift of the kernel's centre in taps.
    stride, dilation : int or pair of int, optional
        Step in pixels between outputs, and between taps.

    Returns
    -------
    array
        Shape (…, C_out, H_out, W_out), the caller's kind of array, on the same device.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported, and operands in different places.
    ValueError
        For values and shapes that do not fit.  Nothing has been written then.

    See Also
    --------
    modulated_correlate : The same for k = w·d, without ever forming that product.
    correlate : One kernel per pixel that does not mix channels.

    Notes
    -----
    Neural networks call it a locally connected layer, or convolution with unshared weights.  The
    kernels are read once, also where several samples share them; no patches of the input are stored.

    References
    ----------
    .. [1] Y. Taigman, M. Yang, M. Ranzato and L. Wolf, "DeepFace: closing the gap to human-level
       performance in face verification", CVPR 2014: locally connected layers.
    .. [2] `jax.lax.conv_general_dilated_local`, for another layout.

    Examples
    --------
    A colour matrix for each half of an image:

    >>> import numpy as np
    >>> import cuvarconv
    >>> image = np.stack([np.full((1, 4), 1.0), np.full((1, 4), 2.0)])  # C_in = 2
    >>> kernels = np.zeros((1, 1, 1, 4, 2, 1))  # C_out = 1
    >>> kernels[0, 0, 0, :2, :, 0] = [1, 1]  # left: the sum of the channels
    >>> kernels[0, 0, 0, 2:, :, 0] = [-1, 1]  # right: their difference
    >>> cuvarconv.local_correlate(image, kernels)
    array([[[3., 3., 1., 1.]]])
    """
    with receive(output, input=input, kernels=kernels) as call:
        images, full = call.operands
        window = _window(images, full, mode, cval, origin, stride, dilation)
        kernels_last = _aligned(full, images, window)
        result_dtype = call.output_dtype(product_dtype((images.dtype, full.dtype)))
        result = call.target(_result_shape(images, full, window), result_dtype)
        if 0 in (images.size, result.size):
            result[...] = 0  # empty sums
            return call.deliver(result)
        call.home.backend.local_correlate(
            images,
            kernels_last,
            result,
            window,
            dtype=computing_dtype((images.dtype, full.dtype), result_dtype),
        )
        return call.deliver(result)


def local_correlate_vjp(
    grad: Any,
    input: Any,
    kernels: Any,
    *,
    wrt: Any = ("input", "kernels"),
    mode: Any = "reflect",
    cval: complex = 0.0,
    origin: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Return the gradients of `local_correlate`.

    For y = local_correlate(x, k) and a loss L with gradient g in y,

    .. math::

        dL/dx[…,c,h,w] = Σ_{m,n,o} conj(k[m,n,…,i,j,c,o]) · g[…,o,i,j],
        dL/dk[m,n,…,i,j,c,o] = Σ conj(x[…,c, i·s + m·d − p_h, j·s + n·d − p_w]) · g[…,o,i,j]

    the first sum running over all outputs (i, j) that read (h, w) through tap (m, n), the second over
    the samples that share the kernels.

    Parameters
    ----------
    grad : array_like
        Gradient of the loss in the result, of the result's shape.
    input, kernels : array_like
        The operands of `local_correlate`.
    wrt : str or tuple of str, optional
        The operands whose gradients are asked for; the others are not computed.
    mode, cval, origin, stride, dilation
        As for `local_correlate`.

    Returns
    -------
    tuple of arrays, or one array
        One gradient for each name in `wrt`, in its order; for a single name the gradient itself.  Each
        has its operand's shape and dtype (float64 for integers).

    Raises
    ------
    TypeError, ValueError
        As `local_correlate`, for a `grad` that has not the result's shape, and for unknown names in
        `wrt`.

    Notes
    -----
    Complex gradients are G with dL = Re Σ conj(G)·dp, PyTorch's convention; a real operand gets the real
    part.  The sums are formed in an order that depends on shapes alone: the same call gives the same bits.

    References
    ----------
    .. [1] A. Griewank and A. Walther, "Evaluating derivatives", SIAM 2008: vector-Jacobian products.

    Examples
    --------
    >>> import numpy as np
    >>> import cuvarconv
    >>> x = np.array([[[1.0, 2.0, 3.0]]])
    >>> k = np.ones((1, 3, 1, 3, 1, 1))
    >>> g = np.array([[[0.0, 1.0, 0.0]]])  # the loss is the middle pixel
    >>> cuvarconv.local_correlate_vjp(g, x, k, wrt="kernels")[0, :, 0, 1, 0, 0]
    array([1., 2., 3.])
    """
    with receive(None, grad=grad, input=input, kernels=kernels) as call:
        given, images, full = call.operands
        window = _window(images, full, mode, cval, origin, stride, dilation)
        kernels_last = _aligned(full, images, window)
        check_gradient(given.shape, _result_shape(images, full, window))
        backend = call.home.backend

        def fill_input(result: Any, dtype: np.dtype) -> None:
            backend.local_input_gradient(given, kernels_last, result, window, dtype=dtype)

        def fill_kernels(result: Any, dtype: np.dtype) -> None:
            target = _aligned(result, images, window)
            backend.local_kernels_gradient(given, images, target, window, dtype=dtype)

        return gradients(
            call,
            wrt,
            input=Gradient(images, (given, full), fill_input),
            kernels=Gradient(full, (given, images), fill_kernels),
        )


def _window(
    images: Any, kernels: Any, mode: Any, cval: Any, origin: Any, stride: Any, dilation: Any
) -> Window:
    if images.ndim < 3:
        raise ValueError(f"input: expected shape (…, C_in, H, W), got {images.shape}")
    if kernels.ndim < 6:
        raise ValueError(
            f"kernels: expected shape (kh, kw, …, H_out, W_out, C_in, C_out), got {kernels.shape}"
        )
    window = make_window(
        kernel_size("kernels", kernels.shape),
        images.shape[-2:],
        mode=mode,
        cval=cval,
        origin=origin,
        stride=stride,
        dilation=dilation,
    )
    check_cval(window.cval, images.dtype)
    return window


def _aligned(kernels: Any, images: Any, window: Window) -> Any:
    return align_full(kernels, images.shape[:-3], window.output_shape, images.shape[-3])


def _result_shape(images: Any, kernels: Any, window: Window) -> tuple[int, ...]:
    return (*images.shape[:-3], kernels.shape[-1], *window.output_shape)
