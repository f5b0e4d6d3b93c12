"""The gradients of the bilateral filter y = Σ_q w x[q] / D, D = Σ_q w, in image, guide f and both σ.

With e[p,q] = Σ_c g[p] (x[q] − y[p]) w[p,q] / D[p], where g is the gradient in y, they are

    image: Σ_p g[p] w[p,q] / D[p] at q
    guide: Σ_q e[p,q] (f[q] − f[p]) / σ_r[p]² at p, less each of these terms at its q
    σ_r:   Σ_q e[p,q] ‖f[q] − f[p]‖² / σ_r[p]³
    σ_s:   Σ_q e[p,q] |q − p|² / σ_s[p]³
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvarconv._blocks import Where, matching
from cuvarconv._cpu._bilateral_adjoint import Adjoint
from cuvarconv._cpu._moments import moments
from cuvarconv._cpu._sums import PARTIAL, add_or_assign, sum_blocks
from cuvarconv._cpu._tiles import WORKSPACE, move_axis, store
from cuvarconv._cpu._workers import for_each, serial_blas
from cuvarconv._cpu.bilateral import BLOCK, BYTES, Filter
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._window import Window

# Of the gradients in images: bytes of pixels or features in a block, and those that a worker takes.
_SHARED = 8 * BLOCK, 28 << 20  # weights are kept
_MAPPED = 4 * BLOCK, 24 << 20  # with maps of widths
_TAPS = 1 << 20  # bytes of an array of taps that are weighed at once
_TOGETHER = 1 << 20  # sums for which the gradients in both σ come from one pass

Outputs = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None]


def bilateral_gradient(
    grad: np.ndarray,
    input: np.ndarray,
    guide: np.ndarray,
    sigma_spatial: np.ndarray,
    sigma_range: np.ndarray,
    outputs: Outputs,
    window: Window,
    *,
    truncate: float | None,
    dtype: np.dtype,
) -> None:
    """Write the gradients in input, guide, σ_s and σ_r, those that are not None; radii are held fixed.

    The operands are those of `bilateral`, `grad` has the shape of its output, `outputs` have the
    operands' shapes; what broadcasts is summed over.
    """
    dtype = accumulator_dtype(dtype)
    filter = Filter(input, guide, sigma_spatial, sigma_range, window, truncate, dtype)
    of_input, of_guide, *of_sigmas = outputs
    with serial_blas:
        if of_guide is not None and of_guide.shape[:-3] != input.shape[:-3]:
            _sum_guide(filter, grad, of_guide)
            of_guide = None
        if of_input is not None or of_guide is not None:
            _write_images(filter, grad, of_input, of_guide)
        wanted = [
            _OfSigma(output, factor)
            for output, factor in zip(of_sigmas, ("distance", "square"), strict=True)
            if output is not None
        ]
        shape = np.broadcast_shapes(sigma_spatial.shape, sigma_range.shape)
        if wanted and math.prod(shape) <= _TOGETHER:
            _write_sigmas(filter, grad, wanted, shape)
        else:
            for some in wanted:
                _write_sigmas(filter, grad, [some], some.output.shape)


def _limits(filter: Filter) -> tuple[int, int]:
    """Return how many bytes a block of a gradient in images may have, and a worker take for it."""
    return _MAPPED if filter.mapped else _SHARED


def _write_images(
    filter: Filter, grad: np.ndarray, of_input: np.ndarray | None, of_guide: np.ndarray | None
) -> None:
    adjoint = Adjoint(filter, grad, of_input is not None, of_guide is not None)
    image = filter.input.shape[-2:]

    def block(where: Where) -> None:
        *batch, down, across = where
        total = adjoint.block(batch, down, across)
        channels = 0
        for output in (of_input, of_guide):
            if output is not None:
                part = total[..., channels : channels + output.shape[-3], :, :]
                store(output[(*batch, slice(None), down, across)], part)
                channels += output.shape[-3]

    nbytes, taken = _limits(filter)
    pieces = filter.pieces((*filter.input.shape[:-3], *image), nbytes // filter.dtype.itemsize)
    for_each(block, pieces, most_workers=WORKSPACE // taken)


def _sum_guide(filter: Filter, grad: np.ndarray, output: np.ndarray) -> None:
    """Write the gradient in a guide that several samples share."""
    adjoint = Adjoint(filter, grad, image=False, guide=True)

    def add(sums: np.ndarray, where: Where, first: bool) -> None:
        *batch, down, across = where
        total = move_axis(adjoint.block(batch, down, across), -3, 0)
        add_or_assign(sums, _reduced(total, sums.shape), first)

    domain = (*filter.input.shape[:-3], *filter.input.shape[-2:])
    _, taken = _limits(filter)
    sum_blocks(
        move_axis(output, -3, 0),
        domain,
        add,
        block=BLOCK // output.shape[-3] or 1,
        dtype=filter.real,
        most_workers=max(1, (WORKSPACE - PARTIAL) // taken),
    )


def _reduced(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum over the axes where another array has length 1."""
    shared = tuple(axis for axis, length in enumerate(shape) if length == 1 and values.shape[axis] != 1)
    return np.add.reduce(values, axis=shared, keepdims=True) if shared else values


