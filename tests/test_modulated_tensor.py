"""`modulated_correlate` on tensor cores: every test of the function again, and what is theirs alone."""

import inspect

import emulator
import numpy as np
import pytest
import reference
import test_modulated
import test_modulated_arrays
from modulated_forms import factors, unfolded, weights
from tolerances import BFLOAT16, assert_equal, integers, noise

import cuvarconv
from cuvarconv._tf32 import tf32

pytestmark = pytest.mark.parametrize("xp", ["cuda"], indirect=True)

# whole numbers are exact in TF32; float32 noise keeps to its own kernels
PRECISE = ("test_noise", "test_many_products_are_summed_accurately")
# tests of which some cases, or all, are not for tensor cores: other dtypes, other shapes
MIXED = (
    *PRECISE,
    *("test_groups", "test_broadcasting_of_modulation", "test_channel_groups_of_modulation"),
    *("test_channel_groups_with_other_axes_that_broadcast", "test_whole_numbers_of_every_dtype"),
    *("test_mixed_dtypes", "test_products_are_formed_in_the_widest_dtype", "test_nothing_is_conjugated"),
    *("test_complex_cval", "test_output_of_integers_is_truncated", "test_output_as_dtype"),
    *("test_elements_more_than_2_31_apart", "test_empty_images", "test_no_output_channels"),
    *("test_no_input_channels_give_zeros", "test_the_path_follows_from_shape_and_dtype"),
    "test_products_of_half_precision_are_not_rounded",
    *("test_older_devices_have_other_kernels", "test_modulation_meets_the_output_where_it_is_smaller"),
)

for name, function in {**vars(test_modulated), **vars(test_modulated_arrays)}.items():
    if name.startswith("test_") and "xp" in inspect.signature(function).parameters:
        globals()[name] = function


@pytest.fixture(autouse=True)
def tensor_cores(request, cuda_backend, instantiations):
    """Force tensor cores, and see that they were used."""
    from cuvarconv._gpu import _paths

    name = request.function.__name__
    with _paths.forced(True), tf32(name not in PRECISE), emulator.recording() as launched:
        yield
    assert name in MIXED or any("_tensor<" in launch for launch in launched.names)


def computed(xp, x, w, d, **keywords):
    """Return the result on the host, and the kernels that made it."""
    operands = [xp.asarray(operand) for operand in (x, w, d)]
    with emulator.recording() as launched:
        result = cuvarconv.modulated_correlate(*operands, **keywords)
    return xp.to_numpy(result), launched.names


# ---- every type and tile -------------------------------------------------------------------------

TOLERANCES = {"float16": 2e-3, str(BFLOAT16): 1e-2, "float32": 1e-3}


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32"], ids=str)
@pytest.mark.parametrize(("outputs", "tile"), [(24, (32, 128)), (48, (64, 128)), (136, (128, 256))], ids=str)
def test_noise_in_every_tile(xp, monkeypatch, dtype, outputs, tile):
    from cuvarconv._gpu import _paths

    monkeypatch.setattr(_paths, "_ENOUGH_BLOCKS", 1)
    arrays = [
        noise(shape, dtype, seed)
        for seed, shape in enumerate([(21, 9, 40), (outputs, 21, 3, 3), (3, 3, 9, 40)])
    ]
    result, names = computed(xp, *arrays)
    assert result.dtype == dtype
    assert all(name.endswith(f", {tile[0]}, {tile[1]}>") for name in names)
    expected = unfolded(*(array.astype(np.float64) for array in arrays))
    error = np.linalg.norm(result.astype(np.float64) - expected) / np.linalg.norm(expected)
    assert error <= TOLERANCES[str(np.dtype(dtype))]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 7, 8, 9, 16, 33, 70])
def test_numbers_of_channels(xp, dtype, channels):
    """Whole chunks, parts of one, several taps in a line, several lines of a tap."""
    x, w = integers((channels, 5, 9), dtype), weights(17, channels, dtype=dtype)
    d = factors((3, 3), (5, 9), dtype)
    assert_equal(computed(xp, x, w, d)[0], unfolded(x, w, d).astype(dtype))


def test_a_factor_that_is_not_finite_leaves_padding_alone(xp):
    """Of a chunk only some channels exist; the others must not become 0·inf."""
    x, w = np.ones((3, 4, 5), np.float16), np.ones((2, 3, 1, 1), np.float16)
    d = np.full((1, 1, 4, 5), np.inf, np.float16)
    assert_equal(computed(xp, x, w, d)[0], np.full((2, 4, 5), np.inf, np.float16))


