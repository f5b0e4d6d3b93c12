"""Oracles: loops copied from the equations, slow and plain.  Nothing here uses the library."""

from __future__ import annotations

import itertools

import numpy as np


def source(position: int, size: int, mode: str) -> int | None:
    """Return the pixel that stands at `position` of a line of `size` pixels; None: outside."""
    if 0 <= position < size:
        return position
    if mode in ("constant", "grid-constant", "valid"):
        return None
    if mode == "nearest":
        return 0 if position < 0 else size - 1
    if mode in ("wrap", "grid-wrap"):
        return position % size
    while not 0 <= position < size:  # unfold one mirror after the other
        if mode in ("reflect", "grid-mirror"):
            position = -1 - position if position < 0 else 2 * size - 1 - position
        elif size == 1:
            return 0
        else:
            position = -position if position < 0 else 2 * size - 2 - position
    return position


def pair(value):
    """Return (rows, columns)."""
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def output_size(size, taps, mode, stride, dilation):
    """Return the number of outputs along one axis."""
    if mode == "valid":
        return (size - (taps - 1) * dilation - 1) // stride + 1
    return -(-size // stride)


def first_position(taps, mode, origin, dilation):
    """Return the position that tap 0 of output 0 reads."""
    return 0 if mode == "valid" else -(taps // 2 + origin) * dilation


class Taps:
    """Enumerates (output i, j, tap m, n, source pixel or None) for one window."""

    def __init__(self, image, size, mode="reflect", origin=0, stride=1, dilation=1):
        self.image, self.size = image, size
        self.modes, self.strides, self.dilations = pair(mode), pair(stride), pair(dilation)
        self.starts = [
            first_position(*axis) for axis in zip(size, self.modes, pair(origin), self.dilations, strict=True)
        ]
        self.shape = tuple(
            output_size(*axis)
            for axis in zip(image, size, self.modes, self.strides, self.dilations, strict=True)
        )

    def sources(self, axis):
        """Return the pixel of every tap and output along an axis, shape (taps, outputs); -1: outside."""
        table = np.full((self.size[axis], self.shape[axis]), -1)
        for i, m, pixel in self._line(axis):
            table[m, i] = -1 if pixel is None else pixel
        return table

    def _line(self, axis):
        for i, m in itertools.product(range(self.shape[axis]), range(self.size[axis])):
            position = i * self.strides[axis] + m * self.dilations[axis] + self.starts[axis]
            yield i, m, source(position, self.image[axis], self.modes[axis])

    def __iter__(self):
        for (i, m, row), (j, n, column) in itertools.product(self._line(0), self._line(1)):
            yield i, j, m, n, (None if row is None or column is None else (row, column))


def wide(*arrays):
    """Return the double precision that holds all of them."""
    complex_data = any(np.asarray(a).dtype.kind == "c" for a in arrays)
    return np.complex128 if complex_data else np.float64


def broadcast(k, shape):
    """View (kh, kw) + S as (kh, kw) + shape."""
    missing = len(shape) + 2 - k.ndim
    return np.broadcast_to(k.reshape(k.shape[:2] + (1,) * missing + k.shape[2:]), (*k.shape[:2], *shape))


def correlate(
    x, k, mode="reflect", cval=0.0, origin=0, *, stride=1, dilation=1, axes=(-2, -1), conjugate=True
):
    """Y[…,i,j] = Σ_{m,n} k[m,n,…,i,j] x[…, i·s + m·d + start], in double precision."""
    x, k = np.asarray(x), np.asarray(k)
    axes = [axis % x.ndim for axis in axes]
    taps = Taps([x.shape[axis] for axis in axes], k.shape[:2], mode, origin, stride, dilation)
    shape = list(x.shape)
    for axis, length in zip(axes, taps.shape, strict=True):
        shape[axis] = length
    k = broadcast(k, shape)
    if conjugate and k.dtype.kind == "c":
        k = k.conj()
    k = np.moveaxis(k, [2 + axis for axis in axes], (-2, -1)).astype(wide(x, k))
    x = np.moveaxis(x, axes, (-2, -1)).astype(wide(x, k, cval))
    y = np.zeros(k.shape[2:-2] + taps.shape, wide(x, k))
    for i, j, m, n, pixel in taps:
        value = cval if pixel is None else x[..., pixel[0], pixel[1]]
        y[..., i, j] += k[m, n, ..., i, j] * value
    return np.moveaxis(y, (-2, -1), axes)


def convolve(x, k, mode="reflect", cval=0.0, origin=0, **keywords):
    """Flip the kernel and move the origin as scipy does; no conjugation."""
    k = np.asarray(k)
    origin = tuple(-o - (size % 2 == 0) for o, size in zip(pair(origin), k.shape[:2], strict=True))
    if "valid" in pair(mode):
        origin = tuple(0 if name == "valid" else o for o, name in zip(origin, pair(mode), strict=True))
    return correlate(x, k[::-1, ::-1], mode, cval, origin, conjugate=False, **keywords)


def modulated_correlate(x, w, d, mode="reflect", cval=0.0, origin=0, *, stride=1, dilation=1, groups=1):
    """Y[…,o,i,j] = Σ_{c,m,n} w[o,c,m,n] d[m,n,…,c,i,j] x[…,c, i·s + m·t + start]."""
    x, w, d = np.asarray(x), np.asarray(w), np.asarray(d)
    outputs, per_group = w.shape[:2]
    taps = Taps(x.shape[-2:], w.shape[2:], mode, origin, stride, dilation)
    dtype = wide(x, w, d, cval)
    entries, channels = d.shape[-3] if d.ndim > 4 else 1, x.shape[-3]
    y = np.zeros((*x.shape[:-3], outputs, *taps.shape), dtype)
    d = broadcast(d, (*x.shape[:-3], entries, *taps.shape)).astype(dtype)
    for i, j, m, n, pixel in taps:
        for o, c in itertools.product(range(outputs), range(per_group)):
            channel = (o * groups // outputs) * per_group + c
            value = cval if pixel is None else x[..., channel, pixel[0], pixel[1]].astype(dtype)
            factor = d[m, n, ..., channel * entries // channels, i, j]
            y[..., o, i, j] += w[o, c, m, n] * factor * value
    return y


def local_correlate(x, k, mode="reflect", cval=0.0, origin=0, *, stride=1, dilation=1):
    """Y[…,o,i,j] = Σ_{c,m,n} k[m,n,…,i,j,c,o] x[…,c, i·s + m·d + start]."""
    x, k = np.asarray(x), np.asarray(k)
    taps = Taps(x.shape[-2:], k.shape[:2], mode, origin, stride, dilation)
    x, k = x.astype(wide(x, k, cval)), k.astype(wide(x, k))
    k = broadcast(k, (*x.shape[:-3], *taps.shape, *k.shape[-2:]))
    y = np.zeros((*x.shape[:-3], k.shape[-1], *taps.shape), wide(x, k))
    for i, j, m, n, pixel in taps:
        value = np.full(x.shape[:-2], cval) if pixel is None else x[..., pixel[0], pixel[1]]
        y[..., i, j] += np.einsum("...c,...co->...o", value, k[m, n, ..., i, j, :, :])
    return y


def unfold(x, size, mode="reflect", cval=0.0, origin=0, *, stride=1, dilation=1):
    """Y[…,m,n,i,j] = x[…, i·s + m·d + start]."""
    x = np.asarray(x)
    taps = Taps(x.shape[-2:], pair(size), mode, origin, stride, dilation)
    x = x if cval == 0 else x.astype(wide(x, cval))
    y = np.empty((*x.shape[:-2], *taps.size, *taps.shape), x.dtype)
    down, across = taps.sources(0), taps.sources(1)
    for m, n in np.ndindex(*taps.size):
        rows, columns = down[m, :, None], across[n]
        y[..., m, n, :, :] = np.where((rows < 0) | (columns < 0), cval, x[..., rows, columns])
    return y


def fold(y, shape, mode="reflect", *, origin=0, stride=1, dilation=1):
    """X[…,h,w] = Σ y[…,m,n,i,j] over all (m,n,i,j) whose source is (h,w)."""
    y = np.asarray(y)
    taps = Taps(shape, y.shape[-4:-2], mode, origin, stride, dilation)
    x = np.zeros((*y.shape[:-4], *shape), wide(y))
    down, across = taps.sources(0), taps.sources(1)
    for m, n in np.ndindex(*taps.size):
        rows, columns = down[m, :, None], across[n]
        inside = np.where((rows < 0) | (columns < 0), 0, y[..., m, n, :, :]).astype(x.dtype)
        np.add.at(x, (..., rows, columns), inside)
    return x


def spread_shape(image, size, mode, stride, dilation):
    """Return the shape (H, W) that `spread` gives by default."""
    axes = zip(image, size, pair(mode), pair(stride), pair(dilation), strict=True)
    return tuple(max(0, (h - 1) * s + 1 + (k - 1) * d * (name == "valid")) for h, k, name, s, d in axes)


def spread(z, k, mode="reflect", *, origin=0, shape=None, axes=(-2, -1), stride=1, dilation=1):
    """X[…,h,w] = Σ k[m,n,…,i,j] z[…,i,j] over all (m,n,i,j) whose source is (h,w)."""
    z, k = np.asarray(z), np.asarray(k)
    axes = [axis % z.ndim for axis in axes]
    k = np.moveaxis(broadcast(k, z.shape), [2 + axis for axis in axes], (-2, -1)).astype(wide(z, k))
    z = np.moveaxis(z, axes, (-2, -1)).astype(wide(z, k))
    shape = shape or spread_shape(z.shape[-2:], k.shape[:2], mode, stride, dilation)
    spots = np.moveaxis(k * z, (0, 1), (-4, -3))
    x = fold(spots, pair(shape), mode, origin=origin, stride=stride, dilation=dilation)
    return np.moveaxis(x, (-2, -1), axes)
