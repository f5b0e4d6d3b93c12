"""Wrong calls of cuvarconv.torch: each has its type and a message that names the argument."""

import re

import numpy as np
import pytest
from torch_forms import call, layers, torch

NAN, INFINITY = float("nan"), float("inf")


def ones(*shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype)


# The arguments of right calls.
BASES = {
    "modulated_conv2d": {
        "input": ones(2, 4, 6, 7),
        "weight": ones(6, 2, 3, 3),
        "modulation": ones(3, 3, 6, 7),
        "bias": ones(6),
        "padding": 1,
        "groups": 2,
    },
    "pixelwise_conv2d": {"input": ones(2, 4, 6, 7), "kernels": ones(3, 3, 6, 7), "padding": 1},
    "local_conv2d": {
        "input": ones(2, 4, 6, 7),
        "kernels": ones(3, 3, 6, 7, 4, 5),
        "bias": ones(5),
        "padding": 1,
    },
    "affinity2d": {"guide": ones(2, 4, 6, 7), "kernel_size": 3, "padding": 1},
}
TENSORS = [
    (function, name)
    for function, arguments in BASES.items()
    for name, value in arguments.items()
    if isinstance(value, torch.Tensor)
]
each_function = pytest.mark.parametrize("function", BASES)
each_tensor = pytest.mark.parametrize(("function", "name"), TENSORS)


def assert_refused(function, error, *says, **changes):
    """The message names the argument first, and then all that it says, in this order."""
    with pytest.raises(error, match=".*".join(re.escape(text) for text in says)) as caught:
        call(function, (), **BASES[function] | changes)
    assert str(caught.value).startswith(says[0])


@each_function
def test_the_call_that_the_wrong_ones_differ_from_is_right(function):
    result = call(function, (), **BASES[function])
    assert result.isfinite().all()


# ---- kinds, dtypes and devices -------------------------------------------------------------------


@each_tensor
@pytest.mark.parametrize("value", [[[1.0, 2.0]], 1.0, "image"], ids=repr)
def test_other_things_than_tensors(function, name, value):
    assert_refused(function, TypeError, f"{name}: ", "Tensor", type(value).__name__, **{name: value})


@each_tensor
def test_numpy_arrays(function, name):
    array = BASES[function][name].numpy()
    assert_refused(function, TypeError, f"{name}: ", "Tensor", "ndarray", **{name: array})


@each_tensor
def test_none(function, name):
    if name == "bias":
        assert call(function, (), **BASES[function] | {"bias": None}).isfinite().all()
    else:
        assert_refused(function, TypeError, f"{name}: ", "Tensor", "NoneType", **{name: None})


@each_tensor
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_mixed_dtypes(function, name, dtype):
    if name == "guide":
        assert call(function, (), **BASES[function] | {name: BASES[function][name].to(dtype)}).dtype == dtype
        return
    # whichever operand comes second is the one that differs from the input
    blamed = next(other for other in BASES[function] if other != "input") if name == "input" else name
    changes = {name: BASES[function][name].to(dtype)}
    assert_refused(function, TypeError, f"{blamed}: ", "torch.float", **changes)


@each_function
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float8_e5m2], ids=str)
def test_dtypes_that_do_not_train(function, dtype):
    tensors = [name for form, name in TENSORS if form == function]
    changes = {name: BASES[function][name].to(dtype) for name in tensors}
    assert_refused(function, TypeError, f"{tensors[0]}: ", str(dtype), **changes)


@each_tensor
def test_mixed_devices(function, name):
    if name == "guide":
        return
    blamed = next(other for other in BASES[function] if other != "input") if name == "input" else name
    changes = {name: BASES[function][name].to("meta")}
    assert_refused(function, TypeError, f"{blamed}: ", "device", **changes)


@each_function
def test_meta_tensors_give_shapes(function):
    """As torch's own functions do; nothing is computed."""
    expected = call(function, (), **BASES[function])
    changes = {name: BASES[function][name].to("meta") for form, name in TENSORS if form == function}
    result = call(function, (), **BASES[function] | changes)
    assert result.device.type == "meta"
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(("function", "name"), [pair for pair in TENSORS if pair[1] != "bias"])
def test_sparse_tensors(function, name):
    assert_refused(function, TypeError, f"{name}: ", **{name: BASES[function][name].to_sparse()})


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@each_tensor
def test_nested_tensors(function, name, layout):
    nested = torch.nested.nested_tensor([ones(3, 4), ones(2, 4)], layout=layout)
    assert_refused(function, TypeError, f"{name}: ", "nested", **{name: nested})


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no MKL-DNN here")
@each_function
def test_opaque_tensors(function):
    name = next(iter(BASES[function]))
    assert_refused(function, TypeError, f"{name}: ", **{name: BASES[function][name].to_mkldnn()})


