"""`bilateral_filter_vjp` against the loops and finite differences, on every backend."""

import itertools

import numpy as np
import pytest
import reference_bilateral
from bilateral_forms import JOINT, PRECISION, SHAPES, bilateral, calls, each_kind, sigmas_of, widths
from forms import MODES, SAME_SIZE, VIEWS
from hypothesis import given, settings
from reference import wide
from tolerances import BFLOAT16, TOLERANCE, assert_close, noise

import cuvarconv

SIGMAS = ("sigma_spatial", "sigma_range")


def names_of(guide):
    """Return the operands that have gradients."""
    return ("input", *SIGMAS) if guide is None else ("input", "guide", *SIGMAS)


def vjp(xp, grad, x, *sigmas, guide=None, wrt=None, **keywords):
    """Call the library on a backend's arrays; the results on the host, by name."""
    sigmas = [xp.asarray(sigma) if isinstance(sigma, np.ndarray) else sigma for sigma in sigmas]
    if guide is not None:
        keywords["guide"] = xp.asarray(guide)
    wrt = names_of(guide) if wrt is None else wrt
    arrays = cuvarconv.bilateral_filter_vjp(xp.asarray(grad), xp.asarray(x), *sigmas, wrt=wrt, **keywords)
    return {name: xp.to_numpy(array) for name, array in zip(wrt, arrays, strict=True)}


def looped(grad, x, *sigmas, **keywords):
    return reference_bilateral.bilateral_filter_vjp(grad, x, *sigmas, **keywords)[0]


def assert_near(actual, expected, size, dtype):
    """Compare sums; their terms may cancel, so that errors are relative to the terms' sizes."""
    assert actual.shape == np.shape(expected)
    error = np.linalg.norm(np.asarray(actual - expected, wide(actual)))
    bound = TOLERANCE[np.dtype(dtype).name] * np.linalg.norm(np.abs(size))
    assert error <= bound, f"error {error:.2e} > {bound:.2e}"


def result_dtype(operand):
    """Return the dtype of an operand's gradient."""
    dtype = np.asarray(operand).dtype
    return np.dtype(np.float64) if dtype.kind in "biu" else dtype


def check(xp, x, *sigmas, dtype=None, grad=None, grad_dtype=None, **keywords):
    """Compare all gradients with the loops; also their shapes and dtypes."""
    shape = reference_bilateral.bilateral_filter(x, *sigmas, **keywords).shape
    grad = noise(shape, grad_dtype or result_dtype(x), 9) if grad is None else grad
    found = vjp(xp, grad, x, *sigmas, **keywords)
    expected, sizes = reference_bilateral.bilateral_filter_vjp(grad, x, *sigmas, **keywords)
    operands = {"input": x, "guide": keywords.get("guide"), **dict(zip(SIGMAS, sigmas, strict=True))}
    for name, gradient in found.items():
        assert gradient.shape == np.shape(operands[name])
        assert gradient.dtype == result_dtype(operands[name])
        assert_near(gradient, expected[name], sizes[name], _coarsest(gradient, dtype))


def _coarsest(gradient, dtype):
    names = [gradient.dtype.name, *([] if dtype is None else [np.dtype(dtype).name])]
    return min(names, key=PRECISION.index)


# ---- the window ----------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("joint", [False, True], ids=["alone", "joint"])
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_modes(xp, mode, joint, kind):
    guide = noise((2, 6, 7), "float64", 1) if joint else None
    check(
        xp,
        noise((2, 6, 7), "float64"),
        *sigmas_of(kind, (6, 7)),
        mode=mode,
        cval=0.7,
        truncate=2.0,
        guide=guide,
    )


@each_kind
@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, mode, kind):
    height, width = (4 if name == "valid" else 8 for name in mode)
    guide = noise((8, 8), "float64", 1)
    sigmas = sigmas_of(kind, (height, width))
    check(xp, noise((8, 8), "float64"), *sigmas, mode=mode, radius=2, cval=-0.5, guide=guide)


@each_kind
@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 2), (2, 5)], ids=str)
def test_window_larger_than_the_image(xp, image, mode, kind):
    guide = noise(image, "float64", 1)
    check(xp, noise(image, "float64"), *sigmas_of(kind, image), mode=mode, radius=4, cval=0.3, guide=guide)


@each_kind
@pytest.mark.parametrize("truncate", [0, 1.5, 3.0])
def test_truncate(xp, truncate, kind):
    sigmas = (1.0, 0.8) if kind == "numbers" else (widths((7, 8), 0.0, 1.3), 0.8)
    check(xp, noise((7, 8), "float64"), *sigmas, truncate=truncate)


