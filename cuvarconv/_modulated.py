"""Equation (2): a kernel that mixes channels, shared by all pixels and modulated at each."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from cuvarconv._backend import receive
from cuvarconv._dtypes import check_cval, computing_dtype, product_dtype
from cuvarconv._gradients import Gradient, check_gradient, gradients
from cuvarconv._shapes import align_modulation, check_channels, kernel_size
from cuvarconv._window import Window, make_window


def modulated_correlate(
    input: Any,
    weights: Any,
    modulation: Any,
    output: Any = None,
    mode: Any = "reflect",
    cval: complex = 0.0,
    origin: Any = 0,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Correlate images with a shared kernel that is modulated at every pixel.

    .. math::

        y[…,o,i,j] = Σ_{c,m,n} w[o,c,m,n] · d[m,n,…,c,i,j] · x[…,c, i·s + m·t − p_h, j·s + n·t − p_w]

    where s is the stride, t the dilation and p = (size // 2 + origin)·t the kernel's centre.
    Nothing is conjugated.

    Parameters
    ----------
    input : array_like
        Images, shape (…, C_in, H, W): NumPy, CuPy, PyTorch, JAX or dask arrays, or lists.
    weights : array_like
        Kernel, shape (C_out, C_in / groups, kh, kw).
    modulation : array_like
        Factors, shape (kh, kw) + S, where S broadcasts to (…, C_in, H_out, W_out): (kh, kw, H_out,
        W_out) for all channels, (kh, kw, N, 1, H_out, W_out) for each sample, and so on.  The channel
        axis may also be a divisor G of C_in; channel c then uses entry c·G // C_in.  Nothing is
        expanded in memory.
    output : array or dtype, optional
        The array to write, or the dtype of the result.  By default ``numpy.result_type`` of the
        operands, float64 for integers.  It may overlap an operand.
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`.
    cval : scalar, optional
        The value outside under ``"constant"``.
    origin : int or pair of int, optional
        Shift of the kernel's centre in taps.
    stride, dilation : int or pair of int, optional
        Step in pixels between outputs, and between taps.
    groups : int, optional
        Output channels o·groups // C_out read only the input channels of the same group.

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
    correlate : One kernel per pixel that does not mix channels.

    Notes
    -----
    On CUDA, tensor cores multiply float16 and bfloat16.  The products d·x are rounded to that dtype then, and
    are infinite where it cannot hold them; sums are formed in float32.

    References
    ----------
    .. [1] H. Su, V. Jampani, D. Sun, O. Gallo, E. Learned-Miller and J. Kautz, "Pixel-adaptive
       convolutional neural networks", CVPR 2019, eq. (3): the modulation is an affinity of features.

    Examples
    --------
    >>> import numpy as np
    >>> import cuvarconv
    >>> x = np.ones((2, 3, 4))  # C_in = 2
    >>> w = np.ones((5, 2, 3, 3))  # C_out = 5
    >>> d = np.zeros((3, 3, 3, 4))
    >>> d[1, 1] = np.arange(4.0)  # only the central tap, more to the right
    >>> y = cuvarconv.modulated_correlate(x, w, d)
    >>> y.shape
    (5, 3, 4)
    >>> y[0, 0]
    array([0., 2., 4., 6.])
    """
    with receive(output, input=input, weights=weights, modulation=modulation) as call:
        images, kernels, factors = call.operands
        window, factors_aligned = _geometry(
            images, kernels, factors, mode, cval, origin, stride, dilation, groups
        )
        dtypes = (images.dtype, kernels.dtype, factors.dtype)
        result_dtype = call.output_dtype(product_dtype(dtypes))
        dtype = computing_dtype(dtypes, result_dtype)
        result = call.target(_result_shape(images, kernels, window), result_dtype)
        if 0 in (images.size, result.size):
            result[...] = 0  # empty sums
            return call.deliver(result)
        call.home.backend.modulated_correlate(
            images,
            kernels,
            factors_aligned,
            result,
            window,
            groups=operator.index(groups),
            dtype=dtype,
        )
        return call.deliver(result)


