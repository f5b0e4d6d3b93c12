"""Weighted means over the pixels that count: convolution with missing data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._axis import CVAL
from cuvarconv._backend import Call, receive
from cuvarconv._blocks import blocks, matching, tap_chunks
from cuvarconv._dtypes import accumulator_dtype, computing_dtype, is_exact, product_dtype
from cuvarconv._shapes import align, align_map, image_axes_last, kernel_size, with_image
from cuvarconv._window import Window, make_window

_BLOCK = 1 << 18  # outputs
_SQUARES = 1 << 20  # kernel entries that are squared at a time
_TILE = 1 << 19  # pixels under their windows


def normalized_correlate(
    input: Any,
    weights: Any,
    mask: Any = None,
    *,
    mode: Any = "reflect",
    origin: Any = 0,
    variance: Any = None,
    output: Any = None,
    axes: Any = (-2, -1),
    stride: Any = 1,
    dilation: Any = 1,
) -> Any:
    """Correlate the pixels that count, and divide by the weights that met one.

    .. math::

        y[…,i,j] = Σ_{m,n} k[m,n,…,i,j] c[…,p,q] x[…,p,q] / Σ_{m,n} k[m,n,…,i,j] c[…,p,q]

    with (p, q) the pixel under tap (m, n), as for `correlate`, and c the `mask`.  Pixels with c = 0 do
    not count whatever they hold, NaN included, so missing ones are filled from their surroundings.

    Parameters
    ----------
    input : array_like
        Images, shape (…, H, W).
    weights : array_like
        Kernels, shape (kh, kw) + S, where S broadcasts to the output's shape; conjugated if complex.
    mask : array_like, optional
        How much each pixel counts: bool, or a real certainty, of a shape that broadcasts to the
        input's.  Without it those pixels count that are finite.
    mode : str or pair of str, optional
        What lies outside the image, as for `correlate`.  Reflected or repeated pixels count as those
        that they repeat; under ``"constant"`` nothing outside counts, and there is no `cval`.
    origin : int or pair of int, optional
        Shift of the window in taps.
    variance : array_like, optional
        Variance of each pixel, real, of a shape that broadcasts to the input's.  The result is then a
        pair, and its second array the variance of the first, errors of different pixels being
        independent: Σ |k c|² variance / |Σ k c|².
    output : array or dtype, optional
        Where to put y, or its dtype.
    axes : pair of int, optional
        The image axes.
    stride, dilation : int or pair of int, optional
        Step in pixels between outputs, and between taps.

    Returns
    -------
    array, or pair of arrays
        y, of the dtype that ``numpy.result_type`` gives for the inexact operands, float64 if there is
        none; NaN where the divisor is 0, as where no pixel under the window counts.

    Raises
    ------
    TypeError
        For kinds of arrays and dtypes that are not supported, and a complex `mask` or `variance`.
    ValueError
        For values and shapes that do not fit.

    Notes
    -----
    A pixel that repeats another at the border (mode ``"reflect"``) has the same error, so that the
    propagated variance is right away from borders, and under ``"constant"`` and ``"valid"``.

    References
    ----------
    .. [1] H. Knutsson and C.-F. Westin, "Normalized and differential convolution", CVPR 1993.
    .. [2] `astropy.convolution.convolve`, which fills NaN in the same way.

    Examples
    --------
    A missing pixel takes the mean of its neighbours:

    >>> import numpy as np
    >>> import cuvarconv
    >>> image = np.array([[1.0, np.nan, 3.0, 5.0]])
    >>> cuvarconv.normalized_correlate(image, np.ones((1, 3)))
    array([[1.        , 2.        , 4.        , 4.33333333]])
    """
    optional = {"mask": mask, "variance": variance}
    given = {name: array for name, array in optional.items() if array is not None}
    with receive(output, input=input, weights=weights, **given) as call:
        images, kernels = call.operands[:2]
        maps = dict(zip(given, call.operands[2:], strict=True))
        order = image_axes_last(images.ndim, axes)
        window = make_window(
            kernel_size("weights", kernels.shape),
            (images.shape[order[-2]], images.shape[order[-1]]),
            mode=mode,
            cval=0.0,
            origin=origin,
            stride=stride,
            dilation=dilation,
        )
        shape = with_image(images.shape, order, window.output_shape)
        kernels_last = align("weights", kernels, shape, order)
        for name, array in maps.items():
            maps[name] = _aligned(name, array, images.shape, order)
        dtype = _dtype(images, kernels, *maps.values())
        result = call.target(shape, call.output_dtype(dtype))
        results = [result]
        if variance is not None:
            results.append(call.fresh(shape, np.empty((), dtype).real.dtype))
        _fill(
            call,
            images.transpose(order),
            kernels_last,
            [array.transpose(order) for array in results],
            window,
            accumulator_dtype(computing_dtype((dtype,), result.dtype)),
            maps,
        )
        delivered = call.deliver(result)
        return delivered if variance is None else (delivered, call.hand_over(results[1]))


def _aligned(name: str, array: Any, shape: tuple[int, ...], order: tuple[int, ...]) -> Any:
    if array.dtype.kind == "c":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return align_map(name, array, shape, order)


def _dtype(*operands: Any) -> np.dtype:
    """Return the result's dtype; counts and flags leave that of the data as it is."""
    inexact = tuple(operand.dtype for operand in operands if not is_exact(operand.dtype))
    return product_dtype(inexact or (np.dtype(np.float64),))


