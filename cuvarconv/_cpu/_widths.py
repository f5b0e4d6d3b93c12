"""The Gaussians of a block of pixels: how far they reach, and their weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._cpu._sums import add_in_runs
from cuvarconv._sigma import extents

_THINNEST = 1e-150  # σ is raised to this, so that nothing infinite meets 0; such a kernel is one pixel


Maps = tuple[np.ndarray, np.ndarray]  # along rows and along columns


@dataclass(frozen=True)
class Widths:
    """σ and the angle of a block's Gaussians, all of them (rows, planes, columns).

    Their standard deviations along rows and columns are σ itself where there is no angle.  `truncate` is
    None where the window is every pixel's, whose reach `largest` none exceeds.
    """

    sigmas: Maps
    angle: np.ndarray | None
    extents: Maps
    truncate: float | None
    largest: tuple[int, int]

    @property
    def isotropic(self) -> bool:
        """Whether rows and columns have the same radii, and without an angle the same weights."""
        return self.extents[0] is self.extents[1] and self.largest[0] == self.largest[1]

    @functools.cached_property
    def radii(self) -> Maps:
        """How many pixels each Gaussian reaches along rows and columns."""
        return self.radii_of(*self.extents)

    @functools.cached_property
    def reach(self) -> tuple[int, int]:
        """The largest radii."""
        return self._both(np.maximum)

    @functools.cached_property
    def nearest(self) -> tuple[int, int]:
        """The smallest radii."""
        return self._both(np.minimum)

    def _both(self, which: np.ufunc) -> tuple[int, int]:
        down = which.reduce(self.extents[0], axis=None).item()
        across = (
            down if self.extents[1] is self.extents[0] else which.reduce(self.extents[1], axis=None).item()
        )
        return self._radius_of(down, self.largest[0]), self._radius_of(across, self.largest[1])

    def _radius_of(self, width: float, largest: int) -> int:
        if self.truncate is None:
            return largest if width > 0 else 0
        return int(min(self.truncate * width + 0.5, largest))

    def radii_of(self, down: np.ndarray, across: np.ndarray) -> Maps:
        """Return how many pixels Gaussians of such standard deviations reach, which grows with them."""
        rows = _radius(down, self.truncate, self.largest[0])
        return rows, rows if self.isotropic else _radius(across, self.truncate, self.largest[1])

    def part(self, rows: slice, columns: slice) -> Widths:
        """Return a rectangle of them."""
        sigmas = self._part(self.sigmas, rows, columns)
        if self.angle is None:
            return replace(self, sigmas=sigmas, extents=sigmas)
        turn = np.ascontiguousarray(self.angle[rows, :, columns])
        return replace(self, sigmas=sigmas, angle=turn, extents=self._part(self.extents, rows, columns))

    @staticmethod
    def _part(maps: Maps, rows: slice, columns: slice) -> Maps:
        down = np.ascontiguousarray(maps[0][rows, :, columns])
        same = maps[1] is maps[0]
        return down, down if same else np.ascontiguousarray(maps[1][rows, :, columns])


def read_widths(
    sigmas: Maps,
    angle: np.ndarray | None,
    where: Where,
    shape: tuple[int, ...],
    *,
    truncate: float | None,
    reach: tuple[int, int],
) -> Widths:
    """Read the part of maps that meets a block of some `shape`; `reach` is the window's.

    Maps may be views of the user's own; with an angle they are in double precision.
    """
    wide = np.float32 if angle is None else np.float64
    down = _read(sigmas[0], where, shape, wide)
    across = down if sigmas[1] is sigmas[0] else _read(sigmas[1], where, shape, wide)
    if angle is None:
        return Widths((down, across), None, (down, across), truncate, reach)
    turn = _read(angle, where, shape, wide)
    return Widths((down, across), turn, extents(down, across, turn), truncate, reach)


def lines_first(block: np.ndarray) -> np.ndarray:
    """View (batch…, rows, columns) as (rows, planes, columns): a shift by rows keeps memory in one run."""
    return block.reshape(-1, *block.shape[-2:]).transpose(1, 0, 2)


def planes_first(block: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return (rows, planes, columns) as (batch…, rows, columns) again."""
    return block.transpose(1, 0, 2).reshape(shape)


def _read(values: np.ndarray, where: Where, shape: tuple[int, ...], least: type[np.floating]) -> np.ndarray:
    part = values[matching(values, where)]
    part = part.astype(np.result_type(part.dtype, least), copy=False)
    return lines_first(part if part.shape == shape else np.broadcast_to(part, shape))


