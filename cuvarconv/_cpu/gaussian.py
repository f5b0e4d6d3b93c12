"""The Gaussian of every pixel: y[i,j] = Σ_{m,n} k[m,n,i,j] x[i+m,j+n] / Σ_{m,n} k[m,n,i,j]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cuvarconv._blocks import Where, rectangles
from cuvarconv._cpu._cuts import cuts
from cuvarconv._cpu._mirrored import Pixels, read_pixels, real_dtype, real_parts
from cuvarconv._cpu._tiles import WORKSPACE, store
from cuvarconv._cpu._widths import (
    Maps,
    Widths,
    line_sum,
    line_weights,
    planes_first,
    read_widths,
    turned_weights,
)
from cuvarconv._cpu._workers import for_each
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_BLOCK = (1 << 15, 256)  # outputs, and columns of them, that are cut further where their radii differ
_PIECE = 1 << 14  # outputs; their arrays stay in the caches
_WEIGHTS = 4 << 20  # bytes of a piece's weights along one axis
_BYTES = 20 << 20  # that a worker takes


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

    def block(where: Where) -> None:
        for here, widths, pixels in pieces(input, sigmas, angle, where, window, truncate, dtype):
            target = output[here]
            total = _aligned(pixels, widths) if widths.angle is None else _turned(pixels, widths)
            store(target, planes_first(total, target.shape))

    for_each(block, rectangles(output.shape, *_BLOCK), most_workers=WORKSPACE // _BYTES)


def pieces(
    input: np.ndarray,
    sigmas: Maps,
    angle: np.ndarray | None,
    where: Where,
    window: Window,
    truncate: float | None,
    dtype: np.dtype,
) -> Iterator[tuple[Where, Widths, Pixels]]:
    """Cut a block of outputs, and read what belongs to each piece."""
    reach = window.rows.taps // 2, window.columns.taps // 2
    *batch, down, across = where
    shape = (*input[tuple(batch)].shape[:-2], down.stop - down.start, across.stop - across.start)
    whole = read_widths(sigmas, angle, where, shape, truncate=truncate, reach=reach)
    most = min(_PIECE, _WEIGHTS // (dtype.itemsize * (max(whole.reach) + 1)))
    for rows, columns in cuts(whole.radii, most):
        widths = whole.part(rows, columns)
        here = (
            *batch,
            slice(down.start + rows.start, down.start + rows.stop),
            slice(across.start + columns.start, across.start + columns.stop),
        )
        yield here, widths, read_pixels(input, here, window, widths.reach, dtype)


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
    shape = widths.sigmas[0].shape
    sums = [np.empty((len(columns), *shape), pixels.dtype) for _, columns in products]
    pairs = np.empty((pixels.reach[0] + 1, *shape), pixels.dtype)
    for n in range(pixels.reach[1] + 1):
        above, below = facing_lines(pixels.folded(n), pixels.reach[0])
        np.add(above, below, out=pairs)
        pairs[0] *= 0.5  # the centre was counted twice
        for (rows, _), row_sums in zip(products, sums, strict=True):
            row_sums[n] = _sum_of_products(pairs, rows, widths.radii[0], pixels.guarded)
    return [
        _sum_of_products(row_sums, columns, widths.radii[1], pixels.guarded)
        for row_sums, (_, columns) in zip(sums, products, strict=True)
    ]


def _sum_of_products(values: np.ndarray, weights: np.ndarray, radii: np.ndarray, guarded: bool) -> np.ndarray:
    """Return Σ_m w_m v_m; if `guarded`, over the distances m that each pixel reaches alone."""
    if not guarded:
        flat = len(values), -1
        return np.einsum("mk,mk->k", values.reshape(flat), weights.reshape(flat)).reshape(values.shape[1:])
    terms = values * weights
    for distance, term in enumerate(terms):
        clear(term, radii, distance)
    return np.add.reduce(terms, axis=0)


def facing_lines(lines: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """View lines once for every distance 0 … reach, so far above and so far below the block's own."""
    step, *rest = lines.strides
    shape = (reach + 1, lines.shape[0] - 2 * reach, *lines.shape[1:])
    first = lines[reach:]
    return (
        as_strided(first, shape, (-step, step, *rest)),
        as_strided(first, shape, (step, step, *rest)),
    )


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
