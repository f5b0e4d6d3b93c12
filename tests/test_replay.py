"""Calls whose operands have the geometry of earlier ones: launched again without being worked out again."""

import sys

import emulator
import numpy as np
import pytest
from tolerances import assert_equal, integers

import cuvarconv

CALLS = {
    "correlate": (cuvarconv.correlate, ((3, 8, 12), (3, 3, 8, 12)), {}),
    "local": (cuvarconv.local_correlate, ((4, 5, 6), (3, 3, 5, 6, 4, 4)), {}),
    "spread": (cuvarconv.spread, ((3, 8, 12), (3, 3, 8, 12)), {}),
    "gaussian": (cuvarconv.gaussian_filter, ((8, 12), (8, 12)), {"radius": 2}),
    "bilateral": (cuvarconv.bilateral_filter, ((8, 12), (), ()), {"radius": 2}),
}


def module(name):
    """Return a module of the CUDA backend whose name is also a function's."""
    return sys.modules[f"cuvarconv._gpu.{name}"]


def operands(shapes, seed, dtype="float32"):
    """Return arrays and scalars; no σ is 0 or less."""
    return [integers(shape, dtype, seed + at, low=1, high=5) for at, shape in enumerate(shapes)]


def called(backend, function, arrays, **keywords):
    """Return a result on the host; scalars stay there."""
    given = [backend.asarray(array) if np.ndim(array) else float(array) for array in arrays]
    return backend.to_numpy(function(*given, **keywords))


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_is_launched_without_planning_or_copies(
    cuda_backend, instantiations, monkeypatch, name
):
    function, shapes, keywords = CALLS[name]
    first, second = (operands(shapes, seed) for seed in (1, 20))
    if name == "bilateral":
        second[1:] = first[1:]
    expected = called(cuda_backend, function, second, **keywords)
    module("_kept").kept.clear()
    called(cuda_backend, function, first, **keywords)
    monkeypatch.setattr(module(name), "pieces", None)
    monkeypatch.setattr(module("_kept").kept, "keep", None)
    with emulator.recording() as launched:
        assert_equal(called(cuda_backend, function, second, **keywords), expected)
    assert len(launched) == 1


def test_plans_keep_no_array_alive(cuda_backend, instantiations):
    if not cuda_backend.is_emulated:
        pytest.skip("the emulator's memory pool counts what is in use")
    pool = cuda_backend.module.get_default_memory_pool()
    function, shapes, keywords = CALLS["correlate"]
    called(cuda_backend, function, operands(((3, 3), (1, 1)), 1))
    before = pool.used_bytes()
    called(cuda_backend, function, operands(shapes, 1), **keywords)
    tables = 8 * (8 + 2 + 12 + 2)
    assert pool.used_bytes() <= before + tables


def test_tables_do_not_come_from_the_callers_allocator(cuda_backend):
    """PyTorch's may be that of a graph, which is to get back all that it gave."""
    cupy = cuda_backend.module
    taken = []

    def allocate(size):
        taken.append(size)
        return cupy.get_default_memory_pool().malloc(size)

    with cupy.cuda.using_allocator(allocate):
        table, record = module("_kept").kept.table(lambda: (np.arange(5), "record"))
        assert taken == []
        cupy.empty(3)
    assert len(taken) == 1
    assert_equal(cuda_backend.to_numpy(table), np.arange(5))
    assert record == "record"


def test_nothing_is_kept_during_a_capture(cuda_backend, monkeypatch):
    """To make room the devices would have to be waited for, which ends the capture."""
    if not cuda_backend.is_emulated:
        pytest.skip("the emulator's streams can pretend")
    monkeypatch.setattr(type(cuda_backend.module.cuda.get_current_stream()), "capturing", True)
    module("_kept").kept.keep("plan", 8, "key")
    assert module("_kept").kept.find("key") is None


