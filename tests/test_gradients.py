"""The gradients of the three multilinear functions against the loops, on every backend."""

import itertools

import numpy as np
import pytest
from forms import (
    EACH_OPERAND,
    FORMS,
    MODES,
    SAME_SIZE,
    check,
    gradient,
    gradients,
    incoming,
    looped,
    operands,
    result_shape,
)
from tolerances import assert_equal, integers, noise

import cuvarconv

each_function = pytest.mark.parametrize("function", FORMS)
each_operand = pytest.mark.parametrize(("function", "name"), EACH_OPERAND)


# ---- the window ----------------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("mode", [*MODES, "grid-mirror", "grid-constant", "grid-wrap"])
def test_every_mode(xp, function, mode):
    check(xp, function, operands(function, (5, 6), (3, 5), batch=(2,), mode=mode), mode=mode, cval=3.0)


@each_function
@pytest.mark.parametrize("mode", [*itertools.permutations(MODES, 2)], ids="-".join)
def test_pairs_of_modes(xp, function, mode):
    check(xp, function, operands(function, (5, 6), mode=mode), mode=mode, cval=-2.0)


@each_function
@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (3, 1), (2, 2)], ids=str)
def test_window_larger_than_the_image(xp, function, image, mode):
    check(xp, function, operands(function, image, (5, 8)), mode=mode, cval=1.0)


@each_function
@pytest.mark.parametrize("origin", [*itertools.product([-2, 0, 2], [-2, -1, 1])], ids=str)
def test_origins(xp, function, origin):
    check(xp, function, operands(function, (4, 5), (5, 4)), origin=origin, mode="mirror")


@each_function
@pytest.mark.parametrize("size", [*itertools.product([1, 2, 4], [1, 2, 5])], ids=str)
def test_sizes(xp, function, size):
    check(xp, function, operands(function, (4, 5), size))


@each_function
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("stride", "dilation"), [(2, 1), ((1, 4), 1), ((30, 40), 1), (1, 2), (1, (1, 3)), ((2, 3), (3, 2))]
)
def test_stride_and_dilation(xp, function, stride, dilation, mode):
    window = {"stride": stride, "dilation": dilation, "mode": mode}
    check(xp, function, operands(function, (8, 7), (3, 2), **window), cval=2.0, **window)


@each_function
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_stride_dilation_and_origin_together(xp, function, mode):
    window = {"mode": mode, "stride": (2, 3), "dilation": (3, 1001), "origin": (-2, 1), "cval": 4.0}
    check(xp, function, operands(function, (9, 8), (4, 3), batch=(2,), **window), **window)


@each_function
@pytest.mark.parametrize("size", [(1, 70), (33, 2), (17, 17)], ids=str)
def test_large_windows(xp, function, size):
    check(xp, function, operands(function, (3, 4), size), mode="wrap")


@each_function
@pytest.mark.parametrize(
    ("channels", "filters", "image"), [(16, 16, (6, 40)), (3, 70, (4, 9)), (40, 3, (5, 6)), (2, 3, (30, 50))]
)
def test_large_enough_for_several_tiles(xp, function, channels, filters, image):
    arrays = operands(function, image, (3, 3), channels=channels, filters=filters)
    check(xp, function, arrays, mode=("mirror", "wrap"))


@pytest.mark.parametrize("mode", ["reflect", "wrap"])
def test_sums_over_many_pixels(xp, mode):
    """Gradients of small operands that are shared by a large image."""
    x = integers((2, 60, 70), low=-2, high=3)
    check(xp, "correlate", [x, integers((3, 2))], mode=mode)
    check(xp, "modulated_correlate", [x, integers((3, 2, 3, 2)), integers((3, 2))], mode=mode)


# ---- what broadcasts -----------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("batch", [(1,), (3,), (2, 3), (1, 2, 1), (20,)], ids=str)
def test_batch_axes(xp, function, batch):
    check(xp, function, operands(function, (3, 4), batch=batch))


@pytest.mark.parametrize(
    "varying",
    [
        *[(), (1,), (1, 1), (3, 4), (1, 4), (3, 1), (4,), (3, 1, 1), (3, 3, 4), (2, 1, 3, 4)],
        *[(2, 3, 1, 1), (2, 1, 1, 4), (2, 3, 3, 4), (1, 1, 1, 1), (2, 1, 3, 1)],
    ],
    ids=str,
)
def test_broadcasting_of_weights(xp, varying):
    arrays = [integers((2, 3, 6, 7)), integers((3, 2, *varying), seed=1)]
    check(xp, "correlate", arrays, stride=2)


