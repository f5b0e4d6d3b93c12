"""Equation (2): y[o,i,j] = Σ_{c,m,n} w[o,c,m,n] d[m,n,i,j] x[c,i+m,j+n]."""

from __future__ import annotations

import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._cpu._columns import (
    Slab,
    in_line,
    modulated,
    multiply,
    outputs_at_once,
    pieces,
    slabs,
    tap_matrices,
)
from cuvarconv._cpu._sums import add_or_assign
from cuvarconv._cpu._tiles import move_axis, store
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window


def modulated_correlate(
    input: np.ndarray,
    weights: np.ndarray,
    modulation: np.ndarray,
    output: np.ndarray,
    window: Window,
    *,
    groups: int,
    dtype: np.dtype,
) -> None:
    """One matrix product per slab of pixels, over modulated columns.

    `input` is (batch…, C_in, H, W), `output` (batch…, C_out, H, W), `weights` (C_out, C_in/groups,
    kh, kw), `modulation` (kh, kw, batch…, G, H, W), with axes of length 1 where it broadcasts and a
    divisor G of C_in; `dtype` is the computing dtype.
    """
    dtype = accumulator_dtype(dtype)
    matrices = tap_matrices(weights, groups, dtype)

    def block(where: Where) -> None:
        *batch, down, across = where
        everywhere = (*batch, slice(None), down, across)
        factors = modulation[(slice(None), slice(None), *matching(modulation, everywhere))]
        target = move_axis(output[everywhere], -3, 0)
        sums = target if target.dtype == dtype else np.empty(target.shape, dtype)
        for slab in slabs(input[tuple(batch)], window.part(down, across), groups, dtype, matrices.shape[1]):
            columns = modulated(slab, factors)
            part = sums[(slice(None), *slab.where)]
            matrix = matrices[(slice(None), slice(None), *slab.taps)]
            lines = in_line(part, groups) if slab.has_first_taps else None
            if lines is None:
                _add_products(part, matrix, columns, slab)
            else:
                multiply(matrix, columns, lines)
        if sums is not target:
            store(target, sums)

    domain = *output.shape[:-3], *output.shape[-2:]
    cut, workers = pieces(domain, window, input.shape[-3], output.shape[-3], dtype)
    with serial_blas:
        for_each(block, cut, most_workers=workers)


def _add_products(sums: np.ndarray, matrix: np.ndarray, columns: np.ndarray, slab: Slab) -> None:
    """Add products to the sums of a slab, (C_out, batch…, H, W), some outputs at a time."""
    groups, outputs = matrix.shape[:2]
    by_group = sums.reshape(groups, outputs, *sums.shape[1:])
    at_once = outputs_at_once(groups, outputs, columns.shape[-1])
    kept = slab.scratch.taken
    for first in range(0, outputs, at_once):
        rows, total = matrix[:, first : first + at_once], by_group[:, first : first + at_once]
        product = slab.scratch.empty((*rows.shape[:2], columns.shape[-1]), columns.dtype)
        multiply(rows, columns, product)
        add_or_assign(total, product.reshape(total.shape), slab.has_first_taps)
        slab.scratch.clear(kept)
