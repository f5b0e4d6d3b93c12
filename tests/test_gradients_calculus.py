"""The gradients against finite differences, PyTorch's autograd, and each other's derivatives."""

import itertools

import numpy as np
import pytest
import reference
from forms import EACH_OPERAND, FORMS, MODES, forward, gradient, gradients, incoming, operands
from tolerances import assert_close, noise

import cuvarconv

each_operand = pytest.mark.parametrize(("function", "name"), EACH_OPERAND)

# Shapes of operands that broadcast in different ways, and the keywords to go with them.
CASES = {
    "correlate": [
        ([(2, 3, 5, 4), (3, 2, 5, 4)], {}),
        ([(2, 3, 5, 4), (3, 2)], {"mode": ("wrap", "mirror"), "origin": (1, -1)}),
        ([(2, 3, 5, 4), (2, 3, 3, 1, 1)], {"mode": "constant", "cval": 1.5, "stride": 2}),
        ([(3, 5, 4, 2), (3, 2, 5, 1, 2)], {"axes": (0, 2), "dilation": (1, 3), "mode": "nearest"}),
        ([(2, 6, 7), (3, 2, 2, 1, 3)], {"mode": "valid", "stride": 2, "dilation": (2, 1)}),
    ],
    "modulated_correlate": [
        ([(2, 2, 4, 5), (3, 2, 3, 2), (3, 2, 4, 5)], {}),
        ([(4, 4, 5), (2, 2, 3, 2), (3, 2, 2, 4, 5)], {"groups": 2, "mode": "mirror"}),
        ([(2, 4, 4, 5), (6, 2, 2, 3), (2, 3, 2, 1, 2, 3)], {"groups": 2, "stride": 2, "mode": "wrap"}),
        ([(2, 4, 5), (3, 2, 3, 3), (3, 3)], {"mode": "constant", "cval": -1.5, "dilation": 2}),
        ([(2, 3, 6, 7), (2, 3, 2, 3), (2, 3, 3, 5, 1)], {"mode": ("valid", "nearest"), "origin": (0, 1)}),
    ],
    "local_correlate": [
        ([(2, 2, 4, 5), (3, 2, 4, 5, 2, 3)], {}),
        ([(2, 2, 4, 5), (2, 3, 2, 2, 3, 2, 1)], {"stride": 2, "mode": "constant", "cval": 1.5}),
        ([(2, 3, 1, 3, 4), (2, 2, 3, 3, 4, 1, 2)], {"mode": ("mirror", "wrap"), "origin": (-1, 0)}),
        ([(3, 6, 7), (3, 2, 2, 5, 3, 2)], {"mode": "valid", "dilation": (2, 2), "stride": (1, 1)}),
    ],
}
EACH_CASE = [
    pytest.param(function, shapes, keywords, id=f"{function}-{number}")
    for function, cases in CASES.items()
    for number, (shapes, keywords) in enumerate(cases)
]


def test_the_cases_are_legal():
    """So that a slip in the table is not a failure of the library."""
    for function, cases in CASES.items():
        for shapes, keywords in cases:
            arrays = [noise(shape, "float64") for shape in shapes]
            expected = getattr(reference, function)(*arrays, **keywords).shape
            assert incoming(function, arrays, **keywords).shape == expected


def drawn(shapes, dtype, seed=0):
    return [noise(shape, dtype, seed + number) for number, shape in enumerate(shapes)]


def real_product(a, b):
    """Re Σ conj(a) b, the inner product that gradients are taken in."""
    return np.vdot(a, b).real


# ---- finite differences --------------------------------------------------------------------------


