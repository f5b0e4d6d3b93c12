"""Property-based: any legal call agrees with the loops, on every backend."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
from hypothesis import given
from tolerances import assert_equal, integers, stored

import cuvarconv

MODES = ["reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap", "valid"]
DTYPES = ["float32", "float64", "complex64", "int16", "uint8"]
seeds = st.integers(0, 2**32 - 1)


@st.composite
def window_axes(draw):
    """One axis of a window: (image length, taps, keywords, output length)."""
    taps, dilation = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    stride, mode = draw(st.integers(1, 4)), draw(st.sampled_from(MODES))
    if mode == "valid":
        length, origin = (taps - 1) * dilation + draw(st.integers(1, 4)), 0
    else:
        length, origin = draw(st.integers(1, 7)), draw(st.integers(-(taps // 2), (taps - 1) // 2))
    outputs = reference.output_size(length, taps, mode, stride, dilation)
    return length, taps, {"mode": mode, "origin": origin, "stride": stride, "dilation": dilation}, outputs


@st.composite
def windows(draw):
    """Draw (image shape, window size, keywords, output shape)."""
    rows, columns = draw(window_axes()), draw(window_axes())
    keywords = {name: (rows[2][name], columns[2][name]) for name in rows[2]}
    keywords["cval"] = draw(st.integers(-3, 3))
    return (rows[0], columns[0]), (rows[1], columns[1]), keywords, (rows[3], columns[3])


@st.composite
def broadcastable(draw, shape):
    """Draw a shape that broadcasts, one way, to `shape`."""
    kept = draw(st.integers(0, len(shape)))
    tail = shape[len(shape) - kept :]
    return tuple(1 if draw(st.booleans()) else length for length in tail)


def strided(draw, array):
    """Return the same values with strides of another order, sign or step."""
    order = draw(st.permutations(range(array.ndim)))
    back = tuple(int(axis) for axis in np.argsort(order))
    steps = tuple(draw(st.sampled_from([1, 1, -1, 2])) for _ in order)
    shape = [length * abs(step) for length, step in zip(array.transpose(order).shape, steps, strict=True)]
    memory = np.zeros(shape, array.dtype)
    index = tuple(slice(None, None, step) for step in steps)
    memory[index] = array.transpose(order)
    return memory, index, back


def to_backend(xp, view):
    memory, index, back = view
    return xp.asarray(memory)[index].transpose(back)


@given(data=st.data())
@pytest.mark.parametrize("function", ["correlate", "convolve"])
def test_correlate(xp, function, data):
    image, size, keywords, outputs = data.draw(windows())
    batch = data.draw(st.lists(st.integers(1, 3), max_size=2))
    rows, columns = data.draw(st.permutations(range(len(batch) + 2)))[:2]
    shape, result_shape = [*batch], [*batch]
    for axis, length, output in sorted([(rows, image[0], outputs[0]), (columns, image[1], outputs[1])]):
        shape.insert(axis, length)
        result_shape.insert(axis, output)
    varying = data.draw(broadcastable(tuple(result_shape)))
    dtypes = [data.draw(st.sampled_from(DTYPES)) for _ in range(2)]
    seed = data.draw(seeds)
    x, k = integers(shape, dtypes[0], seed), integers((*size, *varying), dtypes[1], seed + 1)
    if function == "convolve":  # the mirrored range is legal; the loops mirror it back
        keywords["origin"] = tuple(
            0 if mode == "valid" else -origin - (taps % 2 == 0)
            for origin, taps, mode in zip(keywords["origin"], size, keywords["mode"], strict=True)
        )
    keywords["axes"] = (rows, columns)
    operands = (to_backend(xp, strided(data.draw, array)) for array in (x, k))
    result = xp.to_numpy(getattr(cuvarconv, function)(*operands, **keywords))
    expected = getattr(reference, function)(x, k, **keywords)
    assert result.shape == tuple(result_shape)
    assert_equal(result, stored(expected, result.dtype))


@given(data=st.data())
def test_modulated_correlate(xp, data):
    image, size, keywords, outputs = data.draw(windows())
    batch = data.draw(st.lists(st.integers(1, 2), max_size=2))
    groups, part, filters = (data.draw(st.integers(1, 3)) for _ in range(3))
    channels = groups * part
    varying = data.draw(broadcastable((*batch, channels, *outputs)))
    if len(varying) >= 3:
        divisors = [entries for entries in range(1, channels + 1) if channels % entries == 0]
        entries = data.draw(st.sampled_from(divisors))
        varying = (*varying[:-3], entries, *varying[-2:])
    dtypes = [data.draw(st.sampled_from(DTYPES)) for _ in range(3)]
    shapes = (*batch, channels, *image), (groups * filters, part, *size), (*size, *varying)
    seed = data.draw(seeds)
    x, w, d = (
        integers(shape, dtype, seed + number, low=-2, high=3)
        for number, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    )
    operands = (to_backend(xp, strided(data.draw, array)) for array in (x, w, d))
    result = xp.to_numpy(cuvarconv.modulated_correlate(*operands, groups=groups, **keywords))
    expected = reference.modulated_correlate(x, w, d, groups=groups, **keywords)
    assert result.shape == (*batch, groups * filters, *outputs)
    assert_equal(result, stored(expected, result.dtype))


@given(window=windows(), seed=seeds)
def test_linear_in_both_operands(xp, window, seed):
    image, size, keywords, outputs = window
    keywords = {**keywords, "cval": 0}
    x, y = integers(image, seed=seed), integers(image, seed=seed + 1)
    k = integers((*size, *outputs), seed=seed + 2)

    def filtered(images, weights):
        operands = xp.asarray(images), xp.asarray(weights)
        return xp.to_numpy(cuvarconv.correlate(*operands, **keywords))

    assert_equal(filtered(x + 2 * y, k), filtered(x, k) + 2 * filtered(y, k))
    assert_equal(filtered(x, 3 * k), 3 * filtered(x, k))


@given(window=windows(), seed=seeds)
def test_normalised_kernels_keep_a_constant_image(xp, window, seed):
    image, size, keywords, outputs = window
    keywords = {**keywords, "cval": 5}
    k = integers((*size, *outputs), seed=seed)
    k[0, 0] += 1 - k.sum((0, 1))
    x = np.full(image, 5, np.float32)
    result = xp.to_numpy(cuvarconv.correlate(xp.asarray(x), xp.asarray(k), **keywords))
    assert_equal(result, np.full(outputs, 5, np.float32))
    assert math.prod(outputs) > 0
