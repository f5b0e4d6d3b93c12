"""Reading and checking the arguments of `cuvarconv.torch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from cuvarconv import _arguments
from cuvarconv._multilinear import PIXELWISE, Multilinear, Shapes
from cuvarconv.torch._operators import result_shape

IntPair = int | Sequence[int]
Padding = IntPair | str

Geometry = tuple[list[int], list[int], list[int], str]  # padding (4), stride, dilation, our name of the mode

MODES = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}
_CAST = (torch.float16, torch.bfloat16, torch.float32)
_DTYPES = (*_CAST, torch.float64, torch.complex64, torch.complex128)
_MOST = 1 << 40  # pixels; 64-bit indices hold any sum of a few of them

# ---- tensors


def prepare(operands: dict[str, Any], *, wide: bool = False) -> list[Tensor]:
    """Check kinds, devices and dtypes, and cast as autocast asks for; `wide`: as for exp, to float32."""
    check_alike(operands, wide=wide)
    first = next(iter(operands.values()))
    if first.ndim not in (3, 4):
        name = next(iter(operands))
        raise ValueError(f"{name}: expected shape (N, C, H, W) or (C, H, W), got {tuple(first.shape)}")
    return [tensor.to(_cast(tensor, wide)) for tensor in operands.values()]


def check_alike(operands: dict[str, Any], *, wide: bool = False) -> None:
    """Refuse what is not a dense tensor, of the first one's device and, after casts, dtype."""
    for name, tensor in operands.items():
        check_dense(name, tensor)
    (leader, first), *_ = operands.items()
    for name, tensor in operands.items():
        if tensor.device != first.device:
            raise TypeError(f"{name}: expected the device of {leader}, {first.device}, got {tensor.device}")
    expected = _cast(first, wide)
    for name, tensor in operands.items():
        dtype = _cast(tensor, wide)
        if dtype not in _DTYPES:
            raise TypeError(f"{name}: dtype {dtype} is not supported; expected floating point")
        if dtype != expected:
            raise TypeError(f"{name}: expected the dtype of {leader}, {expected}, got {dtype}")
        _check_primal(name, tensor)


def check_parameter(name: str, tensor: Tensor, input: Tensor) -> None:
    """Refuse a tensor of real parameters, of any floating dtype, that is not where the input is."""
    check_dense(name, tensor)
    if tensor.device != input.device:
        raise TypeError(f"{name}: expected the device of input, {input.device}, got {tensor.device}")
    if tensor.dtype not in (*_CAST, torch.float64):
        raise TypeError(f"{name}: expected real numbers of a floating dtype, got {tensor.dtype}")
    _check_primal(name, tensor)


def _check_primal(name: str, tensor: Tensor) -> None:
    if forward_ad.unpack_dual(tensor).tangent is not None:  # PyTorch would drop it without a word
        raise NotImplementedError(f"{name}: forward-mode derivatives are not supported; use reverse mode")


def check_dense(name: str, tensor: Any) -> None:
    """Refuse other things than tensors, and tensors without strides."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(tensor).__name__}")
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else tensor.layout
        raise TypeError(f"{name}: expected a dense Tensor, got a Tensor that is {kind}")


def check_guide(input: Tensor, guide: Tensor) -> None:
    """Refuse a guide whose samples, height and width are not the input's."""
    samples, expected = tuple(guide.shape[:-3]), tuple(input.shape[:-3])
    if guide.ndim < 3 or guide.shape[-2:] != input.shape[-2:]:
        raise ValueError(
            f"guide: expected the input's height and width, {tuple(input.shape[-2:])}, "
            f"got shape {tuple(guide.shape)}"
        )
    if len(samples) > len(expected) or not all(n == 1 or n == expected[0] for n in samples):
        raise ValueError(
            f"guide: expected samples that broadcast to the input's, {expected}, "
            f"got shape {tuple(guide.shape)}"
        )


def check_real(name: str, features: Tensor) -> None:
    """Refuse features that have no likeness."""
    if features.is_complex():
        raise TypeError(f"{name}: expected real features, got {features.dtype}")
    if features.shape[-3] == 0:
        raise ValueError(f"{name}: expected at least one feature, got shape {tuple(features.shape)}")


