"""The arguments of a Gaussian blur, checked: one record for the filter and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cuvarconv._dtypes import check_cval
from cuvarconv._separable import is_separable
from cuvarconv._shapes import image_axes_last, with_image
from cuvarconv._sigma import align_sigma, blur_window, names, reach
from cuvarconv._window import Window


@dataclass(frozen=True)
class Blur:
    """A Gaussian as the backends take it, image axes last."""

    order: tuple[int, ...]  # of the caller's axes
    window: Window
    sigmas: tuple[Any, Any]
    angle: Any
    truncate: float | None  # None where the radius is given

    @property
    def separable(self) -> bool:
        """Whether one σ per axis makes all kernels."""
        return is_separable(self.sigmas, self.angle, self.window)


def read_blur(
    operands: Sequence[Any], angle: Any, mode: Any, cval: complex, truncate: Any, radius: Any, axes: Any
) -> Blur:
    """Check all arguments; operands are the image, one σ or two, and the angle unless that is None."""
    images, *maps = operands
    turn = None if angle is None else maps.pop()
    order = image_axes_last(images.ndim, axes)
    check_cval(cval, images.dtype)
    reached, radii = reach(truncate, radius)
    window = blur_window(
        (maps[0], maps[-1]),
        turn,
        (images.shape[order[-2]], images.shape[order[-1]]),
        truncate=reached,
        radii=radii,
        mode=mode,
        cval=cval,
    )
    shape = with_image(images.shape, order, window.output_shape)
    aligned = [align_sigma(name, each, shape, order) for name, each in zip(names(maps), maps, strict=True)]
    turned = None if turn is None else align_sigma("angle", turn, shape, order)
    return Blur(order, window, (aligned[0], aligned[-1]), turned, reached)