@each_kind
def test_valid(xp, kind):
    check(xp, noise((2, 7, 9), "float64"), *sigmas_of(kind, (3, 5)), mode="valid", radius=2)


# ---- axes ----------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize(("image", "guide", "channel_axis"), JOINT.values(), ids=JOINT)
def test_guides(xp, image, guide, channel_axis, kind):
    x, g = noise(image, "float64"), noise(guide, "float64", 1)
    check(xp, x, *sigmas_of(kind, (4, 5)), guide=g, channel_axis=channel_axis, radius=2, mode="wrap")


@each_kind
@pytest.mark.parametrize("channel_axis", [-4, -3, -2, -1])
def test_channel_axis(xp, channel_axis, kind):
    x = noise((2, 3, 4, 5), "float64")
    image = tuple(np.delete(x.shape, channel_axis))[-2:]
    check(xp, x, *sigmas_of(kind, image), radius=1, channel_axis=channel_axis)


@pytest.mark.parametrize("joint", [False, True], ids=["alone", "joint"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_maps_that_broadcast(xp, shapes, joint):
    spatial, likeness = widths(shapes[0], 0.3, 1.2), widths(shapes[1], 0.5, 1.5, seed=8)
    guide = noise((4, 5), "float64", 1) if joint else None
    check(xp, noise((2, 3, 4, 5), "float64"), spatial, likeness, truncate=2, guide=guide)


@pytest.mark.no_launch(reason="empty results")
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0)], ids=str)
def test_empty_images(xp, shape):
    x = np.ones(shape)
    found = vjp(xp, x, x, 1.0, np.ones((1, 1)), guide=x)
    for name, operand in (
        ("input", x),
        ("guide", x),
        ("sigma_spatial", 1.0),
        ("sigma_range", np.ones((1, 1))),
    ):
        assert found[name].shape == np.shape(operand)
        np.testing.assert_array_equal(found[name], 0)


# ---- numbers -------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32", "float64"], ids=str)
def test_dtypes(xp, dtype, kind):
    x, guide = noise((2, 6, 5), dtype), noise((3, 6, 5), dtype, 1)
    sigmas = sigmas_of(kind, (6, 5))
    check(xp, x, *sigmas, dtype=dtype, channel_axis=0, radius=2)
    check(xp, x, *sigmas, dtype=dtype, channel_axis=0, radius=2, guide=guide)


@pytest.mark.parametrize(("image", "grad"), [*itertools.permutations(["float16", "float32", "float64"], 2)])
def test_gradients_of_another_dtype(xp, image, grad):
    coarsest = min(image, grad, key=PRECISION.index)
    check(xp, noise((5, 6), image), 1.0, 0.8, grad_dtype=grad, dtype=coarsest, radius=1)


@each_kind
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_images(xp, dtype, kind):
    x, g = noise((5, 6), dtype), noise((5, 6), "float64", 1)
    sigmas = sigmas_of(kind, (5, 6))
    check(xp, x, *sigmas, guide=g, radius=2, dtype=dtype, mode="constant", cval=0.3)
    check(xp, x.real, *sigmas, guide=g, radius=2, dtype=dtype, grad_dtype=dtype)


def test_integer_images(xp):
    x = np.arange(30, dtype=np.uint8).reshape(5, 6)
    check(xp, x, 1.0, 20.0, radius=2)
    check(xp, x, 1.0, 20.0, radius=2, guide=x.T.copy().reshape(5, 6))


@each_kind
@pytest.mark.parametrize("name", SIGMAS)
@pytest.mark.parametrize("keywords", [{"radius": 2}, {"truncate": 4.0}], ids=str)
def test_a_width_of_0(xp, name, keywords, kind):
    """Such pixels send back what comes in, have no part in other gradients, and read no neighbours."""
    x, guide = noise((5, 6), "float64"), noise((5, 6), "float64", 1)
    sigmas = dict(zip(SIGMAS, sigmas_of(kind, (5, 6)), strict=True))
    sigmas[name] = 0.0 if kind == "numbers" else np.where(np.eye(5, 6), 0.0, sigmas[name])
    check(xp, x, *sigmas.values(), **keywords)
    check(xp, x, *sigmas.values(), guide=guide, **keywords)


def test_an_infinite_range(xp):
    """The likeness has no part then, but the rest has."""
    x, guide = noise((5, 6), "float64"), noise((5, 6), "float64", 1)
    check(xp, x, 1.0, np.inf, guide=guide, radius=2)
    check(xp, x, np.full((5, 6), 1.0), np.full((5, 6), np.inf), guide=guide, radius=2)