def _cast(tensor: Tensor, wide: bool) -> torch.dtype:
    """Return the dtype that autocast wants: of conv2d, or of exp if `wide`."""
    kind = tensor.device.type  # torch knows no autocast for "meta"
    if tensor.dtype not in _CAST or kind == "meta" or not torch.is_autocast_enabled(kind):
        return tensor.dtype
    return torch.float32 if wide else torch.get_autocast_dtype(kind)


def given(bias: Any) -> dict[str, Any]:
    """Return the bias by name, if there is one."""
    return {} if bias is None else {"bias": bias}


def add_bias(result: Tensor, bias: Tensor | None = None, *, per_pixel: bool = False) -> Tensor:
    """Add a bias (C_out,), or (C_out, H_out, W_out) where there may be one `per_pixel`."""
    if bias is None:
        return result
    whole = tuple(result.shape[-3:])
    if tuple(bias.shape) == whole[:1]:
        return result + bias[:, None, None]
    if not per_pixel or tuple(bias.shape) != whole:
        expected = f"{whole[:1]} or {whole}" if per_pixel else f"{whole[:1]}"
        raise ValueError(f"bias: expected shape {expected}, got {tuple(bias.shape)}")
    return result + bias


# ---- numbers


def width(sigma: Any) -> float:
    """Read a positive number."""
    if isinstance(sigma, Tensor) and sigma.requires_grad:
        raise TypeError("sigma: gets no gradient, but requires one; divide the guide by it instead")
    if not isinstance(sigma, int | float | np.number | Tensor) or (isinstance(sigma, Tensor) and sigma.ndim):
        raise TypeError(f"sigma: expected a number, got {sigma!r}")
    width = float(sigma)
    if not 0 < width < float("inf") or 1 / width == float("inf"):
        raise ValueError(f"sigma: expected a positive number, got {sigma!r}")
    return width


def int_pair(name: str, value: Any, minimum: int) -> list[int]:
    """Read an int, a pair of ints (rows, columns), or, as torch does, a sequence of one."""
    alone = isinstance(value, list | tuple) and len(value) == 1
    pair = _arguments.int_pair(name, value[0] if alone else value, minimum)
    if max(pair) > _MOST:
        raise ValueError(f"{name}: expected at most 2**40, got {value!r}")
    return list(pair)


# ---- windows


def geometry(
    name: str,
    kernels: Tensor,
    stride: IntPair,
    padding: Padding,
    dilation: IntPair,
    padding_mode: str,
) -> Geometry:
    """Read the arguments of a window whose taps are the first two axes of the operand `name`."""
    if kernels.ndim < 2 or 0 in kernels.shape[:2]:
        raise ValueError(f"{name}: expected a window (kh, kw) first, got shape {tuple(kernels.shape)}")
    return parsed(tuple(kernels.shape[:2]), stride, padding, dilation, padding_mode)


def parsed(
    size: tuple[int, ...], stride: IntPair, padding: Padding, dilation: IntPair, padding_mode: str
) -> Geometry:
    """Read the arguments of a window of some size."""
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
    return pads, strides, dilations, boundary(padding_mode)


def boundary(padding_mode: Any) -> str:
    """Return our name of a padding mode."""
    if not isinstance(padding_mode, str) or padding_mode not in MODES:
        raise ValueError(f"padding_mode: expected one of {', '.join(MODES)}, got {padding_mode!r}")
    return MODES[padding_mode]


def checked_shape(family: Multilinear, tensors: tuple[Tensor, ...], geometry: Geometry) -> tuple[int, ...]:
    """Return the shape of a result; refuse windows that do not fit."""
    return _fitting(family, tuple(tuple(tensor.shape) for tensor in tensors), geometry)


def output_size(image: tuple[int, ...], size: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    """Return (H_out, W_out); refuse windows that do not fit."""
    return _fitting(PIXELWISE, (image, size), geometry)


def _fitting(family: Multilinear, shapes: Shapes, geometry: Geometry) -> tuple[int, ...]:
    shape = result_shape(family, shapes, *geometry[:3])
    if min(shape[-2:]) < 1:
        raise ValueError(
            f"padding: a window of {shapes[-1][:2]} taps with dilation {tuple(geometry[2])} does not fit in "
            f"{shapes[0][-2:]} pixels padded by {tuple(geometry[0])}"
        )
    return shape
