"""Wrong calls of the adjoints, the full form and the gradients."""

import numpy as np
import pytest
from forms import FORMS
from test_errors import NO_SUCH_DTYPE, SENTINEL, Wrong, assert_refused, described, many

import cuvarconv

ONES = np.ones((2, 6, 7), np.float32)


def ones(*shape):
    return np.ones(shape, np.float32)


# The arguments of right calls.
BASES = {
    "spread": {"input": ONES, "weights": ones(3, 3), "output": np.full((2, 6, 7), SENTINEL, np.float32)},
    "unfold": {"input": ONES, "size": (3, 3)},
    "fold": {"columns": ones(2, 3, 3, 6, 7), "shape": (6, 7)},
    "local_correlate": {
        "input": ones(2, 4, 6, 7),
        "kernels": ones(3, 3, 6, 7, 4, 5),
        "output": np.full((2, 5, 6, 7), SENTINEL, np.float32),
    },
    "correlate_vjp": {"grad": ONES, "input": ONES, "weights": ones(3, 3, 6, 7)},
    "modulated_correlate_vjp": {
        "grad": ones(2, 6, 6, 7),
        "input": ones(2, 4, 6, 7),
        "weights": ones(6, 2, 3, 3),
        "modulation": ones(3, 3, 6, 7),
        "groups": 2,
    },
    "local_correlate_vjp": {
        "grad": ones(2, 5, 6, 7),
        "input": ones(2, 4, 6, 7),
        "kernels": ones(3, 3, 6, 7, 4, 5),
    },
}
GRADIENTS = [name for name in BASES if name.endswith("_vjp")]

SPREAD = [
    # geometry that cannot be inverted
    *many(
        ("shape: ", "6", "7", "got "), ValueError, "spread", shape=[(6, 8), (5, 7), (7, 7), (0, 0), (12, 14)]
    ),
    Wrong("spread", {"shape": (10, 13), "stride": 2}, ValueError, ("shape: ", "11 … 12", "(10, 13)")),
    Wrong("spread", {"shape": (11, 15), "stride": 2}, ValueError, ("shape: ", "13 … 14", "(11, 15)")),
    Wrong("spread", {"shape": (6, 7), "mode": "valid"}, ValueError, ("shape: ", "8", "(6, 7)")),
    Wrong("spread", {"shape": (8, 10), "mode": "valid"}, ValueError, ("shape: ", "9", "(8, 10)")),
    Wrong("spread", {"shape": (6, -7)}, ValueError, ("shape: ", "-7")),
    *many(("shape: ", "pair of ints", "got "), TypeError, "spread", shape=["ab", (6, 7.0), (None, 7), 6.0]),
    *many(("shape: ", "pair of ints", "got "), ValueError, "spread", shape=[(6,), (2, 6, 7), ()]),
    # operands
    Wrong("spread", {"input": np.ones(7)}, ValueError, ("input: ", "at least 2 axes", "got 1")),
    Wrong("spread", {"input": ONES.astype(object)}, TypeError, ("input: ", "object"), NO_SUCH_DTYPE),
    Wrong("spread", {"weights": np.ones(3)}, ValueError, ("weights: ", "(kh, kw) + S", "(3,)")),
    Wrong("spread", {"weights": ones(3, 0)}, ValueError, ("weights: ", "one tap", "(3, 0)")),
    Wrong("spread", {"weights": ones(3, 3, 6, 8)}, ValueError, ("weights: ", "(2, 6, 7)", "(6, 8)")),
    Wrong("spread", {"weights": ones(3, 3, 11, 13), "stride": 2}, ValueError, ("weights: ", "(2, 6, 7)")),
    Wrong("spread", {"weights": ones(3, 3, 1, 2, 6, 7)}, ValueError, ("weights: ", "(2, 6, 7)")),
    # output
    Wrong("spread", {"output": np.full((2, 7, 6), SENTINEL)}, ValueError, ("output: ", "(2, 6, 7)")),
    Wrong("spread", {"stride": 2}, ValueError, ("output: ", "(2, 11, 13)", "(2, 6, 7)")),
    Wrong("spread", {"mode": "valid"}, ValueError, ("output: ", "(2, 8, 9)", "(2, 6, 7)")),
    Wrong("spread", {"weights": np.ones((3, 3), complex)}, TypeError, ("output: ", "complex", "float32")),
    # window
    Wrong("spread", {"mode": "edge"}, ValueError, ("mode: ", "reflect", "got 'edge'")),
    Wrong("spread", {"origin": 2}, ValueError, ("origin: ", "-1 … 1", "got 2")),
    Wrong("spread", {"origin": 1, "mode": "valid", "output": None}, ValueError, ("origin: ", "valid")),
    Wrong("spread", {"axes": (1, 1)}, ValueError, ("axes: ", "different")),
    Wrong("spread", {"stride": 0}, ValueError, ("stride: ", "at least 1")),
    Wrong("spread", {"dilation": 1.5}, TypeError, ("dilation: ", "pair of ints", "1.5")),
    Wrong("spread", {"dilation": 2**62}, ValueError, ("dilation: ", "64-bit")),
]

