"""Oracles of the bilateral filter and its gradients: loops over outputs and taps, in double precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from reference import Taps, wide


def channels_first(array, channel_axis):
    """View as (…, C, H, W) in double precision; grey images have no channel axis."""
    array = np.asarray(array)
    array = array.astype(wide(array))
    if channel_axis is None or array.ndim == 2:
        return array[..., None, :, :]
    return np.moveaxis(array, channel_axis, -3)


def channels_back(array, like, channel_axis):
    """Undo `channels_first`."""
    if channel_axis is None or np.ndim(like) == 2:
        return array[..., 0, :, :]
    return np.moveaxis(array, -3, channel_axis)


def summed(gradient, shape):
    """Sum over what broadcasts in an operand of this shape."""
    gradient = gradient.sum(tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(axis for axis, length in enumerate(shape) if length == 1)
    return gradient.sum(repeated, keepdims=True)


def guide_axis(channel_axis, x):
    """Count the channel axis from the end, as it is the same in the guide."""
    return channel_axis if channel_axis is None or np.ndim(x) == 2 else channel_axis % np.ndim(x) - np.ndim(x)


@dataclass
class Setting:
    """The operands of a call, broadcast, and its window."""

    x: np.ndarray  # (batch…, C, H, W)
    g: np.ndarray  # (batch…, features, H, W)
    spatial: np.ndarray  # (batch…, H_out, W_out)
    likeness: np.ndarray
    reach: np.ndarray
    taps: Taps
    radius: int
    cval: float

    def pixels(self):
        """Yield (i, j, Δ, source of the tap, source of the centre)."""
        lines = [self.taps.sources(axis)[self.radius] for axis in (0, 1)]
        for i, j, m, n, pixel in self.taps:
            yield i, j, (m - self.radius, n - self.radius), pixel, (lines[0][i], lines[1][j])

    def at(self, planes, pixel):
        """Return the values (batch…, C) of a pixel."""
        return np.full(planes.shape[:-2], self.cval) if pixel is None else planes[..., pixel[0], pixel[1]]

    def weight(self, i, j, offset, pixel, centre):
        """Return w, the difference of the guide and whether the tap exists, (batch…)."""
        with np.errstate(all="ignore"):
            difference = self.at(self.g, pixel) - self.at(self.g, centre)
            place = (offset[0] ** 2 + offset[1] ** 2) / self.spatial[..., i, j] ** 2
            value = (difference**2).sum(-1) / self.likeness[..., i, j] ** 2
            w = np.exp(-0.5 * place - 0.5 * value)
        exists = max(map(abs, offset)) <= self.reach[..., i, j]
        return np.where(exists, w, 0), difference, exists


def setting(
    x,
    sigma_spatial,
    sigma_range,
    *,
    guide=None,
    channel_axis=None,
    radius=None,
    truncate=4.0,
    mode="reflect",
    cval=0.0,
):
    """Broadcast the operands of a call."""
    planes = channels_first(x, channel_axis)
    g = planes if guide is None else channels_first(guide, guide_axis(channel_axis, x))
    batch = planes.shape[:-3]
    g = np.broadcast_to(g, (*batch, *g.shape[-3:]))
    sigmas = [np.asarray(sigma).astype(np.float64) for sigma in (sigma_spatial, sigma_range)]
    reach = np.floor(truncate * sigmas[0] + 0.5) if radius is None else np.array(float(radius))
    most = int(reach.max())
    taps = Taps(planes.shape[-2:], (2 * most + 1,) * 2, mode)
    maps = [np.broadcast_to(values, (*batch, *taps.shape)) for values in (*sigmas, reach)]
    return Setting(planes, g, *maps, taps, most, cval)


def filtered(s):
    """Return (batch…, C, H_out, W_out) and the norm (batch…, H_out, W_out)."""
    total = np.zeros((*s.x.shape[:-2], *s.taps.shape), s.x.dtype)
    norm = np.zeros(s.spatial.shape)
    own = np.zeros_like(total)
    for i, j, offset, pixel, centre in s.pixels():
        w, _, exists = s.weight(i, j, offset, pixel, centre)
        with np.errstate(all="ignore"):
            product = w[..., None] * s.at(s.x, pixel)
        total[..., i, j] += np.where(exists[..., None], product, 0)
        norm[..., i, j] += w
        own[..., i, j] = s.at(s.x, centre)
    still = (s.spatial == 0) | (s.likeness == 0)
    with np.errstate(all="ignore"):
        return np.where(still[..., None, :, :], own, total / norm[..., None, :, :]), norm


def bilateral_filter(x, sigma_spatial, sigma_range, *, channel_axis=None, **keywords):
    """Y[p] = Σ_q w x[q] / Σ_q w."""
    s = setting(x, sigma_spatial, sigma_range, channel_axis=channel_axis, **keywords)
    return channels_back(filtered(s)[0], x, channel_axis)


def bilateral_filter_vjp(grad, x, sigma_spatial, sigma_range, *, guide=None, channel_axis=None, **keywords):
    """Return the gradients by name, and the same sums of their terms' sizes, which rounding goes by.

    Radii are held fixed; where a σ is 0 the pixel is itself.
    """
    s = setting(x, sigma_spatial, sigma_range, guide=guide, channel_axis=channel_axis, **keywords)
    terms = _terms(s, channels_first(grad, channel_axis), *filtered(s))
    found = []
    for of_x, of_g, of_spatial, of_likeness in terms:
        result = {
            "input": of_x if s.x.dtype.kind == "c" else of_x.real,
            "sigma_spatial": summed(of_spatial, np.shape(sigma_spatial)),
            "sigma_range": summed(of_likeness, np.shape(sigma_range)),
        }
        if guide is None:
            result["input"] = result["input"] + of_g
        else:
            axis = guide_axis(channel_axis, x)
            shape = channels_first(guide, axis).shape
            result["guide"] = channels_back(summed(of_g, shape), guide, axis)
        result["input"] = channels_back(result["input"], x, channel_axis)
        found.append(result)
    return tuple(found)


def _terms(s, G, y, norm):
    """Sum the terms, and their sizes, over outputs and taps."""
    sums, sizes = (
        [
            np.zeros(s.x.shape, wide(s.x, G)),
            *(np.zeros(array.shape) for array in (s.g, s.spatial, s.likeness)),
        ]
        for _ in range(2)
    )
    still = (s.spatial == 0) | (s.likeness == 0)
    for i, j, offset, pixel, centre in s.pixels():
        w, difference, exists = s.weight(i, j, offset, pixel, centre)
        moves = exists & ~still[..., i, j]
        alone = exists & still[..., i, j] & (max(map(abs, offset)) == 0)
        at, value = (..., i, j), s.at(s.x, pixel)
        with np.errstate(all="ignore"):
            share = np.where(moves, w / norm[at], alone)
            slope = (G[at].conj() * (value - y[at])).real.sum(-1)
            size = (abs(G[at]) * (abs(value) + abs(y[at]))).sum(-1)
            for total, e in ((sums, slope * share), (sizes, size * share)):
                pull = e[..., None] * difference / s.likeness[at][..., None] ** 2
                pull = np.where(moves[..., None], pull, 0)
                likeness = e * (difference**2).sum(-1) / s.likeness[at] ** 3
                place = e * (offset[0] ** 2 + offset[1] ** 2) / s.spatial[at] ** 3
                if total is sizes:
                    pull = -abs(pull)
                total[1][..., centre[0], centre[1]] += abs(pull) if total is sizes else pull
                total[2][at] += np.where(moves, place, 0)
                total[3][at] += np.where(moves, likeness, 0)
                if pixel is not None:
                    product = np.where(exists, share, 0)[..., None] * G[at]
                    total[0][..., pixel[0], pixel[1]] += abs(product) if total is sizes else product
                    total[1][..., pixel[0], pixel[1]] -= pull
    return sums, sizes
