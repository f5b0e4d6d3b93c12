"""`gaussian_blur2d` and `bilateral_blur2d`: results, derivatives, torch's conventions and wrong calls."""

import contextlib
import re
from importlib import import_module

import numpy as np
import pytest
from reference import pair
from torch_forms import (
    PADDINGS,
    VIEWS,
    assert_all_near,
    assert_near,
    draw,
    grad_like,
    layers,
    patches,
    torch,
)

gradient = torch.autograd.grad
FUNCTIONS = ("gaussian_blur2d", "bilateral_blur2d")
each_function = pytest.mark.parametrize("function", FUNCTIONS)
each_mode = pytest.mark.parametrize("mode", PADDINGS)
HALVES = ["float16", "bfloat16"]


# ---- the oracles ---------------------------------------------------------------------------------


def mean(x, weights, reach, padding_mode):
    """Return Σ w x / Σ w over windows (kh, kw, N, C, H, W)."""
    under = patches(x, [2 * r + 1 for r in reach], padding=tuple(reach), padding_mode=padding_mode)
    return (weights * under).sum((0, 1)) / weights.sum((0, 1))


def steps(reach, like):
    """Return how far taps lie below and right of the centre, (kh, 1, 1, …) and (kw, 1, …)."""
    down, right = (torch.arange(-r, r + 1, dtype=like.dtype, device=like.device) for r in reach)
    return down.reshape(-1, *(1,) * 5), right.reshape(-1, *(1,) * 4)


def gaussian_blur2d(x, sigma, angle=None, radius=None, truncate=4.0, padding_mode="reflect"):
    """Unfold, weigh, divide; each pixel's radii are constants."""
    if x.ndim == 3:
        return gaussian_blur2d(x[None], sigma, angle, radius, truncate, padding_mode)[0]
    one = x.new_ones(())
    both = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    sigmas = [(one * s).expand(x.shape) for s in both]
    cosine, sine = (f(one * (0.0 if angle is None else angle)) for f in (torch.cos, torch.sin))
    with torch.no_grad():
        if radius is None:
            (a, b), (c, s) = sigmas, (cosine.abs(), sine.abs())
            turned = torch.hypot(a * c, b * s), torch.hypot(a * s, b * c)
            radii = [(truncate * width + 0.5).floor() for width in turned]
        else:
            radii = [r * (s > 0) for r, s in zip(pair(radius), sigmas, strict=True)]
        reach = [int(r.max()) for r in radii]
        safe = [torch.where(s > 0, 0, 1) for s in sigmas]
    down, right = steps(reach, x)
    u, v = cosine * down + sine * right, cosine * right - sine * down
    weights = torch.exp(-0.5 * ((u / (sigmas[0] + safe[0])) ** 2 + (v / (sigmas[1] + safe[1])) ** 2))
    exists = (down.abs() <= radii[0]) & (right.abs() <= radii[1])
    return mean(x, weights * exists, reach, padding_mode)


def bilateral_blur2d(x, spatial, range_, guide=None, radius=None, truncate=4.0, padding_mode="reflect"):
    """Unfold, weigh, divide; each pixel's radius is a constant."""
    if x.ndim == 3:
        alone = None if guide is None else guide[None]
        return bilateral_blur2d(x[None], spatial, range_, alone, radius, truncate, padding_mode)[0]
    guide = x if guide is None else guide
    spatial, range_ = (x.new_ones(()) * s for s in (spatial, range_))
    with torch.no_grad():
        radii = (truncate * spatial + 0.5).floor() if radius is None else x.new_tensor(radius)
        reach = [int(radii.max())] * 2
    down, right = steps(reach, x)
    under = patches(guide, [2 * r + 1 for r in reach], padding=tuple(reach), padding_mode=padding_mode)
    distance = (under - guide).square().sum(3, keepdim=True)
    weights = torch.exp(-0.5 * ((down**2 + right**2) / spatial**2 + distance / range_**2))
    exists = (down.abs() <= radii) & (right.abs() <= radii)
    return mean(x, weights * exists, reach, padding_mode)


def positive(shape, dtype="float64", device="cpu", seed=0):
    """Return widths between 0.4 and 1.2."""
    return 0.4 + 0.8 * torch.sigmoid(draw(shape, dtype, device, seed))


def names(function):
    return ("input", "sigma") if function == "gaussian_blur2d" else ("input", "sigma_spatial", "sigma_range")


