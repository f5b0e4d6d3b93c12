"""Oracles of the Gaussian: kernels by their equation, loops over taps, in double precision."""

from __future__ import annotations

import numpy as np
from reference import Taps


def widths(sigma, shape, axes=(-2, -1)):
    """Return σ along rows and along columns, of the output's shape, image axes last."""
    given = sigma if isinstance(sigma, tuple | list) else (sigma, sigma)
    return [spatial(each, shape, axes) for each in given]


def spatial(values, shape, axes=(-2, -1)):
    return np.moveaxis(np.broadcast_to(np.asarray(values, np.float64), shape), axes, (-2, -1))


def radii(sigmas, angle=None, *, truncate=4.0, radius=None):
    """Return how far every kernel reaches along rows and columns."""
    rows, columns = sigmas
    if radius is not None:
        given = radius if isinstance(radius, tuple | list) else (radius, radius)
        return [np.where(s > 0, r, 0) for s, r in zip(sigmas, given, strict=True)]
    if angle is not None:
        c, s = np.cos(angle), np.sin(angle)
        rows, columns = (
            np.sqrt(rows**2 * c**2 + columns**2 * s**2),
            np.sqrt(rows**2 * s**2 + columns**2 * c**2),
        )
    return [(truncate * width + 0.5).astype(int) for width in (rows, columns)]


def window_radii(sigma, angle=None, *, truncate=4.0, radius=None):
    """Return the largest radii, which make the window."""
    if radius is not None:
        return tuple(radius) if isinstance(radius, tuple | list) else (radius, radius)
    pair = sigma if isinstance(sigma, tuple | list) else (sigma, sigma)
    shape = np.broadcast_shapes(*map(np.shape, pair), np.shape(0.0 if angle is None else angle))
    turn = None if angle is None else np.broadcast_to(angle, shape)
    found = radii([np.broadcast_to(np.asarray(s, np.float64), shape) for s in pair], turn, truncate=truncate)
    return tuple(int(r.max(initial=0)) for r in found)


def kernels(sigmas, angle, reach, far):
    """Return (weights, whether the tap exists), both (2 R_r + 1, 2 R_c + 1, …, H_out, W_out)."""
    window = [2 * r + 1 for r in far]
    k = np.zeros((*window, *sigmas[0].shape))
    exists = np.zeros(k.shape, bool)
    theta = np.zeros(sigmas[0].shape) if angle is None else angle
    scaled = [np.where(s > 0, s, 1) for s in sigmas]  # where σ is 0 the centre alone exists
    for m, n in np.ndindex(*window):
        down, across = m - far[0], n - far[1]
        u = np.cos(theta) * down + np.sin(theta) * across
        v = -np.sin(theta) * down + np.cos(theta) * across
        k[m, n] = np.exp(-0.5 * ((u / scaled[0]) ** 2 + (v / scaled[1]) ** 2))
        exists[m, n] = (abs(down) <= reach[0]) & (abs(across) <= reach[1])
    k[~exists] = 0
    return k / k.sum(axis=(0, 1)), exists


def _setting(x, sigma, mode, truncate, radius, axes, angle):
    x = np.moveaxis(np.asarray(x), axes, (-2, -1))
    far = window_radii(sigma, angle, truncate=truncate, radius=radius)
    taps = Taps(x.shape[-2:], [2 * r + 1 for r in far], mode)
    shape = np.moveaxis(np.empty((*x.shape[:-2], *taps.shape)), (-2, -1), axes).shape
    sigmas = widths(sigma, shape, axes)
    turn = None if angle is None else spatial(angle, shape, axes)
    k, exists = kernels(sigmas, turn, radii(sigmas, turn, truncate=truncate, radius=radius), far)
    return x, taps, k, exists


