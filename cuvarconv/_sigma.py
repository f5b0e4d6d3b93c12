"""What the Gaussian's functions share: reading σ, the angle and the window's reach, and checking them."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from cuvarconv._arguments import int_pair, is_lazy, number
from cuvarconv._blocks import blocks, matching
from cuvarconv._shapes import align_map
from cuvarconv._window import Window, make_window

_AT_ONCE = 1 << 20  # pixels whose radii are worked out together
_FARTHEST = 1 << 30  # pixels: a longer radius is refused
_PAIR = ("sigma[0]", "sigma[1]")


def named_sigmas(sigma: Any) -> dict[str, Any]:
    """Return σ by name: one for both axes, or one for rows and one for columns."""
    if _is_sequence(sigma):
        if len(sigma) != 2:
            raise ValueError(
                f"sigma: expected a number, a map or a pair of them (rows, columns), got {len(sigma)} of "
                "them; image axes are named by axes=, for channels-last pictures axes=(0, 1)"
            )
        return dict(zip(_PAIR, sigma, strict=True))
    return {"sigma": sigma}


def named_angle(angle: Any) -> dict[str, Any]:
    """Return the angle by name, unless there is none."""
    return {} if angle is None else {"angle": angle}


def names(sigmas: Sequence[Any]) -> tuple[str, ...]:
    """Return what one σ, or each of two, is called in messages."""
    return _PAIR if len(sigmas) == 2 else ("sigma",)


def _is_sequence(sigma: Any) -> bool:
    """Whether σ holds one value per axis: a tuple, a list that is no map, or an array with one axis."""
    if isinstance(sigma, tuple):
        return True
    if isinstance(sigma, list):
        return not sigma or any(_axes(item) != 1 for item in sigma)
    return getattr(sigma, "ndim", 0) == 1


def _axes(item: Any) -> int:
    if isinstance(item, list | tuple):
        return 1 + max(map(_axes, item), default=0)
    return getattr(item, "ndim", 0)


def check_order(order: Any) -> None:
    """Accept 0, alone or for each axis: scipy has derivatives there."""
    try:
        orders = [operator.index(item) for item in (order if isinstance(order, Iterable) else (order,))]
    except TypeError:
        raise TypeError(f"order: expected 0, got {order!r}") from None
    if any(orders):
        raise ValueError(f"order: expected 0, as derivatives are not supported, got {order!r}")


def reach(truncate: Any, radius: Any) -> tuple[float | None, tuple[int, int] | None]:
    """Read `truncate` and `radius`; exactly one of them counts, the other becomes None."""
    widths = read_truncate(truncate)
    if radius is None:
        return widths, None
    radii = int_pair("radius", radius, minimum=0)
    check_radii("radius", radii)
    return None, radii


def read_truncate(truncate: Any) -> float:
    """Read by how many widths kernels reach."""
    widths = number("truncate", truncate)
    if not isinstance(widths, float) or not 0 <= widths < math.inf:
        raise ValueError(f"truncate: expected a finite number that is not negative, got {truncate!r}")
    return widths


def blur_window(
    sigmas: tuple[Any, Any],
    angle: Any,
    image: tuple[int, int],
    *,
    truncate: float | None,
    radii: tuple[int, int] | None,
    mode: Any,
    cval: Any,
) -> Window:
    """Fill the record of the window that holds every kernel."""
    far, wide = largest_radii(sigmas, angle, truncate, radii)
    size = 2 * far + 1, 2 * wide + 1
    return make_window(size, image, mode=mode, cval=cval, origin=0, stride=1, dilation=1)


def largest_radii(
    sigmas: tuple[Any, Any], angle: Any, truncate: float | None, radii: tuple[int, int] | None
) -> tuple[int, int]:
    """Check the values of σ and the angle, and return how far the kernels reach along rows and columns."""
    if radii is None and any(map(is_lazy, (*sigmas, angle))):
        raise ValueError(
            "radius: expected an int or a pair where sigma or angle is a dask array, whose values are not "
            "known yet, got None"
        )
    widest = _largest_widths(sigmas, angle)
    if radii is None:
        assert truncate is not None
        radii = radius_of(widest[0], truncate), radius_of(widest[1], truncate)
        check_radii("sigma", radii)
    return radii


def radius_of(width: float, truncate: float) -> int:
    """Return how far a kernel of this width reaches."""
    reach = truncate * width + 0.5
    return int(reach) if reach < _FARTHEST else _FARTHEST


def check_radii(name: str, radii: tuple[int, int]) -> None:
    """Refuse radii that no image needs and no loop could end for."""
    if max(radii) >= _FARTHEST:
        raise ValueError(
            f"{name}: expected kernels that reach less than {_FARTHEST} pixels, got at least {max(radii)}"
        )


def _largest_widths(sigmas: tuple[Any, Any], angle: Any) -> tuple[float, float]:
    """Return the largest extent along rows and columns; refuse values that are none of a width."""
    if sigmas[0] is sigmas[1]:
        widest = (_largest("sigma", sigmas[0]),) * 2
    else:
        widest = _largest(_PAIR[0], sigmas[0]), _largest(_PAIR[1], sigmas[1])
    if angle is None or 0 in angle.shape:
        return widest
    if angle.dtype.kind == "c":
        raise TypeError(f"angle: expected real numbers (radians), got {angle.dtype}")
    if any(map(is_lazy, (*sigmas, angle))):
        return widest  # not known, nor needed beside the radius
    low, high = float(angle.min()), float(angle.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        wrong = high if math.isfinite(low) else low
        raise ValueError(f"angle: expected finite numbers (radians), got {wrong}")
    found = [(0.0, 0.0)]
    for rows, columns, turn in _parts(*sigmas, angle):
        if ((rows == 0) != (columns == 0)).any():
            raise ValueError(
                "sigma: with an angle, expected both widths of a pixel to be 0 or neither, got one of them"
            )
        down, across = extents(rows, columns, turn)
        found.append((float(down.max()), float(across.max())))
    return max(down for down, _ in found), max(across for _, across in found)


def _largest(name: str, sigma: Any) -> float:
    if sigma.dtype.kind == "c":
        raise TypeError(f"{name}: expected real numbers, got {sigma.dtype}")
    if 0 in sigma.shape or is_lazy(sigma):
        return 0.0
    low, high = float(sigma.min()), float(sigma.max())
    if not (low >= 0 and high < math.inf):
        wrong = low if not low >= 0 else high
        raise ValueError(f"{name}: expected finite numbers that are not negative, got {wrong}")
    return high


def _parts(*maps: Any) -> Iterator[tuple[Any, ...]]:
    """Yield blocks of maps that broadcast together, in double precision."""
    shape = common_shape(*maps)
    maps = tuple(each[(None,) * (len(shape) - each.ndim)] for each in maps)
    for where in blocks(shape, _AT_ONCE):
        yield tuple(each[matching(each, where)].astype(np.float64) for each in maps)


def common_shape(*maps: Any) -> tuple[int, ...]:
    """Return the shape to which σ and the angle broadcast."""
    shapes = [each.shape for each in maps]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"sigma, angle: expected maps that broadcast together, got shapes {shapes}"
        ) from None


def extents(rows: Any, columns: Any, angle: Any) -> tuple[Any, Any]:
    """Return the standard deviations along rows and columns of a Gaussian turned by `angle`."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.hypot(rows * cosine, columns * sine), np.hypot(rows * sine, columns * cosine)


def align_sigma(name: str, values: Any, shape: tuple[int, ...], order: tuple[int, ...]) -> Any:
    """View a map with one axis for each of the output's, in the given order; a row of numbers is no map."""
    if values.ndim == 1:
        raise ValueError(
            f"{name}: expected a number or a map that broadcasts to {shape}, got shape {values.shape}"
        )
    return align_map(name, values, shape, order)
