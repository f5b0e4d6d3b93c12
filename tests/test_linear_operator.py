"""`as_linear_operator`: correlation and spreading as matrices that solvers can use."""

import importlib.metadata
import importlib.util
import itertools
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import reference
from forms import MODES
from tolerances import assert_close, assert_equal, integers, noise

import cuvarconv

scipy_linalg = pytest.importorskip("scipy.sparse.linalg")
FORMS = ["gather", "scatter"]
each_form = pytest.mark.parametrize("form", FORMS)


def _cupyx_linear_operator(monkeypatch):
    """Run CuPy's own module of linear operators over the emulator's stand-in for CuPy."""
    try:
        files = importlib.metadata.files("cupy-cuda12x") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    name = "cupyx.scipy.sparse.linalg"
    found = [file for file in files if file.as_posix() == f"{name.replace('.', '/')}/_interface.py"]
    if not found:
        pytest.skip("no cupy-cuda12x, whose linear operators these tests run on the emulator")
    names = ["cupyx", "cupyx.scipy", "cupyx.scipy.sparse", "cupyx.scipy.sparse._util", name]
    modules = {each: types.ModuleType(each) for each in names}
    modules["cupyx.scipy.sparse._util"].isshape = lambda shape: len(shape) == 2
    for each, module in modules.items():
        parent, _, child = each.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
        monkeypatch.setitem(sys.modules, each, module)
    spec = importlib.util.spec_from_file_location(f"{name}._interface", found[0].locate())
    interface = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(interface)
    modules[name].LinearOperator = interface.LinearOperator


@pytest.fixture
def linalg(xp, monkeypatch):
    """The backend's library of linear operators."""
    if xp.name == "numpy":
        return scipy_linalg
    if xp.is_emulated:
        _cupyx_linear_operator(monkeypatch)
    return importlib.import_module("cupyx.scipy.sparse.linalg")


def looped(form, k, shape, x, **window):
    """Return what the operator does to one column, by the loops."""
    function = reference.correlate if form == "gather" else reference.spread
    return function(x.reshape(shape), k, **window).ravel()


def dense(form, k, shape, **window):
    """Return the matrix that the operator stands for."""
    units = np.eye(np.prod(shape))
    return np.stack([looped(form, k, shape, unit, **window) for unit in units], 1)


def operator(xp, k, shape, *arguments, **keywords):
    return cuvarconv.as_linear_operator(xp.asarray(k), shape, *arguments, **keywords)


def applied(xp, method, array):
    return xp.to_numpy(method(xp.asarray(array)))


# ---- one matrix, four products -------------------------------------------------------------------

CASES = [
    ((4, 5), (3, 2), (4, 5), {}),
    ((2, 4, 5), (2, 3), (), {"mode": "wrap", "origin": (0, -1)}),
    ((2, 4, 5), (3, 3), (2, 1, 1), {"mode": "constant", "dilation": (1, 2)}),
    ((5, 4, 2), (3, 2), (), {"mode": ("mirror", "nearest"), "axes": (0, 1)}),
]


@each_form
@pytest.mark.parametrize(("shape", "size", "varying", "window"), CASES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_four_products(xp, linalg, form, shape, size, varying, window, dtype):
    k = integers((*size, *varying), dtype)
    A = operator(xp, k, shape, form=form, **window)
    matrix = dense(form, k, shape, **window)
    assert isinstance(A, linalg.LinearOperator)
    assert A.shape == matrix.shape
    assert A.dtype == dtype
    x, y = (integers((length, 3), dtype, seed) for seed, length in enumerate(A.shape[::-1]))
    assert_equal(applied(xp, A.matvec, x[:, 0]), matrix @ x[:, 0])
    assert_equal(applied(xp, A.rmatvec, y[:, 0]), matrix.conj().T @ y[:, 0])
    assert_equal(applied(xp, A.matmat, x), matrix @ x)
    assert_equal(applied(xp, A.rmatmat, y), matrix.conj().T @ y)
    assert_equal(applied(xp, A.H.matvec, y[:, 0]), matrix.conj().T @ y[:, 0])


@each_form
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [2, (1, 3)], ids=str)
def test_stride(xp, linalg, form, stride, mode):
    k = integers((2, 3))
    window = {"mode": mode, "stride": stride}
    A, matrix = operator(xp, k, (7, 6), form=form, **window), dense(form, k, (7, 6), **window)
    assert A.shape == matrix.shape
    x, y = (integers(length, np.float32, seed) for seed, length in enumerate(A.shape[::-1]))
    assert_equal(applied(xp, A.matvec, x), matrix @ x)
    assert_equal(applied(xp, A.rmatvec, y), matrix.T @ y)


