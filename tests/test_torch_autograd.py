"""Derivatives of cuvarconv.torch: against autograd through F.unfold, and finite differences."""

import pytest
import torch_forms
from torch_forms import (
    CASE_NAMES,
    CASES,
    EACH_CASE,
    FORMS,
    VIEWS,
    affinity2d,
    assert_all_near,
    assert_near,
    call,
    draw,
    drawn,
    formula,
    functional,
    geometries,
    grad_like,
    layers,
    shapes,
    torch,
)

each_case = pytest.mark.parametrize(("function", "case", "keywords"), EACH_CASE, ids=CASE_NAMES)
each_form = pytest.mark.parametrize("function", FORMS)
precisions = pytest.mark.parametrize("dtype", ["float64", "complex128"])
gradient = torch.autograd.grad


def derivatives(result, operands, orders):
    """Return derivatives of every order up to `orders`: of ⟨g, result⟩, then of ⟨directions, those⟩."""
    found, outputs, seeds = [], [result], [grad_like(result).requires_grad_()]
    inputs = [*operands]
    for order in range(orders):
        firsts = gradient(outputs, inputs, seeds, create_graph=True)
        found.extend(firsts)
        inputs = [*operands, *seeds]
        outputs = firsts
        seeds = [draw(first.shape, *kind(first), 30 + order).requires_grad_() for first in firsts]
    return found


def kind(tensor):
    return str(tensor.dtype).removeprefix("torch."), tensor.device


# ---- the equations -------------------------------------------------------------------------------


@precisions
@each_case
def test_derivatives_of_the_first_three_orders(device, function, case, keywords, dtype):
    operands = drawn(case, dtype, device, leaf=True)
    ours = derivatives(call(function, operands, **keywords), operands, 3)
    theirs = derivatives(formula(function, operands, **keywords), operands, 3)
    assert len(ours) > 3 * len(operands)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-11)


@each_form
def test_every_padding_stride_and_dilation(device, function):
    for geometry in geometries():
        operands = drawn(shapes(function, **geometry), device=device, leaf=True)
        result = call(function, operands, **geometry)
        expected = formula(function, operands, **geometry)
        g = grad_like(result)
        assert_all_near(gradient(result, operands, g), gradient(expected, operands, g))


@pytest.mark.parametrize("sigma", [0.5, 3])
def test_gradients_of_affinity(device, sigma):
    """The padding may hold the centre as well, but features of 0 that stand there get no gradient."""
    guide = draw((2, 3, 5, 6), device=device).requires_grad_()
    for geometry in [*geometries(), {"padding": 4}, {"padding": (3, 2), "dilation": 2, "stride": 2}]:
        result = layers.affinity2d(guide, (3, 2), sigma, **geometry)
        g = grad_like(result)
        expected = gradient(affinity2d(guide, (3, 2), sigma, **geometry), guide, g)
        assert_all_near(gradient(result, guide, g), expected)


@pytest.mark.parametrize("function", ["modulated_conv2d", "local_conv2d"])
def test_gradients_of_the_bias(device, function):
    case, keywords = CASES[function][1]
    operands = drawn(case, device=device, leaf=True)
    plain = formula(function, operands, **keywords)
    per_channel, per_pixel = plain.shape[1:2], plain.shape[1:]
    for shape in [per_channel] if function == "modulated_conv2d" else [per_channel, per_pixel]:
        bias = draw(shape, device=device).requires_grad_()
        g = grad_like(plain)
        found = gradient(call(function, [*operands, bias], **keywords), [*operands, bias], g)
        assert_near(found[-1], g.sum(0) if bias.ndim == 3 else g.sum((0, 2, 3)))
        assert_all_near(found[:-1], gradient(plain, operands, g, retain_graph=True))


# ---- finite differences --------------------------------------------------------------------------


@precisions
@each_case
def test_gradcheck(device, function, case, keywords, dtype):
    operands = drawn(case, dtype, device, leaf=True)

    def run(*operands):
        return call(function, operands, **keywords)

    assert torch.autograd.gradcheck(run, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, operands, fast_mode=True)


