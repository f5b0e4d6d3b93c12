"""Gaussians on the host that are cut to pieces, and wide ones, whose sums are matrix products."""

import sys

import numpy as np
import pytest
import reference_gaussian
from gaussian_forms import gaussian_filter
from test_gaussian_gradients import check_widths, vjp
from test_host import LIMIT
from test_host_gradients import beyond_results, bits_over_workers
from tolerances import assert_close, noise

import cuvarconv
from cuvarconv._cpu import _bands, _cuts

FORWARD, BACKWARD = (sys.modules[f"cuvarconv._cpu.gaussian{part}"] for part in ("", "_gradient"))

pytestmark = pytest.mark.parametrize("xp", ["numpy"], indirect=True)

SHAPE = 37, 44
PLACES = {"banded_sums": FORWARD, "banded_spread": BACKWARD}


@pytest.fixture
def counted(monkeypatch):
    """Count the sums by matrix products as they run."""
    seen = dict.fromkeys(PLACES, 0)

    def counting(name, function):
        def call(*arguments):
            seen[name] += 1
            return function(*arguments)

        return call

    for name, module in PLACES.items():
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    return seen


@pytest.fixture(params=[True, False], ids=["small products", "copies"])
def each_way(request, monkeypatch):
    """Make bands as where BLAS has kernels for small products, and as where it has none."""
    monkeypatch.setattr(_bands, "has_small_products", lambda: request.param)


def wide(shape=SHAPE, low=4.2, high=6.0, seed=3):
    """Return a map of Gaussians whose radii are from 17 to 24."""
    values = np.random.default_rng(seed).uniform(low, high, shape)
    values.flat[0], values.flat[-1] = low, high
    return values


def check(xp, x, sigma, counted, **keywords):
    """Compare the filter and all its gradients with the loops."""
    y = gaussian_filter(xp, x, sigma, **keywords)
    assert counted["banded_sums"] > 0
    assert counted["banded_spread"] == 0
    assert_close(y, reference_gaussian.gaussian_filter(x, sigma, **keywords))
    g = noise(y.shape, x.dtype, 9)
    in_x, in_sigma = vjp(xp, g, x, sigma, **keywords)
    assert counted["banded_spread"] > 0
    expected, rows, columns, _ = reference_gaussian.gaussian_filter_vjp(g, x, sigma, **keywords)
    assert_close(in_x, expected if x.dtype.kind == "c" else np.real(expected), x.dtype)
    pairs = zip(in_sigma, (rows, columns), sigma, strict=True) if isinstance(sigma, tuple) else ()
    for found, each, operand in pairs or [(in_sigma, rows + columns, sigma)]:
        check_widths(found, each, operand, np.empty((), x.dtype).real.dtype)


@pytest.mark.parametrize("mode", ["reflect", "constant", "wrap", ("constant", "mirror")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("each_way")
def test_maps(xp, mode, dtype, counted):
    check(xp, noise(SHAPE, dtype), wide(), counted, mode=mode)


@pytest.mark.parametrize("dtype", ["float16", "complex64"])
def test_other_dtypes(xp, dtype, counted):
    check(xp, noise(SHAPE, dtype), wide().astype(np.float32), counted, mode="nearest")


def test_a_pair_of_maps(xp, counted):
    check(xp, noise((2, *SHAPE), "float64"), (wide(), wide(low=5, high=8, seed=4)), counted, mode="constant")


def test_maps_that_broadcast(xp, counted):
    check(xp, noise((3, *SHAPE), "float64"), (wide((3, 1, 44)), wide((37, 1))), counted)


def test_only_inside(xp, counted):
    check(xp, noise((70, 90), "float32"), wide((38, 42)), counted, mode="valid", radius=(16, 24))


def test_radii_from_0(xp, counted):
    """Pixels that reach less than their piece does weigh what is farther with 0."""
    check(xp, noise(SHAPE, "float64"), wide(low=0, high=7), counted, mode="constant")


@pytest.mark.parametrize("run", [5, 16, 17, 100])
@pytest.mark.usefixtures("each_way")
def test_cut_in_many_parts(xp, run, counted, monkeypatch):
    """Rows that there is no room for at once, runs of pixels and what is left of a line."""
    monkeypatch.setattr(_bands, "_RUN", run)
    monkeypatch.setattr(_cuts, "_PIECE", 1000)
    for module, name in [(FORWARD, "_SCRATCH"), (BACKWARD, "_SCRATCH"), (BACKWARD, "_SPREAD_SCRATCH")]:
        monkeypatch.setattr(module, name, 1 << 19)
    map_ = wide((45, 52), low=1)
    map_[:16, :16] /= 4
    check(xp, noise((2, 45, 52), "float32"), map_, counted)


def test_wider_than_a_mirrored_product(xp, counted, monkeypatch):
    """Where BLAS has kernels for small products, wide bands are copied all the same."""
    monkeypatch.setattr(_bands, "has_small_products", lambda: True)
    check(xp, noise((20, 90), "float64"), wide((20, 90), low=1, high=11), counted, mode="wrap")


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (3, 5)], ids=str)
def test_small_images(xp, shape, counted):
    check(xp, noise((3, *shape), "float64"), wide(shape, 3, 4.4), counted, mode="constant")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_what_is_not_finite_stays_within_reach(xp, value, counted):
    """Such blocks are summed up tap by tap."""
    x, map_ = noise((60, 64)), wide((60, 64), low=0.5).astype(np.float32)
    x[3, 5] = value
    expected = reference_gaussian.gaussian_filter(x, map_)
    found = gaussian_filter(xp, x, map_)
    assert counted["banded_sums"] == 0
    assert np.array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    expected = reference_gaussian.gaussian_filter_vjp(x, noise(x.shape), map_)[0]
    found = vjp(xp, x, noise(x.shape), map_, wrt="input")
    assert np.array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reach", [300, 600])