def test_operands_that_are_one_array_are_told_from_two(cuda_backend, instantiations):
    """A guide that is the image, at first, and then another of the same shape."""
    x, guide = operands(((8, 12), (8, 12)), 3)
    given = cuda_backend.asarray(x)
    for other in (given, cuda_backend.asarray(guide), given):
        result = cuvarconv.bilateral_filter(given, 1.0, 1.0, guide=other, radius=2)
        expected = cuvarconv.bilateral_filter(x, 1.0, 1.0, guide=other.get(), radius=2)
        np.testing.assert_allclose(result.get(), expected, rtol=1e-5)


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_alignment_belongs_to_the_geometry(cuda_backend, instantiations, shift):
    x, k = operands(((3, 8, 12), (3, 3, 8, 12)), 4)
    expected = cuvarconv.correlate(x, k)
    for offset in (0, shift, 0):
        memory = cuda_backend.module.empty(k.size + 4, k.dtype)
        kernels = memory[offset : offset + k.size].reshape(k.shape)
        kernels[...] = cuda_backend.asarray(k)
        assert_equal(cuda_backend.to_numpy(cuvarconv.correlate(cuda_backend.asarray(x), kernels)), expected)


def test_strides_belong_to_the_geometry(cuda_backend, instantiations):
    x, k = operands(((3, 8, 8), (3, 3, 8, 8)), 6)
    given, kernels = cuda_backend.asarray(x), cuda_backend.asarray(k)
    for axes in ((0, 1, 2), (0, 2, 1), (0, 1, 2)):
        result = cuvarconv.correlate(given.transpose(axes), kernels)
        assert_equal(cuda_backend.to_numpy(result), cuvarconv.correlate(x.transpose(axes), k))


@pytest.mark.parametrize("dtypes", [("float64", "float32"), ("complex64", "float32"), ("int16", "int8")])
def test_conversions_are_worked_out_each_time(cuda_backend, instantiations, dtypes):
    for seed in (1, 7):
        arrays = [
            integers(shape, dtype, seed)
            for shape, dtype in zip(((3, 8, 12), (3, 3, 8, 12)), dtypes, strict=True)
        ]
        expected = cuvarconv.correlate(*arrays)
        assert_equal(called(cuda_backend, cuvarconv.correlate, arrays), expected)


def test_a_call_that_failed_is_not_repeated(cuda_backend, instantiations, monkeypatch):
    arrays = [cuda_backend.asarray(array) for array in operands(((3, 8, 12), (3, 3, 8, 12)), 5)]
    with monkeypatch.context() as patch:
        patch.setattr(module("correlate"), "launch", None)
        with pytest.raises(TypeError):
            cuvarconv.correlate(*arrays)
    with emulator.recording() as launched:
        cuvarconv.correlate(*arrays)
    assert len(launched) == 1


def test_many_geometries_are_forgotten_in_the_end(cuda_backend, instantiations, monkeypatch):
    kept = module("_kept").kept
    monkeypatch.setattr(kept, "_MOST", 64 << 10)
    for width in range(4, 24):
        arrays = operands(((4, width), (1, 1, 4, width)), width)
        assert_equal(called(cuda_backend, cuvarconv.correlate, arrays), cuvarconv.correlate(*arrays))
        assert len(kept._kept) + len(kept._previous) <= 2 * 3 * 6


@pytest.mark.parametrize("name", CALLS)
def test_a_graph_is_captured_of_calls_that_were_made_before(cuda_backend, instantiations, monkeypatch, name):
    """What a call has to copy from the host is refused: replayed, it would copy what lies there by then."""
    if not cuda_backend.is_emulated:
        pytest.skip("the emulator's streams can pretend; tests/test_torch_cuda.py captures on a GPU")
    stream = type(cuda_backend.module.cuda.get_current_stream())
    function, shapes, keywords = CALLS[name]
    given = [cuda_backend.asarray(array) for array in operands(shapes, 3)]
    module("_kept").kept.clear()
    monkeypatch.setattr(stream, "capturing", True)
    with pytest.raises(RuntimeError, match="once before the capture"):
        function(*given, **keywords)
    monkeypatch.setattr(stream, "capturing", False)
    expected = function(*given, **keywords)
    monkeypatch.setattr(stream, "capturing", True)
    assert_equal(cuda_backend.to_numpy(function(*given, **keywords)), cuda_backend.to_numpy(expected))
