"""The gradients of `modulated_correlate` on tensor cores; whole numbers are exact in TF32."""

import emulator
import numpy as np
import pytest
from forms import MODES, SAME_SIZE, VIEWS, check, gradient, incoming, looped, operands
from tolerances import BFLOAT16, assert_equal, integers, noise, stored

import cuvarconv
from cuvarconv._tf32 import tf32

FUNCTION = "modulated_correlate"
TYPES = ["float16", BFLOAT16, "float32"]
NAMES = ("input", "weights", "modulation")
EACH = pytest.mark.parametrize("name", NAMES)
each_type = pytest.mark.parametrize("dtype", TYPES, ids=str)

pytestmark = pytest.mark.parametrize("xp", ["cuda"], indirect=True)


@pytest.fixture(autouse=True)
def tensor_cores(cuda_backend, instantiations):
    """Force tensor cores, and see that they were used."""
    from cuvarconv._gpu import _paths

    with _paths.forced(True), tf32(True), emulator.recording() as launched:
        yield
    assert any("gradient_tensor<" in launch for launch in launched.names)


# ---- the window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(xp, mode):
    check(xp, FUNCTION, operands(FUNCTION, (5, 6), (3, 5), batch=(2,), mode=mode), mode=mode, cval=3.0)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize("image", [(1, 1), (1, 4), (2, 2)], ids=str)
def test_window_larger_than_the_image(xp, image, mode):
    check(xp, FUNCTION, operands(FUNCTION, image, (5, 8)), mode=mode, cval=1.0)


@pytest.mark.parametrize("mode", SAME_SIZE)
@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), ((3, 2), (2, 3)), (4, 1)], ids=str)
def test_stride_and_dilation(xp, stride, dilation, mode):
    geometry = {"stride": stride, "dilation": dilation, "mode": mode, "origin": (1, 0)}
    check(xp, FUNCTION, operands(FUNCTION, (9, 8), (3, 4), **geometry), **geometry)


@EACH
@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_large_enough_for_several_tiles(xp, name, mode):
    arrays = operands(FUNCTION, (9, 40), (3, 3), channels=70, filters=20)
    g = incoming(FUNCTION, arrays)
    result = gradient(xp, FUNCTION, g, arrays, name, mode=mode)
    exact = [array.astype(np.float64) for array in (g, *arrays)]
    expected = cuvarconv.modulated_correlate_vjp(*exact, wrt=name, mode=mode)  # on the host
    assert_equal(result, expected.astype(np.float32))


# ---- channels, batches, types --------------------------------------------------------------------


@each_type
@pytest.mark.parametrize(("channels", "filters"), [(3, 1), (3, 7), (3, 8), (2, 9), (3, 17), (1, 40), (40, 3)])
def test_numbers_of_channels_and_outputs(xp, dtype, channels, filters):
    arrays = operands(FUNCTION, channels=channels, filters=filters, dtype=dtype)
    g = incoming(FUNCTION, arrays, dtype)
    for name, expected in zip(NAMES, looped(FUNCTION, g, arrays), strict=True):
        result = gradient(xp, FUNCTION, g, arrays, name)
        assert_equal(result, stored(expected, result.dtype))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("varying", [(4, 5), (1, 1), (3, 1, 4, 5), (1, 1, 4, 1)], ids=str)
