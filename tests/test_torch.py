"""`modulated_conv2d`, `pixelwise_conv2d`, `local_conv2d`, `affinity2d`: results, and torch's conventions."""

import itertools

import numpy as np
import pytest
import reference
from torch_forms import (
    CASE_NAMES,
    CASES,
    EACH_CASE,
    FORMS,
    PADDINGS,
    VIEWS,
    affinity2d,
    assert_near,
    call,
    draw,
    drawn,
    formula,
    functional,
    geometries,
    layers,
    shapes,
    torch,
)

each_case = pytest.mark.parametrize(("function", "case", "keywords"), EACH_CASE, ids=CASE_NAMES)
each_form = pytest.mark.parametrize("function", FORMS)
each_function = pytest.mark.parametrize("function", [*FORMS, "affinity2d"])


def example(function, dtype="float64", device="cpu"):
    """Return operands and keywords of a call of any of the four functions."""
    if function == "affinity2d":
        return [draw((2, 3, 5, 6), dtype, device)], {"kernel_size": (3, 2), "sigma": 1.5, "padding": 1}
    case, keywords = CASES[function][1]
    return drawn(case, dtype, device), keywords


# ---- the equations -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@each_case
def test_the_unfold_formula(device, function, case, keywords, dtype):
    operands = drawn(case, dtype, device)
    result = call(function, operands, **keywords)
    assert result.dtype == operands[0].dtype
    assert result.is_contiguous()
    expected = formula(function, [operand.to(operand.dtype.to_complex()) for operand in operands], **keywords)
    assert_near(result, expected)


@each_form
def test_every_padding_stride_and_dilation(device, function):
    for geometry in geometries():
        operands = drawn(shapes(function, **geometry), device=device)
        assert_near(call(function, operands, **geometry), formula(function, operands, **geometry))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("entries", [1, 2, 4])
def test_groups_and_channels_of_the_modulation(device, groups, entries):
    operands = drawn([(2, 4, 5, 6), (8, 4 // groups, 3, 3), (3, 3, 2, entries, 5, 6)], device=device)
    keywords = {"padding": 1, "groups": groups}
    result = call("modulated_conv2d", operands, **keywords)
    assert_near(result, formula("modulated_conv2d", operands, **keywords))


@pytest.mark.parametrize("function", ["modulated_conv2d", "local_conv2d"])
def test_bias(device, function):
    case, keywords = CASES[function][1]
    operands = drawn(case, device=device)
    plain = formula(function, operands, **keywords)
    bias = draw(plain.shape[1:2], device=device, seed=20)
    assert_near(call(function, [*operands, bias], **keywords), plain + bias[:, None, None])


def test_bias_for_every_pixel(device):
    case, keywords = CASES["local_conv2d"][1]
    operands = drawn(case, device=device)
    plain = formula("local_conv2d", operands, **keywords)
    bias = draw(plain.shape[1:], device=device, seed=20)
    assert_near(layers.local_conv2d(*operands, bias, **keywords), plain + bias)


@pytest.mark.parametrize("sigma", [0.3, 1, 7.5])
@pytest.mark.parametrize("guide", [(2, 3, 5, 6), (1, 6, 7)], ids=str)
def test_affinity(device, guide, sigma):
    guide = draw(guide, device=device)
    for geometry in geometries():
        result = layers.affinity2d(guide, (3, 2), sigma, **geometry)
        assert_near(result, affinity2d(guide, (3, 2), sigma, **geometry))


def test_affinity_of_centres_outside(device):
    """They count as features of 0, as they do where the guide is padded."""
    guide = draw((2, 3, 4, 5), device=device)
    for geometry in [{"padding": 4}, {"padding": (3, 2), "stride": 2, "dilation": 2}]:
        result = layers.affinity2d(guide, 3, **geometry)
        assert_near(result, affinity2d(guide, 3, **geometry))


# ---- beside torch's own convolution --------------------------------------------------------------


@pytest.mark.parametrize("mode", PADDINGS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 2, "stride": 2},
        {"padding": "same", "dilation": (1, 2)},
        {"padding": (1, 2), "dilation": 2, "groups": 2},
        {"padding": "valid", "stride": (1, 3), "groups": 4},
    ],
    ids=str,
)
def test_a_modulation_of_ones_is_plain_convolution(device, options, mode):
    layer = torch.nn.Conv2d(4, 8, 3, padding_mode=mode, dtype=torch.float64, device=device, **options)
    x = draw((2, 4, 7, 8), device=device)
    ones = torch.ones(3, 3, 1, 1, dtype=torch.float64, device=device)
    result = layers.modulated_conv2d(x, layer.weight, ones, layer.bias, padding_mode=mode, **options)
    assert_near(result, layer(x))


@pytest.mark.parametrize("mode", PADDINGS)
@each_form
def test_padding_wider_than_the_image(device, function, mode):
    """Where F.pad refuses; what stands there is what the equations' loops say."""
    name = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}[mode]
    image, padding = (2, 3), (9, 5)
    operands = drawn(shapes(function, image, padding=padding), device=device)
    padded = operands[0].new_zeros(2, 2, 2 + 2 * 9, 3 + 2 * 5)
    for i, j in itertools.product(range(padded.shape[-2]), range(padded.shape[-1])):
        row, column = reference.source(i - 9, 2, name), reference.source(j - 5, 3, name)
        if row is not None and column is not None:
            padded[..., i, j] = operands[0][..., row, column]
    expected = formula(function, [padded, *operands[1:]])
    assert_near(call(function, operands, padding=padding, padding_mode=mode), expected)


