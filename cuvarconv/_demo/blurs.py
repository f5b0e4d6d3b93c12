"""The demo's two blurs: their kernels, their calls, and the unfold formulas beside them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

import cuvarconv

_TRUNCATE = 3.0  # the Gaussian window ends at this many σ
_GAMMA = np.float32(2.2)
_EVERYWHERE = slice(None)


class Blur(Protocol):
    """A blur with one kernel per pixel.

    Operands are cut out of an image padded by `radius`, so that any region can be computed alone.
    """

    function: str
    spread: np.ndarray
    radius: int

    def operands(self, rows: slice, columns: slice = _EVERYWHERE) -> tuple[np.ndarray, ...]:
        """Return what the library function takes for these output pixels, kernels last."""

    def correlate(self, *operands: np.ndarray) -> np.ndarray:
        """Call the library function."""

    def channels_first(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return operands or results in the layout that unfold asks for."""

    def picture(self, result: np.ndarray) -> np.ndarray:
        """Return a result as a picture (H, W, 3) in 0…1."""


class IntensityBlur:
    """Equation (2): Gaussian kernels with σ = σ_max · intensity, through `modulated_correlate`.

    The modulation d[m,n,i,j] holds the Gaussians, each normalised; w is the identity between
    the channels at every tap.
    """

    function = "modulated_correlate"

    def __init__(self, colours: np.ndarray, sigma_max: float) -> None:
        luma = np.array([0.2126, 0.7152, 0.0722], np.float32)
        self.spread = np.float32(sigma_max) * (colours @ luma)
        self.radius = max(1, int(_TRUNCATE * sigma_max + 0.5))
        side = 2 * self.radius + 1
        self._weights = np.tile(np.eye(3, dtype=np.float32)[:, :, None, None], (1, 1, side, side))
        self._image = _padded(np.ascontiguousarray(np.moveaxis(colours, -1, 0)), self.radius, (1, 2))

    def operands(self, rows: slice, columns: slice = _EVERYWHERE) -> tuple[np.ndarray, ...]:
        """Return image, weights and modulation."""
        spread = self.spread[rows, columns]
        across = (slice(None), *_window(rows, columns, self.radius))
        return self._image[across], self._weights, gaussian_kernels(spread, self.radius)

    def correlate(self, *operands: np.ndarray) -> np.ndarray:
        """Call `modulated_correlate`."""
        image, weights, modulation = operands
        return cuvarconv.modulated_correlate(image, weights, modulation, mode="valid")

    def channels_first(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the arrays, which already are."""
        return arrays

    def picture(self, result: np.ndarray) -> np.ndarray:
        """Move the channels last."""
        return np.clip(np.moveaxis(result, 0, -1), 0, 1)


class DepthBlur:
    """Depth of field: discs as large as the circle of confusion, through `correlate`.

    For a thin lens the circle's radius is proportional to abs(disparity − focus).  What counts is
    the disc of the light's source, hence the kernel of a pixel asks each neighbour how far that one
    spreads; what lies behind the pixel reaches no farther than the pixel's own disc.  Works in
    linear light and on channels-last pictures.
    """

    function = "correlate"

    def __init__(
        self, colours: np.ndarray, disparity: np.ndarray, focus: float | None, disc_max: float
    ) -> None:
        height, width = disparity.shape
        middle = disparity[height // 3 : -(height // 3) or None, width // 3 : -(width // 3) or None]
        self.focus = float(np.median(middle)) if focus is None else focus
        distance = np.abs(disparity - np.float32(self.focus))
        farthest = float(distance.max())
        self.spread = distance * np.float32(disc_max / farthest if farthest else 0)
        self.radius = int(np.ceil(disc_max))
        self._image = _padded(colours**_GAMMA, self.radius, (0, 1))
        self._reach = _padded(self.spread, self.radius, (0, 1))
        self._disparity = _padded(disparity, self.radius, (0, 1))

    def operands(self, rows: slice, columns: slice = _EVERYWHERE) -> tuple[np.ndarray, ...]:
        """Return image and kernels; the kernels' last axis meets the colours."""
        window = _window(rows, columns, self.radius)
        kernels = disc_kernels(self._reach[window], self._disparity[window], self.radius)
        return self._image[window], kernels[..., None]

    def correlate(self, *operands: np.ndarray) -> np.ndarray:
        """Call `correlate`."""
        image, kernels = operands
        return cuvarconv.correlate(image, kernels, mode="valid", axes=(0, 1))

    def channels_first(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Move the colours before the image axes, and drop the kernels' axis for them."""
        image, *kernels = arrays
        return np.moveaxis(image, -1, 0), *(k[..., 0] for k in kernels)

    def picture(self, result: np.ndarray) -> np.ndarray:
        """Go back from linear light."""
        return np.clip(result, 0, 1) ** (1 / _GAMMA)


def gaussian_kernels(sigma: np.ndarray, radius: int) -> np.ndarray:
    """Make normalised Gaussians (2r+1, 2r+1, H, W) for a σ map (H, W); σ = 0 is the identity."""
    taps = np.arange(-radius, radius + 1, dtype=np.float32)[:, None, None]
    one_axis = np.exp(-0.5 * (taps / np.maximum(sigma, np.float32(1e-3))) ** 2)
    one_axis /= one_axis.sum(axis=0)
    return one_axis[:, None] * one_axis[None, :]


def disc_kernels(reach: np.ndarray, disparity: np.ndarray, radius: int) -> np.ndarray:
    """Make normalised kernels (2r+1, 2r+1, H, W) from maps padded by r on each side.

    Tap (m, n) is the share of the neighbour's disc that falls on the pixel.
    """
    side = 2 * radius + 1
    height, width = reach.shape[0] - 2 * radius, reach.shape[1] - 2 * radius
    inside = slice(radius, radius + height), slice(radius, radius + width)
    own_reach, own_disparity = reach[inside], disparity[inside]
    kernels = np.empty((side, side, height, width), np.float32)
    for m in range(side):
        for n in range(side):
            there = slice(m, m + height), slice(n, n + width)
            limit = np.where(disparity[there] < own_disparity, own_reach, np.inf)
            disc = np.minimum(reach[there], limit)
            distance = np.float32(np.hypot(m - radius, n - radius))
            kernels[m, n] = np.clip(disc + np.float32(0.5) - distance, 0, 1)
            kernels[m, n] /= np.maximum(disc, np.float32(0.5)) ** 2
    kernels /= kernels.sum(axis=(0, 1))
    return kernels


def unfold_formula(function: str) -> tuple[str, Callable[..., Any], Callable[..., Any]]:
    """Return how people compute it today: a name, what makes operands for it, and the formula.

    Operands are the image (C, H + 2r, W + 2r), for equation (2) the weights, and the kernels.
    """
    formulas: dict[str, Callable[..., Any]]
    if find_spec("torch") is None:
        formulas = {"modulated_correlate": _numpy_modulated, "correlate": _numpy_per_pixel}
        return "NumPy unfold", np.ascontiguousarray, formulas[function]
    import torch

    formulas = {"modulated_correlate": _torch_modulated, "correlate": _torch_per_pixel}
    return (
        "torch unfold",
        lambda array: torch.tensor(np.ascontiguousarray(array)),
        formulas[function],
    )


def _torch_modulated(image: Any, weights: Any, modulation: Any) -> Any:
    columns = _torch_columns(image, modulation) * modulation.flatten(2).flatten(0, 1)
    result = weights.flatten(1) @ columns.flatten(0, 1)
    return result.view(-1, *modulation.shape[2:])


def _torch_per_pixel(image: Any, kernels: Any) -> Any:
    columns = _torch_columns(image, kernels) * kernels.flatten(2).flatten(0, 1)
    return columns.sum(dim=1).view(-1, *kernels.shape[2:])


def _torch_columns(image: Any, kernels: Any) -> Any:
    from torch.nn.functional import unfold

    size = kernels.shape[:2]
    return unfold(image[None], size).view(image.shape[0], size[0] * size[1], -1)


def _numpy_modulated(image: np.ndarray, weights: np.ndarray, modulation: np.ndarray) -> np.ndarray:
    columns = _numpy_columns(image, modulation) * modulation
    result = weights.reshape(len(weights), -1) @ columns.reshape(weights[0].size, -1)
    return result.reshape(-1, *modulation.shape[2:])


def _numpy_per_pixel(image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    return (_numpy_columns(image, kernels) * kernels).sum(axis=(1, 2))


def _numpy_columns(image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(image, kernels.shape[:2], axis=(1, 2))
    return np.ascontiguousarray(windows.transpose(0, 3, 4, 1, 2))  # the copies that unfold makes


def _padded(image: np.ndarray, radius: int, axes: tuple[int, int]) -> np.ndarray:
    """Continue an image as mode "reflect" does."""
    widths = [(radius, radius) if axis in axes else (0, 0) for axis in range(image.ndim)]
    return np.pad(image, widths, mode="symmetric")


def _window(rows: slice, columns: slice, radius: int) -> tuple[slice, slice]:
    """Return the part of a padded image that these outputs read."""
    rows = slice(rows.start, rows.stop + 2 * radius)
    if columns != _EVERYWHERE:
        columns = slice(columns.start, columns.stop + 2 * radius)
    return rows, columns
