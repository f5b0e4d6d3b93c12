"""Spatially variant convolution for PyTorch: functions and layers that train, compile and mix precision."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    message = f"cuvarconv.torch needs PyTorch: pip install 'cuvarconv[torch]' ({error})"
    raise ModuleNotFoundError(message, name="torch") from error

from cuvarconv.torch._blurs import bilateral_blur2d, gaussian_blur2d
from cuvarconv.torch._functions import affinity2d, local_conv2d, modulated_conv2d, pixelwise_conv2d
from cuvarconv.torch._modules import LocalConv2d, ModulatedConv2d, PixelAdaptiveConv2d

__all__ = [
    "LocalConv2d",
    "ModulatedConv2d",
    "PixelAdaptiveConv2d",
    "affinity2d",
    "bilateral_blur2d",
    "gaussian_blur2d",
    "local_conv2d",
    "modulated_conv2d",
    "pixelwise_conv2d",
]
