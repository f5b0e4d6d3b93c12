"""The gradients over dtypes, strides and libraries."""

import itertools

import numpy as np
import pytest
from forms import (
    EACH_OPERAND,
    EXACT,
    FORMS,
    INEXACT,
    VIEWS,
    check,
    check_noise,
    gradients,
    incoming,
    looped,
    operands,
)
from tolerances import BFLOAT16, assert_close, assert_equal, noise, stored

import cuvarconv

each_function = pytest.mark.parametrize("function", FORMS)
each_operand = pytest.mark.parametrize(("function", "name"), EACH_OPERAND)
roles = ["grad", 0, 1, 2]
each_role = pytest.mark.parametrize(
    ("function", "role"),
    [(function, role) for function in FORMS for role in roles[: 1 + len(FORMS[function])]],
)

# ---- dtypes --------------------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("dtype", [*INEXACT, *EXACT], ids=str)
def test_whole_numbers_of_every_dtype(xp, function, dtype):
    arrays = operands(function, (3, 4), dtype=dtype)
    check(xp, function, arrays, incoming(function, arrays, dtype if dtype in INEXACT else "float64"))


@each_function
@pytest.mark.parametrize("dtype", EXACT)
def test_incoming_gradient_of_integers(xp, function, dtype):
    arrays = operands(function, (3, 4))
    check(xp, function, arrays, incoming(function, arrays, dtype))


@each_function
@pytest.mark.parametrize("dtype", INEXACT, ids=str)
def test_noise(xp, function, dtype):
    arrays = operands(function, (7, 9), (3, 4), channels=5, filters=4, batch=(2,), dtype=dtype, make=noise)
    check_noise(xp, function, arrays, incoming(function, arrays, dtype, noise))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32"], ids=str)
@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_shared_operands_are_summed_accurately(xp, function, dtype):
    """Gradients that add up many pixels of like sign."""
    rng = np.random.default_rng(0)
    shapes = [(2, 60, 70), (3, 2)] if function == "correlate" else [(2, 60, 70), (3, 2, 3, 2), (3, 2)]
    arrays = [(rng.random(shape) + 0.5).astype(dtype) for shape in shapes]
    g = (incoming(function, arrays, "float64", lambda shape, *_: rng.random(shape)) / 1000).astype(dtype)
    check_noise(xp, function, arrays, g)


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
@pytest.mark.parametrize(
    "kernel", [[(1, 1)], [(1, 1, 1, 1), (1, 1)]], ids=["correlate", "modulated_correlate"]
)
def test_half_precision_is_summed_in_single(xp, kernel, dtype):
    """A sum of ones stops at 2048 in float16, at 256 in bfloat16."""
    function = "correlate" if len(kernel) == 1 else "modulated_correlate"
    arrays = [np.ones(shape, dtype) for shape in [(1, 64, 64), *kernel]]
    results = gradients(xp, function, np.ones((1, 64, 64), dtype), arrays)
    for result in results[1:]:
        assert_equal(result, np.full_like(result, 4096))


@each_role
@pytest.mark.parametrize("dtype", ["float16", "float64", BFLOAT16, "int32", "uint8"], ids=str)
def test_one_operand_of_another_dtype(xp, function, role, dtype):
    """Each gradient has its own operand's dtype, float64 for integers."""
    dtypes = ["float32"] * len(FORMS[function])
    if role != "grad":
        dtypes[role] = dtype
    arrays = operands(function, (3, 4), dtype=dtypes)
    check(xp, function, arrays, incoming(function, arrays, dtype if role == "grad" else "float32"))


@each_role
def test_products_are_formed_in_the_widest_dtype(xp, function, role):
    """The gradient of a float64 operand keeps what float64 factors give it."""
    dtypes = ["float64"] * len(FORMS[function])
    if role != "grad":
        dtypes[role] = "float32"
    arrays = operands(function, dtype=dtypes, make=noise)
    g = incoming(function, arrays, "float32" if role == "grad" else "float64", noise)
    results = gradients(xp, function, g, arrays)
    for number, (result, expected) in enumerate(zip(results, looped(function, g, arrays), strict=True)):
        assert_close(result, expected, dtypes[number])


