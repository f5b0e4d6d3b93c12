"""Layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cuvarconv.torch._checks import (
    IntPair,
    Padding,
    check_alike,
    check_dense,
    check_guide,
    int_pair,
    output_size,
    parsed,
)
from cuvarconv.torch._functions import affinity2d, local_conv2d, modulated_conv2d


class ModulatedConv2d(nn.Conv2d):
    """A convolution whose kernel is modulated at every pixel, equation (2).

    Arguments, parameters, initialisation and state are those of `torch.nn.Conv2d`; called with
    (x, modulation), as `modulated_conv2d`.

    Examples
    --------
    >>> import torch
    >>> from cuvarconv.torch import ModulatedConv2d
    >>> layer = ModulatedConv2d(3, 8, 5, padding=2)
    >>> layer(torch.rand(1, 3, 9, 9), torch.rand(5, 5, 9, 9)).shape
    torch.Size([1, 8, 9, 9])
    """

    def forward(self, input: Tensor, modulation: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) under a modulation (kh, kw) + S."""
        return modulated_conv2d(
            input,
            self.weight,
            modulation,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.padding_mode,
        )


class PixelAdaptiveConv2d(ModulatedConv2d):
    """A convolution modulated by the likeness of guide features: pixel-adaptive convolution.

    Arguments, parameters, initialisation and state are those of `torch.nn.Conv2d`, and `sigma`, the width
    of the Gaussian of feature differences; called with (x, guide).

    References
    ----------
    .. [1] H. Su et al., "Pixel-adaptive convolutional neural networks", CVPR 2019.

    Examples
    --------
    >>> import torch
    >>> from cuvarconv.torch import PixelAdaptiveConv2d
    >>> layer = PixelAdaptiveConv2d(3, 8, 5, padding=2)
    >>> layer(torch.rand(1, 3, 9, 9), torch.rand(1, 2, 9, 9)).shape
    torch.Size([1, 8, 9, 9])
    """

    def __init__(self, *arguments: Any, sigma: float = 1.0, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.sigma = sigma

    def forward(self, input: Tensor, guide: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) under a guide (N, C_guide, H, W)."""
        check_alike({"input": input, "guide": guide})
        check_guide(input, guide)
        modulation = affinity2d(
            guide, self.kernel_size, self.sigma, self.stride, self.padding, self.dilation, self.padding_mode
        )
        return super().forward(input, modulation)

    def extra_repr(self) -> str:
        """Return Conv2d's text and sigma."""
        return f"{super().extra_repr()}, sigma={self.sigma}"


class LocalConv2d(nn.Module):
    """A convolution with unshared weights: every output pixel has its own kernel.

    Arguments are those of `torch.nn.Conv2d`, and `input_size`, because the number of kernels depends on
    it.  The kernels, `weight`, have shape (kh, kw, H_out, W_out, C_in, C_out), `bias` (C_out, H_out, W_out);
    both are initialised as Conv2d's.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, bias, padding_mode, device, dtype
        As for `torch.nn.Conv2d`.
    groups : int
        1: full kernels have no groups.
    input_size : int or pair of int
        Height and width of the images.

    Examples
    --------
    >>> import torch
    >>> from cuvarconv.torch import LocalConv2d
    >>> layer = LocalConv2d(3, 4, 3, input_size=(8, 6))
    >>> layer(torch.rand(2, 3, 8, 6)).shape
    torch.Size([2, 4, 6, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        input_size: IntPair,
    ) -> None:
        super().__init__()
        if groups != 1:
            raise ValueError(f"groups: expected 1, because full kernels have no groups, got {groups}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = tuple(int_pair("kernel_size", kernel_size, 1))
        self.input_size = tuple(int_pair("input_size", input_size, 1))
        self.stride = tuple(int_pair("stride", stride, 1))
        self.padding = padding if isinstance(padding, str) else tuple(int_pair("padding", padding, 0))
        self.dilation = tuple(int_pair("dilation", dilation, 1))
        self.padding_mode = padding_mode
        window = parsed(self.kernel_size, stride, padding, dilation, padding_mode)
        image = output_size(self.input_size, self.kernel_size, window)
        like = {"device": device, "dtype": dtype}
        shape = (*self.kernel_size, *image, in_channels, out_channels)
        self.weight = nn.Parameter(torch.empty(shape, **like))
        if bias:
            self.bias = nn.Parameter(torch.empty((out_channels, *image), **like))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, from the distribution that Conv2d uses."""
        fan_in = self.in_channels * math.prod(self.kernel_size)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W)."""
        check_dense("input", input)
        if tuple(input.shape[-2:]) != self.input_size:
            raise ValueError(
                f"input: expected the height and width {self.input_size}, got shape {tuple(input.shape)}"
            )
        return local_conv2d(
            input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.padding_mode
        )

    def extra_repr(self) -> str:
        """Return the arguments that are not defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", input_size={self.input_size}, stride={self.stride}"
        shown = {"padding": self.padding, "dilation": self.dilation, "bias": self.bias is not None}
        shown["padding_mode"] = self.padding_mode
        defaults = {"padding": (0, 0), "dilation": (1, 1), "bias": True, "padding_mode": "zeros"}
        return text + "".join(f", {name}={shown[name]}" for name in shown if shown[name] != defaults[name])
