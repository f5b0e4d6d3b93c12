"""Wrong calls: each has its type, a message that names the argument, and leaves `output` alone."""

import re
from dataclasses import dataclass, field

import numpy as np
import pytest
from tolerances import BFLOAT16

import cuvarconv

SENTINEL = 77


@dataclass(frozen=True)
class Wrong:
    """One wrong call: what differs from a right one, and what the error says, in this order."""

    function: str
    changes: dict
    error: type
    says: tuple
    host_only: str = field(default="")  # why it cannot be asked of device arrays


def base(function):
    """Return the arguments of a right call."""
    if function == "modulated_correlate":
        return {
            "input": np.ones((2, 4, 6, 7), np.float32),
            "weights": np.ones((6, 2, 3, 3), np.float32),
            "modulation": np.ones((3, 3, 6, 7), np.float32),
            "output": np.full((2, 6, 6, 7), SENTINEL, np.float32),
            "groups": 2,
        }
    return {
        "input": np.ones((2, 6, 7), np.float32),
        "weights": np.ones((3, 3), np.float32),
        "output": np.full((2, 6, 7), SENTINEL, np.float32),
    }


def read_only(shape):
    array = np.full(shape, SENTINEL, np.float32)
    array.flags.writeable = False
    return array


def many(says, error, function="correlate", **cases):
    """Several wrong values of one argument, with the same message but for the value."""
    (name, values), *others = cases.items()
    assert not others
    return [Wrong(function, {name: value}, error, says) for value in values]


NO_SUCH_DTYPE = "CUDA arrays cannot have this dtype"
NO_FLAG = "CUDA arrays have no such flag"
ONES = np.ones((2, 6, 7), np.float32)

