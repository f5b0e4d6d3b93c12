"""`gaussian_filter_vjp` and `gaussian_weights` against the loops and the calculus, on every backend."""

import hypothesis.strategies as st
import numpy as np
import pytest
import reference_gaussian
from forms import INEXACT, MODES, SAME_SIZE, VIEWS
from gaussian_forms import angles, calls, device, gaussian_filter, sigmas
from hypothesis import given, settings
from test_host import LIMIT
from test_host_gradients import beyond_results, bits_over_workers
from tolerances import assert_close, noise

import cuvarconv


def vjp(xp, g, x, sigma, *, wrt=("input", "sigma"), angle=None, **keywords):
    """Call the library on a backend's arrays; the results on the host."""
    found = cuvarconv.gaussian_filter_vjp(
        xp.asarray(g), xp.asarray(x), device(xp, sigma), wrt=wrt, angle=device(xp, angle), **keywords
    )
    return on_host(xp, found)


def on_host(xp, found):
    return tuple(on_host(xp, each) for each in found) if isinstance(found, tuple) else xp.to_numpy(found)


def check(xp, x, sigma, dtype=None, angle=None, grad_dtype=None, **keywords):
    """Compare all gradients with the loops; also shapes and dtypes."""
    shape = reference_gaussian.gaussian_filter(x, sigma, angle=angle, **keywords).shape
    g = noise(shape, grad_dtype or x.dtype, 9)
    wrt = ("input", "sigma") if angle is None else ("input", "sigma", "angle")
    found = vjp(xp, g, x, sigma, wrt=wrt, angle=angle, **keywords)
    in_x, rows, columns, turn = reference_gaussian.gaussian_filter_vjp(g, x, sigma, angle=angle, **keywords)
    dtype = np.dtype(dtype or x.dtype)
    assert found[0].dtype == x.dtype
    assert_close(found[0], in_x if x.dtype.kind == "c" else np.real(in_x), dtype)
    real = np.empty((), dtype).real.dtype
    if isinstance(sigma, tuple | list):
        assert type(found[1]) is tuple
        for result, expected, operand in zip(found[1], (rows, columns), sigma, strict=True):
            check_widths(result, expected, operand, real)
    else:
        check_widths(found[1], rows + columns, sigma, real)
    if angle is not None:
        check_widths(found[2], turn, angle, real)


def check_widths(result, expected, operand, dtype):
    operand = np.asarray(operand)
    assert result.dtype == (operand.dtype if operand.dtype.kind == "f" else np.float64)
    # a sum over many pixels of both signs, hence relative to its terms
    assert result.shape == operand.shape
    summed = reference_gaussian.summed_to(expected, operand.shape)
    error = np.linalg.norm(result.astype(np.float64) - summed)
    limit = {"float16": 4e-3, "float32": 4e-6, "float64": 4e-14}[np.dtype(dtype).name]
    assert error <= limit * np.linalg.norm(expected)


# ---- the loops -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, ("wrap", "valid"), ("constant", "mirror")])
@pytest.mark.parametrize("turned", [False, True])
def test_modes(xp, mode, turned):
    x = noise((2, 12, 14), "float64")
    modes = mode if isinstance(mode, tuple) else (mode, mode)
    shape = [size - 6 * (name == "valid") for size, name in zip(x.shape[1:], modes, strict=True)]
    angle = angles(shape) if turned else None
    keywords = {"mode": mode, "cval": 0.5, "radius": 3, "angle": angle}
    lowest = 0.3 if turned else 0.0
    check(xp, x, lowest + sigmas(shape, 1.5), **keywords)
    check(xp, x, (lowest + sigmas(shape, 1.5), lowest + sigmas(shape, 1.0, 1)), **keywords)
    check(xp, x, (0.8, 1.1), **keywords)
    check(xp, x, 0.9, **keywords)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 5)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    x = noise((2, *image), "float64") + 1
    g = noise(x.shape, "float64", 1)
    for sigma, angle in ((sigmas(image, 3.0), None), ((3.0, 0.5 + sigmas(image, 1.5)), 0.4)):
        found = vjp(xp, g, x, sigma, angle=angle, mode=mode, wrt="input")
        expected = reference_gaussian.gaussian_filter_vjp(g, x, sigma, angle=angle, mode=mode)[0]
        assert_close(found, expected)


