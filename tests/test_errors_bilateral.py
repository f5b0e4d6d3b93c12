"""Wrong calls of `bilateral_filter` and its gradients, on every backend; memory and workers on the host."""

import numpy as np
import pytest
from test_errors import NO_SUCH_DTYPE, SENTINEL, Wrong, assert_refused, described, many
from test_host import LIMIT, zeros
from test_host_gradients import beyond_results, bits_over_workers
from tolerances import noise

import cuvarconv

IMAGE = np.ones((2, 6, 7), np.float32)
BASES = {
    "bilateral_filter": {
        "input": IMAGE,
        "sigma_spatial": 0.5,
        "sigma_range": 1.0,
        "output": np.full((2, 6, 7), SENTINEL, np.float32),
    },
    "bilateral_filter_vjp": {"grad": IMAGE, "input": IMAGE, "sigma_spatial": 0.5, "sigma_range": 1.0},
}


def both(error, *says, host_only="", **changes):
    """Make the same wrong call of both functions."""
    return [Wrong(function, changes, error, says, host_only) for function in BASES]


def each(name, error, *says, values):
    """Make the same wrong call of both functions, with one value after the other."""
    return [call for value in values for call in both(error, *says, **{name: value})]


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


CALLS = [
    # input
    *both(ValueError, "input: ", "at least 2 axes", "(7,)", input=ones(7)),
    *both(ValueError, "input: ", "at least 3 axes", "(6, 7)", input=ones(6, 7), channel_axis=-1),
    *both(ValueError, "input: ", "one channel", "0", input=ones(0, 6, 7), channel_axis=0),
    *both(TypeError, "guide: ", "real guide", "complex64", "None", input=ones(2, 6, 7, dtype=np.complex64)),
    *both(TypeError, "input: ", "datetime64", input=IMAGE.astype("M8[s]"), host_only=NO_SUCH_DTYPE),
    *both(TypeError, "input: ", input=None, host_only="no array"),
    *both(TypeError, "input: ", "masked", input=np.ma.masked_array(IMAGE), host_only="a class of NumPy's"),
    # guide
    *both(TypeError, "guide: ", "real", "complex64", guide=ones(2, 6, 7, dtype=np.complex64)),
    *each(
        "guide", ValueError, "guide: ", "(6, 7)", "(2,)", values=[ones(2, 7, 6), ones(3, 6, 7), ones(1, 7)]
    ),
    *both(ValueError, "guide: ", "(6, 7)", "(2,)", "(1, 2, 6, 7)", guide=ones(1, 2, 6, 7)),
    *both(ValueError, "guide: ", "at least 2 axes", "(7,)", guide=ones(7)),
    *both(ValueError, "guide: ", "one channel", guide=ones(0, 6, 7), channel_axis=0),
    *both(ValueError, "guide: ", "(6, 7)", "()", guide=ones(3, 6, 8), channel_axis=0),
    # widths
    *each("sigma_spatial", ValueError, "sigma_spatial: ", "at least 0", "got ", values=[-1, np.nan, -0.5]),
    *each("sigma_range", ValueError, "sigma_range: ", "at least 0", "got ", values=[-1.0, np.nan, -np.inf]),
    *both(ValueError, "sigma_spatial: ", "finite", "inf", sigma_spatial=np.inf),
    *both(ValueError, "sigma_spatial: ", "finite", "inf", sigma_spatial=np.full((6, 7), np.inf)),
    *both(ValueError, "sigma_spatial: ", "at least 0", "-1", sigma_spatial=-ones(6, 7)),
    *both(ValueError, "sigma_range: ", "at least 0", "nan", sigma_range=ones(6, 7) * np.nan),
    *both(TypeError, "sigma_spatial: ", "real", "complex128", sigma_spatial=1j),
    *both(TypeError, "sigma_range: ", "real", "complex64", sigma_range=ones(6, 7, dtype=np.complex64)),
    *both(TypeError, "sigma_range: ", "<U1", sigma_range="1", host_only="no number"),
    *both(TypeError, "sigma_spatial: ", "object", sigma_spatial=None, host_only="no number"),
    *each(
        "sigma_spatial",
        ValueError,
        "sigma_spatial: ",
        "(2, 6, 7)",
        "got ",
        values=[ones(6, 8), ones(6), ones(3, 6, 7), ones(1, 2, 6, 7)],
    ),
    *both(ValueError, "sigma_range: ", "(6, 7)", "(2, 6, 7)", sigma_range=IMAGE, channel_axis=0),
    *both(
        ValueError,
        "sigma_range: ",
        "(2, 4, 5)",
        "(6, 7)",
        sigma_range=ones(6, 7),
        mode="valid",
        radius=1,
        output=None,
    )[:1],
    # the window
    *each("radius", TypeError, "radius: ", "int or None", "got ", values=[1.0, "1", (1, 2)]),
    *both(ValueError, "radius: ", "at least 0", "-1", radius=-1),
    *both(ValueError, "radius: ", "less than", "got ", radius=2**40),
    *both(ValueError, "sigma_spatial: ", "less than", "got ", sigma_spatial=1e12),
    *both(ValueError, "sigma_spatial: ", "less than", "got ", sigma_spatial=1e300, truncate=1e300),
    *both(ValueError, "truncate: ", "not negative", "got -1", truncate=-1, radius=1),
    *each("truncate", ValueError, "truncate: ", "not negative", "got ", values=[-1, np.nan, np.inf, 1j]),
    *each("truncate", TypeError, "truncate: ", "number", "got ", values=[None, "4", (4, 4)]),
    *both(ValueError, "mode: ", "reflect", "'edge'", mode="edge"),
    *both(ValueError, "mode: ", "valid", "9 taps", mode="valid", radius=4),
    *both(TypeError, "cval: ", "real", "1j", cval=1j),
    *both(TypeError, "cval: ", "number", "'0'", cval="0"),
    *both(ValueError, "channel_axis: ", "3 is out of range", "3 axes", channel_axis=3),
    *both(ValueError, "channel_axis: ", "-4 is out of range", "3 axes", channel_axis=-4),
    *both(TypeError, "channel_axis: ", "int or None", "1.0", channel_axis=1.0),
    # output
    *many(
        ("output: ", "(2, 6, 7)", "got "),
        ValueError,
        "bilateral_filter",
        output=[np.full((2, 7, 6), SENTINEL), np.full((6, 7), SENTINEL)],
    ),
    Wrong("bilateral_filter", {"output": np.full((2, 6, 7), SENTINEL + 0j)}, TypeError, ("output: ", "real")),
    Wrong("bilateral_filter", {"output": 3}, TypeError, ("output: ", "array")),
    # gradients
    *many(
        ("grad: ", "(2, 6, 7)", "got "),
        ValueError,
        "bilateral_filter_vjp",
        grad=[ones(6, 7), ones(2, 6, 6), ones(1, 2, 6, 7)],
    ),
    Wrong("bilateral_filter_vjp", {"mode": "valid"}, ValueError, ("grad: ", "(2, 2, 3)", "(2, 6, 7)")),
    Wrong("bilateral_filter_vjp", {"wrt": "guide"}, ValueError, ("wrt: ", "sigma_range", "'guide'")),
    Wrong("bilateral_filter_vjp", {"wrt": ("input", "grad")}, ValueError, ("wrt: ", "input", "'grad'")),
    Wrong("bilateral_filter_vjp", {"wrt": None}, TypeError, ("wrt: ", "input", "None")),
]


