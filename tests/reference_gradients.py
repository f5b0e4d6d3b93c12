"""Oracles of the gradients: G with dL = Re Σ conj(G)·dp, in double precision.

Each operand's gradient is a sum over the unfolded image X[…,m,n,i,j] of the loops, and is then
summed over what broadcasts.  The letters: b batch, q group, c and o channels, m and n taps, i and j
outputs.
"""

from __future__ import annotations

import math

import numpy as np
from reference import broadcast, fold, spread, unfold, wide


def _real_for_real(gradient, operand):
    return gradient.real if operand.dtype.kind != "c" else gradient


def _summed(gradient, operand):
    """Sum (kh, kw) + shape over what broadcasts in the operand, (kh, kw) + S."""
    missing = gradient.ndim - operand.ndim
    gradient = gradient.sum(tuple(range(2, 2 + missing)))
    repeated = tuple(axis for axis in range(2, operand.ndim) if operand.shape[axis] == 1)
    return _real_for_real(gradient.sum(repeated, keepdims=True), operand)


def _flat(array, kept, first=0):
    """Join the batch axes: all but the `first` axes and the last `kept`."""
    end = array.ndim - kept
    batch = math.prod(array.shape[first:end])
    return array.reshape(*array.shape[:first], batch, *array.shape[end:])


def correlate_vjp(g, x, k, mode="reflect", cval=0.0, origin=0, *, axes=(-2, -1), stride=1, dilation=1):
    """G_x = spread(g, k) and G_k[m,n,…,i,j] = Σ conj(g[…,i,j]) X[…,m,n,i,j]."""
    window = {"mode": mode, "origin": origin, "stride": stride, "dilation": dilation}
    axes = [axis % x.ndim for axis in axes]
    shape = tuple(x.shape[axis] for axis in axes)
    of_input = spread(g, k, **window, shape=shape, axes=axes)
    patches = unfold(np.moveaxis(x, axes, (-2, -1)), k.shape[:2], cval=cval, **window)
    products = np.moveaxis(patches, (-4, -3), (0, 1)) * np.moveaxis(g, axes, (-2, -1)).astype(wide(g)).conj()
    of_weights = np.moveaxis(products.astype(wide(g, x, cval)), (-2, -1), [2 + axis for axis in axes])
    return _real_for_real(of_input, x), _summed(of_weights, k)


def modulated_correlate_vjp(
    g, x, w, d, mode="reflect", cval=0.0, origin=0, *, stride=1, dilation=1, groups=1
):
    """The product of g with the conjugates of two of w[o,c,m,n], d[m,n,…,c,i,j] and X[…,c,m,n,i,j]."""
    window = {"mode": mode, "origin": origin, "stride": stride, "dilation": dilation}
    dtype, channels, images = wide(g, x, w, d, cval), x.shape[-3], x.shape[:-2]
    entries = d.shape[-3] if d.ndim > 4 else 1
    repeats = channels // max(entries, 1)
    factors = broadcast(d, (*images[:-1], entries, *g.shape[-2:]))
    split = (groups, channels // groups)
    W = w.reshape(groups, len(w) // groups, *w.shape[1:]).astype(dtype)
    G = _flat(g, 3).astype(dtype)
    G = G.reshape(len(G), groups, len(w) // groups, *g.shape[-2:])
    D = _flat(np.repeat(factors, repeats, -3), 3, first=2).astype(dtype)
    D = D.reshape(*D.shape[:3], *split, *g.shape[-2:])
    X = _flat(unfold(x, w.shape[2:], cval=cval, **window), 5).astype(dtype)
    X = X.reshape(len(X), *split, *X.shape[2:])
    products = np.einsum("mnbqcij,bqcmnij->bqcmnij", D, X)
    back = np.einsum("bqoij,qocmn->bqcmnij", G, W.conj(), optimize=True)
    of_patches = np.einsum("bqcmnij,mnbqcij->bqcmnij", back, D.conj())
    of_input = fold(of_patches.reshape(*images, *of_patches.shape[3:]), x.shape[-2:], **window)
    of_weights = np.einsum("bqoij,bqcmnij->qocmn", G, products.conj(), optimize=True)
    of_factors = np.einsum("bqcmnij,bqcmnij->mnbqcij", back, X.conj())
    by_entry = of_factors.reshape(*d.shape[:2], *images[:-1], entries, repeats, *g.shape[-2:]).sum(-3)
    return (
        _real_for_real(of_input, x),
        _real_for_real(of_weights.reshape(w.shape), w),
        _summed(by_entry, d),
    )


def local_correlate_vjp(g, x, k, mode="reflect", cval=0.0, origin=0, *, stride=1, dilation=1):
    """The product of g with the conjugate of k[m,n,…,i,j,c,o] or of X[…,c,m,n,i,j]."""
    window = {"mode": mode, "origin": origin, "stride": stride, "dilation": dilation}
    dtype, batch = wide(g, x, k, cval), x.shape[:-3]
    G = _flat(g, 3).astype(dtype)
    X = _flat(unfold(x, k.shape[:2], cval=cval, **window), 5).astype(dtype)
    K = _flat(broadcast(k, (*batch, *k.shape[-4:])), 4, first=2).astype(dtype)
    of_patches = np.einsum("boij,mnbijco->bcmnij", G, K.conj(), optimize=True)
    of_input = fold(of_patches.reshape(*x.shape[:-2], *of_patches.shape[2:]), x.shape[-2:], **window)
    of_kernels = np.einsum("boij,bcmnij->mnbijco", G, X.conj(), optimize=True)
    of_kernels = of_kernels.reshape(*k.shape[:2], *batch, *k.shape[-4:])
    return _real_for_real(of_input, x), _summed(of_kernels, k)
