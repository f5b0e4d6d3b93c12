"""Make the pictures of the README and of docs/: ``python docs/make_images.py`` writes docs/images/."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from PIL import Image

import cuvarconv
from cuvarconv._demo import blurred, panel_row
from cuvarconv._demo.blurs import DepthBlur, IntensityBlur
from cuvarconv._demo.filters import draw_filtered, filtered
from cuvarconv._demo.panel import draw
from cuvarconv._demo.pictures import load

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
ORANGE, BLUE, GREY = "#d9720b", "#2468b0", "#8a8a8a"
TITLE, TEXT = 14, 12  # sizes of letters
sys.path.append(str(ROOT / "examples"))  # for lens and deblur


def main() -> int:
    """Draw everything."""
    IMAGES.mkdir(exist_ok=True)
    variant_blur(IMAGES / "variant_blur.jpg")
    diagram(IMAGES / "gather_scatter.png")
    lights(IMAGES / "gather_scatter_lights.png")
    depth_edges(IMAGES / "gather_scatter_edges.png")
    deblurred(IMAGES / "deblurred.jpg")
    filters(IMAGES / "filters.jpg")
    depth_of_field(IMAGES / "depth_of_field.jpg")
    for path in sorted(IMAGES.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


def variant_blur(path: Path) -> None:
    """Draw both blurs of the motorcycle, without zooms."""
    picture = load(None, None, size=1024)
    assert picture.disparity is not None
    blurs = (
        IntensityBlur(picture.colours, sigma_max=6.0),
        DepthBlur(picture.colours, picture.disparity, focus=None, disc_max=9.0),
    )
    rows = [panel_row(picture, blur, blurred(blur)[0]) for blur in blurs]
    draw(rows, path, width=4.0, zoom=False, pil_kwargs={"quality": 85, "optimize": True})


def filters(path: Path) -> None:
    """Draw the demo's filters, smaller."""
    shown = list(filtered(load(None, None, size=640), sigma_max=5.0))
    draw_filtered(shown, path, width=3.5, pil_kwargs={"quality": 80, "optimize": True})


def depth_of_field(path: Path) -> None:
    """Blur the background behind the handlebar three ways, in linear light: gather, scatter, with a guide."""
    picture = load(None, None, size=741)
    assert picture.disparity is not None
    part = slice(60, 230), slice(420, 690)
    light, disparity = picture.colours[part] ** np.float32(2.2), picture.disparity[part]
    nearest = np.percentile(disparity, 95)
    distance = np.maximum(nearest - disparity, 0)
    sigma = (4.0 * distance / distance.max()).astype(np.float32)
    kernels = cuvarconv.gaussian_weights(sigma, truncate=3.0).astype(np.float32)[..., None]
    pictures = {
        "photograph": light,
        "gather: gaussian_filter": cuvarconv.gaussian_filter(
            light, sigma[..., None], truncate=3.0, axes=(0, 1)
        ),
        "scatter: spread, light over what arrived": cuvarconv.spread(light, kernels, axes=(0, 1))
        / cuvarconv.spread(np.ones_like(light), kernels, axes=(0, 1)),
        "gather with the disparity as guide: bilateral_filter": cuvarconv.bilateral_filter(
            light, sigma, 2.0, guide=disparity[..., None], channel_axis=-1, truncate=3.0
        ),
    }
    figure = Figure((13, 8.6), layout="compressed", dpi=110)
    for axes, (title, linear) in zip(figure.subplots(2, 2).flat, pictures.items(), strict=True):
        axes.imshow(np.clip(linear, 0, 1) ** (1 / 2.2))
        axes.set_title(title, fontsize=TITLE)
        axes.set_axis_off()
    figure.savefig(path, pil_kwargs={"quality": 85, "optimize": True})


def deblurred(path: Path) -> None:
    """Run the example, and keep its picture as a smaller file."""
    from deblur import main as deblur

    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "deblurred.png"
        assert deblur(["--output", str(drawn)]) == 0
        with Image.open(drawn) as picture:
            picture.convert("RGB").save(path, quality=80, optimize=True)


# ---- the diagram ---------------------------------------------------------------------------------

