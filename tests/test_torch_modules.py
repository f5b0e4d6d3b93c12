"""`ModulatedConv2d`, `PixelAdaptiveConv2d`, `LocalConv2d`: parameters, state and calls like nn.Conv2d's."""

import copy
import io
import math
import pickle
from contextlib import nullcontext

import pytest
import torch_forms
from torch_forms import PADDINGS, assert_all_near, assert_near, draw, formula, grad_like, layers, torch

nn = torch.nn
MODULES = ("ModulatedConv2d", "PixelAdaptiveConv2d", "LocalConv2d")
each_module = pytest.mark.parametrize("name", MODULES)
IMAGE = (6, 7)


def make(name, *arguments, **keywords):
    """Construct a layer, for images of one size; by default 4 -> 6 channels, 3 x 3."""
    if name == "LocalConv2d":
        keywords.setdefault("input_size", IMAGE)
    return getattr(layers, name)(*(arguments or (4, 6, 3)), **keywords)


def inputs(name, layer, device="cpu", dtype=torch.float64, batch=(2,)):
    """Return what a layer of 3 x 3 taps is called with."""
    x = draw((*batch, layer.in_channels, *IMAGE), device=device).to(dtype)
    if name == "LocalConv2d":
        return (x,)
    if name == "PixelAdaptiveConv2d":
        return x, draw((*batch, 2, *IMAGE), device=device, seed=1).to(dtype)
    return x, draw((3, 3, 1, 1), device=device, seed=1).to(dtype)


def oracle(name, layer, arguments):
    """Return the result of the formula with a layer's parameters."""
    window = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "padding_mode")}
    x, *others = arguments
    if name == "LocalConv2d":
        return formula("local_conv2d", [x, layer.weight, layer.bias], **window)
    if name == "PixelAdaptiveConv2d":
        others = [torch_forms.affinity2d(*others, layer.kernel_size, layer.sigma, **window)]
    return formula("modulated_conv2d", [x, layer.weight, *others, layer.bias], groups=layer.groups, **window)


