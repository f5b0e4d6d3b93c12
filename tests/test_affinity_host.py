"""`affinity` and its gradient on the host: memory, workers, and wrong calls on every backend."""

import numpy as np
import pytest
from test_errors import NO_SUCH_DTYPE, Wrong, assert_refused, described, many
from test_host import LIMIT, zeros
from test_host_gradients import beyond_results, bits_over_workers
from tolerances import noise

import cuvarconv

# ---- memory and workers --------------------------------------------------------------------------

LARGE = {
    "large": (zeros(3, 1024, 1024), 3, {}),
    "many features": (zeros(1 << 16, 4, 8), 3, {}),
    "many samples": (zeros(1 << 16, 2, 4, 4), 3, {"mode": "wrap"}),
    "channels last": (zeros(512, 512, 16), 3, {"channel_axis": -1}),
    "one long row": (zeros(1, 1, 1 << 20), (1, 3), {"mode": "mirror"}),
    "one long column": (zeros(1 << 20, 1), (3, 1), {"channel_axis": None}),
    "huge window": (zeros(2, 64, 64), (33, 64), {"mode": ("nearest", "wrap")}),
    "huge dilation": (zeros(2, 512, 512), 3, {"dilation": 1 << 40}),
    "huge stride": (zeros(2, 4, 4), 3, {"stride": 1000}),
    "integers": (zeros(2, 512, 512, dtype=np.uint8), 5, {}),
}


@pytest.mark.parametrize("name", LARGE)
def test_little_memory(name):
    guide, size, keywords = LARGE[name]
    with cuvarconv.set_workers(16):
        cuvarconv.affinity(zeros(1, 2, 2), 1)
        made = []

        def forward():
            made.append(cuvarconv.affinity(guide, size, **keywords))
            return made[0]

        assert beyond_results(forward) <= LIMIT
        grad = made.pop()
        assert beyond_results(lambda: cuvarconv.affinity_vjp(grad, guide, size, **keywords)) <= LIMIT


@pytest.mark.parametrize("mode", ["wrap", "constant", "valid"])
def test_the_same_bits_for_any_number_of_workers(mode):
    guide = noise((2, 5, 100, 300))
    d = cuvarconv.affinity(guide, (3, 5), mode=mode)
    g = noise(d.shape, seed=1)
    assert len(bits_over_workers(lambda: cuvarconv.affinity(guide, (3, 5), mode=mode))) == 1
    assert len(bits_over_workers(lambda: cuvarconv.affinity_vjp(g, guide, (3, 5), mode=mode))) == 1


# ---- wrong calls ---------------------------------------------------------------------------------

GUIDE, GRAD = np.ones((2, 4, 6, 7), np.float32), np.ones((3, 3, 2, 1, 6, 7), np.float32)
BASES = {
    "affinity": {"guide": GUIDE, "size": 3},
    "affinity_vjp": {"grad": GRAD, "guide": GUIDE, "size": 3},
}


def both(error, *says, **changes):
    """Make the same wrong call of both functions."""
    return [Wrong(function, changes, error, says) for function in BASES]


