"""cuvarconv.torch under vmap, forward mode, torch.func and torch.library.opcheck."""

import pytest
import torch_forms
from torch_forms import (
    CASE_NAMES,
    CASES,
    EACH_CASE,
    FORMS,
    assert_all_near,
    assert_near,
    call,
    draw,
    drawn,
    formula,
    grad_like,
    torch,
    transposed,
)

each_case = pytest.mark.parametrize(("function", "case", "keywords"), EACH_CASE, ids=CASE_NAMES)
each_form = pytest.mark.parametrize("function", FORMS)
each_function = pytest.mark.parametrize("function", [*FORMS, "affinity2d"])
TorchDispatchMode = torch.utils._python_dispatch.TorchDispatchMode
gradient = torch.autograd.grad
# torch's own formulas for forward mode are TorchScript; it warns of that when it loads them.
scripted = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script` is deprecated:DeprecationWarning")


def example(function, device, *, leaf=False):
    """Return operands and keywords of a call of any of the four functions."""
    if function == "affinity2d":
        return drawn([(2, 3, 5, 4)], device=device, leaf=leaf), {"kernel_size": (3, 2), "padding": "same"}
    case, keywords = CASES[function][1]
    return drawn(case, device=device, leaf=leaf), keywords


# ---- vmap ----------------------------------------------------------------------------------------


@each_function
def test_vmap(device, function):
    """Over any one operand, and over all of them, along any axis."""
    operands, keywords = example(function, device)
    many = [torch.stack([operand, -operand, 2 * operand], -1) for operand in operands]
    every = [[number] for number in range(len(operands))] + [[*range(len(operands))]]
    for mapped in every:
        axes = tuple(-1 if number in mapped else None for number in range(len(operands)))
        chosen = [many[n] if n in mapped else operand for n, operand in enumerate(operands)]
        result = torch.vmap(lambda *one: call(function, one, **keywords), in_dims=axes)(*chosen)
        for at in range(3):
            alone = [many[n][..., at] if n in mapped else operand for n, operand in enumerate(operands)]
            assert_near(result[at], call(function, alone, **keywords))


@each_function
def test_vmap_over_gradients(device, function):
    operands, keywords = example(function, device, leaf=True)
    result = call(function, operands, **keywords)
    seeds = [grad_like(result, seed) for seed in range(3)]
    together = gradient(result, operands, torch.stack(seeds), is_grads_batched=True, retain_graph=True)
    for number, seed in enumerate(seeds):
        alone = gradient(result, operands, seed, retain_graph=True)
        assert_all_near([many[number] for many in together], alone)


# ---- right, or an error --------------------------------------------------------------------------


def right_or_refused(compute, expected):
    """Compare what a transform gives, unless it says that it cannot."""
    try:
        found = compute()
    except (NotImplementedError, RuntimeError):
        return
    assert_all_near(torch.utils._pytree.tree_leaves(found), expected)


def tangent(function, operands, number, direction, **keywords):
    """Return the derivative along a direction of one operand; each result is linear in each operand."""
    if function == "affinity2d":
        step = 1e-6 * direction
        ahead, behind = (torch_forms.affinity2d(operands[0] + s * step, **keywords) for s in (1, -1))
        return (ahead - behind) / 2e-6
    operands = [*operands]
    operands[number] = direction
    return formula(function, operands, **keywords)


@scripted
@each_function
@pytest.mark.parametrize("leaf", [False, True])
def test_forward_mode(device, function, leaf):
    operands, keywords = example(function, device, leaf=leaf)
    for number, operand in enumerate(operands):
        direction = draw(operand.shape, device=device, seed=50)
        others = [*operands]

        def run(number=number, operand=operand, direction=direction, others=others):
            with torch.autograd.forward_ad.dual_level():
                others[number] = torch.autograd.forward_ad.make_dual(operand, direction)
                result = call(function, others, **keywords)
                return torch.autograd.forward_ad.unpack_dual(result).tangent

        right_or_refused(run, [tangent(function, operands, number, direction, **keywords)])


@scripted
@each_function
def test_functional_forward_mode(device, function):
    operands, keywords = example(function, device)
    direction = draw(operands[-1].shape, device=device, seed=50)

    def run(last):
        return call(function, [*operands[:-1], last], **keywords)

    expected = tangent(function, operands, len(operands) - 1, direction, **keywords)
    right_or_refused(lambda: torch.func.jvp(run, (operands[-1],), (direction,))[1], [expected])


@scripted
@each_function
@pytest.mark.parametrize("transform", ["grad", "jacrev", "vjp", "jacfwd"])
def test_functional_gradients(device, function, transform):
    operands, keywords = example(function, device, leaf=True)

    def loss(first):
        return call(function, [first, *operands[1:]], **keywords).square().sum()

    expected = gradient(loss(operands[0]), operands[0])
    first = operands[0].detach()
    compute = {
        "grad": lambda: torch.func.grad(loss)(first),
        "jacrev": lambda: torch.func.jacrev(loss)(first),
        "jacfwd": lambda: torch.func.jacfwd(loss)(first),
        "vjp": lambda: torch.func.vjp(loss, first)[1](first.new_ones(())),
    }[transform]
    right_or_refused(compute, expected)


@scripted
@each_function
def test_forward_over_reverse(device, function):
    """Hessian times vector of the sum of squares."""
    operands, keywords = example(function, device, leaf=True)
    direction = draw(operands[0].shape, device=device, seed=50)

    def slope(make, first):
        result = make(function, [first, *operands[1:]], **keywords)
        return gradient(result.square().sum(), first, create_graph=True)[0]

    def run():
        with torch.autograd.forward_ad.dual_level():
            first = torch.autograd.forward_ad.make_dual(operands[0], direction)
            return torch.autograd.forward_ad.unpack_dual(slope(call, first)).tangent

    right_or_refused(run, gradient(slope(formula, operands[0]), operands[0], direction))


# ---- torch.library -------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """Keeps the library's operators that are called, with their arguments."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        if operator.namespace == "cuvarconv":
            self.calls.append((operator, arguments))
        return operator(*arguments, **keywords or {})


def operators(function, operands, **keywords):
    """Return every operator that a call and its backward reach, with the arguments that reach it."""
    with Watch() as watch:
        result = call(function, operands, **keywords)
        gradient(result, operands, transposed(grad_like(result)))
    assert len(watch.calls) == 1 + len(operands)
    return watch.calls


@each_function
def test_opcheck(device, function):
    operands, keywords = example(function, device, leaf=True)
    for operator, arguments in operators(function, operands, **keywords):
        differentiable = "affinity_gradient" not in operator.name()
        leaves = [
            argument.detach().requires_grad_(differentiable)
            if isinstance(argument, torch.Tensor)
            else argument
            for argument in arguments
        ]
        torch.library.opcheck(operator, leaves)


@each_function
def test_fake_tensors_have_the_strides_of_real_ones(device, function):
    operands, keywords = example(function, device)
    views = [transposed(operand).requires_grad_() for operand in operands]
    for operator, arguments in operators(function, views, **keywords):
        assert not any(argument.is_contiguous() for argument in arguments if hasattr(argument, "stride"))
        torch.library.opcheck(operator, arguments, test_utils="test_faketensor")