@each_function
@pytest.mark.parametrize("dtype", ["float16", BFLOAT16], ids=str)
def test_half_precision_reaches_a_wider_operand_unrounded(xp, function, dtype):
    """A sum that is odd and beyond 2048 is no float16; the operand that gets it is float32."""
    name = FORMS[function][-1]
    shapes = {
        "correlate": [(1, 45, 47), (1, 1)],
        "modulated_correlate": [(1, 45, 47), (1, 1, 1, 1), (1, 1)],
        "local_correlate": [(2115, 1, 1, 1), (1, 1, 1, 1, 1, 1)],
    }[function]
    arrays = [np.ones(shape, dtype) for shape in shapes[:-1]] + [np.ones(shapes[-1], np.float32)]
    g = incoming(function, arrays, dtype, lambda shape, kind, _: np.ones(shape, kind))
    vjp = getattr(cuvarconv, f"{function}_vjp")
    result = xp.to_numpy(vjp(xp.asarray(g), *map(xp.asarray, arrays), wrt=name))
    assert_equal(result, np.full(shapes[-1], 2115, np.float32))


@pytest.mark.parametrize(
    ("function", "dtypes"),
    [
        (function, dtypes)
        for function, names in FORMS.items()
        for dtypes in itertools.product(["float32", "complex64"], repeat=1 + len(names))
    ],
)
def test_complex_operands_among_real_ones(xp, function, dtypes):
    """Real operands get the real part; complex ones get what torch's convention says."""
    arrays = operands(function, (3, 4), dtype=list(dtypes[1:]), mode="constant")
    check(xp, function, arrays, incoming(function, arrays, dtypes[0]), mode="constant", cval=2.0)


@each_role
def test_conjugation_matters(xp, function, role):
    """Conjugating any one array changes a gradient, so none is conjugated by accident."""
    arrays = operands(function, dtype="complex64")
    given = [incoming(function, arrays, "complex64"), *arrays]
    place = 0 if role == "grad" else role + 1
    changed = [array.conj() if number == place else array for number, array in enumerate(given)]
    results, others = (gradients(xp, function, each[0], each[1:]) for each in (given, changed))
    for number, (result, other) in enumerate(zip(results, others, strict=True)):
        assert np.array_equal(result, other) == (number + 1 == place)


@each_function
def test_big_endian_arrays(function):
    arrays = operands(function, dtype=">f4")
    g = incoming(function, arrays, ">f8")
    results = getattr(cuvarconv, f"{function}_vjp")(g, *arrays)
    for result, expected in zip(results, looped(function, g, arrays), strict=True):
        assert result.dtype == np.float32
        assert_equal(result, expected.astype(np.float32))


@each_function
def test_overflow_and_nan_give_no_warning(xp, function):
    arrays = [np.full_like(array, 3e38) for array in operands(function)]
    g = np.full_like(incoming(function, arrays), 3e38)
    for result in gradients(xp, function, g, arrays):
        assert np.isinf(result).all()


# ---- strides -------------------------------------------------------------------------------------


@each_role
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("channels", "filters"), [(2, 3), (8, 8)])
def test_strides(xp, function, role, view, channels, filters):
    arrays = operands(function, channels=channels, filters=filters, batch=(2,))
    g = incoming(function, arrays)
    given = [g, *arrays]
    place = 0 if role == "grad" else role + 1
    on_device = [xp.asarray(array) for array in given]
    on_device[place] = VIEWS[view](xp, given[place])
    results = getattr(cuvarconv, f"{function}_vjp")(*on_device)
    for result, expected in zip(results, looped(function, g, arrays), strict=True):
        assert result.flags.c_contiguous
        assert_equal(xp.to_numpy(result), stored(expected, np.float32))


