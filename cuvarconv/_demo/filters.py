"""The demo's filters that adapt to the image: σ maps, joint bilateral weights, missing pixels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cuvarconv
from cuvarconv._demo.pictures import DemoError, Picture, reason

_IMAGE_AXES = (0, 1)
_GAMMA = np.float32(2.2)
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_KNOWN = 0.2  # of the pixels, where the others are missing
_COARSE = 8  # pixels of the picture, along each axis, for one of the coarse disparity map


@dataclass(frozen=True)
class Filtered:
    """What a filter was given and what it made, pictures (H, W, 3) or maps (H, W), and how long it took."""

    title: str
    function: str
    before: np.ndarray
    after: np.ndarray
    seconds: float


def filtered(picture: Picture, sigma_max: float) -> Iterator[Filtered]:
    """Apply each filter to the picture; those that need its disparity only where that is known."""
    rng = np.random.default_rng(0)
    colours = picture.colours
    yield _timed("blur by intensity", "gaussian_filter", colours, lambda: by_intensity(colours, sigma_max))
    yield _timed("foveated view", "gaussian_filter", colours, lambda: foveated(colours, sigma_max))
    holes = np.where(rng.random(colours.shape[:2]) < _KNOWN, 1, np.nan).astype(np.float32)
    missing = colours * holes[..., None]
    yield _timed(
        f"{100 * (1 - _KNOWN):.0f} % of the pixels missing",
        "normalized_correlate",
        np.nan_to_num(missing),
        lambda: filled(missing),
    )
    if picture.disparity is not None:
        disparity = picture.disparity
        yield _timed(
            "depth of field",
            "bilateral_filter",
            colours,
            lambda: depth_of_field(colours, disparity, sigma_max),
        )
        yield _timed(
            f"disparity, known at one of {_COARSE**2} pixels",
            "bilateral_filter",
            coarse(disparity),
            lambda: upsampled(disparity, colours),
        )


def _timed(title: str, function: str, before: np.ndarray, make: Callable[[], np.ndarray]) -> Filtered:
    start = time.perf_counter()
    after = make()
    return Filtered(title, function, before, after, time.perf_counter() - start)


def by_intensity(colours: np.ndarray, sigma_max: float) -> np.ndarray:
    """Blur bright pixels, and leave dark ones as they are."""
    sigma = np.float32(sigma_max) * (colours @ _LUMA)
    return cuvarconv.gaussian_filter(colours, sigma[..., None], axes=_IMAGE_AXES)


def foveated(colours: np.ndarray, sigma_max: float) -> np.ndarray:
    """Blur as an eye that looks at the middle sees: σ grows with the distance from there."""
    height, width = colours.shape[:2]
    down, across = np.ogrid[:height, :width]
    distance = np.hypot(down - (height - 1) / 2, across - (width - 1) / 2) / max(height, width)
    sigma = (2 * sigma_max * np.maximum(distance - 0.1, 0)).astype(np.float32)
    return cuvarconv.gaussian_filter(colours, sigma[..., None], axes=_IMAGE_AXES)


def filled(missing: np.ndarray) -> np.ndarray:
    """Fill NaN with Gaussian means of what is known around it; known pixels stay."""
    weights = cuvarconv.gaussian_weights(1.5).astype(np.float32)
    means = cuvarconv.normalized_correlate(missing, weights, axes=_IMAGE_AXES)
    return np.where(np.isfinite(missing), missing, np.nan_to_num(means))


def depth_of_field(colours: np.ndarray, disparity: np.ndarray, sigma_max: float) -> np.ndarray:
    """Blur what is out of focus, in linear light; the disparity as guide keeps things apart."""
    height, width = disparity.shape
    focus = np.median(disparity[height // 3 : -(height // 3) or None, width // 3 : -(width // 3) or None])
    distance = np.abs(disparity - focus)
    sigma = np.float32(sigma_max) * distance / max(float(distance.max()), 1e-6)
    blurred = cuvarconv.bilateral_filter(
        colours**_GAMMA,
        sigma,
        0.05 * max(float(np.ptp(disparity)), 1e-6),
        guide=disparity[..., None],
        channel_axis=-1,
        truncate=2.5,
    )
    return np.clip(blurred, 0, 1) ** (1 / _GAMMA)


def samples(shape: tuple[int, int]) -> np.ndarray:
    """Flag the pixel in the middle of each square of a coarse map."""
    flags = np.zeros(shape, np.float32)
    flags[np.ix_(*(np.minimum(np.arange(0, n, _COARSE) + _COARSE // 2, n - 1) for n in shape))] = 1
    return flags


def coarse(disparity: np.ndarray) -> np.ndarray:
    """Show what is known, as large as the picture."""
    known = disparity[samples(disparity.shape) > 0]
    squares = tuple(-(-n // _COARSE) for n in disparity.shape)
    return known.reshape(squares)[np.ix_(*(np.arange(n) // _COARSE for n in disparity.shape))]


def upsampled(disparity: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Find a map anew from its samples, with the picture as guide: Σ w_s w_r d / Σ w_s w_r over them.

    Both sums are joint bilateral filters of images that are 0 but at the samples; the divisors of the
    two cancel (J. Kopf et al., "Joint bilateral upsampling", SIGGRAPH 2007).
    """
    known = samples(disparity.shape)
    total, count = (
        cuvarconv.bilateral_filter(
            image[..., None], 0.5 * _COARSE, 0.08, guide=colours, channel_axis=-1, radius=3 * _COARSE // 2
        )[..., 0]
        for image in (known * disparity, known)
    )
    return np.where(count > 0, total / np.maximum(count, np.finfo(np.float32).tiny), 0)


def draw_filtered(shown: Sequence[Filtered], path: Path, *, width: float = 5.0, **saving: Any) -> None:
    """Draw each filter's picture before and after, a row for each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = width * min(max(shown[0].before.shape[0] / shown[0].before.shape[1], 0.4), 1.8)
    figure = Figure((2 * width, len(shown) * (height + 0.35)), layout="compressed", dpi=110)
    FigureCanvasAgg(figure)
    cells = figure.subplots(len(shown), 2, squeeze=False)
    for (left, right), one in zip(cells, shown, strict=True):
        limits = {} if one.after.ndim == 3 else {"vmin": one.after.min(), "vmax": one.after.max()}
        for axes, image, title in ((left, one.before, one.title), (right, one.after, one.function)):
            axes.imshow(np.clip(image, 0, 1) if image.ndim == 3 else image, **limits)
            axes.set_title(title, fontsize=11)
            axes.set_axis_off()
    try:
        figure.savefig(path, **saving)
    except OSError as error:
        raise DemoError(f"cannot write {path}: {reason(error)}") from None