def test_complex_guide():
    assert_refused("affinity2d", TypeError, "guide: ", "real", guide=ones(2, 4, 6, 7, dtype=torch.complex64))


# ---- shapes --------------------------------------------------------------------------------------

SHAPES = {
    "modulated_conv2d": {
        "input": [(), (6, 7), (1, 2, 4, 6, 7)],
        "weight": [(6, 2, 3), (6, 4, 3, 3), (6, 1, 3, 3), (1, 6, 2, 3, 3), ()],
        "modulation": [
            (),
            (3,),
            (5, 5, 6, 7),
            (3, 3, 6),
            (3, 3, 6, 8),
            (3, 3, 5, 7),
            (3, 3, 3, 6, 7),
            (3, 3, 3, 1, 6, 7),
            (3, 3, 1, 2, 4, 6, 7),
            (3, 3, 2, 8, 6, 7),
            (0, 3, 6, 7),
        ],
        "bias": [(), (1,), (5,), (2, 6), (6, 1, 1), (2, 6, 6, 7)],
    },
    "pixelwise_conv2d": {
        "input": [(), (6, 7), (1, 2, 4, 6, 7)],
        "kernels": [
            (),
            (3,),
            (3, 3, 7, 6),
            (3, 3, 6, 8),
            (3, 3, 3, 6, 7),
            (3, 3, 2, 2, 6, 7),
            (3, 3, 1, 2, 4, 6, 7),
            (3, 0),
        ],
    },
    "local_conv2d": {
        "input": [(), (6, 7), (1, 2, 4, 6, 7), (2, 3, 6, 7), (2, 4, 7, 6)],
        "kernels": [
            (),
            (3, 3),
            (3, 3, 6, 7),
            (3, 3, 6, 7, 4),
            (3, 3, 6, 7, 5, 4),
            (3, 3, 1, 7, 4, 5),
            (3, 3, 3, 6, 7, 4, 5),
            (3, 3, 1, 2, 6, 7, 4, 5),
            (3, 0, 6, 7, 4, 5),
        ],
        "bias": [(), (1,), (4,), (5, 1, 1), (5, 7, 6), (2, 5, 6, 7)],
    },
    "affinity2d": {"guide": [(), (6, 7), (1, 2, 4, 6, 7), (2, 0, 6, 7)]},
}
EACH_SHAPE = [
    (function, name, shape)
    for function, names in SHAPES.items()
    for name, every in names.items()
    for shape in every
]


@pytest.mark.parametrize(("function", "name", "shape"), EACH_SHAPE, ids=str)
def test_wrong_shapes(function, name, shape):
    """Of two operands that do not fit each other, the first counts as right."""
    blamed = "kernels" if name == "input" and len(shape) == 4 else name
    with pytest.raises(ValueError, match=rf"^{blamed}: expected .*, got "):
        call(function, (), **BASES[function] | {name: ones(*shape)})


@pytest.mark.parametrize(
    ("groups", "error"),
    [(0, ValueError), (-2, ValueError), (3, ValueError), (4, ValueError), (1, ValueError), (2.0, TypeError)],
    ids=str,
)
def test_groups(groups, error):
    with pytest.raises(error, match=r"^(groups|weight): "):
        call("modulated_conv2d", (), **BASES["modulated_conv2d"] | {"groups": groups})


# ---- the window ----------------------------------------------------------------------------------

NUMBERS = {
    "stride": [
        (0, ValueError),
        (-1, ValueError),
        (1.5, TypeError),
        ("2", TypeError),
        (1 << 62, ValueError),
    ],
    "dilation": [
        (0, ValueError),
        ((1, 0), ValueError),
        (None, TypeError),
        ((1, 1 << 62), ValueError),
    ],
    "padding": [
        (-1, ValueError),
        ((0, -1), ValueError),
        (0.5, TypeError),
        (np.array([0.5, 1]), TypeError),
        (torch.tensor(1.0), TypeError),
        (1 << 62, ValueError),
        ((1, 1 << 70), ValueError),
    ],
}
EACH_NUMBER = [(name, *case) for name, cases in NUMBERS.items() for case in cases]


@each_function
@pytest.mark.parametrize(("name", "value", "error"), EACH_NUMBER, ids=str)
def test_numbers_of_the_window(function, name, value, error):
    assert_refused(function, error, f"{name}: ", "got", repr(value), **{name: value})


@each_function
@pytest.mark.parametrize("name", NUMBERS)
def test_more_than_two_numbers(function, name):
    assert_refused(function, ValueError, f"{name}: ", "a pair of ints, got 3", **{name: (1, 1, 1)})


@each_function
@pytest.mark.parametrize("padding", ["full", "SAME", ""])
def test_unknown_padding(function, padding):
    assert_refused(function, ValueError, "padding: ", '"same"', '"valid"', repr(padding), padding=padding)


