"""Outputs of `correlate` and `spread` that overlap an operand, on every backend."""

import numpy as np
import pytest
import reference
from test_correlate import kernels
from tolerances import assert_equal, integers

import cuvarconv


@pytest.mark.parametrize("function", ["correlate", "spread"])
@pytest.mark.parametrize(
    "overlap",
    [
        lambda x: x,
        lambda x: x[::-1],
        lambda x: x[:, ::-1],
        lambda x: x.transpose(1, 0),
    ],
    ids=["same", "rows reversed", "columns reversed", "transposed"],
)
def test_output_overlaps_the_input(xp, function, overlap):
    values, k = integers((6, 6)), kernels((3, 3), (6, 6))
    x = xp.asarray(values.copy())
    output = overlap(x)
    assert getattr(cuvarconv, function)(x, xp.asarray(k), output) is output
    assert_equal(xp.to_numpy(output), getattr(reference, function)(values, k).astype(np.float32))


def test_output_overlaps_the_input_over_many_blocks(xp):
    """The first block writes what the last one reads."""
    values, k = integers((900, 400)), kernels((3, 1))
    x = xp.asarray(values.copy())
    expected = xp.to_numpy(cuvarconv.correlate(x, xp.asarray(k)))
    cuvarconv.correlate(x, xp.asarray(k), x[::-1])
    assert_equal(xp.to_numpy(x)[::-1], expected)


def test_output_shifted_against_the_input(xp):
    values, k = integers((9, 6)), kernels((3, 3))
    whole = xp.asarray(values.copy())
    cuvarconv.correlate(whole[:-1], xp.asarray(k), whole[1:])
    result = xp.to_numpy(whole)
    assert_equal(result[1:], reference.correlate(values[:-1], k).astype(np.float32))
    assert_equal(result[:1], values[:1])


def test_output_reversed_and_shifted_against_the_input(xp):
    """Row 3 is read, and written last."""
    values, k = integers((9, 6)), kernels((3, 3))
    whole = xp.asarray(values.copy())
    cuvarconv.correlate(whole[:4], xp.asarray(k), whole[6:2:-1])
    result = xp.to_numpy(whole)
    assert_equal(result[6:2:-1], reference.correlate(values[:4], k).astype(np.float32))
    assert_equal(result[:3], values[:3])


def test_output_shifted_against_the_input_where_views_are_handed_over_one_by_one(
    cuda_backend, instantiations
):
    """CuPy takes views that came through DLPack, each by itself, for memory of their own."""
    values, k = integers((9, 6)), kernels((3, 3))
    whole = cuda_backend.asarray(values.copy())
    given, output = map(cuda_backend.module.from_dlpack, (whole[:-1], whole[1:]))
    cuvarconv.correlate(given, cuda_backend.asarray(k), output)
    expected = reference.correlate(values[:-1], k).astype(np.float32)
    assert_equal(cuda_backend.to_numpy(whole), np.concatenate([values[:1], expected]))


def test_output_overlaps_the_weights(xp):
    x, values = integers((3, 3)), kernels((3, 3), (3, 3))
    k = xp.asarray(values.copy())
    cuvarconv.correlate(xp.asarray(x), k, k[1, 1])
    assert_equal(xp.to_numpy(k)[1, 1], reference.correlate(x, values).astype(np.float32))
    assert_equal(xp.to_numpy(k)[0], values[0])


def test_output_overlaps_the_weights_over_many_blocks(xp):
    """The first block writes what the last one reads."""
    x, values = xp.asarray(integers((900, 400))), kernels((3, 1), (900, 400))
    k = xp.asarray(values.copy())
    expected = xp.to_numpy(cuvarconv.correlate(x, k))
    cuvarconv.correlate(x, k, k[1, 0, ::-1])
    assert_equal(xp.to_numpy(k)[1, 0, ::-1], expected)
