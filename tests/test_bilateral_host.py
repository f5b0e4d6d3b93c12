"""The bilateral filter of the NumPy backend cut as for large images and windows: blocks, strips and taps."""

import sys
import tracemalloc
import types

import numpy as np
import pytest
import reference_bilateral
from bilateral_forms import bilateral, sigmas_of
from test_bilateral_gradients import SIGMAS, check, vjp
from test_host import LIMIT
from tolerances import assert_close, noise

import cuvarconv


@pytest.mark.parametrize("xp", ["numpy"], indirect=True)
@pytest.mark.parametrize("kept", [0, 1 << 20], ids=["weighed twice", "weights kept"])
@pytest.mark.parametrize("joint", [False, True], ids=["alone", "joint"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_pairs_strip_by_strip_on_the_host(xp, monkeypatch, joint, dtype, kept):
    """Few pixels and offsets at a time, as in large images and windows."""
    for name, value in {"_LONGEST": 24, "_SHORTEST": 16, "_BYTES": 1, "_KEPT": kept}.items():
        monkeypatch.setattr(f"cuvarconv._cpu._walk.{name}", value)
    x, guide = noise((2, 2, 9, 11), dtype if joint else "float64"), noise((1, 3, 9, 11), "float64", 1)
    keywords = {"channel_axis": 1, "radius": 3, "mode": ("mirror", "constant"), "cval": 0.4}
    if joint:
        keywords["guide"] = guide
    assert_close(
        bilateral(xp, x, 1.3, 0.8, **keywords),
        reference_bilateral.bilateral_filter(x, 1.3, 0.8, **keywords),
    )
    check(xp, x, 1.3, 0.8, grad_dtype=dtype, **keywords)


@pytest.mark.parametrize("xp", ["numpy"], indirect=True)
@pytest.mark.parametrize("together", [1, 1200, 1 << 21])
@pytest.mark.parametrize("mode", ["reflect", ("wrap", "constant")], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_maps_some_taps_at_a_time_on_the_host(xp, monkeypatch, mode, dtype, together):
    """Small blocks and few taps at once, as in large images; more pixels than radii reach."""
    for module, name, value in [
        ("bilateral", "_TAPS", together),
        ("_bilateral_adjoint", "_TAPS", together),
        *(("bilateral", name, 1) for name in ("_SMALLEST", "_FEWEST", "_LEAST")),
        ("bilateral", "BLOCK", 40),
        ("bilateral_gradient", "BLOCK", 40),
        ("bilateral_gradient", "_MAPPED", (500, 1 << 20)),
    ]:
        monkeypatch.setattr(sys.modules[f"cuvarconv._cpu.{module}"], name, value)
    x, guide = noise((2, 2, 9, 11), dtype), noise((1, 3, 9, 11), "float64", 1)
    sigmas = sigmas_of("maps", (2, 9, 11))
    keywords = {"channel_axis": 1, "truncate": 1.5, "mode": mode, "cval": 0.4, "guide": guide}
    assert_close(
        bilateral(xp, x, *sigmas, **keywords), reference_bilateral.bilateral_filter(x, *sigmas, **keywords)
    )
    check(xp, x, *sigmas, grad_dtype=dtype, **keywords)


@pytest.mark.parametrize("xp", ["numpy"], indirect=True)
@pytest.mark.parametrize("kind", ["numbers", "maps"])
@pytest.mark.parametrize("joint", [False, True], ids=["alone", "joint"])
def test_squares_beyond_the_range_of_numbers_weigh_nothing(xp, joint, kind):
    """A weight of 0 times an infinite square would be NaN."""
    x = noise((6, 7), "float32")
    outlier = x.copy()
    outlier[2, 3] = 3e25
    keywords = {"radius": 2, "guide": outlier} if joint else {"radius": 2}
    found = vjp(
        xp, np.ones_like(x), x if joint else outlier, *sigmas_of(kind, (6, 7)), wrt=SIGMAS, **keywords
    )
    for gradient in found.values():
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("joint", [False, True], ids=["alone", "joint"])
@pytest.mark.parametrize("kind", ["numbers", "maps"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_of_all_sizes_down_to_0(xp, dtype, kind, joint):
    """Differences of up to 100 σ_r; a pixel unlike all others leaves these alone, whatever its value."""
    x, guide = 20 * noise((2, 9, 11), dtype), 20 * noise((2, 9, 11), dtype, 1)
    keywords = {"radius": 3, "guide": guide} if joint else {"radius": 3}
    sigmas = sigmas_of(kind, (9, 11))
    x[0, 4, 5] = 1e30
    guide[0, 4, 5] = 1e3
    y = bilateral(xp, x, *sigmas, **keywords)
    expected = reference_bilateral.bilateral_filter(x, *sigmas, **keywords)
    assert_close(y, expected)
    y[0, 4, 5] = expected[0, 4, 5] = 0
    assert_close(y, expected)


@pytest.mark.parametrize("kind", ["numbers", "maps"])
def test_small_weights_of_another_guide_fill_holes(xp, kind):
    """Upsampling divides one filter by another, however unlike a hole and what is known are."""
    known = np.array([[1, 0, 0]], "float32")
    guide = np.array([[0, 12, 12.3]], "float32")  # weights of 5e-32 and 1e-33
    sigmas = (2.0, 1.0) if kind == "numbers" else (np.full((1, 3), 2.0), np.ones((1, 3)))
    values, weights = (
        bilateral(xp, image, *sigmas, radius=2, mode="constant", guide=guide) for image in (7 * known, known)
    )
    np.testing.assert_allclose(values / weights, 7, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_weight_is_below_the_normal_numbers(dtype, size):
    limits = np.finfo(dtype)
    exponents = np.linspace(1.2 * np.log(limits.smallest_subnormal), 0, size).astype(dtype)
    weights = exponents.copy()
    for step in sys.modules["cuvarconv._cpu._weights"].exponentials(weights, vanish=True):
        step()
    expected = np.exp(exponents.astype(np.longdouble))
    assert ((weights == 0) | (weights >= limits.smallest_normal)).all()
    assert (weights[expected < limits.smallest_normal] == 0).all()
    lost = 1e-30 if dtype == "float32" else 1e-270
    np.testing.assert_allclose(weights, expected, rtol=4 * limits.eps, atol=lost)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("radius", [1, 7])
@pytest.mark.parametrize(
    ("shape", "sigma"),
    [
        *(((count, 512, 512), 1.0) for count in (3, 32)),
        ((10, 480, 640), 1.0),
        ((5, 3, 300, 300), 1.0),
        ((50, 3, 256, 256), 1.0),
        ((8, 256, 256), np.ones((8, 1, 1))),
    ],
    ids=lambda value: "a σ each" if isinstance(value, np.ndarray) else str(value),
)
def test_large_blocks_have_room_for_pairs(monkeypatch, shape, sigma, radius, dtype):
    """They are several times as fast where all pixels of a block share both σ."""
    found = []

    def centres(block, *, paired):
        found.append(paired)
        return types.SimpleNamespace(mean=block.centres())

    monkeypatch.setattr(sys.modules["cuvarconv._cpu.bilateral"], "moments", centres)
    x = np.zeros(shape, dtype)
    cuvarconv.bilateral_filter(x, 2.0, sigma, radius=radius, channel_axis=1 if x.ndim == 4 else None)
    assert found
    assert all(found)


CALLS = {  # shape, dtype, σ_r, keywords
    "maps, float64": ((3, 512, 256), "float64", "map", {"radius": 4, "channel_axis": 0}),
    "maps, small images": ((20000, 8, 8), "float32", "map", {"radius": 2}),
    "small images": ((20000, 8, 8), "float64", 1.0, {"radius": 2}),
    "one σ": ((1024, 640), "float32", 1.0, {"radius": 7}),
    "one σ, float64": ((3, 512, 256), "float64", 1.0, {"radius": 4, "channel_axis": 0}),
}


@pytest.mark.parametrize("xp", ["numpy"], indirect=True)
@pytest.mark.parametrize("workers", [1, 16])
@pytest.mark.parametrize("name", CALLS)
def test_gradients_in_images_need_little_memory(xp, name, workers):
    shape, dtype, likeness, keywords = CALLS[name]
    x, guide, grad = (noise(shape, dtype, seed) for seed in range(3))
    if likeness == "map":
        likeness = np.full(shape[-2:], 0.5, dtype)
    tracemalloc.start()
    try:
        with cuvarconv.set_workers(workers):
            results = cuvarconv.bilateral_filter_vjp(
                grad, x, 1.5, likeness, wrt=("input", "guide"), guide=guide, **keywords
            )
        peak = tracemalloc.get_traced_memory()[1] - sum(result.nbytes for result in results)
    finally:
        tracemalloc.stop()
    assert peak < LIMIT
