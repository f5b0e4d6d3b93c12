"""`gaussian_blur2d` and `bilateral_blur2d`: results, derivatives and torch's conventions."""

import contextlib
from importlib import import_module

import numpy as np
import pytest
from torch_blur_forms import (
    CASES,
    FUNCTIONS,
    ORACLES,
    X,
    bilateral_blur2d,
    call,
    each_case,
    each_function,
    example,
    gaussian_blur2d,
    names,
    positive,
    scripted,
    tensors,
)
from torch_forms import (
    PADDINGS,
    VIEWS,
    assert_all_near,
    assert_near,
    draw,
    grad_like,
    layers,
    torch,
)

gradient = torch.autograd.grad
each_mode = pytest.mark.parametrize("mode", PADDINGS)
HALVES = ["float16", "bfloat16"]


# ---- the equations -------------------------------------------------------------------------------


@each_mode
@each_case
def test_the_unfold_formula(device, function, image, widths, extra, keywords, mode):
    operands = tensors(function, image, widths, extra, device=device)
    keywords = {**keywords, "padding_mode": mode}
    result = call(layers, function, widths, operands, **keywords)
    assert result.is_contiguous()
    assert_near(result, call(ORACLES, function, widths, operands, **keywords))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_case
def test_derivatives(device, function, image, widths, extra, keywords, dtype):
    operands = tensors(function, image, widths, extra, dtype, device, leaf=True)
    result = call(layers, function, widths, operands, **keywords)
    g = grad_like(result)
    found = gradient(result, operands, g)
    wide = [operand.detach().double().requires_grad_() for operand in operands]
    expected = gradient(call(ORACLES, function, widths, wide, **keywords), wide, g.double())
    for ours, theirs, operand in zip(found, expected, operands, strict=True):
        assert (ours.shape, ours.dtype) == (operand.shape, operand.dtype)
        tolerance = 1e-5 if dtype == "float32" else 1e-12
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm()


@each_mode
@each_function
def test_gradcheck(device, function, mode):
    for number in range(len(CASES[function])):
        widths, operands, keywords = example(function, number, device=device, leaf=True)

        def run(*operands, widths=widths, keywords=keywords):
            return call(layers, function, widths, operands, **keywords, padding_mode=mode)

        assert torch.autograd.gradcheck(run, operands, fast_mode=True)


def test_numbers_are_widths(device):
    x = draw(X, device=device)
    assert_near(layers.gaussian_blur2d(x, 0.8), gaussian_blur2d(x, 0.8))
    expected = gaussian_blur2d(x, (0.5, 0.9), 0.3)
    for sigma in ((0.5, 0.9), [0.5, np.float64(0.9)], torch.tensor([0.5, 0.9], dtype=x.dtype, device=device)):
        assert_near(layers.gaussian_blur2d(x, sigma, 0.3), expected)
    assert_near(layers.bilateral_blur2d(x, 0.8, 1.5), bilateral_blur2d(x, 0.8, 1.5))


def test_a_tensor_of_two_widths_gets_its_gradient(device):
    x = draw(X, device=device)
    sigma = torch.tensor([0.5, 0.9], dtype=x.dtype, device=device).requires_grad_()
    g = grad_like(x)
    (found,) = gradient(layers.gaussian_blur2d(x, sigma, truncate=2.0), sigma, g)
    (expected,) = gradient(gaussian_blur2d(x, tuple(sigma), truncate=2.0), sigma, g)
    assert_near(found, expected)


@each_function
def test_widths_of_0_leave_pixels_as_they_are(device, function):
    x = draw(X, device=device).requires_grad_()
    zero = torch.zeros(7, 8, dtype=x.dtype, device=device).requires_grad_()
    result = getattr(layers, function)(x, *(zero,) * (len(names(function)) - 1))
    assert torch.equal(result, x)
    g = grad_like(result)
    into_x, into_zero = gradient(result, [x, zero], g)
    assert torch.equal(into_x, g)
    assert not into_zero.any()


@each_function
def test_double_backward_raises(device, function):
    widths, operands, keywords = example(function, device=device, leaf=True)
    result = call(layers, function, widths, operands, **keywords)
    first, *_ = gradient(result.square().sum(), operands, create_graph=True)
    with pytest.raises(RuntimeError, match=rf"{function}_gradient.*no autograd formula"):
        first.sum().backward()


@each_function
def test_only_the_gradients_asked_for_are_computed(device, function):
    widths, operands, keywords = example(function, device=device)
    for number, operand in enumerate(operands):
        leaves = [*operands]
        leaves[number] = operand.detach().requires_grad_()
        result = call(layers, function, widths, leaves, **keywords)
        (alone,) = gradient(result, leaves[number], grad_like(result))
        every = [operand.detach().requires_grad_() for operand in operands]
        result = call(layers, function, widths, every, **keywords)
        assert torch.equal(alone, gradient(result, every, grad_like(result))[number])


# ---- torch's conventions -------------------------------------------------------------------------