CALLS = [
    *many(("stride: ", "an int or a pair of ints"), TypeError, stride=[{1: 2, 3: 4}, {1, 2}, b"ab"]),
    # input
    Wrong("correlate", {"input": np.ones(7)}, ValueError, ("input: ", "at least 2 axes", "got 1")),
    Wrong("convolve", {"input": np.float64(3)}, ValueError, ("input: ", "at least 2 axes", "got 0")),
    Wrong(
        "correlate",
        {"input": ONES.astype(object)},
        TypeError,
        ("input: ", "object", "float32"),
        NO_SUCH_DTYPE,
    ),
    Wrong("correlate", {"input": np.full((2, 6, 7), "a")}, TypeError, ("input: ", "<U1"), NO_SUCH_DTYPE),
    Wrong(
        "correlate",
        {"input": ONES.astype(np.longdouble)},
        TypeError,
        ("input: ", str(np.dtype(np.longdouble)), "float64"),
        NO_SUCH_DTYPE,
    ),
    Wrong("correlate", {"input": ONES.astype("M8[s]")}, TypeError, ("input: ", "datetime64"), NO_SUCH_DTYPE),
    Wrong(
        "correlate",
        {"input": np.zeros((6, 7), [("a", "f4")])},
        TypeError,
        ("input: ", "'a'", "float32"),
        NO_SUCH_DTYPE,
    ),
    Wrong("correlate", {"input": [[1.0, 2.0], [3.0]]}, TypeError, ("input: ", "array"), "a list"),
    Wrong("correlate", {"input": None}, TypeError, ("input: ",), "no array"),
    Wrong("correlate", {"input": {"a": 1}}, TypeError, ("input: ",), "no array"),
    Wrong(
        "correlate",
        {"input": np.ma.masked_array(ONES, False)},
        TypeError,
        ("input: ", "masked", "filled"),
        "a NumPy class",
    ),
    Wrong(
        "correlate",
        {"input": ONES.astype(BFLOAT16), "weights": np.ones((3, 3), np.float16)},
        TypeError,
        ("operands of the dtypes ", "bfloat16", "float16"),
    ),
    Wrong("modulated_correlate", {"input": np.ones((6, 7))}, ValueError, ("input: ", "C_in, H, W", "(6, 7)")),
    Wrong(
        "modulated_correlate",
        {"input": np.ones((2, 4, 6, 7)).astype("m8[s]")},
        TypeError,
        ("input: ", "timedelta64"),
        NO_SUCH_DTYPE,
    ),
    # weights
    Wrong("correlate", {"weights": np.ones(3)}, ValueError, ("weights: ", "(kh, kw) + S", "(3,)")),
    Wrong("correlate", {"weights": 2.0}, ValueError, ("weights: ", "(kh, kw) + S", "()"), "a scalar"),
    Wrong("correlate", {"weights": np.ones((0, 3))}, ValueError, ("weights: ", "one tap", "(0, 3)")),
    Wrong("convolve", {"weights": np.ones((3, 0))}, ValueError, ("weights: ", "one tap", "(3, 0)")),
    Wrong(
        "correlate",
        {"weights": np.ones((3, 3, 6, 8))},
        ValueError,
        ("weights: ", "(2, 6, 7)", "(6, 8)"),
    ),
    Wrong(
        "convolve", {"weights": np.ones((3, 3, 3, 6, 7))}, ValueError, ("weights: ", "(2, 6, 7)", "(3, 6, 7)")
    ),
    Wrong(
        "correlate",
        {"weights": np.ones((3, 3, 1, 2, 6, 7))},
        ValueError,
        ("weights: ", "(2, 6, 7)", "(1, 2, 6, 7)"),
    ),
    Wrong("correlate", {"weights": np.ones((3, 3, 0, 7))}, ValueError, ("weights: ", "(2, 6, 7)", "(0, 7)")),
    Wrong(
        "correlate",
        {"weights": np.ones((3, 3, 2, 1, 1)), "input": np.ones((4, 6, 7))},
        ValueError,
        ("weights: ", "(4, 6, 7)", "(2, 1, 1)"),
    ),
    Wrong(
        "correlate",
        {"weights": np.ones((3, 3, 6, 7)), "stride": 2},
        ValueError,
        ("weights: ", "(2, 3, 4)", "(6, 7)"),
    ),
    Wrong(
        "correlate", {"weights": np.ones((3, 3), object)}, TypeError, ("weights: ", "object"), NO_SUCH_DTYPE
    ),
    Wrong("correlate", {"weights": "box"}, TypeError, ("weights: ", "<U3"), "no array"),
    Wrong("modulated_correlate", {"weights": np.ones((3, 3))}, ValueError, ("weights: ", "C_out", "(3, 3)")),
    Wrong(
        "modulated_correlate",
        {"weights": np.ones((6, 4, 3, 3))},
        ValueError,
        ("weights: ", "C_in/groups = 2", "axis 1", "got 4"),
    ),
    Wrong(
        "modulated_correlate",
        {"weights": np.ones((6, 2, 0, 3))},
        ValueError,
        ("weights: ", "one tap", "(0, 3)"),
    ),
    # modulation
    Wrong(
        "modulated_correlate",
        {"modulation": np.ones(3)},
        ValueError,
        ("modulation: ", "(kh, kw) + S", "(3,)"),
    ),
    Wrong(
        "modulated_correlate",
        {"modulation": np.ones((3, 5, 6, 7))},
        ValueError,
        ("modulation: ", "(3, 3)", "(3, 5)"),
    ),
    Wrong(
        "modulated_correlate",
        {"modulation": np.ones((3, 3, 7, 6))},
        ValueError,
        ("modulation: ", "(2, 4, 6, 7)", "(7, 6)"),
    ),
    Wrong(
        "modulated_correlate",
        {"modulation": np.ones((3, 3, 3, 6, 7))},
        ValueError,
        ("modulation: ", "(2, 4, 6, 7)", "(3, 6, 7)"),
    ),
    Wrong(
        "modulated_correlate",
        {"modulation": np.ones((3, 3, 8, 6, 7))},
        ValueError,
        ("modulation: ", "(2, 4, 6, 7)", "(8, 6, 7)"),
    ),
    Wrong(
        "modulated_correlate",
        {"modulation": np.ones((3, 3, 0, 6, 7))},
        ValueError,
        ("modulation: ", "(2, 4, 6, 7)", "(0, 6, 7)"),
    ),
    Wrong(
        "modulated_correlate",
        {"modulation": np.ones((3, 3, 1, 2, 4, 6, 7))},
        ValueError,
        ("modulation: ", "(2, 4, 6, 7)", "(1, 2, 4, 6, 7)"),
    ),
    Wrong(
        "modulated_correlate",
        {"modulation": np.ones((3, 3), "S1")},
        TypeError,
        ("modulation: ", "|S1"),
        NO_SUCH_DTYPE,
    ),
    Wrong("modulated_correlate", {"modulation": None}, TypeError, ("modulation: ",), "no array"),
    # output
    *many(("output: ", "(2, 6, 7)"), ValueError, output=[np.zeros((2, 7, 6)), np.zeros((1, 2, 6, 7))]),
    Wrong("correlate", {"stride": 2}, ValueError, ("output: ", "(2, 3, 4)", "(2, 6, 7)")),
    Wrong(
        "modulated_correlate",
        {"output": np.full((2, 4, 6, 7), SENTINEL)},
        ValueError,
        ("output: ", "(2, 6, 6, 7)", "(2, 4, 6, 7)"),
    ),
    Wrong("correlate", {"weights": np.ones((3, 3), complex)}, TypeError, ("output: ", "complex", "float32")),
    Wrong(
        "correlate",
        {"output": np.full((2, 6, 7), SENTINEL, complex)},
        TypeError,
        ("output: ", "real", "complex128"),
    ),
    Wrong("correlate", {"output": read_only((2, 6, 7))}, ValueError, ("output: ", "read-only"), NO_FLAG),
    Wrong(
        "correlate",
        {"output": np.full((2, 6, 7), SENTINEL, object)},
        TypeError,
        ("output: ", "object"),
        NO_SUCH_DTYPE,
    ),
    Wrong(
        "correlate",
        {"output": np.ma.masked_array(np.full((2, 6, 7), SENTINEL), False)},
        TypeError,
        ("output: ", "masked"),
        "a NumPy class",
    ),
    *many(
        ("output: expected an array, a dtype or None, got ",),
        TypeError,
        output=["no such dtype", np.floating, [[0.0] * 7] * 6, 5, 2.5, True, (2, 6, 7)],
    ),
    *many(("output: ", "object"), TypeError, output=[object, list]),
    Wrong("correlate", {"output": "bool"}, TypeError, ("output: ", "numeric", "'bool'")),
    # mode
    *many(("mode: ", "reflect", "valid", "got "), ValueError, mode=["edge", "REFLECT", ("wrap", "same")]),
    *many(("mode: expected a name or a pair", "got "), TypeError, mode=[None, 3, b"wrap", ("wrap", 1)]),
    *many(("mode: expected one name or two", "got "), ValueError, mode=[("wrap",), ["wrap"] * 3, ()]),
    Wrong(
        "correlate",
        {"mode": "valid", "weights": np.ones((7, 3))},
        ValueError,
        ("mode: ", "valid", "7 taps", "6 pixels", "row"),
    ),
    Wrong(
        "modulated_correlate",
        {"mode": ("wrap", "valid"), "dilation": 4},
        ValueError,
        ("mode: ", "valid", "3 taps", "dilation 4", "7 pixels", "column"),
    ),
    # cval
    *many(("cval: expected a number", "got "), TypeError, cval=["0", None, [1.0], np.ones(1), ...]),
    Wrong("correlate", {"cval": 1j}, TypeError, ("cval: ", "real", "1j")),
    Wrong("modulated_correlate", {"cval": np.complex64(0)}, TypeError, ("cval: ", "real", "0j")),
    # origin
    Wrong("correlate", {"origin": 2}, ValueError, ("origin: ", "-1 … 1", "3 taps", "row", "got 2")),
    Wrong(
        "correlate",
        {"origin": (0, 1), "weights": np.ones((3, 2))},
        ValueError,
        ("origin: ", "-1 … 0", "2 taps", "column", "got 1"),
    ),
    Wrong(
        "convolve",
        {"origin": (0, -2), "weights": np.ones((3, 2))},
        ValueError,
        ("origin: ", "-1 … 0", "2 taps", "column", "got -2"),
    ),
    Wrong("modulated_correlate", {"origin": -2}, ValueError, ("origin: ", "-1 … 1", "got -2")),
    Wrong("correlate", {"origin": 1, "mode": "valid"}, ValueError, ("origin: ", "0", "valid", "got 1")),
    *many(("origin: ", "pair of ints", "got "), TypeError, origin=[0.5, None, "a", (0, 1.0)]),
    *many(("origin: ", "pair of ints", "got "), ValueError, origin=[(0,), (0, 0, 0), ()]),
    # axes
    *many(("axes: ", "out of range", "3 axes"), ValueError, axes=[(0, 3), (-4, 0)]),
    *many(("axes: ", "different", "got "), ValueError, axes=[(1, 1), (-1, 2)]),
    *many(("axes: ", "pair of ints"), ValueError, axes=[(0, 1, 2), (0,), 1]),
    *many(("axes: ", "pair of ints", "got "), TypeError, axes=[None, "ab", (0, 1.0), 0.5]),
    # stride and dilation
    *many(("stride: ", "at least 1", "got "), ValueError, stride=[0, -1, (1, 0)]),
    *many(("stride: ", "pair of ints", "got "), TypeError, stride=[1.0, None, "2", (1, None)]),
    *many(("stride: ", "pair of ints", "got 3"), ValueError, stride=[(1, 1, 1)]),
    *many(("dilation: ", "at least 1", "got "), ValueError, dilation=[0, (2, -3)]),
    *many(("dilation: ", "pair of ints", "got "), TypeError, dilation=[2.0, "1", None]),
    *many(("dilation: ", "64-bit", "row"), ValueError, dilation=[2**62, (2**200, 1)]),
    Wrong("modulated_correlate", {"dilation": (1, 2**63)}, ValueError, ("dilation: ", "64-bit", "column")),
    # groups
    Wrong("modulated_correlate", {"groups": 3}, ValueError, ("groups: ", "C_in = 4", "C_out = 6", "got 3")),
    Wrong("modulated_correlate", {"groups": 4}, ValueError, ("groups: ", "C_in = 4", "C_out = 6", "got 4")),
    Wrong("modulated_correlate", {"groups": 0}, ValueError, ("groups: ", "divisor", "got 0")),
    Wrong("modulated_correlate", {"groups": -2}, ValueError, ("groups: ", "divisor", "got -2")),
    Wrong("modulated_correlate", {"groups": 2.0}, TypeError, ("groups: ", "int", "2.0")),
    Wrong("modulated_correlate", {"groups": (2, 2)}, TypeError, ("groups: ", "int", "(2, 2)")),
]


