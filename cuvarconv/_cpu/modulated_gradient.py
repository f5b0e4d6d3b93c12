"""The gradients of equation (2): products with the conjugates of the other two operands."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._cpu._aligned import zeros
from cuvarconv._cpu._columns import (
    MATRIX,
    Slab,
    by_group,
    columns_at_once,
    modulated,
    multiply,
    pieces,
    plan,
    product,
    slabs,
    tap_matrices,
)
from cuvarconv._cpu._modulated_adjoint import Adjoint
from cuvarconv._cpu._runs import Term, spread_block, spread_tiles
from cuvarconv._cpu._sums import add_or_assign, sum_blocks
from cuvarconv._cpu._tiles import move_axis, store
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

_PIECE = MATRIX // 2  # elements of a matrix that are copied twice: to conjugate and to order them


def modulated_input_gradient(
    grad: np.ndarray,
    weights: np.ndarray,
    modulation: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    groups: int,
    dtype: np.dtype,
) -> None:
    """g_x[c,h,w] = Σ conj(w[o,c,m,n] d[m,n,c,i,j]) g[o,i,j] over all o and all (i, j) that read (h, w).

    `grad` is (batch…, C_out, H_out, W_out), `output` (batch…, C_in, H, W), `weights` and `modulation`
    as for `modulated_correlate`; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    matrices = tap_matrices(weights, groups, dtype)
    channels = output.shape[-3]

    def block(where: Where) -> None:
        *batch, down, across = where
        target = output[(*batch, slice(None), down, across)]
        planes, every = grad[tuple(batch)], (*batch, slice(None), slice(None), slice(None))
        factors = modulation[(slice(None), slice(None), *matching(modulation, every))]
        total = zeros((channels, *target.shape[:-3], *target.shape[-2:]), dtype)
        images = move_axis(total, 0, -3)
        adjoint = Adjoint(matrices, planes, factors, dtype)

        def row_terms(m: int, i: slice, hull: slice) -> Term:
            row = factors[m][..., i if factors.shape[-2] > 1 else slice(None), :]
            return _InputTerms(matrices[:, :, m], planes[..., i, hull], row, hull.start, dtype)

        if adjoint.fits(window):
            spread_tiles(images, window, down, across, functools.partial(adjoint.tile, images))
        else:
            spread_block(images, window, down, across, row_terms)
        store(move_axis(target, -3, 0), total)

    domain = *output.shape[:-3], *output.shape[-2:]
    cut, workers = pieces(domain, window, channels, grad.shape[-3], dtype)
    with serial_blas:
        for_each(block, cut, most_workers=workers)


class _InputTerms:
    """What the taps of one row add to the input's gradient: conj(d) · (wᴴ g), some taps at a time."""

    def __init__(
        self, matrix: np.ndarray, grad: np.ndarray, modulation: np.ndarray, first: int, dtype: np.dtype
    ) -> None:
        self._matrix, self._modulation, self._first = matrix, modulation, first
        self._grad = by_channel(grad, len(matrix), dtype)
        self._images = (*grad.shape[:-3], *grad.shape[-2:])
        self._at_once = columns_at_once(math.prod(matrix.shape[::3]) * math.prod(self._images))
        self._taps = range(0)
        self._products = self._grad

    def __call__(self, n: int, j: slice) -> np.ndarray:
        """Return the term of column tap n, (batch…, C_in, rows, columns j)."""
        if n not in self._taps:
            some = slice(n, n + self._at_once)
            self._products = back_project(self._matrix[:, :, some], self._grad)
            self._taps = range(n, n + self._products.shape[1])
        groups, _, channels, _ = self._products.shape
        products = self._products[:, n - self._taps.start].reshape(groups, channels, *self._images)
        factor = self._modulation[None, n : n + 1, ..., j if self._modulation.shape[-1] > 1 else slice(None)]
        factor = by_group(factor.astype(products.dtype, copy=False).conj(), groups)[:, 0, 0]
        shifted = products[..., j.start - self._first : j.stop - self._first]
        parts = shifted.reshape(groups, factor.shape[1], -1, *shifted.shape[2:])  # a view: used only here
        np.multiply(parts, factor, out=parts)
        return move_axis(shifted.reshape(groups * channels, *shifted.shape[2:]), 0, -3)