@each_form
def test_integers_pairs_and_lists_name_the_same_window(function):
    operands = drawn(shapes(function, padding=1, stride=2, dilation=2))
    expected = call(function, operands, padding=1, stride=2, dilation=2)
    for kind in (tuple, list, torch.Size):
        same = call(function, operands, padding=kind([1, 1]), stride=kind([2, 2]), dilation=kind([2]))
        assert torch.equal(same, expected)
    for one, two in [(np.int64(1), (np.int32(2), 2)), (torch.tensor(1), np.array([2, 2]))]:
        assert torch.equal(call(function, operands, padding=one, stride=two, dilation=two), expected)


@each_form
def test_unbatched_input(device, function):
    batched = drawn(shapes(function, batch=(1,), padding=1), device=device)
    alone = list(batched)
    alone[0] = batched[0][0]
    alone[-1] = batched[-1].squeeze(2)
    assert_near(call(function, alone, padding=1), call(function, batched, padding=1)[0])


def test_unbatched_guide(device):
    guide = draw((3, 5, 6), device=device)
    result = layers.affinity2d(guide, 3, padding=1)
    assert result.shape == (3, 3, 1, 5, 6)
    assert_near(result, layers.affinity2d(guide[None], 3, padding=1)[:, :, 0])


@each_function
def test_channels_last_input(device, function):
    (x, *others), keywords = example(function, device=device)
    last = x.contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    assert_near(call(function, [last, *others], **keywords), call(function, [x, *others], **keywords))


# ---- strides -------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
@each_function
def test_strided_operands(device, function, view):
    operands, keywords = example(function, device=device)
    views = [VIEWS[view](operand) for operand in operands]
    assert not any(operand.is_contiguous() for operand in views)
    assert torch.equal(call(function, views, **keywords), call(function, operands, **keywords))


@each_case
def test_expanded_operands(device, function, case, keywords):
    """Of stride 0 along every axis."""
    operands = [draw((), device=device, seed=seed).expand(shape) for seed, shape in enumerate(case)]
    assert_near(call(function, operands, **keywords), formula(function, operands, **keywords))


@each_form
def test_lazily_conjugated_and_negated_tensors(device, function):
    case, keywords = CASES[function][0]
    operands = drawn(case, "complex128", device)
    expected = formula(function, [operand.conj().resolve_conj() for operand in operands], **keywords)
    lazy = [operand.conj() for operand in operands]
    assert all(operand.is_conj() for operand in lazy)
    assert_near(call(function, lazy, **keywords), expected)
    negated = [operand.imag for operand in lazy]
    assert all(operand.is_neg() for operand in negated)
    expected = formula(function, [operand.resolve_neg() for operand in negated], **keywords)
    assert_near(call(function, negated, **keywords), expected)


# ---- dtypes --------------------------------------------------------------------------------------