def test_long_sums_lose_nothing(xp, reach, counted):
    """An image of ones stays so to rounding, whatever the number of terms."""
    x, map_ = np.ones((20, 24), np.float32), np.full((20, 24), 1e4, np.float32)
    y = gaussian_filter(xp, x, map_, radius=(reach, 16), mode="wrap")
    assert (counted["banded_sums"] > 0) == (reach == 300)
    np.testing.assert_allclose(y, 1, rtol=1e-6)
    noisy = x + noise(x.shape)
    for radius in ((reach, 16), (16, reach)):
        y = gaussian_filter(xp, noisy, map_, radius=radius, mode="wrap")
        assert_close(y, reference_gaussian.gaussian_filter(noisy, map_, radius=radius, mode="wrap"))


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut blocks and their pieces small; returns the numbers of pieces as they are cut."""
    seen = []

    def counting(widths, most):
        places = list(_cuts.cuts(widths, most))
        seen.append(len(places))
        return places

    for module in (FORWARD, BACKWARD):
        monkeypatch.setattr(module, "cuts", counting)
        monkeypatch.setattr(module, "WIDTH", 40)
    for name in ("_SMALLEST", "_LARGEST"):
        monkeypatch.setattr(FORWARD, name, 2400)
    monkeypatch.setattr(BACKWARD, "_BLOCK", 2400)
    monkeypatch.setattr(_cuts, "_PIECE", 100)
    return seen


@pytest.mark.parametrize("mode", ["reflect", ("constant", "wrap")])
@pytest.mark.parametrize("angle", [None, 0.4])
def test_blocks_and_pieces_meet(xp, mode, angle, small_blocks):
    """Outputs of other blocks, and of pieces with other radii, reach a pixel."""
    rows, columns = np.ogrid[:70, :90]
    sigma = 0.4 + 1.5 * (rows < 20) + 2.0 * (columns > 52), 0.5 + 1.2 * (columns < 30) + 0 * rows
    x, g = noise((2, 70, 90), "float64"), noise((2, 70, 90), "float64", 1)
    keywords = {"mode": mode, "angle": angle}
    expected = reference_gaussian.gaussian_filter(x, sigma, **keywords)
    assert_close(gaussian_filter(xp, x, sigma, **keywords), expected)
    assert max(small_blocks) > 2
    small_blocks.clear()
    in_x, in_sigma = vjp(xp, g, x, sigma, **keywords)
    assert max(small_blocks) > 2
    expected, *in_widths, _ = reference_gaussian.gaussian_filter_vjp(g, x, sigma, **keywords)
    assert_close(in_x, np.real(expected))
    for found, each, operand in zip(in_sigma, in_widths, sigma, strict=True):
        check_widths(found, each, operand, np.float64)


@pytest.mark.parametrize("mode", ["wrap", "constant"])
def test_the_same_bits_for_any_number_of_workers(xp, mode, counted):
    image, grad = noise((2, 200, 300)), noise((2, 200, 300), seed=1)
    map_ = np.linspace(0, 8, 300, dtype=np.float32) * np.ones((200, 1), np.float32)
    assert len(bits_over_workers(lambda: cuvarconv.gaussian_filter(image, map_, mode=mode))) == 1
    for wrt in ("input", "sigma"):

        def call(wrt=wrt):
            return cuvarconv.gaussian_filter_vjp(grad, image, map_, wrt=wrt, mode=mode)

        assert len(bits_over_workers(call)) == 1
    assert min(counted.values()) > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(800, 16, 16), (40, 4, 2000), (30, 700, 3), (2, 128, 256)], ids=str)
def test_stacks_need_little_memory(xp, shape, dtype, counted):
    image = np.ones(shape, dtype)
    map_ = np.linspace(7, 15, shape[-1], dtype=dtype) * np.ones(shape[-2:], dtype)
    cuvarconv.gaussian_filter(image[:1, :2, :2], 1)  # fills caches
    with cuvarconv.set_workers(16):
        assert beyond_results(lambda: cuvarconv.gaussian_filter(image, map_)) <= LIMIT
        for wrt in ("input", "sigma"):

            def call(wrt=wrt):
                return cuvarconv.gaussian_filter_vjp(image, image, map_, wrt=wrt)

            assert beyond_results(call) <= LIMIT
    assert counted["banded_spread"] > 0
