"""Calls of `bilateral_filter` and what they are compared with."""

import hypothesis.strategies as st
import numpy as np
import pytest
import reference_bilateral
from forms import SAME_SIZE
from tolerances import assert_close, noise

import cuvarconv

PRECISION = ["bfloat16", "float16", "float32", "complex64", "float64", "complex128"]


def bilateral(xp, x, *sigmas, guide=None, **keywords):
    """Call the library on a backend's arrays; the result on the host."""
    sigmas = [xp.asarray(sigma) if isinstance(sigma, np.ndarray) else sigma for sigma in sigmas]
    if guide is not None:
        keywords["guide"] = xp.asarray(guide)
    return xp.to_numpy(cuvarconv.bilateral_filter(xp.asarray(x), *sigmas, **keywords))


def check(xp, x, *sigmas, dtype=None, **keywords):
    """Compare with the loops; also the shape and the dtype."""
    y = bilateral(xp, x, *sigmas, **keywords)
    assert y.dtype == x.dtype.newbyteorder("=")
    assert_close(y, reference_bilateral.bilateral_filter(x, *sigmas, **keywords), dtype)
    return y


def widths(shape, low, high, dtype="float64", seed=7):
    """Return a map of numbers between `low` and `high`."""
    return np.random.default_rng([seed, 5]).uniform(low, high, shape).astype(dtype)


def sigmas_of(kind, shape):
    """Return both σ, as numbers or as maps."""
    return (1.0, 0.8) if kind == "numbers" else (widths(shape, 0.2, 1.0), widths(shape, 0.5, 2.0, seed=8))


each_kind = pytest.mark.parametrize("kind", ["numbers", "maps"])

SHAPES = {  # σ_s and σ_r for images (2, 3, 4, 5)
    "one each": ((), ()),
    "σ_r per sample": ((), (2, 1, 1, 1)),
    "σ_s per sample": ((2, 1, 1, 1), ()),
    "rows": ((4, 1), (1,)),
    "columns": ((5,), (1, 5)),
    "per sample and pixel": ((2, 3, 4, 5), (3, 1, 5)),
    "σ_s alone": ((4, 5), ()),
    "σ_r alone": ((1, 1), (4, 5)),
}
JOINT = {  # input, guide, channel_axis
    "same shape": ((2, 4, 5), (2, 4, 5), None),
    "guide shared by a batch": ((2, 3, 4, 5), (4, 5), None),
    "guide shared by one axis": ((2, 3, 4, 5), (2, 1, 4, 5), None),
    "other channels": ((2, 4, 5, 3), (2, 4, 5, 2), -1),
    "colour guide shared by a batch": ((2, 3, 4, 5), (1, 4, 5), 1),
    "colour guide shared, axis from the end": ((2, 3, 4, 5), (2, 4, 5), -3),
    "grey guide": ((3, 4, 5), (4, 5), 0),
    "grey guide of a batch": ((2, 4, 5, 3), (4, 5), -1),
    "grey image": ((4, 5), (3, 4, 5), 0),
    "grey image, channels last": ((4, 5), (4, 5, 2), -1),
    "one channel": ((2, 1, 4, 5), (2, 3, 4, 5), -3),
    "many features": ((4, 5), (9, 4, 5), 0),
}


@st.composite
def calls(draw):
    """Draw an image, both σ, and keywords."""
    image = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    batch = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    seed = draw(st.integers(0, 2**32 - 1))
    keywords = {
        "mode": draw(st.tuples(st.sampled_from(SAME_SIZE), st.sampled_from(SAME_SIZE))),
        "cval": draw(st.sampled_from([0.0, 0.5, -2.0])),
    }
    keywords.update(draw(st.sampled_from([{"radius": 1}, {"radius": 3}, {"truncate": 1.7}])))
    shape = (*batch, *image)
    if draw(st.booleans()):
        at, channels = draw(st.integers(0, len(shape))), draw(st.integers(1, 3))
        shape = (*shape[:at], channels, *shape[at:])
        keywords["channel_axis"] = draw(st.sampled_from([at, at - len(shape)]))
    if draw(st.booleans()):
        keywords["guide"] = noise(shape, "float64", seed + 1)
    sigmas = []
    for low, high in ((0.2, 1.5), (0.4, 3.0)):
        full = (*batch, *image)
        shared = draw(st.tuples(*[st.booleans()] * len(full)))
        map_shape = tuple(1 if one else length for one, length in zip(shared, full, strict=True))
        sigmas.append(widths(map_shape[draw(st.integers(0, len(full))) :], low, high, seed=seed))
    return noise(shape, "float64", seed), *sigmas, keywords