@each_kind
def test_a_nan_stays_where_it_is_read(xp, kind):
    x, g = noise((9, 10), "float64"), noise((9, 10), "float64", 1)
    x[4, 5] = np.nan
    grad = noise((9, 10), "float64", 9)
    sigmas = sigmas_of(kind, (9, 10))
    expected = looped(grad, x, *sigmas, guide=g, radius=1)
    for name, gradient in vjp(xp, grad, x, *sigmas, guide=g, radius=1).items():
        if np.ndim(gradient):
            assert name == "input" or 0 < np.isnan(gradient).sum() < gradient.size
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_lies_beyond_a_radius_does_not_leak(xp, value):
    x, g = noise((6, 7), "float64"), noise((6, 7), "float64", 1)
    x[2, 3] = value
    spatial = np.where(np.arange(7) % 2, 0.5, 1.0) * np.ones((6, 1))
    grad = noise((6, 7), "float64", 9)
    grad[abs(np.arange(6) - 2) <= 2] = 0
    keywords = {"truncate": 2.0, "guide": g}
    found = vjp(xp, grad[3:], x[3:], spatial[3:], 1.0, **{**keywords, "guide": g[3:]})
    assert all(np.isfinite(gradient).all() for gradient in found.values())
    found = vjp(xp, grad, x, spatial, 1.0, **keywords)
    expected = looped(grad, x, spatial, 1.0, **keywords)
    for name, gradient in found.items():
        np.testing.assert_array_equal(np.isnan(gradient), np.isnan(expected[name]))


@each_kind
def test_long_sums(xp, kind):
    """1681 taps of about the same weight."""
    x, g = np.random.default_rng(1).random((2, 2, 3), np.float32)
    sigmas = (50.0, 3.0) if kind == "numbers" else (np.full((2, 3), 50.0), np.full((2, 3), 3.0))
    check(xp, x, *sigmas, guide=g, radius=20, mode="wrap", dtype="float32")


@each_kind
@pytest.mark.parametrize("dtype", [None, "float32", "complex64"], ids=["alone", "joint", "complex"])
def test_offsets_lose_no_digits(xp, dtype, kind):
    """What all pixels have in common cancels exactly: errors are those of the rest."""
    offset = np.float32(1e4)
    x = noise((2, 7, 8), dtype or "float32") + offset
    guide = None if dtype is None else noise((2, 7, 8), seed=1) + offset
    grad, sigmas = noise((2, 7, 8), x.dtype, 9), sigmas_of(kind, (7, 8))
    keywords = {"radius": 2, "channel_axis": 0}
    found = vjp(xp, grad, x, *sigmas, guide=guide, **keywords)
    rest = [array if array is None else array - np.float64(offset) for array in (x, guide)]
    expected, sizes = reference_bilateral.bilateral_filter_vjp(
        grad, rest[0], *sigmas, guide=rest[1], **keywords
    )
    for name, gradient in found.items():
        assert_near(gradient, expected[name], sizes[name], "float32")


# ---- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_strided_arrays(xp, view):
    x, g, grad = (noise((2, 4, 6), "float64", seed) for seed in range(3))
    sigmas = sigmas_of("maps", (2, 4, 6))
    expected = vjp(xp, grad, x, *sigmas, guide=g, radius=1)
    arrays = [VIEWS[view](xp, array) for array in (grad, x, *sigmas)]
    results = cuvarconv.bilateral_filter_vjp(*arrays, guide=VIEWS[view](xp, g), radius=1, wrt=tuple(expected))
    for result, name in zip(results, expected, strict=True):
        assert_close(xp.to_numpy(result), expected[name])


def test_gradients_of_one_number(xp):
    """As `sum` sends them: a view with no strides."""
    x = noise((4, 5), "float64")
    g = xp.as_strided(xp.asarray(np.array([2.0])), (4, 5), (0, 0))
    found = xp.to_numpy(cuvarconv.bilateral_filter_vjp(g, xp.asarray(x), 1.0, 0.8, wrt="input"))
    assert_close(found, looped(np.full((4, 5), 2.0), x, 1.0, 0.8)["input"])


@pytest.mark.parametrize("shapes", [((6, 7), ()), ((), (6, 7)), ((6, 1), (1, 7)), ((), ())], ids=str)
def test_widths_alone_and_together(xp, shapes):
    """The gradient in one σ has the same bits whether or not the other is asked for."""
    x, guide, grad = (noise((2, 6, 7), seed=seed) for seed in range(3))
    sigmas = [np.full(shape, width, np.float32) for shape, width in zip(shapes, (1.3, 0.8), strict=True)]
    keywords = {"guide": guide, "radius": 2}
    together = vjp(xp, grad, x, *sigmas, wrt=SIGMAS, **keywords)
    for name in SIGMAS:
        alone = vjp(xp, grad, x, *sigmas, wrt=(name,), **keywords)
        np.testing.assert_array_equal(alone[name], together[name])


