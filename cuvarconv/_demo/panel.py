"""The demo's picture: what goes in, the map of the blur and what comes out, a row for each blur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cuvarconv._demo.pictures import INSTALL, DemoError, reason

_TITLE, _GAP, _BAR = 0.36, 0.12, 0.5  # inches
_FRAMES = ("#ffd21f", "#25d8ff")
Corner = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """One blur: its picture, the map of its width, the result, and the disparity behind the map."""

    before: np.ndarray
    spread: np.ndarray
    after: np.ndarray
    titles: tuple[str, str, str]
    disparity: np.ndarray | None = None


def check_matplotlib() -> None:
    """Complain early where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise DemoError(f"matplotlib draws the panel: {INSTALL}") from None


def draw(
    rows: Sequence[Row],
    path: Path,
    *,
    width: float,
    zoom: bool = True,
    dpi: int = 130,
    **saving: Any,
) -> None:
    """Draw the rows below each other, images `width` inches wide, and write the file."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height_pixels, width_pixels = rows[0].spread.shape
    height = width * min(max(height_pixels / width_pixels, 0.4), 1.8)
    lefts = [_GAP, width + 2 * _GAP, 2 * width + 2 * _GAP + _BAR, 3 * width + 3 * _GAP + _BAR]
    figure_width = lefts[3] + (width + _GAP if zoom else 0)
    figure_height = len(rows) * (height + _TITLE) + _GAP
    figure = Figure((figure_width, figure_height), dpi=dpi)
    FigureCanvasAgg(figure)

    def axes(left: float, bottom: float, wide: float, high: float) -> Any:
        position = (
            left / figure_width,
            bottom / figure_height,
            wide / figure_width,
            high / figure_height,
        )
        return figure.add_axes(position)

    for number, row in enumerate(rows):
        bottom = figure_height - (number + 1) * (height + _TITLE)
        cells = [axes(left, bottom, width, height) for left in lefts[:3]]
        bar = axes(lefts[1] + width + 0.5 * _GAP, bottom, 0.12, height)
        _draw_row(row, cells, bar)
        if zoom:
            half = (width - 0.5 * _GAP) / 2, (height - 0.5 * _GAP) / 2
            across, up = lefts[3] + half[0] + 0.5 * _GAP, bottom + half[1] + 0.5 * _GAP
            corners = (lefts[3], up), (across, up), (lefts[3], bottom), (across, bottom)
            _draw_zooms(row, cells, [axes(*corner, *half) for corner in corners])
    try:
        figure.savefig(path, **saving)
    except OSError as error:
        raise DemoError(f"cannot write {path}: {reason(error)}") from None


def _draw_row(row: Row, cells: Sequence[Any], bar: Any) -> None:
    for axes, title in zip(cells, row.titles, strict=True):
        axes.set_title(title, fontsize=12, pad=5)
        axes.set_axis_off()
    if row.disparity is None:
        cells[0].imshow(_shown(row.before))
    else:
        cells[0].imshow(row.disparity, cmap="viridis")
    top = max(float(row.spread.max()), 1e-6)
    scale = bar.figure.colorbar(cells[1].imshow(row.spread, cmap="magma", vmin=0, vmax=top), cax=bar)
    scale.outline.set_visible(False)
    bar.tick_params(labelsize=10, length=2, pad=2)
    cells[2].imshow(_shown(row.after))


def _draw_zooms(row: Row, cells: Sequence[Any], zooms: Sequence[Any]) -> None:
    """Show two places, before and after, and frame them in the images."""
    from matplotlib.patches import Rectangle

    height, width = (max(1, length // 5) for length in row.spread.shape)
    pairs = (zooms[:2], zooms[2:])
    for pair, colour, (top, left) in zip(pairs, _FRAMES, _places(row, (height, width)), strict=True):
        for cell in cells:
            frame = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, ec=colour, lw=1.6)
            cell.add_patch(frame)
        for zoom, image in zip(pair, (row.before, row.after), strict=True):
            part = image[top : top + height, left : left + width]
            zoom.imshow(_shown(part), interpolation="bicubic", aspect="auto")
            zoom.set(xticks=(), yticks=())
            for spine in zoom.spines.values():
                spine.set(color=colour, linewidth=1.6)
    for zoom, title in zip(zooms, ("before", "after"), strict=False):
        zoom.set_title(title, fontsize=12, pad=5)


def _places(row: Row, size: tuple[int, int]) -> list[Corner]:
    """Find where the blur takes most away, and where much detail meets little blur."""
    from scipy.ndimage import gaussian_gradient_magnitude, uniform_filter

    grey = [image.mean(axis=-1) for image in (row.before, row.after)]
    detail = [gaussian_gradient_magnitude(image, 1.0) for image in grey]
    before, after = (uniform_filter(image, size) for image in detail)
    first = _best(before - after, size)
    rows, columns = np.indices(after.shape)
    beside = (abs(rows - first[0] - size[0] // 2) >= size[0]) | (
        abs(columns - first[1] - size[1] // 2) >= size[1]
    )
    sharp = 1 - uniform_filter(row.spread, size) / max(float(row.spread.max()), 1e-6)
    return [first, _best(beside * after * sharp**3, size)]


def _best(score: np.ndarray, size: tuple[int, int]) -> Corner:
    """Return the corner of the window, wholly inside, around the best score."""
    top, left = size[0] // 2, size[1] // 2
    inner = score[top : score.shape[0] - (size[0] - top) + 1, left : score.shape[1] - (size[1] - left) + 1]
    row, column = np.unravel_index(int(inner.argmax()), inner.shape)
    return int(row), int(column)


def _shown(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
