"""y[c,p] = Σ_q w x[c,q] / Σ_q w, w = exp(−½|q − p|²/σ_s² − ½‖g(q) − g(p)‖²/σ_r²)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cuvarconv._blocks import Where, blocks, matching, shares
from cuvarconv._cpu._likeness import Block, Widths
from cuvarconv._cpu._moments import moments
from cuvarconv._cpu._tiles import WORKSPACE, store
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

BLOCK = 1 << 16  # pixels or features
_LARGER = 3 * BLOCK, 2 * BLOCK  # if there is room: what is done once per block counts less
_SMALLEST = 1 << 13  # block with maps of widths
_TAPS = 2 << 20  # bytes of an array of taps that are weighed at once: threads wait at each call
_BLOCKS = 4  # at least, unless one has too few rows then, or too little to do
_FEWEST = 32  # rows, and four for each that the window reaches
_LEAST = 3 << 19  # values under taps
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
    """Weigh and sum over large blocks; pairs of pixels share their weight where all share the σ.

    `input` and `output` are (batch…, C, H, W), `guide` (batch…, features, H, W), the same array if the
    image is its own guide, and the σ (batch…, H_out, W_out), with axes of length 1 where they
    broadcast.  Radii are int(truncate·σ_s + 0.5), the window's for None; `dtype` is the computing dtype.
    """
    filter = Filter(input, guide, sigma_spatial, sigma_range, window, truncate, accumulator_dtype(dtype))

    def block(where: Where) -> None:
        *batch, down, across = where
        outputs = filter.block(where, relative=False)
        mean, still = moments(outputs, paired=filter.paired(outputs)).mean, outputs.widths.still
        if still.any():
            np.copyto(mean, outputs.centres(), where=still[..., None, :, :])
        store(output[(*batch, slice(None), down, across)], mean)

    shape = (*output.shape[:-3], *output.shape[-2:])
    with serial_blas:
        for_each(block, filter.outputs(shape), most_workers=WORKSPACE // BYTES)


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

    @property
    def mapped(self) -> bool:
        """Whether there are maps of widths."""
        return any(sigma.shape[-2:] != (1, 1) for sigma in (self.sigma_spatial, self.sigma_range))

    @property
    def elements(self) -> int:
        """Pixels or features of a block: with maps of widths, as many as have a row of taps at once."""
        if self.mapped:
            at_once = _TAPS // self.real.itemsize // self.window.columns.taps
            return min(BLOCK, max(_SMALLEST, at_once))
        return BLOCK

    def outputs(self, shape: tuple[int, ...]) -> list[Where]:
        """Cut outputs (…, H, W) into blocks, larger ones where all pairs share both σ and there is room."""
        if self.sigma_spatial.size == self.sigma_range.size == 1:
            for elements in _LARGER:
                pieces = self.pieces(shape, elements, fewest=_BLOCKS)
                if max(map(self._nbytes_of, pieces), default=0) <= BYTES:
                    return pieces
        return self.pieces(shape, self.elements)

    def pieces(self, shape: tuple[int, ...], elements: int, *, fewest: int = 1) -> list[Where]:
        """Cut (…, H, W) into blocks that are not much wider than high, `fewest` if they are large enough."""
        channels = self.input.shape[-3], self.guide.shape[-3]
        across = blocks(shape[-1:], _WIDTH)
        longest = max((part.stop - part.start for (part,) in across), default=1)
        work = longest * sum(channels) * self.window.rows.taps * self.window.columns.taps
        least = max(_FEWEST + 4 * self.radius, _LEAST // max(1, work))
        most = max(1, elements // max(1, *channels) // longest)
        rows = shares(shape[:-1], most, max(fewest, _BLOCKS * BLOCK // elements), least=least)
        return [(*where, *part) for where in rows for part in across]

    def images(self, batch: list[slice]) -> tuple[np.ndarray, np.ndarray]:
        """Return the input and the guide of some samples; the same array if the image is its own guide."""
        planes = self.input[tuple(batch)]
        return planes, planes if self.guide is self.input else self.guide[batch_part(self.guide, batch)]

    def block(
        self, where: Where, *, moving: bool = False, relative: bool = True, together: int | None = None
    ) -> Block:
        """Return a block of outputs; only those that move have taps if asked for.

        Pixels are taken relative to x(p) if asked for, and where this costs nothing: an image's own guide
        has these differences.
        """
        *batch, down, across = where
        planes, features = self.images(batch)
        spatial, likeness = (part[matching(part, where)] for part in (self.sigma_spatial, self.sigma_range))
        widths = Widths.of(spatial, likeness, self.radius, self.truncate, self.real)
        widths = widths.moving() if moving else widths
        relative = relative or features is planes
        window = self.window.part(down, across)
        return Block(planes, features, window, widths, self.dtype, relative, together or _TAPS)

    def paired(self, block: Block) -> bool:
        """Whether all pixels of a block share the σ, and there is room for its sums."""
        values = block.planes[..., 0, 0].size + block.features[..., 0, 0].size
        span = block.window.rows.span * block.window.columns.span
        return block.widths.shared and self._nbytes(values * span) <= BYTES

    def _nbytes_of(self, where: Where) -> int:
        """Return what the sums over pairs take for a block of outputs, at most."""
        *batch, height, width = (part.stop - part.start for part in where)
        channels = self.input.shape[-3] + self.guide.shape[-3]
        span = (height + 2 * self.radius) * (width + 2 * self.radius)
        return self._nbytes(math.prod(batch) * channels * span)

    def _nbytes(self, values: int) -> int:
        """Return what the sums over pairs take for so many values."""
        return 8 * values * self.dtype.itemsize


def batch_part(operand: np.ndarray, batch: list[slice]) -> Where:
    """Return the part of (batch…, C, H, W), with axes that may broadcast, that meets a block's batch."""
    lengths = operand.shape[: len(batch)]
    return tuple(slice(None) if length == 1 else part for length, part in zip(lengths, batch, strict=True))
