"""The Gaussian blur and the bilateral filter as PyTorch operators; differentiable once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cuvarconv._bilateral import bilateral_filter, bilateral_filter_vjp
from cuvarconv._gaussian import gaussian_filter, gaussian_filter_vjp

# ---- what both share


def _register(
    name: str,
    operands: dict[str, str],
    options: str,
    forward: Callable[..., Any],
    vjp: Callable[..., Sequence[Tensor]],
) -> Callable[..., Tensor]:
    """Register a filter whose result is like its first operand, and its gradients in what is wanted.

    ``forward(*operands, *options, output=…)`` fills, ``vjp(grad, *operands, *options, wrt=…)`` returns one
    gradient for each name in `wrt`.
    """
    count = len(operands)
    parameters = ", ".join(f"{kind} {operand}" for operand, kind in operands.items()) + f", {options}"
    gradient = _register_gradient(f"{name}_gradient", tuple(operands), parameters, vjp)

    def kernel(*arguments: Any) -> Tensor:
        result = fake(*arguments)
        wide = _readable(result)
        forward(*map(_readable, arguments[:count]), *arguments[count:], output=wide)
        return result if wide is result else result.copy_(wide)

    def fake(*arguments: Any) -> Tensor:
        return _fresh(arguments[0])

    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        wanted = list(ctx.needs_input_grad[:count])
        found = iter(gradient(grad, *ctx.saved_tensors, *ctx.options, wanted))
        return tuple(next(found) if asked else None for asked in wanted) + (None,) * len(ctx.options)

    def set_up(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:count])
        ctx.options = inputs[count:]

    schema = f"({parameters}) -> Tensor"
    operator = torch.library.custom_op(f"cuvarconv::{name}", kernel, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    operator.register_autograd(backward, setup_context=set_up)
    return operator


def _register_gradient(
    name: str, operands: tuple[str, ...], parameters: str, vjp: Callable[..., Sequence[Tensor]]
) -> Callable[..., list[Tensor]]:
    """Register the gradients: (grad, all that the filter takes, which are wanted) -> those wanted."""
    count = len(operands)

    def kernel(grad: Tensor, *arguments: Any) -> list[Tensor]:
        *options, wanted = arguments[count:]
        wrt = tuple(operand for operand, asked in zip(operands, wanted, strict=True) if asked)
        given = map(_readable, arguments[:count])
        found = vjp(_readable(grad), *given, *options, wrt=wrt)
        return [mine.copy_(theirs) for mine, theirs in zip(fake(grad, *arguments), found, strict=True)]

    def fake(grad: Tensor, *arguments: Any) -> list[Tensor]:
        return [
            _fresh(operand) for operand, asked in zip(arguments[:count], arguments[-1], strict=True) if asked
        ]

    schema = f"(Tensor grad, {parameters}, bool[] wanted) -> Tensor[]"
    operator = torch.library.custom_op(f"cuvarconv::{name}", kernel, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    return operator


def _fresh(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _readable(tensor: Tensor | None) -> Any:
    """Return a tensor that the array functions take: without a graph, and not bfloat16 on the CPU."""
    if tensor is None:
        return None
    narrow = tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu"
    return tensor.detach().float() if narrow else tensor.detach()


# ---- the Gaussian


def _gaussian_arguments(
    sigma: Any, columns: Any, angle: Any, truncate: float, radius: Sequence[int], mode: str
) -> tuple[Any, dict[str, Any]]:
    widths = sigma if columns is None else (sigma, columns)
    return widths, {"mode": mode, "truncate": truncate, "radius": tuple(radius) or None, "angle": angle}


def _gaussian(input: Any, sigma: Any, columns: Any, *options: Any, output: Any) -> None:
    widths, keywords = _gaussian_arguments(sigma, columns, *options)
    gaussian_filter(input, widths, output=output, **keywords)


def _gaussian_vjp(
    grad: Any, input: Any, sigma: Any, columns: Any, *options: Any, wrt: tuple[str, ...]
) -> Sequence[Tensor]:
    widths, keywords = _gaussian_arguments(sigma, columns, *options)
    asked = tuple(dict.fromkeys("sigma" if name == "columns" else name for name in wrt))
    found = dict(zip(asked, gaussian_filter_vjp(grad, input, widths, wrt=asked, **keywords), strict=True))
    if columns is not None and "sigma" in found:
        found["sigma"], found["columns"] = found["sigma"]
    return [found[name] for name in wrt]


gaussian_blur2d = _register(
    "gaussian_blur2d",
    {"input": "Tensor", "sigma": "Tensor", "columns": "Tensor?", "angle": "Tensor?"},
    "float truncate, SymInt[] radius, str mode",
    _gaussian,
    _gaussian_vjp,
)

# ---- the bilateral filter


def _bilateral_keywords(guide: Any, truncate: float, radius: int | None, mode: str) -> dict[str, Any]:
    return {"guide": guide, "channel_axis": -3, "truncate": truncate, "radius": radius, "mode": mode}


def _bilateral(
    input: Any, sigma_spatial: Any, sigma_range: Any, guide: Any, *options: Any, output: Any
) -> None:
    keywords = _bilateral_keywords(guide, *options)
    bilateral_filter(input, sigma_spatial, sigma_range, output=output, **keywords)


def _bilateral_vjp(
    grad: Any,
    input: Any,
    sigma_spatial: Any,
    sigma_range: Any,
    guide: Any,
    *options: Any,
    wrt: tuple[str, ...],
) -> Sequence[Tensor]:
    keywords = _bilateral_keywords(guide, *options)
    return bilateral_filter_vjp(grad, input, sigma_spatial, sigma_range, wrt=wrt, **keywords)


bilateral_blur2d = _register(
    "bilateral_blur2d",
    {"input": "Tensor", "sigma_spatial": "Tensor", "sigma_range": "Tensor", "guide": "Tensor?"},
    "float truncate, SymInt? radius, str mode",
    _bilateral,
    _bilateral_vjp,
)
