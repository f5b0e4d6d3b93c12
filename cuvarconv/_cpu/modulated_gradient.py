"""The gradients of equation (2): products with the conjugates of the other two operands."""

from __future__ import annotations

import math

import numpy as np

from cuvarconv._blocks import Where, blocks, matching
from cuvarconv._cpu._runs import Term, spread_block
from cuvarconv._cpu._sums import add_or_assign, sum_blocks
from cuvarconv._cpu._tiles import store
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._cpu.modulated import (
    by_group,
    columns_at_once,
    plan,
    row_columns,
    row_matrices,
    row_pixels,
)
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window


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
    matrices = row_matrices(weights, groups, dtype)
    channels = output.shape[-3]

    def block(where: Where) -> None:
        *batch, down, across = where
        target = output[(*batch, slice(None), down, across)]
        planes, every = grad[tuple(batch)], (*batch, slice(None), slice(None), slice(None))
        factors = modulation[(slice(None), slice(None), *matching(modulation, every))]
        total = np.zeros((channels, *target.shape[:-3], *target.shape[-2:]), dtype)

        def row_terms(m: int, i: slice, hull: slice) -> Term:
            row = factors[m][..., i if factors.shape[-2] > 1 else slice(None), :]
            return _InputTerms(matrices[m], planes[..., i, hull], row, hull.start, dtype)

        spread_block(np.moveaxis(total, 0, -3), window, down, across, row_terms)
        store(np.moveaxis(target, -3, 0), total)

    pixels, workers = plan(window, channels, grad.shape[-3], dtype)
    with serial_blas:
        for_each(block, blocks((*output.shape[:-3], *output.shape[-2:]), pixels), most_workers=workers)


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
        factor = self._modulation[n][..., j if self._modulation.shape[-1] > 1 else slice(None)]
        factor = by_group(factor.astype(products.dtype, copy=False).conj(), groups)
        shifted = products[..., j.start - self._first : j.stop - self._first]
        parts = shifted.reshape(groups, factor.shape[1], -1, *shifted.shape[2:])  # a view: used only here
        np.multiply(parts, factor, out=parts)
        return np.moveaxis(shifted.reshape(groups * channels, *shifted.shape[2:]), 0, -3)


def by_channel(grad: np.ndarray, groups: int, dtype: np.dtype) -> np.ndarray:
    """Copy (batch…, C_out, H, W) to (groups, C_out/groups, pixels)."""
    first = np.ascontiguousarray(np.moveaxis(grad, -3, 0), dtype=dtype)
    return first.reshape(groups, len(first) // groups, -1)


def back_project(matrix: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Return Σ_o conj(w[o,n,c]) g[o], (groups, n, C_in/groups, pixels)."""
    groups, outputs, taps, channels = matrix.shape
    rows = matrix.astype(grad.dtype, copy=False).conj().reshape(groups, outputs, taps * channels)
    columns = rows.swapaxes(-1, -2)
    # BLAS takes ten times as long as NumPy where there is nothing to sum
    products = columns * grad if outputs == 1 else np.matmul(columns, grad)
    return products.reshape(groups, taps, channels, grad.shape[-1])


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
        given = by_channel(grad[everywhere], groups, dtype)
        totals = sums.reshape(groups, outputs // groups, *output.shape[1:])
        part = window.part(down, across)
        for m, taps, columns in row_columns(input[tuple(batch)], factors, part, groups, dtype):
            _add_outer(totals[..., m, taps], given, columns.conj(), first)

    pixels, workers = plan(window, input.shape[-3], outputs, dtype)
    sums = output[(..., *(None,) * len(domain))]
    with serial_blas:
        sum_blocks(sums, domain, add, block=pixels, dtype=dtype, most_workers=workers)


def _add_outer(totals: np.ndarray, given: np.ndarray, columns: np.ndarray, first: bool) -> None:
    """Add (outputs x pixels) · (pixels x (n, C_in/groups)) per group to (groups, outputs, C_in/groups, n)."""
    groups, outputs, channels, taps = totals.shape
    rows = columns.reshape(groups, taps * channels, -1).swapaxes(-1, -2)
    at_once = columns_at_once(groups * taps * channels)
    for begin in range(0, outputs, at_once):
        some = slice(begin, begin + at_once)
        product = np.matmul(given[:, some], rows)
        product = product.reshape(groups, -1, taps, channels).swapaxes(-1, -2)
        add_or_assign(totals[:, some], product, first)


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
    matrices = row_matrices(weights, groups, dtype)
    entries = output.shape[-3]

    def add(sums: np.ndarray, where: Where, first: bool) -> None:
        *batch, down, across = where
        part = window.part(down, across)
        given = by_channel(grad[(*batch, slice(None), down, across)], groups, dtype)
        shared = tuple(axis for axis, length in enumerate(sums.shape[2:]) if length == 1)
        for row_taps, taps, shifted in row_pixels(input[tuple(batch)], part, groups, dtype):
            for m, row in enumerate(shifted, start=row_taps.start):
                products = back_project(matrices[m, :, :, taps], given)
                for n, pixels in enumerate(row):
                    values = _sum_channels(products[:, n].reshape(pixels.shape), pixels, entries)
                    if shared:
                        values = np.add.reduce(values, axis=shared, keepdims=True)
                    add_or_assign(sums[m, taps.start + n], values, first)

    pixels, workers = plan(window, input.shape[-3], grad.shape[-3], dtype)
    sums = np.moveaxis(output, -3, 2)
    domain = (*grad.shape[:-3], *grad.shape[-2:])
    with serial_blas:
        sum_blocks(sums, domain, add, block=pixels, dtype=dtype, most_workers=workers)


def _sum_channels(products: np.ndarray, pixels: np.ndarray, entries: int) -> np.ndarray:
    """Return Σ conj(x)·products over the channels of each entry, (entries, batch…, H, W), spoiling them."""
    groups, channels, *images = products.shape
    parts = math.lcm(groups, entries)  # groups of channels that lie within one group and one entry
    split = (groups, parts // groups, groups * channels // parts, *images)
    products, pixels = products.reshape(split), pixels.conj().reshape(split)
    if split[2] == 1:
        sums = np.multiply(products, pixels, out=products)
    else:
        sums = np.einsum("gpc...,gpc...->gp...", products, pixels)
    if parts == entries:
        return sums.reshape(entries, *images)
    return np.add.reduce(sums.reshape(entries, parts // entries, *images), axis=1)
