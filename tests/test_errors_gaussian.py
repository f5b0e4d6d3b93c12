"""Wrong calls of the Gaussian's functions; their memory and workers on the host."""

import numpy as np
import pytest
from test_errors import NO_SUCH_DTYPE, SENTINEL, Wrong, assert_refused, described, many
from test_host import LIMIT, zeros
from test_host_gradients import beyond_results, bits_over_workers
from tolerances import noise

import cuvarconv

IMAGE = np.ones((2, 6, 7), np.float32)
BASES = {
    "gaussian_filter": {"input": IMAGE, "sigma": 1.0, "output": np.full((2, 6, 7), SENTINEL, np.float32)},
}


def each(error, *says, host_only="", **changes):
    """Make the same wrong call of every function that has these arguments."""
    return [Wrong(function, changes, error, says, host_only) for function in BASES]


def one_wrong(value):
    map_ = np.ones((6, 7))
    map_[3, 4] = value
    return map_


MAP = np.ones((6, 7))

CALLS = [
    # input
    *each(ValueError, "input: ", "at least 2 axes", "got 1", input=np.ones(7)),
    *each(TypeError, "input: ", "datetime64", input=IMAGE.astype("M8[s]"), host_only=NO_SUCH_DTYPE),
    # sigma
    *each(ValueError, "sigma: ", "pair", "3 of them", "axes=", sigma=(2, 2, 0)),
    *each(ValueError, "sigma: ", "pair", "3 of them", "axes=", sigma=[2, 2, 0]),
    *each(ValueError, "sigma: ", "pair", "3 of them", "axes=", sigma=np.array([2.0, 2.0, 0.0])),
    *each(ValueError, "sigma: ", "pair", "1 of them", sigma=(2,)),
    *each(ValueError, "sigma: ", "pair", "0 of them", sigma=[]),
    *each(ValueError, "sigma: ", "(2, 6, 7)", "(7, 6)", sigma=np.ones((7, 6))),
    *each(ValueError, "sigma: ", "(2, 6, 7)", "(1, 2, 6, 7)", sigma=np.ones((1, 2, 6, 7))),
    *each(ValueError, "sigma: ", "(2, 6, 7)", "(3, 1, 1)", sigma=np.ones((3, 1, 1))),
    *each(ValueError, "sigma[1]: ", "(2, 6, 7)", "(6, 6)", sigma=(MAP, np.ones((6, 6)))),
    *each(ValueError, "sigma[0]: ", "(2, 6, 7)", "(7,)", sigma=(np.ones(7), 1.0)),
    *each(ValueError, "sigma: ", "(2, 4, 7)", "(6, 7)", sigma=MAP, mode=("valid", "wrap"), radius=1),
    *(
        wrong
        for value in (-1.0, np.nan, np.inf, -0.001)
        for wrong in each(ValueError, "sigma: ", "not negative", f"got {value}", sigma=one_wrong(value))
    ),
    *each(ValueError, "sigma: ", "not negative", "got -1.0", sigma=-1),
    *each(ValueError, "sigma: ", "not negative", "got nan", sigma=np.nan, radius=2),
    *each(ValueError, "sigma[1]: ", "not negative", "got -2.0", sigma=(1, -2.0)),
    *each(ValueError, "sigma[0]: ", "not negative", "got -1.0", sigma=(one_wrong(-1), 1.0)),
    *each(TypeError, "sigma: ", "real", "complex128", sigma=1j),
    *each(TypeError, "sigma: ", "real", "complex64", sigma=MAP.astype(np.complex64)),
    *each(TypeError, "sigma", sigma="1", host_only="no array"),
    *each(TypeError, "sigma", sigma=None, host_only="no array"),
    *each(ValueError, "sigma: ", "less than", "pixels", "got at least", sigma=1e12),
    *each(ValueError, "sigma: ", "less than", "pixels", sigma=MAP * 1e300),
    # angle
    *each(ValueError, "angle: ", "(2, 6, 7)", "(7, 6)", angle=np.ones((7, 6))),
    *each(ValueError, "sigma, angle: ", "broadcast together", "(7, 6)", sigma=MAP, angle=np.ones((7, 6))),
    *each(ValueError, "angle: ", "finite", "got nan", angle=one_wrong(np.nan)),
    *each(ValueError, "angle: ", "finite", "got inf", angle=np.inf),
    *each(ValueError, "angle: ", "finite", "got inf", angle=one_wrong(np.inf)),
    *each(TypeError, "angle: ", "real", "complex", angle=1j),
    *each(ValueError, "sigma: ", "angle", "both", "neither", "got one", sigma=(1, 0), angle=0.5),
    *each(ValueError, "sigma: ", "both", "neither", sigma=(one_wrong(0), MAP), angle=0.5, radius=2),
    # order
    *each(ValueError, "order: ", "expected 0", "got 1", order=1),
    *each(ValueError, "order: ", "expected 0", "(0, 2)", order=(0, 2)),
    *each(TypeError, "order: ", "expected 0", "0.5", order=0.5),
    # reach
    *many(
        ("truncate: ", "negative", "got "), ValueError, "gaussian_filter", truncate=[-1, np.nan, np.inf, 1j]
    ),
    *many(("truncate: ", "number", "got "), TypeError, "gaussian_filter", truncate=["4", None, [4.0]]),
    *each(ValueError, "radius: ", "at least 0", "-1", radius=-1),
    *each(ValueError, "radius: ", "pair of ints", "3 of them", radius=(1, 1, 0)),
    *each(TypeError, "radius: ", "pair of ints", "1.5", radius=1.5),
    *each(ValueError, "radius: ", "less than", "pixels", radius=2**40),
    # window
    *each(ValueError, "mode: ", "reflect", "got 'edge'", mode="edge"),
    *each(ValueError, "mode: ", "valid", "9 taps", "6 pixels", mode="valid"),
    *each(TypeError, "cval: ", "real", "1j", cval=1j, mode="constant"),
    *each(TypeError, "cval: ", "number", "'0'", cval="0"),
    *each(ValueError, "axes: ", "different", axes=(1, 1)),
    *each(ValueError, "axes: ", "out of range", axes=(0, 3)),
    # output
    *many(
        ("output: ", "(2, 6, 7)", "got "),
        ValueError,
        "gaussian_filter",
        output=[np.full((6, 7), SENTINEL, np.float32), np.full((2, 7, 6), SENTINEL, np.float32)],
    ),
    *each(ValueError, "output: ", "(2, 4, 5)", "(2, 6, 7)", radius=1, mode="valid"),
    *each(TypeError, "output: ", "complex", "float32", input=IMAGE.astype(np.complex64)),
    *each(TypeError, "output: ", "dtype", output=3, host_only="no array"),
]