HALVES = ["float16", "bfloat16"]


@pytest.mark.parametrize("dtype", [*HALVES, "float32", "complex64"])
@each_function
def test_dtypes(device, function, dtype):
    if dtype == "complex64" and function == "affinity2d":
        pytest.skip("affinity is of real features")
    operands, keywords = example(function, dtype, device)
    result = call(function, operands, **keywords)
    assert result.dtype == operands[0].dtype
    wide = torch.complex128 if dtype == "complex64" else torch.float64
    assert_near(result, call(function, [operand.to(wide) for operand in operands], **keywords))


# Sums of 4225 ones, which half precision alone would leave at 2048 or 256.
SUMS = {
    "modulated_conv2d": [(1, 1, 4225, 1), (1, 1, 4225, 1), (4225, 1)],
    "pixelwise_conv2d": [(1, 9, 4225, 1), (4225, 1, 9, 1, 1)],
    "local_conv2d": [(1, 1, 4225, 1), (4225, 1, 1, 1, 1, 1)],
}


@pytest.mark.parametrize("dtype", HALVES)
@each_form
def test_half_precision_is_summed_in_float32(device, function, dtype):
    ones = [torch.ones(shape, dtype=getattr(torch, dtype), device=device) for shape in SUMS[function]]
    result = call(function, ones)
    assert torch.equal(result, torch.full_like(result, 4225))


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_affinity_is_summed_in_float32(device, dtype):
    """The distance of 4000 features that differ by 1 is 4000."""
    guide = torch.zeros(1, 4000, 1, 2, dtype=getattr(torch, dtype), device=device)
    guide[..., 1] = 1
    result = layers.affinity2d(guide, (1, 2), 100)
    expected = torch.tensor(-0.5 * 4000 / 100**2).exp().to(guide.dtype).item()
    assert result[0, 0].item() == expected


@each_form
@pytest.mark.parametrize("inner", HALVES)
@pytest.mark.parametrize("outer", ["float32", *HALVES])
def test_autocast_casts_as_conv2d(device, function, inner, outer):
    operands, keywords = example(function, outer, device)
    inner = getattr(torch, inner)
    with torch.autocast(device, inner):
        image, kernel = drawn([(1, 1, 3, 3), (1, 1, 1, 1)], outer, device)
        assert functional.conv2d(image, kernel).dtype == inner
        result = call(function, operands, **keywords)
    assert torch.equal(result, call(function, [operand.to(inner) for operand in operands], **keywords))


@pytest.mark.parametrize("inner", HALVES)
@pytest.mark.parametrize("outer", ["float32", *HALVES])
def test_autocast_of_affinity_is_that_of_exp(device, inner, outer):
    """In float32; torch has a rule for exp on GPUs alone."""
    guide, keywords = example("affinity2d", outer, device)[0][0], {"kernel_size": 3, "padding": 1}
    with torch.autocast(device, getattr(torch, inner)):
        assert device == "cpu" or guide.exp().dtype == torch.float32
        result = layers.affinity2d(guide, **keywords)
    assert torch.equal(result, layers.affinity2d(guide.float(), **keywords))


@each_function
def test_autocast_leaves_double_precision_and_casts_what_is_mixed(device, function):
    operands, keywords = example(function, device=device)
    with torch.autocast(device, torch.bfloat16):
        assert call(function, operands, **keywords).dtype == torch.float64
        if function != "affinity2d":
            mixed = [operands[0].half(), *(operand.float() for operand in operands[1:])]
            assert call(function, mixed, **keywords).dtype == torch.bfloat16
    with torch.autocast(device, torch.bfloat16, enabled=False):
        assert call(function, [operand.float() for operand in operands], **keywords).dtype == torch.float32


@pytest.mark.parametrize("function", ["modulated_conv2d", "local_conv2d"])
def test_autocast_casts_the_bias(device, function):
    case, keywords = CASES[function][0]
    operands = drawn([*case, (2 if function == "local_conv2d" else 6,)], "float32", device)
    with torch.autocast(device, torch.bfloat16):
        result = call(function, operands, **keywords)
    assert_near(result, call(function, [operand.bfloat16().double() for operand in operands], **keywords))
