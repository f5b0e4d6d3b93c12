"""The adjoint of correlation: each input pixel is spread by its own kernel."""

from __future__ import annotations

from typing import Any

from cuvarconv._backend import receive
from cuvarconv._dtypes import computing_dtype, product_dtype
from cuvarconv._shapes import align, image_axes_last, kernel_size, with_image
from cuvarconv._window import adjoint_window


def spread(
    input: Any,
    weights: Any,
    output: Any = None,
    mode: Any = "reflect",
    *,
    origin: Any = 0,
    shape: Any = None,
    axes: Any = (-2, -1),
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Spread every pixel of images by its own kernel: the adjoint of `correlate`.

    .. math::

        x[…,h,w] = Σ_{m,n,i,j} k[m,n,…,i,j] · z[…,i,j]   over all m, n, i, j with
        source(i·s + m·d − c_h) = h and source(j·s + n·d − c_w) = w

    where s is the stride, d the dilation, c = (size // 2 + origin)·d the kernel's centre, and source(p)
    the pixel that stands at p under `mode`.  It is what a point spread function does: the light of
    pixel (i, j) is scattered by the kernel of (i, j).  `correlate` gathers instead, with the kernel of
    the pixel that receives.  Nothing is conjugated.

    Parameters
    ----------
    input : array_like
        Images, shape (…, H_in, W_in): NumPy, CuPy, PyTorch, JAX or dask arrays, or lists.
    weights : array_like
        Kernels, shape (kh, kw) + S, where S broadcasts to the shape of the input: (kh, kw) is one
        kernel for all, (kh, kw, H_in, W_in) one per pixel, and so on as for `correlate`.
    output : array or dtype, optional
        The array to write, or the dtype of the result.  By default ``numpy.result_type(input,
        weights)``, float64 for integers.  It may overlap an operand.
    mode : str or pair of str, optional
        Where light goes that leaves the image: folded back under ``"reflect"``, ``"mirror"``,
        ``"nearest"`` and ``"wrap"``, so that normalised kernels keep the sum of the image; lost under
        ``"constant"``.  Under ``"valid"`` the result is larger than the input and holds all of it.
    origin : int or pair of int, optional
        Shift of the kernel's centre in taps, as for `correlate`.
    shape : pair of int, optional
        Height and width of the result, by default (H_in − 1)·stride + 1, under ``"valid"``
        plus (kh − 1)·dilation.  Any shape is allowed from which `correlate` gives the input's.
    axes : pair of int, optional
        The image axes.
    stride, dilation : int or pair of int, optional
        Distance in pixels of the result between neighbouring input pixels, and between taps.

    Returns
    -------
    array
        Shape (…, H, W), the caller's kind of array, on the same device.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported, and operands in different places.
    ValueError
        For values and shapes that do not fit.  Nothing has been written then.

    See Also
    --------
    correlate : The gather form; ⟨correlate(x, k), z⟩ = ⟨x, spread(z, k)⟩.
    fold : The same for columns that are multiplied already.

    Notes
    -----
    It is computed by gathering, without atomic additions: the same call gives the same bits.  With a
    stride it enlarges images, each pixel painting a kernel: content-aware upsampling [1]_ is this
    operation with normalised kernels.

    References
    ----------
    .. [1] J. Wang, K. Chen, R. Xu, Z. Liu, C. C. Loy and D. Lin, "CARAFE: content-aware reassembly of
       features", ICCV 2019.

    Examples
    --------
    A point in the middle becomes its kernel:

    >>> import numpy as np
    >>> import cuvarconv
    >>> image = np.array([[0.0, 2.0, 0.0, 0.0]])
    >>> kernels = np.zeros((1, 3, 1, 4))
    >>> kernels[0, :, 0, 1] = [0.5, 0.25, 0.25]
    >>> cuvarconv.spread(image, kernels)
    array([[1. , 0.5, 0.5, 0. ]])
    """
    with receive(output, input=input, weights=weights) as call:
        images, kernels = call.operands
        order = image_axes_last(images.ndim, axes)
        size = kernel_size("weights", kernels.shape)
        received = (images.shape[order[-2]], images.shape[order[-1]])
        window = adjoint_window(
            size, received, shape, mode=mode, origin=origin, stride=stride, dilation=dilation
        )
        kernels_last = align("weights", kernels, images.shape, order)
        dtypes = (images.dtype, kernels.dtype)
        result_dtype = call.output_dtype(product_dtype(dtypes))
        result = call.target(with_image(images.shape, order, window.image_shape), result_dtype)
        call.home.backend.spread(
            images.transpose(order),
            kernels_last,
            result.transpose(order),
            window,
            dtype=computing_dtype(dtypes, result_dtype),
        )
        return call.deliver(result)
