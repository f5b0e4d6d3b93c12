"""The gradients of `gaussian`: in the input, whose outputs are spread again, and in σ and the angle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cuvarconv._axis import Axis
from cuvarconv._blocks import Where, rectangles, within
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._bands import banded, banded_spread
from cuvarconv._cpu._cuts import cuts
from cuvarconv._cpu._mirrored import Pixels, real_dtype, real_parts
from cuvarconv._cpu._runs import Run, spread_tiles
from cuvarconv._cpu._scratch import Scratch
from cuvarconv._cpu._sums import PARTIAL, add_or_assign, sum_blocks
from cuvarconv._cpu._tiles import WORKSPACE, store
from cuvarconv._cpu._widths import (
    Maps,
    Widths,
    both_line_weights,
    line_sum,
    lines_first,
    planes_first,
    read_widths,
    turned_taps,
)
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._cpu.gaussian import (
    WIDTH,
    ColumnSums,
    aligned_norm,
    aligned_sums,
    block_elements,
    block_size,
    centre_pixels,
    clear,
    pieces,
    turned_pairs,
    weighted,
)
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_SPREAD_WEIGHTS = 4 << 20  # bytes of those of outputs that are spread at once, along one axis
_SPREAD_SCRATCH = 3 * _SPREAD_WEIGHTS  # bytes: weights, and their products with values
_PATCH, _TURNED_PATCH = 1 << 20, 1 << 18  # entries under the windows that are summed up together
_SPREAD_BYTES = 15 << 20  # that a worker takes for them, and arrays of all outputs that reach a block:
_ARRAYS, _TURNED_ARRAYS = 2, 16  # those with an angle are in double precision
_TURNED_PATCHES = 4  # arrays of the entries that are summed up together, with an angle
_BLOCK = 1 << 16  # outputs whose slopes are summed together
_PIECE = 2 << 20  # bytes of a piece's weights along one axis
_SCRATCH = 6 * _PIECE  # bytes: weights, their slopes, and the sums of two
_BYTES = 24 << 20  # that a worker takes for them


def gaussian_input_gradient(
    grad: np.ndarray,
    sigmas: Maps,
    angle: np.ndarray | None,
    output: np.ndarray,
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Spread every output by its own Gaussian.

    `grad` is (batch…, H_out, W_out), `output` (batch…, H, W), the others are as for `gaussian`.
    """
    if dtype.kind == "c":
        for name, plane, part in real_parts(grad, window):
            if name == "real" or output.dtype.kind == "c":
                target, real = getattr(output, name), real_dtype(dtype)
                gaussian_input_gradient(plane, sigmas, angle, target, part, truncate=truncate, dtype=real)
        return
    dtype = accumulator_dtype(dtype)
    reach = window.rows.taps // 2, window.columns.taps // 2

    def block(where: Where) -> None:
        *batch, down, across = where
        target = output[where]

        def tile_sum(rows: Run, columns: Run) -> np.ndarray:
            here = *batch, _outputs(rows, window.rows), _outputs(columns, window.columns)
            given = grad[here]
            widths = read_widths(sigmas, angle, here, given.shape, truncate=truncate, reach=reach)
            tile = zeros((rows.length, target[..., 0, 0].size, columns.length), dtype)
            shifts = [
                part.start + far - run.first
                for part, far, run in zip(here[-2:], reach, (rows, columns), strict=True)
            ]
            _spread(tile, lines_first(given), widths, shifts)
            return planes_first(tile, (*target.shape[:-2], rows.length, columns.length))

        total = zeros(target.shape, dtype)
        spread_tiles(total, window, down, across, tile_sum, _PATCH if angle is None else _TURNED_PATCH)
        store(target, total)

    elements = block_elements(output.shape, window, block_size(output.shape), _SPREAD_WEIGHTS // 8)
    places = rectangles(output.shape, elements, WIDTH)
    workers = WORKSPACE // _bytes(places[0], window, sigmas, angle, dtype) if places else 1
    with serial_blas:
        for_each(block, places, most_workers=workers)


def _outputs(run: Run, axis: Axis) -> slice:
    """Return the outputs that read a run of entries."""
    return slice(max(0, run.first - axis.taps + 1), min(axis.length, run.first + run.length))


def _bytes(where: Where, window: Window, sigmas: Maps, angle: np.ndarray | None, dtype: np.dtype) -> int:
    """Return what a worker takes for a block, from the pixels whose Gaussians reach it."""
    *batch, down, across = where
    reaching = patched = math.prod(part.stop - part.start for part in batch)
    for part, axis in ((down, window.rows), (across, window.columns)):
        length = min(part.stop - part.start + axis.taps - 1, axis.length)
        reaching *= length
        patched *= length + axis.taps - 1
    if angle is not None:
        patches = _TURNED_PATCHES * dtype.itemsize * min(patched, _TURNED_PATCH)
        return _SPREAD_BYTES + _TURNED_ARRAYS * 8 * reaching + patches
    widest = max(dtype.itemsize, *(sigma.itemsize for sigma in sigmas))
    return _SPREAD_BYTES + _ARRAYS * widest * reaching + 2 * dtype.itemsize * min(patched, _PATCH)


def _spread(tile: np.ndarray, given: np.ndarray, widths: Widths, shifts: Sequence[int]) -> None:
    """Add what outputs (rows, planes, columns) spread; the centre of (i, j) is entry (i, j) + `shifts`."""
    reaching = [
        slice(max(0, -shift - far), max(0, length - shift + far))
        for shift, far, length in zip(shifts, widths.reach, (tile.shape[0], tile.shape[2]), strict=True)
    ]
    given, widths = given[reaching[0], :, reaching[1]], widths.part(*reaching)
    if not given.size:
        return
    scratch = Scratch(_SPREAD_SCRATCH)
    spread = _spread_aligned if widths.angle is None else _spread_turned
    for parts in cuts(widths, _SPREAD_WEIGHTS // tile.itemsize):
        piece = widths.part(*parts)
        values = np.array(given[parts[0], :, parts[1]], tile.dtype, order="C")
        centres = [
            shift + outer.start + inner.start
            for shift, outer, inner in zip(shifts, reaching, parts, strict=True)
        ]
        reached = [
            slice(max(0, centre - far), max(0, centre + length + far))
            for centre, far, length in zip(centres, piece.reach, values.shape[::2], strict=True)
        ]
        target = tile[reached[0], :, reached[1]]
        if target.size:
            shift = [centre - part.start for centre, part in zip(centres, reached, strict=True)]
            spread(target, values, piece, shift, scratch, guarded=not np.isfinite(values).all())


def _spread_aligned(
    tile: np.ndarray,
    values: np.ndarray,
    widths: Widths,
    shifts: Sequence[int],
    scratch: Scratch,
    *,
    guarded: bool,
) -> None:
    """Spread along rows, for each distance along columns; spoils the values."""
    scratch.clear()
    rows, columns = weights = both_line_weights(widths, tile.dtype, scratch.empty)
    values /= aligned_norm(weights, 1.0)
    far, wide = widths.reach
    patched = math.prod(length + 2 * far for length, far in zip(values.shape, (far, 0, wide), strict=True))
    if not guarded and patched <= _PATCH and banded(far, wide):
        patch = banded_spread(values, weights, scratch)
        first, second = far - shifts[0], wide - shifts[1]
        tile += patch[first : first + tile.shape[0], :, second : second + tile.shape[2]]
        return
    lines = scratch.empty((len(tile), *values.shape[1:]), tile.dtype)
    scaled, product = (scratch.empty(values.shape, tile.dtype) for _ in range(2))
    for n, column in enumerate(columns):
        np.multiply(values, column, out=scaled)
        if guarded:
            clear(scaled, widths.radii[1], n)
        lines[...] = 0
        for m, row in enumerate(rows):
            part = slice(max(0, -shifts[0] - m), max(0, len(tile) - shifts[0] + m))
            term = np.multiply(scaled[part], row[part], out=product[part])
            if guarded:
                clear(term, widths.radii[0][part], m)
            for step in (m, -m):
                _add_shifted(lines, term, part.start + shifts[0] + step)
        for step in (n, -n):
            _add_shifted(tile.T, lines.T, shifts[1] + step)


def _spread_turned(
    tile: np.ndarray,
    values: np.ndarray,
    widths: Widths,
    shifts: Sequence[int],
    scratch: Scratch,
    *,
    guarded: bool,
) -> None:
    """Spread to two taps that face each other at once; spoils the values."""
    scratch.clear()
    norm, product = (scratch.empty(values.shape, tile.dtype) for _ in range(2))
    norm[...] = 1
    weights = ColumnSums(norm)
    for tap in turned_taps(widths, tile.dtype):
        weights.add(tap, 2 * tap.weight)
    weights.end_column()
    values /= norm
    columns = zeros((2, len(tile), *values.shape[1:]), tile.dtype)
    _add_shifted(columns[0], values, shifts[0])
    distance = 0

    def finish() -> None:
        for lines, step in zip(columns, (distance, -distance), strict=True):
            _add_shifted(tile.T, lines.T, shifts[1] + step)
            lines[...] = 0

    for tap in turned_taps(widths, tile.dtype):
        if tap.n != distance:
            finish()
            distance = tap.n
        term = product[tap.lines]
        term[...] = values[tap.lines]
        weighted(term, tap, widths, guarded=guarded)
        for lines, step in zip(columns, (tap.m, -tap.m), strict=True):
            _add_shifted(lines, term, tap.lines.start + shifts[0] + step)
    finish()


def _add_shifted(target: np.ndarray, source: np.ndarray, shift: int) -> None:
    """Add source[k] to target[k + shift] where there is one."""
    start, stop = max(0, -shift), min(len(source), len(target) - shift)
    if start < stop:
        part = target[start + shift : stop + shift]
        np.add(part, source[start:stop], out=part)


def gaussian_sigma_gradient(
    grad: np.ndarray,
    input: np.ndarray,
    sigmas: Maps,
    angle: np.ndarray | None,
    outputs: Sequence[np.ndarray | None],
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Multiply every output's slopes by its gradient, and sum what shares a width or an angle.

    `outputs` are for σ along rows, σ along columns and the angle, of as many axes as `grad`, of length 1
    where they are summed over; None for what is not asked.  The others are as for `gaussian`.
    """
    real = accumulator_dtype(real_dtype(dtype))
    planes = [(grad.real, input.real, window)]
    if dtype.kind == "c":
        parts = zip(real_parts(grad, window), real_parts(input, window), strict=True)
        planes = [(given, image, part) for (_, given, _), (_, image, part) in parts]
    asked = {number: output for number, output in enumerate(outputs) if output is not None}

    def sum_up(numbers: list[int]) -> None:
        shape = asked[numbers[0]].shape
        shared = tuple(1 + axis for axis, length in enumerate(shape) if length == 1)

        def add(sums: np.ndarray, where: Where, first: bool) -> None:
            values = zeros((len(numbers), *(part.stop - part.start for part in where)), real)
            scratch = Scratch(_SCRATCH)
            for given, image, part in planes:
                for here, widths, pixels in pieces(
                    image, sigmas, angle, where, part, truncate, real, weights=_PIECE
                ):
                    if angle is None:
                        slopes = _aligned_slopes(pixels.level(), widths, numbers, scratch)
                    else:
                        slopes = _turned_slopes(pixels.level(), widths, numbers)
                    factor = given[here].astype(real, copy=False)
                    for target, slope in zip(values, slopes, strict=True):
                        target[within(here, where)] += planes_first(slope, factor.shape) * factor
            add_or_assign(sums, np.add.reduce(values, axis=shared, keepdims=True), first)

        together = [asked[number] for number in numbers]
        workers = (WORKSPACE - PARTIAL) // _BYTES
        block = block_elements(grad.shape, window, (_BLOCK, _BLOCK), _PIECE // real.itemsize)
        sum_blocks(together, grad.shape, add, block=block, dtype=real, most_workers=workers)

    with serial_blas:
        for shape in dict.fromkeys(output.shape for output in asked.values()):
            sum_up([number for number, output in asked.items() if output.shape == shape])


def _aligned_slopes(
    pixels: Pixels, widths: Widths, numbers: Sequence[int], scratch: Scratch
) -> list[np.ndarray]:
    """Return ∂y/∂σ = Σ k (m² − E[m²]) x / σ³ along the axes that are asked for."""
    scratch.clear()
    rows, columns = weights = both_line_weights(widths, pixels.dtype, scratch.empty)
    steep = {axis: _times_squares(weights[axis], scratch) for axis in numbers[: 1 if widths.isotropic else 2]}
    if widths.isotropic:
        steep = dict.fromkeys(numbers, steep[numbers[0]])
    products = [(rows, steep[axis]) if axis else (steep[axis], columns) for axis in numbers]
    norm = aligned_norm(weights, pixels.scale)
    slopes = aligned_sums(pixels, widths, products, scratch)
    for axis, slope in zip(numbers, slopes, strict=True):
        slope /= norm
        _divide(slope, widths.sigmas[axis], 3)
    return slopes


def _times_squares(weights: np.ndarray, scratch: Scratch) -> np.ndarray:
    """Return w_m (m² − E[m²])."""
    squares = np.arange(len(weights), dtype=weights.dtype) ** 2
    column = squares.reshape(-1, *(1,) * (weights.ndim - 1))
    steep = np.multiply(weights, column, out=scratch.empty(weights.shape, weights.dtype))
    mean = line_sum(steep) / line_sum(weights)
    np.subtract(column, mean, out=steep)
    steep *= weights
    return steep


def _turned_slopes(pixels: Pixels, widths: Widths, numbers: Sequence[int]) -> list[np.ndarray]:
    """Return Σ k (f − E[f]) x for f = u²/σ_r³, v²/σ_c³ and u v (1/σ_c² − 1/σ_r²), u and v being in pixels."""
    total, dtype = centre_pixels(pixels), pixels.dtype
    norm = np.ones_like(total)
    sums, means = zeros((2, len(numbers), *total.shape), dtype)
    added = ColumnSums(norm, total, *sums, *means)
    for tap, pair in turned_pairs(pixels, widths):
        weighted(pair, tap, widths, guarded=pixels.guarded)
        squares = tap.u * tap.u, tap.v * tap.v, tap.u * tap.v
        factors = [squares[number].astype(dtype) for number in numbers]
        for factor in factors:
            np.copyto(factor, 0, where=tap.weight == 0)
        double = 2 * tap.weight
        terms = *(factor * pair for factor in factors), *(factor * double for factor in factors)
        added.add(tap, double, pair, *terms)
    added.end_column()
    rows, columns = widths.sigmas
    for at, number in enumerate(numbers):
        sums[at] -= means[at] / norm * total
        sums[at] /= norm * dtype.type(pixels.scale)
        if number < 2:
            _divide(sums[at], widths.sigmas[number], 1)
        else:
            sums[at] *= np.where(rows > 0, rows / columns - columns / rows, 0).astype(dtype)
    return list(sums)


def _divide(slope: np.ndarray, sigma: np.ndarray, power: int) -> None:
    """Divide by a power of σ; 0 where σ is 0."""
    wide = sigma.astype(np.result_type(sigma, slope), copy=False)
    factor = np.minimum(1 / (wide * wide * wide if power == 3 else wide), np.finfo(slope.dtype).max)
    slope *= factor.astype(slope.dtype, copy=False)
    np.copyto(slope, 0, where=sigma == 0)
