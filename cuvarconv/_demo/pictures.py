"""Pictures of the demo: reading what users have, and writing results."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

INSTALL = "pip install 'cuvarconv[demo]'"


class DemoError(Exception):
    """What the user's input causes, in one line."""


@dataclass(frozen=True)
class Picture:
    """A photograph (H, W, 3), float32 in 0…1, and its disparity (H, W) in pixels, where known."""

    name: str
    colours: np.ndarray
    disparity: np.ndarray | None
    original_size: tuple[int, int]


def load(image: Path | None, disparity: Path | None, size: int) -> Picture:
    """Read the user's picture, or scikit-image's motorcycle; shrink what is longer than `size`."""
    depth: np.ndarray | None
    if image is None:
        if disparity is not None:
            raise DemoError("--disparity needs the IMAGE that it belongs to")
        name, (colours, depth) = "stereo motorcycle", _motorcycle()
    else:
        name, colours = image.name, _read_colours(image)
        depth = None if disparity is None else _read_disparity(disparity)
    original = colours.shape[:2]
    height, width = _shrunk(original, size)
    colours = _resized(colours, (height, width))
    if colours.dtype == np.uint8:
        colours = colours.astype(np.float32) / np.float32(255)
    if depth is not None:
        depth_name = str(disparity or name)
        if abs(depth.shape[0] / depth.shape[1] * original[1] / original[0] - 1) > 0.02:
            raise DemoError(
                f"the disparity of {depth_name}, {depth.shape[1]} × {depth.shape[0]} pixels, "
                f"does not fit the picture, {original[1]} × {original[0]} pixels"
            )
        depth = _filled(_nearest(depth, (height, width)), depth_name)
    return Picture(name, colours, depth, original)