@pytest.mark.parametrize("mode", ["reflect", "nearest", "wrap"])
@pytest.mark.parametrize("angle", [None, 0.5])
def test_long_sums_lose_nothing(xp, mode, angle):
    """A pixel is read hundreds of times by each output."""
    x = np.ones((3, 4), np.float32)
    g = 1 + np.abs(noise(x.shape, "float32", 1))
    map_ = 9 + sigmas(x.shape, 2.0)
    found = vjp(xp, g, x, (map_, 8.0), angle=angle, mode=mode, wrt="input")
    expected = reference_gaussian.gaussian_filter_vjp(g, x, (map_, 8.0), angle=angle, mode=mode)[0]
    assert_close(found, expected)


@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize("turned", [False, True])
def test_offsets_lose_no_digits(xp, turned, offset):
    """Slopes add up to 0: what all pixels have in common changes nothing."""
    x, g = noise((2, 6, 7)) + np.float32(offset), noise((2, 6, 7), seed=9)
    pair, angle = (sigmas((6, 7), 1.5), sigmas((6, 7), 1.5, 1)), angles((6, 7)) if turned else None
    found = vjp(xp, g, x, pair, angle=angle, wrt=("sigma", "angle") if turned else ("sigma",))
    rest = x - np.float64(offset)
    _, rows, columns, turn = reference_gaussian.gaussian_filter_vjp(g, rest, pair, angle=angle)
    for result, exact, operand in zip(found[0], (rows, columns), pair, strict=True):
        check_widths(result, exact, operand, "float32")
    if turned:
        check_widths(found[1], turn, angle, "float32")


@pytest.mark.parametrize("turned", [False, True])
def test_no_digits_are_lost_to_what_some_pixels_have_in_common(xp, turned):
    """All outputs of a block are brighter than what lies around them, which weighs more."""
    x, g = np.zeros((2, 4, 33), np.float32), np.zeros((2, 4, 33), np.float32)
    x[..., 32], g[..., 32] = 1, 1
    map_, angle = 20 + sigmas((4, 33), 5.0), angles((4, 33)) if turned else None
    keywords = {"mode": "constant", "radius": 20, "angle": angle}
    (found,) = vjp(xp, g, x, (map_, 25.0), wrt=("sigma",), **keywords)
    _, *expected, _ = reference_gaussian.gaussian_filter_vjp(g, x, (map_, 25.0), **keywords)
    for result, exact, operand in zip(found, expected, (map_, 25.0), strict=True):
        check_widths(result, exact, operand, "float32")