@each_form
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("mode", [*itertools.combinations(MODES, 2)], ids="-".join)
def test_dot_product(xp, linalg, form, mode, dtype):
    A = operator(xp, noise((4, 3), dtype), (2, 6, 7), mode, form=form, stride=(1, 2), dilation=(1, 2))
    x, y = (noise(length, dtype, seed) for seed, length in enumerate(A.shape[::-1]))
    forward, backward = applied(xp, A.matvec, x), applied(xp, A.rmatvec, y)
    scale = np.linalg.norm(forward) * np.linalg.norm(y)
    assert abs(np.vdot(y, forward) - np.vdot(backward, x)) <= 1e-12 * scale


@each_form
def test_columns_of_length_one(xp, linalg, form):
    A = operator(xp, integers((3, 3)), (4, 5), form=form)
    x = integers((20, 1), seed=1)
    assert_equal(applied(xp, A.matvec, x), applied(xp, A.matvec, x[:, 0])[:, None])


@each_form
@pytest.mark.no_launch(reason="there is nothing to compute")
@pytest.mark.parametrize(
    ("shape", "columns"), [((4, 5), 0), ((0, 5), 2), ((0, 4, 5), 0), ((0, 4, 5), 2)], ids=str
)
def test_nothing_at_all(xp, linalg, form, shape, columns):
    A = operator(xp, integers((3, 3)), shape, form=form)
    rows = int(np.prod(shape))
    assert A.shape == (rows, rows)
    for method in (A.matmat, A.rmatmat):
        assert applied(xp, method, np.ones((rows, columns), np.float32)).shape == (rows, columns)
    if not rows:
        assert applied(xp, A.matvec, np.ones(0, np.float32)).shape == (0,)


@each_form
def test_many_columns_are_one_call(monkeypatch, form):
    k, columns = integers((3, 3, 4, 5)), integers((20, 6), seed=1)
    A = cuvarconv.as_linear_operator(k, (4, 5), form=form)
    calls = []
    for name in ("correlate", "spread"):
        original = getattr(cuvarconv._cpu, name)

        def watched(*arguments, original=original, name=name, **keywords):
            calls.append(name)
            return original(*arguments, **keywords)

        monkeypatch.setattr(cuvarconv._cpu, name, watched)
    A.matmat(columns)
    A.rmatmat(columns)
    assert calls == (["correlate", "spread"] if form == "gather" else ["spread", "correlate"])


# ---- dtypes --------------------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize(
    ("weights", "vector", "result"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("complex64", "complex64", "complex64"),
        ("float64", "complex128", "complex128"),
        ("complex128", "float64", "complex128"),
        ("float64", "int64", "float64"),
        ("int32", "int32", "float64"),
    ],
)
def test_dtypes(xp, linalg, form, weights, vector, result):
    """Nothing is truncated on the way: an operator is linear."""
    k = integers((3, 3, 4, 5), weights)
    A = operator(xp, k, (4, 5), form=form)
    assert A.dtype == (np.float64 if weights == "int32" else weights)
    x = integers(20, vector, 1)
    matrix = dense(form, k, (4, 5))
    for method, expected in ((A.matvec, matrix @ x), (A.rmatvec, matrix.conj().T @ x)):
        product = applied(xp, method, x)
        assert product.dtype == result
        assert_equal(product, expected)


@each_form
def test_fractions_times_integers_are_not_truncated(form):
    A = cuvarconv.as_linear_operator([[0.5, 0.25]], (1, 3), form=form)
    x = np.array([1, 0, 2])
    assert_equal(A @ x, dense(form, np.array([[0.5, 0.25]]), (1, 3)) @ x)


@pytest.mark.parametrize("shape", [[4, 5], np.array([4, 5]), (np.int64(4), np.int8(5))], ids=repr)
def test_kinds_of_shape(shape):
    A, B = (cuvarconv.as_linear_operator(integers((3, 3)), each) for each in (shape, (4, 5)))
    x = integers(20, np.float32, 1)
    assert A.shape == B.shape
    assert_equal(A @ x, B @ x)


# ---- solvers -------------------------------------------------------------------------------------


def test_deblurring_with_lsqr():
    """A blurred picture comes back."""
    rng = np.random.default_rng(0)
    k = rng.random((3, 3, 6, 7)) / 30
    k[1, 1] += 1
    truth = rng.random((6, 7))
    for form in FORMS:
        A = cuvarconv.as_linear_operator(k, (6, 7), form=form)
        solution, stop, *_ = scipy_linalg.lsqr(A, A @ truth.ravel(), atol=1e-14, btol=1e-14)
        assert stop in (1, 2)
        np.testing.assert_allclose(solution, truth.ravel(), rtol=0, atol=1e-11)


