"""Property-based: any legal call agrees with the loops, on every backend."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
from forms import EACH_OPERAND, FORMS, check, forward, gradient
from hypothesis import given, settings
from tolerances import assert_equal, integers, noise, stored

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


@st.composite
def placed_windows(draw):
    """Draw a window anywhere among batch axes: (image's shape, window size, keywords, output's shape)."""
    image, size, keywords, outputs = draw(windows())
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    rows, columns = draw(st.permutations(range(len(batch) + 2)))[:2]
    shape, result_shape = [*batch], [*batch]
    for axis, length, output in sorted([(rows, image[0], outputs[0]), (columns, image[1], outputs[1])]):
        shape.insert(axis, length)
        result_shape.insert(axis, output)
    return tuple(shape), size, keywords | {"axes": (rows, columns)}, tuple(result_shape)


@st.composite
def calls(draw, function):
    """Draw a call of a function: (shapes of its operands, keywords, shape of its result)."""
    if function == "correlate":
        shape, size, keywords, result_shape = draw(placed_windows())
        return (shape, (*size, *draw(broadcastable(result_shape)))), keywords, result_shape
    image, size, keywords, outputs = draw(windows())
    batch = draw(st.lists(st.integers(1, 2), max_size=2))
    groups, part, filters = (draw(st.integers(1, 3)) for _ in range(3))
    channels = groups * part
    images = (*batch, channels, *image)
    if function == "local_correlate":
        kernels = (*size, *draw(broadcastable(tuple(batch))), *outputs, channels, filters)
        return (images, kernels), keywords, (*batch, filters, *outputs)
    varying = draw(broadcastable((*batch, channels, *outputs)))
    if len(varying) >= 3:
        divisors = [entries for entries in range(1, channels + 1) if channels % entries == 0]
        varying = (*varying[:-3], draw(st.sampled_from(divisors)), *varying[-2:])
    shapes = images, (groups * filters, part, *size), (*size, *varying)
    return shapes, keywords | {"groups": groups}, (*batch, groups * filters, *outputs)


def whole_numbers(draw, shapes):
    """Return arrays of dtypes of their own; their products and sums are exact in float32."""
    seed = draw(seeds)
    return [
        integers(shape, draw(st.sampled_from(DTYPES)), seed + number, low=-2, high=3)
        for number, shape in enumerate(shapes)
    ]


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
    (x_shape, k_shape), keywords, result_shape = data.draw(calls("correlate"))
    dtypes = [data.draw(st.sampled_from(DTYPES)) for _ in range(2)]
    seed = data.draw(seeds)
    x, k = integers(x_shape, dtypes[0], seed), integers(k_shape, dtypes[1], seed + 1)
    if function == "convolve":  # the mirrored range is legal; the loops mirror it back
        keywords["origin"] = tuple(
            0 if mode == "valid" else -origin - (taps % 2 == 0)
            for origin, taps, mode in zip(keywords["origin"], k_shape[:2], keywords["mode"], strict=True)
        )
    operands = (to_backend(xp, strided(data.draw, array)) for array in (x, k))
    result = xp.to_numpy(getattr(cuvarconv, function)(*operands, **keywords))
    expected = getattr(reference, function)(x, k, **keywords)
    assert result.shape == result_shape
    assert_equal(result, stored(expected, result.dtype))


@given(data=st.data())
@pytest.mark.parametrize("function", ["modulated_correlate", "local_correlate"])
def test_functions_that_mix_channels(xp, function, data):
    shapes, keywords, result_shape = data.draw(calls(function))
    arrays = whole_numbers(data.draw, shapes)
    operands = (to_backend(xp, strided(data.draw, array)) for array in arrays)
    result = xp.to_numpy(getattr(cuvarconv, function)(*operands, **keywords))
    assert result.shape == result_shape
    assert_equal(result, stored(getattr(reference, function)(*arrays, **keywords), result.dtype))


@given(data=st.data())
def test_spread(xp, data):
    shape, size, keywords, spots_shape = data.draw(placed_windows())
    del keywords["cval"]
    keywords["shape"] = tuple(shape[axis] for axis in keywords["axes"])
    varying = data.draw(broadcastable(spots_shape))
    arrays = whole_numbers(data.draw, [spots_shape, (*size, *varying)])
    operands = (to_backend(xp, strided(data.draw, array)) for array in arrays)
    result = xp.to_numpy(cuvarconv.spread(*operands, **keywords))
    assert result.shape == shape
    assert_equal(result, stored(reference.spread(*arrays, **keywords), result.dtype))


@given(data=st.data())
def test_unfold_and_fold(xp, data):
    image, size, keywords, outputs = data.draw(windows())
    batch = data.draw(st.lists(st.integers(1, 3), max_size=2))
    x, columns = whole_numbers(data.draw, [(*batch, *image), (*batch, *size, *outputs)])
    views = (to_backend(xp, strided(data.draw, array)) for array in (x, columns))
    cval = abs(keywords.pop("cval"))  # unsigned integers are drawn, too
    unfolded = cuvarconv.unfold(next(views), size, cval=cval, **keywords)
    assert_equal(xp.to_numpy(unfolded), reference.unfold(x, size, cval=cval, **keywords))
    folded = cuvarconv.fold(next(views), image, **keywords)
    assert_equal(xp.to_numpy(folded), reference.fold(columns, image, **keywords))


@given(data=st.data())
@pytest.mark.parametrize("function", FORMS)
def test_gradients(xp, function, data):
    shapes, keywords, result_shape = data.draw(calls(function))
    g, *arrays = whole_numbers(data.draw, [result_shape, *shapes])
    check(xp, function, arrays, g, **keywords)


# ---- adjoints ------------------------------------------------------------------------------------


def assert_adjoint(y, g, x, back):
    """Re⟨y, g⟩ = Re⟨x, back⟩ to 1e-12, where y is linear in x."""
    scale = np.linalg.norm(y) * np.linalg.norm(g)
    assert abs(np.vdot(y, g).real - np.vdot(x, back).real) <= 1e-12 * scale


precisions = st.sampled_from(["float64", "complex128"])


@settings(max_examples=50)
@given(data=st.data(), dtype=precisions, seed=seeds)
@pytest.mark.parametrize(("function", "name"), EACH_OPERAND)
def test_each_gradient_is_the_adjoint(xp, function, name, data, dtype, seed):
    shapes, keywords, result_shape = data.draw(calls(function))
    if name == "input":
        keywords["cval"] = 0  # else the result is not linear in the input, only affine
    arrays = [noise(shape, dtype, seed + number) for number, shape in enumerate(shapes)]
    y, g = forward(xp, function, arrays, **keywords), noise(result_shape, dtype, seed + 9)
    back = gradient(xp, function, g, arrays, name, **keywords)
    assert_adjoint(y, g, arrays[FORMS[function].index(name)], back)


@settings(max_examples=50)
@given(call=calls("correlate"), dtype=precisions, seed=seeds)
def test_spread_is_the_adjoint_of_correlate(xp, call, dtype, seed):
    (x_shape, k_shape), keywords, result_shape = call
    x, k, z = (
        noise(shape, dtype, seed + number) for number, shape in enumerate([x_shape, k_shape, result_shape])
    )
    y = forward(xp, "correlate", [x, k], **keywords | {"cval": 0})
    shape = tuple(x_shape[axis] for axis in keywords["axes"])
    del keywords["cval"]
    back = xp.to_numpy(cuvarconv.spread(xp.asarray(z), xp.asarray(k), shape=shape, **keywords))
    assert_adjoint(y, z, x, back)
    assert_adjoint(y * 1j, z, x * 1j, back)  # the imaginary part of the same: Hermitian


@settings(max_examples=50)
@given(window=windows(), batch=st.lists(st.integers(1, 3), max_size=2), dtype=precisions, seed=seeds)
def test_fold_is_the_adjoint_of_unfold(xp, window, batch, dtype, seed):
    image, size, keywords, outputs = window
    keywords = {name: value for name, value in keywords.items() if name != "cval"}
    x, columns = noise((*batch, *image), dtype, seed), noise((*batch, *size, *outputs), dtype, seed + 1)
    y = xp.to_numpy(cuvarconv.unfold(xp.asarray(x), size, **keywords))
    back = xp.to_numpy(cuvarconv.fold(xp.asarray(columns), image, **keywords))
    assert_adjoint(y, columns, x, back)
    assert_adjoint(y * 1j, columns, x * 1j, back)


# ---- other properties ----------------------------------------------------------------------------


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