def slope(function, arrays, number, direction):
    """Return the central difference, exact up to rounding: each function is affine in each operand."""
    ahead, behind = ([*arrays] for _ in range(2))
    ahead[number] = arrays[number] + direction
    behind[number] = arrays[number] - direction
    return (function(*ahead) - function(*behind)) / 2


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(("function", "shapes", "keywords"), EACH_CASE)
def test_finite_differences(xp, function, shapes, keywords, dtype):
    arrays = drawn(shapes, dtype)
    g = incoming(function, arrays, dtype, noise, **keywords)
    results = gradients(xp, function, g, arrays, **keywords)

    def call(*operands):
        return forward(xp, function, operands, **keywords)

    for number, result in enumerate(results):
        for seed in range(2):
            direction = noise(arrays[number].shape, dtype, 30 + seed)
            change = slope(call, arrays, number, direction)
            scale = np.linalg.norm(g) * np.linalg.norm(change)
            assert abs(real_product(result, direction) - real_product(g, change)) <= 1e-12 * scale


@each_operand
@pytest.mark.parametrize("mode", MODES)
def test_finite_differences_in_every_coordinate(function, name, mode):
    arrays = operands(function, (3, 4), (2, 3), dtype="float64", make=noise, mode=mode)
    g = incoming(function, arrays, "float64", noise, mode=mode)
    number = FORMS[function].index(name)
    result = getattr(cuvarconv, f"{function}_vjp")(g, *arrays, wrt=name, mode=mode, cval=0.5)

    def loss(*operands):
        return real_product(g, getattr(cuvarconv, function)(*operands, mode=mode, cval=0.5))

    units = np.eye(arrays[number].size).reshape(-1, *arrays[number].shape)
    slopes = np.array([slope(loss, arrays, number, unit) for unit in units])
    np.testing.assert_allclose(result.ravel(), slopes, rtol=0, atol=1e-12 * np.linalg.norm(slopes))


# ---- PyTorch's autograd --------------------------------------------------------------------------


def torch_unfold(torch, x, size, *, cval=0, **window):
    """Return the pixels under every window, (…, kh, kw, H, W), by indexing."""
    taps = reference.Taps(x.shape[-2:], size, **window)
    rows, columns = (torch.from_numpy(taps.sources(axis)) for axis in (0, 1))
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    outside = torch.tensor(cval, dtype=x.dtype)
    return torch.where((rows < 0) | (columns < 0), outside, x[..., rows, columns])


def torch_aligned(k, shape):
    """View (kh, kw) + S as (kh, kw) + shape."""
    missing = len(shape) + 2 - k.ndim
    return k.reshape(*k.shape[:2], *(1,) * missing, *k.shape[2:]).expand(*k.shape[:2], *shape)


def torch_correlate(torch, x, k, *, axes=(-2, -1), **window):
    patches = torch_unfold(torch, x.movedim(axes, (-2, -1)), k.shape[:2], **window).movedim((-4, -3), (0, 1))
    patches = patches.movedim((-2, -1), [2 + axis % x.ndim for axis in axes])
    return (torch_aligned(k, patches.shape[2:]).conj() * patches).sum((0, 1))


