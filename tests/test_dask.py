"""Dask arrays: the same results as in memory, lazily, for any chunks."""

import numpy as np
import pytest
from forms import MODES
from hypothesis import given
from hypothesis import strategies as st
from tolerances import assert_close, assert_equal, integers, noise

import cuvarconv

dask = pytest.importorskip("dask", reason="needs dask (the extra `dask`)")
da = pytest.importorskip("dask.array")

IMAGE = (9, 11)
SIZE = (3, 4)
UNEVEN = ((1, 2, 5, 1), (3, 1, 6, 1))  # rows, columns: smaller than the window, one pixel at the edges


@pytest.fixture(autouse=True)
def _scheduler():
    with dask.config.set(scheduler="synchronous"):
        yield


def outputs(image=IMAGE, size=SIZE, **keywords):
    return cuvarconv.unfold(np.zeros(image), size, **keywords).shape[-2:]


def chunked(array, chunks=2, image=None):
    """Cut an array; `image` gives the chunks of its last two axes."""
    if image is not None:
        chunks = (*(chunks for _ in array.shape[:-2]), *image)
    return da.from_array(array, chunks)


def assert_lazy(results, expected):
    """Check shapes and dtypes before and after computing; return pairs of arrays."""
    results, expected = (value if isinstance(value, tuple) else (value,) for value in (results, expected))
    pairs = []
    for result, known in zip(results, expected, strict=True):
        assert isinstance(result, da.Array)
        assert (result.shape, result.dtype) == (known.shape, known.dtype)
        for index in np.ndindex(result.numblocks):
            lengths = tuple(chunks[at] for chunks, at in zip(result.chunks, index, strict=True))
            assert result.blocks[index].shape == lengths
        computed = result.compute()
        assert isinstance(computed, np.ndarray if known.ndim else np.generic)
        computed = np.asarray(computed)
        assert (computed.shape, computed.dtype) == (known.shape, known.dtype)
        pairs.append((computed, known))
    return pairs


def forms(h, w):
    """Calls of every function, as (function, operands that vary per location or not, keywords).

    Operands are whole numbers, so that sums are exact in any order.
    """
    x = integers((2, 4, *IMAGE), seed=1)
    k, g = integers((*SIZE, h, w), seed=2), integers((2, 4, h, w), seed=3)
    weights, d = integers((6, 2, *SIZE), seed=4), integers((*SIZE, 2, 2, h, w), seed=5)
    full = integers((*SIZE, h, w, 4, 3), seed=6)
    g6, g3 = integers((2, 6, h, w), seed=7), integers((2, 3, h, w), seed=8)
    u = integers((2, 4, *SIZE, h, w), seed=9)
    groups = {"groups": 2}
    return {
        "correlate": (cuvarconv.correlate, (x, k), {}),
        "correlate, one per channel": (cuvarconv.correlate, (x, integers((*SIZE, 4, 1, 1), seed=2)), {}),
        "convolve": (cuvarconv.convolve, (x, k), {}),
        "spread": (cuvarconv.spread, (g, k), {}),
        "correlate_vjp": (cuvarconv.correlate_vjp, (g, x, k), {}),
        "correlate_vjp, one per sample": (
            cuvarconv.correlate_vjp,
            (g, x, integers((*SIZE, 2, 1, 1, w), seed=2)),
            {},
        ),
        "modulated_correlate": (cuvarconv.modulated_correlate, (x, weights, d), groups),
        "modulated_correlate_vjp": (cuvarconv.modulated_correlate_vjp, (g6, x, weights, d), groups),
        "local_correlate": (cuvarconv.local_correlate, (x, full), {}),
        "local_correlate_vjp": (cuvarconv.local_correlate_vjp, (g3, x, full), {}),
        "unfold": (cuvarconv.unfold, (x,), {"size": SIZE}),
        "fold": (cuvarconv.fold, (u,), {"shape": IMAGE}),
        "complex fold": (cuvarconv.fold, (u + 1j * u[::-1],), {"shape": IMAGE}),
    }


