"""y[c,p] = Σ_q w x[c,q] / Σ_q w, w = exp(−½|q − p|²/σ_s² − ½‖g(q) − g(p)‖²/σ_r²)."""

from __future__ import annotations

import numpy as np

from cuvarconv._blocks import Where, blocks, matching
from cuvarconv._cpu._likeness import Widths, centres, tap_rows
from cuvarconv._cpu._pairs import Tile, pair_rows
from cuvarconv._cpu._tiles import WORKSPACE, gather, store
from cuvarconv._cpu._workers import for_each
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_BLOCK = 1 << 15  # pixels or features; a block's arrays stay in the second-level cache
_WIDTH = 512  # of a block at most, so that it is not much wider than high
_BYTES = 16 << 20  # that a worker takes


def bilateral(
    input: np.ndarray,
    guide: np.ndarray,
    sigma_spatial: np.ndarray,
    sigma_range: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Weigh and sum over cache-sized blocks; pairs of pixels share their weight where all share the σ.

    `input` and `output` are (batch…, C, H, W), `guide` (batch…, features, H, W), the same array if the
    image is its own guide, and the σ (batch…, H_out, W_out), with axes of length 1 where they
    broadcast.  Radii are int(truncate·σ_s + 0.5), the window's for None; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    real = np.empty(0, dtype).real.dtype

    def block(where: Where) -> None:
        *batch, down, across = where
        planes = input[tuple(batch)]
        features = planes if guide is input else guide[batch_part(guide, batch)]
        spatial, likeness = (sigma[matching(sigma, where)] for sigma in (sigma_spatial, sigma_range))
        widths = Widths.of(spatial, likeness, window.rows.taps // 2, truncate, real)
        part = window.part(down, across)
        summed = _paired_sums if widths.shared and _fits(part, planes, features, dtype) else _mapped_sums
        result = summed(planes, features, part, widths, dtype)
        store(output[(*batch, slice(None), down, across)], result)

    channels = max(input.shape[-3], guide.shape[-3])
    shape = (*output.shape[:-3], *output.shape[-2:])
    for_each(block, pieces(shape, max(1, _BLOCK // channels)), most_workers=WORKSPACE // _BYTES)


def batch_part(operand: np.ndarray, batch: list[slice]) -> Where:
    """Return the part of (batch…, C, H, W), with axes that may broadcast, that meets a block's batch."""
    lengths = operand.shape[: len(batch)]
    return tuple(slice(None) if length == 1 else part for length, part in zip(lengths, batch, strict=True))


def pieces(shape: tuple[int, ...], elements: int) -> list[Where]:
    """Cut (…, H, W) into blocks that are not much wider than high."""
    across = blocks(shape[-1:], _WIDTH)
    longest = max((part.stop - part.start for (part,) in across), default=1)
    return [(*where, *part) for where in blocks(shape[:-1], max(1, elements // longest)) for part in across]


class Sums:
    """Σ w and Σ w x for every pixel of a block, summed row by row."""

    def __init__(self, weights: tuple[int, ...], pixels: tuple[int, ...], dtype: np.dtype) -> None:
        self.norm, self._norm_row = (np.zeros(weights, dtype.type(0).real.dtype) for _ in range(2))
        self.total, self._total_row = (np.zeros(pixels, dtype) for _ in range(2))
        self._product = np.empty(pixels, dtype)

    def add(self, weights: np.ndarray, pixels: np.ndarray, missing: np.ndarray | None = None) -> None:
        """Add a tap; the pixels (…, C, h, w) do not count where it is missing, whatever they are."""
        np.add(self._norm_row, weights, out=self._norm_row)
        np.multiply(pixels, weights[..., None, :, :], out=self._product)
        if missing is not None:
            np.copyto(self._product, 0, where=missing[..., None, :, :])
        np.add(self._total_row, self._product, out=self._total_row)

    def end_row(self) -> None:
        """Add up what has come since the last call."""
        for total, row in ((self.norm, self._norm_row), (self.total, self._total_row)):
            np.add(total, row, out=total)
            row[...] = 0

    def mean(self) -> np.ndarray:
        """Return Σ w x / Σ w."""
        return np.divide(self.total, self.norm[..., None, :, :], out=self.total)


def _fits(window: Window, planes: np.ndarray, features: np.ndarray, dtype: np.dtype) -> bool:
    """Whether a worker has room for the tile of a block and all that goes with it."""
    pixels = window.rows.span * window.columns.span
    return 4 * (planes[..., 0, 0].size + features[..., 0, 0].size) * pixels * dtype.itemsize <= _BYTES


def _paired_sums(
    planes: np.ndarray, features: np.ndarray, window: Window, widths: Widths, dtype: np.dtype
) -> np.ndarray:
    tile = Tile(*window.output_shape, window.rows.taps // 2)
    tables = window.rows.table(), window.columns.table()
    seen = tile.flat(gather(features, *tables, window.cval, widths.sharpness.dtype))
    pixels = seen if planes is features else tile.flat(gather(planes, *tables, window.cval, dtype))
    centre = tile.shifted(seen)
    own = np.add.reduce(centre - centre, axis=-3) + 1  # NaN where the guide is not finite
    outer = np.broadcast_shapes(own.shape[:-2], widths.sharpness.shape[:-2])
    sums = Sums((*outer, *own.shape[-2:]), (*pixels.shape[:-1], tile.length), dtype)
    sums.add(own, tile.shifted(pixels))
    for row in pair_rows(seen, tile, widths.sharpness, float(widths.falloff.reshape(()))):
        for pairs in row:
            for shift, weights in pairs.ends(pairs.weights):
                sums.add(weights, tile.shifted(pixels, shift))
        sums.end_row()
    return _unless_still(tile.picture(sums.mean()), tile.picture(tile.shifted(pixels)), widths)


def _mapped_sums(
    planes: np.ndarray, features: np.ndarray, window: Window, widths: Widths, dtype: np.dtype
) -> np.ndarray:
    shape = np.broadcast_shapes((*features.shape[:-3], *window.output_shape), widths.still.shape)
    sums = Sums(shape, (*planes.shape[:-2], *window.output_shape), dtype)
    for row in tap_rows(planes, features, window, widths, dtype):
        for tap in row:
            sums.add(tap.weights, tap.pixels, tap.missing)
        sums.end_row()
    return _unless_still(sums.mean(), centres(planes, window, dtype), widths)


def _unless_still(values: np.ndarray, own: np.ndarray, widths: Widths) -> np.ndarray:
    """Put each pixel's own value where a σ is 0."""
    if widths.still.any():
        np.copyto(values, own, where=widths.still[..., None, :, :])
    return values
