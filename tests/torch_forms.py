"""The functions of cuvarconv.torch, called alike, and what they are compared with: F.unfold and autograd.

Tests take `torch` from here, because without it this import skips them.
"""

import importlib
import itertools

import pytest
from reference import pair
from tolerances import assert_close, noise

torch = pytest.importorskip("torch")
layers = importlib.import_module("cuvarconv.torch")
functional = torch.nn.functional
torch.set_num_threads(1)  # small tensors: on a busy machine, threads would only wait for each other

# Each multilinear function with the names of its operands, in order.
FORMS = {
    "modulated_conv2d": ("input", "weight", "modulation"),
    "pixelwise_conv2d": ("input", "kernels"),
    "local_conv2d": ("input", "kernels"),
}
PADDINGS = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}

# Shapes of operands that broadcast in different ways, and the keywords to go with them.
CASES = {
    "modulated_conv2d": [
        ([(2, 4, 5, 6), (6, 4, 3, 3), (3, 3, 5, 6)], {"padding": 1}),
        (
            [(2, 4, 5, 4), (6, 2, 3, 2), (3, 2, 2, 1, 5, 4)],
            {"padding": "same", "groups": 2, "padding_mode": "reflect"},
        ),
        (
            [(4, 6, 7), (2, 4, 2, 3), (2, 3, 2, 4, 1)],
            {"stride": (2, 3), "padding": (1, 2), "padding_mode": "circular"},
        ),
        (
            [(2, 3, 7, 5), (3, 1, 3, 2), (3, 2)],
            {"groups": 3, "dilation": (2, 1), "padding": "valid", "padding_mode": "replicate"},
        ),
        ([(1, 2, 3, 4), (2, 2, 2, 3), (2, 3, 2, 1, 1)], {"padding": (4, 3), "stride": 2, "dilation": (1, 2)}),
    ],
    "pixelwise_conv2d": [
        ([(2, 3, 5, 4), (3, 3, 5, 4)], {"padding": 1}),
        ([(2, 3, 5, 4), (2, 3, 2, 1, 5, 4)], {"padding": "same", "padding_mode": "replicate"}),
        ([(3, 6, 7), (3, 2, 3, 1, 1)], {"stride": 2, "padding": 1, "padding_mode": "reflect"}),
        ([(1, 2, 5, 6), (2, 3)], {"dilation": (3, 2), "padding": (2, 3), "padding_mode": "circular"}),
        ([(2, 2, 4, 4), (3, 1, 2, 2, 2, 4)], {}),
    ],
    "local_conv2d": [
        ([(2, 3, 4, 5), (3, 3, 4, 5, 3, 2)], {"padding": 1}),
        ([(2, 2, 5, 4), (2, 3, 2, 5, 4, 2, 3)], {"padding": "same", "padding_mode": "circular"}),
        ([(3, 6, 5), (3, 2, 2, 2, 3, 2)], {"stride": (2, 3), "padding_mode": "reflect"}),
        (
            [(2, 1, 4, 4), (2, 2, 1, 4, 3, 1, 2)],
            {"dilation": (2, 3), "padding": 1, "padding_mode": "replicate"},
        ),
    ],
}
EACH_CASE = [(function, *case) for function, cases in CASES.items() for case in cases]
CASE_NAMES = [f"{function}-{number}" for function, cases in CASES.items() for number in range(len(cases))]


