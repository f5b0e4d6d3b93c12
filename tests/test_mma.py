"""kernels/mma.cuh: fragments as the PTX ISA lays them out, asynchronous copies."""

import numpy as np
import pytest
from tolerances import BFLOAT16, assert_equal

TYPES = {"float16": "__half", str(BFLOAT16): "__nv_bfloat16", "float32": "float"}

CODE = """
extern "C" __global__ void multiply_NAME(
    const uint4* left, const uint2* right, const float4* sums, float4* result)
{
  const int lane = threadIdx.x;
  const unsigned words[4] = {left[lane].x, left[lane].y, left[lane].z, left[lane].w};
  const float4 given = sums[lane];
  float sum[4] = {given.x, given.y, given.z, given.w};
  multiply_fragments(TYPE(), sum, words, right[lane].x, right[lane].y);
  result[lane] = {sum[0], sum[1], sum[2], sum[3]};
}
"""

OTHERS = """
extern "C" __global__ void transfer(const uint4* lines, uint4* result)
{
  __shared__ uint4 memory[32];
  memory[threadIdx.x] = lines[threadIdx.x];
  __syncthreads();
  unsigned words[4];
  load_fragments(words, memory + (threadIdx.x ^ 5));
  result[threadIdx.x] = {words[0], words[1], words[2], words[3]};
}

extern "C" __global__ void round_off(const float* values, unsigned* bits)
{
  bits[threadIdx.x] = to_tf32(values[threadIdx.x]);
}

template <int LEFT> __global__ void copy(const uint4* lines, uint4* result)
{
  __shared__ uint4 memory[2][32];
  for (int group = 0; group < 2; ++group) {
    copy_async(&memory[group][threadIdx.x], lines + threadIdx.x, group == 0 || threadIdx.x % 2 == 0);
    commit_copies();
  }
  wait_for_copies<LEFT>();
  __syncthreads();
  for (int group = 0; group < 2; ++group) result[group * 32 + threadIdx.x] = memory[group][threadIdx.x ^ 1];
}
"""


@pytest.fixture(scope="module")
def module(cuda_backend):
    """Kernels of one warp around the functions of the header."""
    from cuvarconv._gpu._launch import OPTIONS
    from cuvarconv._gpu._sources import _expand

    header = "\n".join(_expand("mma.cuh", set()))
    kernels = [CODE.replace("NAME", name).replace("TYPE", cpp_type) for name, cpp_type in TYPES.items()]
    names = [f"multiply_{name}" for name in TYPES] + ["transfer", "round_off", "copy<0>", "copy<1>"]
    return cuda_backend.module.RawModule(
        code="\n".join((header, *kernels, OTHERS)), options=OPTIONS, name_expressions=tuple(names)
    )


def run(module, cuda_backend, name, result, *operands):
    """Launch a kernel with one warp; the result on the host."""
    on_device = [cuda_backend.asarray(operand) for operand in operands]
    output = cuda_backend.asarray(result)
    module.get_function(name)((1,), (32,), (*on_device, output))
    return cuda_backend.to_numpy(output)


def places(count, row, column):
    """Return the rows and columns of the elements 0 … count-1 that each of 32 lanes holds."""
    lane, i = np.meshgrid(np.arange(32), np.arange(count), indexing="ij")
    group, thread = lane >> 2, lane % 4
    return row(group, thread, i), column(group, thread, i)


# The PTX ISA's formulas, in its own words: groupID, threadID_in_group, and i of a_i, b_i and c_i.
HALVES = {
    "left": places(
        8,
        lambda group, thread, i: np.where((i < 2) | ((i >= 4) & (i < 6)), group, group + 8),
        lambda group, thread, i: thread * 2 + (i & 1) + np.where(i < 4, 0, 8),
    ),
    "right": places(
        4,
        lambda group, thread, i: thread * 2 + (i & 1) + np.where(i < 2, 0, 8),
        lambda group, thread, i: group,
    ),
}
TF32 = {
    "left": places(
        4,
        lambda group, thread, i: np.where(i % 2 == 0, group, group + 8),
        lambda group, thread, i: np.where(i < 2, thread, thread + 4),
    ),
    "right": places(
        2, lambda group, thread, i: np.where(i == 0, thread, thread + 4), lambda group, thread, i: group
    ),
}
SUMS = places(
    4,
    lambda group, thread, i: np.where(i < 2, group, group + 8),
    lambda group, thread, i: thread * 2 + (i & 1),
)


@pytest.mark.parametrize("name", TYPES)
def test_products_of_fragments(cuda_backend, module, name):
    dtype = np.dtype(BFLOAT16 if name == str(BFLOAT16) else name)
    layout, depth = (TF32, 8) if name == "float32" else (HALVES, 16)
    rng = np.random.default_rng(1)
    left, right, sums = (
        rng.integers(-9, 10, shape).astype(kind)
        for shape, kind in (((16, depth), dtype), ((depth, 8), dtype), ((16, 8), np.float32))
    )
    words = [matrix[layout[side]].view(np.uint32) for side, matrix in (("left", left), ("right", right))]
    empty = np.empty((32, 4), np.float32)
    result = run(module, cuda_backend, f"multiply_{name}", empty, *words, sums[SUMS])
    product = np.empty((16, 8), np.float32)
    product[SUMS] = result
    assert_equal(product, left.astype(np.float32) @ right.astype(np.float32) + sums)


def test_fragments_of_lines(cuda_backend, module):
    """Lane l names line l%8 of matrix l/8, and receives word l%4 of line l/4 of each matrix."""
    lines = np.arange(128, dtype=np.uint32).reshape(32, 4)
    result = run(module, cuda_backend, "transfer", np.empty_like(lines), lines)
    named = lines[np.arange(32) ^ 5].reshape(4, 8, 4)
    assert_equal(result, named.reshape(4, 32).T)


def test_tf32_is_rounded_to_the_nearest(cuda_backend, module):
    values = np.concatenate([np.random.default_rng(2).standard_normal(28), [np.inf, -np.inf, 0, 1]])
    values = values.astype(np.float32)
    bits = run(module, cuda_backend, "round_off", np.empty(32, np.uint32), values)
    assert not (bits & 0x1FFF).any()
    rounded = bits.view(np.float32)
    assert_equal(rounded[28:], values[28:])
    assert (np.abs(rounded[:28] - values[:28]) <= np.abs(values[:28]) * 2.0**-11).all()


def test_copies_have_landed_after_the_wait(cuda_backend, module):
    lines = np.arange(128, dtype=np.uint32).reshape(32, 4)
    result = run(module, cuda_backend, "copy<0>", np.empty((2, 32, 4), np.uint32), lines)
    swapped = lines[np.arange(32) ^ 1]
    assert_equal(result[0], swapped)
    assert_equal(result[1, 1::2], swapped[1::2])  # of even lanes
    assert not result[1, ::2].any()


def test_a_missing_wait_is_found(cuda_backend, module):
    if not cuda_backend.is_emulated:
        pytest.skip("a GPU may have copied by then")
    lines = np.ones((32, 4), np.uint32)
    result = run(module, cuda_backend, "copy<1>", np.empty((2, 32, 4), np.uint32), lines)
    assert (result[0] == 1).all()
    assert (result[1] == 2**32 - 1).all()
