"""The blurs of the demo against their equations."""

import numpy as np
import pytest

from cuvarconv import _demo
from cuvarconv._demo import blurs, pictures


def test_bands_do_not_show(monkeypatch):
    colours = np.random.default_rng(8).random((23, 17, 3), np.float32)
    disparity = np.random.default_rng(9).random((23, 17), np.float32)
    both = (
        blurs.IntensityBlur(colours, 1.5),
        blurs.DepthBlur(colours, disparity, 0.4, 3.0),
    )
    for blur in both:
        whole, _ = _demo.blurred(blur)
        monkeypatch.setattr(_demo, "_BAND_BYTES", 1)
        np.testing.assert_allclose(_demo.blurred(blur)[0], whole, atol=1e-6)
        monkeypatch.undo()


def test_intensity_blur_against_its_equation():
    colours = np.random.default_rng(10).random((6, 7, 3), np.float32)
    blur = blurs.IntensityBlur(colours, 1.0)
    result, _ = _demo.blurred(blur)
    r = blur.radius
    padded = np.pad(colours.astype(float), ((r, r), (r, r), (0, 0)), mode="symmetric")
    taps = np.arange(-r, r + 1)
    for i, j in np.ndindex(6, 7):
        sigma = float(colours[i, j] @ [0.2126, 0.7152, 0.0722])
        kernel = np.exp(-(taps[:, None] ** 2 + taps**2) / (2 * sigma**2))
        window = padded[i : i + 2 * r + 1, j : j + 2 * r + 1]
        expected = (kernel[..., None] * window).sum(axis=(0, 1)) / kernel.sum()
        np.testing.assert_allclose(result[i, j], expected, atol=1e-5)


def test_zero_sigma_is_the_identity():
    kernels = blurs.gaussian_kernels(np.zeros((1, 1), np.float32), 2)
    expected = np.zeros((5, 5, 1, 1))
    expected[2, 2] = 1
    np.testing.assert_array_equal(kernels, expected)


def test_sharp_edges_stay_before_a_blurred_background():
    colours = np.zeros((9, 20, 3), np.float32)
    colours[:, 10:] = 1  # near, in focus, and white before a black background
    disparity = np.where(colours[..., 0] > 0, 8, 1).astype(np.float32)
    result, _ = _demo.blurred(blurs.DepthBlur(colours, disparity, 8.0, 3.0))
    np.testing.assert_allclose(result, colours, atol=1e-6)


@pytest.mark.parametrize("function", ["modulated_correlate", "correlate"])
def test_both_formulas_agree(function, monkeypatch):
    pytest.importorskip("torch", reason="needs PyTorch")
    rng = np.random.default_rng(11)
    operands = [rng.random((3, 8, 9), np.float32), rng.random((3, 5, 4, 5), np.float32)]
    if function == "modulated_correlate":
        operands.insert(1, rng.random((2, 3, 3, 5), np.float32))
    operands[-1] = rng.random((3, 5, 6, 5), np.float32)
    results = []
    for hidden in (False, True):
        if hidden:
            monkeypatch.setattr(blurs, "find_spec", lambda name: None)
        _, convert, formula = blurs.unfold_formula(function)
        results.append(np.asarray(formula(*map(convert, operands))))
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_missing_disparity_takes_the_farther_neighbour():
    nan = np.nan
    disparity = np.array([[nan, 5, nan, nan, 2, 0], [nan] * 6, [1, 1, 1, 1, 1, 1]])
    filled = pictures._filled(disparity, "name")
    np.testing.assert_array_equal(filled[0], [5, 5, 2, 2, 2, 2])
    np.testing.assert_array_equal(filled[1], filled[0])
