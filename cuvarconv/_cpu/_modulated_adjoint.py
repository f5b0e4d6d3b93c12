"""What outputs send back to pixels that they read: Σ conj(w[o,c,m,n] d[m,n,i,j]) g[o,i,j] over o, m, n."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cuvarconv._cpu._columns import by_group, multiply, pixels_together, rows_together
from cuvarconv._cpu._runs import Reach, Run, zeros_like
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._tiles import move_axis
from cuvarconv._window import Window

_WIDE = 7 / 8  # of a row of outputs; then the whole row is multiplied


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
    scratch: Scratch = field(default_factory=lambda: Scratch(0))  # for columns and products

    def fits(self, window: Window) -> bool:
        """Whether the channels of a group share d, and no row of entries is skipped by a row of taps."""
        shared = self.modulation.shape[-3] in (1, len(self.matrices))
        return shared and window.rows.stride == 1 and not window.rows.shorter_by_tap

    def tile(self, total: np.ndarray, rows: Run, columns: Run) -> np.ndarray:
        """Return what is sent to runs of entries, (batch…, C_in, rows, columns)."""
        tile = zeros_like(total, rows.length, columns.length)
        groups, outputs, *_, channels = self.matrices.shape
        lines = [self._line(across.outputs) for across in columns.reaches]
        pixels = tile[..., 0, 0, 0].size * max(line.stop - line.start for line in lines)  # of a row
        per_row = pixels * groups * outputs
        together = min(rows_together(groups, len(rows.reaches), outputs, channels), pixels_together(per_row))
        at_once = min(together, len(rows.reaches))
        pieces = list(_pieces(rows, pixels_together(per_row * at_once)))
        height = max(entries.stop - entries.start for entries in pieces)
        self.scratch.make_room(height * (per_row * at_once + pixels * total.shape[-3]) * self.dtype.itemsize)
        for entries in pieces:
            met = [down for down in rows.reaches if _covers(down.entries, entries)]
            for at in range(0, len(met), together):
                some = met[at : at + together]
                taps = slice(some[0].tap, some[-1].tap + 1)
                sent = _by_tap(self._sent, some, entries, 0)
                factors = _by_tap(self._factors[:, taps.start], some, entries, self._factors.strides[1])
                for across, line in zip(columns.reaches, lines, strict=True):
                    part = tile[..., entries, across.entries]
                    factor = factors[:, :, across.tap, 0]
                    factor = factor[..., slice(None) if factor.shape[-1] == 1 else line]
                    product = self._product(self.matrices[:, :, taps, across.tap], sent[..., line], factor)
                    first = across.outputs.start - line.start
                    np.add(part, product[..., first : first + part.shape[-1]], out=part)
        return tile

    def _line(self, outputs: slice) -> slice:
        """Return whole rows where nearly all of a row is read: these follow each other in memory."""
        width = self.grad.shape[-1]
        return slice(0, width) if outputs.stop - outputs.start >= _WIDE * width else outputs

    def _product(self, matrix: np.ndarray, sent: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Return what some taps of a column send, (batch…, C_in, rows, line).

        `sent` is (m, groups, C_out/groups, batch…, rows, line), and `factors` has axes of length 1 in it.
        """
        self.scratch.clear()
        columns = self.scratch.empty((sent.shape[1], len(sent), *sent.shape[2:]), self.dtype)
        factors = factors.astype(self.dtype, copy=False).conj()
        np.multiply(sent.astype(self.dtype, copy=False), factors, out=move_axis(columns, 1, 0))
        by_term = columns.reshape(len(columns), -1, math.prod(sent.shape[3:]))
        rows = matrix.conj().transpose(0, 3, 2, 1)
        product = self.scratch.empty((*rows.shape[:2], by_term.shape[-1]), self.dtype)
        multiply(rows, by_term, product)
        return move_axis(product.reshape(-1, *sent.shape[3:]), 0, -3)

    @cached_property
    def _sent(self) -> np.ndarray:
        """The incoming gradient as (groups, C_out/groups, batch…, H_out, W_out)."""
        first = move_axis(self.grad, -3, 0)
        return first.reshape(*self.matrices.shape[:2], *first.shape[1:])

    @cached_property
    def _factors(self) -> np.ndarray:
        """The modulation as (groups or 1, kh, kw, 1, 1, batch…, H_out, W_out)."""
        return by_group(self.modulation, len(self.matrices))


def _pieces(rows: Run, height: int) -> Iterator[slice]:
    """Cut a run's entries to about this height, and where a row of taps begins or ceases to reach them."""
    ends = {end for down in rows.reaches for end in (down.entries.start, down.entries.stop)}
    for begin, end in itertools.pairwise(sorted(ends)):
        count = max(1, round((end - begin) / height))
        for first, stop in itertools.pairwise(begin + (end - begin) * at // count for at in range(count + 1)):
            yield slice(first, stop)


def _by_tap(outputs: np.ndarray, reaches: list[Reach], entries: slice, pitch: int) -> np.ndarray:
    """View (…, H, W) as (m, …, rows, W): those that send to rows of entries through each tap.

    From one tap to the next an operand moves on by `pitch` bytes.
    """
    if outputs.shape[-2] > 1:
        firsts = [down.outputs.start + entries.start - down.entries.start for down in reaches[:2]]
        outputs = outputs[..., firsts[0] : firsts[0] + entries.stop - entries.start, :]
        pitch += (firsts[-1] - firsts[0]) * outputs.strides[-2]
    shape, strides = (len(reaches), *outputs.shape), (pitch, *outputs.strides)
    return np.lib.stride_tricks.as_strided(outputs, shape, strides, writeable=False)


def _covers(whole: slice, part: slice) -> bool:
    return bool(whole.start <= part.start and part.stop <= whole.stop)