X = (2, 3, 7, 8)
CASES = {  # the shape of the image, those of the widths, of what is optional, and keywords
    "gaussian_blur2d": [
        (X, [()], None, {"truncate": 3.0}),
        (X, [(7, 8)], None, {"truncate": 2.5}),
        (X, [(2, 1, 7, 8), (3, 1, 1)], None, {"truncate": 2.0}),
        (X, [(2, 3, 7, 8), ()], (7, 1), {"truncate": 2.0}),
        (X[1:], [(7, 1), (1, 8)], (3, 7, 8), {"radius": (1, 3)}),
    ],
    "bilateral_blur2d": [
        (X, [(), ()], None, {"truncate": 3.0}),
        (X, [(7, 8), (2, 1, 7, 8)], None, {"truncate": 2.0}),
        (X, [(2, 1, 1, 8), ()], (2, 2, 7, 8), {"radius": 2}),
        (X, [(1, 7, 8), (7, 1)], (1, 1, 7, 8), {"truncate": 2.0}),
        (X[1:], [(1, 7, 8), ()], (2, 7, 8), {"truncate": 2.5}),
    ],
}
EACH_CASE = [(function, *case) for function, cases in CASES.items() for case in cases]
CASE_NAMES = [f"{function}-{number}" for function, cases in CASES.items() for number in range(len(cases))]
each_case = pytest.mark.parametrize(
    ("function", "image", "widths", "extra", "keywords"), EACH_CASE, ids=CASE_NAMES
)
# torch's own formulas for forward mode are TorchScript; it warns of that when it loads them.
scripted = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script` is deprecated:DeprecationWarning")


def tensors(function, image, widths, extra, dtype="float64", device="cpu", *, leaf=False):
    """Return the operands of a case, in order; an angle or a guide comes last, if there is one."""
    operands = [draw(image, dtype, device)]
    operands += [positive(shape, dtype, device, seed) for seed, shape in enumerate(widths, start=1)]
    if extra is not None:
        operands.append(draw(extra, dtype, device, 7))
    return [operand.detach().requires_grad_(leaf) for operand in operands]


def call(functions, function, widths, operands, **keywords):
    """Call a function of the library, or its oracle, with the operands of a case."""
    count = len(widths)
    x, *sigmas = operands[: 1 + count]
    if function == "gaussian_blur2d":
        sigmas = [tuple(sigmas)] if count == 2 else sigmas
    run = functions[function] if isinstance(functions, dict) else getattr(functions, function)
    return run(x, *sigmas, *operands[1 + count :], **keywords)


ORACLES = {"gaussian_blur2d": gaussian_blur2d, "bilateral_blur2d": bilateral_blur2d}


def example(function, number=2, dtype="float64", device="cpu", *, leaf=False):
    """Return the widths, operands and keywords of a case."""
    image, widths, extra, keywords = CASES[function][number]
    return widths, tensors(function, image, widths, extra, dtype, device, leaf=leaf), keywords


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


# ---- wrong calls ---------------------------------------------------------------------------------

ONES = torch.ones(2, 3, 7, 8)
WIDTHS = [
    ("1", TypeError),
    (1j, TypeError),
    (torch.ones(7, 8, dtype=torch.int64), TypeError),
    (torch.ones(7, 8, dtype=torch.complex64), TypeError),
    (torch.ones(7, 8, device="meta"), TypeError),
    (torch.ones(7, 8).to_sparse(), TypeError),
    (torch.ones(8, 7), ValueError),
    (torch.ones(1, 1, 1, 7, 8), ValueError),
    (torch.ones(3, 1, 7, 8), ValueError),
    (-1.0, ValueError),
    (float("nan"), ValueError),
    (torch.full((7, 8), -1.0), ValueError),
]
OPTIONS = [
    ("radius", -1, ValueError),
    ("radius", 1.5, TypeError),
    ("truncate", -1.0, ValueError),
    ("truncate", float("inf"), ValueError),
    ("truncate", "4", TypeError),
    ("padding_mode", "mirror", ValueError),
    ("padding_mode", None, ValueError),
]


def assert_refused(function, name, error, **changes):
    base = {"input": ONES, **dict.fromkeys(names(function)[1:], 1.0)}
    with pytest.raises(error, match=rf"^{re.escape(name)}(\[\d\])?: "):
        getattr(layers, function)(**base | changes)


@pytest.mark.parametrize(("value", "error"), WIDTHS, ids=lambda value: re.sub(r"\s+", " ", repr(value))[:40])
@pytest.mark.parametrize("name", ["sigma", "sigma_spatial", "sigma_range"])
def test_wrong_widths(name, value, error):
    assert_refused("gaussian_blur2d" if name == "sigma" else "bilateral_blur2d", name, error, **{name: value})


@each_function
@pytest.mark.parametrize(("name", "value", "error"), OPTIONS, ids=str)
def test_wrong_options(function, name, value, error):
    assert_refused(function, name, error, **{name: value})


@pytest.mark.parametrize("radius", [(1, 2), [1, 1]], ids=str)
def test_the_bilateral_window_is_square(radius):
    assert_refused("bilateral_blur2d", "radius", TypeError, radius=radius)


@each_function
@pytest.mark.parametrize(
    ("value", "error"),
    [([1.0], TypeError), (ONES.int(), TypeError), (ONES[0, 0], ValueError), (ONES[None], ValueError)],
    ids=lambda value: "",
)
def test_wrong_inputs(function, value, error):
    assert_refused(function, "input", error, input=value)


@pytest.mark.parametrize("sigma", [(1.0,), (1.0, 1.0, 1.0), torch.ones(3), (1.0, -1.0), (1.0, "1")], ids=str)
def test_wrong_pairs(sigma):
    error = TypeError if "1" in tuple(sigma) else ValueError
    assert_refused("gaussian_blur2d", "sigma", error, sigma=sigma)


def test_wrong_angles():
    for angle, error in [("1", TypeError), (float("nan"), ValueError), (torch.ones(3, 3), ValueError)]:
        assert_refused("gaussian_blur2d", "angle", error, angle=angle)


@pytest.mark.parametrize(
    ("guide", "error"),
    [
        (ONES.double(), TypeError),
        (ONES.numpy(), TypeError),
        (ONES.to("meta"), TypeError),
        (ONES[..., :-1], ValueError),
        (torch.ones(3, 3, 7, 8), ValueError),
        (torch.ones(2, 0, 7, 8), ValueError),
        (ONES[0, 0], ValueError),
    ],
    ids=lambda value: "",
)
def test_wrong_guides(guide, error):
    assert_refused("bilateral_blur2d", "guide", error, guide=guide)


def test_complex_images():
    x = draw(X, "complex128")
    assert_near(layers.gaussian_blur2d(x, 0.7).real, layers.gaussian_blur2d(x.real.clone(), 0.7))
    with pytest.raises(TypeError, match=r"^input: .*real"):
        layers.bilateral_blur2d(x, 0.7, 1.0)