CALLS = [
    *both(TypeError, "guide: ", "real", "complex64", guide=GUIDE.astype(np.complex64)),
    *both(ValueError, "guide: ", "at least 3 axes", "(6, 7)", guide=np.ones((6, 7), np.float32)),
    *both(ValueError, "guide: ", "at least 2 axes", "(7,)", guide=np.ones(7), channel_axis=None),
    *both(ValueError, "guide: ", "one channel", "-3", guide=np.ones((2, 0, 6, 7), np.float32)),
    Wrong("affinity", {"guide": GUIDE.astype("M8[s]")}, TypeError, ("guide: ", "datetime64"), NO_SUCH_DTYPE),
    Wrong("affinity", {"guide": None}, TypeError, ("guide: ",), "no array"),
    Wrong(
        "affinity", {"guide": np.ma.masked_array(GUIDE)}, TypeError, ("guide: ", "masked"), "a NumPy class"
    ),
    *both(ValueError, "channel_axis: ", "4 is out of range", "4 axes", channel_axis=4),
    *both(ValueError, "channel_axis: ", "-5 is out of range", "4 axes", channel_axis=-5),
    *both(TypeError, "channel_axis: ", "int or None", "1.0", channel_axis=1.0),
    *both(TypeError, "channel_axis: ", "int or None", "'C'", channel_axis="C"),
    *both(TypeError, "size: ", "pair of ints", "2.5", size=2.5),
    *both(TypeError, "size: ", "pair of ints", "None", size=None),
    *both(ValueError, "size: ", "at least 1", "0", size=0),
    *both(ValueError, "size: ", "at least 1", "(3, -1)", size=(3, -1)),
    *both(ValueError, "size: ", "pair of ints", "3 of them", size=(3, 3, 3)),
    *many(("sigma: ", "positive", "got "), ValueError, "affinity", sigma=[0, -1, np.nan, np.inf, -0.0]),
    *many(("sigma: ", "positive", "got "), ValueError, "affinity_vjp", sigma=[0, -2.5, np.nan]),
    *many(
        ("sigma: ", "number", "got "), TypeError, "affinity", sigma=["1", None, 1j, [1.0, 2.0], np.ones(2)]
    ),
    *both(ValueError, "mode: ", "reflect", "got 'edge'", mode="edge"),
    *both(TypeError, "mode: ", "got 3", mode=3),
    *both(ValueError, "mode: ", "valid", "fits", "9 taps", mode="valid", size=9),
    *both(ValueError, "origin: ", "-1 … 1", "got 2", origin=2),
    *both(ValueError, "origin: ", "valid", "got 1", origin=1, mode="valid"),
    *both(TypeError, "origin: ", "pair of ints", origin=0.5),
    *both(ValueError, "stride: ", "at least 1", stride=0),
    *both(ValueError, "dilation: ", "at least 1", dilation=(1, 0)),
    *both(ValueError, "dilation: ", "64-bit", dilation=2**62),
    *many(
        ("grad: ", "(3, 3, 2, 1, 6, 7)", "got "),
        ValueError,
        "affinity_vjp",
        grad=[GRAD[:, :, :, 0], GRAD[:2], GRAD[..., :6], GRAD[:, :, :1], np.ones((2, 1, 6, 7), np.float32)],
    ),
    Wrong("affinity_vjp", {"grad": GRAD, "stride": 2}, ValueError, ("grad: ", "(3, 3, 2, 1, 3, 4)", "got ")),
    Wrong("affinity_vjp", {"wrt": "grad"}, ValueError, ("wrt: ", "guide", "'grad'")),
    Wrong("affinity_vjp", {"wrt": ("guide", "sigma")}, ValueError, ("wrt: ", "guide", "'sigma'")),
    Wrong("affinity_vjp", {"wrt": None}, TypeError, ("wrt: ", "guide", "None")),
]


@pytest.mark.no_launch(reason="errors come before any kernel")
@pytest.mark.parametrize("call", CALLS, ids=described)
def test_wrong_call(xp, call):
    assert_refused(xp, call, BASES[call.function] | call.changes)


@pytest.mark.parametrize("function", BASES)
def test_the_call_that_the_wrong_ones_differ_from_is_right(xp, function):
    arguments = {
        name: xp.asarray(value) if isinstance(value, np.ndarray) else value
        for name, value in BASES[function].items()
    }
    result = getattr(cuvarconv, function)(**arguments)
    (array,) = result if isinstance(result, tuple) else (result,)
    np.testing.assert_array_equal(xp.to_numpy(array), 1 if function == "affinity" else 0)


@pytest.mark.parametrize("channel_axis", [np.int64(-3), np.uint8(1)], ids=repr)
def test_channel_axis_as_a_number_of_numpy(channel_axis):
    d = cuvarconv.affinity(GUIDE, 3, channel_axis=channel_axis)
    assert d.shape == GRAD.shape


def test_tensors_that_require_grad_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^guide: .*cuvarconv\.torch"):
        cuvarconv.affinity(torch.ones(2, 4, 5, requires_grad=True), 3)


@pytest.mark.parametrize(("function", "positional"), [("affinity", 3), ("affinity_vjp", 4)])
def test_later_arguments_are_keyword_only(function, positional):
    with pytest.raises(TypeError, match="positional argument"):
        getattr(cuvarconv, function)(*[GUIDE] * (positional + 1))