def shapes(function, image=(5, 6), size=(3, 2), *, batch=(2,), groups=1, **geometry):
    """Return the shapes of the operands of a call, with one kernel or factor per sample and output pixel."""
    window = {name: value for name, value in geometry.items() if name != "padding_mode"}
    outputs = output_shape(image, size, **window)
    channels, filters = 2 * groups, 3 * groups
    images = (*batch, channels, *image)
    if function == "pixelwise_conv2d":
        return [images, (*size, *batch, 1, *outputs)]
    if function == "modulated_conv2d":
        return [images, (filters, channels // groups, *size), (*size, *batch, 1, *outputs)]
    return [images, (*size, *batch, *outputs, channels, filters)]


def geometries():
    """Return windows of every padding and mode, with strides and dilations."""
    steps = [{}, {"stride": 2}, {"stride": (3, 1), "dilation": (1, 2)}, {"dilation": 2}]
    for mode, padding, step in itertools.product(PADDINGS, [0, 1, (2, 0), "valid", "same"], steps):
        if padding != "same" or "stride" not in step:
            yield {"padding_mode": mode, "padding": padding, **step}


def call(function, operands, **keywords):
    """Call a function of the library."""
    return getattr(layers, function)(*operands, **keywords)


def formula(function, operands, **keywords):
    """Call a function's oracle."""
    return globals()[function](*operands, **keywords)


def draw(shape, dtype="float64", device="cpu", seed=0):
    """Return normally distributed numbers as a tensor."""
    half = dtype in ("float16", "bfloat16")
    values = torch.from_numpy(noise(shape, "float32" if half else dtype, seed))
    return values.to(getattr(torch, dtype)).to(device)


def drawn(shapes, dtype="float64", device="cpu", *, leaf=False):
    """Return an operand of each shape; leaves of the graph if they shall get gradients."""
    return [draw(shape, dtype, device, seed).requires_grad_(leaf) for seed, shape in enumerate(shapes)]


def grad_like(result, seed=9):
    """Return a gradient to come in, of a result's shape and kind."""
    return draw(result.shape, str(result.dtype).removeprefix("torch."), result.device, seed)


def on_host(tensor):
    """Return a tensor's numbers as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    tensor = tensor.detach().resolve_conj().resolve_neg().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def assert_near(actual, expected):
    """Compare random data within the tolerance of the actual tensor's dtype; both in the same place."""
    assert actual.shape == expected.shape
    assert actual.device == expected.device
    assert_close(on_host(actual), on_host(expected), str(actual.dtype).removeprefix("torch."))


def assert_all_near(actual, expected):
    """Compare several tensors."""
    for ours, theirs in zip(actual, expected, strict=True):
        assert_near(ours, theirs)


# ---- the oracles ---------------------------------------------------------------------------------


def sides(size, padding, dilation):
    """Return what nn.Conv2d pads by, in the order of F.pad: left, right, top, bottom."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(pair(dilation), size, strict=True)]
        rows, columns = ((total // 2, total - total // 2) for total in totals)
    else:
        rows, columns = ((one, one) for one in pair(0 if padding == "valid" else padding))
    return *columns, *rows


def output_shape(image, size, stride=1, padding=0, dilation=1):
    """Return (H_out, W_out)."""
    left, right, top, bottom = sides(size, padding, dilation)
    extents = image[0] + top + bottom, image[1] + left + right
    axes = zip(extents, size, pair(stride), pair(dilation), strict=True)
    return tuple((n - (k - 1) * d - 1) // s + 1 for n, k, s, d in axes)


def patches(x, size, stride=1, padding=0, dilation=1, padding_mode="zeros"):
    """Return the pixels under every window, (kh, kw, N, C, H_out, W_out)."""
    outputs = output_shape(x.shape[-2:], size, stride, padding, dilation)
    x = functional.pad(x, sides(size, padding, dilation), PADDINGS[padding_mode])
    columns = functional.unfold(x, tuple(size), dilation, stride=stride)
    return columns.unflatten(-1, outputs).unflatten(1, (x.shape[1], *size)).movedim((2, 3), (0, 1))


def aligned(k, axes):
    """View (kh, kw) + S with this many axes after the first two."""
    return k.reshape(*k.shape[:2], *(1,) * (axes + 2 - k.ndim), *k.shape[2:])


def with_bias(result, bias):
    if bias is None:
        return result
    return result + (bias if bias.ndim == 3 else bias[:, None, None])


def modulated_conv2d(x, weight, modulation, bias=None, *, groups=1, **geometry):
    """Unfold, multiply, matmul."""
    if x.ndim == 3:
        return modulated_conv2d(x[None], weight, modulation, bias, groups=groups, **geometry)[0]
    under = patches(x, weight.shape[2:], **geometry)
    factors = aligned(modulation, 4)
    factors = factors.repeat_interleave(x.shape[1] // factors.shape[3], 3)
    parts = zip((factors * under).chunk(groups, 3), weight.chunk(groups), strict=True)
    return with_bias(torch.cat([torch.einsum("klncij,ockl->noij", *part) for part in parts], 1), bias)


def pixelwise_conv2d(x, kernels, **geometry):
    """Unfold, multiply, sum."""
    if x.ndim == 3:
        return pixelwise_conv2d(x[None], kernels, **geometry)[0]
    return (aligned(kernels, 4) * patches(x, kernels.shape[:2], **geometry)).sum((0, 1))


def local_conv2d(x, kernels, bias=None, **geometry):
    """Unfold, matmul with the matrix of each pixel."""
    if x.ndim == 3:
        return local_conv2d(x[None], kernels, bias, **geometry)[0]
    under = patches(x, kernels.shape[:2], **geometry)
    full = aligned(kernels, 5).expand(-1, -1, len(x), -1, -1, -1, -1)
    return with_bias(torch.einsum("klncij,klnijco->noij", under, full), bias)


def affinity2d(guide, kernel_size, sigma=1.0, **geometry):
    """Unfold, subtract the centre, exponentiate; what lies in a padding of zeros is not alike."""
    if guide.ndim == 3:
        return affinity2d(guide[None], kernel_size, sigma, **geometry)[:, :, 0]
    size = pair(kernel_size)
    under = patches(guide, size, **geometry)
    inside = patches(torch.ones_like(guide[:, :1]), size, **geometry)
    centre = under[size[0] // 2, size[1] // 2]
    distance = ((under - centre) ** 2).sum(3, keepdim=True)
    return inside * torch.exp(-distance / (2 * sigma**2))


# ---- views ---------------------------------------------------------------------------------------


def sliced(tensor):
    """Return the same numbers with steps between them, away from the start of the memory."""
    wide = tensor.new_zeros([2 * n + 1 for n in tensor.shape])
    view = wide[(slice(1, None, 2),) * tensor.ndim]
    return view.copy_(tensor)


def transposed(tensor):
    """Return the same numbers, the first axis fastest in memory."""
    order = range(tensor.ndim)[::-1]
    return tensor.permute(*order).contiguous().permute(*order)


VIEWS = {"sliced": sliced, "transposed": transposed}