def save(path: Path, colours: np.ndarray) -> None:
    """Write a picture (H, W, 3), 0…1, as 8-bit PNG."""
    pillow = _pillow()
    eight_bit = np.clip(colours * 255 + 0.5, 0, 255).astype(np.uint8)
    try:
        pillow.fromarray(eight_bit).save(path)
    except OSError as error:
        raise DemoError(f"cannot write {path}: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DemoError(f"Pillow reads and writes the pictures: {INSTALL}") from None
    return Image


def _motorcycle() -> tuple[np.ndarray, np.ndarray]:
    try:
        from skimage.data import stereo_motorcycle
    except ImportError:
        raise DemoError(
            f"the default photograph comes with scikit-image: {INSTALL}, or name an IMAGE"
        ) from None
    left, _, disparity = stereo_motorcycle()
    return left, disparity


def _read_colours(path: Path) -> np.ndarray:
    """Read (H, W, 3): uint8 from 8-bit files, float32 in 0…1 from deeper ones."""
    pillow = _pillow()
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with _no_warnings(), pillow.open(path) as file:
            if file.mode == "F" or file.mode.startswith("I"):
                return _unit_range(np.asarray(ImageOps.exif_transpose(file)))
            return _on_white(ImageOps.exif_transpose(file))
    except UnidentifiedImageError:
        if path.suffix.lower() in (".tif", ".tiff"):
            return _read_deep_tiff(path)
        raise DemoError(f"cannot read {path}: not a picture file that Pillow knows") from None
    except FileNotFoundError:
        raise DemoError(f"cannot read {path}: no such file") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders fail on broken files with many kinds of errors
        raise DemoError(f"cannot read {path}: {reason(error)}") from None


def _on_white(file: Any) -> np.ndarray:
    if "A" in file.getbands() or "transparency" in file.info:
        file = file.convert("RGBA")
        white = _pillow().new("RGBA", file.size, "white")
        file = _pillow().alpha_composite(white, file)
    return np.asarray(file.convert("RGB"))


def _read_deep_tiff(path: Path) -> np.ndarray:
    """Read TIFF files with 16 bits per colour or floats, which Pillow does not know."""
    try:
        from tifffile import imread

        with _no_warnings():
            values = np.asarray(imread(path, key=0))
    except ImportError:
        raise DemoError(f"cannot read {path}: tifffile reads this kind of TIFF: {INSTALL}") from None
    except MemoryError:
        raise
    except Exception as error:
        raise DemoError(f"cannot read {path}: {reason(error)}") from None
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise DemoError(f"cannot read {path}: expected (H, W) or (H, W, C), got {values.shape}")
    return _unit_range(values)


def _unit_range(values: np.ndarray) -> np.ndarray:
    """Grey or colour values of any type as (H, W, 3), float32 in 0…1."""
    if values.dtype.kind not in "buif":
        raise DemoError(f"cannot use pixels of type {values.dtype}")
    scaled = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if values.dtype.kind == "u":
        scaled /= np.float32(np.iinfo(values.dtype).max)
    else:  # signed and floating: Pillow holds 16-bit files as int32, scientific files hold anything
        top = float(scaled.max(initial=0.0))
        scaled /= np.float32(65535 if values.dtype.kind == "i" and 255 < top <= 65535 else max(top, 1))
    scaled = np.clip(scaled, 0, 1)
    if scaled.ndim == 2:
        scaled = scaled[..., None]
    return np.repeat(scaled[..., :1], 3, axis=-1) if scaled.shape[-1] < 3 else scaled[..., :3]


def _read_disparity(path: Path) -> np.ndarray:
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with _no_warnings(), _pillow().open(path) as file:
                values = np.asarray(file.convert("L") if file.mode in ("P", "RGB", "RGBA") else file)
    except FileNotFoundError:
        raise DemoError(f"cannot read {path}: no such file") from None
    except DemoError:
        raise
    except Exception as error:
        raise DemoError(f"cannot read {path}: {reason(error)}") from None
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "uif":
        raise DemoError(
            f"cannot use {path}: expected numbers of shape (H, W), got {values.dtype} of shape {values.shape}"
        )
    return values


def _filled(disparity: np.ndarray, name: str) -> np.ndarray:
    """Fill what stereo could not see with the farther of the nearest known values on its row.

    A pixel without disparity is mostly background that something nearer hides from one camera.
    """
    known = np.isfinite(disparity) & (disparity > 0)
    if not known.any():
        raise DemoError(f"cannot use the disparity of {name}: no value is finite and above 0")
    columns = np.broadcast_to(np.arange(disparity.shape[1]), disparity.shape)
    left = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    last = disparity.shape[1]
    right = np.minimum.accumulate(np.where(known, columns, last)[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(
        np.where(known, disparity, 0).astype(np.float32), ((0, 0), (1, 1)), constant_values=np.inf
    )
    filled = np.minimum(
        np.take_along_axis(padded, left + 1, axis=1), np.take_along_axis(padded, right + 1, axis=1)
    )
    empty = ~known.any(axis=1)
    if empty.any():
        rows = np.flatnonzero(~empty)
        nearest = rows[np.abs(np.flatnonzero(empty)[:, None] - rows).argmin(axis=1)]
        filled[empty] = filled[nearest]
    return filled


def _shrunk(shape: tuple[int, int], size: int) -> tuple[int, int]:
    factor = min(1.0, size / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _resized(colours: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if colours.shape[:2] == shape:
        return colours
    pillow = _pillow()
    planes = []
    for c in range(3):
        plane = pillow.fromarray(np.ascontiguousarray(colours[..., c]))
        planes.append(np.asarray(plane.resize(shape[::-1], pillow.Resampling.BOX)))
    return np.stack(planes, axis=-1)


def _nearest(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pick the values nearest to each pixel: means would invent depths between two things."""
    rows, columns = ((np.arange(n) + 0.5) * have / n for n, have in zip(shape, values.shape, strict=True))
    return values[rows.astype(np.intp)[:, None], columns.astype(np.intp)]


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