def test_products_that_overflow_are_infinite(xp):
    """d·x is rounded to the dtype of the operands."""
    x, w = np.full((1, 2, 3), 300, np.float16), np.full((1, 1, 1, 1), 0.001, np.float16)
    result, _ = computed(xp, x, w, np.full((1, 1), 300, np.float16))
    assert np.isinf(result).all()


# ---- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_channels_last(xp, dtype, offset, groups):
    """Neighbouring channels are read at once where they are aligned, one by one where they are not."""
    x, w = integers((2, 32, 5, 9), dtype), weights(20, 32 // groups, dtype=dtype)
    d = factors((3, 3), (5, 9), dtype)
    expected = computed(xp, x, w, d, groups=groups)[0]
    memory = xp.module.zeros(x.size + 8, dtype)
    last = memory[offset : offset + x.size].reshape(2, 5, 9, 32)
    last[...] = xp.asarray(np.moveaxis(x, 1, -1).copy())
    result = cuvarconv.modulated_correlate(
        xp.module.moveaxis(last, -1, 1), xp.asarray(w), xp.asarray(d), groups=groups
    )
    assert_equal(xp.to_numpy(result), expected)


@pytest.mark.parametrize("entries", [1, 2, 4])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_entries_and_groups_of_whole_chunks(xp, entries, groups):
    x, w = integers((32, 4, 5), "float16"), weights(12, 32 // groups, dtype="float16")
    d = factors((3, 3), (entries, 4, 5), "float16")
    result, names = computed(xp, x, w, d, groups=groups)
    assert all("_tensor<" in name for name in names)
    expected = reference.modulated_correlate(x, w, d, groups=groups)
    assert_equal(result, expected.astype(np.float16))


def test_weights_are_packed_piece_by_piece(xp, monkeypatch):
    from cuvarconv._gpu import _paths

    monkeypatch.setattr(_paths, "_MOST_BYTES", 130 * 9 * 16)
    x, w, d = (
        integers((8, 4, 5), "float16"),
        weights(300, 8, dtype="float16"),
        factors((3, 3), (4, 5), "float16"),
    )
    result, names = computed(xp, x, w, d)
    assert len(names) == 3
    assert_equal(result, unfolded(x, w, d).astype(np.float16))


# ---- the choice ----------------------------------------------------------------------------------


@pytest.mark.no_launch(reason="nothing is computed")
@pytest.mark.parametrize(
    ("changes", "tile"),
    [
        ({}, (64, 128)),
        ({"rows": 32}, (32, 128)),
        ({"rows": 128}, (128, 256)),
        ({"rows": 128, "pixels": 64 * 64}, (64, 128)),
        ({"rows": 8}, None),
        ({"channels": 4}, None),
        ({"one_factor": False}, None),
        ({"passes": 2048}, (64, 128)),
        ({"passes": 2049}, None),
        ({"passes": 2048, "channels": 65}, None),
        ({"dtype": np.dtype("float32")}, None),
        ({"dtype": np.dtype("float64")}, None),
        ({"taps": 1 << 12}, None),
    ],
    ids=str,
)
def test_the_path_follows_from_shape_and_dtype(xp, tensor_cores, changes, tile):
    from cuvarconv._gpu import _paths

    usual = {"dtype": np.dtype("float16"), "rows": 64, "channels": 64, "taps": 9, "groups": 1}
    product = _paths.Product(**({**usual, "one_factor": True, "pixels": 8 * 128 * 128} | changes))
    with _paths.forced(None), tf32(False):
        assert _paths.tensor_tile(product) == tile
    with _paths.forced(False):
        assert _paths.tensor_tile(product) is None


def test_older_devices_have_other_kernels(xp, monkeypatch):
    if not xp.is_emulated:
        pytest.skip("a GPU's capability is what it is")
    from emulator.fakedevice import Device

    monkeypatch.setattr(Device, "compute_capability", "75")
    x, w, d = (
        integers((8, 4, 5), "float16"),
        weights(16, 8, dtype="float16"),
        factors((3, 3), (4, 5), "float16"),
    )
    assert not any("_tensor<" in name for name in computed(xp, x, w, d)[1])