GRADIENTS = [
    *many(
        ("grad: ", "(2, 6, 7)", "got "),
        ValueError,
        "gaussian_filter_vjp",
        grad=[np.ones((6, 7), np.float32), np.ones((2, 6, 6), np.float32), np.ones((2, 7, 6), np.float32)],
    ),
    Wrong("gaussian_filter_vjp", {"radius": 1, "mode": "valid"}, ValueError, ("grad: ", "(2, 4, 5)")),
    *many(("wrt: ", "input", "sigma"), ValueError, "gaussian_filter_vjp", wrt=["angle", ("input", "grad")]),
    *many(("wrt: ", "input", "sigma"), TypeError, "gaussian_filter_vjp", wrt=[None, 3]),
    Wrong("gaussian_filter_vjp", {"sigma": (2, 2, 0)}, ValueError, ("sigma: ", "3 of them", "axes=")),
    Wrong("gaussian_filter_vjp", {"sigma": one_wrong(np.nan)}, ValueError, ("sigma: ", "got nan")),
    Wrong("gaussian_filter_vjp", {"sigma": np.ones((7, 6))}, ValueError, ("sigma: ", "(2, 6, 7)", "(7, 6)")),
]
BASES["gaussian_filter_vjp"] = {"grad": IMAGE, "input": IMAGE, "sigma": 1.0}
CALLS = [*CALLS, *GRADIENTS]


