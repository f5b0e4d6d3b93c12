"""Σ k c x / Σ k c over the pixels that count: written once, for the backends that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._axis import CVAL
from cuvarconv._blocks import blocks, matching, tap_chunks
from cuvarconv._window import Window

_BLOCK = 1 << 18  # outputs
_SQUARES = 1 << 20  # kernel entries that are squared at a time
_TILE = 1 << 19  # pixels under their windows


@dataclass(frozen=True)
class Quotients:
    """The primitives of `normalized_correlate`, over those of a backend.

    `input` and `mask` and `variance`, if given, are (batch…, H, W), the last two with lengths of 1 where
    they broadcast; `weights` and `output` are as for the primitive `correlate`.
    """

    correlate: Callable[..., None]
    empty: Callable[..., Any]
    store: Callable[[Any, Any], None]

    def normalized(
        self, input: Any, weights: Any, mask: Any, output: Any, window: Window, *, dtype: np.dtype
    ) -> None:
        """Write Σ k c x / Σ k c, block after block, so that the work takes little memory."""
        conjugate = weights.dtype.kind == "c"
        for part in _parts(input, weights, output, window):
            total, weight = self._zeros(part, dtype), self._zeros(part, dtype)
            for rows, columns in tap_chunks(part.window, part.planes, _TILE):
                chunk, taps = part.window.taps(rows, columns), part.weights[rows, columns]
                tile = _gather(part.images, chunk).astype(dtype, copy=False)
                counts = self._counts(part, mask, chunk)
                self._add(total, _times(tile, counts), taps, chunk, conjugate)
                self._add(weight, counts, taps, chunk, conjugate)
            self.store(part.output, _quotient(total, weight))

    def normalized_variance(
        self,
        input: Any,
        weights: Any,
        mask: Any,
        variance: Any,
        output: Any,
        window: Window,
        *,
        dtype: np.dtype,
    ) -> None:
        """Write Σ |k c|² v / |Σ k c|²; without a mask, c is whether the input is finite."""
        for part in _parts(input, weights, output, window):
            total, weight = self._zeros(part, dtype), self._zeros(part, dtype)
            most = max(1, _SQUARES // max(1, part.weights[0, 0].size))
            for rows, columns in tap_chunks(part.window, part.planes, _TILE, most_taps=most):
                chunk = part.window.taps(rows, columns)
                taps = part.weights[rows, columns].astype(dtype, copy=False)
                errors = _gather(part.of(variance), chunk).astype(dtype, copy=False)
                counts = self._counts(part, mask, chunk)
                self._add(total, _times(errors, counts * counts), _squared(taps), chunk, False)
                self._add(weight, counts, taps, chunk, taps.dtype.kind == "c")
            self.store(part.output, _quotient(total, _squared(weight)))

    def _zeros(self, part: _Part, dtype: np.dtype) -> Any:
        total = self.empty(part.output.shape, dtype)
        total[...] = 0
        return total

    def _add(self, total: Any, factor: Any, weights: Any, chunk: Window, conjugate: bool) -> None:
        one = self.empty(total.shape, total.dtype)
        gathered = Window(chunk.rows.gathered(), chunk.columns.gathered(), 0.0)
        self.correlate(factor, weights, one, gathered, dtype=total.dtype, conjugate=conjugate)
        total += one

    def _counts(self, part: _Part, mask: Any, chunk: Window) -> Any:
        """Return how much each pixel of a tile counts: nothing outside of the image."""
        counts = np.isfinite(_gather(part.images, chunk)) if mask is None else _gather(part.of(mask), chunk)
        rows, columns = (axis.table().sources != CVAL for axis in (chunk.rows, chunk.columns))
        if rows.all() and columns.all():
            return counts
        inside = self.empty((len(rows), len(columns)), np.dtype(bool))
        inside[...] = True
        for run in _runs(~rows):
            inside[run] = False
        for run in _runs(~columns):
            inside[:, run] = False
        return counts * inside


@dataclass(frozen=True)
class _Part:
    """A block of the outputs, its window, kernels and images."""

    images: Any
    weights: Any
    output: Any
    window: Window
    batch: tuple[slice, ...]

    @property
    def planes(self) -> int:
        """How many images there are."""
        return int(self.images[..., 0, 0].size)

    def of(self, values: Any) -> Any:
        """View the block's part of a map at the images' whole shape."""
        every = slice(None)
        return np.broadcast_to(values[matching(values, (*self.batch, every, every))], self.images.shape)


def _parts(input: Any, weights: Any, output: Any, window: Window) -> Iterator[_Part]:
    for where in blocks(output.shape, _BLOCK):
        *batch, down, across = where
        taps = weights[(slice(None), slice(None), *matching(weights, where))]
        yield _Part(input[tuple(batch)], taps, output[where], window.part(down, across), tuple(batch))


def _gather(planes: Any, window: Window) -> Any:
    """Return the pixels that a window reads, in the order of its tables; any pixel where that is none."""
    for along, axis in ((-2, window.rows), (-1, window.columns)):
        table = axis.table()
        sources: Any = np.maximum(table.sources, 0)
        if (table.first, table.last) == (0, len(sources)):  # neighbours: a view
            sources = slice(int(sources[0]), int(sources[-1]) + 1)
        planes = planes[..., sources, :] if along == -2 else planes[..., sources]
    return planes


def _runs(flags: np.ndarray) -> list[slice]:
    """Return the runs of neighbours for which a flag is set."""
    changes = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return [slice(first, last) for first, last in zip(changes[::2], changes[1::2], strict=True)]


def _times(values: Any, counts: Any) -> Any:
    """Weigh values; what does not count may hold anything."""
    return np.where(counts != 0, values, values.dtype.type(0)) * counts


def _squared(values: Any) -> Any:
    return (values * values.conj()).real


def _quotient(total: Any, divisor: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(divisor == 0, np.nan, total / divisor)
