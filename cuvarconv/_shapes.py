"""Shapes: the one broadcasting rule, and image axes moved last."""

from __future__ import annotations

import operator
from typing import Any

from cuvarconv._arguments import image_axes


def image_axes_last(ndim: int, axes: Any, name: str = "input") -> tuple[int, ...]:
    """Return the order of axes that puts the two image axes last."""
    if ndim < 2:
        raise ValueError(f"{name}: expected at least 2 axes, (…, H, W), got {ndim}")
    image = image_axes(axes, ndim)
    if image == (ndim - 2, ndim - 1):
        return tuple(range(ndim))
    return (*(axis for axis in range(ndim) if axis not in image), *image)


def with_image(shape: tuple[int, ...], order: tuple[int, ...], image: tuple[int, int]) -> tuple[int, ...]:
    """Return a shape with other lengths along its two image axes, the last ones in `order`."""
    if order[-2:] == (len(shape) - 2, len(shape) - 1):
        return (*shape[:-2], *image)
    lengths = dict(zip(order[-2:], image, strict=True))
    return tuple(lengths.get(axis, length) for axis, length in enumerate(shape))


def with_channels(name: str, array: Any, channel_axis: Any) -> Any:
    """View an array as (…, C, H, W), with one channel if `channel_axis` is None."""
    order = channel_order(name, array.shape, channel_axis)
    return array[..., None, :, :] if channel_axis is None else array.transpose(order)


def channel_order(name: str, shape: tuple[int, ...], channel_axis: Any) -> tuple[int, ...]:
    """Return the order of axes that puts the channels, if there are any, before the image axes."""
    ndim, needed = len(shape), 2 if channel_axis is None else 3
    if ndim < needed:
        raise ValueError(f"{name}: expected at least {needed} axes, got shape {shape}")
    if channel_axis is None:
        return tuple(range(ndim))
    try:
        channel_axis = operator.index(channel_axis)
    except TypeError:
        raise TypeError(f"channel_axis: expected an int or None, got {channel_axis!r}") from None
    if not -ndim <= channel_axis < ndim:
        raise ValueError(f"channel_axis: {channel_axis} is out of range for {ndim} axes")
    if shape[channel_axis] == 0:
        raise ValueError(f"{name}: expected at least one channel along axis {channel_axis}")
    axes = [axis for axis in range(ndim) if axis != channel_axis % ndim]
    return (*axes[:-2], channel_axis % ndim, *axes[-2:])


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
    check_varying(name, operand.shape, shape, divisor_axis=divisor_axis)
    new_axes = (None,) * (len(shape) - operand.ndim + 2)
    view = operand[(slice(None), slice(None), *new_axes)]
    return view.transpose(0, 1, *[2 + axis for axis in order])


def align_map(name: str, values: Any, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> Any:
    """View a map, or a number, with one axis for each of `shape`, to which it broadcasts one way.

    Axes that broadcast keep length 1; nothing is expanded.  `order` says how the axes are to lie.
    """
    missing = len(shape) - values.ndim
    if missing < 0 or any(
        not (length == 1 or length == whole)
        for length, whole in zip(values.shape, shape[missing:], strict=True)
    ):
        raise ValueError(
            f"{name}: expected a number or a map that broadcasts to {shape}, got shape {values.shape}"
        )
    view = values[(None,) * missing]
    return view if order is None else view.transpose(order)


def check_varying(
    name: str, operand: tuple[int, ...], shape: tuple[int, ...], *, divisor_axis: int | None = None
) -> None:
    """Refuse a shape (kh, kw) + S where S does not broadcast, one way, to `shape`."""
    varying = operand[2:]
    missing = len(shape) - len(varying)
    fits = missing >= 0
    for axis, length in enumerate(varying if fits else (), missing):
        divides = axis == divisor_axis and length and shape[axis] % length == 0
        # not `in`, which torch.compile answers for symbols without comparing their values
        fits = fits and (length == 1 or length == shape[axis] or bool(divides))
    if not fits:
        raise ValueError(
            f"{name}: expected shape (kh, kw) + S with S broadcasting to {shape}, got S = {varying}"
            + _axes_hint(name, varying, shape)
        )


def _axes_hint(name: str, varying: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Say how kernels of channels-last pictures are given, where S looks like theirs; weights have `axes`."""
    if name != "weights" or len(shape) != 3 or varying != shape[:2]:
        return ""
    return f"; for channels-last pictures pass axes=(0, 1) and S = {(*varying, 1)}"


def align_modulation(modulation: Any, shape: tuple[int, ...]) -> Any:
    """View (kh, kw) + S with one axis for each of `shape`, (…, C_in, H_out, W_out); C_in may be divided."""
    return align("modulation", modulation, shape, tuple(range(len(shape))), divisor_axis=len(shape) - 3)


def align_full(kernels: Any, batch: tuple[int, ...], image: tuple[int, int], channels: int) -> Any:
    """View (kh, kw, …, H_out, W_out, C_in, C_out) as (kh, kw, batch…, C_in, C_out, H_out, W_out).

    Batch axes that broadcast keep length 1; nothing is expanded.
    """
    check_full(kernels.shape, batch, image, channels)
    view = kernels[(slice(None), slice(None), *(None,) * (len(batch) - kernels.ndim + 6))]
    first = 2 + len(batch)
    return view.transpose(*range(first), first + 2, first + 3, first, first + 1)


def check_full(
    kernels: tuple[int, ...], batch: tuple[int, ...], image: tuple[int, int], channels: int
) -> None:
    """Refuse a shape (kh, kw, …, H_out, W_out, C_in, C_out) that does not fit."""
    if len(kernels) < 6:
        raise ValueError(f"kernels: expected shape (kh, kw, …, H_out, W_out, C_in, C_out), got {kernels}")
    expected = (*image, channels)
    if kernels[-4:-1] != expected:
        raise ValueError(
            f"kernels: expected (H_out, W_out, C_in) = {expected} before the last axis, got {kernels[-4:-1]}"
        )
    varying = kernels[2:-4]
    missing = len(batch) - len(varying)
    if missing < 0 or any(
        not (length == 1 or length == whole) for length, whole in zip(varying, batch[missing:], strict=True)
    ):
        raise ValueError(f"kernels: expected batch axes that broadcast to {batch}, got {varying}")


def check_channels(name: str, image: tuple[int, ...], weights: tuple[int, ...], groups: Any) -> None:
    """Refuse a kernel (C_out, C_in/groups, kh, kw), called `name`, and groups that do not fit an image."""
    try:
        count = operator.index(groups)
    except TypeError:
        raise TypeError(f"groups: expected an int, got {groups!r}") from None
    if len(image) < 3:
        raise ValueError(f"input: expected shape (…, C_in, H, W), got {image}")
    if len(weights) != 4:
        raise ValueError(f"{name}: expected shape (C_out, C_in/groups, kh, kw), got {weights}")
    kernel_size(name, weights[2:])
    channels, outputs = image[-3], weights[0]
    if count < 1 or channels % count or outputs % count:
        raise ValueError(
            f"groups: expected a divisor of C_in = {channels} and C_out = {outputs}, got {groups!r}"
        )
    if weights[1] != channels // count:
        raise ValueError(f"{name}: expected C_in/groups = {channels // count} along axis 1, got {weights[1]}")