@each_form
def test_normal_equations_with_cg(form):
    rng = np.random.default_rng(1)
    k = (rng.random((2, 3)) + 1j * rng.random((2, 3))) / 10
    k[1, 1] += 1
    truth = rng.random(30) + 1j * rng.random(30)
    A = cuvarconv.as_linear_operator(k, (5, 6), "wrap", form=form)
    normal = A.H @ A
    solution, failed = scipy_linalg.cg(normal, normal @ truth, rtol=1e-13)
    assert failed == 0
    np.testing.assert_allclose(solution, truth, rtol=0, atol=1e-11)


def test_superresolution_with_lsmr():
    """Fewer equations than unknowns: the solution of least norm has the same picture."""
    k = noise((3, 3, 1, 4, 5), "float64")
    A = cuvarconv.as_linear_operator(k, (1, 8, 10), stride=2)
    picture = noise(20, "float64", 1)
    solution = scipy_linalg.lsmr(A, picture, atol=1e-14, btol=1e-14)[0]
    np.testing.assert_allclose(A @ solution, picture, rtol=0, atol=1e-10)
    assert_close(solution, np.linalg.pinv(dense("gather", k, (1, 8, 10), stride=2)) @ picture, "float32")


def test_operators_compose():
    k = integers((3, 3, 4, 5), "float64")
    A, B = (cuvarconv.as_linear_operator(k, (4, 5), form=form) for form in FORMS)
    matrix = dense("gather", k, (4, 5)) + 2 * dense("scatter", k, (4, 5))
    x = integers(20, "float64", 1)
    assert_equal((A + 2 * B) @ x, matrix @ x)
    assert_equal((A + 2 * B).T @ x, matrix.T @ x)


PYLOPS = """
import numpy as np, pylops, cuvarconv
rng = np.random.default_rng(0)
k = rng.standard_normal((3, 3, 6, 7)) / 10
k[1, 1] += 1
for form in ("gather", "scatter"):
    for mode in ("reflect", "constant"):
        A = pylops.LinearOperator(cuvarconv.as_linear_operator(k, (6, 7), mode, form=form))
        assert pylops.utils.dottest(A, *A.shape, rtol=1e-12)
        stacked = pylops.VStack([A, 0.1 * pylops.FirstDerivative((6, 7), axis=0, dtype="float64")])
        assert pylops.utils.dottest(stacked, *stacked.shape, rtol=1e-12)
        truth = rng.random(42)
        solution = pylops.optimization.basic.cgls(A, A @ truth, np.zeros(42), niter=200, tol=1e-20)[0]
        assert abs(solution - truth).max() < 1e-8
print("fine")
"""


def test_pylops():
    """In a process of its own, because pylops looks for a CuPy that works."""
    if importlib.util.find_spec("pylops") is None:
        pytest.skip("no pylops")
    process = subprocess.run(
        [sys.executable, "-c", PYLOPS],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "CUPY_PYLOPS": "0", "JAX_PYLOPS": "0", "NUMBA_DISABLE_JIT": "1"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == "fine\n"


# ---- wrong calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"form": "matrix"}, ValueError, r"^form: .*gather.*scatter.*matrix"),
        ({"form": None}, (TypeError, ValueError), r"^form: .*None"),
        ({"shape": (5,)}, ValueError, "^shape: "),
        ({"shape": 5}, (TypeError, ValueError), "^shape: "),
        ({"shape": (4, -5)}, ValueError, "^shape: "),
        ({"shape": (4, 5.0)}, TypeError, "^shape: "),
        ({"weights": np.ones((3, 3, 5, 4))}, ValueError, r"^weights: .*\(4, 5\).*\(5, 4\)"),
        ({"weights": np.ones(3)}, ValueError, "^weights: "),
        ({"mode": "edge"}, ValueError, "^mode: "),
        ({"mode": "valid", "weights": np.ones((5, 5))}, ValueError, "^mode: "),
        ({"origin": 7}, ValueError, "^origin: "),
        ({"stride": 0}, ValueError, "^stride: "),
        ({"axes": (0, 0)}, ValueError, "^axes: "),
    ],
    ids=str,
)
def test_wrong_call(changes, error, says):
    """It is refused when the operator is made, not when it is first used."""
    with pytest.raises(error, match=says):
        cuvarconv.as_linear_operator(**{"weights": np.ones((3, 3)), "shape": (4, 5), **changes})