def gaussian_filter(
    x, sigma, mode="reflect", cval=0.0, truncate=4.0, *, radius=None, axes=(-2, -1), angle=None
):
    """Y[…,i,j] = Σ_{m,n} k[m,n,…,i,j] x[…, i + m − R_r, j + n − R_c] over the taps that exist."""
    keywords = {"radius": radius, "axes": axes, "angle": angle}
    if np.iscomplexobj(x):
        parts = [
            gaussian_filter(part, sigma, mode, value, truncate, **keywords)
            for part, value in ((x.real, np.real(cval)), (x.imag, np.imag(cval)))
        ]
        return np.stack(parts, -1).view(np.complex128)[..., 0]
    x, taps, k, exists = _setting(x, sigma, mode, truncate, radius, axes, angle)
    x = x.astype(np.float64)
    y = np.zeros((*x.shape[:-2], *taps.shape))
    with np.errstate(invalid="ignore"):
        for (m, n), pixels, outside in _pixels(taps):
            y += np.where(exists[m, n], k[m, n] * np.where(outside, cval, x[pixels]), 0)
    return np.moveaxis(y, (-2, -1), axes)


def _pixels(taps):
    """Yield every tap, the pixels under it, and for which outputs it lies outside the image."""
    rows, columns = taps.sources(0), taps.sources(1)
    for m, n in np.ndindex(*taps.size):
        down, across = rows[m][:, None], columns[n][None, :]
        yield (m, n), (..., down, across), (down < 0) | (across < 0)


def gaussian_weights(sigma, *, radius=None, truncate=4.0, angle=None):
    """Return the kernels, (2 R_r + 1, 2 R_c + 1, …)."""
    far = window_radii(sigma, angle, truncate=truncate, radius=radius)
    pair = sigma if isinstance(sigma, tuple | list) else (sigma, sigma)
    shape = np.broadcast_shapes(*map(np.shape, pair), np.shape(0.0 if angle is None else angle))
    given = [np.broadcast_to(np.asarray(each, np.float64), shape) for each in pair]
    turn = None if angle is None else np.broadcast_to(np.asarray(angle, np.float64), shape)
    return kernels(given, turn, radii(given, turn, truncate=truncate, radius=radius), far)[0]


def gaussian_filter_vjp(
    g, x, sigma, mode="reflect", cval=0.0, truncate=4.0, *, radius=None, axes=(-2, -1), angle=None
):
    """Return the gradients in x, (σ_r, σ_c) and θ (0 where there is none), σ and θ as large as the result."""
    g = np.moveaxis(np.asarray(g), axes, (-2, -1))
    shape = np.moveaxis(g, (-2, -1), axes).shape
    x, taps, k, exists = _setting(x, sigma, mode, truncate, radius, axes, angle)
    sigmas = widths(sigma, shape, axes)
    turn = np.zeros(g.shape) if angle is None else spatial(angle, shape, axes)
    steps = [np.arange(size) - size // 2 for size in taps.size]
    down, across = (each.reshape(at) + 0 * k for each, at in zip(steps, _columns(k.ndim), strict=True))
    u, v = np.cos(turn) * down + np.sin(turn) * across, np.cos(turn) * across - np.sin(turn) * down
    rows, columns = (np.where(s > 0, s, np.inf) for s in sigmas)
    slopes = [f - (k * f).sum(axis=(0, 1)) for f in (u * u, v * v, u * v)]
    slopes = [
        k * slopes[0] / rows**3,
        k * slopes[1] / columns**3,
        k * slopes[2] * (1 / columns**2 - 1 / rows**2),
    ]
    in_x = np.zeros(x.shape, np.result_type(g, np.float64))
    in_widths = [np.zeros(g.shape) for _ in slopes]
    with np.errstate(invalid="ignore"):
        for (m, n), pixels, outside in _pixels(taps):
            there = exists[m, n]
            np.add.at(in_x, pixels, np.where(there & ~outside, k[m, n] * g, 0))
            product = np.real(np.conj(g) * np.where(outside, cval, x[pixels]))
            for total, slope in zip(in_widths, slopes, strict=True):
                total += np.where(there, slope[m, n] * product, 0)
    return np.moveaxis(in_x, (-2, -1), axes), *(np.moveaxis(each, (-2, -1), axes) for each in in_widths)


def _columns(ndim):
    return (-1, 1, *(1,) * (ndim - 2)), (1, -1, *(1,) * (ndim - 2))


def summed_to(values, shape):
    """Sum over the axes along which an operand of some shape was broadcast."""
    values = values.sum(axis=tuple(range(values.ndim - len(shape))))
    return values.sum(
        axis=tuple(axis for axis, length in enumerate(shape) if length == 1), keepdims=True
    ).reshape(shape)