@pytest.mark.parametrize("view", [*VIEWS, "expanded", "channels_last"])
@each_function
def test_strided_operands(device, function, view):
    make = VIEWS.get(view, lambda tensor: tensor[(slice(0, 1),) * tensor.ndim].expand(tensor.shape))
    widths, (x, *others), keywords = example(function, device=device)
    if view == "channels_last":
        views = [x.contiguous(memory_format=torch.channels_last), *others]
    else:
        views = [make(operand) if operand.ndim else operand for operand in (x, *others)]
    assert not views[0].is_contiguous()
    views = [operand.detach().requires_grad_() for operand in views]
    plain = [operand.detach().contiguous().requires_grad_() for operand in views]
    result, expected = (call(layers, function, widths, each, **keywords) for each in (views, plain))
    assert_near(result, expected)
    g = grad_like(result)
    assert_all_near(gradient(result, views, g), gradient(expected, plain, g))


@pytest.mark.parametrize("dtype", HALVES)
@each_function
def test_half_precision(device, function, dtype):
    """Summed in float32, and rounded once."""
    widths, operands, keywords = example(function, 2, dtype, device, leaf=True)
    result = call(layers, function, widths, operands, **keywords)
    wide = [operand.detach().double().requires_grad_() for operand in operands]
    expected = call(layers, function, widths, wide, **keywords)
    assert_near(result, expected)
    g = grad_like(result)
    found, theirs = gradient(result, operands, g), gradient(expected, wide, g.double())
    assert [ours.dtype for ours in found] == [operand.dtype for operand in operands]
    for ours, exact in zip(found, theirs, strict=True):
        assert (ours.double() - exact).norm() <= (2e-3 if dtype == "float16" else 1e-2) * exact.norm()


@each_function
def test_widths_may_have_another_dtype(device, function):
    widths, (x, *others), keywords = example(function, 1, device=device)
    result = call(layers, function, widths, [x.half(), *others], **keywords)
    assert result.dtype == torch.float16
    assert_near(result, call(layers, function, widths, [x.half().double(), *others], **keywords))


@pytest.mark.parametrize("inner", HALVES)
@each_function
def test_autocast_is_float32(device, function, inner):
    widths, operands, keywords = example(function, 2, "float32", device, leaf=True)
    expected = call(layers, function, widths, operands, **keywords)
    with torch.autocast(device, getattr(torch, inner)):
        assert torch.equal(call(layers, function, widths, operands, **keywords), expected)
        narrow = [operand.detach().half() for operand in operands]
        result = call(layers, function, widths, narrow, **keywords)
        doubles = [operand.double() for operand in operands]
        assert call(layers, function, widths, doubles, **keywords).dtype == torch.float64
    assert torch.equal(result, call(layers, function, widths, [o.float() for o in narrow], **keywords))


@each_function
def test_nothing_to_do(device, function):
    x = torch.zeros(0, 3, 7, 8, device=device).requires_grad_()
    widths = [torch.ones(7, 8, device=device).requires_grad_() for _ in names(function)[1:]]
    result = getattr(layers, function)(x, *widths)
    assert result.shape == x.shape
    for found, operand in zip(gradient(result.sum(), [x, *widths]), [x, *widths], strict=True):
        assert found.shape == operand.shape
        assert not found.any()


@each_function
def test_results_and_gradients_are_torchs_own_memory(device, function):
    widths, operands, keywords = example(function, device=device, leaf=True)
    result = call(layers, function, widths, operands, **keywords)
    for tensor in (result, *gradient(result, operands, grad_like(result))):
        assert tensor.untyped_storage().resizable()
        assert tensor.is_contiguous()


@each_function
def test_operands_are_read_and_results_written_in_place(device, monkeypatch, function):
    backend = import_module("cuvarconv._cpu" if device == "cpu" else "cuvarconv._gpu")
    name, seen = function.removesuffix("_blur2d"), []
    original = getattr(backend, name)

    def watched(*arguments, **keywords):
        flat = [part for given in arguments for part in (given if isinstance(given, tuple) else (given,))]
        seen.extend(pointer(part) for part in flat if hasattr(part, "strides"))
        return original(*arguments, **keywords)

    monkeypatch.setattr(backend, name, watched)
    widths, operands, keywords = example(function, device=device)
    result = call(layers, function, widths, operands, **keywords)
    assert set(seen) == {tensor.data_ptr() for tensor in (*operands, result)}


