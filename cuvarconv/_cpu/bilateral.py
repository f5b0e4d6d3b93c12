"""y[c,p] = Σ_q w x[c,q] / Σ_q w, w = exp(−½|q − p|²/σ_s² − ½‖g(q) − g(p)‖²/σ_r²)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cuvarconv._blocks import Where, blocks, matching
from cuvarconv._cpu._likeness import Block, Tap, Widths
from cuvarconv._cpu._pairs import PairedBlock
from cuvarconv._cpu._tiles import WORKSPACE, store
from cuvarconv._cpu._workers import for_each
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

BLOCK = 1 << 16  # pixels or features
_WIDTH = 512  # of a block at most, so that it is not much wider than high
BYTES = 16 << 20  # that a worker takes


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
    filter = Filter(input, guide, sigma_spatial, sigma_range, window, truncate, accumulator_dtype(dtype))

    def block(where: Where) -> None:
        *batch, down, across = where
        outputs = filter.block(where)
        (sums,) = weighted_sums(outputs)
        mean, still = outputs.picture(sums.mean()), outputs.widths.still
        if still.any():
            np.copyto(mean, outputs.centres(), where=still[..., None, :, :])
        store(output[(*batch, slice(None), down, across)], mean)

    shape = (*output.shape[:-3], *output.shape[-2:])
    for_each(block, filter.pieces(shape), most_workers=WORKSPACE // BYTES)


@dataclass(frozen=True)
class Filter:
    """The operands of a call, as `bilateral` has them, and the dtype that sums have."""

    input: np.ndarray
    guide: np.ndarray
    sigma_spatial: np.ndarray
    sigma_range: np.ndarray
    window: Window
    truncate: float | None
    dtype: np.dtype

    @property
    def real(self) -> np.dtype:
        """The dtype of the weights."""
        return np.empty(0, self.dtype).real.dtype

    @property
    def radius(self) -> int:
        """How far the window reaches."""
        return self.window.rows.taps // 2

    def pieces(self, shape: tuple[int, ...]) -> list[Where]:
        """Cut (…, H, W) into blocks that are not much wider than high."""
        elements = max(1, BLOCK // max(self.input.shape[-3], self.guide.shape[-3]))
        across = blocks(shape[-1:], _WIDTH)
        longest = max((part.stop - part.start for (part,) in across), default=1)
        rows = blocks(shape[:-1], max(1, elements // longest))
        return [(*where, *part) for where in rows for part in across]

    def images(self, batch: list[slice]) -> tuple[np.ndarray, np.ndarray]:
        """Return the input and the guide of some samples; the same array if the image is its own guide."""
        planes = self.input[tuple(batch)]
        return planes, planes if self.guide is self.input else self.guide[_batch_part(self.guide, batch)]

    def block(self, where: Where, *, moving: bool = False) -> Block:
        """Return a block of outputs, of pairs if its pixels share the σ and there is room for its tile.

        Only those that move have taps if asked for.
        """
        *batch, down, across = where
        planes, features = self.images(batch)
        spatial, likeness = (part[matching(part, where)] for part in (self.sigma_spatial, self.sigma_range))
        widths = Widths.of(spatial, likeness, self.radius, self.truncate, self.real)
        widths = widths.moving() if moving else widths
        window = self.window.part(down, across)
        nbytes = 4 * (planes[..., 0, 0].size + features[..., 0, 0].size) * self.dtype.itemsize
        fits = nbytes * window.rows.span * window.columns.span <= BYTES
        kind = PairedBlock if widths.shared and fits else Block
        return kind(planes, features, window, widths, self.dtype)


def _batch_part(operand: np.ndarray, batch: list[slice]) -> Where:
    """Return the part of (batch…, C, H, W), with axes that may broadcast, that meets a block's batch."""
    lengths = operand.shape[: len(batch)]
    return tuple(slice(None) if length == 1 else part for length, part in zip(lengths, batch, strict=True))


class RowSum:
    """A sum of taps, row by row, so that long ones lose nothing."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.total, self.row = np.zeros(shape, dtype), np.zeros(shape, dtype)

    def end_row(self) -> None:
        """Add up what has come since the last call."""
        np.add(self.total, self.row, out=self.total)
        self.row[...] = 0


class Sums:
    """Σ w and Σ w x for every pixel of a block."""

    def __init__(self, block: Block) -> None:
        weights, pixels = block.shapes
        self._weights, self._products = RowSum(weights, block.real), RowSum(pixels, block.dtype)
        self._product = np.empty(pixels, block.dtype)

    def add(self, weights: np.ndarray, tap: Tap) -> None:
        """Add a tap; its pixels do not count where it does not exist, whatever they are."""
        np.add(self._weights.row, weights, out=self._weights.row)
        np.multiply(tap.pixels, weights[..., None, :, :], out=self._product)
        np.add(self._products.row, tap.exists(self._product), out=self._products.row)

    def end_row(self) -> None:
        """Add up what has come since the last call."""
        self._weights.end_row()
        self._products.end_row()

    @property
    def norm(self) -> np.ndarray:
        """Return Σ w as (…, 1, h, w)."""
        return self._weights.total[..., None, :, :]

    @property
    def products(self) -> np.ndarray:
        """Return Σ w x."""
        return self._products.total

    def mean(self) -> np.ndarray:
        """Return Σ w x / Σ w."""
        return self.products / self.norm


def weighted_sums(block: Block, *factors: Callable[[Tap], np.ndarray]) -> list[Sums]:
    """Return the sums over all taps, and those with the weights multiplied by further factors."""
    sums, *others = (Sums(block) for _ in range(1 + len(factors)))
    for row in block.rows(keep=bool(factors)):
        for tap in row:
            sums.add(tap.weights, tap)
            for other, factor in zip(others, factors, strict=True):
                other.add(tap.exists(factor(tap)), tap)
        for some in (sums, *others):
            some.end_row()
    return [sums, *others]
