"""What the kernels for tensor cores do to memory, counted by the emulator."""

import numpy as np
import pytest
from traffic import read_by

import cuvarconv

CHANNELS, OUTPUTS, IMAGE, TAPS = 32, 64, (8, 32), 9


@pytest.fixture
def call(cuda_backend):
    """Return a call of the function, and its operands in float16."""
    rng = np.random.default_rng(0)
    shapes = ((CHANNELS, *IMAGE), (OUTPUTS, CHANNELS, 3, 3), (3, 3, *IMAGE))
    operands = [cuda_backend.asarray(rng.random(shape).astype(np.float16)) for shape in shapes]
    return lambda: cuvarconv.modulated_correlate(*operands)


@pytest.fixture
def rows(call, profiled):
    return profiled("modulated_tensor", call)


def test_a_patch_is_made_once_for_all_outputs(rows):
    pixels = IMAGE[0] * IMAGE[1]
    values = read_by(rows, "values[v] = __ldg(from + v * channels.step)")
    assert sum(row.bytes for row in values) == TAPS * CHANNELS * pixels * 2
    assert all(row.bytes == 2 * 32 * row.requests for row in values)
    written = [row for _, row in rows if (row.space, row.access) == ("global", "write")]
    assert sum(row.bytes for row in written) == OUTPUTS * pixels * 2
    assert all(row.transactions == 2 * row.requests for row in written)  # whole sectors


def test_no_bank_is_met_twice(rows):
    """A wavefront moves 128 bytes: fragments, lines of patches and of the matrix take no more of them."""
    for text, access in (("load_fragments(", "read"), ("lines[chunk_at(", "write"), ("copy_async(", "write")):
        lines = [row for line, row in rows if text in line and (row.space, row.access) == ("shared", access)]
        assert lines, text
        assert all(row.transactions * 128 == row.bytes for row in lines), text


def test_the_matrix_is_read_once_by_a_block(rows):
    blocks = IMAGE[0] * IMAGE[1] // 128
    copies = read_by(rows, "copy_async(")
    assert sum(row.bytes for row in copies) == blocks * OUTPUTS * TAPS * CHANNELS * 2