GEOMETRIES = [
    *({"mode": mode} for mode in [*MODES, ("wrap", "nearest"), ("constant", "mirror")]),
    {"mode": "reflect", "stride": 2, "origin": (1, -1)},
    {"mode": "wrap", "stride": (3, 1), "dilation": (1, 3)},
    {"mode": "mirror", "dilation": 5},
    {"mode": "nearest", "stride": 5, "dilation": 2},
    {"mode": "constant", "stride": (1, 6), "dilation": (7, 1)},
    {"mode": "valid", "stride": 2, "dilation": (2, 3)},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("form", forms(2, 2))
def test_same_as_in_memory(form, geometry):
    function, operands, keywords = forms(*outputs(**geometry))[form]
    keywords = keywords | geometry
    if form == "spread":
        keywords["shape"] = IMAGE
    if form in ("correlate", "modulated_correlate", "unfold"):
        keywords["cval"] = 3
    expected = function(*operands, **keywords)
    lazy = [
        chunked(array, 2, UNEVEN if array.shape[-2:] == IMAGE and array.ndim == 4 else None)
        for array in operands
    ]
    for computed, known in assert_lazy(function(*lazy, **keywords), expected):
        assert_equal(computed, known)


@pytest.mark.parametrize("geometry", [{"mode": mode} for mode in MODES] + [{"stride": 2, "origin": (-1, 1)}])
def test_large_blocks(geometry):
    """What neighbours need of a block is small, and one task cuts it: two tasks for each block."""
    x, chunks = integers((2, 120, 130), seed=1), ((60, 60), (62, 68))
    k = integers((*SIZE, *outputs((120, 130), **geometry)), seed=2)
    g = integers((2, *k.shape[2:]), seed=3)
    lazy_x, lazy_k, lazy_g = chunked(x, 1, chunks), da.from_array(k, 40), da.from_array(g, (2, 50, 50))
    result = cuvarconv.correlate(lazy_x, lazy_k, **geometry)
    tasks = [key for key in result.__dask_graph__() if key[0].startswith("correlate-")]
    assert len(tasks) <= 2 * (2 * 4)
    assert_equal(result.compute(), cuvarconv.correlate(x, k, **geometry))
    gradients = cuvarconv.correlate_vjp(lazy_g, lazy_x, lazy_k, **geometry)
    expected = cuvarconv.correlate_vjp(g, x, k, **geometry)
    for gradient, known in zip(gradients, expected, strict=True):
        assert_equal(gradient.compute(), known)


def test_threads():
    x, k = noise((3, 40, 50)), noise((5, 5, 40, 50), seed=1)
    lazy = cuvarconv.correlate(chunked(x, (1, 7, 9)), chunked(k, (5, 2, 11, 13)), mode="wrap")
    expected = cuvarconv.correlate(x, k, mode="wrap")
    assert_equal(lazy.compute(scheduler="threads", num_workers=4), expected)
    assert_equal(cuvarconv.affinity(chunked(x, 8), 3).compute(scheduler="threads"), cuvarconv.affinity(x, 3))


# ---- random numbers: the same bits where each output is a sum of its own ---------------------------


@st.composite
def calls(draw):
    """Draw a call of `correlate`, and chunks of both operands."""
    mode = st.sampled_from(MODES)
    image = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    keywords = {
        "mode": draw(st.one_of(mode, st.tuples(mode, mode))),
        "stride": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        "dilation": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
    }
    names = keywords["mode"] if isinstance(keywords["mode"], tuple) else (keywords["mode"],) * 2
    keywords["origin"] = tuple(
        0 if name == "valid" else draw(st.integers(-(taps // 2), (taps - 1) // 2))
        for name, taps in zip(names, size, strict=True)
    )
    image = tuple(
        max(pixels, (taps - 1) * spacing + 1) if name == "valid" else pixels
        for name, pixels, taps, spacing in zip(names, image, size, keywords["dilation"], strict=True)
    )
    x = noise((2, *image), seed=draw(st.integers(0, 9)))
    shape = outputs(image, size, **keywords)
    k = noise((*size, *draw(st.sampled_from([(), shape, (2, 1, 1), (1, shape[1]), (2, *shape)]))))
    return x, k, cut_anyhow(draw, x.shape), cut_anyhow(draw, k.shape), keywords


def cut_anyhow(draw, shape):
    """Draw chunks, those of length 0 included."""
    chunks = []
    for length in shape:
        cuts = sorted(draw(st.lists(st.integers(0, length), max_size=4)))
        chunks.append(tuple(np.diff([0, *cuts, length]).tolist()))
    return tuple(chunks)


@given(calls())
def test_any_chunks(call):
    x, k, image_chunks, kernel_chunks, keywords = call
    lazy_x, lazy_k = da.from_array(x, image_chunks), da.from_array(k, kernel_chunks)
    result = cuvarconv.correlate(lazy_x, lazy_k, cval=0.5, **keywords)
    expected = cuvarconv.correlate(x, k, cval=0.5, **keywords)
    assert_equal(result.compute(), expected)
    g = noise(expected.shape, seed=10)
    gradients = cuvarconv.correlate_vjp(da.from_array(g, -1), lazy_x, lazy_k, cval=0.5, **keywords)
    wide = [array.astype(np.float64) for array in (g, x, k)]
    for gradient, known in zip(gradients, cuvarconv.correlate_vjp(*wide, cval=0.5, **keywords), strict=True):
        assert_close(gradient.compute(), known, np.float32)


@pytest.mark.parametrize("chunks", [(1, 1), (4, 1), (1, 5), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_narrow_blocks(dtype, chunks):
    """Long sums, which NumPy orders otherwise where a block is one pixel, or a column of them."""
    real = np.empty(0, dtype).real.dtype
    x, k, sigma = noise((4, 5), dtype), noise((3, 11, 4, 5), dtype, 1), 4 * noise((4, 5), real, 2) ** 2
    few, one = noise((2, 4, 4, 5), dtype, 4), noise((3, 11), dtype, 5)
    features = noise((2, 33, 4, 5), real, 3)
    infinite = x.copy()
    infinite[1, 2] = np.inf
    calls = [
        (cuvarconv.correlate, (x, k), {}),
        (cuvarconv.correlate, (x, few), {}),
        (cuvarconv.correlate, (x,), {"weights": one}),
        (cuvarconv.normalized_correlate, (x, k), {}),
        (cuvarconv.affinity, (features,), {"size": 3}),
        (cuvarconv.gaussian_filter, (x, sigma), {"radius": (9, 5)}),
        (cuvarconv.gaussian_filter, (x, sigma), {"radius": (5, 9)}),
        (cuvarconv.gaussian_filter, (infinite, sigma), {"radius": (5, 9)}),
        (cuvarconv.gaussian_filter, (x,), {"sigma": 3}),
    ]
    for function, operands, keywords in calls:
        lazy = [chunked(array, image=chunks) for array in operands]
        assert_equal(function(*lazy, **keywords).compute(), function(*operands, **keywords))


@pytest.mark.parametrize("mode", [*MODES, ("wrap", "constant")])
@pytest.mark.parametrize("stride", [1, 2])
def test_affinity(mode, stride):
    keywords = {"size": SIZE, "sigma": 0.7, "mode": mode, "stride": stride}
    guide = noise((2, 3, *IMAGE))
    ((computed, known),) = assert_lazy(
        cuvarconv.affinity(chunked(guide, 2, UNEVEN), **keywords), cuvarconv.affinity(guide, **keywords)
    )
    assert_equal(computed, known)
    g = noise(known.shape, np.float64, seed=1)
    wide = guide.astype(np.float64)
    lazy = cuvarconv.affinity_vjp(chunked(g, 3), chunked(wide, 2, UNEVEN), **keywords)
    ((computed, known),) = assert_lazy(lazy, cuvarconv.affinity_vjp(g, wide, **keywords))
    assert_close(computed, known)


@pytest.mark.parametrize("mode", [*MODES, ("wrap", "constant")])
@pytest.mark.parametrize("mask_shape", [None, IMAGE, (2, 1, 1), (1, 11)])
def test_normalized(mode, mask_shape):
    x, k = noise((2, *IMAGE)), noise((*SIZE, *outputs(mode=mode)), seed=1)
    x[0, 3:5, 2:] = np.nan
    variance = noise((9, 1), seed=3) ** 2
    mask = None if mask_shape is None else integers(mask_shape, bool, seed=2)
    lazy_mask = None if mask is None else chunked(mask, 3)
    lazy = cuvarconv.normalized_correlate(
        chunked(x, 2, UNEVEN), chunked(k), lazy_mask, mode=mode, variance=chunked(variance, 2)
    )
    expected = cuvarconv.normalized_correlate(x, k, mask, mode=mode, variance=variance)
    for computed, known in assert_lazy(lazy, expected):
        assert_equal(computed, known)


def maps(case):
    """Return σ and keywords of a call of `gaussian_filter`, in memory and as dask arrays."""
    rows, everywhere = noise((9, 1), np.float64, 2) ** 2, np.minimum(noise(IMAGE, np.float64, 3) ** 2, 1.3)
    everywhere[2:4] = 0
    angle = noise(IMAGE, np.float64, 4)
    pair = (rows, rows + 0.2)
    return {
        "number": (0.8, {}, 0.8, {}),
        "pair": ((0.8, 0.4), {}, (0.8, 0.4), {}),
        "map in memory": (everywhere, {}, everywhere, {}),
        "map": (everywhere, {"radius": 2}, chunked(everywhere, 4), {"radius": 2}),
        "angle": (
            pair,
            {"radius": (2, 1), "angle": angle},
            (chunked(pair[0], 2), pair[1]),
            {"radius": (2, 1), "angle": chunked(angle, 3)},
        ),
    }[case]


@pytest.mark.parametrize("mode", ["reflect", "constant", ("wrap", "nearest")])
@pytest.mark.parametrize("case", ["number", "pair", "map in memory", "map", "angle"])
def test_gaussian(case, mode):
    sigma, keywords, lazy_sigma, lazy_keywords = maps(case)
    x, g = noise((2, *IMAGE), np.float64), noise((2, *IMAGE), np.float64, 1)
    lazy_x = chunked(x, 2, UNEVEN)
    ((computed, known),) = assert_lazy(
        cuvarconv.gaussian_filter(lazy_x, lazy_sigma, mode=mode, cval=0.5, **lazy_keywords),
        cuvarconv.gaussian_filter(x, sigma, mode=mode, cval=0.5, **keywords),
    )
    assert_equal(computed, known)
    wrt = ("input", "sigma", "angle") if case == "angle" else ("input", "sigma")
    vjp = cuvarconv.gaussian_filter_vjp
    expected = vjp(g, x, sigma, wrt=wrt, mode=mode, cval=0.5, **keywords)
    lazy = vjp(chunked(g), lazy_x, lazy_sigma, wrt=wrt, mode=mode, cval=0.5, **lazy_keywords)
    for computed, known in assert_lazy(flat(lazy), flat(expected)):
        assert_close(computed, known)


@pytest.mark.parametrize("chunks", [(1, 1), (4, 1), (7, 6)], ids=str)
def test_wide_gaussian(chunks):
    """Sums that are matrix products, whose order depends on their shapes."""
    x, sigma = noise((20, 18), np.float64), 2 + noise((20, 18), np.float64, 2) ** 2
    computed = cuvarconv.gaussian_filter(chunked(x, image=chunks), sigma).compute()
    assert_close(computed, cuvarconv.gaussian_filter(x, sigma))


@pytest.mark.parametrize("mode", ["reflect", "constant", ("wrap", "nearest")])
@pytest.mark.parametrize("joint", [False, True])
def test_bilateral(joint, mode):
    x, g = noise((2, 3, *IMAGE), np.float64), noise((2, 3, *IMAGE), np.float64, 1)
    space, value = 0.5 + noise(IMAGE, np.float64, 2) ** 2, 0.5 + noise((9, 1), np.float64, 3) ** 2
    keywords = {"channel_axis": -3, "radius": 2, "mode": mode, "cval": 0.5}
    arrays = (x, space, value)
    lazy = (chunked(x, 1, UNEVEN), chunked(space, 4), value)
    guides = ({}, {})
    if joint:
        guide = noise((4, *IMAGE), np.float64, 4)
        guides = ({"guide": guide}, {"guide": chunked(guide, 3)})
    ((computed, known),) = assert_lazy(
        cuvarconv.bilateral_filter(*lazy, **guides[1], **keywords),
        cuvarconv.bilateral_filter(*arrays, **guides[0], **keywords),
    )
    assert_close(computed, known)
    wrt = ("input", "sigma_spatial", "sigma_range", *(["guide"] if joint else []))
    expected = cuvarconv.bilateral_filter_vjp(g, *arrays, **guides[0], wrt=wrt, **keywords)
    gradients = cuvarconv.bilateral_filter_vjp(chunked(g), *lazy, **guides[1], wrt=wrt, **keywords)
    for computed, known in assert_lazy(gradients, expected):
        assert_close(computed, known)


def test_bilateral_where_the_window_is_wider_than_a_block_needs():
    x, g, space = (noise((1, 5), np.float64, seed) for seed in range(3))
    lazy = [chunked(array, image=(1, 1)) for array in (g, x)]
    wrt = ("input", "sigma_spatial")
    expected = cuvarconv.bilateral_filter_vjp(g, x, np.abs(np.tanh(space)), 1.0, wrt=wrt)
    gradients = cuvarconv.bilateral_filter_vjp(*lazy, np.abs(np.tanh(space)), 1.0, wrt=wrt)
    for computed, known in assert_lazy(gradients, expected):
        assert_close(computed, known)


def flat(gradients):
    """Return gradients without the pairs among them."""
    pairs = (each if isinstance(each, tuple) else (each,) for each in gradients)
    return tuple(array for pair in pairs for array in pair)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize(
    "form",
    ["spread", "correlate_vjp", "modulated_correlate", "modulated_correlate_vjp", "local_correlate_vjp"],
)
def test_noise(form, mode):
    function, operands, keywords = forms(*outputs(mode=mode))[form]
    operands = [noise(array.shape, np.float64, seed) for seed, array in enumerate(operands)]
    lazy = [chunked(array, 2) for array in operands]
    expected = function(*operands, **keywords, mode=mode)
    for computed, known in assert_lazy(function(*lazy, **keywords, mode=mode), expected):
        assert_close(computed, known)
