"""The Gaussian of every pixel: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n] / Σ_{m,n} k[m,n,i,j]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cuvarconv._blocks import Where, rectangles
from cuvarconv._cpu._mirrored import Pixels, read_pixels, real_dtype, real_parts
from cuvarconv._cpu._tiles import WORKSPACE, store
from cuvarconv._cpu._widths import (
    Maps,
    Widths,
    active_lines,
    common,
    line_sum,
    line_weights,
    planes_first,
    read_widths,
    turned_weights,
)
from cuvarconv._cpu._workers import for_each
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_BLOCK = 1 << 13  # outputs; their arrays stay in the second-level cache
_WIDTH = 64  # columns of a block: narrow ones follow σ more closely
_WEIGHTS = 4 << 20  # bytes of a block's weights along one axis
_BYTES = 16 << 20  # that a worker takes


def gaussian(
    input: np.ndarray,
    sigmas: Maps,
    angle: np.ndarray | None,
    output: np.ndarray,
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Add the pixels that have the same weight before they are multiplied, block after block.

    `input` and `output` are (batch…, H, W), σ for rows and for columns and the `angle` (or None) maps of as
    many axes, of length 1 where they broadcast to the output; `truncate` is None where the window is
    every pixel's; `dtype` is the computing dtype.
    """
    if dtype.kind == "c":
        for name, plane, part in real_parts(input, window):
            target, real = getattr(output, name), real_dtype(dtype)
            gaussian(plane, sigmas, angle, target, part, truncate=truncate, dtype=real)
        return
    dtype = accumulator_dtype(dtype)
    reach = window.rows.taps // 2, window.columns.taps // 2

    def block(where: Where) -> None:
        target = output[where]
        widths = read_widths(sigmas, angle, where, target.shape, truncate=truncate, reach=reach)
        pixels = read_pixels(input, where, window, widths.reach, dtype)
        total = _aligned(pixels, widths) if widths.angle is None else _turned(pixels, widths)
        store(target, planes_first(total, target.shape))

    pieces = rectangles(output.shape, block_size(reach, dtype), _WIDTH)
    for_each(block, pieces, most_workers=WORKSPACE // _BYTES)


def block_size(reach: tuple[int, int], dtype: np.dtype) -> int:
    """Return how many outputs have weights that fit in a worker's memory."""
    return max(1, min(_BLOCK, _WEIGHTS // (dtype.itemsize * (max(reach) + 1))))


def _aligned(pixels: Pixels, widths: Widths) -> np.ndarray:
    """Return the sums with weights that are products of one along rows and one along columns."""
    rows, columns = weights = aligned_weights(widths, pixels.dtype)
    (total,) = aligned_sums(pixels, widths, [weights])
    total /= line_sum(rows) * line_sum(columns) * pixels.dtype.type(pixels.scale)
    return total


def aligned_weights(widths: Widths, dtype: np.dtype) -> Maps:
    """Return the weights along rows and along columns, by distance."""
    rows = line_weights(widths.sigmas[0], widths.radii[0], dtype)
    if widths.isotropic:
        return rows, rows
    return rows, line_weights(widths.sigmas[1], widths.radii[1], dtype)


def aligned_sums(pixels: Pixels, widths: Widths, products: Sequence[Maps]) -> list[np.ndarray]:
    """Return Σ_{m,n} a_m b_n x[i+m,j+n] for each pair (a, b) of weights that are even in m and in n."""
    lines = active_lines(widths.radii[0]), active_lines(widths.radii[1])
    shape, dtype = widths.sigmas[0].shape, pixels.dtype
    totals = [np.zeros(shape, dtype) for _ in products]
    sums = [np.empty(shape, dtype) for _ in products]
    taps, product = np.empty(shape, dtype), np.empty(shape, dtype)
    centre = pixels.reach[0]
    for n, part in enumerate(lines[1]):
        columns = pixels.folded(n)
        for (rows, _), row_sum in zip(products, sums, strict=True):
            np.multiply(columns[centre + part.start : centre + part.stop], rows[0][part], out=row_sum[part])
        for m, reached in enumerate(lines[0][1:], start=1):
            here = common(reached, part)
            if here is None:
                break
            start, stop = centre + here.start, centre + here.stop
            pair = np.add(columns[start + m : stop + m], columns[start - m : stop - m], out=taps[here])
            for (rows, _), row_sum in zip(products, sums, strict=True):
                term = np.multiply(pair, rows[m][here], out=product[here])
                if pixels.guarded:
                    clear(term, widths.radii[0][here], m)
                np.add(row_sum[here], term, out=row_sum[here])
        for (_, weights), row_sum, total in zip(products, sums, totals, strict=True):
            term = np.multiply(row_sum[part], weights[n][part], out=product[part])
            if pixels.guarded:
                clear(term, widths.radii[1][part], n)
            np.add(total[part], term, out=total[part])
    return totals


def clear(values: np.ndarray, radii: np.ndarray, distance: int) -> None:
    """Set to 0 what belongs to pixels that do not reach so far."""
    np.copyto(values, 0, where=radii < distance)


def _turned(pixels: Pixels, widths: Widths) -> np.ndarray:
    """Return the sums with weights of any direction, two taps that face each other at once."""
    total = centre_pixels(pixels)
    norm = np.ones_like(total)
    for m, n, here, pair, weight in turned_pairs(pixels, widths):
        norm[here] += 2 * weight
        pair *= weight
        if pixels.guarded:
            clear(pair, widths.radii[0][here], abs(m))
            clear(pair, widths.radii[1][here], n)
        total[here] += pair
    total /= norm * pixels.dtype.type(pixels.scale)
    return total


def centre_pixels(pixels: Pixels) -> np.ndarray:
    """Return a copy of the pixels at the windows' centres."""
    first = pixels.reach[0]
    return np.array(pixels.shifted(0)[first : first + pixels.window.rows.length], order="C")


def turned_pairs(
    pixels: Pixels, widths: Widths
) -> Iterator[tuple[int, int, slice, np.ndarray, np.ndarray]]:
    """Yield (m, n, lines, x[i+m,j+n] + x[i−m,j−n], its weight) for half of the window, without its centre."""
    taps = np.empty(widths.sigmas[0].shape, pixels.dtype)
    centre, distance = pixels.reach[0], -1
    right = left = taps
    for m, n, here, weight in turned_weights(widths, pixels.dtype):
        if n != distance:
            distance = n
            right, left = (np.ascontiguousarray(pixels.shifted(step)) for step in (n, -n))
        start, stop = centre + here.start, centre + here.stop
        pair = np.add(right[start + m : stop + m], left[start - m : stop - m], out=taps[here])
        yield m, n, here, pair, weight
