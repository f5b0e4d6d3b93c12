"""Which library's arrays go where: the same kind out as in, without a copy, or a clear refusal."""

import subprocess
import sys
import types

import numpy as np
import pytest
import reference
from tolerances import assert_equal, integers

import cuvarconv
from cuvarconv import _cpu

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")

X, K = integers((2, 6, 7)), integers((3, 3, 6, 7), seed=1)
EXPECTED = reference.correlate(X, K).astype(np.float32)
LIBRARIES = ["numpy", "torch", "jax"]
FUNCTIONS = ["correlate", "convolve", "modulated_correlate"]


def make(library, array):
    """Return a library's array with the values of a NumPy array."""
    array = np.array(array)
    if library == "numpy":
        return array
    return torch.from_numpy(array) if library == "torch" else jax.numpy.asarray(array)


def kind(library):
    return {"numpy": np.ndarray, "torch": torch.Tensor, "jax": jax.Array}[library]


def pointer(array):
    """Return where an array's first element lies."""
    if isinstance(array, torch.Tensor):
        return array.data_ptr()
    if isinstance(array, jax.Array):
        return array.unsafe_buffer_pointer()
    return array.ctypes.data


def operands(function):
    """Return small operands of a function, as NumPy arrays."""
    if function == "modulated_correlate":
        return integers((2, 6, 7)), integers((3, 2, 3, 3), seed=1), integers((3, 3, 6, 7), seed=2)
    return X, K


@pytest.fixture
def seen(monkeypatch):
    """What the backend is handed: a list of its array arguments, filled by the next call."""
    arrays = []
    for name in ("correlate", "modulated_correlate"):
        original = getattr(_cpu, name)

        def watched(*arguments, original=original, **keywords):
            arrays.extend(item for item in arguments if isinstance(item, np.ndarray))
            return original(*arguments, **keywords)

        monkeypatch.setattr(_cpu, name, watched)
    return arrays


# ---- the same kind out, without copies -----------------------------------------------------------


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_same_kind_out(library, function):
    arrays = operands(function)
    result = getattr(cuvarconv, function)(*(make(library, array) for array in arrays))
    assert isinstance(result, kind(library))
    expected = getattr(reference, function)(*arrays)
    assert_equal(np.asarray(result), expected.astype(np.float32))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_copy_in_and_out(seen, library, function):
    arrays = [make(library, array) for array in operands(function)]
    result = getattr(cuvarconv, function)(*arrays)
    *inputs, output = seen
    if function == "convolve":  # the kernel is flipped, as a view
        inputs[1] = inputs[1][::-1, ::-1]
    assert [pointer(array) for array in inputs] == [pointer(array) for array in arrays]
    assert pointer(output) == pointer(result)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_output_is_written_in_place(seen, library, function):
    arrays = [make(library, array) for array in operands(function)]
    expected = np.asarray(getattr(cuvarconv, function)(*arrays))
    seen.clear()
    output = make(library, np.zeros(expected.shape, np.float32))
    at = pointer(output)
    assert getattr(cuvarconv, function)(*arrays, output) is output
    assert pointer(output) == at == pointer(seen[-1])
    assert_equal(np.asarray(output), expected)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64", "int8", "uint8", "int32", "bool"])
def test_dtypes(library, dtype):
    x, k = integers((6, 7), dtype), integers((3, 3), dtype, seed=1)
    result = cuvarconv.correlate(make(library, x), make(library, k))
    assert np.asarray(result).dtype == dtype
    assert_equal(np.asarray(result), cuvarconv.correlate(x, k))


def test_double_precision_in_jax_without_x64():
    """JAX arrays have single precision by default; results of integers would be float64."""
    x, w = jax.numpy.ones((1, 4, 5), "int32"), jax.numpy.ones((1, 1, 3, 3), "int32")
    result = cuvarconv.modulated_correlate(x, w, jax.numpy.ones((3, 3)))
    assert isinstance(result, jax.Array)
    assert_equal(np.asarray(result, np.float64), np.full((1, 4, 5), 9.0))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 3, 4)], ids=str)
def test_empty_arrays(library, shape):
    result = cuvarconv.correlate(make(library, np.ones(shape, np.float32)), [[1.0, 2.0]])
    assert isinstance(result, kind(library))
    assert tuple(result.shape) == shape


@pytest.mark.parametrize("library", LIBRARIES)
def test_lists_and_scalars_go_where_the_arrays_are(library):
    weights = K[..., 0, 0]
    for operand in (weights.tolist(), tuple(map(tuple, weights.tolist()))):
        result = cuvarconv.correlate(make(library, X), operand)
        assert isinstance(result, kind(library))
        assert_equal(np.asarray(result), reference.correlate(X, weights).astype(np.float32))
    result = cuvarconv.correlate(X[0].tolist(), make(library, weights))
    assert isinstance(result, kind(library))