UNFOLD = [
    Wrong("unfold", {"input": np.ones(7)}, ValueError, ("input: ", "at least 2 axes", "got 1")),
    Wrong("unfold", {"input": ONES.astype("M8[s]")}, TypeError, ("input: ", "datetime64"), NO_SUCH_DTYPE),
    *many(("size: ", "at least 1", "got "), ValueError, "unfold", size=[0, (3, 0), -1]),
    *many(("size: ", "pair of ints", "got "), TypeError, "unfold", size=[None, 3.0, "3", (3, None)]),
    *many(("size: ", "pair of ints", "got "), ValueError, "unfold", size=[(3,), (3, 3, 3)]),
    Wrong("unfold", {"size": (7, 3), "mode": "valid"}, ValueError, ("mode: ", "7 taps", "6 pixels")),
    Wrong("unfold", {"cval": 1j}, TypeError, ("cval: ", "real", "1j")),
    Wrong("unfold", {"cval": "0"}, TypeError, ("cval: ", "number", "'0'")),
    Wrong("unfold", {"origin": 2}, ValueError, ("origin: ", "-1 … 1", "got 2")),
    Wrong("unfold", {"stride": (1, 0)}, ValueError, ("stride: ", "at least 1")),
    *many(("shape: ", "6", "7", "got "), ValueError, "fold", shape=[(6, 8), (5, 7), (0, 0)]),
    Wrong("fold", {"shape": (10, 13), "stride": 2}, ValueError, ("shape: ", "11 … 12", "(10, 13)")),
    Wrong("fold", {"shape": (6, 7), "mode": "valid"}, ValueError, ("shape: ", "8", "(6, 7)")),
    *many(("shape: ", "pair of ints", "got "), TypeError, "fold", shape=[None, "ab", (6, 7.0)]),
    *many(("shape: ", "pair of ints", "got "), ValueError, "fold", shape=[(6,), (2, 6, 7)]),
    Wrong("fold", {"columns": ones(3, 6, 7)}, ValueError, ("columns: ", "kh, kw", "(3, 6, 7)")),
    Wrong("fold", {"columns": ones(2, 3, 0, 6, 7)}, ValueError, ("columns: ", "(2, 3, 0, 6, 7)")),
    Wrong("fold", {"columns": np.full((3, 3, 6, 7), "a")}, TypeError, ("columns: ", "<U1"), NO_SUCH_DTYPE),
    Wrong("fold", {"origin": -2}, ValueError, ("origin: ", "-1 … 1", "got -2")),
    Wrong("fold", {"mode": ("wrap",)}, ValueError, ("mode: ", "one name or two")),
]