@precisions
@each_form
def test_gradcheck_of_every_element(device, function, dtype):
    geometry = {"padding": (1, 0), "stride": (1, 2), "padding_mode": "reflect"}
    operands = drawn(shapes(function, (2, 4), (2, 2), batch=(1,), **geometry), dtype, device, leaf=True)

    def run(*operands):
        return call(function, operands, **geometry)

    assert torch.autograd.gradcheck(run, operands, check_undefined_grad=True)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_gradcheck_of_affinity(device, mode):
    guide = draw((1, 2, 3, 4), device=device).requires_grad_()

    def run(guide):
        return layers.affinity2d(guide, (3, 2), 1.3, padding=1, padding_mode=mode, stride=(2, 1))

    assert torch.autograd.gradcheck(run, guide)


def test_double_backward_through_affinity_raises(device):
    guide = draw((1, 2, 3, 4), device=device).requires_grad_()
    (first,) = gradient(layers.affinity2d(guide, 3, padding=1).sum(), guide, create_graph=True)
    assert first.requires_grad
    with pytest.raises(RuntimeError, match=r"affinity_gradient.*no autograd formula"):
        first.sum().backward()


# ---- how gradients come in and go out ------------------------------------------------------------


@each_form
@pytest.mark.parametrize("view", [*VIEWS, "expanded", "conjugated"])
def test_strided_gradients(device, function, view):
    """As `sum` sends them, with stride 0, and of any other kind."""
    case, keywords = CASES[function][1]
    operands = drawn(case, "complex128", device, leaf=True)
    result = call(function, operands, **keywords)
    g = grad_like(result)
    g = {"expanded": lambda g: g[:1, :1, :1, :1].expand_as(g), "conjugated": torch.conj, **VIEWS}[view](g)
    assert g.is_conj() or not g.is_contiguous()
    expected = gradient(formula(function, operands, **keywords), operands, g)
    assert_all_near(gradient(result, operands, g), expected)


@each_form
@pytest.mark.parametrize("view", [*VIEWS, "expanded"])
def test_strided_operands(device, function, view):
    make = VIEWS.get(view, lambda tensor: tensor[(slice(0, 1),) * tensor.ndim].expand(tensor.shape))
    case, keywords = CASES[function][1]
    operands = [make(operand).requires_grad_() for operand in drawn(case, device=device)]
    assert not any(operand.is_contiguous() for operand in operands)
    result = call(function, operands, **keywords)
    g = grad_like(result)
    found = gradient(result, operands, g)
    assert [ours.shape for ours in found] == [operand.shape for operand in operands]
    assert_all_near(found, gradient(formula(function, operands, **keywords), operands, g))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@each_form
def test_dtypes(device, function, dtype):
    case, keywords = CASES[function][1]
    operands = drawn(case, dtype, device, leaf=True)
    result = call(function, operands, **keywords)
    g = grad_like(result)
    found = gradient(result, operands, g)
    wide = torch.complex128 if result.is_complex() else torch.float64
    doubles = [operand.detach().to(wide).requires_grad_() for operand in operands]
    expected = gradient(formula(function, doubles, **keywords), doubles, g.to(wide))
    assert all(ours.dtype == operand.dtype for ours, operand in zip(found, operands, strict=True))
    assert_all_near(found, expected)


