"""Spatially variant blur as a linear operator, for iterative solvers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from cuvarconv._backend import receive
from cuvarconv._correlate import correlate
from cuvarconv._dtypes import product_dtype
from cuvarconv._shapes import align, image_axes_last, kernel_size, with_image
from cuvarconv._spread import spread
from cuvarconv._window import adjoint_window, make_window


def as_linear_operator(
    weights: Any,
    shape: Any,
    mode: Any = "reflect",
    origin: Any = 0,
    *,
    form: str = "gather",
    axes: Any = (-2, -1),
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Return correlation with given kernels as a linear operator with its exact adjoint.

    .. math::

        A x = correlate(x, k),  Aᴴ z = spread(z, k)      (form "gather")
        A x = spread(x, k),     Aᴴ z = correlate(z, k)   (form "scatter")

    for images x and z that are written as vectors, row after row.

    Parameters
    ----------
    weights : array_like
        Kernels as for `correlate` (form "gather") or `spread` (form "scatter").  They are kept, not
        copied: a change of the array changes the operator.
    shape : tuple of int
        Shape of the images x that the operator takes, (…, H, W).
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`; the operator is linear, so cval is 0.
    origin : int or pair of int, optional
        Shift of the kernel's centre in taps.
    form : {"gather", "scatter"}, optional
        Whether each result gathers with its own kernel, or each pixel of x is spread by its own, as by
        a measured point spread function.
    axes : pair of int, optional
        The image axes of `shape`.
    stride, dilation : int or pair of int, optional
        As for `correlate` and `spread`.

    Returns
    -------
    LinearOperator
        `scipy.sparse.linalg.LinearOperator` for kernels on the host, that of `cupyx.scipy.sparse.linalg`
        for kernels on a CUDA device.  Several vectors at once (`matmat`, `rmatmat`) are one call.  Its
        dtype is that of the weights, float64 for integers.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported.
    ValueError
        For values and shapes that do not fit.

    See Also
    --------
    correlate, spread

    References
    ----------
    .. [1] C. C. Paige and M. A. Saunders, "LSQR: an algorithm for sparse linear equations and sparse
       least squares", ACM TOMS 8 (1982): what such an operator is for.

    Examples
    --------
    Undo a blur that differs from pixel to pixel:

    >>> import numpy as np
    >>> import cuvarconv
    >>> from scipy.sparse.linalg import lsqr
    >>> rng = np.random.default_rng(0)
    >>> image = rng.random((8, 9))
    >>> weights = rng.random((3, 3, 8, 9)) / 9
    >>> weights[1, 1] += 1
    >>> blur = cuvarconv.as_linear_operator(weights, image.shape)
    >>> blurred = blur @ image.ravel()
    >>> bool(np.allclose(lsqr(blur, blurred, atol=0, btol=1e-12)[0], image.ravel()))
    True
    """
    if form not in ("gather", "scatter"):
        raise ValueError(f'form: expected "gather" or "scatter", got {form!r}')
    given = _shape(shape)
    order = image_axes_last(len(given), axes, name="shape")
    image = (given[order[-2]], given[order[-1]])
    last = (order[-2] - len(given), order[-1] - len(given))
    common = {"mode": mode, "origin": origin, "stride": stride, "dilation": dilation}
    with receive(None, weights=weights) as call:
        (kernels,) = call.operands
        if call.home.library == "dask":
            raise TypeError("weights: linear operators take no dask arrays; pass weights.compute()")
        size = kernel_size("weights", kernels.shape)
        if form == "gather":
            window = make_window(size, image, cval=0.0, **common)
        else:
            window = adjoint_window(size, image, None, **common)
        received = window.output_shape if form == "gather" else window.image_shape
        align("weights", kernels, with_image(given, order, window.output_shape), order)
        home, dtype = call.home, product_dtype((kernels.dtype,))

    def gather(images: Any) -> Any:
        return correlate(images, kernels, axes=last, **common)

    def scatter(images: Any) -> Any:
        return spread(images, kernels, shape=window.image_shape, axes=last, **common)

    forward, adjoint = (gather, scatter) if form == "gather" else (scatter, gather)
    there, back = with_image(given, order, received), given
    apply, apply_adjoint = _on_vectors(forward, back, dtype), _on_vectors(adjoint, there, dtype)
    return home.backend.linear_operator(
        (math.prod(there), math.prod(back)),
        matvec=apply,
        rmatvec=apply_adjoint,
        matmat=apply,
        rmatmat=apply_adjoint,
        dtype=dtype,
    )


def _shape(shape: Any) -> tuple[int, ...]:
    try:
        lengths = tuple(operator.index(length) for length in shape)
    except TypeError:
        raise TypeError(f"shape: expected a tuple of ints (…, H, W), got {shape!r}") from None
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape: expected no negative length, got {lengths}")
    return lengths


def _on_vectors(function: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any) -> Callable[[Any], Any]:
    """Let a function of images take vectors, or the columns of a matrix."""

    def apply(vectors: Any) -> Any:
        count = vectors.shape[1] if vectors.ndim == 2 else 1
        images = vectors.reshape(math.prod(shape), count).T.reshape(count, *shape)
        results = function(images.astype(product_dtype((images.dtype, dtype)), copy=False))
        length = math.prod(results.shape[1:])
        return results.reshape(count, length).T.reshape(length, *vectors.shape[1:])

    return apply
