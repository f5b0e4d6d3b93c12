"""Full kernels on the NumPy backend: matrix products and products of pairs, in blocks as of large images."""

import sys

import numpy as np
import pytest
import reference
from forms import check, check_noise, incoming, operands
from tolerances import assert_close, assert_equal, integers, noise, stored

import cuvarconv

pytestmark = pytest.mark.parametrize("xp", ["numpy"], indirect=True)

ALL = 1 << 40
SMALL = [
    *(("_local_pairs", name, 300) for name in ("_BLOCK", "_TILE")),
    *(("_channels_last", name, 60) for name in ("_BLOCK", "_KERNELS", "_COPIED", "_TILE", "_SAMPLES")),
    ("_channels_last", "_COLLECTED", 0),
]
LIMITS = "_FEW", "_FEW_OF_SAMPLES"

# Where the axes (kh, kw, batch…, H, W, C_in, C_out) lie in memory.
LAYOUTS = {
    "channels last": lambda k: k,
    "pixels last": lambda k: np.moveaxis(np.moveaxis(k, (-4, -3), (-2, -1)).copy(), (-2, -1), (-4, -3)),
    "columns before rows": lambda k: k.swapaxes(-4, -3).copy().swapaxes(-4, -3),
    "backwards": lambda k: np.flip(np.flip(k, (-4, -1)).copy(), (-4, -1)),
}


@pytest.fixture(params=[0, ALL], ids=["matrices", "pairs"])
def way(request, monkeypatch):
    """Make all calls go one way, but for the kernels' gradient of a single sample."""
    for name in LIMITS:
        monkeypatch.setattr(f"cuvarconv._cpu._local_pairs.{name}", request.param)


@pytest.fixture(params=[False, True], ids=["whole", "in blocks"])
def cut(request, monkeypatch):
    """Cut even the smallest images into blocks."""
    for module, name, value in SMALL if request.param else []:
        monkeypatch.setattr(sys.modules[f"cuvarconv._cpu.{module}"], name, value)


def arrays(layout, channels, filters, *, batch=(), own=(), image=(7, 9), size=(3, 2), make=integers, **rest):
    """Return an image and kernels of such a layout, with batch axes of their own."""
    x, k = operands("local_correlate", image, size, channels=channels, filters=filters, batch=batch, **rest)
    kernels = make((*size, *own, *k.shape[2:]), k.dtype, 5)
    return x, LAYOUTS[layout](kernels)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "filters"), [(1, 1), (3, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize(("batch", "own"), [((), ()), ((3,), ()), ((2, 3), (1, 3)), ((3, 2), (3, 1))])
def test_both_ways(xp, way, cut, layout, channels, filters, batch, own):
    x, k = arrays(layout, channels, filters, batch=batch, own=own)
    for window in ({"mode": ("wrap", "constant"), "cval": 2.0}, {"mode": "valid", "dilation": (2, 1)}):
        if window["mode"] == "valid":
            k = k[..., :3, :8, :, :]
        result = cuvarconv.local_correlate(x, k, **window)
        assert_equal(result, stored(reference.local_correlate(x, k, **window), result.dtype))
        check(xp, "local_correlate", [x, k], **window)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["complex64", "complex128", "float16", "int16", "bool"])
def test_dtypes(xp, way, cut, layout, dtype):
    x, k = arrays(layout, 2, 3, batch=(2,), dtype=dtype)
    result = cuvarconv.local_correlate(x, k, mode="mirror")
    assert_equal(result, stored(reference.local_correlate(x, k, mode="mirror"), result.dtype))
    check(xp, "local_correlate", [x, k], incoming("local_correlate", [x, k], dtype), mode="mirror")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_and_large_windows(xp, way, cut, layout):
    window = {"stride": (2, 3), "origin": (-2, 1), "mode": "reflect"}
    x, k = arrays(layout, 2, 2, batch=(2,), size=(6, 11), dtype="float64", make=noise, **window)
    assert_close(cuvarconv.local_correlate(x, k, **window), reference.local_correlate(x, k, **window))
    g = incoming("local_correlate", [x, k], "float64", noise, **window)
    check_noise(xp, "local_correlate", [x, k], g, **window)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_number_meets_its_own_channels_only(xp, way, layout, bad):
    """A kernel value is met by one input channel and one output channel."""
    x, k = arrays(layout, 3, 4, size=(1, 1), dtype="float64", make=noise)
    k[0, 0, 2, 3, 1, 2] = bad
    result = cuvarconv.local_correlate(x, k)
    assert [*zip(*np.nonzero(~np.isfinite(result)), strict=True)] == [(2, 2, 3)]
    back = cuvarconv.local_correlate_vjp(np.ones_like(result), x, k, wrt="input")
    assert [*zip(*np.nonzero(~np.isfinite(back)), strict=True)] == [(1, 2, 3)]


@pytest.mark.parametrize(
    ("small_products", "samples", "most"), [(True, 1, 16), (False, 1, 16), (True, 4, 16), (False, 4, 128)]
)
def test_few_channels_are_paired(xp, monkeypatch, small_products, samples, most):
    """Up to the numbers of products with which pairs take less time than matrix products."""
    from cuvarconv._cpu import _local_pairs

    monkeypatch.setattr(_local_pairs, "has_small_products", lambda: small_products)
    for filters, few in [(most // samples, True), (most // samples + 1, False)]:
        kernels = np.zeros((2, 2, 1, 1, filters, 3, 3))
        assert _local_pairs.Pairs(kernels, (samples,), np.dtype("float64")).are_few is few
