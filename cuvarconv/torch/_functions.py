"""Functions with the conventions of `torch.nn.functional`."""

from __future__ import annotations

from torch import Tensor

from cuvarconv._multilinear import LOCAL, MODULATED, PIXELWISE
from cuvarconv._shapes import check_channels, check_full, check_varying
from cuvarconv.torch import _affinity, _operators
from cuvarconv.torch._checks import (
    IntPair,
    Padding,
    add_bias,
    check_real,
    checked_shape,
    geometry,
    given,
    int_pair,
    output_size,
    parsed,
    prepare,
    width,
)


def modulated_conv2d(
    input: Tensor,
    weight: Tensor,
    modulation: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Convolve with a shared kernel that is modulated at every pixel.

    .. math::

        y[b,o,i,j] = bias[o] + Σ_{c,m,n} w[o,c,m,n] · d[m,n,b,c,i,j] · x[b,c, i·s + m·t − p, j·s + n·t − p]

    where s is the stride, t the dilation and p the padding.  Like `torch.nn.functional.conv2d`, to
    which it is equal for d = 1, it does not flip the kernel.

    Parameters
    ----------
    input : Tensor
        Images, shape (N, C_in, H, W) or (C_in, H, W).
    weight : Tensor
        Kernel, shape (C_out, C_in / groups, kh, kw).
    modulation : Tensor
        Factors, shape (kh, kw) + S, where S broadcasts to (N, C_in, H_out, W_out): (kh, kw, H_out,
        W_out) for all samples and channels, (kh, kw, N, 1, H_out, W_out) for each sample.  The channel
        axis may also be a divisor G of C_in; channel c then uses entry c·G // C_in.
    bias : Tensor, optional
        Shape (C_out,).
    stride, dilation : int or pair of int, optional
        Step in pixels between outputs, and between taps.
    padding : int, pair of int, "same" or "valid", optional
        Pixels added on both sides of each axis.
    groups : int, optional
        Output channels o·groups // C_out read only the input channels of the same group.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}, optional
        What stands there, as in `torch.nn.Conv2d`; no padded copy is made.

    Returns
    -------
    Tensor
        Shape (N, C_out, H_out, W_out) or (C_out, H_out, W_out).

    Raises
    ------
    TypeError
        For dtypes and devices that differ or are not supported.
    ValueError
        For values and shapes that do not fit.

    See Also
    --------
    cuvarconv.modulated_correlate : The array function.

    Notes
    -----
    All three operands get gradients, of any order.  Under autocast they are cast as for conv2d; half
    precision is summed in float32.  On CUDA, tensor cores multiply float16 and bfloat16, and float32 as TF32
    where ``torch.backends.cuda.matmul.allow_tf32`` says so; products of the modulation are rounded to that
    dtype then, and are infinite where it cannot hold them.

    References
    ----------
    .. [1] H. Su et al., "Pixel-adaptive convolutional neural networks", CVPR 2019.

    Examples
    --------
    >>> import torch
    >>> from cuvarconv.torch import modulated_conv2d
    >>> x, w = torch.ones(1, 2, 4, 4), torch.ones(3, 2, 3, 3)
    >>> d = torch.rand(3, 3, 4, 4)
    >>> modulated_conv2d(x, w, d, padding=1).shape
    torch.Size([1, 3, 4, 4])
    """
    operands = {"input": input, "weight": weight, "modulation": modulation} | given(bias)
    input, weight, modulation, *bias_if_any = prepare(operands)
    check_channels("weight", tuple(input.shape), tuple(weight.shape), groups)
    if tuple(modulation.shape[:2]) != tuple(weight.shape[2:]):
        raise ValueError(
            f"modulation: expected the window of weight, {tuple(weight.shape[2:])}, first, "
            f"got {tuple(modulation.shape[:2])}"
        )
    window = geometry("modulation", modulation, stride, padding, dilation, padding_mode)
    shape = checked_shape(MODULATED, (input, weight, modulation), window)
    modulated = (*input.shape[:-2], *shape[-2:])
    check_varying("modulation", tuple(modulation.shape), modulated, divisor_axis=input.ndim - 3)
    result = _operators.modulated_conv2d(input, weight, modulation, *window, groups)
    return add_bias(result, *bias_if_any)


def pixelwise_conv2d(
    input: Tensor,
    kernels: Tensor,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Convolve with one kernel per pixel, shared by the channels.

    .. math::

        y[b,c,i,j] = Σ_{m,n} k[m,n,b,c,i,j] · x[b,c, i·s + m·t − p, j·s + n·t − p]

    Parameters
    ----------
    input : Tensor
        Images, shape (N, C, H, W) or (C, H, W).
    kernels : Tensor
        Shape (kh, kw) + S, where S broadcasts to the result's shape: (kh, kw, H_out, W_out) for all
        samples and channels, (kh, kw, N, 1, H_out, W_out) for each sample, (kh, kw, C, 1, 1) depthwise.
    stride, padding, dilation, padding_mode
        As for `modulated_conv2d`.

    Returns
    -------
    Tensor
        Shape (N, C, H_out, W_out) or (C, H_out, W_out).

    Raises
    ------
    TypeError, ValueError
        As `modulated_conv2d`.

    See Also
    --------
    cuvarconv.correlate : The array function, which conjugates complex kernels; this one does not.

    References
    ----------
    .. [1] B. Mildenhall et al., "Burst denoising with kernel prediction networks", CVPR 2018.
    .. [2] D. Li et al., "Involution: inverting the inherence of convolution for visual recognition",
       CVPR 2021: kernels of shape (kh, kw, N, C, H, W), equal within groups of channels.

    Examples
    --------
    >>> import torch
    >>> from cuvarconv.torch import pixelwise_conv2d
    >>> k = torch.softmax(torch.randn(25, 4, 4), 0).view(5, 5, 4, 4)
    >>> y = pixelwise_conv2d(torch.ones(1, 3, 4, 4), k, padding=2, padding_mode="replicate")
    >>> torch.allclose(y, torch.ones(1, 3, 4, 4))
    True
    """
    input, kernels = prepare({"input": input, "kernels": kernels})
    window = geometry("kernels", kernels, stride, padding, dilation, padding_mode)
    shape = checked_shape(PIXELWISE, (input, kernels), window)
    check_varying("kernels", tuple(kernels.shape), shape)
    return _operators.pixelwise_conv2d(input, kernels, *window, 1)


def local_conv2d(
    input: Tensor,
    kernels: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Convolve with a kernel of its own for every pixel and pair of channels: unshared weights.

    .. math::

        y[b,o,i,j] = bias[o,i,j] + Σ_{m,n,c} k[m,n,b,i,j,c,o] · x[b,c, i·s + m·t − p, j·s + n·t − p]

    Parameters
    ----------
    input : Tensor
        Images, shape (N, C_in, H, W) or (C_in, H, W).
    kernels : Tensor
        Shape (kh, kw, H_out, W_out, C_in, C_out), or (kh, kw, N, H_out, W_out, C_in, C_out).
    bias : Tensor, optional
        Shape (C_out,) or (C_out, H_out, W_out).
    stride, padding, dilation, padding_mode
        As for `modulated_conv2d`.

    Returns
    -------
    Tensor
        Shape (N, C_out, H_out, W_out) or (C_out, H_out, W_out).

    Raises
    ------
    TypeError, ValueError
        As `modulated_conv2d`.

    See Also
    --------
    cuvarconv.local_correlate : The array function.

    References
    ----------
    .. [1] Y. Taigman et al., "DeepFace", CVPR 2014: locally connected layers.

    Examples
    --------
    >>> import torch
    >>> from cuvarconv.torch import local_conv2d
    >>> local_conv2d(torch.ones(2, 3, 5, 5), torch.rand(3, 3, 3, 3, 3, 4)).shape
    torch.Size([2, 4, 3, 3])
    """
    input, kernels, *bias_if_any = prepare({"input": input, "kernels": kernels} | given(bias))
    window = geometry("kernels", kernels, stride, padding, dilation, padding_mode)
    if kernels.ndim < 6:
        check_full(tuple(kernels.shape), (), (0, 0), 0)
    shape = checked_shape(LOCAL, (input, kernels), window)
    check_full(tuple(kernels.shape), tuple(input.shape[:-3]), (shape[-2], shape[-1]), input.shape[-3])
    return add_bias(_operators.local_conv2d(input, kernels, *window, 1), *bias_if_any, per_pixel=True)


def affinity2d(
    guide: Tensor,
    kernel_size: IntPair,
    sigma: float = 1.0,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Return Gaussian weights of how alike features are, the modulation of pixel-adaptive convolution.

    .. math::

        d[m,n,b,0,i,j] = exp(−½ Σ_c (g[b,c, tap (m, n) of (i, j)] − g[b,c, centre of (i, j)])² / σ²)

    where the centre is tap (kh // 2, kw // 2); taps in a padding of zeros are 0.

    Parameters
    ----------
    guide : Tensor
        Features, shape (N, C, H, W) or (C, H, W), as large as the image to be filtered.
    kernel_size : int or pair of int
        The window.
    sigma : float, optional
        Width of the Gaussian, in the guide's units.
    stride, padding, dilation, padding_mode
        As for `modulated_conv2d`.

    Returns
    -------
    Tensor
        Shape (kh, kw, N, 1, H_out, W_out) or (kh, kw, 1, H_out, W_out), for `modulated_conv2d`.

    Raises
    ------
    TypeError, ValueError
        As `modulated_conv2d`.

    See Also
    --------
    cuvarconv.affinity : The array function.

    Notes
    -----
    The guide gets a gradient, which has none itself: second derivatives raise a RuntimeError.  Under
    autocast this is computed in float32, as torch's exp.

    References
    ----------
    .. [1] H. Su et al., "Pixel-adaptive convolutional neural networks", CVPR 2019, eq. (3).

    Examples
    --------
    >>> import torch
    >>> from cuvarconv.torch import affinity2d
    >>> affinity2d(torch.zeros(2, 3, 4, 4), 3, padding=1).shape
    torch.Size([3, 3, 2, 1, 4, 4])
    """
    (guide,) = prepare({"guide": guide}, wide=True)
    check_real("guide", guide)
    spread = width(sigma)
    size = int_pair("kernel_size", kernel_size, 1)
    window = parsed(tuple(size), stride, padding, dilation, padding_mode)
    output_size(tuple(guide.shape), tuple(size), window)
    return _affinity.affinity(guide, size, spread, *window)