def test_kinds_of_wrt(xp):
    x, g, grad = (xp.asarray(noise((4, 5), seed=seed)) for seed in range(3))
    every = cuvarconv.bilateral_filter_vjp(grad, x, 1.0, 0.8, guide=g, wrt=names_of(g))
    for name, expected in zip(names_of(g), map(xp.to_numpy, every), strict=True):
        alone = cuvarconv.bilateral_filter_vjp(grad, x, 1.0, 0.8, guide=g, wrt=name)
        np.testing.assert_allclose(xp.to_numpy(alone), expected, rtol=2e-6, atol=1e-6)
    backwards = cuvarconv.bilateral_filter_vjp(grad, x, 1.0, 0.8, guide=g, wrt=[*reversed(names_of(g))])
    for result, expected in zip(backwards, reversed(every), strict=True):
        np.testing.assert_array_equal(xp.to_numpy(result), xp.to_numpy(expected))
    assert cuvarconv.bilateral_filter_vjp(grad, x, 1.0, 0.8, wrt=()) == ()
    (same,) = cuvarconv.bilateral_filter_vjp(grad, x, 1.0, 0.8)
    one = cuvarconv.bilateral_filter_vjp(grad, x, 1.0, 0.8, wrt="input")
    np.testing.assert_array_equal(xp.to_numpy(same), xp.to_numpy(one))


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_arrays_of_other_libraries(library):
    pytest.importorskip(library)
    from test_dispatch import kind, make

    x, g, grad = (noise((4, 5), seed=seed) for seed in range(3))
    arrays = [make(library, array) for array in (grad, x, g)]
    (result,) = cuvarconv.bilateral_filter_vjp(*arrays[:2], 1.0, 0.5, guide=arrays[2])
    assert isinstance(result, kind(library))
    (expected,) = cuvarconv.bilateral_filter_vjp(grad, x, 1.0, 0.5, guide=g)
    np.testing.assert_array_equal(np.asarray(result), expected)


# ---- calculus ------------------------------------------------------------------------------------


@given(call=calls())
def test_any_call(xp, call):
    *operands, keywords = call
    check(xp, *operands, dtype="float64", **keywords)


@settings(max_examples=40)
@given(call=calls())
def test_finite_differences(xp, call):
    """Along a direction in all operands at once; the radius is given, so that it is held fixed."""
    x, spatial, likeness, keywords = call
    keywords = {"radius": 2, **{name: value for name, value in keywords.items() if name != "truncate"}}
    guide, step = keywords.pop("guide", None), 1e-6
    operands = [x, spatial, likeness, *([] if guide is None else [guide])]
    directions = [np.asarray(noise(np.shape(o), "float64", 20 + at)) for at, o in enumerate(operands)]

    def moved(sign):
        at = [o + sign * step * d for o, d in zip(operands, directions, strict=True)]
        return bilateral(xp, *at[:3], guide=at[3] if len(at) > 3 else None, **keywords)

    ahead, behind = moved(1), moved(-1)
    g = noise(ahead.shape, "float64", 6)
    slope = np.vdot(g, ahead - behind) / (2 * step)
    found = vjp(xp, g, x, spatial, likeness, guide=guide, **keywords)
    order = ("input", *SIGMAS, "guide")[: len(operands)]
    product = sum(np.vdot(found[name], d) for name, d in zip(order, directions, strict=True))
    scale = np.linalg.norm(g) * sum(np.linalg.norm(d) for d in directions)
    assert abs(product - slope) <= 1e-7 * (1 + scale)


@settings(max_examples=40)
@given(call=calls())
def test_the_adjoint(xp, call):
    """With a fixed guide the filter is linear in the image."""
    x, *sigmas, keywords = call
    keywords = {**keywords, "guide": noise(x.shape, "float64", 11), "cval": 0.0}
    y = bilateral(xp, x, *sigmas, **keywords)
    z = noise(y.shape, "float64", 12)
    back = vjp(xp, z, x, *sigmas, wrt=("input",), **keywords)["input"]
    scale = np.linalg.norm(y) * np.linalg.norm(z)
    assert abs(np.vdot(y, z) - np.vdot(x, back)) <= 1e-12 * scale
