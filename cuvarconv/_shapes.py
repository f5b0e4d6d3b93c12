"""Shapes: the one broadcasting rule, and image axes moved last."""

from __future__ import annotations

from typing import Any

from cuvarconv._window import image_axes


def image_axes_last(ndim: int, axes: Any, name: str = "input") -> tuple[int, ...]:
    """Return the order of axes that puts the two image axes last."""
    if ndim < 2:
        raise ValueError(f"{name}: expected at least 2 axes, (…, H, W), got {ndim}")
    image = image_axes(axes, ndim)
    return (*(axis for axis in range(ndim) if axis not in image), *image)


def with_image(shape: tuple[int, ...], order: tuple[int, ...], image: tuple[int, int]) -> tuple[int, ...]:
    """Return a shape with other lengths along its two image axes, the last ones in `order`."""
    lengths = dict(zip(order[-2:], image, strict=True))
    return tuple(lengths.get(axis, length) for axis, length in enumerate(shape))


def kernel_size(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the two kernel axes that come first in `weights` and `modulation`."""
    if len(shape) < 2:
        raise ValueError(f"{name}: expected shape (kh, kw) + S, got {shape}")
    if 0 in shape[:2]:
        raise ValueError(f"{name}: expected at least one tap along each axis, got shape {shape}")
    return shape[0], shape[1]


def align(
    name: str,
    operand: Any,
    shape: tuple[int, ...],
    order: tuple[int, ...],
    *,
    divisor_axis: int | None = None,
) -> Any:
    """View (kh, kw) + S with one axis for each of the output's, in the given order.

    Axes that broadcast keep length 1; nothing is expanded.  The length along `divisor_axis` may
    also divide the output's.
    """
    varying = operand.shape[2:]
    padded = (1,) * (len(shape) - len(varying)) + varying
    fits = len(varying) <= len(shape)
    for axis, (length, expected) in enumerate(zip(padded, shape, strict=fits)):
        divides = axis == divisor_axis and length and expected % length == 0
        fits = fits and (length in (1, expected) or bool(divides))
    if not fits:
        raise ValueError(
            f"{name}: expected shape (kh, kw) + S with S broadcasting to {shape}, got S = {varying}"
        )
    new_axes = (None,) * (len(shape) - len(varying))
    view = operand[(slice(None), slice(None), *new_axes)]
    return view.transpose(0, 1, *(2 + axis for axis in order))