@pytest.mark.parametrize("output", ["float64", np.float64, np.dtype("f8")], ids=repr)
def test_output_as_dtype_of_a_torch_call(output):
    result = cuvarconv.correlate(make("torch", X), make("torch", K), output)
    assert result.dtype == torch.float64
    assert_equal(result.numpy(), EXPECTED.astype(np.float64))


def test_strided_torch_tensors():
    x = make("torch", np.moveaxis(X, 0, -1).copy()).permute(2, 0, 1)
    output = torch.zeros(7, 6, 2).permute(2, 1, 0)
    cuvarconv.correlate(x, make("torch", K), output)
    assert_equal(output.numpy(), EXPECTED)
    expanded = make("torch", X[:1]).expand(2, 6, 7)
    result = cuvarconv.correlate(expanded, make("torch", K))
    assert_equal(result.numpy(), EXPECTED[[0, 0]])


def test_overlapping_torch_output():
    x = make("torch", X)
    assert cuvarconv.correlate(x, make("torch", K), x) is x
    assert_equal(x.numpy(), EXPECTED)


def test_results_live_on_their_own():
    results = [cuvarconv.correlate(make(library, X), make(library, K)) for library in LIBRARIES]
    for _ in range(20):
        cuvarconv.correlate(np.zeros_like(X), K)
    for result in results:
        assert_equal(np.asarray(result), EXPECTED)


def test_numpy_subclasses_are_read_as_arrays():
    subclass = type("Subclass", (np.ndarray,), {})
    result = cuvarconv.correlate(X.view(subclass), K.view(subclass))
    assert type(result) is np.ndarray
    assert_equal(result, EXPECTED)
    output = np.zeros_like(X).view(subclass)
    assert cuvarconv.correlate(X, K, output) is output
    assert_equal(np.asarray(output), EXPECTED)


def test_memory_mapped_files(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, X)
    assert_equal(cuvarconv.correlate(np.load(path, mmap_mode="r"), K), EXPECTED)


# ---- mixed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "conversion"),
    [
        ("numpy", "torch", "numpy.asarray"),
        ("torch", "numpy", "torch.as_tensor"),
        ("jax", "torch", "jax.numpy.asarray"),
        ("torch", "jax", "torch.as_tensor"),
        ("numpy", "jax", "numpy.asarray"),
        ("jax", "numpy", "jax.numpy.asarray"),
    ],
)
def test_mixed_libraries(first, second, conversion):
    says = f"^weights is a {second} array on the host, input is a {first} array on the host; convert"
    with pytest.raises(TypeError, match=f"{says}.*weights with {conversion}"):
        cuvarconv.correlate(make(first, X), make(second, K))
    output = make(second if second != "jax" else "torch", np.zeros((2, 6, 7), np.float32))
    if kind(first) is not type(output):
        with pytest.raises(TypeError, match=r"^output is a .*; convert"):
            cuvarconv.correlate(make(first, X), make(first, K), output)
        assert not np.asarray(output).any()


class Stub:
    """An array of some other library: DLPack, and a device that it claims to be on."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    @property
    def shape(self):
        return self.array.shape

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **keywords):
        if self.device[0] != 1:
            raise BufferError("not in host memory")
        return self.array.__dlpack__(**keywords)


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ((10, 0), "ROCm"),
        ((11, 0), "ROCm"),
        ((4, 0), "device type 4"),
        ((7, 0), "device type 7"),
        ((8, 0), "device type 8"),
        ((14, 1), "device type 14"),
        ((99, 0), "device type 99"),
    ],
)
@pytest.mark.parametrize("name", ["input", "weights", "output"])
def test_unknown_devices(name, device, says):
    arrays = {"input": X, "weights": K, "output": np.zeros((2, 6, 7), np.float32)}
    with pytest.raises(TypeError, match=rf"^{name}: .*{says}.*expected host memory or a CUDA device"):
        cuvarconv.correlate(**arrays | {name: Stub(arrays[name], device)})
    assert not arrays["output"].any()


def test_mixed_devices():
    with pytest.raises(TypeError, match=r"^weights is .* CUDA device 0, input is .*host; convert"):
        cuvarconv.correlate(Stub(X), Stub(K, (2, 0)))
    with pytest.raises(TypeError, match=r"^weights is .* CUDA device 1, input is .* CUDA device 0"):
        cuvarconv.correlate(Stub(X, (2, 0)), Stub(K, (2, 1)))
    with pytest.raises(TypeError, match=r"^weights is a \w+ array on CUDA device 0, .*numpy"):
        cuvarconv.correlate(X, Stub(K, (2, 0)))


@pytest.fixture
def other_library(monkeypatch):
    """A library that speaks DLPack, with `Array` and `from_dlpack`."""
    module = types.ModuleType("other_library")
    module.Array = type("Array", (Stub,), {"__module__": "other_library.core"})
    module.from_dlpack = lambda array: module.Array(np.from_dlpack(array))
    monkeypatch.setitem(sys.modules, "other_library", module)
    return module


def test_any_library_that_speaks_dlpack(seen, other_library):
    output = other_library.Array(np.zeros((2, 6, 7), np.float32))
    x, k = other_library.Array(X), other_library.Array(K)
    result = cuvarconv.correlate(x, k)
    assert type(result) is other_library.Array
    assert_equal(result.array, EXPECTED)
    assert pointer(result.array) == pointer(seen[-1])
    assert pointer(seen[0]) == pointer(X)
    assert cuvarconv.correlate(x, k, output) is output
    assert_equal(output.array, EXPECTED)


def test_a_library_without_from_dlpack_is_refused(other_library):
    del other_library.from_dlpack
    with pytest.raises(TypeError, match=r"^input: .*other_library.*from_dlpack.*numpy\.from_dlpack"):
        cuvarconv.correlate(other_library.Array(X), other_library.Array(K))


@pytest.mark.parametrize("name", ["input", "weights", "output"])
def test_masked_arrays(name):
    arrays = {"input": X, "weights": K, "output": np.zeros((2, 6, 7), np.float32)}
    with pytest.raises(TypeError, match=rf"^{name}: masked arrays are refused.*filled"):
        cuvarconv.correlate(**arrays | {name: np.ma.masked_array(arrays[name], False)})
    assert not arrays["output"].any()


def python(code):
    """Run code in a fresh interpreter, warnings as errors; its standard output."""
    command = [sys.executable, "-W", "error", "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_cuda_arrays_without_cupy_name_the_extra_to_install():
    code = """
