"""Oracles of the affinity and its gradient: loops over outputs and taps, in double precision."""

from __future__ import annotations

import numpy as np
from reference import Taps, pair


def features_first(g, channel_axis=-3):
    """View the guide as (…, C, H, W) in double precision."""
    g = np.asarray(g).astype(np.float64)
    return g[..., None, :, :] if channel_axis is None else np.moveaxis(g, channel_axis % g.ndim - g.ndim, -3)


def pixel_pairs(image, size, origin=0, **window):
    """Yield (m, n, i, j, pixel under tap (m, n), pixel under the window's centre); outside: left out."""
    taps = Taps(image, size, origin=origin, **window)
    middle = [k // 2 + shift for k, shift in zip(size, pair(origin), strict=True)]
    lines = [taps.sources(axis)[middle[axis]] for axis in (0, 1)]
    for i, j, m, n, pixel in taps:
        if pixel is not None:
            yield m, n, i, j, pixel, (lines[0][i], lines[1][j])


def affinity(guide, size, sigma=1.0, *, channel_axis=-3, **window):
    """D[m,n,…,i,j] = exp(−½ Σ_c (g[…,c, tap] − g[…,c, centre])² / σ²); 0 outside."""
    g, size = features_first(guide, channel_axis), pair(size)
    outputs = Taps(g.shape[-2:], size, **window).shape
    d = np.zeros((*size, *g.shape[:-3], *outputs))
    for m, n, i, j, (h, w), (p, q) in pixel_pairs(g.shape[-2:], size, **window):
        scaled = (g[..., h, w] - g[..., p, q]) / sigma
        with np.errstate(over="ignore"):  # far apart is infinitely far apart
            d[m, n, ..., i, j] = np.exp(-0.5 * (scaled**2).sum(-1))
    return d if channel_axis is None else d[..., None, :, :]


def affinity_vjp(grad, guide, size, sigma=1.0, *, channel_axis=-3, **window):
    """∂d/∂g[…,c, tap] = −d (g[tap] − g[centre]) / σ², and the negative of it for the centre."""
    g, size = features_first(guide, channel_axis), pair(size)
    d = affinity(guide, size, sigma, channel_axis=channel_axis, **window) * np.asarray(grad, np.float64)
    if channel_axis is not None:
        d = d[..., 0, :, :]
    result = np.zeros_like(g)
    for m, n, i, j, (h, w), (p, q) in pixel_pairs(g.shape[-2:], size, **window):
        slope = d[m, n, ..., i, j, None] * (g[..., h, w] - g[..., p, q]) / sigma**2
        result[..., h, w] -= slope
        result[..., p, q] += slope
    if channel_axis is None:
        return result[..., 0, :, :]
    return np.moveaxis(result, -3, channel_axis % g.ndim - g.ndim)