def torch_modulated_correlate(torch, x, w, d, *, groups=1, **window):
    patches = torch_unfold(torch, x, w.shape[2:], **window).movedim((-4, -3), (0, 1))
    if d.ndim > 4:
        d = d.repeat_interleave(x.shape[-3] // d.shape[-3], -3)
    products = torch_aligned(d, patches.shape[2:]) * patches
    parts = zip(products.chunk(groups, -3), w.chunk(groups), strict=True)
    return torch.cat([torch.einsum("mn...cij,ocmn->...oij", *part) for part in parts], -3)


def torch_local_correlate(torch, x, k, **window):
    patches = torch_unfold(torch, x, k.shape[:2], **window).movedim((-4, -3), (0, 1))
    full = torch_aligned(k, (*x.shape[:-3], *patches.shape[-2:], *k.shape[-2:]))
    return torch.einsum("mn...cij,mn...ijco->...oij", patches, full)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(("function", "shapes", "keywords"), EACH_CASE)
def test_autograd_through_the_unfold_formula(xp, function, shapes, keywords, dtype):
    torch = pytest.importorskip("torch")
    arrays = drawn(shapes, dtype)
    g = incoming(function, arrays, dtype, noise, **keywords)
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    result = globals()[f"torch_{function}"](torch, *tensors, **keywords)
    assert_close(forward(xp, function, arrays, **keywords), result.detach().numpy())
    expected = torch.autograd.grad(result, tensors, torch.from_numpy(g))
    for ours, theirs in zip(gradients(xp, function, g, arrays, **keywords), expected, strict=True):
        assert_close(ours, theirs.resolve_conj().numpy())


@each_operand
def test_autograd_of_a_real_operand_among_complex_ones(xp, function, name):
    torch = pytest.importorskip("torch")
    (shapes, keywords), real = CASES[function][0], FORMS[function].index(name)
    arrays = drawn(shapes, "complex128")
    arrays[real] = arrays[real].real.copy()
    g = incoming(function, arrays, "complex128", noise)
    # torch's functions get everything complex; autograd takes the real part on the way back
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    wide = [tensor.to(torch.complex128) for tensor in tensors]
    result = globals()[f"torch_{function}"](torch, *wide, **keywords)
    expected = torch.autograd.grad(result, tensors, torch.from_numpy(g))
    for ours, theirs in zip(gradients(xp, function, g, arrays), expected, strict=True):
        assert_close(ours, theirs.resolve_conj().numpy())


# ---- second order --------------------------------------------------------------------------------

# L = Re⟨grad, f(input, …)⟩ is linear in each of its arguments, grad included.  So the derivative of
# Re⟨v, gradient of p⟩ by q is L's own gradient by q with v in the place of p, and by grad it is f there.


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(
    ("function", "name", "other"),
    [
        (function, *pair)
        for function, names in FORMS.items()
        for pair in itertools.permutations(("grad", *names), 2)
        if pair[0] != "grad"
    ],
)
def test_derivatives_of_gradients_are_gradients(xp, function, name, other, dtype):
    keywords = {"mode": ("constant", "wrap"), "stride": (1, 2)}
    arrays = operands(function, dtype=dtype, make=noise, batch=(2,), **keywords)
    given = dict(zip(FORMS[function], arrays, strict=True))
    given = {"grad": incoming(function, arrays, dtype, noise, **keywords), **given}
    v, direction = (noise(given[place].shape, dtype, 40) for place in (name, other))

    def directed(g, *operands):
        return real_product(v, gradient(xp, function, g, operands, name, **keywords))

    change = slope(directed, [*given.values()], [*given].index(other), direction)
    g, *with_v = (given | {name: v}).values()
    if other == "grad":
        derivative = forward(xp, function, with_v, **keywords)
    else:
        derivative = gradient(xp, function, g, with_v, other, **keywords)
    scale = np.linalg.norm(derivative) * np.linalg.norm(direction)
    assert abs(real_product(derivative, direction) - change) <= 1e-12 * scale


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("varying", [(), (4, 5), (3, 1, 1)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_derivatives_of_spread(xp, mode, varying, dtype):
    """Those of Re⟨v, spread(z, k)⟩ are correlate(v, k) in z, and in k the gradient of correlate's weights."""
    z, k = noise((3, 4, 5), dtype), noise((3, 2, *varying), dtype, 1)
    window = {"mode": mode, "dilation": (1, 2)}

    def spread(*operands):
        return xp.to_numpy(cuvarconv.spread(*map(xp.asarray, operands), **window))

    v = noise(spread(z, k).shape, dtype, 2)
    derivatives = (
        forward(xp, "correlate", [v, k], **window),
        gradient(xp, "correlate", z, [v, k], "weights", **window),
    )
    for number, derivative in enumerate(derivatives):
        direction = noise(derivative.shape, dtype, 3)
        change = slope(spread, [z, k], number, direction)
        scale = np.linalg.norm(change) * np.linalg.norm(v)
        assert abs(real_product(derivative, direction) - real_product(v, change)) <= 1e-12 * scale
