"""The Gaussians of a block of pixels: how far they reach, and their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._sigma import extents

_THINNEST = 1e-150  # σ is raised to this, so that nothing infinite meets 0; such a kernel is one pixel


Maps = tuple[np.ndarray, np.ndarray]  # along rows and along columns


@dataclass(frozen=True)
class Widths:
    """σ, the angle and the radii of a block's Gaussians, all of them (rows, planes, columns)."""

    sigmas: Maps
    angle: np.ndarray | None
    radii: Maps

    @property
    def isotropic(self) -> bool:
        """Whether rows and columns have the same weights."""
        return self.sigmas[0] is self.sigmas[1] and self.radii[0] is self.radii[1]

    @property
    def reach(self) -> tuple[int, int]:
        """The largest radii."""
        return int(self.radii[0].max()), int(self.radii[1].max())

    def part(self, rows: slice, columns: slice) -> Widths:
        """Return a rectangle of them."""
        sigmas, radii = self._part(self.sigmas, rows, columns), self._part(self.radii, rows, columns)
        turn = None if self.angle is None else np.ascontiguousarray(self.angle[rows, :, columns])
        return Widths(sigmas, turn, radii)

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
    """Read the part of maps that meets a block of some `shape`; `reach` is the window's."""
    down = _read(sigmas[0], where, shape)
    across = down if sigmas[1] is sigmas[0] else _read(sigmas[1], where, shape)
    turn = None if angle is None else _read(angle, where, shape)
    return Widths((down, across), turn, _radii((down, across), turn, truncate, reach))


def lines_first(block: np.ndarray) -> np.ndarray:
    """View (batch…, rows, columns) as (rows, planes, columns): a shift by rows keeps memory in one run."""
    return block.reshape(-1, *block.shape[-2:]).transpose(1, 0, 2)


def planes_first(block: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return (rows, planes, columns) as (batch…, rows, columns) again."""
    return block.transpose(1, 0, 2).reshape(shape)


def _read(values: np.ndarray, where: Where, shape: tuple[int, ...]) -> np.ndarray:
    part = values[matching(values, where)].astype(np.float64)
    return np.ascontiguousarray(lines_first(np.broadcast_to(part, shape)))


def _radii(sigmas: Maps, angle: np.ndarray | None, truncate: float | None, largest: tuple[int, int]) -> Maps:
    """Return how many pixels each Gaussian reaches along rows and columns."""
    widths = sigmas if angle is None else extents(*sigmas, angle)
    down = _radius(widths[0], truncate, largest[0])
    same = widths[0] is widths[1] and largest[0] == largest[1]
    return down, down if same else _radius(widths[1], truncate, largest[1])


def _radius(width: np.ndarray, truncate: float | None, largest: int) -> np.ndarray:
    if truncate is None:
        return np.where(width > 0, largest, 0)
    return np.minimum(truncate * width + 0.5, largest).astype(np.intp)


def active_lines(radii: np.ndarray) -> list[slice]:
    """Return, for every distance, the lines from the first to the last that have such a reach."""
    longest = radii.max(axis=(1, 2))
    found = []
    for distance in range(int(longest.max()) + 1):
        lines = np.flatnonzero(longest >= distance)
        found.append(slice(int(lines[0]), int(lines[-1]) + 1))
    return found


def line_weights(sigma: np.ndarray, radii: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return exp(−½ m²/σ²) for m = 0 … the largest radius, 0 beyond a pixel's own; ½ for m = 0."""
    exponent = (-0.5 / sigma**2).astype(dtype)
    weights = np.empty((int(radii.max()) + 1, *sigma.shape), dtype)
    weights[0] = 0.5
    nearest = int(radii.min())
    for distance, weight in enumerate(weights[1:], start=1):
        np.multiply(exponent, distance * distance, out=weight)
        np.exp(weight, out=weight)
        if distance > nearest:
            np.multiply(weight, radii >= distance, out=weight)
    return weights


def line_sum(weights: np.ndarray) -> np.ndarray:
    """Sum a symmetric line of weights of which one half is given."""
    return 2 * np.add.reduce(weights, axis=0)


def turned_weights(widths: Widths, dtype: np.dtype) -> Iterator[tuple[int, int, slice, np.ndarray]]:
    """Yield (m, n, lines, weights there) for one half of the window, without its centre, where weight is 1.

    The other half is the same mirrored in the centre.  The weights are overwritten.
    """
    angle, radii = widths.angle, widths.radii
    assert angle is not None
    down, across = (np.maximum(sigma, _THINNEST) for sigma in widths.sigmas)
    cosine, sine = np.cos(angle), np.sin(angle)
    u_row, u_column = cosine / down, sine / down
    v_row, v_column = -sine / across, cosine / across
    lines = active_lines(radii[0]), active_lines(radii[1])
    reach = len(lines[0]) - 1
    weights, square = np.empty(angle.shape, dtype), np.empty_like(angle)
    for n, columns in enumerate(lines[1]):
        for m in range(-reach if n else 1, reach + 1):
            part = common(lines[0][abs(m)], columns)
            if part is None:
                continue
            u = u_row[part] * m + u_column[part] * n
            v = v_row[part] * m + v_column[part] * n
            np.multiply(u, u, out=u)
            np.multiply(v, v, out=square[part])
            np.add(u, square[part], out=u)
            weight = weights[part]
            np.multiply(u, -0.5, out=weight, casting="same_kind")
            np.exp(weight, out=weight)
            np.multiply(weight, (radii[0][part] >= abs(m)) & (radii[1][part] >= n), out=weight)
            yield m, n, part, weight


def common(first: slice, second: slice) -> slice | None:
    """Return what two slices have in common, None if nothing."""
    start, stop = max(first.start, second.start), min(first.stop, second.stop)
    return slice(start, stop) if start < stop else None
