"""The three functions that have gradients, called alike: operands, results, loops."""

import numpy as np
import reference
import reference_gradients
from tolerances import BFLOAT16, assert_close, assert_equal, integers, stored

import cuvarconv

# Each function with the names of its operands, in order.
FORMS = {
    "correlate": ("input", "weights"),
    "modulated_correlate": ("input", "weights", "modulation"),
    "local_correlate": ("input", "kernels"),
}
EACH_OPERAND = [(function, name) for function, names in FORMS.items() for name in names]
MODES = ["reflect", "mirror", "nearest", "wrap", "constant", "valid"]
SAME_SIZE = MODES[:-1]
INEXACT = ["float16", "float32", "float64", "complex64", "complex128", BFLOAT16]
EXACT = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]

# Views with the same values and other strides; every operand has at least 3 axes.
VIEWS = {
    "Fortran": lambda xp, a: xp.module.asarray(xp.asarray(a), order="F"),
    "reversed": lambda xp, a: xp.asarray(a[::-1, ::-1, ..., ::-1].copy())[::-1, ::-1, ..., ::-1],
    "transposed": lambda xp, a: xp.asarray(a.T.copy()).T,
    "last axis first": lambda xp, a: xp.module.moveaxis(xp.asarray(np.moveaxis(a, -1, 0).copy()), 0, -1),
    "every other": lambda xp, a: xp.asarray(np.repeat(np.repeat(a, 2, -1), 3, 0))[::3, ..., 1::2],
}


def shapes(function, image=(4, 5), size=(3, 2), batch=(), channels=2, filters=3, *, groups=1, **keywords):
    """Return the shapes of the operands of a call, with one kernel or factor per output pixel."""
    geometry = {name: value for name, value in keywords.items() if name != "cval"}
    outputs = reference.Taps(image, size, **geometry).shape
    images = (*batch, channels, *image)
    if function == "correlate":
        return images, (*size, *outputs)
    if function == "modulated_correlate":
        return images, (filters, channels // groups, *size), (*size, *outputs)
    return images, (*size, *outputs, channels, filters)


def operands(function, *arguments, dtype=np.float32, make=integers, **keywords):
    """Return operands of these shapes; `dtype` is one for all, or a list of one for each."""
    every = shapes(function, *arguments, **keywords)
    dtypes = dtype if isinstance(dtype, list) else [dtype] * len(every)
    return [
        values(make, shape, kind, seed) for seed, (shape, kind) in enumerate(zip(every, dtypes, strict=True))
    ]


def values(make, shape, dtype=np.float32, seed=0):
    """Return random numbers; whole ones are so small that float32 holds every sum of products."""
    return make(shape, dtype, seed, **({"low": -3, "high": 4} if make is integers else {}))


def result_shape(function, arrays, *, axes=(-2, -1), groups=1, cval=0, **keywords):
    """Return the shape of the function's result, and so of the gradient that comes in."""
    x, k = arrays[:2]
    size = k.shape[2:] if function == "modulated_correlate" else k.shape[:2]
    taps = reference.Taps([x.shape[axis] for axis in axes], size, **keywords)
    shape = list(x.shape)
    for axis, length in zip(axes, taps.shape, strict=True):
        shape[axis] = length
    if function != "correlate":
        shape[-3] = len(k) if function == "modulated_correlate" else k.shape[-1]
    return tuple(shape)


def incoming(function, arrays, dtype=np.float32, make=integers, **keywords):
    """Return a gradient to come in, of the result's shape."""
    return values(make, result_shape(function, arrays, **keywords), dtype, 9)


def forward(xp, function, arrays, **keywords):
    """Call the function on a backend's arrays; the result on the host."""
    return xp.to_numpy(getattr(cuvarconv, function)(*map(xp.asarray, arrays), **keywords))


def gradients(xp, function, g, arrays, **keywords):
    """Call the function's gradients on a backend's arrays; a list of results on the host."""
    vjp = getattr(cuvarconv, f"{function}_vjp")
    results = vjp(xp.asarray(g), *map(xp.asarray, arrays), **keywords)
    assert type(results) is tuple
    return [xp.to_numpy(result) for result in results]


def gradient(xp, function, g, arrays, name, **keywords):
    """Return the gradient of one operand."""
    vjp = getattr(cuvarconv, f"{function}_vjp")
    return xp.to_numpy(vjp(xp.asarray(g), *map(xp.asarray, arrays), wrt=name, **keywords))


def looped(function, g, arrays, **keywords):
    """Return the loops' gradients of all operands."""
    return getattr(reference_gradients, f"{function}_vjp")(g, *arrays, **keywords)


def stored_dtype(array):
    """Return the dtype that an operand's gradient is to have."""
    return np.dtype(np.float64) if array.dtype.kind in "biu" else array.dtype


def check(xp, function, arrays, g=None, **keywords):
    """Compare whole numbers with the loops, bit for bit; also their shapes and dtypes."""
    g = incoming(function, arrays, **keywords) if g is None else g
    results = gradients(xp, function, g, arrays, **keywords)
    for result, expected, array in zip(results, looped(function, g, arrays, **keywords), arrays, strict=True):
        assert result.shape == array.shape
        assert result.dtype == stored_dtype(array)
        assert_equal(result, stored(expected, result.dtype))
    return results


def check_noise(xp, function, arrays, g, dtype=None, **keywords):
    """Compare random numbers with the loops; `dtype` is the coarsest that is computed in."""
    results = gradients(xp, function, g, arrays, **keywords)
    for result, expected in zip(results, looped(function, g, arrays, **keywords), strict=True):
        assert_close(result, expected, dtype)
    return results
