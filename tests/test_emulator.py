"""The emulator itself: right results from right kernels, and each kind of bug caught."""

import threading
from pathlib import Path
from types import SimpleNamespace

import emulator
import numpy as np
import pytest

REASON = emulator.unavailable()
if REASON:
    pytest.skip(REASON, allow_module_level=True)

from emulator import fakecupy, launch  # noqa: E402  they import what only Linux has
from emulator.arguments import KernelError  # noqa: E402

ml_dtypes = pytest.importorskip("ml_dtypes")
cupy = fakecupy.make_modules()["cupy"]

CODE = (Path(emulator.__file__).parent / "toy.cu").read_text()
TILE = 64
C_TYPES = {
    np.dtype("float32"): "float",
    np.dtype("float64"): "double",
    np.dtype("float16"): "__half",
    np.dtype(ml_dtypes.bfloat16): "__nv_bfloat16",
}
SMOOTH = {dtype: f"smooth<{name},3,{TILE}>" for dtype, name in C_TYPES.items()}
PLAIN = ("copy_any", "conjugate", "row_sum<float,128>", "histogram", "apply")
BUGS = {
    "READ_PAST_END": "4-byte read out of bounds: .* past the end of argument 0",
    "READ_BEFORE_START": "4-byte read out of bounds: 4 bytes before the start of argument 0",
    "WRITE_PAST_END": "4-byte write out of bounds: .* past the end of argument 1",
    "WRITE_TO_CONST": "write to read-only argument 0",
    "SHARED_PAST_END": "4-byte write out of bounds: 0 bytes past the end of dynamic shared memory",
    "LOCAL_PAST_END": "index out of the bounds of an array",
    "NO_BARRIER": "data race on dynamic shared memory|uninitialised shared memory",
    "NO_SECOND_BARRIER": "data race on dynamic shared memory",
    "EARLY_RETURN": "deadlock at line .* 14 have returned",
    "TWO_BARRIERS": "divergent __syncthreads",
    "UNINITIALISED": "read of uninitialised shared memory",
    "BLOCKS_COLLIDE": "data race on argument 1",
    "PLAIN_ADD": "data race on argument 2",
    "MISALIGNED_PAIR": "misaligned",
    "MISALIGNED_SHARED": "misaligned",
    "INTEGER_OVERFLOW": "signed integer overflow",
    "SHIFT_TOO_FAR": "shift out of range",
    "DIVIDE_BY_ZERO": "division by zero",
    "LANE_NOT_IN_MASK": "is not in its mask",
    "SHUFFLE_FROM_ABSENT_LANE": "shuffles from lane 20, which does not take part",
}
NAMES = (*SMOOTH.values(), *PLAIN, *(f"add_neighbour<{bug}>" for bug in ("NONE", *BUGS)))
launch.batch(CODE, NAMES)


@pytest.fixture(params=["forward", "backward", 7])
def order(request):
    with launch.configured(order=request.param):
        yield request.param


def kernel(name):
    module = cupy.RawModule(code=CODE, options=("-std=c++17",), name_expressions=[name])
    return module.get_function(name)