def described(call):
    changes = ", ".join(
        f"{name}={value.dtype}{value.shape}" if isinstance(value, np.ndarray) else f"{name}={value!r:.25}"
        for name, value in call.changes.items()
    )
    return f"{call.function}({changes})"


ARRAYS = (
    *("grad", "input", "weights", "modulation", "kernels", "columns", "guide", "output"),
    *("sigma", "angle", "sigma_spatial", "sigma_range"),
)


def assert_refused(xp, call, arguments):
    """Make the wrong call on a backend's arrays: the right error, and all arrays as they were."""
    if xp.name == "cuda" and call.host_only:
        pytest.skip(f"host arrays only: {call.host_only}")
    before = {name: arguments[name] for name in ARRAYS if type(arguments.get(name)) is np.ndarray}
    given = {name: array.copy() if array.flags.writeable else array for name, array in before.items()}
    others = {name: value for name, value in arguments.items() if name not in given}
    if not call.host_only:
        given = {name: xp.asarray(array) for name, array in given.items()}
        others = {name: _with_arrays(xp, value) for name, value in others.items()}
    pattern = ".*".join(re.escape(part) for part in call.says)
    with pytest.raises(call.error, match=f"(?s)^{pattern}") as caught:
        getattr(cuvarconv, call.function)(**others | given)
    assert type(caught.value) is call.error
    for name, array in given.items():
        np.testing.assert_array_equal(array if call.host_only else xp.to_numpy(array), before[name])