@each_function
@pytest.mark.parametrize("stride", [2, (1, 2)], ids=str)
def test_same_needs_stride_1(function, stride):
    assert_refused(function, ValueError, "padding: ", '"same"', "stride", padding="same", stride=stride)


@each_function
@pytest.mark.parametrize("mode", ["constant", "edge", "Zeros", None, 0], ids=repr)
def test_unknown_padding_mode(function, mode):
    assert_refused(function, ValueError, "padding_mode: ", "zeros, reflect", repr(mode), padding_mode=mode)


@each_function
@pytest.mark.parametrize(
    "changes", [{"padding": 0, "dilation": 4}, {"padding": (0, 3), "dilation": (3, 7)}], ids=str
)
def test_a_window_that_does_not_fit(function, changes):
    assert_refused(function, ValueError, "padding: ", "does not fit", "(6, 7)", **changes)


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), ((3, 0), ValueError), (2.5, TypeError), (None, TypeError)], ids=str
)
def test_kernel_size(value, error):
    assert_refused("affinity2d", error, "kernel_size: ", "got", repr(value), kernel_size=value)


@pytest.mark.parametrize(
    ("sigma", "error"),
    [
        (0, ValueError),
        (-1.0, ValueError),
        (NAN, ValueError),
        (INFINITY, ValueError),
        ("1", TypeError),
        (None, TypeError),
        (1j, TypeError),
    ],
    ids=str,
)
def test_sigma(sigma, error):
    assert_refused("affinity2d", error, "sigma: ", "got", repr(sigma), sigma=sigma)


def test_sigma_that_requires_grad():
    """It would silently get none."""
    assert_refused("affinity2d", TypeError, "sigma: ", sigma=torch.tensor(1.0, requires_grad=True))


# ---- layers --------------------------------------------------------------------------------------


def test_layers_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match=r"^groups: expected 1"):
        layers.LocalConv2d(4, 4, 3, groups=2, input_size=8)
    with pytest.raises(ValueError, match=r"^padding: .*does not fit"):
        layers.LocalConv2d(4, 4, 3, input_size=2)
    with pytest.raises(ValueError, match=r"^input_size: "):
        layers.LocalConv2d(4, 4, 3, input_size=0)
    with pytest.raises(ValueError, match=r"^padding: .*same"):
        layers.LocalConv2d(4, 4, 3, padding="same", stride=2, input_size=8)
    with pytest.raises(ValueError, match=r"^padding_mode: "):
        layers.LocalConv2d(4, 4, 3, padding_mode="edge", input_size=8)
    with pytest.raises(ValueError, match="groups"):
        layers.ModulatedConv2d(4, 4, 3, groups=3)


def test_images_of_another_size():
    with pytest.raises(ValueError, match=r"^input: .*\(8, 8\)"):
        layers.LocalConv2d(4, 4, 3, input_size=8)(ones(2, 4, 8, 9))
    with pytest.raises(ValueError, match=r"^guide: .*\(8, 8\)"):
        layers.PixelAdaptiveConv2d(4, 4, 3)(ones(2, 4, 8, 8), ones(2, 4, 8, 9))
    with pytest.raises(TypeError, match=r"^input: .*Tensor, got list"):
        layers.LocalConv2d(4, 4, 3, input_size=8)([1.0])


def test_a_bias_that_does_not_fit_is_told_what_would():
    assert_refused("local_conv2d", ValueError, "bias: ", "(5,) or (5, 6, 7)", "got (4,)", bias=ones(4))
    per_pixel = ones(6, 6, 7)
    assert_refused("modulated_conv2d", ValueError, "bias: ", "(6,), got (6, 6, 7)", bias=per_pixel)


def test_a_guide_of_another_kind():
    layer = layers.PixelAdaptiveConv2d(4, 4, 3)
    with pytest.raises(TypeError, match=r"^guide: .*float32.*float64"):
        layer(ones(2, 4, 8, 8), ones(2, 4, 8, 8, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"^guide: .*ndarray"):
        layer(ones(2, 4, 8, 8), ones(2, 4, 8, 8).numpy())
    for guide in (ones(3, 4, 8, 8), ones(1, 2, 4, 8, 8)):
        with pytest.raises(ValueError, match=r"^guide: .*\(2,\), got shape"):
            layer(ones(2, 4, 8, 8), guide)
    with pytest.raises(ValueError, match=r"^guide: .*\(8, 8\), got shape \(8,\)"):
        layer(ones(2, 4, 8, 8), ones(8))
    with pytest.raises(TypeError, match=r"^guide: .*device"):
        layer(ones(2, 4, 8, 8), ones(2, 4, 8, 8).to("meta"))
    with pytest.raises(TypeError, match=r"^input: .*list"):
        layer([1.0], ones(2, 4, 8, 8))
    layer.sigma = 0
    with pytest.raises(ValueError, match=r"^sigma: .*positive"):
        layer(ones(2, 4, 8, 8), ones(2, 4, 8, 8))
