"""`bilateral_filter` against the loops, on every backend."""

import itertools

import numpy as np
import pytest
from bilateral_forms import JOINT, SHAPES, bilateral, calls, check, each_kind, sigmas_of, widths
from forms import MODES, SAME_SIZE
from hypothesis import given
from tolerances import assert_close, noise

import cuvarconv

# ---- the window ----------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("mode", [*SAME_SIZE, "grid-mirror", "grid-constant", "grid-wrap"])
def test_modes(xp, mode, kind):
    check(xp, noise((2, 6, 7), "float64"), *sigmas_of(kind, (6, 7)), mode=mode, cval=0.7, truncate=2.0)


@each_kind
@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, mode, kind):
    height, width = (4 if name == "valid" else 8 for name in mode)
    sigmas = sigmas_of(kind, (height, width))
    check(xp, noise((8, 8), "float64"), *sigmas, mode=mode, radius=2, cval=-0.5)


@each_kind
@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 2), (2, 5)], ids=str)
def test_window_larger_than_the_image(xp, image, mode, kind):
    check(xp, noise(image, "float64"), *sigmas_of(kind, image), mode=mode, radius=4, cval=0.3)


@each_kind
@pytest.mark.parametrize("radius", [0, 1, 2, 3, np.int64(2)], ids=repr)
def test_radius(xp, radius, kind):
    check(xp, noise((7, 6), "float64"), *sigmas_of(kind, (7, 6)), radius=radius)


@pytest.mark.parametrize("truncate", [0, 0.4, 1.5, 2, 3.0, np.float32(2.5)], ids=repr)
def test_truncate(xp, truncate):
    """Farther taps do not exist: each pixel has a radius of its own."""
    x = noise((7, 8), "float64")
    check(xp, x, 1.0, 0.8, truncate=truncate)
    check(xp, x, widths((7, 8), 0.0, 1.3), 0.8, truncate=truncate)


def test_the_radius_is_rounded_in_double_precision(xp):
    """1·0.5 + 0.5 is 1, and a little less is 0."""
    x = noise((5, 6), "float32")
    sigma = np.full((5, 6), 0.5 - 1e-15)
    sigma[2] = 0.5
    y = check(xp, x, sigma, 1.0, truncate=1.0)
    np.testing.assert_array_equal((y == x).all(1), [True, True, False, True, True])


def test_valid(xp):
    y = check(xp, noise((2, 7, 9), "float64"), 1.0, 0.5, mode="valid", truncate=2)
    assert y.shape == (2, 3, 5)
    maps = sigmas_of("maps", (3, 5))
    check(xp, noise((2, 7, 9), "float64"), *maps, mode="valid", radius=2)


# ---- axes ----------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 1, 3), (70,)], ids=str)
def test_batch_axes(xp, batch, kind):
    check(xp, noise((*batch, 3, 4), "float64"), *sigmas_of(kind, (3, 4)), radius=1)


@each_kind
@pytest.mark.parametrize("channel_axis", [-4, -3, -2, -1, 0, 1, 2, 3])
def test_channel_axis(xp, channel_axis, kind):
    x = noise((2, 3, 4, 5), "float64")
    image = tuple(np.delete(x.shape, channel_axis))[-2:]
    check(xp, x, *sigmas_of(kind, image), radius=1, channel_axis=channel_axis)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_maps_that_broadcast(xp, shapes):
    spatial, likeness = widths(shapes[0], 0.3, 1.2), widths(shapes[1], 0.5, 1.5, seed=8)
    check(xp, noise((2, 3, 4, 5), "float64"), spatial, likeness, truncate=2)


@each_kind
@pytest.mark.parametrize(("image", "guide", "channel_axis"), JOINT.values(), ids=JOINT)
def test_guides(xp, image, guide, channel_axis, kind):
    x, g = noise(image, "float64"), noise(guide, "float64", 1)
    y = check(xp, x, *sigmas_of(kind, (4, 5)), guide=g, channel_axis=channel_axis, radius=2, mode="wrap")
    assert y.shape == image