# ---- the two σ


@dataclass(frozen=True)
class _OfSigma:
    """The gradient in one of the two σ."""

    output: np.ndarray
    factor: str

    def scale(self, filter: Filter, where: Where) -> np.ndarray:
        """Return what multiplies a block's moments: of distances 1/σ_s³, of squares 2/σ_r."""
        sigma = filter.sigma_spatial if self.factor == "distance" else filter.sigma_range
        part = sigma[matching(sigma, where)].astype(np.float64)
        scale = part**-3.0 if self.factor == "distance" else 2 / part
        return np.minimum(scale, np.finfo(filter.real).max).astype(filter.real)


def _write_sigmas(
    filter: Filter, grad: np.ndarray, wanted: Sequence[_OfSigma], shape: tuple[int, ...]
) -> None:
    """Write one of them or both, from sums of a `shape`: where it is both's, either is the same alone."""
    direct = len(wanted) == 1 and wanted[0].output.shape == shape
    sums = wanted[0].output[None] if direct else np.empty((len(wanted), *shape), filter.real)

    def add(total: np.ndarray, where: Where, first: bool) -> None:
        for line, slopes in zip(total, _sigma_slopes(filter, grad, wanted, where), strict=True):
            add_or_assign(line, _reduced(slopes, line.shape), first)

    domain = (*filter.input.shape[:-3], *filter.window.output_shape)
    channels = max(filter.input.shape[-3], filter.guide.shape[-3])
    sum_blocks(
        sums,
        domain,
        add,
        block=min(BLOCK, filter.elements) // channels or 1,
        dtype=filter.real,
        most_workers=(WORKSPACE - PARTIAL) // BYTES,
    )
    if not direct:
        for some, line in zip(wanted, sums, strict=True):
            store(some.output, _reduced(line, some.output.shape))


def _sigma_slopes(
    filter: Filter, grad: np.ndarray, wanted: Sequence[_OfSigma], where: Where
) -> list[np.ndarray]:
    """Return the gradients at a block of outputs, (…, h, w)."""
    *batch, down, across = where
    block = filter.block(where, moving=True, together=_TAPS)
    filtered = moments(block, *(some.factor for some in wanted), paired=filter.paired(block))
    given = grad[(*batch, slice(None), down, across)].astype(block.dtype, copy=False).conj()
    found = []
    for some, share in zip(wanted, filtered.slopes, strict=True):
        slope = np.add.reduce((given * share).real, axis=-3) * some.scale(filter, where)
        np.copyto(slope, 0, where=block.widths.still)
        found.append(slope)
    return found
