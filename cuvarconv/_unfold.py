"""Windows as an array, and their adjoint."""

from __future__ import annotations

from typing import Any

from cuvarconv._arguments import int_pair
from cuvarconv._backend import receive
from cuvarconv._dtypes import check_cval, computing_dtype, product_dtype
from cuvarconv._window import adjoint_window, make_window


def unfold(
    input: Any,
    size: Any,
    mode: Any = "reflect",
    cval: complex = 0.0,
    origin: Any = 0,
    *,
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Copy the pixels under every window.

    .. math::

        u[…,m,n,i,j] = x[…, i·s + m·d − c_h, j·s + n·d − c_w]

    where s is the stride, d the dilation and c = (size // 2 + origin)·d the window's centre.  The result
    takes kh·kw times the memory of the image; `correlate` and its relatives do without it.

    Parameters
    ----------
    input : array_like
        Images, shape (…, H, W), of any supported dtype.
    size : int or pair of int
        The window, kh and kw.
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`.
    cval : scalar, optional
        The value outside under ``"constant"``.
    origin : int or pair of int, optional
        Shift of the window's centre in taps.
    stride, dilation : int or pair of int, optional
        Step in pixels between windows, and between taps.

    Returns
    -------
    array
        Shape (…, kh, kw, H_out, W_out), of the input's dtype.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported.
    ValueError
        For values and shapes that do not fit.

    See Also
    --------
    fold : Its adjoint.

    Notes
    -----
    For x of shape (N, C, H, W), ``unfold(x, (kh, kw), "valid").reshape(N, C*kh*kw, -1)`` is PyTorch's
    ``unfold(x, (kh, kw))``, and with ``"constant"`` and odd sizes its ``padding=(kh // 2, kw // 2)``.

    References
    ----------
    .. [1] `torch.nn.functional.unfold`

    Examples
    --------
    >>> import cuvarconv
    >>> cuvarconv.unfold([[1, 2, 3, 4]], (1, 3), "constant")[0, :, 0]
    array([[0, 1, 2, 3],
           [1, 2, 3, 4],
           [2, 3, 4, 0]])
    """
    with receive(None, input=input) as call:
        (images,) = call.operands
        if images.ndim < 2:
            raise ValueError(f"input: expected at least 2 axes, (…, H, W), got {images.ndim}")
        taps = int_pair("size", size, minimum=1)
        window = make_window(
            taps,
            images.shape[-2:],
            mode=mode,
            cval=cval,
            origin=origin,
            stride=stride,
            dilation=dilation,
        )
        check_cval(window.cval, images.dtype)
        result = call.fresh((*images.shape[:-2], *taps, *window.output_shape), images.dtype)
        call.home.backend.unfold(images, result, window)
        return call.hand_over(result)


def fold(
    columns: Any,
    shape: Any,
    mode: Any = "reflect",
    *,
    origin: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Add the pixels of windows where they come from: the adjoint of `unfold`.

    .. math::

        x[…,h,w] = Σ_{m,n,i,j} u[…,m,n,i,j]   over all m, n, i, j with
        source(i·s + m·d − c_h) = h and source(j·s + n·d − c_w) = w

    in the notation of `spread`, of which it is the case of an image of ones.

    Parameters
    ----------
    columns : array_like
        Windows, shape (…, kh, kw, H_in, W_in).
    shape : pair of int
        Height and width of the result, those of an image from which `unfold` makes H_in × W_in windows.
    mode : str or pair of str, optional
        Where pixels go that lie outside: folded back, or lost under ``"constant"``, as for `spread`.
    origin : int or pair of int, optional
        Shift of the window's centre in taps.
    stride, dilation : int or pair of int, optional
        Step in pixels between windows, and between taps.

    Returns
    -------
    array
        Shape (…, H, W), of the columns' dtype, float64 for integers.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported.
    ValueError
        For values and shapes that do not fit.

    See Also
    --------
    unfold : ⟨unfold(x), u⟩ = ⟨x, fold(u)⟩ under every mode, for cval = 0.

    References
    ----------
    .. [1] `torch.nn.functional.fold`, equal to it as `unfold` is to torch's.

    Examples
    --------
    How many windows of 3 read each pixel, where the border is mirrored:

    >>> import numpy as np
    >>> import cuvarconv
    >>> cuvarconv.fold(np.ones((1, 3, 1, 5)), (1, 5), "mirror")
    array([[2., 4., 3., 4., 2.]])
    """
    with receive(None, columns=columns) as call:
        (patches,) = call.operands
        if patches.ndim < 4:
            raise ValueError(f"columns: expected shape (…, kh, kw, H_in, W_in), got {patches.shape}")
        *batch, kh, kw, height, width = patches.shape
        if 0 in (kh, kw):
            raise ValueError(f"columns: expected at least one tap along each axis, got shape {patches.shape}")
        if shape is None:
            raise TypeError("shape: expected a pair of ints (H, W), got None")
        window = adjoint_window(
            (kh, kw), (height, width), shape, mode=mode, origin=origin, stride=stride, dilation=dilation
        )
        result = call.fresh((*batch, *window.image_shape), product_dtype((patches.dtype,)))
        kernels = patches.transpose(-4 + patches.ndim, -3 + patches.ndim, *range(len(batch)), -2, -1)
        ones = call.home.backend.ones((*batch, height, width), result.real.dtype)
        parts = [(kernels, result)]
        if result.dtype.kind == "c":  # 1·(inf + 0j), as a complex product, would be inf + nan·j
            parts = [(kernels.real, result.real), (kernels.imag, result.imag)]
        for part, target in parts:
            dtype = computing_dtype((part.dtype,), target.dtype)
            call.home.backend.spread(ones, part, target, window, dtype=dtype)
        return call.hand_over(result)