def _radius(width: np.ndarray, truncate: float | None, largest: int) -> np.ndarray:
    if truncate is None:
        return np.where(width > 0, np.int32(largest), np.int32(0))
    reached = np.multiply(width, truncate, dtype=np.float64)
    reached += 0.5
    return np.minimum(reached, largest, out=reached).astype(np.int32)


def active_lines(radii: np.ndarray) -> list[slice]:
    """Return, for every distance, the lines from the first to the last that have such a reach."""
    longest = radii.max(axis=(1, 2))
    found = []
    for distance in range(int(longest.max()) + 1):
        lines = np.flatnonzero(longest >= distance)
        found.append(slice(int(lines[0]), int(lines[-1]) + 1))
    return found


def both_line_weights(
    widths: Widths, dtype: np.dtype, empty: Callable[[tuple[int, ...], np.dtype], np.ndarray]
) -> Maps:
    """Return the weights along rows and along columns, by distance, in arrays made by `empty`."""
    rows = empty((widths.reach[0] + 1, *widths.sigmas[0].shape), dtype)
    _fill_line_weights(rows, widths, 0)
    if widths.isotropic:
        return rows, rows
    columns = empty((widths.reach[1] + 1, *widths.sigmas[1].shape), dtype)
    _fill_line_weights(columns, widths, 1)
    return rows, columns


def _fill_line_weights(weights: np.ndarray, widths: Widths, axis: int) -> None:
    """Write exp(−½ m²/σ²) for distances m from 0 to the largest radius; 0 beyond a pixel's own.

    At distance 0 it is ½, as pixels there face themselves.
    """
    sigma, dtype = widths.sigmas[axis], weights.dtype
    weights[0] = 0.5
    rest = weights[1:]
    steps = np.arange(1, len(weights), dtype=np.float64).reshape(-1, *(1,) * sigma.ndim)
    exponent = np.square(sigma, dtype=np.result_type(sigma, dtype))
    np.divide(-0.5, exponent, out=exponent)
    np.multiply((steps * steps).astype(dtype), exponent.astype(dtype, copy=False), out=rest)
    np.exp(rest, out=rest)
    some = widths.nearest[axis]  # those farther are not reached by every pixel
    if some < len(rest):
        np.multiply(rest[some:], widths.radii[axis] >= steps[some:].astype(np.int32), out=rest[some:])


def line_sum(weights: np.ndarray) -> np.ndarray:
    """Sum a symmetric line of weights of which one half is given."""
    return 2 * add_in_runs(weights, axis=0)


class Tap(NamedTuple):
    """A tap of the window, the lines in which it is reached, and the weight of their pixels.

    u and v are its offset along the Gaussian's own axes, in units of their σ.
    """

    m: int
    n: int
    lines: slice
    weight: np.ndarray
    u: np.ndarray
    v: np.ndarray


def turned_taps(widths: Widths, dtype: np.dtype) -> Iterator[Tap]:
    """Yield one half of the window column by column, without its centre, where the weight is 1.

    The other half is the same mirrored in the centre.  The weights are overwritten.
    """
    angle, radii = widths.angle, widths.radii
    assert angle is not None
    down, across = (np.maximum(sigma, _THINNEST) for sigma in widths.sigmas)
    cosine, sine = np.cos(angle), np.sin(angle)
    axes = (cosine / down, sine / down), (-sine / across, cosine / across)
    lines = active_lines(radii[0]), active_lines(radii[1])
    reach = len(lines[0]) - 1
    weights = np.empty(angle.shape, dtype)
    for n, columns in enumerate(lines[1]):
        for m in range(-reach if n else 1, reach + 1):
            part = common(lines[0][abs(m)], columns)
            if part is None:
                continue
            u, v = (row[part] * m + column[part] * n for row, column in axes)
            exponent = u * u
            exponent += v * v
            weight = weights[part]
            np.multiply(exponent, -0.5, out=weight, casting="same_kind")
            np.exp(weight, out=weight)
            np.multiply(weight, (radii[0][part] >= abs(m)) & (radii[1][part] >= n), out=weight)
            yield Tap(m, n, part, weight, u, v)


def common(first: slice, second: slice) -> slice | None:
    """Return what two slices have in common, None if nothing."""
    start, stop = max(first.start, second.start), min(first.stop, second.stop)
    return slice(start, stop) if start < stop else None