def modulated_correlate_vjp(
    grad: Any,
    input: Any,
    weights: Any,
    modulation: Any,
    *,
    wrt: Any = ("input", "weights", "modulation"),
    mode: Any = "reflect",
    cval: complex = 0.0,
    origin: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Return the gradients of `modulated_correlate`.

    For y = modulated_correlate(x, w, d) and a loss L with gradient g in y, and with x' for the pixel
    x[…,c, i·s + m·t − p_h, j·s + n·t − p_w],

    .. math::

        dL/dx[…,c,h,w] = Σ_{o,m,n} conj(w[o,c,m,n] · d[m,n,…,c,i,j]) · g[…,o,i,j],
        dL/dw[o,c,m,n] = Σ_{…,i,j} conj(d[m,n,…,c,i,j] · x') · g[…,o,i,j],
        dL/dd[m,n,…,c,i,j] = conj(x') · Σ_o conj(w[o,c,m,n]) · g[…,o,i,j]

    the first sum running over all outputs (i, j) that read (h, w) through tap (m, n); the last
    is summed over what shares an entry of d.

    Parameters
    ----------
    grad : array_like
        Gradient of the loss in the result, of the result's shape.
    input, weights, modulation : array_like
        The operands of `modulated_correlate`.
    wrt : str or tuple of str, optional
        The operands whose gradients are asked for; the others are not computed.
    mode, cval, origin, stride, dilation, groups
        As for `modulated_correlate`.

    Returns
    -------
    tuple of arrays, or one array
        One gradient for each name in `wrt`, in its order; for a single name the gradient itself.  Each
        has its operand's shape and dtype (float64 for integers).

    Raises
    ------
    TypeError, ValueError
        As `modulated_correlate`, for a `grad` that has not the result's shape, and for unknown names
        in `wrt`.

    Notes
    -----
    Complex gradients are G with dL = Re Σ conj(G)·dp, PyTorch's convention; a real operand gets the real
    part.  The sums are formed in an order that depends on shapes alone: the same call gives the same bits.
    On CUDA, tensor cores multiply float16 and bfloat16.  The products d·g and d·x of the first two sums are
    rounded to that dtype then, and are infinite where it cannot hold them.

    References
    ----------
    .. [1] H. Su et al., "Pixel-adaptive convolutional neural networks", CVPR 2019, which trains w and,
       through d, the features that d is made of.

    Examples
    --------
    >>> import numpy as np
    >>> import cuvarconv
    >>> x = np.array([[[1.0, 2.0, 3.0]]])
    >>> w = np.full((1, 1, 1, 3), 2.0)
    >>> d = np.ones((1, 3, 1, 3))
    >>> g = np.array([[[0.0, 1.0, 0.0]]])  # the loss is the middle pixel
    >>> dx, dw, dd = cuvarconv.modulated_correlate_vjp(g, x, w, d)
    >>> dx[0, 0], dw[0, 0, 0], dd[0, :, 0, 1]
    (array([2., 2., 2.]), array([1., 2., 3.]), array([2., 4., 6.]))
    """
    with receive(None, grad=grad, input=input, weights=weights, modulation=modulation) as call:
        given, images, kernels, factors = call.operands
        window, factors_aligned = _geometry(
            images, kernels, factors, mode, cval, origin, stride, dilation, groups
        )
        check_gradient(given.shape, _result_shape(images, kernels, window))
        backend, count = call.home.backend, operator.index(groups)

        def fill_input(result: Any, dtype: np.dtype) -> None:
            backend.modulated_input_gradient(
                given, kernels, factors_aligned, result, window, groups=count, dtype=dtype
            )

        def fill_weights(result: Any, dtype: np.dtype) -> None:
            backend.modulated_weights_gradient(
                given, images, factors_aligned, result, window, groups=count, dtype=dtype
            )

        def fill_modulation(result: Any, dtype: np.dtype) -> None:
            target = _aligned(result, images, window)
            backend.modulated_modulation_gradient(
                given, images, kernels, target, window, groups=count, dtype=dtype
            )

        return gradients(
            call,
            wrt,
            input=Gradient(images, (given, kernels, factors), fill_input),
            weights=Gradient(kernels, (given, images, factors), fill_weights),
            modulation=Gradient(factors, (given, images, kernels), fill_modulation),
        )


def _geometry(
    images: Any,
    kernels: Any,
    factors: Any,
    mode: Any,
    cval: Any,
    origin: Any,
    stride: Any,
    dilation: Any,
    groups: Any,
) -> tuple[Window, Any]:
    """Return the window and the modulation, aligned, after checking that the operands fit."""
    check_channels("weights", images.shape, kernels.shape, groups)
    size = kernel_size("modulation", factors.shape)
    if size != kernels.shape[2:]:
        raise ValueError(
            f"modulation: expected the window of weights, {kernels.shape[2:]}, first, got {size}"
        )
    window = make_window(
        size,
        images.shape[-2:],
        mode=mode,
        cval=cval,
        origin=origin,
        stride=stride,
        dilation=dilation,
    )
    check_cval(window.cval, images.dtype)
    return window, _aligned(factors, images, window)


def _aligned(factors: Any, images: Any, window: Window) -> Any:
    return align_modulation(factors, (*images.shape[:-2], *window.output_shape))


def _result_shape(images: Any, kernels: Any, window: Window) -> tuple[int, ...]:
    return (*images.shape[:-3], kernels.shape[0], *window.output_shape)