@pytest.mark.parametrize(
    "varying",
    [
        *[(), (1,), (3, 4), (1, 4), (3, 1), (4,), (1, 3, 4), (4, 1, 1), (4, 3, 4), (2, 1, 3, 4)],
        *[(2, 1, 1, 1), (2, 4, 1, 4), (3, 1, 1, 3, 1), (3, 2, 4, 3, 4), (1, 2, 1, 3, 4)],
        *[(2, 3, 4), (2, 1, 1), (2, 2, 3, 4), (3, 1, 2, 1, 4)],  # G = 2 entries for 4 channels
    ],
    ids=str,
)
@pytest.mark.parametrize("groups", [1, 2])
def test_broadcasting_of_modulation(xp, groups, varying):
    x, w = integers((3, 2, 4, 6, 7), low=-2, high=3), integers((6, 4 // groups, 3, 2), seed=1)
    check(xp, "modulated_correlate", [x, w, integers((3, 2, *varying), seed=2)], stride=2, groups=groups)


@pytest.mark.parametrize(
    "varying",
    [
        *[(), (1,), (6, 7), (1, 7), (6, 1), (1, 6, 7), (2, 6, 7), (4, 6, 1), (2, 1, 7)],
        *[(2, 1, 6, 7), (3, 1, 1, 6, 7), (3, 2, 2, 6, 7), (3, 1, 1, 1, 7), (1, 2, 1, 1, 1)],
    ],
    ids=str,
)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mode", ["constant", "wrap"])
def test_broadcasting_of_modulation_where_no_output_is_skipped(xp, mode, groups, varying):
    x, w = integers((3, 2, 4, 6, 7), low=-2, high=3), integers((6, 4 // groups, 3, 2), seed=1)
    check(xp, "modulated_correlate", [x, w, integers((3, 2, *varying), seed=2)], mode=mode, groups=groups)


@pytest.mark.parametrize("varying", [(), (1,), (3,), (1, 1), (2, 1), (1, 3), (2, 3)], ids=str)
def test_kernels_with_batch_axes(xp, varying):
    x, k = operands("local_correlate", (3, 4), batch=(2, 3))
    check(xp, "local_correlate", [x, integers((3, 2, *varying, *k.shape[2:]), seed=8)])


@pytest.mark.parametrize("axes", [*itertools.permutations(range(4), 2), (-3, 0), [0, 1]], ids=str)
def test_axes(xp, axes):
    x = integers((5, 4, 6, 3))
    window = {"axes": axes, "mode": ("wrap", "constant"), "stride": (2, 1), "cval": 2.0}
    shape = list(x.shape)
    shape[axes[0]] = -(-shape[axes[0]] // 2)
    for varying in (shape, (shape[2], 1), ()):
        check(xp, "correlate", [x, integers((3, 2, *varying), seed=1)], **window)


@pytest.mark.parametrize(
    ("channels", "outputs", "groups"),
    [(4, 4, 2), (4, 4, 4), (4, 2, 2), (2, 6, 2), (6, 3, 3), (1, 5, 1), (3, 9, 3), (12, 12, 12)],
    ids=str,
)
@pytest.mark.parametrize("varying", [(), (4, 5), "each"], ids=str)
def test_groups(xp, channels, outputs, groups, varying):
    varying = (channels, 4, 5) if varying == "each" else varying
    x, w = integers((2, channels, 4, 5)), integers((outputs, channels // groups, 3, 3), seed=1)
    check(xp, "modulated_correlate", [x, w, integers((3, 3, *varying), seed=2)], groups=groups)


def test_entries_that_do_not_line_up_with_groups(xp):
    """6 channels in 3 groups of 2, with 2 entries of 3 channels each."""
    x, w = integers((2, 6, 4, 5)), integers((3, 2, 3, 3), seed=1)
    check(xp, "modulated_correlate", [x, w, integers((3, 3, 2, 4, 5), seed=2)], groups=3)


# ---- cval ----------------------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("cval", [2.5, np.nan], ids=str)
def test_cval_counts_where_the_function_reads_it(xp, function, cval):
    """It is data to the other operands, and no part of the input."""
    arrays = operands(function, mode="constant")
    g = incoming(function, arrays)
    results = gradients(xp, function, g, arrays, mode="constant", cval=cval)
    zero = gradients(xp, function, g, arrays, mode="constant")
    for result, expected in zip(
        results, looped(function, g, arrays, mode="constant", cval=cval), strict=True
    ):
        assert_equal(result, expected)
    assert_equal(results[0], zero[0])
    assert not any(np.array_equal(*pair) for pair in zip(results[1:], zero[1:], strict=True))


@each_function
def test_complex_cval(xp, function):
    arrays = operands(function, dtype="complex64", mode="constant")
    check(xp, function, arrays, incoming(function, arrays, "complex64"), mode="constant", cval=2 - 3j)


# ---- wrt -----------------------------------------------------------------------------------------


@each_function
def test_gradients_come_in_the_order_asked_for(xp, function):
    arrays = operands(function)
    g, names = incoming(function, arrays), FORMS[function]
    every = dict(zip(names, gradients(xp, function, g, arrays), strict=True))
    for count in range(len(names) + 1):
        for wrt in itertools.permutations(names, count):
            results = gradients(xp, function, g, arrays, wrt=wrt)
            assert len(results) == count
            for name, result in zip(wrt, results, strict=True):
                assert_equal(result, every[name])


@each_operand
def test_one_name_gives_the_gradient_itself(xp, function, name):
    arrays = operands(function)
    g = incoming(function, arrays)
    (expected,) = gradients(xp, function, g, arrays, wrt=(name,))
    assert_equal(gradient(xp, function, g, arrays, name), expected)


PRIMITIVES = {
    ("correlate", "input"): "spread",
    ("correlate", "weights"): "correlate_weights_gradient",
    ("modulated_correlate", "input"): "modulated_input_gradient",
    ("modulated_correlate", "weights"): "modulated_weights_gradient",
    ("modulated_correlate", "modulation"): "modulated_modulation_gradient",
    ("local_correlate", "input"): "local_input_gradient",
    ("local_correlate", "kernels"): "local_kernels_gradient",
}


@each_operand
def test_what_is_not_asked_is_not_computed(monkeypatch, function, name):
    called = []

    def watch(primitive):
        original = getattr(cuvarconv._cpu, primitive)

        def watched(*arguments, **keywords):
            called.append(primitive)
            return original(*arguments, **keywords)

        monkeypatch.setattr(cuvarconv._cpu, primitive, watched)

    for primitive in PRIMITIVES.values():
        watch(primitive)
    arrays = operands(function)
    getattr(cuvarconv, f"{function}_vjp")(incoming(function, arrays), *arrays, wrt=name)
    assert called == [PRIMITIVES[function, name]]


# ---- small, special and repeated -----------------------------------------------------------------


@each_function
@pytest.mark.parametrize("image", [(1, 1), (1, 5), (5, 1)], ids=str)
@pytest.mark.parametrize("mode", SAME_SIZE)
def test_images_of_length_one(xp, function, image, mode):
    check(xp, function, operands(function, image, (3, 3)), mode=mode, cval=2.0)


@each_function
@pytest.mark.no_launch(reason="empty or zero")
@pytest.mark.parametrize(
    ("batch", "image"),
    [((), (0, 4)), ((), (4, 0)), ((0,), (3, 4)), ((2, 0), (3, 4)), ((2,), (0, 0))],
    ids=str,
)
def test_empty_arrays_have_zero_gradients(xp, function, batch, image):
    arrays = operands(function, image, batch=batch)
    for mode in SAME_SIZE:
        for result in check(xp, function, arrays, mode=mode, cval=1.0):
            assert not result.any()


@pytest.mark.no_launch(reason="empty or zero")
@pytest.mark.parametrize("function", ["modulated_correlate", "local_correlate"])
@pytest.mark.parametrize(("channels", "filters"), [(0, 3), (2, 0), (0, 0)])
def test_no_channels(xp, function, channels, filters):
    arrays = operands(function, channels=channels, filters=filters, batch=(2,))
    for result in check(xp, function, arrays):
        assert not result.any()


@pytest.mark.no_launch(reason="empty or zero")
@pytest.mark.parametrize("varying", [(1, 4, 5), (0, 4, 5), (2, 1, 1, 1)], ids=str)
def test_modulation_of_no_channels(xp, varying):
    arrays = [np.empty(shape, np.float32) for shape in ((2, 0, 4, 5), (3, 0, 3, 3))]
    check(xp, "modulated_correlate", [*arrays, np.ones((3, 3, *varying), np.float32)])


@each_operand
@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_no_product_is_skipped(xp, function, name, special):
    arrays = [np.zeros_like(array) for array in operands(function, mode="constant", channels=3)]
    number = FORMS[function].index(name)
    arrays[number][(1,) * arrays[number].ndim] = special
    g = incoming(function, arrays)
    results = gradients(xp, function, g, arrays, mode="constant")
    with np.errstate(invalid="ignore"):
        expected = looped(function, g, arrays, mode="constant")
    for other, pair in enumerate(zip(results, expected, strict=True)):
        assert_equal(*pair)
        assert np.isnan(pair[0]).any() == (other != number)
        assert not np.isnan(pair[0]).all()


@pytest.mark.parametrize("tap", [(0, 0), (-1, -1)], ids=["first", "last"])
@pytest.mark.parametrize("mode", ["constant", "valid"])
def test_nan_weights_reach_only_pixels_that_their_tap_reads(xp, tap, mode):
    function, number = "modulated_correlate", 1
    arrays = operands(function, (6, 7), (3, 4), mode=mode)
    arrays[number][(..., *tap)] = np.nan
    g = incoming(function, arrays, mode=mode)
    results = gradients(xp, function, g, arrays, mode=mode)
    for result, expected in zip(results, looped(function, g, arrays, mode=mode), strict=True):
        assert_equal(result, expected)
    assert np.isnan(results[0]).any()
    assert np.isfinite(results[0]).any()


@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.parametrize("mode", ["constant", "mirror"])
@pytest.mark.parametrize("tap", [(0, 0), (2, 1)], ids=["first tap", "last tap"])
def test_a_weight_reaches_only_pixels_under_its_tap(xp, tap, mode, special):
    function = "modulated_correlate"
    x, weights, d = operands(function, mode=mode, channels=3)
    weights[(1, 1, *tap)] = special
    g = incoming(function, [x, weights, d])
    result = gradient(xp, function, g, [x, weights, d], "input", mode=mode)
    with np.errstate(invalid="ignore"):
        expected, *_ = looped(function, g, [x, weights, d], mode=mode)
    assert_equal(np.isfinite(result), np.isfinite(expected))
    assert not np.isfinite(result).all()
    assert np.isfinite(result[1]).any()


@each_function
@pytest.mark.parametrize("mode", ["constant", "valid"])
@pytest.mark.parametrize("corner", [(0, 0), (-1, -1)], ids=["first", "last"])
def test_nan_in_a_corner_of_the_incoming_gradient(xp, corner, mode, function):
    arrays = operands(function, (6, 20), (3, 4), mode=mode)
    g = incoming(function, arrays, mode=mode)
    g[(..., *corner)] = np.nan
    results = gradients(xp, function, g, arrays, mode=mode)
    for result, expected in zip(results, looped(function, g, arrays, mode=mode), strict=True):
        assert_equal(result, expected)
    assert np.isfinite(results[0]).any()


@each_function
def test_nan_in_the_incoming_gradient_stays_in_its_sample(xp, function):
    arrays = operands(function, batch=(2,), mode="constant")
    g = incoming(function, arrays)
    g[1, 1, 2, 2] = np.nan
    results = gradients(xp, function, g, arrays, mode="constant")
    for result, expected in zip(results, looped(function, g, arrays, mode="constant"), strict=True):
        assert_equal(result, expected)
    assert np.isfinite(results[0][0]).all()
    assert np.isnan(results[0][1]).any()


@each_function
def test_the_same_call_gives_the_same_bits(xp, function):
    arrays = operands(function, (20, 30), (3, 3), channels=8, filters=8, make=noise)
    g = incoming(function, arrays, make=noise)
    first, second = (gradients(xp, function, g, arrays) for _ in range(2))
    assert [a.tobytes() for a in first] == [b.tobytes() for b in second]


@each_function
def test_the_incoming_gradient_may_be_a_constant(xp, function):
    """Of a sum, it is one number with zero strides."""
    arrays = operands(function, batch=(2,))
    shape = result_shape(function, arrays)
    g = xp.module.broadcast_to(xp.asarray(np.float32(2)), shape)
    results = getattr(cuvarconv, f"{function}_vjp")(g, *map(xp.asarray, arrays))
    for result, expected in zip(results, looped(function, np.full(shape, 2), arrays), strict=True):
        assert_equal(xp.to_numpy(result), expected.astype(np.float32))