def kernel_errors(function):
    """Return wrong calls that the full form shares with its gradients."""
    shapes = {  # kernels that do not match, and what the message is to say
        (3, 3, 7, 6, 4, 5): ("(6, 7, 4)", "(7, 6, 4)"),
        (3, 3, 1, 7, 4, 5): ("(6, 7, 4)", "(1, 7, 4)"),
        (3, 3, 6, 7, 5, 4): ("(6, 7, 4)", "(6, 7, 5)"),
        (3, 3, 6, 7, 1, 5): ("(6, 7, 4)", "(6, 7, 1)"),
        (3, 3, 6, 7): ("C_in, C_out", "(3, 3, 6, 7)"),
        (3, 3, 3, 6, 7, 4, 5): ("(2,)", "(3,)"),
        (3, 3, 1, 2, 6, 7, 4, 5): ("(2,)", "(1, 2)"),
        (3, 0, 6, 7, 4, 5): ("one tap", "(3, 0, 6, 7, 4, 5)"),
    }
    return [
        *(
            Wrong(function, {"kernels": ones(*shape)}, ValueError, ("kernels: ", *says))
            for shape, says in shapes.items()
        ),
        Wrong(function, {"stride": 2}, ValueError, ("kernels: ", "(3, 4, 4)", "(6, 7, 4)")),
        Wrong(function, {"mode": "valid"}, ValueError, ("kernels: ", "(4, 5, 4)", "(6, 7, 4)")),
        Wrong(function, {"input": ones(6, 7)}, ValueError, ("input: ", "C_in, H, W", "(6, 7)")),
        Wrong(
            function, {"input": ones(0, 4, 6, 7), "kernels": ones(3, 3, 2, 6, 7, 4, 5)}, ValueError, ("kern",)
        ),
    ]


LOCAL = [
    *kernel_errors("local_correlate"),
    Wrong(
        "local_correlate",
        {"output": np.full((2, 4, 6, 7), SENTINEL)},
        ValueError,
        ("output: ", "(2, 5, 6, 7)"),
    ),
    Wrong(
        "local_correlate",
        {"output": np.full((2, 5, 6, 7), SENTINEL, complex)},
        TypeError,
        ("output: ", "real"),
    ),
    Wrong("local_correlate", {"cval": 1j}, TypeError, ("cval: ", "real", "1j")),
    Wrong("local_correlate", {"origin": 2}, ValueError, ("origin: ", "-1 … 1", "got 2")),
    Wrong("local_correlate", {"dilation": 0}, ValueError, ("dilation: ", "at least 1")),
]


def gradient_errors(function):
    """Return wrong calls that all gradients share."""
    right = BASES[function]["grad"].shape
    names = FORMS[function.removesuffix("_vjp")]
    wrong = [
        (*right[:-2], right[-1], right[-2]),
        right[1:],
        (1, *right),
        (1, *right[1:]),
        (*right[:-1], 1),
        (),
    ]
    return [
        *many(("grad: ", str(right)), ValueError, function, grad=[ones(*shape) for shape in wrong]),
        Wrong(function, {"grad": np.full(right, "a")}, TypeError, ("grad: ", "<U1"), NO_SUCH_DTYPE),
        Wrong(
            function,
            {"grad": np.ma.masked_array(ones(*right), False)},
            TypeError,
            ("grad: ", "masked"),
            "NumPy",
        ),
        Wrong(function, {"grad": None}, TypeError, ("grad: ",), "no array"),
        *many(
            ("wrt: ", names[0], names[-1], "got "), ValueError, function, wrt=["Input", "", "cval", "grad"]
        ),
        *many(("wrt: ", "got "), ValueError, function, wrt=[("input", "inputs"), (names[-1], "bias")]),
        *many(
            ("wrt: ", "got "),
            TypeError,
            function,
            wrt=[None, 0, b"input", (0, 1), ("input", None), {"input": 1}],
        ),
        Wrong(function, {"mode": "edge"}, ValueError, ("mode: ", "got 'edge'")),
        Wrong(function, {"cval": 1j}, TypeError, ("cval: ", "real", "1j")),
        Wrong(function, {"cval": [0]}, TypeError, ("cval: ", "number")),
        Wrong(function, {"origin": (0, 2)}, ValueError, ("origin: ", "-1 … 1", "got 2")),
        Wrong(function, {"stride": -1}, ValueError, ("stride: ", "at least 1")),
        Wrong(function, {"dilation": None}, TypeError, ("dilation: ", "pair of ints")),
    ]