def smooth(x, weights, out):
    rows, n = x.shape
    strides = [np.int64(s // a.itemsize) for a in (x, out) for s in a.strides]
    kernel(SMOOTH[x.dtype])(
        (-(-n // TILE), rows),
        (TILE,),
        (x, weights, out, np.int32(n), *strides),
        shared_mem=(TILE + 2) * x.itemsize,
    )


def add_neighbour(bug, n=50, threads=32):
    """Run the toy with a bug; its result, and the number of blocks that it counted."""
    x = cupy.asarray(np.arange(n, dtype=np.float32))
    out, total = cupy.zeros(n, np.float32), cupy.zeros(1, np.int32)
    arguments = (x, out, total, np.int32(n), np.int32(2**30))
    function = kernel(f"add_neighbour<{bug}>")
    function((-(-n // threads),), (threads,), arguments, shared_mem=4 * threads)
    return out.get(), int(total[0])


def copy_any(x, out, n, code=0):
    kernel("copy_any")((1,), (128,), (x, out, np.int32(code), np.int32(n)))


# ---- right kernels -------------------------------------------------------------------------------

LAYOUTS = {
    "contiguous": lambda a: cupy.asarray(a),
    "reversed": lambda a: cupy.asarray(a[::-1, ::-1].copy())[::-1, ::-1],
    "transposed": lambda a: cupy.asarray(a.T.copy()).T,
    "every other": lambda a: cupy.asarray(np.repeat(np.repeat(a, 2, 0), 3, 1))[::2, ::3],
}


@pytest.mark.parametrize("dtype", SMOOTH, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_smooth_any_layout(dtype, layout, order):
    host = np.random.default_rng(0).integers(-8, 9, (3, 150)).astype(dtype)
    x = LAYOUTS[layout](host)
    out = LAYOUTS[layout](np.zeros_like(host))
    smooth(x, cupy.asarray(np.float32([1, 2, -1])), out)
    padded = np.pad(host.astype(np.float32), ((0, 0), (1, 1)))
    expected = padded[:, :-2] + 2 * padded[:, 1:-1] - padded[:, 2:]
    np.testing.assert_array_equal(out.get().astype(np.float32), expected)


def test_broadcast_input_has_zero_strides():
    row = cupy.asarray(np.arange(70, dtype=np.float32))
    x = cupy.broadcast_to(row, (3, 70))
    assert x.strides == (0, 4)
    out = cupy.empty((3, 70), np.float32)
    smooth(x, cupy.asarray(np.float32([0, 1, 0])), out)
    np.testing.assert_array_equal(out.get(), np.tile(row.get(), (3, 1)))


@pytest.mark.parametrize(("code", "dtype"), list(enumerate(["f4", "f8", "f2", "c8"])))
def test_void_pointers_take_any_dtype(code, dtype, order):
    x = cupy.arange(100).astype(dtype)
    out = cupy.empty_like(x)
    copy_any(x, out, 100, code)
    np.testing.assert_array_equal(out.get(), x.get())


def test_complex_struct():
    x = cupy.asarray(np.array([1 + 2j, 3 - 4j], np.complex64))
    out = cupy.empty_like(x)
    kernel("conjugate")((1,), (32,), (x, out, np.int32(2)))
    np.testing.assert_array_equal(out.get(), x.get().conj())


def test_shuffles_and_static_shared_memory(order):
    x = np.random.default_rng(0).integers(-9, 9, (5, 333)).astype(np.float32)
    out = cupy.empty(5, np.float32)
    kernel("row_sum<float,128>")((5,), (128,), (cupy.asarray(x), out, np.int32(333)))
    np.testing.assert_array_equal(out.get(), x.sum(1))


def test_gather_for_matrix_instructions(order):
    code = """extern "C" __global__ void reverse(int* out) {
        int all[32], mine = 3 * threadIdx.x;
        emulator::warp_gather(0xffffffffu, &mine, sizeof mine, all, __LINE__);
        out[threadIdx.x] = all[31 - threadIdx.x];
    }"""
    out = cupy.empty(32, np.int32)
    cupy.RawModule(code=code).get_function("reverse")((1,), (32,), (out,))
    np.testing.assert_array_equal(out.get(), 3 * np.arange(31, -1, -1))


def test_atomics(order):
    x = np.random.default_rng(0).integers(0, 5, 300).astype(np.int32)
    counts = cupy.zeros(5, np.int32)
    kernel("histogram")((5,), (64,), (cupy.asarray(x), counts, np.int32(300)))
    np.testing.assert_array_equal(counts.get(), np.bincount(x))


@pytest.mark.parametrize("bias", [None, 10.0])
def test_struct_by_value_and_null_pointer(bias):
    x, out = cupy.arange(4, dtype=np.float32), cupy.empty(4, np.float32)
    line = np.array((2, 1), [("slope", "f4"), ("offset", "f4")])
    given = None if bias is None else cupy.full(4, bias, np.float32)
    kernel("apply")((1,), (32,), (x, given, out, line, np.int32(4)))
    np.testing.assert_array_equal(out.get(), 2 * np.arange(4) + 1 + (bias or 0))


def test_empty_array_is_accepted():
    with emulator.recording() as launched:
        copy_any(cupy.empty(0, np.float32), cupy.empty((0, 3), np.float32), 0)
    assert launched.names == ["copy_any"]


def test_fast_mode():
    with launch.configured(fast=True):
        copy_any(x := cupy.arange(100, dtype=np.float32), out := cupy.empty_like(x), 100)
    np.testing.assert_array_equal(out.get(), x.get())


def test_launches_from_several_threads():
    failures = []

    def work():
        try:
            for _ in range(5):
                assert add_neighbour("NONE")[1] == 2
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- bugs ----------------------------------------------------------------------------------------


def test_no_bug(order):
    out, total = add_neighbour("NONE")
    x = np.arange(50.0)
    following = np.where(np.arange(50) % 32 == 31, 0, np.append(x[1:], 0))
    np.testing.assert_array_equal(out, x + following)
    assert total == 2


@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_caught(bug, order):
    with pytest.raises(KernelError, match=BUGS[bug]):
        add_neighbour(bug)


def test_message_names_line_and_thread():
    lines = CODE.split("\n")
    line = 1 + next(i for i, text in enumerate(lines) if text.endswith("// READ_PAST_END"))
    with pytest.raises(KernelError) as caught:
        add_neighbour("READ_PAST_END")
    assert "[block (1,0,0) thread (18,0,0)]" in str(caught.value)
    assert f"kernel.cu:{line}" in str(caught.value)


def test_next_launch_after_a_failure():
    with pytest.raises(KernelError):
        add_neighbour("EARLY_RETURN")
    assert add_neighbour("NONE")[1] == 2


def test_write_through_const_void():
    x = cupy.zeros(4, np.float32)
    code = """extern "C" __global__ void f(const void* x) { *(float*)x = 1; }"""
    with pytest.raises(KernelError, match=r"write to read-only argument 0 \(const void\*\)"):
        cupy.RawModule(code=code).get_function("f")((1,), (1,), (x,))


def test_read_between_the_elements_of_a_view():
    x = cupy.zeros((4, 10), np.float32)[:, :5]
    with pytest.raises(KernelError, match="between the elements of the view"):
        copy_any(x, cupy.empty(35, np.float32), 35)


def test_write_beyond_a_view():
    out = cupy.zeros(20, np.float32)[:10]
    with pytest.raises(KernelError, match="write out of bounds: 0 bytes past the end of argument 1"):
        copy_any(cupy.zeros(20, np.float32), out, 11)


def test_interleaved_views_do_not_overlap():
    both = cupy.zeros((100, 2), np.float32)
    out = both[:, 1]
    with emulator.recording() as launched:
        smooth(both[:, :1].T, cupy.ones(3, np.float32), out[None])
    assert len(launched) == 1


@pytest.mark.parametrize("shift", [0, 1])
def test_output_overlaps_input(shift):
    x = cupy.zeros(101, np.float32)
    with pytest.raises(KernelError, match=r"argument 1 \(void\*\) overlaps argument 0"):
        copy_any(x[:100], x[shift : 100 + shift], 100)


@pytest.mark.parametrize("name", ["bounds", "profile"])
def test_bounds_are_checked_at_every_level(name):
    with launch.configured(check=name), pytest.raises(KernelError, match="out of bounds"):
        add_neighbour("READ_PAST_END")


# ---- arguments and geometry ----------------------------------------------------------------------

X, N = cupy.zeros(4, np.float32), np.int32(4)
WRONG_ARGUMENTS = {
    "too few": ((X, X.copy(), N), "3 arguments for 4 parameters"),
    "too many": ((X, X.copy(), N, N, N), "5 arguments for 4 parameters"),
    "int": ((X, X.copy(), 0, N), "argument 2: int64 for a parameter int"),
    "float": ((X, X.copy(), N, 4.0), "argument 3: float64 for a parameter int"),
    "int64": ((X, X.copy(), np.int64(0), N), "argument 2: int64 for a parameter int"),
    "uint32": ((X, X.copy(), np.uint32(0), N), "argument 2: uint32 for a parameter int"),
    "order": ((X, N, X.copy(), N), "argument 1: int32 for a parameter void"),
    "array for a scalar": ((X, X.copy(), X, N), "argument 2: an array for a parameter int"),
    "numpy array": ((X, np.zeros(4, "f4"), N, N), "argument 1: ndarray for a parameter void"),
    "string": ((X, X.copy(), "0", N), "argument 2: str for a parameter int"),
}


@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_wrong_arguments(case):
    arguments, message = WRONG_ARGUMENTS[case]
    with pytest.raises(KernelError, match=message):
        kernel("copy_any")((1,), (32,), arguments)


@pytest.mark.parametrize("dtype", ["float64", "int32", "complex128", "bfloat16"])
def test_wrong_dtype(dtype):
    x = cupy.zeros(4, np.dtype(getattr(ml_dtypes, dtype, dtype)))
    with pytest.raises(KernelError, match=f"dtype {dtype} for a parameter const complex64"):
        kernel("conjugate")((1,), (32,), (x, x.copy(), N))


def test_misaligned_pointer():
    x = cupy.zeros(9, np.float32)[1:].view(np.complex64)
    with pytest.raises(KernelError, match="argument 0: misaligned"):
        kernel("conjugate")((1,), (32,), (x, cupy.zeros(4, np.complex64), N))


@pytest.mark.parametrize(
    ("grid", "block"), [((1,), (1025,)), ((1,), (32, 64)), ((1,), (1, 1, 65)), ((1, 65536), (1,))]
)
def test_launch_limits(grid, block):
    with pytest.raises(KernelError, match="CUDA_ERROR_INVALID_VALUE: grid"):
        kernel("copy_any")(grid, block, (X, X.copy(), N, N))


def test_shared_memory_limits():
    function = kernel("copy_any")
    with pytest.raises(KernelError, match="50000 bytes of shared memory, 48128 allowed"):
        function((1,), (32,), (X, X.copy(), N, N), shared_mem=50000)
    function.max_dynamic_shared_size_bytes = 50000
    function((1,), (32,), (X, X.copy(), np.int32(0), N), shared_mem=50000)
    with pytest.raises(KernelError, match="CUDA_ERROR_INVALID_VALUE"):
        function.max_dynamic_shared_size_bytes = 227 << 10  # with the static part too much


# ---- recording and profile -----------------------------------------------------------------------


def test_recording():
    with emulator.recording() as launched:
        add_neighbour("NONE")
        other = SimpleNamespace(__cuda_stream__=lambda: (0, 1234))
        with cupy.cuda.Stream.from_external(other):
            copy_any(X, X.copy(), 4)
    assert launched.names == ["add_neighbour<NONE>", "copy_any"]
    assert launched.counts == {"add_neighbour<NONE>": 1, "copy_any": 1}
    assert launched[0] == emulator.Launch("add_neighbour<NONE>", (2, 1, 1), (32, 1, 1), 128, 0, 0)
    assert launched[1].stream == 1234
    add_neighbour("NONE")
    assert len(launched) == 2


def test_recording_of_a_module_that_does_not_record():
    class Kernel:
        max_dynamic_shared_size_bytes = 0

        def __call__(self, grid, block, args, *, shared_mem=0):
            self.given = grid, block, args, shared_mem

    class Module:
        def __init__(self, code):
            self.code, self.kernel = code, Kernel()

        def get_function(self, name):
            return self.kernel

    class Cupy:
        RawModule = Module
        cuda = cupy.cuda

    emulator.watch(Cupy)
    module = Cupy.RawModule(code="text")
    function = module.get_function("f")
    function.max_dynamic_shared_size_bytes = 99
    with emulator.recording() as launched:
        function((1,), (2,), (3,), shared_mem=4)
    assert module.code == "text"
    assert module.kernel.max_dynamic_shared_size_bytes == 99
    assert module.kernel.given == ((1,), (2,), (3,), 4)
    assert launched == [emulator.Launch("f", (1, 1, 1), (2, 1, 1), 4, 0, 0)]


@pytest.mark.parametrize(("step", "sectors"), [(1, 5), (2, 9), (8, 32)])
def test_profile_counts_sectors(step, sectors):
    x = cupy.zeros((1, 32 * step), np.float32)[:, ::step]
    out = cupy.empty((1, 32), np.float32)
    with launch.profiling() as lines:
        smooth(x, cupy.ones(3, np.float32), out)
    (load,) = [p for p in lines if (p.space, p.access, p.requests) == ("global", "read", 2)]
    assert (load.bytes, load.transactions) == (128, sectors)  # the second warp reads one element
    (store,) = [p for p in lines if (p.space, p.access) == ("global", "write")]
    assert (store.requests, store.bytes, store.transactions) == (1, 128, 4)