def by_channel(grad: np.ndarray, groups: int, dtype: np.dtype) -> np.ndarray:
    """View or copy (batch…, C_out, H, W) as (groups, C_out/groups, pixels)."""
    first = move_axis(grad, -3, 0).astype(dtype, copy=False)
    return first.reshape(groups, len(first) // groups, -1)


def _under(slab: Slab, grad: np.ndarray, groups: int, dtype: np.dtype) -> np.ndarray:
    """Return the pixels of a slab out of a block (batch…, C_out, H, W), by channel."""
    *batch, down, across = slab.where
    return by_channel(grad[(*batch, slice(None), down, across)], groups, dtype)


def back_project(
    matrix: np.ndarray, grad: np.ndarray, empty: Callable[..., np.ndarray] = np.empty
) -> np.ndarray:
    """Return Σ_o conj(w[o,…,c]) g[o], (groups, …, C_in/groups, pixels); `empty` makes the result."""
    groups, outputs, *taps, channels = matrix.shape
    products = empty((groups, *taps, channels, grad.shape[-1]), grad.dtype)
    if matrix.size <= _PIECE:
        _back_product(matrix, grad, products.reshape(groups, -1, grad.shape[-1]))
        return products
    at_once = max(1, _PIECE // (groups * outputs))
    for tap in np.ndindex(*taps):
        for first in range(0, channels, at_once):
            some = slice(first, first + at_once)
            _back_product(matrix[(..., *tap, some)], grad, products[(slice(None), *tap, some)])
    return products


def _back_product(matrix: np.ndarray, grad: np.ndarray, out: np.ndarray) -> None:
    """Write conj(wᵀ) g, (groups, K, pixels), K being all axes of the matrix after the outputs."""
    rows = matrix.astype(grad.dtype, copy=False).conj().reshape(*matrix.shape[:2], -1)
    columns = rows.swapaxes(-1, -2)
    if matrix.shape[1] == 1:  # BLAS takes ten times as long as NumPy where there is nothing to sum
        np.multiply(columns, grad, out=out)
    else:
        product(columns, grad, out)


def modulated_weights_gradient(
    grad: np.ndarray,
    input: np.ndarray,
    modulation: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    groups: int,
    dtype: np.dtype,
) -> None:
    """g_w[o,c,m,n] = Σ conj(d[m,n,c,i,j] x[c,i+m,j+n]) g[o,i,j] over samples and pixels.

    `output` is (C_out, C_in/groups, kh, kw), the others are as for `modulated_input_gradient`.
    """
    dtype = accumulator_dtype(dtype)
    domain = (*grad.shape[:-3], *grad.shape[-2:])
    outputs = output.shape[0]

    def add(sums: np.ndarray, where: Where, first: bool) -> None:
        *batch, down, across = where
        everywhere = (*batch, slice(None), down, across)
        factors = modulation[(slice(None), slice(None), *matching(modulation, everywhere))]
        totals = sums.reshape(groups, outputs // groups, *output.shape[1:])
        for slab in slabs(input[tuple(batch)], window.part(down, across), groups, dtype, outputs // groups):
            given = _under(slab, grad[everywhere], groups, dtype)
            columns = modulated(slab, factors)
            if dtype.kind == "c":
                np.conjugate(columns, out=columns)
            _add_outer(totals[(..., *slab.taps)], given, columns, first and slab.is_first_in(sums))

    pixels, workers = plan(window, input.shape[-3], outputs, dtype)
    sums = output[(..., *(None,) * len(domain))]
    with serial_blas:
        sum_blocks(sums, domain, add, block=pixels, dtype=dtype, most_workers=workers)


def _add_outer(totals: np.ndarray, given: np.ndarray, columns: np.ndarray, first: bool) -> None:
    """Add (outputs x pixels) · (pixels x (m, n, C_in/groups)) to (groups, outputs, C_in/groups, m, n)."""
    groups, outputs, channels, *taps = totals.shape
    rows = columns.swapaxes(-1, -2)
    at_once = columns_at_once(groups * rows.shape[-1])
    for begin in range(0, outputs, at_once):
        some = slice(begin, begin + at_once)
        product = multiply(given[:, some], rows).reshape(groups, -1, *taps, channels)
        add_or_assign(totals[:, some], move_axis(product, -1, 2), first)


def modulated_modulation_gradient(
    grad: np.ndarray,
    input: np.ndarray,
    weights: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    groups: int,
    dtype: np.dtype,
) -> None:
    """g_d[m,n,c,i,j] = conj(x[c,i+m,j+n]) Σ_o conj(w[o,c,m,n]) g[o,i,j], summed over what shares an entry.

    `output` is (kh, kw, batch…, G, H_out, W_out) with axes of length 1 where the modulation was shared,
    the others are as for `modulated_input_gradient`.
    """
    dtype = accumulator_dtype(dtype)
    matrices = tap_matrices(weights, groups, dtype)

    def add(sums: np.ndarray, where: Where, first: bool) -> None:
        *batch, down, across = where
        part = window.part(down, across)
        planes = grad[(*batch, slice(None), down, across)]
        for slab in slabs(input[tuple(batch)], part, groups, dtype, matrices.shape[1]):
            matrix = matrices[(slice(None), slice(None), *slab.taps)]
            products = back_project(matrix, _under(slab, planes, groups, dtype), slab.scratch.empty)
            target = sums[(*slab.taps, slice(None), *matching(sums, slab.where))]
            _add_values(
                target, products.reshape(slab.pixels.shape), slab.pixels, first and slab.is_first_in(sums)
            )

    pixels, workers = plan(window, input.shape[-3], grad.shape[-3], dtype)
    sums = move_axis(output, -3, 2)
    domain = (*grad.shape[:-3], *grad.shape[-2:])
    with serial_blas:
        sum_blocks(sums, domain, add, block=pixels, dtype=dtype, most_workers=workers)


def _add_values(target: np.ndarray, products: np.ndarray, pixels: np.ndarray, first: bool) -> None:
    """Add conj(x)·products, (groups, m, n, channels, batch…, H, W), to (m, n, entries, batch…, H, W).

    They are summed over the channels of each entry, and over the axes where the target has length 1.
    """
    groups, height, width, channels, *images = products.shape
    entries = target.shape[2]
    parts = math.lcm(groups, entries) // groups  # that each lie within one group and one entry
    split = (groups, height, width, parts, channels // parts, *images)
    products, pixels = products.reshape(split), pixels.conj().reshape(split)
    aligned, shared = groups * parts == entries, list(target.shape[3:]) != images
    if first and aligned and not shared:
        by_part = target.reshape(height, width, groups, parts, *images)
        _sum_channels(products, pixels, move_axis(by_part, 2, 0))
        return
    values = _sum_channels(products, pixels, np.empty((*split[:4], *images), products.dtype))
    values = move_axis(values, 0, 2).reshape(height, width, groups * parts, *images)
    if not aligned:
        values = np.add.reduce(values.reshape(height, width, entries, -1, *images), axis=3)
    if shared:
        axes = tuple(axis for axis in range(3, values.ndim) if target.shape[axis] == 1)
        values = np.add.reduce(values, axis=axes, keepdims=True)
    add_or_assign(target, values, first)


def _sum_channels(products: np.ndarray, pixels: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write Σ_c x·products for (groups, m, n, parts, c, batch…, H, W)."""
    if products.shape[4] == 1:
        return np.multiply(products[:, :, :, :, 0], pixels[:, :, :, :, 0], out=out)
    return np.einsum("gmnpc...,gmnpc...->gmnp...", products, pixels, out=out)