@each_role
def test_zero_strides_along_any_axis(xp, function, role):
    arrays = operands(function, (3, 4), channels=3)
    given = [incoming(function, arrays), *arrays]
    place = 0 if role == "grad" else role + 1
    for axis in range(given[place].ndim):
        line = given[place].take([0], axis)
        hosts = [*given]
        hosts[place] = np.broadcast_to(line, given[place].shape)
        on_device = [xp.asarray(array) for array in given]
        on_device[place] = xp.module.broadcast_to(xp.asarray(line), given[place].shape)
        results = getattr(cuvarconv, f"{function}_vjp")(*on_device)
        for result, expected in zip(results, looped(function, hosts[0], hosts[1:]), strict=True):
            assert_equal(xp.to_numpy(result), expected.astype(np.float32))


@pytest.mark.parametrize("order", [(4, 5, 0, 1, 2, 3), (5, 4, 0, 1, 2, 3), (0, 1, 4, 5, 2, 3)])
def test_kernels_stored_in_another_order(xp, order):
    x, k = operands("local_correlate", channels=4, filters=3)
    g = incoming("local_correlate", [x, k])
    back = [int(axis) for axis in np.argsort(order)]
    view = xp.asarray(k.transpose(order).copy()).transpose(back)
    results = cuvarconv.local_correlate_vjp(xp.asarray(g), xp.asarray(x), view)
    for result, expected in zip(results, looped("local_correlate", g, [x, k]), strict=True):
        assert_equal(xp.to_numpy(result), expected.astype(np.float32))


@each_function
def test_read_only_operands_stay_as_they_are(function):
    arrays = operands(function, dtype="complex64", batch=(2,))
    given = [incoming(function, arrays, "complex64"), *arrays]
    copies = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    for result in getattr(cuvarconv, f"{function}_vjp")(*given):
        result[...] = 77  # a new array, not a view of an operand
    for array, copy in zip(given, copies, strict=True):
        assert_equal(array, copy)


@each_function
def test_operands_are_not_changed(xp, function):
    arrays = operands(function, dtype="complex64", batch=(2,))
    given = [incoming(function, arrays, "complex64"), *arrays]
    on_device = [xp.asarray(array.copy()) for array in given]
    getattr(cuvarconv, f"{function}_vjp")(*on_device)
    for array, copy in zip(on_device, given, strict=True):
        assert_equal(xp.to_numpy(array), copy)


# ---- libraries and calls -------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_other_libraries(library, function):
    module = pytest.importorskip(library)
    arrays = operands(function)
    g = incoming(function, arrays)
    results = getattr(cuvarconv, f"{function}_vjp")(*map(module.asarray, [g, *arrays]))
    for result, expected in zip(results, looped(function, g, arrays), strict=True):
        assert type(result) is type(module.asarray(g))
        assert_equal(np.asarray(result), expected.astype(np.float32))


@each_operand
def test_one_gradient_in_another_library(function, name):
    torch = pytest.importorskip("torch")
    arrays = operands(function)
    g = incoming(function, arrays)
    result = getattr(cuvarconv, f"{function}_vjp")(*map(torch.from_numpy, [g, *arrays]), wrt=name)
    assert_equal(result.numpy(), looped(function, g, arrays)[FORMS[function].index(name)])


def test_lists():
    of_input, of_weights = cuvarconv.correlate_vjp([[1, 0]], [[3, 4]], [[5, 6]])
    assert_equal(of_input, np.array([[11.0, 0.0]]))
    assert_equal(of_weights, np.array([[3.0, 3.0]]))


@each_function
def test_window_arguments_are_keyword_only(function):
    arrays = operands(function)
    with pytest.raises(TypeError, match="positional argument"):
        getattr(cuvarconv, f"{function}_vjp")(incoming(function, arrays), *arrays, FORMS[function][0])
