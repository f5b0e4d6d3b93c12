"""Sums over the taps of a block of outputs: the filter, and what its gradients in the two σ are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from cuvarconv._cpu._aligned import empty, zeros
from cuvarconv._cpu._likeness import Block, Taps
from cuvarconv._cpu._lines import Lines, Rises, limited
from cuvarconv._cpu._walk import FAR, PairSums, Program, Row, Step, Walk

FACTORS: dict[str, Callable[[Taps], np.ndarray]] = {
    "distance": lambda taps: taps.product(taps.weights, taps.distances),
    "square": lambda taps: taps.product(taps.weights, np.minimum(taps.squares, FAR, out=taps.squares)),
}


@dataclass(frozen=True)
class Moments:
    """What the taps of some outputs sum up to."""

    norm: np.ndarray  # D = Σ w, (…, 1, h, w)
    mean: np.ndarray  # y = Σ w x / D, (…, C, h, w)
    slopes: tuple[np.ndarray, ...]  # Σ φ w (x − y) / D for each factor φ


def moments(block: Block, *factors: str, paired: bool = False) -> Moments:
    """Sum over all taps, each pair of pixels together if asked for."""
    return _paired_moments(block, factors) if paired else _mapped_moments(block, factors)


class RowSum:
    """A sum of taps, row by row, so that long ones lose nothing."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.total, self.row = zeros(shape, dtype), zeros(shape, dtype)
        self._part = empty((0,), dtype)

    def add(self, terms: np.ndarray) -> None:
        """Add terms (taps, …)."""
        part = terms[0]
        if len(terms) > 1:
            if self._part.shape != part.shape:  # the sum's, unless its samples share the terms
                self._part = empty(part.shape, part.dtype)
            part = self._part
            ones = np.ones(len(terms), terms.dtype)
            np.matmul(ones, terms.reshape(len(terms), -1), part.reshape(-1))
        np.add(self.row, part, self.row)

    def end_row(self) -> None:
        """Add up what has come since the last call."""
        np.add(self.total, self.row, out=self.total)
        self.row[...] = 0


class Sums:
    """Σ w and Σ w (x(q) − x(p)) for every pixel p of a block."""

    def __init__(self, block: Block) -> None:
        weights, pixels = block.shapes
        self._weights, self._products = RowSum(weights, block.real), RowSum(pixels, block.dtype)

    def add(self, weights: np.ndarray, taps: Taps) -> None:
        """Add taps; their rises do not count where a tap does not exist, whatever they are."""
        self._weights.add(weights)
        self._products.add(taps.exists(taps.product(taps.rises, weights[..., None, :, :])))

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
        """Return Σ w (x(q) − x(p))."""
        return self._products.total

    def drift(self) -> np.ndarray:
        """Return Σ w (x(q) − x(p)) / Σ w."""
        return self.products / self.norm


def mapped_sums(block: Block, *factors: str) -> list[Sums]:
    """Sum over all taps, and for each factor times that."""
    sums, *others = every = [Sums(block) for _ in range(1 + len(factors))]
    for row in block.rows():
        for taps in row:
            sums.add(taps.weights, taps)
            for other, factor in zip(others, factors, strict=True):
                other.add(taps.exists(FACTORS[factor](taps)), taps)
        for some in every:
            some.end_row()
    return every


def _mapped_moments(block: Block, factors: tuple[str, ...]) -> Moments:
    sums, *others = mapped_sums(block, *factors)
    norm, drift = sums.norm, sums.drift()
    slopes = tuple((other.products - drift * other.norm) / norm for other in others)
    return Moments(norm, block.origins + drift, slopes)


# ---- pairs: each weight serves both pixels


def _paired_moments(block: Block, factors: tuple[str, ...]) -> Moments:
    """Sum over pairs of w (x(q) − x(p)), which one pixel adds and the other subtracts."""
    lines = Lines.of(block, block.window, *block.window.output_shape)
    if lines.infinite:
        return _mapped_moments(block, factors)
    channels, squares = len(lines.pixels), "square" in factors
    walk = Walk(lines.tile, lines.likeness, 1 + channels, squares=squares)
    rises, every = Rises(lines, walk), slice(0, 1 + channels)
    sums, *others = (PairSums(walk, every.stop, every) for _ in range(1 + len(factors)))

    def steps(row: Row, room: int) -> Iterator[Step]:
        yield from walk.weigh(row, room)
        yield from rises.weigh(row, room)
        yield from sums.add(row, room, row.place)
        for other, factor in zip(others, factors, strict=True):
            if factor == "distance":
                yield from other.add(row, room, row.place * row.distances)
            else:  # the last
                planes = row.flat[every]
                yield partial(np.multiply, planes, row.flat[-1], planes)
                yield from other.add(row, room, row.place)

    program = Program(walk, steps, [sums, *others])
    for strip in walk.strips:
        program.run(strip)
    weights, products, pixels = slice(1), slice(1, None), slice(lines.tile.pixels)
    norm = lines.of_features(sums.both(weights, pixels) + (1 + lines.alike(pixels)))
    drift = lines.values(sums.apart(products, pixels))
    drift /= norm
    slopes = []
    for other, factor in zip(others, factors, strict=True):
        slope = lines.values(other.apart(products, pixels))
        slope = slope - drift * lines.of_features(other.both(weights, pixels))
        scale = lines.likeness.sharpness if factor == "square" else 1.0
        slopes.append(slope / norm * limited(scale / lines.unit, block.real))
    drift += lines.values(lines.pixels)
    drift *= limited(1 / lines.unit, block.real)
    return Moments(norm, drift, tuple(slopes))
