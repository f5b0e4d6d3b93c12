"""Functions with the conventions of `torch.nn.functional`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from cuvarconv._multilinear import LOCAL, MODULATED, PIXELWISE, Multilinear, Shapes
from cuvarconv._shapes import check_full, check_varying
from cuvarconv.torch import _affinity, _operators

IntPair = int | Sequence[int]
Padding = IntPair | str

Geometry = tuple[list[int], list[int], list[int], str]  # padding (4), stride, dilation, our name of the mode

MODES = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}
_CAST = (torch.float16, torch.bfloat16, torch.float32)
_DTYPES = (*_CAST, torch.float64, torch.complex64, torch.complex128)


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
    precision is summed in float32.

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
    names = {"input": input, "weight": weight, "modulation": modulation} | _given(bias)
    input, weight, modulation, *bias_if_any = _prepare(names)
    if weight.ndim != 4:
        raise ValueError(f"weight: expected shape (C_out, C_in/groups, kh, kw), got {tuple(weight.shape)}")
    _check_groups(input.shape[-3], tuple(weight.shape), groups)
    if tuple(modulation.shape[:2]) != tuple(weight.shape[2:]):
        raise ValueError(
            f"modulation: expected the window of weight, {tuple(weight.shape[2:])}, first, "
            f"got {tuple(modulation.shape[:2])}"
        )
    geometry = _geometry(modulation, stride, padding, dilation, padding_mode)
    shape = _result_shape(MODULATED, (input, weight, modulation), geometry)
    modulated = (*input.shape[:-2], *shape[-2:])
    check_varying("modulation", tuple(modulation.shape), modulated, divisor_axis=input.ndim - 3)
    result = _operators.modulated_conv2d(input, weight, modulation, *geometry, groups)
    return _add_bias(result, *bias_if_any)


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
    input, kernels = _prepare({"input": input, "kernels": kernels})
    geometry = _geometry(kernels, stride, padding, dilation, padding_mode, name="kernels")
    shape = _result_shape(PIXELWISE, (input, kernels), geometry)
    check_varying("kernels", tuple(kernels.shape), shape)
    return _operators.pixelwise_conv2d(input, kernels, *geometry, 1)


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
    input, kernels, *bias_if_any = _prepare({"input": input, "kernels": kernels} | _given(bias))
    geometry = _geometry(kernels, stride, padding, dilation, padding_mode, name="kernels")
    if kernels.ndim < 6:
        check_full(tuple(kernels.shape), (), (0, 0), 0)
    shape = _result_shape(LOCAL, (input, kernels), geometry)
    check_full(tuple(kernels.shape), tuple(input.shape[:-3]), (shape[-2], shape[-1]), input.shape[-3])
    return _add_bias(_operators.local_conv2d(input, kernels, *geometry, 1), *bias_if_any)


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
    (guide,) = _prepare({"guide": guide})
    if guide.is_complex():
        raise TypeError(f"guide: expected real features, got {guide.dtype}")
    if guide.shape[-3] == 0:
        raise ValueError(f"guide: expected at least one feature, got shape {tuple(guide.shape)}")
    width = _width(sigma)
    size = int_pair("kernel_size", kernel_size, 1)
    geometry = _parsed(tuple(size), stride, padding, dilation, padding_mode)
    _checked_shape(PIXELWISE, (tuple(guide.shape), tuple(size)), geometry)
    return _affinity.affinity(guide, size, width, *geometry)


# ---- checks


def _prepare(operands: dict[str, Any]) -> list[Tensor]:
    """Check kinds, dtypes and devices, and cast as autocast asks for."""
    _check_kinds(operands)
    tensors = [_autocast(tensor) for tensor in operands.values()]
    first = tensors[0]
    if first.ndim not in (3, 4):
        name = next(iter(operands))
        raise ValueError(f"{name}: expected shape (N, C, H, W) or (C, H, W), got {tuple(first.shape)}")
    for name, tensor in zip(operands, tensors, strict=True):
        if tensor.dtype not in _DTYPES:
            raise TypeError(f"{name}: dtype {tensor.dtype} is not supported; expected floating point")
        if tensor.dtype != first.dtype:
            raise TypeError(f"{name}: expected the dtype of input, {first.dtype}, got {tensor.dtype}")
        if forward_ad.unpack_dual(tensor).tangent is not None:  # PyTorch would drop it without a word
            raise NotImplementedError(f"{name}: forward-mode derivatives are not supported; use reverse mode")
    return tensors


def _check_kinds(operands: dict[str, Any]) -> None:
    for name, tensor in operands.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a Tensor, got {type(tensor).__name__}")
    device = next(iter(operands.values())).device
    for name, tensor in operands.items():
        if tensor.device != device:
            raise TypeError(f"{name}: expected the device of input, {device}, got {tensor.device}")


def _autocast(tensor: Tensor) -> Tensor:
    kind = tensor.device.type  # torch knows no autocast for "meta"
    if tensor.dtype not in _CAST or kind == "meta" or not torch.is_autocast_enabled(kind):
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def _width(sigma: Any) -> float:
    if isinstance(sigma, Tensor) and sigma.requires_grad:
        raise TypeError("sigma: gets no gradient, but requires one; divide the guide by it instead")
    if not isinstance(sigma, int | float | np.number | Tensor) or (isinstance(sigma, Tensor) and sigma.ndim):
        raise TypeError(f"sigma: expected a number, got {sigma!r}")
    width = float(sigma)
    if not 0 < width < float("inf") or 1 / width == float("inf"):
        raise ValueError(f"sigma: expected a positive number, got {sigma!r}")
    return width


def _check_groups(channels: int, weight: tuple[int, ...], groups: int) -> None:
    if not isinstance(groups, int):
        raise TypeError(f"groups: expected an int, got {groups!r}")
    if groups < 1 or channels % groups or weight[0] % groups:
        raise ValueError(
            f"groups: expected a divisor of C_in = {channels} and C_out = {weight[0]}, got {groups}"
        )
    if weight[1] != channels // groups:
        raise ValueError(f"weight: expected C_in/groups = {channels // groups} along axis 1, got {weight[1]}")


def _geometry(
    kernels: Tensor,
    stride: IntPair,
    padding: Padding,
    dilation: IntPair,
    padding_mode: str,
    name: str = "modulation",
) -> Geometry:
    if kernels.ndim < 2 or 0 in kernels.shape[:2]:
        raise ValueError(f"{name}: expected a window (kh, kw) first, got shape {tuple(kernels.shape)}")
    return _parsed(tuple(kernels.shape[:2]), stride, padding, dilation, padding_mode)


def _parsed(
    size: tuple[int, ...], stride: IntPair, padding: Padding, dilation: IntPair, padding_mode: str
) -> Geometry:
    if not isinstance(padding_mode, str) or padding_mode not in MODES:
        raise ValueError(f"padding_mode: expected one of {', '.join(MODES)}, got {padding_mode!r}")
    strides, dilations = int_pair("stride", stride, 1), int_pair("dilation", dilation, 1)
    if isinstance(padding, str) and padding == "valid":
        padding = 0
    if isinstance(padding, str):
        if padding != "same":
            raise ValueError(f'padding: expected ints, "same" or "valid", got {padding!r}')
        if strides != [1, 1]:
            raise ValueError(f'padding: "same" needs stride 1, got {stride!r}')
        totals = [d * (k - 1) for d, k in zip(dilations, size, strict=True)]
        pads = [side for total in totals for side in (total // 2, total - total // 2)]
    else:
        pads = [side for both in int_pair("padding", padding, 0) for side in (both, both)]
    return pads, strides, dilations, MODES[padding_mode]


def local_shape(
    image: tuple[int, ...],
    size: tuple[int, ...],
    stride: IntPair,
    padding: Padding,
    dilation: IntPair,
    padding_mode: str,
) -> tuple[int, ...]:
    """Return (H_out, W_out)."""
    geometry = _parsed(size, stride, padding, dilation, padding_mode)
    return _checked_shape(PIXELWISE, (image, size), geometry)


def int_pair(name: str, value: Any, minimum: int) -> list[int]:
    """Read an int or a pair of ints (rows, columns)."""
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    pair = [int(number) if isinstance(number, np.integer) else number for number in numbers]
    if len(pair) == 1:
        pair = pair * 2
    if len(pair) != 2 or not all(isinstance(number, int) for number in pair):
        raise TypeError(f"{name}: expected an int or a pair of ints, got {value!r}")
    if min(pair) < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value!r}")
    return pair


def _result_shape(family: Multilinear, tensors: tuple[Tensor, ...], geometry: Geometry) -> tuple[int, ...]:
    return _checked_shape(family, tuple(tuple(tensor.shape) for tensor in tensors), geometry)


def _checked_shape(family: Multilinear, shapes: Shapes, geometry: Geometry) -> tuple[int, ...]:
    shape = _operators.result_shape(family, shapes, *geometry[:3])
    if min(shape[-2:]) < 1:
        raise ValueError(
            f"padding: a window of {shapes[-1][:2]} taps with dilation {tuple(geometry[2])} does not fit in "
            f"{shapes[0][-2:]} pixels padded by {tuple(geometry[0])}"
        )
    return shape


def _given(bias: Any) -> dict[str, Any]:
    return {} if bias is None else {"bias": bias}


def _add_bias(result: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is None:
        return result
    shape = tuple(result.shape[-3:])
    if tuple(bias.shape) not in (shape[:1], shape):
        raise ValueError(f"bias: expected shape {shape[:1]}, got {tuple(bias.shape)}")
    return result + (bias if bias.ndim == 3 else bias[:, None, None])