@pytest.mark.parametrize("shape", [(6, 7), (1, 7), (6, 1), (3, 1, 1), (2, 1, 6, 1), (2, 3, 6, 7)], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_maps_that_broadcast(xp, shape, turned):
    x = noise((2, 3, 6, 7), "float64")
    map_ = sigmas(shape, 1.5) + (0.1 if turned else 0)
    angle = angles((3, 6, 1)) if turned else None
    check(xp, x, map_, angle=angle)
    check(xp, x, (map_, 0.8), angle=angle)
    check(xp, x, [0.8, map_], angle=angle)


@pytest.mark.parametrize("axes", [(0, 1), (2, 0), (-1, 1)])
def test_axes(xp, axes):
    x = noise((5, 6, 4), "float64")
    check(xp, x, sigmas((5, 6, 4)), axes=axes)
    check(xp, x, (sigmas((6, 1)), 0.1 + sigmas((5, 1, 1), 1.5, 1)), axes=axes)
    check(xp, x, (1.0, 2.0), axes=axes, radius=2)
    check(xp, x, (1.0, 2.0), axes=axes, angle=angles((6, 4)))


@pytest.mark.parametrize("dtype", INEXACT[:5], ids=str)
@pytest.mark.parametrize("angle", [None, 0.7])
def test_dtypes(xp, dtype, angle):
    x = noise((9, 10), dtype)
    check(xp, x, 0.3 + sigmas((9, 10), 1.5), angle=angle)
    check(xp, x, (1.2, 0.7), angle=angle)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_dtypes_of_sigma(xp, dtype):
    map_ = (1 + sigmas((9, 10), 3)).astype(dtype)
    check(xp, noise((9, 10), "float64"), map_, "float16" if dtype == "float16" else "float32")


def test_a_gradient_of_another_dtype(xp):
    check(xp, noise((9, 10), "float32"), 0.3 + sigmas((9, 10)), grad_dtype="float64")
    check(xp, noise((9, 10), "complex128"), 0.3 + sigmas((9, 10)), grad_dtype="float64")
    check(xp, noise((9, 10), "float64"), 0.3 + sigmas((9, 10)), grad_dtype="complex128")


def test_where_sigma_is_0_its_gradient_is_0(xp):
    x, g = noise((9, 10), "float64"), noise((9, 10), "float64", 1)
    x[4, 5] = np.nan
    map_ = np.zeros((9, 10))
    for angle in (None, 0.5):
        in_x, in_sigma = vjp(xp, g, x, map_, angle=angle)
        np.testing.assert_array_equal(in_x, g)
        np.testing.assert_array_equal(in_sigma, 0)
    assert vjp(xp, g, x, 0.0, wrt="sigma") == 0
    assert vjp(xp, g, x, 0.0, wrt="sigma", radius=2) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("angle", [None, 0.5])
def test_what_is_not_finite_stays_within_reach(xp, value, angle):
    x, g = noise((14, 15), "float64"), noise((14, 15), "float64", 1)
    map_ = (0.1 if angle else 0) + sigmas((14, 15))
    g[6, 7] = value
    found = vjp(xp, g, x, map_, angle=angle, wrt="input")
    expected = reference_gaussian.gaussian_filter_vjp(g, x, map_, angle=angle)[0]
    assert 0 < np.isfinite(expected).sum() < expected.size
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    g, x = x, g
    found = vjp(xp, g, x, map_, angle=angle, wrt="sigma")
    with np.errstate(invalid="ignore"):
        expected = sum(reference_gaussian.gaussian_filter_vjp(g, x, map_, angle=angle)[1:3])
    assert 0 < np.isfinite(expected).sum() < expected.size
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))


# ---- calculus ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(call=calls())
def test_the_adjoint(xp, call):
    x, sigma, keywords = call
    keywords["cval"] = 0.0
    y = gaussian_filter(xp, x, sigma, **keywords)
    g = noise(y.shape, "float64", 7)
    back = vjp(xp, g, x, sigma, wrt="input", **keywords)
    scale = np.linalg.norm(g) * np.linalg.norm(y) + np.linalg.norm(back) * np.linalg.norm(x)
    assert abs(np.vdot(g, y) - np.vdot(back, x)) <= 1e-12 * scale


def moved(value, direction, step):
    if isinstance(value, tuple | list):
        return tuple(moved(each, way, step) for each, way in zip(value, direction, strict=True))
    return value + step * direction


def inner(first, second):
    if isinstance(first, tuple | list):
        return sum(map(inner, first, second))
    return float(np.sum(first * second))


@settings(max_examples=60)
@given(call=calls(), seed=st.integers(0, 1000))
def test_finite_differences(xp, call, seed):
    """With the radius fixed, as it is for the gradient."""
    x, sigma, keywords = call
    keywords = {name: value for name, value in keywords.items() if name != "truncate"} | {"radius": (3, 2)}
    raised = moved(sigma, tuple(0.3 for _ in sigma) if isinstance(sigma, tuple) else 0.3, 1)
    angle = keywords.pop("angle")
    g, step = noise(x.shape, "float64", seed), 1e-5
    wrt = ("sigma",) if angle is None else ("sigma", "angle")
    found = vjp(xp, g, x, raised, wrt=wrt, angle=angle, **keywords)

    def loss(sigma, angle):
        return float(np.sum(g * gaussian_filter(xp, x, sigma, angle=angle, **keywords)))

    def direction(value, number):
        if isinstance(value, tuple):
            return tuple(direction(each, number + at) for at, each in enumerate(value))
        return noise(np.shape(value), "float64", number)[()]

    way = direction(raised, 20)
    slope = (loss(moved(raised, way, step), angle) - loss(moved(raised, way, -step), angle)) / (2 * step)
    tolerance = 1e-7 * (1 + np.linalg.norm(g) * np.linalg.norm(x))
    assert abs(inner(found[0], way) - slope) <= tolerance
    if angle is not None:
        way = direction(angle, 30)
        slope = (loss(raised, angle + step * way) - loss(raised, angle - step * way)) / (2 * step)
        assert abs(inner(found[1], way) - slope) <= tolerance