def pointer(array):
    """Return where the first element of a backend's array lies."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return interface["data"][0]


# ---- transforms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
@each_case
def test_compile(device, function, image, widths, extra, keywords, dynamic):
    torch._dynamo.reset()

    def run(*operands):
        return call(layers, function, widths, operands, **keywords)

    operands = tensors(function, image, widths, extra, device=device, leaf=True)
    fast = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    result, expected = fast(*operands), run(*operands)
    assert_near(result, expected)
    g = grad_like(expected)
    assert_all_near(gradient(result, operands, g), gradient(expected, operands, g))


def test_changes_before_backward_are_noticed(device):
    for function in FUNCTIONS:
        widths, operands, keywords = example(function, device=device, leaf=True)
        used = [operand * 1 for operand in operands]
        result = call(layers, function, widths, used, **keywords)
        used[-1].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            result.sum().backward()


@pytest.mark.parametrize("image", [(1, 1, 1, 1), (2, 1, 1, 5), (2, 6, 1)], ids=str)
@each_mode
def test_images_smaller_than_the_window(device, mode, image):
    """Each is a mean of what lies in the image, or, under zeros, less."""
    x = torch.ones(image, dtype=torch.float64, device=device).requires_grad_()
    sigma = positive(image[-2:], device=device).requires_grad_()
    for result in (
        layers.gaussian_blur2d(x, sigma, padding_mode=mode),
        layers.bilateral_blur2d(x, sigma, 1.0, padding_mode=mode),
    ):
        inside = result.detach()
        assert (inside < 1).all() if mode == "zeros" else torch.allclose(inside, torch.ones_like(inside))
        assert all(g.isfinite().all() for g in gradient(result.sum(), [x, sigma]))


def test_a_width_is_learned(device):
    x = draw((1, 2, 12, 12), device=device)
    wanted = layers.gaussian_blur2d(x, 1.3, radius=4)
    sigma = torch.tensor(0.5, dtype=x.dtype, device=device).requires_grad_()
    optimizer = torch.optim.LBFGS([sigma], max_iter=30, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        error = (layers.gaussian_blur2d(x, sigma, radius=4) - wanted).square().sum()
        error.backward()
        return error

    optimizer.step(loss)
    assert sigma.item() == pytest.approx(1.3, abs=1e-4)


def test_compile_with_numbers(device):
    torch._dynamo.reset()

    def run(x, sigma):
        return layers.bilateral_blur2d(layers.gaussian_blur2d(x, sigma), 2 * sigma, 0.5, radius=2)

    fast, x = torch.compile(run, fullgraph=True, backend="aot_eager"), draw(X, device=device)
    for sigma in (0.4, 0.7, 0.9):
        assert_near(fast(x, sigma), run(x, sigma))


@each_function
def test_opcheck(device, function):
    for number in (0, 3):
        image, widths, extra, _ = CASES[function][number]
        operands = tensors(function, image, widths, extra, device=device, leaf=True)
        absent = [None] * (4 - len(operands))
        operator = getattr(torch.ops.cuvarconv, function).default
        options = (2.0, [] if function == "gaussian_blur2d" else None, "mirror")
        if function == "gaussian_blur2d" and len(widths) == 1:
            operands.insert(2, None)
            absent.pop()
        torch.library.opcheck(operator, (*operands, *absent, *options))
        derivative = getattr(torch.ops.cuvarconv, f"{function}_gradient").default
        plain = [None if operand is None else operand.detach() for operand in (*operands, *absent)]
        wanted = [operand is not None for operand in plain]
        torch.library.opcheck(derivative, (draw(image, device=device), *plain, *options, wanted))


@each_function
def test_meta_tensors_give_shapes(function):
    widths, operands, keywords = example(function, 3)
    result = call(layers, function, widths, [operand.to("meta") for operand in operands], **keywords)
    assert (result.device.type, result.shape) == ("meta", operands[0].shape)


@each_function
def test_vmap(device, function):
    widths, operands, keywords = example(function, device=device)
    many = torch.stack([operands[0], -operands[0]])
    run = torch.vmap(lambda x: call(layers, function, widths, [x, *operands[1:]], **keywords))
    for at, result in enumerate(run(many)):
        assert_near(result, call(layers, function, widths, [many[at], *operands[1:]], **keywords))


@each_function
def test_vmap_over_gradients_is_refused(device, function):
    widths, operands, keywords = example(function, device=device, leaf=True)
    result = call(layers, function, widths, operands, **keywords)
    seeds = torch.stack([grad_like(result)] * 2)
    with pytest.raises(RuntimeError, match="Batching rule not implemented"):
        gradient(result, operands, seeds, is_grads_batched=True)


@scripted
@each_function
def test_forward_mode_raises(device, function):
    widths, operands, keywords = example(function, device=device)
    for number, operand in enumerate(operands):
        with torch.autograd.forward_ad.dual_level():
            dual = [*operands]
            dual[number] = torch.autograd.forward_ad.make_dual(operand, torch.ones_like(operand))
            with pytest.raises(NotImplementedError, match="forward-mode"):
                call(layers, function, widths, dual, **keywords)


@scripted
@each_function
def test_functional_gradients(device, function):
    """Right, or refused."""
    widths, operands, keywords = example(function, device=device)

    def loss(*operands):
        return call(layers, function, widths, operands, **keywords).square().sum()

    leaves = [operand.detach().requires_grad_() for operand in operands]
    expected = gradient(loss(*leaves), leaves)
    every = tuple(range(len(operands)))
    with contextlib.suppress(NotImplementedError, RuntimeError):
        assert_all_near(torch.func.grad(loss, argnums=every)(*operands), expected)