OPTIONS = [
    {},
    {"padding": 1, "bias": False},
    {"padding": (2, 1), "stride": (1, 2), "padding_mode": "reflect"},
    {"padding": "same", "dilation": 2, "padding_mode": "circular"},
    {"padding": "valid", "dilation": (2, 1), "stride": 2, "padding_mode": "replicate"},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


# ---- calls ---------------------------------------------------------------------------------------


@each_option
@each_module
def test_the_unfold_formula_and_its_gradients(device, name, options):
    layer = make(name, **options, dtype=torch.float64, device=device)
    arguments = inputs(name, layer, device)
    result, expected = layer(*arguments), oracle(name, layer, arguments)
    assert_near(result, expected)
    g = grad_like(result)
    wanted = [*layer.parameters()]
    assert len(wanted) == 1 + options.get("bias", True)
    ours, theirs = (torch.autograd.grad(y, wanted, g, retain_graph=True) for y in (result, expected))
    assert_all_near(ours, theirs)


@each_module
def test_groups_and_unbatched_images(device, name):
    keywords = {} if name == "LocalConv2d" else {"groups": 2}
    layer = make(name, padding=1, dtype=torch.float64, device=device, **keywords)
    arguments = inputs(name, layer, device, batch=())
    result = layer(*arguments)
    assert result.shape == (6, *IMAGE)
    assert_near(result, oracle(name, layer, arguments))


@pytest.mark.parametrize("mode", PADDINGS)
@each_option
def test_under_a_modulation_of_ones_it_is_conv2d(device, options, mode):
    options = options | {"padding_mode": mode, "dtype": torch.float64, "device": device}
    plain = nn.Conv2d(4, 6, 3, groups=2, **options)
    layer = layers.ModulatedConv2d(4, 6, 3, groups=2, **options)
    layer.load_state_dict(plain.state_dict())
    x = draw((2, 4, *IMAGE), device=device)
    assert_near(layer(x, x.new_ones(3, 3)), plain(x))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_even_kernels_are_padded_on_the_same_side_as_by_conv2d(device, mode):
    options = {"padding": "same", "dilation": (1, 3), "padding_mode": mode}
    plain = nn.Conv2d(4, 6, (4, 2), **options, dtype=torch.float64, device=device)
    x = draw((2, 4, *IMAGE), device=device)
    ones = x.new_ones(4, 2)
    assert_near(layers.modulated_conv2d(x, plain.weight, ones, plain.bias, **options), plain(x))


def test_a_flat_guide_is_conv2d(device):
    plain = nn.Conv2d(4, 6, 3, padding=1, dtype=torch.float64, device=device)
    layer = layers.PixelAdaptiveConv2d(4, 6, 3, padding=1, dtype=torch.float64, device=device)
    layer.load_state_dict(plain.state_dict())
    x = draw((2, 4, *IMAGE), device=device)
    assert_near(layer(x, torch.full_like(x, 3.5)), plain(x))


def test_the_same_kernel_everywhere_is_conv2d(device):
    plain = nn.Conv2d(4, 6, 3, padding=1, dtype=torch.float64, device=device)
    layer = make("LocalConv2d", padding=1, dtype=torch.float64, device=device)
    with torch.no_grad():
        layer.weight.copy_(plain.weight.permute(2, 3, 1, 0)[:, :, None, None])
        layer.bias.copy_(plain.bias[:, None, None])
    x = draw((2, 4, *IMAGE), device=device)
    assert_near(layer(x), plain(x))


@each_module
def test_training(device, name):
    """A layer learns what another one of its kind does."""
    torch.manual_seed(1)
    teacher, pupil = (make(name, padding=1, device=device) for _ in range(2))
    arguments = inputs(name, pupil, device, torch.float32, batch=(8,))
    with torch.no_grad():
        wanted = teacher(*arguments)
    optimizer = torch.optim.Adam(pupil.parameters(), 0.03)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (pupil(*arguments) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


# ---- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES[:2])
@each_option
def test_parameters_are_those_of_conv2d(name, options):
    torch.manual_seed(3)
    plain = nn.Conv2d(4, 6, (3, 2), groups=2, **options)
    torch.manual_seed(3)
    layer = make(name, 4, 6, (3, 2), groups=2, **options)
    assert isinstance(layer, nn.Conv2d)
    state, expected = layer.state_dict(), plain.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in state)


def test_parameters_of_local_layers():
    """As large as Conv2d's: uniform, up to 1/√(C_in·kh·kw) either way."""
    torch.manual_seed(3)
    layer = make("LocalConv2d", 8, 16, (3, 2), padding=1, input_size=(10, 11))
    assert layer.weight.shape == (3, 2, 10, 12, 8, 16)
    assert layer.bias.shape == (16, 10, 12)
    bound = 1 / math.sqrt(8 * 3 * 2)
    plain = nn.Conv2d(8, 4096, (3, 2)).weight
    for drawn in (layer.weight, layer.bias):
        assert 0.99 * bound < drawn.max() <= bound
        assert -bound <= drawn.min() < -0.99 * bound
        assert abs(drawn.mean()) < 0.05 * bound
        assert drawn.std().item() == pytest.approx(plain.std().item(), rel=0.03)


@each_module
def test_reset_parameters(name):
    layer = make(name)
    before = copy.deepcopy(layer.state_dict())
    layer.reset_parameters()
    assert not any(torch.equal(before[key], layer.state_dict()[key]) for key in before)
    assert all(parameter.requires_grad for parameter in layer.parameters())


@each_module
def test_without_bias(name):
    layer = make(name, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    assert [key for key, _ in layer.named_parameters()] == ["weight"]


# ---- state ---------------------------------------------------------------------------------------


def pickled(layer):
    return pickle.loads(pickle.dumps(layer))


def saved_and_loaded(layer):
    """Pass a layer's state through a file, into a layer that was made alike."""
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = pickled(layer)
    other.reset_parameters()
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, pickled, saved_and_loaded])
@each_module
def test_copies(name, duplicate):
    keywords = {"sigma": 0.4} if name == "PixelAdaptiveConv2d" else {}
    layer = make(name, padding="same", padding_mode="reflect", dtype=torch.float64, **keywords)
    other = duplicate(layer)
    assert type(other) is type(layer)
    assert repr(other) == repr(layer)
    arguments = inputs(name, layer)
    assert torch.equal(other(*arguments), layer(*arguments))
    shared = other.weight.data_ptr() == layer.weight.data_ptr()
    assert shared == (duplicate is copy.copy)


@each_module
def test_state_of_other_sizes_is_refused(name):
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        make(name).load_state_dict(make(name, 4, 5, 3).state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64], ids=str)
@each_module
def test_moves_to_another_dtype(device, name, dtype):
    if dtype.is_complex and name == "PixelAdaptiveConv2d":
        pytest.skip("guides are real")
    layer = make(name, padding=1).to(device)
    expected = pytest.warns(UserWarning, match="Complex modules") if dtype.is_complex else nullcontext()
    with expected:
        moved = layer.to(dtype)
    assert moved is layer
    result = layer(*inputs(name, layer, device, dtype))
    assert result.dtype == layer.weight.dtype == layer.bias.dtype == dtype
    assert result.device.type == device