@pytest.mark.no_launch(reason="errors come before any kernel")
@pytest.mark.parametrize("call", CALLS, ids=described)
def test_wrong_call(xp, call):
    arguments = BASES[call.function] | call.changes
    if call.function == "bilateral_filter_vjp":
        arguments.pop("output", None)
    assert_refused(xp, call, arguments)


@pytest.mark.parametrize("function", BASES)
def test_the_call_that_the_wrong_ones_differ_from_is_right(xp, function):
    arguments = {
        name: xp.asarray(value) if isinstance(value, np.ndarray) else value
        for name, value in BASES[function].items()
    }
    result = getattr(cuvarconv, function)(**arguments)
    (array,) = result if isinstance(result, tuple) else (result,)
    np.testing.assert_allclose(xp.to_numpy(array), 1, rtol=1e-6)


@pytest.mark.parametrize("channel_axis", [np.int64(0), np.uint8(0)], ids=repr)
def test_channel_axis_as_a_number_of_numpy(channel_axis):
    assert cuvarconv.bilateral_filter(IMAGE, 0.5, 1.0, channel_axis=channel_axis).shape == IMAGE.shape


def test_tensors_that_require_grad_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^sigma_range: .*cuvarconv\.torch"):
        cuvarconv.bilateral_filter(torch.ones(4, 5), 1.0, torch.ones(4, 5, requires_grad=True))


