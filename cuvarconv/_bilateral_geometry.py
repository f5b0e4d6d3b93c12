"""What a call of the bilateral filter is given: checked, and viewed as the backends take it."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._arguments import is_lazy
from cuvarconv._dtypes import check_cval
from cuvarconv._shapes import align_map, channel_order, with_channels, with_image
from cuvarconv._sigma import check_radii, radius_of, read_truncate
from cuvarconv._window import Window, make_window


@dataclass(frozen=True)
class Filter:
    """The geometry of a call, and its arrays as the backends take them."""

    image_axis: int | None
    guide_axis: int | None
    batch: tuple[int, ...]
    result_shape: tuple[int, ...]
    window: Window
    truncate: float | None

    def image(self, array: Any) -> Any:
        """View the input or the result as (batch…, C, H, W)."""
        return with_channels("input", array, self.image_axis)

    def guide(self, array: Any) -> Any:
        """View the guide as (batch…, features, H, W)."""
        view = with_channels("guide", array, self.guide_axis)
        return view[(None,) * (len(self.batch) + 3 - view.ndim)]

    def sigma(self, array: Any, name: str = "sigma") -> Any:
        """View a map or a number as (batch…, H_out, W_out)."""
        return align_map(name, array, (*self.batch, *self.window.output_shape))

    def sigmas(self, given: dict[str, Any]) -> tuple[Any, Any]:
        """View both."""
        return (
            self.sigma(given["sigma_spatial"], "sigma_spatial"),
            self.sigma(given["sigma_range"], "sigma_range"),
        )


_SIGMAS = ("sigma_spatial", "sigma_range")


def named_operands(input: Any, guide: Any, sigma_spatial: Any, sigma_range: Any) -> dict[str, Any]:
    """Return the operands by name, the guide among them if there is one."""
    joint = {} if guide is None else {"guide": guide}
    return {"input": input, **joint, "sigma_spatial": sigma_spatial, "sigma_range": sigma_range}


def make_filter(
    operands: dict[str, Any],
    given: dict[str, Any],
    channel_axis: Any,
    radius: Any,
    truncate: Any,
    mode: Any,
    cval: Any,
) -> Filter:
    """Check what a call was given, and fill the record of its geometry."""
    images = given["input"]
    features = _check_dtypes(given)
    image_axis, guide_axis = _channel_axes(images, features, channel_axis)
    order = channel_order("input", images.shape, image_axis)
    planes, likeness = (
        with_channels("input", images, image_axis),
        with_channels("guide", features, guide_axis),
    )
    _check_guide(features.shape, likeness.shape, planes.shape)
    largest = {name: _largest(name, operands[name], given[name]) for name in _SIGMAS}
    if radius is None and is_lazy(given["sigma_spatial"]):
        raise ValueError(
            "radius: expected an int where sigma_spatial is a dask array, whose values are not known yet, "
            "got None"
        )
    if largest["sigma_spatial"] == math.inf:
        raise ValueError("sigma_spatial: expected finite numbers, got inf")
    reach, truncate = _reach(radius, truncate, largest["sigma_spatial"])
    window = make_window(
        (2 * reach + 1,) * 2, planes.shape[-2:], mode=mode, cval=cval, origin=0, stride=1, dilation=1
    )
    check_cval(window.cval, features.dtype)
    shape = with_image(images.shape, order, window.output_shape)
    return Filter(image_axis, guide_axis, planes.shape[:-3], shape, window, truncate)


def _check_dtypes(given: dict[str, Any]) -> Any:
    """Refuse complex numbers where they have no meaning; return the guide."""
    if given["input"].dtype.kind == "c" and "guide" not in given:
        raise TypeError(f"guide: expected a real guide for a complex input, {given['input'].dtype}, got None")
    for name, array in given.items():
        if name not in ("grad", "input") and array.dtype.kind == "c":
            raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return given.get("guide", given["input"])


def _channel_axes(images: Any, features: Any, channel_axis: Any) -> tuple[int | None, int | None]:
    """Return the channel axes of input and guide; None where there is one channel without an axis."""
    if channel_axis is None or features is images:
        return channel_axis, channel_axis
    if images.ndim == 2 < features.ndim:
        return None, channel_axis
    channel_order("input", images.shape, channel_axis)
    from_end = operator.index(channel_axis) % images.ndim - images.ndim
    return channel_axis, None if features.ndim == 2 else from_end


def _check_guide(shape: tuple[int, ...], features: tuple[int, ...], planes: tuple[int, ...]) -> None:
    missing = len(planes) - len(features)
    if (
        missing < 0
        or features[-2:] != planes[-2:]
        or any(
            not (length == 1 or length == whole)
            for length, whole in zip(features[:-3], planes[missing:-3], strict=True)
        )
    ):
        raise ValueError(
            f"guide: expected height and width {planes[-2:]} and batch axes that broadcast to "
            f"{planes[:-3]}, got shape {shape}"
        )


def _largest(name: str, operand: Any, array: Any) -> float:
    """Return the largest number of a σ; none may be negative or NaN."""
    if array.size == 0 or is_lazy(array):
        return 0.0
    if isinstance(operand, int | float | np.generic):
        lowest = highest = float(operand)
    else:
        lowest, highest = float(array.min()), float(array.max())
    if not lowest >= 0:
        raise ValueError(f"{name}: expected numbers of at least 0, got {lowest}")
    return highest


def _reach(radius: Any, truncate: Any, sigma: float) -> tuple[int, float | None]:
    """Return the window's radius, and what is to be made of `truncate` at each pixel."""
    times = read_truncate(truncate)
    if radius is not None:
        try:
            reach = operator.index(radius)
        except TypeError:
            raise TypeError(f"radius: expected an int or None, got {radius!r}") from None
        if reach < 0:
            raise ValueError(f"radius: expected at least 0, got {reach}")
        check_radii("radius", (reach, reach))
        return reach, None
    reach = radius_of(sigma, times)
    check_radii("sigma_spatial", (reach, reach))
    return reach, times
