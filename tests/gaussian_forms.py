"""Calls of `gaussian_filter` and what they are compared with."""

import hypothesis.strategies as st
import numpy as np
import reference_gaussian
from forms import SAME_SIZE
from tolerances import assert_close, noise

import cuvarconv


def device(xp, value):
    """Move arrays to the backend, those of a pair too."""
    if isinstance(value, tuple | list):
        return type(value)(device(xp, each) for each in value)
    return xp.asarray(value) if isinstance(value, np.ndarray) else value


def gaussian_filter(xp, x, sigma, *arguments, angle=None, **keywords):
    """Call the library on a backend's arrays; the result on the host."""
    return xp.to_numpy(
        cuvarconv.gaussian_filter(
            xp.asarray(x), device(xp, sigma), *arguments, angle=device(xp, angle), **keywords
        )
    )


def sigmas(shape, high=2.0, seed=0):
    """Return a map from 0 to `high`, both ends included."""
    values = np.random.default_rng([seed, 5]).uniform(0, high, shape)
    values.flat[0], values.flat[-1] = high, 0
    return values


def angles(shape, seed=0):
    return np.random.default_rng([seed, 6]).uniform(-4, 4, shape)


def check(xp, x, sigma, **keywords):
    """Compare with the loops; also the dtype."""
    y = gaussian_filter(xp, x, sigma, **keywords)
    assert y.dtype == x.dtype
    expected = reference_gaussian.gaussian_filter(x, sigma, **keywords)
    assert_close(y, expected)
    return y


@st.composite
def calls(draw):
    """Draw an image, σ and keywords."""
    image = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    shape = (*draw(st.lists(st.integers(1, 3), max_size=2)), *image)
    mode = draw(st.tuples(*[st.sampled_from(SAME_SIZE)] * 2))
    seed = draw(st.integers(0, 2**32 - 1))
    angle = draw(st.sampled_from([None, "number", "map"]))
    lowest = 0 if angle is None else 0.05

    def map_(number):
        lengths = tuple(draw(st.sampled_from([1, length])) for length in shape)
        return lowest + sigmas(lengths, draw(st.floats(0.1, 2)), seed + number)

    sigma = draw(st.sampled_from(["one", "pair", "mixed"]))
    sigma = map_(1) if sigma == "one" else (map_(1), map_(2) if sigma == "pair" else draw(st.floats(0.2, 2)))
    if angle is not None:
        angle = draw(st.floats(-4, 4)) if angle == "number" else angles(shape, seed)
    keywords = {"mode": mode, "cval": draw(st.floats(-2, 2)), "angle": angle}
    if draw(st.booleans()):
        keywords["radius"] = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    else:
        keywords["truncate"] = draw(st.floats(0, 4))
    return noise(shape, "float64", seed), sigma, keywords