def test_groups_and_broadcasting(xp, groups, varying):
    x, w = integers((3, 8, 4, 5)), integers((8, 8 // groups, 3, 2), low=-3, high=4)
    arrays = [x, w, integers((3, 2, *varying), seed=2, low=-3, high=4)]
    check(xp, FUNCTION, arrays, groups=groups)


@pytest.mark.parametrize("entries", [2, 4])
def test_entries_of_whole_groups(xp, entries):
    arrays = [integers((8, 4, 5)), integers((8, 2, 3, 2)), integers((3, 2, entries, 4, 5), seed=2)]
    check(xp, FUNCTION, arrays, groups=4)


@pytest.mark.parametrize("entries", [1, 2, 6])
@pytest.mark.parametrize("groups", [1, 3])
def test_any_entries(xp, groups, entries):
    """In these two gradients each factor stands by itself."""
    x, w = integers((2, 6, 4, 5)), integers((3, 6 // groups, 3, 2))
    d = integers((3, 2, entries, 4, 5), seed=2)
    g = incoming(FUNCTION, [x, w, d])
    expected = looped(FUNCTION, g, [x, w, d], groups=groups)
    for name in ("weights", "modulation"):
        result = gradient(xp, FUNCTION, g, [x, w, d], name, groups=groups)
        assert_equal(result, expected[NAMES.index(name)].astype(np.float32))


@pytest.mark.parametrize("splits", [528, 1])
def test_long_sums_are_formed_part_by_part(xp, monkeypatch, splits):
    """More pixels than one part of a sum holds; sums of equal signs drift the most."""
    from cuvarconv._gpu import modulated_gradient

    monkeypatch.setattr(modulated_gradient, "_ENOUGH_BLOCKS", splits)
    rng, image = np.random.default_rng(4), (150, 250)
    g, x, d = (
        rng.random(shape).astype(np.float16) for shape in ((2, 1, *image), (2, 1, *image), (1, 1, *image))
    )
    w = np.ones((1, 1, 1, 1), np.float32)
    result = gradient(xp, FUNCTION, g, [x, w, d], "weights")
    assert result.dtype == np.float32
    expected = np.einsum("bopq,bcpq,mnpq->ocmn", g, x, d, dtype=np.float64)
    np.testing.assert_allclose(result, expected, rtol=2e-4)


@EACH
@each_type
def test_noise(xp, name, dtype):
    arrays = operands(FUNCTION, (9, 20), (3, 3), channels=20, filters=30, make=noise, dtype=dtype)
    g = incoming(FUNCTION, arrays, dtype, make=noise)
    result = gradient(xp, FUNCTION, g, arrays, name)
    expected = looped(FUNCTION, g, arrays)[NAMES.index(name)]
    error = np.linalg.norm(result.astype(np.float64) - expected) / np.linalg.norm(expected)
    assert error <= {"float16": 2e-3, "float32": 1e-3}.get(str(np.dtype(dtype)), 1e-2)


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("role", [0, 1, 2, 3], ids=["grad", "input", "weights", "modulation"])
def test_strides(xp, role, view):
    arrays = operands(FUNCTION, batch=(2,), channels=8, filters=8)
    arrays.insert(0, incoming(FUNCTION, arrays))
    given = [xp.asarray(array) for array in arrays]
    given[role] = VIEWS[view](xp, arrays[role])
    results = cuvarconv.modulated_correlate_vjp(*given, wrt=NAMES)
    for result, expected in zip(results, looped(FUNCTION, arrays[0], arrays[1:]), strict=True):
        assert_equal(xp.to_numpy(result), expected.astype(np.float32))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("half", [0, 1, 2, 3], ids=["grad", "input", "weights", "modulation"])
def test_piece_by_piece(xp, monkeypatch, groups, half):
    """The workspace is shrunk to some dozen elements; one operand has another dtype."""
    from cuvarconv._gpu import _pieces, modulated_gradient

    monkeypatch.setattr(_pieces, "_WORKSPACE", 1 << 12)
    monkeypatch.setattr(modulated_gradient, "_REPACKED", 100)
    monkeypatch.setattr(modulated_gradient, "_SUMS", 200)
    arrays = operands(FUNCTION, (6, 9), channels=4, filters=6, groups=groups)
    arrays.insert(0, incoming(FUNCTION, arrays, groups=groups))
    arrays[half] = arrays[half].astype(np.float16)
    for name, expected in zip(NAMES, looped(FUNCTION, arrays[0], arrays[1:], groups=groups), strict=True):
        result = gradient(xp, FUNCTION, arrays[0], arrays[1:], name, groups=groups)
        assert_equal(result, expected.astype(result.dtype))


def test_a_factor_that_is_not_finite_leaves_padding_alone(xp):
    x, w = np.ones((2, 4, 5), np.float16), np.ones((3, 2, 1, 1), np.float16)
    g, d = np.ones((3, 4, 5), np.float16), np.full((1, 1, 4, 5), np.inf, np.float16)
    assert np.isposinf(gradient(xp, FUNCTION, g, [x, w, d], "input")).all()


@pytest.mark.parametrize("special", [np.inf, np.nan])
@pytest.mark.parametrize("mode", ["constant", "reflect", "nearest"])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_weight_that_is_not_finite_leaves_pixels_alone_that_no_output_reads_through_it(
    xp, stride, mode, special
):
    """Such pixels are in a block with others, and have zeros for patches then."""
    geometry = {"mode": mode, "stride": stride}
    arrays = operands(FUNCTION, (9, 10), (3, 3), channels=3, filters=9, **geometry)
    arrays[1][4, 1, 0, 0] = special
    g = incoming(FUNCTION, arrays, **geometry)
    with np.errstate(invalid="ignore"):
        expected = looped(FUNCTION, g, arrays, **geometry)[0]
    result = gradient(xp, FUNCTION, g, arrays, "input", **geometry)
    assert_equal(result, expected.astype(result.dtype))
    assert np.isfinite(result[1]).any()
    assert not np.isfinite(result[1]).all()
