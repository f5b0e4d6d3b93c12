"""What counts as equal, one table for all tests, and the random data that are compared by it."""

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Largest relative error ‖actual − expected‖ / ‖expected‖ against a float64 reference.
TOLERANCE = {
    "bfloat16": 1e-2,
    "float16": 2e-3,
    "float32": 1e-6,
    "float64": 1e-14,
    "complex64": 1e-6,
    "complex128": 1e-14,
}


def integers(shape, dtype=np.float32, seed=0, low=-4, high=5):
    """Return small whole numbers, on which every sum is exact: they are compared bit for bit."""
    dtype = np.dtype(dtype)
    if dtype.kind in "ub":
        low = 0
    values = np.random.default_rng([seed, 1]).integers(low, high, shape)
    if dtype.kind == "c":
        values = values + 1j * np.random.default_rng([seed, 2]).integers(low, high, shape)
    return values.astype(dtype)


def noise(shape, dtype=np.float32, seed=0):
    """Return normally distributed numbers, complex for complex dtypes."""
    dtype = np.dtype(dtype)
    values = np.random.default_rng([seed, 3]).standard_normal(shape)
    if dtype.kind == "c":
        values = values + 1j * np.random.default_rng([seed, 4]).standard_normal(shape)
    return values.astype(dtype)


def relative_error(actual, expected):
    """Return ‖actual − expected‖ / ‖expected‖ in double precision."""
    wide = np.complex128 if "c" in (actual.dtype.kind, expected.dtype.kind) else np.float64
    actual, expected = actual.astype(wide), expected.astype(wide)
    difference = np.linalg.norm(actual - expected)
    return difference / np.linalg.norm(expected) if difference else 0.0


def assert_close(actual, expected, dtype=None):
    """Compare random data; `dtype` is the coarsest that was computed in, by default the result's."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    name = np.dtype(dtype or actual.dtype).name
    error = relative_error(actual, expected)
    assert error <= TOLERANCE[name], f"relative error {error:.2e} > {TOLERANCE[name]} ({name})"


def assert_equal(actual, expected):
    """Compare whole numbers bit for bit, NaN and infinities included."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected.astype(actual.dtype), strict=True)


def stored(expected, dtype):
    """Convert a float64 reference as results are stored: integers by truncation, modulo 2ⁿ."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return expected.astype(np.int64).astype(dtype)
    return expected.astype(dtype)