CELLS = 5
GAP = 3.0  # cells between an input and its output
WEIGHTS = ("¼", "½", "¼")
PIXELS = {  # a colour, where in its cells numbers and arrows go, and the window, its middle being the pixel
    "A": (ORANGE, (0.28, 0.36), ((0, 1), (1, 2), (2, 3))),
    "B": (BLUE, (0.74, 0.6), ((1, 3), (2, 3), (3, 3))),
}


def diagram(path: Path) -> None:
    """Draw both models on small grids: pixel A has a slanting kernel, pixel B an upright one."""
    figure = Figure((14, 4.3), dpi=110)
    left, right = figure.subplots(
        1, 2, gridspec_kw={"left": 0.01, "right": 0.99, "top": 0.9, "bottom": 0.02, "wspace": 0.08}
    )
    left.set_title("gather: correlate", fontsize=TITLE + 4)
    _model(left, scatter=False)
    _caption(left, "each OUTPUT pixel collects with its own kernel", "y[i] = Σ k[m, i] · x[i + m]")
    right.set_title("scatter: spread", fontsize=TITLE + 4)
    _model(right, scatter=True)
    formula = "y[i + m]  gets  k[m, i] · x[i]  from each i"
    _caption(right, "each INPUT pixel is spread by its own kernel", formula)
    figure.savefig(path)


def _model(axes: Any, scatter: bool) -> None:
    """Draw an input, an output and the arrows between them."""
    output = CELLS + GAP
    for shift, name in ((0.0, "input x"), (output, "output y")):
        for i, j in np.ndindex(CELLS, CELLS):
            axes.add_patch(Rectangle((j + shift, i), 1, 1, fc="white", ec=GREY, lw=0.8))
        axes.text(shift + CELLS / 2, -0.15, name, ha="center", va="bottom", fontsize=TEXT + 2)
    owners, taps = (0.0, output) if scatter else (output, 0.0)
    for name, (colour, (text, level), window) in PIXELS.items():
        row, column = window[1]
        axes.add_patch(Rectangle((column + owners, row), 1, 1, fc=colour, ec="black", lw=1.2))
        axes.text(column + owners + 0.5, row + 0.5, name, **_LETTER, color="white", fontsize=TITLE + 1)
        owner = (column + owners + scatter, row + 0.5)
        for weight, (i, j) in zip(WEIGHTS, window, strict=True):
            axes.add_patch(Polygon(np.add(_share(name, i, j), (taps, 0)), fc=colour, ec="none", alpha=0.3))
            axes.text(j + taps + text, i + text, weight, **_LETTER, color=colour, fontsize=TEXT + 1)
            tap = (j + taps + (not scatter), i + level)
            look = _ARROW | {"color": colour, "lw": 2.8 if weight == "½" else 1.4}
            start, end = (owner, tap) if scatter else (tap, owner)
            axes.annotate("", end, start, arrowprops=look, zorder=3)
    axes.set(xlim=(-0.1, 2 * CELLS + GAP + 0.1), ylim=(CELLS + 1.6, -0.6), aspect="equal")
    axes.set_axis_off()


_LETTER = {"ha": "center", "va": "center", "weight": "bold"}
_ARROW = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}


def _share(name: str, i: int, j: int) -> np.ndarray:
    """Return the corners (x, y) of a cell, or of A's or B's half where both have a tap there."""
    corners = np.array([(j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1)])
    if all((i, j) in window for _, _, window in PIXELS.values()):
        return corners[[0, 1, 3] if name == "A" else [1, 2, 3]]
    return corners


def _caption(axes: Any, words: str, formula: str) -> None:
    middle = CELLS + GAP / 2
    axes.text(middle, CELLS + 0.55, words, ha="center", va="center", fontsize=TEXT + 2)
    axes.text(middle, CELLS + 1.2, formula, ha="center", va="center", fontsize=TEXT + 2, family="monospace")


# ---- point lights through a lens -----------------------------------------------------------------