def _with_arrays(xp, value):
    """Put the arrays of a tuple, such as a pair of σ, on the backend."""
    if not isinstance(value, tuple):
        return value
    return tuple(xp.asarray(item) if isinstance(item, np.ndarray) else item for item in value)


@pytest.mark.no_launch(reason="errors come before any kernel")
@pytest.mark.parametrize("call", CALLS, ids=described)
def test_wrong_call(xp, call):
    assert_refused(xp, call, base(call.function) | call.changes)


def test_there_are_many_distinct_wrong_calls():
    assert len({described(call) for call in CALLS}) == len(CALLS) >= 45


def test_dtypes_without_a_common_one_are_named():
    x, w, d = (np.ones(shape, np.float16) for shape in ((2, 4, 5), (3, 2, 1, 1), (1, 1)))
    with pytest.raises(TypeError, match=r"^operands of the dtypes float16 and bfloat16 have no common dtype"):
        cuvarconv.modulated_correlate(x, w, d.astype(BFLOAT16))


@pytest.mark.parametrize("axes", [(-2, -1), (0, 1)])
def test_kernels_of_channels_last_pictures(axes):
    x, k = np.ones((6, 7, 3)), np.ones((3, 3, 6, 7))
    says = r"got S = \(6, 7\); for channels-last pictures pass axes=\(0, 1\) and S = \(6, 7, 1\)$"
    with pytest.raises(ValueError, match=says):
        cuvarconv.correlate(x, k, axes=axes)
    assert cuvarconv.correlate(x, k[..., None], axes=(0, 1)).shape == x.shape


@pytest.mark.parametrize("function", ["correlate", "convolve", "modulated_correlate"])
def test_the_call_that_the_wrong_ones_differ_from_is_right(xp, function):
    arguments = {
        name: xp.asarray(value) if isinstance(value, np.ndarray) else value
        for name, value in base(function).items()
    }
    output = arguments["output"]
    assert getattr(cuvarconv, function)(**arguments) is output
    np.testing.assert_array_equal(xp.to_numpy(output), 18 if function[0] == "m" else 9)


@pytest.mark.parametrize("function", ["correlate", "convolve", "modulated_correlate"])
def test_later_arguments_are_keyword_only(function):
    arguments = base(function)
    operands = [arguments[name] for name in ("input", "weights", "modulation") if name in arguments]
    with pytest.raises(TypeError, match="positional argument"):
        getattr(cuvarconv, function)(*operands, None, "wrap", 0.0, 0, (0, 1))