@pytest.mark.parametrize(("function", "positional"), [("bilateral_filter", 3), ("bilateral_filter_vjp", 4)])
def test_later_arguments_are_keyword_only(function, positional):
    with pytest.raises(TypeError, match="positional argument"):
        getattr(cuvarconv, function)(*[IMAGE] * (positional + 1))


# ---- memory and workers --------------------------------------------------------------------------


def ramp(*shape):
    """Return a map of widths with few numbers of its own."""
    return np.broadcast_to(np.linspace(0.2, 1.4, shape[-1], dtype=np.float32), shape)


LARGE = {  # input, both σ, keywords
    "large": (zeros(2100, 1024), 0.5, 1.0, {}),
    "large, maps": (zeros(900, 1024), ramp(900, 1024), ramp(900, 1024), {"truncate": 1}),
    "many channels": (zeros(1 << 11, 4, 8), 0.5, 1.0, {"channel_axis": 0, "radius": 1}),
    "many channels, maps": (zeros(1 << 11, 4, 8), 0.5, ramp(4, 8), {"channel_axis": 0, "radius": 1}),
    "many samples": (zeros(1 << 15, 4, 4), 0.3, 1.0, {"mode": "wrap"}),
    "a σ for each of many samples": (zeros(1 << 15, 4, 4), 0.3, ramp(1, 1 << 15).T[..., None], {}),
    "channels last": (zeros(256, 512, 8), 0.3, 1.0, {"channel_axis": -1}),
    "one long row": (zeros(1, 1 << 18), 0.3, 1.0, {"mode": "mirror"}),
    "one long column": (zeros(1 << 17, 1), 0.3, ramp(1, 1), {}),
    "huge window": (zeros(32, 40), 1.0, 1.0, {"radius": 40, "mode": ("nearest", "wrap")}),
    "huge window, maps": (zeros(16, 20), ramp(16, 20), 1.0, {"radius": 25}),
    "integers": (zeros(512, 512, dtype=np.uint8), 0.5, 1.0, {}),
}


@pytest.mark.parametrize("name", LARGE)
def test_little_memory(name):
    x, *sigmas, keywords = LARGE[name]
    with cuvarconv.set_workers(16):
        cuvarconv.bilateral_filter(zeros(2, 2), 0.5, 1.0)
        assert beyond_results(lambda: cuvarconv.bilateral_filter(x, *sigmas, **keywords)) <= LIMIT


@pytest.mark.parametrize("name", LARGE)
def test_little_memory_of_gradients(name):
    """With a guide: an image that is its own costs one more image."""
    x, *sigmas, keywords = LARGE[name]
    keywords = {**keywords, "guide": x, "wrt": ("input", "guide", "sigma_spatial", "sigma_range")}
    with cuvarconv.set_workers(16):
        grad = np.broadcast_to(np.float32(1), x.shape)
        used = beyond_results(lambda: cuvarconv.bilateral_filter_vjp(grad, x, *sigmas, **keywords))
    assert used <= LIMIT


@pytest.mark.parametrize("mode", ["wrap", "constant", "valid"])
@pytest.mark.parametrize("kind", ["numbers", "maps"])
def test_the_same_bits_for_any_number_of_workers(kind, mode):
    x, guide = noise((2, 150, 600)), noise((150, 600), seed=1)
    keywords = {"mode": mode, "radius": 1, "guide": guide}
    shape = cuvarconv.bilateral_filter(x, 1.0, 1.0, **keywords).shape
    sigmas = (1.0, 1.0) if kind == "numbers" else (ramp(*shape[1:]), ramp(*shape))
    grad = noise(shape, seed=2)
    wrt = ("input", "guide", "sigma_spatial", "sigma_range")
    assert len(bits_over_workers(lambda: cuvarconv.bilateral_filter(x, *sigmas, **keywords))) == 1
    every = bits_over_workers(lambda: cuvarconv.bilateral_filter_vjp(grad, x, *sigmas, wrt=wrt, **keywords))
    assert len(every) == 1
