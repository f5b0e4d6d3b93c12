"""`modulated_correlate`, equation (2), against the loops, on every backend."""

import itertools

import numpy as np
import pytest
import reference
from forms import MODES, SAME_SIZE
from modulated_forms import check, factors, modulated, unfolded, weights
from tolerances import assert_equal, integers, noise

import cuvarconv

# ---- the window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, "grid-mirror", "grid-constant", "grid-wrap"])
def test_every_mode(xp, mode):
    size = (5, 6) if mode != "valid" else (3, 2)
    d = factors((3, 5), size)
    check(xp, integers((2, 5, 6)), weights(3, 2, (3, 5)), d, mode=mode, cval=3.0)


@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, mode):
    check(xp, integers((2, 6, 5)), weights(2, 2), factors((3, 3)), mode=mode, cval=-2.0)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (2, 2)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    x, w, d = integers((2, *image)), weights(2, 2, (5, 8)), factors((5, 8), image)
    check(xp, x, w, d, mode=mode, cval=1.0)


@pytest.mark.parametrize("origin", [*itertools.product(range(-2, 3), range(-2, 2))], ids=str)
def test_origins(xp, origin):
    x, w, d = integers((1, 5, 6)), weights(1, 1, (5, 4)), factors((5, 4), (5, 6))
    check(xp, x, w, d, origin=origin)


