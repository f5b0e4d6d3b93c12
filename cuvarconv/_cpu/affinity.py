"""d[m,n,i,j] = exp(−½ Σ_c (g[c,i+m,j+n] − g[c,i,j])² / σ²), and its gradient."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cuvarconv._axis import CVAL
from cuvarconv._blocks import Where, blocks
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._runs import Term, spread_block
from cuvarconv._cpu._sums import add_in_order
from cuvarconv._cpu._tiles import WORKSPACE, gather, shifted_pixels, store
from cuvarconv._cpu._workers import for_each
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_BLOCK = 1 << 17  # features in one block
_TILE = 1 << 19  # features under their windows
_BYTES = 16 << 20  # that a worker takes


def affinity(
    guide: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    centre: tuple[int, int],
    sharpness: float,
    dtype: np.dtype,
) -> None:
    """Write tap after tap; what lies outside the image is not alike.

    `guide` is (batch…, C, H, W), `output` (kh, kw, batch…, H_out, W_out), `centre` the tap at the
    window's centre, `sharpness` 1/σ and `dtype` the computing dtype.
    """
    dtype = accumulator_dtype(dtype)

    def block(where: Where) -> None:
        *batch, down, across = where
        target = output[(slice(None), slice(None), *where)]
        for m, n, difference in _differences(
            guide[tuple(batch)], window.part(down, across), centre, sharpness, dtype
        ):
            store(target[m, n], _likeness(difference))

    pieces = blocks(output.shape[2:], max(1, _BLOCK // guide.shape[-3]))
    for_each(block, pieces, most_workers=WORKSPACE // _BYTES)


def affinity_gradient(
    grad: np.ndarray,
    guide: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    centre: tuple[int, int],
    sharpness: float,
    dtype: np.dtype,
) -> None:
    """g[h] = Σ e·(g_centre − g[h]) over outputs that read h, and Σ e·(g_tap − g[h]) over those centred there.

    Here e = grad·d/σ², and differences are divided by σ before they are squared.  `grad` is (kh, kw,
    batch…, H_out, W_out), `output` (batch…, C, H, W), the others are as for `affinity`.
    """
    dtype = accumulator_dtype(dtype)
    middle = _tap(window, *centre)

    def block(where: Where) -> None:
        *batch, down, across = where
        planes, given = guide[tuple(batch)], grad[(slice(None), slice(None), *batch)]
        target = output[(*batch, slice(None), down, across)]

        def read_row(m: int, i: slice, _: slice) -> Term:
            def term(n: int, j: slice) -> np.ndarray:
                part = window.part(i, j)
                ((_, _, difference),) = _differences(planes, part, centre, sharpness, dtype, (m, n))
                return -_slope(difference, given[m, n][..., i, j], sharpness)

            return term

        def centre_row(_m: int, i: slice, _: slice) -> Term:
            def term(_n: int, j: slice) -> np.ndarray:
                total = zeros((*planes.shape[:-2], i.stop - i.start, j.stop - j.start), dtype)
                part = window.part(i, j)
                for m, n, difference in _differences(planes, part, centre, sharpness, dtype):
                    slope = _slope(difference, given[m, n][..., i, j], sharpness)
                    total += _clear_outside(slope, _tap(part, m, n))
                return total

            return term

        total = zeros(target.shape, dtype)
        spread_block(total, window, down, across, read_row)
        spread_block(total, middle, down, across, centre_row)
        store(target, total)

    pieces = blocks((*output.shape[:-3], *output.shape[-2:]), max(1, _BLOCK // guide.shape[-3]))
    for_each(block, pieces, most_workers=WORKSPACE // _BYTES)


def _slope(difference: np.ndarray, grad: np.ndarray, sharpness: float) -> np.ndarray:
    """Return e·difference·σ; spoils `difference`, which is in units of σ."""
    factor = _likeness(difference) * grad.astype(difference.dtype, copy=False)
    factor *= difference.dtype.type(sharpness)
    return np.multiply(difference, factor[..., None, :, :], out=difference)


def _tap(window: Window, m: int, n: int) -> Window:
    return window.taps(slice(m, m + 1), slice(n, n + 1))


def _differences(
    planes: np.ndarray,
    window: Window,
    centre: tuple[int, int],
    sharpness: float,
    dtype: np.dtype,
    only: tuple[int, int] | None = None,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (m, n, (feature under the tap − feature at the centre)/σ), infinite where the tap is outside."""
    middle = _tap(window, *centre)
    central = gather(planes, middle.rows.table(), middle.columns.table(), 0.0, dtype)
    first_row, first_column = only or (0, 0)
    window = _tap(window, *only) if only else window
    for row_taps, column_taps, pixels in shifted_pixels(planes, window, np.inf, dtype, _TILE):
        for m, row in enumerate(pixels, start=first_row + row_taps.start):
            for n, shifted in enumerate(row, start=first_column + column_taps.start):
                yield m, n, np.subtract(shifted, central) * dtype.type(sharpness)


def _clear_outside(values: np.ndarray, tap: Window) -> np.ndarray:
    """Set what belongs to a tap outside the image to 0."""
    values[..., tap.rows.table().sources == CVAL, :] = 0
    values[..., tap.columns.table().sources == CVAL] = 0
    return values


def _likeness(difference: np.ndarray) -> np.ndarray:
    distance = add_in_order(difference * difference, axis=-3)
    distance *= difference.dtype.type(-0.5)
    return np.exp(distance, out=distance)
