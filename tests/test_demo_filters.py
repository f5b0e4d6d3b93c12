"""The demo's filters, each against what it is meant to do."""

import numpy as np
import pytest
from tolerances import noise

from cuvarconv._demo import filters
from cuvarconv._demo.pictures import Picture


@pytest.fixture
def colours():
    return np.random.default_rng(0).random((30, 41, 3)).astype(np.float32)


def gaussian_mean(image, centre, sigma, truncate=4.0):
    """Sum a Gaussian window around one pixel that lies far enough from the border."""
    radius = int(truncate * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    (i, j), reach = centre, slice(-radius, radius + 1)
    part = image[i + reach.start : i + reach.stop, j + reach.start : j + reach.stop].astype(float)
    return np.einsum("m,n,mnc->c", taps, taps, part)


def test_intensity(colours):
    colours[15, 20] = 1
    colours[4, 5] = 0
    blurred = filters.by_intensity(colours, 2.0)
    np.testing.assert_allclose(blurred[15, 20], gaussian_mean(colours, (15, 20), 2.0), rtol=1e-5)
    np.testing.assert_array_equal(blurred[4, 5], colours[4, 5])


def test_fovea(colours):
    blurred = filters.foveated(colours, 3.0)
    np.testing.assert_array_equal(blurred[14:16, 18:23], colours[14:16, 18:23])
    change = np.abs(blurred - colours)[13:17].mean(axis=(0, 2))
    assert change[-6:].mean() > 2 * change[23:29].mean()


def test_known_pixels_stay_and_missing_ones_are_filled(colours):
    missing = colours.copy()
    missing[np.random.default_rng(1).random((30, 41)) < 0.8] = np.nan
    filled = filters.filled(missing)
    known = np.isfinite(missing)
    np.testing.assert_array_equal(filled[known], missing[known])
    assert np.isfinite(filled).all()
    assert filled.min() >= 0
    assert filled.max() <= 1


def test_what_is_in_focus_stays_sharp(colours):
    disparity = np.full((30, 41), 5, np.float32)
    disparity[:, 30:] = 1
    blurred = filters.depth_of_field(colours, disparity, 3.0)
    np.testing.assert_allclose(blurred[:, :30], colours[:, :30], rtol=1e-5)
    linear = np.random.default_rng(0).random((30, 41, 3)).astype(np.float32) ** 2.2
    assert blurred[5:25, 34:].std() < 0.5 * colours[5:25, 34:].std()
    assert abs((blurred[..., 30:, :] ** 2.2).mean() - linear[:, 30:].mean()) < 0.02


def test_upsampling_is_a_mean_over_samples_alone(colours):
    disparity = 5 + noise((30, 41))
    known = filters.samples((30, 41)) > 0
    assert known.sum() == 4 * 6
    assert known[4, 4]
    result = filters.upsampled(disparity, colours)
    i, j = 17, 22
    total = count = 0.0
    for p, q in np.argwhere(known):
        if max(abs(p - i), abs(q - j)) <= 12:
            likeness = -((colours[p, q].astype(float) - colours[i, j]) ** 2).sum() / (2 * 0.08**2)
            weight = np.exp(likeness - ((p - i) ** 2 + (q - j) ** 2) / (2 * 4.0**2))
            total, count = total + weight * disparity[p, q], count + weight
    np.testing.assert_allclose(result[i, j], total / count, rtol=1e-4)


def test_the_coarse_map_shows_the_samples(colours):
    disparity = np.arange(30 * 41, dtype=np.float32).reshape(30, 41)
    shown = filters.coarse(disparity)
    assert shown.shape == (30, 41)
    known = filters.samples((30, 41)) > 0
    np.testing.assert_array_equal(shown[known], disparity[known])
    assert len(np.unique(shown)) == known.sum()


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (40, 1)], ids=str)
@pytest.mark.parametrize("deep", [False, True])
def test_tiny_pictures(tmp_path, size, deep):
    colours = np.random.default_rng(2).random((*size, 3)).astype(np.float32)
    picture = Picture("tiny", colours, colours[..., 0] + 1 if deep else None, size)
    shown = list(filters.filtered(picture, 3.0))
    assert len(shown) == (5 if deep else 3)
    assert all(one.before.shape[:2] == one.after.shape[:2] == size for one in shown)
    assert all(np.isfinite(one.after).all() for one in shown)
    filters.draw_filtered(shown, tmp_path / "filters.png")
    assert (tmp_path / "filters.png").stat().st_size > 1000
