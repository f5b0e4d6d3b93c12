"""Wrong calls of `gaussian_blur2d` and `bilateral_blur2d`."""

import re

import pytest
from torch_blur_forms import X, each_function, names
from torch_forms import (
    assert_near,
    draw,
    layers,
    torch,
)

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