# Gradients that are sums of so many ones: half precision alone would stand still at 2048 or 256.
SUMS = {
    ("modulated_conv2d", "input"): ([(1, 1, 1, 1), (1, 1, 4225, 1), (4225, 1)], (4224, 0), 4225),
    ("modulated_conv2d", "weight"): ([(1, 1, 60, 70), (1, 1, 1, 1), (1, 1)], 0, 4200),
    ("modulated_conv2d", "modulation"): ([(1, 1, 60, 70), (1, 1, 1, 1), (1, 1)], 0, 4200),
    ("pixelwise_conv2d", "input"): ([(1, 1, 1, 1), (65, 65)], 64, 4225),
    ("pixelwise_conv2d", "kernels"): ([(4225, 2, 1, 2), (1, 1, 2, 1, 1)], 0, 8450),
    ("local_conv2d", "input"): ([(1, 1, 1, 1), (600, 1, 600, 1, 1, 9)], (599, 0), 5400),
    ("local_conv2d", "kernels"): ([(3000, 1, 1, 1), (1, 1, 1, 1, 1, 1)], 0, 3000),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("function", "name"), SUMS)
def test_half_precision_is_summed_in_float32(device, function, name, dtype):
    case, padding, total = SUMS[function, name]
    operands = [torch.ones(shape, dtype=dtype, device=device).requires_grad_() for shape in case]
    result = call(function, operands, padding=padding)
    (found,) = gradient(result, operands[FORMS[function].index(name)], torch.ones_like(result))
    assert torch.equal(found, torch.full_like(found, total))


@each_form
def test_autocast(device, function):
    """Parameters stay in float32, and so do their gradients; inside and outside of the context."""
    case, keywords = CASES[function][1]
    operands = drawn(case, "float32", device, leaf=True)
    with torch.autocast(device, torch.bfloat16):
        result = call(function, operands, **keywords)
        g = grad_like(result)
        inside = gradient(result, operands, g, retain_graph=True)
    outside = gradient(result, operands, g)
    halves = [operand.detach().bfloat16().requires_grad_() for operand in operands]
    expected = gradient(call(function, halves, **keywords), halves, g)
    for one, other, half in zip(inside, outside, expected, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, half.float())
        assert torch.equal(other, half.float())


@each_form
def test_an_operand_that_changes_before_backward_is_noticed(device, function):
    case, keywords = CASES[function][0]
    operands = drawn(case, device=device, leaf=True)
    used = [operand * 1 for operand in operands]
    result = call(function, used, **keywords)
    used[-1].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


@each_form
def test_gradients_of_gradients_are_made_only_on_demand(device, function):
    case, keywords = CASES[function][0]
    operands = drawn(case, device=device, leaf=True)
    for graph in (False, True):
        result = call(function, operands, **keywords)
        assert all(g.requires_grad == graph for g in gradient(result.sum(), operands, create_graph=graph))


def test_the_same_tensor_twice(device):
    """Its gradient is the sum of both, and their second derivative is there."""
    x = draw((3, 3), device=device).requires_grad_()

    def square(function):
        return function(x[None, None], x).square().sum()

    ours, theirs = (
        gradient(square(function), x, create_graph=True)[0]
        for function in (layers.pixelwise_conv2d, lambda x, k: (x * k).sum((-2, -1), keepdim=True))
    )
    assert_near(ours, theirs)
    assert_all_near(gradient(ours.sum(), x), gradient(theirs.sum(), x))


def test_checkpointing(device):
    case, keywords = CASES["modulated_conv2d"][0]
    operands = drawn(case, device=device, leaf=True)

    def block(*operands):
        return functional.relu(call("modulated_conv2d", operands, **keywords))

    again = torch.utils.checkpoint.checkpoint(block, *operands, use_reentrant=False)
    assert_all_near(gradient(again.sum(), operands), gradient(block(*operands).sum(), operands))


def test_pixel_adaptive_convolution_trains_its_guide(device):
    shapes = {"input": (2, 4, 5, 6), "weight": (3, 4, 3, 3), "guide": (2, 3, 5, 6)}
    x, weight, guide = drawn(shapes.values(), device=device, leaf=True)
    ours, theirs = (
        functions.modulated_conv2d(x, weight, functions.affinity2d(guide, 3, 2.0, padding=1), padding=1)
        for functions in (layers, torch_forms)
    )
    g = grad_like(ours)
    assert_all_near(gradient(ours, [x, weight, guide], g), gradient(theirs, [x, weight, guide], g))