VJP = [
    *(wrong for function in GRADIENTS for wrong in gradient_errors(function)),
    *kernel_errors("local_correlate_vjp"),
    Wrong("correlate_vjp", {"weights": ones(3, 3, 7, 6)}, ValueError, ("weights: ", "(2, 6, 7)", "(7, 6)")),
    Wrong(
        "correlate_vjp",
        {"weights": ones(3, 3), "stride": 2},
        ValueError,
        ("grad: ", "(2, 3, 4)", "(2, 6, 7)"),
    ),
    Wrong("correlate_vjp", {"weights": ones(3, 3), "mode": "valid"}, ValueError, ("grad: ", "(2, 4, 5)")),
    Wrong("correlate_vjp", {"axes": (0, 3)}, ValueError, ("axes: ", "out of range")),
    Wrong("correlate_vjp", {"input": ones(7)}, ValueError, ("input: ", "at least 2 axes")),
    Wrong("modulated_correlate_vjp", {"groups": 3}, ValueError, ("groups: ", "C_in = 4", "got 3")),
    Wrong("modulated_correlate_vjp", {"groups": 1.0}, TypeError, ("groups: ", "int")),
    Wrong(
        "modulated_correlate_vjp", {"weights": ones(6, 4, 3, 3)}, ValueError, ("weights: ", "axis 1", "got 4")
    ),
    Wrong(
        "modulated_correlate_vjp",
        {"weights": ones(5, 4, 3, 3), "groups": 1},
        ValueError,
        ("grad: ", "(2, 5,"),
    ),
    Wrong(
        "modulated_correlate_vjp",
        {"modulation": ones(3, 5)},
        ValueError,
        ("modulation: ", "(3, 3)", "(3, 5)"),
    ),
    Wrong(
        "modulated_correlate_vjp",
        {"modulation": ones(3, 3, 3, 6, 7)},
        ValueError,
        ("modulation: ", "(3, 6, 7)"),
    ),
    Wrong("modulated_correlate_vjp", {"input": ones(6, 7)}, ValueError, ("input: ", "C_in, H, W")),
]
CALLS = [*SPREAD, *UNFOLD, *LOCAL, *VJP]


@pytest.mark.no_launch(reason="errors come before any kernel")
@pytest.mark.parametrize("call", CALLS, ids=described)
def test_wrong_call(xp, call):
    assert_refused(xp, call, BASES[call.function] | call.changes)


def test_the_wrong_calls_are_distinct():
    assert len({described(call) for call in CALLS}) == len(CALLS)


@pytest.mark.parametrize("function", BASES)
def test_the_call_that_the_wrong_ones_differ_from_is_right(xp, function):
    """Every window reads 9 ones, of the 4 channels in full or 2 in a group."""
    arguments = {
        name: xp.asarray(value.copy()) if isinstance(value, np.ndarray) else value
        for name, value in BASES[function].items()
    }
    result = getattr(cuvarconv, function)(**arguments)
    if "output" in arguments:
        assert result is arguments["output"]
    results = result if isinstance(result, tuple) else (result,)
    expected = {
        "spread": [9],
        "unfold": [1],
        "fold": [9],
        "local_correlate": [36],
        "correlate_vjp": [9, 2],
        "modulated_correlate_vjp": [27, 84, 24],
        "local_correlate_vjp": [45, 2],
    }[function]
    assert len(results) == len(expected)
    for array, value in zip(results, expected, strict=True):
        np.testing.assert_array_equal(xp.to_numpy(array), value)


@pytest.mark.parametrize("function", [function for function in BASES if function != "unfold"])
def test_tensors_that_require_grad_are_refused(function):
    torch = pytest.importorskip("torch")
    arguments = {
        name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        for name, value in BASES[function].items()
    }
    first = next(iter(arguments))
    arguments[first].requires_grad_()
    with pytest.raises(TypeError, match=rf"^{first}: .*cuvarconv\.torch"):
        getattr(cuvarconv, function)(**arguments)


@pytest.mark.parametrize("function", GRADIENTS)
def test_mixed_libraries_are_refused(function):
    torch = pytest.importorskip("torch")
    arguments = {**BASES[function], "grad": torch.from_numpy(BASES[function]["grad"].copy())}
    with pytest.raises(TypeError, match=r"torch.*numpy|numpy.*torch"):
        getattr(cuvarconv, function)(**arguments)


@pytest.mark.parametrize(
    ("function", "positional"), [("spread", 4), ("unfold", 5), ("fold", 3), ("local_correlate", 6)]
)
def test_later_arguments_are_keyword_only(function, positional):
    with pytest.raises(TypeError, match="positional argument"):
        getattr(cuvarconv, function)(*[ONES] * (positional + 1))