@each_kind
def test_the_value_outside_counts_in_image_and_guide(xp, kind):
    x, g = noise((4, 5), "float64"), noise((4, 5), "float64", 1)
    check(xp, x, *sigmas_of(kind, (4, 5)), guide=g, mode="constant", cval=0.6, radius=2)


def test_an_image_as_its_own_guide(xp):
    x = noise((3, 6, 7), "float64")
    alone = bilateral(xp, x, 1.0, 0.7, channel_axis=0)
    np.testing.assert_array_equal(bilateral(xp, x, 1.0, 0.7, channel_axis=0, guide=x), alone)


@pytest.mark.no_launch(reason="empty results")
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0)], ids=str)
def test_empty_images(xp, shape):
    assert bilateral(xp, np.ones(shape), 1.0, 1.0).shape == shape
    assert bilateral(xp, np.ones(shape), np.ones(shape), np.ones(shape)).shape == shape
    assert bilateral(xp, np.ones(shape), 1.0, 1.0, guide=np.ones(shape)).shape == shape


# ---- what it is ----------------------------------------------------------------------------------


@each_kind
def test_constants_are_preserved(xp, kind):
    x, g = np.full((3, 6, 7), 0.3), noise((6, 7), "float64")
    assert_close(bilateral(xp, x, *sigmas_of(kind, (6, 7)), guide=g), x)


@each_kind
def test_an_infinite_range_is_a_gaussian(xp, kind):
    """The window's own Gaussian, normalised, as a stored kernel."""
    x = noise((2, 6, 7), "float64")
    infinite = np.inf if kind == "numbers" else np.full((6, 7), np.inf)
    line = np.exp(-0.5 * np.arange(-3, 4) ** 2 / 1.2**2)
    kernel = line[:, None] * line
    y = bilateral(xp, x, 1.2, infinite, radius=3, mode="nearest")
    assert_close(y, cuvarconv.correlate(x, kernel / kernel.sum(), mode="nearest"))


@pytest.mark.parametrize("mode", ["mirror", "wrap"])
def test_the_quotient_of_two_correlations(xp, mode):
    """With the kernels stored: what people do without it."""
    x, g = noise((6, 7), "float64"), noise((2, 6, 7), "float64", 1)
    d = cuvarconv.affinity(g, 5, 0.8, mode=mode)[:, :, 0]
    line = np.exp(-0.5 * np.arange(-2, 3) ** 2 / 1.1**2)
    kernels = d * (line[:, None] * line)[..., None, None]
    expected = cuvarconv.correlate(x, kernels, mode=mode) / kernels.sum((0, 1))
    assert_close(bilateral(xp, x, 1.1, 0.8, guide=g, channel_axis=0, radius=2, mode=mode), expected)


KORNIA_MODES = {"reflect": "mirror", "replicate": "nearest", "circular": "wrap", "constant": "constant"}


@pytest.mark.parametrize("border", KORNIA_MODES)
@pytest.mark.parametrize("joint", [False, True], ids=["alone", "joint"])
@pytest.mark.parametrize("channels", [1, 3])
def test_kornia(xp, border, joint, channels):
    """Its spatial kernel is normalised, which cancels; its windows are square."""
    torch, filters = pytest.importorskip("torch"), pytest.importorskip("kornia.filters")
    x, g = noise((2, channels, 9, 10), "float64"), noise((2, 2, 9, 10), "float64", 1)
    settings = {"border_type": border, "color_distance_type": "l2"}
    window = (7, 0.6, (1.4, 1.4))
    mode = KORNIA_MODES[border]
    tensors = map(torch.from_numpy, (x, g))
    if joint:
        expected = filters.joint_bilateral_blur(*tensors, *window, **settings)
        y = bilateral(xp, x, 1.4, 0.6, guide=g, channel_axis=1, radius=3, mode=mode)
    else:
        expected = filters.bilateral_blur(next(tensors), *window, **settings)
        y = bilateral(xp, x, 1.4, 0.6, channel_axis=1, radius=3, mode=mode)
    assert_close(y, expected.numpy())


# ---- property-based ------------------------------------------------------------------------------


@given(call=calls())
def test_any_call(xp, call):
    *operands, keywords = call
    check(xp, *operands, **keywords)