import sys
sys.modules["cupy"] = None
import cuvarconv
class Stub:
    shape, dtype = (3, 3), "f4"
    def __dlpack_device__(self): return (2, 0)
    def __dlpack__(self, **keywords): raise AssertionError("read without CuPy")
for call in (
    lambda x: cuvarconv.correlate(x, x),
    lambda x: cuvarconv.modulated_correlate(x, x, x),
):
    try:
        call(Stub())
    except ImportError as error:
        print(error)
"""
    lines = python(code).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "cuvarconv[cuda12]" in line
        assert "cuvarconv[cuda13]" in line or "[cuda13]" in line


def test_an_older_cupy_is_refused():
    code = """
import sys, types
sys.modules["cupy"] = types.SimpleNamespace(__version__="13.6.0")
import cuvarconv._gpu
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "ImportError: arrays on a CUDA device need CuPy 14.0 or later, got 13.6.0" in process.stderr


def test_no_library_is_imported_to_ask_what_an_array_is():
    code = """
import sys, numpy, cuvarconv
cuvarconv.correlate(numpy.ones((3, 3)), [[1.0]])
print({"torch", "jax", "cupy", "dask"} & set(sys.modules))
"""
    assert python(code).strip() == "set()"


# ---- CuPy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_cupy_arrays(xp, function):
    arrays = operands(function)
    result = getattr(cuvarconv, function)(*(xp.asarray(array) for array in arrays))
    expected = getattr(reference, function)(*arrays)
    assert_equal(xp.to_numpy(result), expected.astype(np.float32))


@pytest.mark.no_launch(reason="errors come before any kernel")
@pytest.mark.parametrize("library", LIBRARIES)
def test_cupy_and_host_arrays_do_not_mix(cuda_backend, library):
    x = cuda_backend.asarray(X)
    with pytest.raises(TypeError, match=r"^weights is .* on the host, input is a cupy array on CUDA device"):
        cuvarconv.correlate(x, make(library, K))
    with pytest.raises(TypeError, match=r"^weights is a cupy array on CUDA device"):
        cuvarconv.correlate(make(library, X), cuda_backend.asarray(K))


def test_lists_go_where_the_cupy_arrays_are(xp):
    result = cuvarconv.correlate(xp.asarray(X), K[..., 0, 0].tolist())
    expected = reference.correlate(X, K[..., 0, 0]).astype(np.float32)
    assert_equal(xp.to_numpy(result), expected)


def test_writing_a_tensor_is_seen_by_autograd():
    scale = torch.ones(2, 6, 7)
    loss = (torch.ones(2, 6, 7, requires_grad=True) * scale).sum()
    cuvarconv.correlate(torch.from_numpy(X), torch.from_numpy(K), scale)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_output_as_a_torch_dtype(dtype):
    result = cuvarconv.correlate(torch.from_numpy(X), torch.from_numpy(K), getattr(torch, dtype))
    assert result.dtype == getattr(torch, dtype)
    assert_equal(result.numpy(), EXPECTED.astype(dtype))


def test_foreign_byte_order_stays_with_numpy():
    assert cuvarconv.correlate(X, K, ">f4").dtype == np.dtype(">f4")
    with pytest.raises(TypeError, match="native byte order for torch"):
        cuvarconv.correlate(torch.from_numpy(X), torch.from_numpy(K), ">f4")