# ---- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_strided_arrays(xp, view):
    x, map_, g = noise((2, 8, 9), "float64"), 0.3 + sigmas((2, 8, 9)), noise((2, 8, 9), "float64", 1)
    strided = [VIEWS[view](xp, each) for each in (g, x, map_)]
    for result, expected in zip(cuvarconv.gaussian_filter_vjp(*strided), vjp(xp, g, x, map_), strict=True):
        assert_close(xp.to_numpy(result), expected)


def test_kinds_of_wrt(xp):
    x, g, map_ = noise((4, 5), "float64"), noise((4, 5), "float64", 1), 0.2 + sigmas((4, 5))
    both = vjp(xp, g, x, map_)
    np.testing.assert_array_equal(vjp(xp, g, x, map_, wrt="sigma"), both[1])
    for one, other in zip(vjp(xp, g, x, map_, wrt=["sigma", "input"]), both[::-1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert vjp(xp, g, x, map_, wrt=()) == ()
    pair = vjp(xp, g, x, (map_, map_), wrt="sigma")
    assert type(pair) is tuple
    assert_close(pair[0] + pair[1], both[1])


@pytest.mark.no_launch(reason="empty results")
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0)], ids=str)
def test_empty_images(xp, shape):
    for sigma in (1.0, np.ones(shape), np.ones((1, 1))):
        in_x, in_sigma = vjp(xp, np.ones(shape), np.ones(shape), sigma)
        assert in_x.shape == shape
        assert in_sigma.shape == np.shape(sigma)
        np.testing.assert_array_equal(in_sigma, 0)


# ---- stored kernels ------------------------------------------------------------------------------


def weights(xp, sigma, *arguments, angle=None, **keywords):
    return xp.to_numpy(
        cuvarconv.gaussian_weights(device(xp, sigma), *arguments, angle=device(xp, angle), **keywords)
    )


@pytest.mark.no_launch(reason="made by array functions")
@pytest.mark.parametrize("keywords", [{}, {"radius": 2}, {"radius": (1, 3)}, {"truncate": 2.5}], ids=str)
@pytest.mark.parametrize("angle", [None, "number", "map"])
def test_weights(xp, keywords, angle):
    lowest = 0 if angle is None else 0.1
    turn = {"number": 0.7, "map": angles((3, 1, 5))}.get(angle)
    for sigma in (lowest + sigmas((4, 5)), (lowest + sigmas((4, 1)), 0.7), (sigmas((2,) * 3) + 0.2, 1.0)):
        if angle == "map" and np.shape(sigma[0]) == (2, 2, 2):
            continue
        k = weights(xp, xp.asarray(np.array(1.0)) if sigma is None else sigma, angle=turn, **keywords)
        assert_close(k, reference_gaussian.gaussian_weights(sigma, angle=turn, **keywords))


@pytest.mark.no_launch(reason="made by array functions")
def test_weights_of_numbers(xp):
    one = xp.asarray(np.array(1.3))
    k = xp.to_numpy(cuvarconv.gaussian_weights(one))
    assert_close(k, reference_gaussian.gaussian_weights(1.3))
    assert k.shape == (11, 11)
    single = weights(xp, np.full((2, 2), 1.3, np.float32))
    assert single.dtype == np.float32
    assert_close(single[:, :, 0, 0], k)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("angle", [None, 0.7])