@pytest.mark.no_launch(reason="errors come before any kernel")
@pytest.mark.parametrize("call", CALLS, ids=described)
def test_wrong_call(xp, call):
    assert_refused(xp, call, BASES[call.function] | call.changes)


def test_the_call_that_the_wrong_ones_differ_from_is_right(xp):
    arguments = {
        name: xp.asarray(value) if isinstance(value, np.ndarray) else value
        for name, value in BASES["gaussian_filter"].items()
    }
    np.testing.assert_allclose(xp.to_numpy(cuvarconv.gaussian_filter(**arguments)), 1, rtol=1e-6)


def test_sigma_elsewhere_than_the_input():
    torch = pytest.importorskip("torch")
    for sigma in (np.ones((6, 7)), (1.0, np.ones((6, 7)))):
        with pytest.raises(TypeError, match=r"^sigma.* is a numpy array.*input is a torch array.*convert"):
            cuvarconv.gaussian_filter(torch.ones(6, 7), sigma)


def test_tensors_that_require_grad_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^sigma: .*cuvarconv\.torch"):
        cuvarconv.gaussian_filter(torch.ones(4, 5), torch.ones(4, 5, requires_grad=True))


def test_later_arguments_are_keyword_only():
    with pytest.raises(TypeError, match="positional argument"):
        cuvarconv.gaussian_filter(IMAGE, 1.0, 0, None, "reflect", 0.0, 4.0, 2)


# ---- memory and workers --------------------------------------------------------------------------


def varying(*shape, high=3.0):
    return np.linspace(0, high, shape[-1]).astype(np.float32) * np.ones(shape, np.float32)


LARGE = {
    "large": (zeros(3, 1024, 1024), varying(1024, 1024), {}),
    "one sigma": (zeros(3, 1024, 1024), 3.0, {}),
    "one sigma, huge image": (zeros(4096, 4096), 0.5, {}),
    "wide kernels": (zeros(300, 400), varying(300, 400, high=40), {}),
    "wider than the image": (zeros(8, 9), varying(8, 9, high=150), {"mode": "wrap"}),
    "far around few pixels": (zeros(4, 3000), varying(4, 3000, high=1), {"radius": (0, 2000)}),
    "many samples": (zeros(1 << 14, 2, 8, 8), varying(8, 8), {}),
    "channels last": (zeros(512, 512, 4), varying(512, 512, 1), {"axes": (0, 1)}),
    "turned": (zeros(256, 256), (varying(256, 256) + 0.1, 2.0), {"angle": 0.5}),
    "integers": (zeros(512, 512, dtype=np.uint8), varying(512, 512), {}),
    "complex": (zeros(512, 512, dtype=np.complex64), varying(512, 512), {}),
}


@pytest.mark.parametrize("name", LARGE)
def test_little_memory(name):
    image, sigma, keywords = LARGE[name]
    with cuvarconv.set_workers(16):
        cuvarconv.gaussian_filter(zeros(2, 2), 1.0)
        assert beyond_results(lambda: cuvarconv.gaussian_filter(image, sigma, **keywords)) <= LIMIT


@pytest.mark.parametrize("mode", ["wrap", "constant", "reflect"])
@pytest.mark.parametrize("sigma", [2.0, "map", "turned"])
def test_the_same_bits_for_any_number_of_workers(mode, sigma):
    image, map_ = noise((3, 300, 400)), 0.2 + varying(300, 400, high=1.5)
    keywords = {"mode": mode, "angle": 0.3 if sigma == "turned" else None}
    sigma = (map_, 1.0) if sigma == "turned" else map_ if sigma == "map" else sigma
    assert len(bits_over_workers(lambda: cuvarconv.gaussian_filter(image, sigma, **keywords))) == 1