@pytest.mark.parametrize("size", [*itertools.product([1, 2, 4], [1, 2, 5])], ids=str)
def test_sizes(xp, size):
    check(xp, integers((2, 4, 5)), weights(2, 2, size), factors(size, (4, 5)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [2, (1, 4), (30, 40)], ids=str)
def test_stride(xp, stride, mode):
    x, w = integers((2, 7, 8)), weights(2, 2)
    check(xp, x, w, factors((3, 3)), stride=stride, mode=mode, cval=2.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dilation", [2, (1, 3), (3, 1)], ids=str)
def test_dilation(xp, dilation, mode):
    check(xp, integers((2, 7, 8)), weights(2, 2), factors((3, 3)), dilation=dilation, mode=mode)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("dilation", [7, (3, 1001)], ids=str)
def test_dilation_beyond_the_image(xp, dilation, mode):
    x, w, d = integers((2, 4, 5)), weights(2, 2, (3, 4)), factors((3, 4), (4, 5))
    check(xp, x, w, d, dilation=dilation, mode=mode, cval=-1.0, origin=(1, -2))


@pytest.mark.parametrize("mode", SAME_SIZE)
def test_stride_dilation_and_origin_together(xp, mode):
    x, w, d = integers((2, 2, 9, 8)), weights(3, 2, (4, 3)), factors((4, 3), (2, 1, 5, 3))
    check(xp, x, w, d, mode=mode, stride=(2, 3), dilation=(3, 2), origin=(-2, 1), cval=4.0)


@pytest.mark.parametrize("size", [(1, 70), (33, 2), (17, 17)], ids=str)
def test_large_windows(xp, size):
    check(xp, integers((1, 3, 4)), weights(2, 1, size), factors(size, (3, 4)), mode="wrap")


@pytest.mark.parametrize(
    ("channels", "outputs", "size"),
    [(1, 1, (70, 150)), (40, 70, (9, 33)), (130, 3, (8, 8)), (3, 130, (17, 40))],
    ids=str,
)
def test_large_enough_for_several_tiles(xp, channels, outputs, size):
    x, w, d = integers((channels, *size)), weights(outputs, channels), factors((3, 3), size)
    assert_equal(modulated(xp, x, w, d), unfolded(x, w, d).astype(np.float32))


# ---- channels, groups, batches -------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (1, 2, 1)], ids=str)
def test_batch_axes(xp, batch):
    check(xp, integers((*batch, 2, 4, 5)), weights(3, 2), factors((3, 3), (4, 5)))


@pytest.mark.parametrize(
    ("channels", "outputs", "groups"),
    [(4, 4, 1), (4, 4, 2), (4, 4, 4), (4, 2, 2), (2, 6, 2), (6, 3, 3), (1, 5, 1), (3, 9, 3)],
    ids=str,
)
def test_groups(xp, channels, outputs, groups):
    x, w = integers((2, channels, 4, 5)), weights(outputs, channels // groups)
    check(xp, x, w, factors((3, 3), (channels, 4, 5)), groups=groups)


@pytest.mark.parametrize(
    "varying",
    [
        (),
        (1,),
        (1, 1),
        (4, 5),
        (1, 5),
        (4, 1),
        (5,),
        (6, 1, 1),
        (6, 4, 5),
        (1, 4, 5),
        (2, 1, 1, 1),
        (2, 1, 4, 5),
        (2, 6, 1, 1),
        (2, 6, 4, 1),
        (2, 6, 4, 5),
        (1, 6, 1, 5),
    ],
    ids=str,
)
def test_broadcasting_of_modulation(xp, varying):
    check(xp, integers((2, 6, 4, 5)), weights(3, 6), factors((3, 3), varying))


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("entries", [1, 2, 3, 4, 6, 12])
def test_channel_groups_of_modulation(xp, groups, entries):
    """Channel c uses entry c·G // C_in, also where these groups straddle those of the weights."""
    x, w = integers((2, 12, 3, 4)), weights(12, 12 // groups, (2, 3))
    check(xp, x, w, factors((2, 3), (entries, 3, 4)), groups=groups)


@pytest.mark.parametrize("varying", [(2, 1, 1), (3, 2, 1, 1), (3, 2, 4, 5), (1, 3, 4, 1)], ids=str)
def test_channel_groups_with_other_axes_that_broadcast(xp, varying):
    check(xp, integers((3, 6, 4, 5)), weights(4, 3), factors((3, 3), varying), groups=2)


@pytest.mark.parametrize("varying", [(3, 4), (2, 1, 1), (2, 3, 4)], ids=str)
def test_modulation_meets_the_output_where_it_is_smaller(xp, varying):
    check(xp, integers((2, 6, 7)), weights(3, 2), factors((3, 3), varying), stride=2)


def test_modulation_broadcast_over_two_batch_axes(xp):
    check(xp, integers((2, 3, 4, 3, 4)), weights(2, 4), factors((3, 3), (3, 1, 3, 4)))
    check(xp, integers((2, 3, 4, 3, 4)), weights(2, 4), factors((3, 3), (2, 1, 2, 1, 4)))


def test_uniform_modulation_is_plain_convolution(xp):
    x, w = integers((2, 5, 6)), weights(3, 2)
    result = modulated(xp, x, w, np.ones((3, 3), np.float32))
    planes = [[reference.correlate(x[c], w[o, c]) for c in range(2)] for o in range(3)]
    assert_equal(result, np.sum(planes, axis=1).astype(np.float32))


def test_one_channel_is_correlate(xp):
    x, d = integers((1, 5, 6)), factors((3, 3), (5, 6))
    result = modulated(xp, x, np.ones((1, 1, 3, 3), np.float32), d)
    assert_equal(result, reference.correlate(x, d).astype(np.float32))


# ---- small and special ---------------------------------------------------------------------------


@pytest.mark.no_launch(reason="there is nothing to compute")
@pytest.mark.parametrize("shape", [(2, 0, 4), (2, 4, 0), (0, 2, 4, 5), (2**40, 2, 0, 4)], ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_empty_images(xp, shape, mode):
    x = xp.module.empty(shape, np.float32)
    w, d = xp.asarray(weights(3, 2)), xp.asarray(factors((3, 3)))
    result = cuvarconv.modulated_correlate(x, w, d, mode=mode)
    assert result.shape == (*shape[:-3], 3, *shape[-2:])
    assert result.dtype == np.float32


@pytest.mark.no_launch(reason="there is nothing to compute")
def test_no_output_channels(xp):
    operands = integers((2, 4, 5)), np.empty((0, 2, 3, 3), np.float32), factors((3, 3), (4, 5))
    assert modulated(xp, *operands).shape == (0, 4, 5)


@pytest.mark.no_launch(reason="zeros need no kernel")
@pytest.mark.parametrize("varying", [(), (4, 5), (1, 4, 5), (0, 4, 5)], ids=str)
def test_no_input_channels_give_zeros(xp, varying):
    x, w = np.empty((2, 0, 4, 5), np.float32), np.empty((3, 0, 3, 3), np.float32)
    result = modulated(xp, x, w, np.ones((3, 3, *varying), np.float32))
    assert_equal(result, np.zeros((2, 3, 4, 5), np.float32))


@pytest.mark.parametrize("image", [(1, 1), (1, 5), (5, 1)], ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_images_of_length_one(xp, image, mode):
    check(xp, integers((1, *image)), weights(1, 1), factors((3, 3), image), mode=mode, cval=2.0)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 2], ids=["input", "weights", "modulation"])
def test_no_product_is_skipped(xp, where, special):
    arrays = [np.zeros(shape, np.float32) for shape in ((2, 4, 5), (3, 2, 3, 3), (3, 3, 4, 5))]
    arrays[where][1, 1, 1] = special
    result = modulated(xp, *arrays)
    with np.errstate(invalid="ignore"):
        expected = reference.modulated_correlate(*arrays)
    assert_equal(result, expected.astype(np.float32))
    assert np.isnan(result).any()
    assert not np.isnan(result).all()


def test_nan_stays_in_its_sample_and_group(xp):
    x = integers((2, 4, 5, 6))
    x[1, 3, 2, 2] = np.nan
    result = check(xp, x, weights(4, 2), factors((3, 3), (5, 6)), groups=2)
    assert np.isnan(result).sum() == 2 * 9
    assert np.isfinite(result[0]).all()
    assert np.isfinite(result[1, :2]).all()


# ---- calls ---------------------------------------------------------------------------------------


def test_lists():
    result = cuvarconv.modulated_correlate([[[1, 2]], [[3, 4]]], [[[[2]], [[1]]]], [[[5, 6]]])
    assert_equal(result, np.array([[[25.0, 48.0]]]))


def test_positional_order():
    x, w, d = integers((2, 4, 5)), weights(3, 2), factors((3, 3))
    positional = cuvarconv.modulated_correlate(x, w, d, None, "constant", 2.0, (1, 0))
    named = cuvarconv.modulated_correlate(x, w, d, mode="constant", cval=2.0, origin=(1, 0))
    assert_equal(positional, named)


def test_the_same_call_gives_the_same_bits(xp):
    arrays = (noise((3, 20, 30)), noise((4, 3, 5, 5)), noise((5, 5, 20, 30)))
    operands = [xp.asarray(array) for array in arrays]
    first, second = (xp.to_numpy(cuvarconv.modulated_correlate(*operands)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
