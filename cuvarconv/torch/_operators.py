"""The multilinear operators and their gradients as PyTorch operators, ``torch.ops.cuvarconv.*``.

All of them are registered by the same code: fake kernels give shapes, and the gradient of each is made of
the others (see `Multilinear`), so that derivatives of any order exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from cuvarconv._multilinear import LOCAL, MODULATED, PIXELWISE, Fill, Multilinear, Shapes, run
from cuvarconv._tf32 import tf32
from cuvarconv._window import Window, padded_length, padded_window

_GEOMETRY = "SymInt[] padding, SymInt[] stride, SymInt[] dilation, str mode, SymInt groups"
_GEOMETRY_LENGTH = 5
Operator = Callable[..., torch.Tensor]


def result_shape(
    family: Multilinear,
    shapes: Shapes,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """Return the shape of the result; `padding` is (top, bottom, left, right)."""
    size, image = shapes[-1][:2], shapes[0][-2:]
    pairs = (padding[0], padding[1]), (padding[2], padding[3])
    lengths = [padded_length(*axis) for axis in zip(image, size, pairs, stride, dilation, strict=True)]
    return (*family.leading(shapes), *lengths)


def _register(family: Multilinear) -> Operator:
    """Register F and the gradient in each operand; return F."""
    count = len(family.operands)
    gradients: list[Operator] = []

    def forward_kernel(*arguments: Any) -> torch.Tensor:
        tensors, geometry = arguments[:count], arguments[count:]
        result = forward_fake(*arguments)
        names = dict(zip(family.operands, tensors, strict=True))
        compute(family.forward, result, names, _family_window(tensors, geometry), geometry[-1])
        return result

    def forward_fake(*arguments: Any) -> torch.Tensor:
        shapes = tuple(tuple(tensor.shape) for tensor in arguments[:count])
        shape = result_shape(family, shapes, *arguments[count : count + 3])
        return arguments[0].new_empty(shape)

    def forward_backward(context: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        operands = context.saved_tensors
        found = [
            gradients[q](grad, *_without(operands, q), list(operand.shape), *context.geometry)
            if context.needs_input_grad[q]
            else None
            for q, operand in enumerate(operands)
        ]
        return (*found, *(None,) * _GEOMETRY_LENGTH)

    forward = _operator(family.name, family.operands, "", forward_kernel, forward_fake, forward_backward)
    for q, name in enumerate(family.operands):
        gradients.append(_register_gradient(family, q, name, forward, gradients))
    return forward


def _register_gradient(
    family: Multilinear, q: int, name: str, forward: Operator, gradients: list[Operator]
) -> Operator:
    """Register the gradient in operand q: (grad, the other operands, shape of operand q) -> gradient."""
    others = _without(family.operands, q)
    count = len(family.operands)

    def kernel(*arguments: Any) -> torch.Tensor:
        tensors, geometry = arguments[:count], arguments[count + 1 :]
        result = fake(*arguments)
        names = dict(zip(("grad", *others), tensors, strict=True))
        windows_of = _with(tensors[1:], q, result)
        compute(family.gradients[q], result, names, _family_window(windows_of, geometry), geometry[-1])
        return result

    def fake(*arguments: Any) -> torch.Tensor:
        return arguments[0].new_empty(arguments[count])

    def backward(context: Any, above: torch.Tensor) -> tuple[Any, ...]:
        grad, *rest = context.saved_tensors
        operands = _with(tuple(rest), q, above)
        needs = context.needs_input_grad
        found = [forward(*operands, *context.geometry) if needs[0] else None]
        for at, r in enumerate(_without(tuple(range(count)), q), start=1):
            shape = list(operands[r].shape)
            found.append(
                gradients[r](grad, *_without(operands, r), shape, *context.geometry) if needs[at] else None
            )
        return (*found, *(None,) * (1 + _GEOMETRY_LENGTH))

    return _operator(
        f"{family.name}_{name}_gradient", ("grad", *others), "SymInt[] shape, ", kernel, fake, backward
    )


def _operator(
    name: str, operands: tuple[str, ...], extra: str, kernel: Operator, fake: Operator, backward: Operator
) -> Operator:
    tensors = ", ".join(f"Tensor {operand}" for operand in operands)
    schema = f"({tensors}, {extra}{_GEOMETRY}) -> Tensor"
    operator = torch.library.custom_op(f"cuvarconv::{name}", kernel, mutates_args=(), schema=schema)

    def set_up(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs[: len(operands)])
        ctx.geometry = inputs[-_GEOMETRY_LENGTH:]

    operator.register_fake(fake)
    operator.register_autograd(backward, setup_context=set_up)
    return operator


def _without(values: tuple[Any, ...], q: int) -> tuple[Any, ...]:
    return values[:q] + values[q + 1 :]


def _with(others: tuple[Any, ...], q: int, value: Any) -> tuple[Any, ...]:
    return (*others[:q], value, *others[q:])


def _family_window(operands: tuple[torch.Tensor, ...], geometry: tuple[Any, ...]) -> Window:
    return window(operands[-1].shape[:2], operands[0].shape[-2:], *geometry[:4])


def window(
    size: Sequence[int],
    image: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    mode: str,
) -> Window:
    """Return the record of a window; `padding` is (top, bottom, left, right)."""
    return padded_window(
        (size[0], size[1]),
        (image[0], image[1]),
        modes=(mode, mode),
        padding=((padding[0], padding[1]), (padding[2], padding[3])),
        stride=(stride[0], stride[1]),
        dilation=(dilation[0], dilation[1]),
    )


def compute(
    fill: Fill, result: torch.Tensor, operands: dict[str, torch.Tensor], window: Window, groups: int = 1
) -> None:
    """Fill a tensor of torch's own memory, on its device and torch's current stream."""
    arrays = {name: tensor.detach() for name, tensor in operands.items()}
    if result.dtype == torch.bfloat16 and result.device.type == "cpu":  # NumPy has no such dtype
        wide = torch.empty_like(result, dtype=torch.float32)
        run(fill, wide, {name: array.float() for name, array in arrays.items()}, window, groups)
        result.copy_(wide)
        return
    with tf32(result.is_cuda and _tf32_in_products()):
        run(fill, result, arrays, window, groups)


def _tf32_in_products() -> bool:
    """Whether the caller allows TF32 in matrix products, as torch's own do."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # from torch 2.9 on; the older switch sets it, too
        return bool(matmul.fp32_precision == "tf32")
    return bool(matmul.allow_tf32)


modulated_conv2d = _register(MODULATED)
pixelwise_conv2d = _register(PIXELWISE)
local_conv2d = _register(LOCAL)
