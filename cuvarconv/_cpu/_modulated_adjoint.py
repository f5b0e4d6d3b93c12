"""What outputs send back to pixels that they read: Σ conj(w[o,c,m,n] d[m,n,i,j]) g[o,i,j] over o, m, n."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cuvarconv._blocks import matching
from cuvarconv._cpu._columns import by_group, multiply, pixels_together, rows_together
from cuvarconv._cpu._runs import Reach, Run, zeros_like
from cuvarconv._cpu._tiles import channels_back, channels_first
from cuvarconv._window import Window


@dataclass(frozen=True)
class Adjoint:
    """One matrix product per column of taps and slab of rows of a block, over columns conj(d)·g.

    `matrices` is (groups, C_out/groups, kh, kw, C_in/groups), `grad` (batch…, C_out, H, W), `modulation`
    (kh, kw, batch…, G, H, W).
    """

    matrices: np.ndarray
    grad: np.ndarray
    modulation: np.ndarray
    dtype: np.dtype

    def fits(self, window: Window) -> bool:
        """Whether the channels of a group share d, and no row of entries is skipped by a row of taps."""
        shared = self.modulation.shape[-3] in (1, len(self.matrices))
        return shared and window.rows.stride == 1 and not window.rows.shorter_by_tap

    def tile(self, total: np.ndarray, rows: Run, columns: Run) -> np.ndarray:
        """Return what is sent to runs of entries, (batch…, C_in, rows, columns)."""
        tile = zeros_like(total, rows.length, columns.length)
        groups, outputs = self.matrices.shape[:2]
        widest = max(across.outputs.stop - across.outputs.start for across in columns.reaches)
        per_row = tile[..., 0, 0, 0].size * widest * groups * outputs
        together = min(rows_together(groups, outputs), pixels_together(per_row))
        height = pixels_together(per_row * min(together, len(rows.reaches)))
        for entries in _pieces(rows, height):
            met = [down for down in rows.reaches if _covers(down.entries, entries)]
            for at in range(0, len(met), together):
                for across in columns.reaches:
                    part = tile[..., entries, across.entries]
                    np.add(part, self._product(met[at : at + together], across, entries), out=part)
        return tile

    def _product(self, reaches: list[Reach], across: Reach, entries: slice) -> np.ndarray:
        """Return what some taps of a column send to rows of entries, (batch…, C_in, rows, columns)."""
        taps = slice(reaches[0].tap, reaches[-1].tap + 1)
        matrix = self.matrices[:, :, taps, across.tap].conj().transpose(0, 3, 2, 1)
        columns = self._columns(reaches, across, entries)
        product = multiply(matrix, columns.reshape(*columns.shape[:1], -1, math.prod(columns.shape[3:])))
        return channels_back(product.reshape(-1, *columns.shape[3:]))

    def _columns(self, reaches: list[Reach], across: Reach, entries: slice) -> np.ndarray:
        """Return conj(d)·g of the outputs that read the entries.

        The shape is (groups, m, C_out/groups, batch…, rows, columns).
        """
        groups, outputs, *batch = self._sent.shape[:-2]
        j, height = across.outputs, entries.stop - entries.start
        columns = np.empty((groups, len(reaches), outputs, *batch, height, j.stop - j.start), self.dtype)
        for m, down in enumerate(reaches):
            first = down.outputs.start + entries.start - down.entries.start
            i = slice(first, first + height)
            rows, line = matching(self.modulation, (i, j))
            factors = self._factors[:, down.tap, across.tap, 0, ..., rows, line]
            factors = factors.astype(self.dtype, copy=False).conj()
            np.multiply(self._sent[..., i, j].astype(self.dtype, copy=False), factors, out=columns[:, m])
        return columns

    @cached_property
    def _sent(self) -> np.ndarray:
        """The incoming gradient as (groups, C_out/groups, batch…, H_out, W_out)."""
        first = channels_first(self.grad)
        return first.reshape(*self.matrices.shape[:2], *first.shape[1:])

    @cached_property
    def _factors(self) -> np.ndarray:
        """The modulation as (groups or 1, kh, kw, 1, 1, batch…, H_out, W_out)."""
        return by_group(self.modulation, len(self.matrices))


def _pieces(rows: Run, height: int) -> Iterator[slice]:
    """Cut a run's entries to this height, and where a row of taps begins or ceases to reach them."""
    ends = {end for down in rows.reaches for end in (down.entries.start, down.entries.stop)}
    for begin, end in itertools.pairwise(sorted(ends)):
        for first in range(begin, end, height):
            yield slice(first, min(first + height, end))


def _covers(whole: slice, part: slice) -> bool:
    return bool(whole.start <= part.start and part.stop <= whole.stop)