def test_the_filter_is_correlation_with_the_weights(xp, mode, angle):
    """And its gradient in the input is their spread."""
    x, map_ = noise((2, 9, 10), "float64"), 0.1 + sigmas((9, 10), 1.5)
    k = cuvarconv.gaussian_weights(xp.asarray(map_), angle=angle)
    y = cuvarconv.correlate(xp.asarray(x), k, mode=mode, cval=0.5)
    assert_close(gaussian_filter(xp, x, map_, mode=mode, cval=0.5, angle=angle), xp.to_numpy(y))
    back = cuvarconv.spread(xp.asarray(x), k, mode=mode)
    assert_close(vjp(xp, x, x, map_, mode=mode, angle=angle, wrt="input"), xp.to_numpy(back))


# ---- memory and workers --------------------------------------------------------------------------


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def varying(*shape, high=3.0):
    return np.linspace(0, high, shape[-1]).astype(np.float32) * np.ones(shape, np.float32)


LARGE = {
    "large": (zeros(1024, 1024), varying(1024, 1024), {}),
    "pair": (zeros(3, 512, 512), (varying(512, 512), varying(512, 1, high=1)), {}),
    "one sigma": (zeros(3, 1024, 1024), 3.0, {}),
    "wide kernels": (zeros(300, 400), varying(300, 400, high=20), {}),
    "wider than the image": (zeros(8, 9), varying(8, 9, high=60), {"mode": "wrap"}),
    "many samples": (zeros(1 << 13, 2, 8, 8), varying(8, 8), {}),
    "double precision": (zeros(512, 512, dtype=np.float64), varying(512, 512), {}),
    "turned": (zeros(128, 256), (varying(128, 256) + 0.1, 2.0), {"angle": varying(128, 256)}),
    "turned, many samples": (zeros(3000, 2, 2, dtype=np.float64), 4.0, {"angle": varying(2, 2)}),
}


@pytest.mark.parametrize("name", LARGE)
def test_little_memory(name):
    image, sigma, keywords = LARGE[name]
    wrt = ("input", "sigma", *keywords.keys() & {"angle"})
    with cuvarconv.set_workers(16):
        cuvarconv.gaussian_filter_vjp(zeros(2, 2), zeros(2, 2), 1.0)
        for one in wrt:
            used = beyond_results(
                lambda one=one: cuvarconv.gaussian_filter_vjp(image, image, sigma, wrt=one, **keywords)
            )
            assert used <= LIMIT, one


@pytest.mark.parametrize("mode", ["reflect", ("valid", "wrap")])
def test_strips_of_one_sigma(xp, mode, monkeypatch):
    """Planes that are larger than what may lie between the two passes are cut."""
    monkeypatch.setattr("cuvarconv._separable._BETWEEN", 300)
    x, g = noise((2, 12, 14), "float64"), noise((2, 12 - 6 * (mode[0] == "valid"), 14), "float64", 1)
    found = vjp(xp, g, x, (0.8, 1.1), mode=mode, radius=3, wrt="sigma")
    _, *expected, _ = reference_gaussian.gaussian_filter_vjp(g, x, (0.8, 1.1), mode=mode, radius=3)
    for result, each in zip(found, expected, strict=True):
        check_widths(result, each, 1.0, np.float64)


@pytest.mark.parametrize("mode", ["wrap", "constant"])
@pytest.mark.parametrize("sigma", [2.0, "map", "turned"])
def test_the_same_bits_for_any_number_of_workers(mode, sigma):
    image, grad, map_ = noise((2, 200, 300)), noise((2, 200, 300), seed=1), 0.2 + varying(200, 300, high=1.5)
    keywords = {"mode": mode, "angle": 0.3 if sigma == "turned" else None}
    sigma = (map_, 1.0) if sigma == "turned" else map_ if sigma == "map" else sigma
    for wrt in ("input", "sigma"):

        def call(wrt=wrt):
            return cuvarconv.gaussian_filter_vjp(grad, image, sigma, wrt=wrt, **keywords)

        assert len(bits_over_workers(call)) == 1