def lights(path: Path, spacing: int = 36, grid: tuple[int, int] = (3, 5)) -> None:
    """Send equal point lights through a lens with coma, in three ways, and write what arrives of each."""
    from lens import lens_psfs

    sky = np.zeros([spacing * n for n in grid], np.float32)
    sky[spacing // 2 :: spacing, spacing // 2 :: spacing] = 1
    psfs = lens_psfs(sky.shape, coma=16, defocus=0.5, rays=56)
    results = {
        "spread: what the lens does": cuvarconv.spread(sky, psfs, mode="constant"),
        "convolve: gathered": cuvarconv.convolve(sky, psfs, mode="constant"),
        "correlate: gathered, and turned around": cuvarconv.correlate(sky, psfs, mode="constant"),
    }
    figure = Figure((14, 3.15), layout="constrained", dpi=110)
    top = max(result.max() for result in results.values())
    for axes, (title, result) in zip(figure.subplots(1, 3), results.items(), strict=True):
        axes.imshow((result / top) ** 0.4, cmap="gray", vmin=0, vmax=0.8)
        axes.set_title(title, fontsize=TITLE)
        axes.set_axis_off()
        sums = result.reshape(grid[0], spacing, grid[1], spacing).sum(axis=(1, 3))
        for (i, j), total in np.ndenumerate(sums):
            colour = "#9be29b" if abs(total - 1) < 0.005 else "#ffb45e"
            place = (spacing * (j + 0.5), spacing * (i + 1) - 1)
            axes.text(*place, f"{total:.2f}", ha="center", va="bottom", fontsize=TEXT - 1, color=colour)
    figure.savefig(path)


# ---- edges of depth ------------------------------------------------------------------------------


def depth_edges(path: Path) -> None:
    """Blur a bright disc before a background, first the one out of focus, then the other."""
    figure = Figure((14, 5.2), layout="constrained", dpi=110)
    cells = figure.subplots(2, 4, width_ratios=(1, 1, 1, 1.3))
    for row, (label, scene, reach) in zip(cells, _scenes(), strict=True):
        kernels = disc_kernels(reach)
        pictures = {
            "scene": scene,
            "gather": cuvarconv.correlate(scene, kernels),
            "scatter": cuvarconv.spread(scene, kernels),
        }
        middle = scene.shape[0] // 2
        for axes, (name, picture), style in zip(row[:3], pictures.items(), _STYLES, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes.axhline(middle, color="#ffd21f", lw=0.8, ls=":")
            axes.set(xticks=(), yticks=())
            row[3].plot(picture[middle], label=name, **style)
        row[0].set_ylabel(label, fontsize=TITLE - 1)
        row[3].tick_params(labelsize=TEXT - 2)
        row[3].set_ylim(0, 1.05)
    titles = ("scene", "gather: correlate", "scatter: spread", "along the dotted line")
    for axes, title in zip(cells[0], titles, strict=True):
        axes.set_title(title, fontsize=TITLE)
    cells[1, 3].legend(fontsize=TEXT - 2, loc="upper right")
    figure.savefig(path)


_STYLES = (
    {"color": GREY, "lw": 1, "ls": "--"},
    {"color": ORANGE, "lw": 2},
    {"color": BLUE, "lw": 2},
)


def _scenes(shape: tuple[int, int] = (110, 150), width: float = 10.0) -> Iterator[tuple[str, Any, Any]]:
    """Give two scenes, each with the radius of the blur at each pixel."""
    rows, columns = np.indices(shape)
    disc = np.hypot(rows - 55, columns - 62) < 30
    lamps = np.zeros(shape)
    for row, column in ((30, 110), (55, 122), (84, 108), (18, 20), (95, 24)):
        lamps[abs(rows - row) + abs(columns - column) < 4] = 1
    yield "disc in focus", np.where(disc, 0.8, 0.12 + 0.88 * lamps), np.where(disc, 0, width)
    boards = 0.1 + 0.15 * ((columns // 10 + rows // 10) % 2)
    yield "background in focus", np.where(disc, 0.8, boards), np.where(disc, width, 0)


def disc_kernels(reach: np.ndarray) -> np.ndarray:
    """Make normalised discs, (k, k, H, W), from a map of radii."""
    taps = np.arange(-int(np.ceil(reach.max())), int(np.ceil(reach.max())) + 1)
    distance = np.hypot(taps[:, None], taps)[..., None, None]
    kernels = np.clip(reach + 0.5 - distance, 0, 1)
    return kernels / kernels.sum(axis=(0, 1))


if __name__ == "__main__":
    sys.exit(main())