@each_module
def test_made_elsewhere(device, name):
    """On the meta device, then filled; and directly in its place."""
    layer = make(name, padding=1, device="meta", dtype=torch.float64)
    assert layer.weight.is_meta
    arguments = inputs(name, layer, "meta")
    assert layer(*arguments).shape == (2, 6, *IMAGE)
    layer = layer.to_empty(device=device)
    layer.reset_parameters()
    direct = make(name, padding=1, device=device, dtype=torch.float64)
    for one in (layer, direct):
        assert {parameter.device.type for parameter in one.parameters()} == {device}
        assert one(*inputs(name, one, device)).isfinite().all()


@each_module
def test_channels_last(device, name):
    layer = make(name, padding=1, dtype=torch.float64, device=device)
    arguments = inputs(name, layer, device)
    expected = layer(*arguments)
    layer.to(memory_format=torch.channels_last)
    last = [
        argument.contiguous(memory_format=torch.channels_last) if argument.shape[-1] > 1 else argument
        for argument in arguments
    ]
    assert not last[0].is_contiguous()
    assert_near(layer(*last), expected)


@each_module
def test_autocast(device, name):
    layer = make(name, padding=1, device=device)
    arguments = inputs(name, layer, device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        result = layer(*arguments)
    assert result.dtype == torch.bfloat16
    result.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


def test_autocast_does_not_round_the_guide(device):
    """Features near 1000 that differ by less than half precision tells apart."""
    layer = layers.PixelAdaptiveConv2d(1, 1, 3, padding=1, bias=False, device=device)
    layer.weight.data.fill_(1)
    x = torch.ones(1, 1, *IMAGE, device=device)
    guide = 1000 + draw((1, 2, *IMAGE), "float32", device)
    with torch.autocast(device, torch.bfloat16):
        result = layer(x, guide)
    torch.testing.assert_close(result.float(), layer(x, guide).detach(), rtol=1e-2, atol=1e-2)


def test_a_guide_may_serve_all_samples(device):
    layer = layers.PixelAdaptiveConv2d(2, 3, 3, padding=1, dtype=torch.float64, device=device)
    x, guide = draw((2, 2, *IMAGE), device=device), draw((1, 4, *IMAGE), device=device, seed=1)
    expected = layer(x, guide.expand(2, -1, -1, -1))
    assert torch.equal(layer(x, guide), expected)
    assert torch.equal(layer(x, guide[0]), expected)


@each_module
def test_functional_call(name):
    """With parameters from elsewhere, as meta-learning does."""
    layer, other = (make(name, padding=1, dtype=torch.float64) for _ in range(2))
    arguments = inputs(name, layer)
    swapped = torch.func.functional_call(layer, other.state_dict(), arguments)
    assert torch.equal(swapped, other(*arguments))
    assert not torch.equal(swapped, layer(*arguments))


# ---- text ----------------------------------------------------------------------------------------


REPRESENTED = [
    {},
    {"stride": 2, "padding": 1, "dilation": (1, 2), "bias": False, "padding_mode": "circular"},
    {"padding": "same", "padding_mode": "reflect"},
]


@pytest.mark.parametrize("options", REPRESENTED, ids=str)
@each_module
def test_extra_repr(name, options):
    """Conv2d's text, and what Conv2d has not."""
    groups = {} if name == "LocalConv2d" else {"groups": 2}
    text = repr(make(name, **options, **groups))
    expected = repr(nn.Conv2d(4, 6, 3, **options, **groups)).replace("Conv2d", name)
    if name == "PixelAdaptiveConv2d":
        expected = expected.removesuffix(")") + ", sigma=1.0)"
    if name == "LocalConv2d":
        expected = expected.replace("stride", "input_size=(6, 7), stride")
    assert text == expected


def test_constructors_take_conv2ds_arguments_in_order():
    arguments = (4, 6, (3, 2), 2, 1, (1, 2), 1, False, "circular", "cpu", torch.float64)
    plain = nn.Conv2d(*arguments)
    for name in MODULES:
        layer = make(name, *arguments)
        for attribute in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"):
            assert getattr(layer, attribute) == getattr(plain, attribute)
        assert (layer.padding_mode, layer.bias, layer.weight.dtype) == ("circular", None, torch.float64)
