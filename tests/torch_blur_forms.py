"""The formulas of `gaussian_blur2d` and `bilateral_blur2d` through torch's unfold, and cases for both."""

import pytest
from reference import pair
from torch_forms import draw, patches, torch

FUNCTIONS = ("gaussian_blur2d", "bilateral_blur2d")
each_function = pytest.mark.parametrize("function", FUNCTIONS)

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