@dataclass(frozen=True)
class _Sums:
    """What a block of outputs adds up: Σ k c x, Σ k c and, if asked for, Σ |k c|² variance."""

    values: Any
    counts: Any
    errors: Any


def _fill(
    call: Call, images: Any, kernels: Any, results: list[Any], window: Window, dtype: np.dtype, maps: Any
) -> None:
    """Write block after block, so that the work takes little memory."""
    backend = call.home.backend
    for where in blocks(results[0].shape, _BLOCK):
        *batch, down, across = where
        planes = images[tuple(batch)]
        local = {name: _of(array, batch, planes.shape) for name, array in maps.items()}
        taps = kernels[(slice(None), slice(None), *matching(kernels, where))]
        sums = _sums(call, planes, taps, window.part(down, across), dtype, **local)
        backend.store(results[0][where], _quotient(sums.values, sums.counts))
        if sums.errors is not None:
            backend.store(results[1][where], _quotient(sums.errors, _squared(sums.counts)))


def _sums(
    call: Call,
    planes: Any,
    kernels: Any,
    window: Window,
    dtype: np.dtype,
    mask: Any = None,
    variance: Any = None,
) -> _Sums:
    correlate, empty = call.home.backend.correlate, call.home.backend.empty
    shape = (*planes.shape[:-2], *window.output_shape)
    one, *totals = (empty(shape, dtype) for _ in range(3 if variance is None else 4))
    for total in totals:
        total[...] = 0
    most = None if variance is None else max(1, _SQUARES // max(1, kernels[0, 0].size))
    for rows, columns in tap_chunks(window, planes[..., 0, 0].size, _TILE, most_taps=most):
        chunk, taps = window.taps(rows, columns), kernels[rows, columns]
        gathered = Window(chunk.rows.gathered(), chunk.columns.gathered(), 0.0)
        tile = _gather(planes, chunk).astype(dtype, copy=False)
        counts = np.isfinite(tile) if mask is None else _gather(mask, chunk)
        counts = counts * _inside(call, chunk)
        terms = [(_times(tile, counts), taps, taps.dtype.kind == "c"), (counts, taps, taps.dtype.kind == "c")]
        if variance is not None:
            errors = _gather(variance, chunk).astype(dtype, copy=False)
            terms.append((_times(errors, counts * counts), _squared(taps.astype(dtype, copy=False)), False))
        for total, (factor, some, conjugate) in zip(totals, terms, strict=True):
            correlate(factor, some, one, gathered, dtype=dtype, conjugate=conjugate)
            total += one
    return _Sums(*totals, *(() if variance is not None else (None,)))


def _of(values: Any, batch: list[slice], shape: tuple[int, ...]) -> Any:
    """View the part of a map that belongs to some planes, at their whole shape."""
    every = slice(None)
    return np.broadcast_to(values[matching(values, (*batch, every, every))], shape)


def _gather(planes: Any, window: Window) -> Any:
    """Return the pixels that a window reads, in the order of its tables; any pixel where that is none."""
    for along, axis in ((-2, window.rows), (-1, window.columns)):
        table = axis.table()
        sources: Any = np.maximum(table.sources, 0)
        if (table.first, table.last) == (0, len(sources)):  # neighbours: a view
            sources = slice(int(sources[0]), int(sources[-1]) + 1)
        planes = planes[..., sources, :] if along == -2 else planes[..., sources]
    return planes


def _inside(call: Call, window: Window) -> Any:
    """Return 1 for what a window reads inside the image, 0 outside."""
    rows, columns = (axis.table().sources != CVAL for axis in (window.rows, window.columns))
    inside = call.home.backend.empty((len(rows), len(columns)), np.dtype(bool))
    inside[...] = True
    for run in _runs(~rows):
        inside[run] = False
    for run in _runs(~columns):
        inside[:, run] = False
    return inside


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
