"""cuvarconv.torch under torch.compile and torch.export: equal results, no graph break."""

import shutil

import pytest
from torch_forms import (
    CASES,
    FORMS,
    assert_all_near,
    assert_near,
    call,
    draw,
    drawn,
    grad_like,
    layers,
    torch,
)

gradient = torch.autograd.grad
each_form = pytest.mark.parametrize("function", FORMS)


@pytest.fixture(autouse=True)
def fresh():
    """Compile anew in each test."""
    torch._dynamo.reset()


def compiled(function, **options):
    """Compile without a graph break; the backend traces forward and backward, and generates no code."""
    return torch.compile(function, fullgraph=True, **{"backend": "aot_eager"} | options)


def assert_same(compiled, eager, operands):
    """Compare results and gradients."""
    result, expected = compiled(*operands), eager(*operands)
    assert_near(result, expected)
    assert result.stride() == expected.stride()
    g = grad_like(expected)
    assert_all_near(gradient(result, operands, g), gradient(expected, operands, g))


@pytest.mark.parametrize("dynamic", [False, True])
@each_form
def test_compile(device, function, dynamic):
    case, keywords = CASES[function][1]

    def run(*operands):
        return call(function, operands, **keywords)

    fast = compiled(run, dynamic=dynamic)
    assert_same(fast, run, drawn(case, device=device, leaf=True))


class Counting:
    """A backend of torch.compile that counts what it compiles."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@each_form
def test_one_graph_for_images_of_every_size(device, function):
    """With padding taken from the kernel's shape, which is then a symbol."""

    def run(x, *others):
        kernel = others[0].shape[2:] if function == "modulated_conv2d" else others[0].shape[:2]
        return call(function, [x, *others], padding=(kernel[0] // 2, kernel[1] // 2))

    counting = Counting()
    fast = compiled(run, dynamic=True, backend=counting)
    for batch, height, width, taps in [(2, 6, 7, 3), (3, 9, 8, 5), (4, 12, 11, 5)]:
        every = {
            "modulated_conv2d": [(5, 4, taps, taps), (taps, taps, batch, 1, height, width)],
            "pixelwise_conv2d": [(taps, taps, batch, 1, height, width)],
            "local_conv2d": [(taps, taps, height, width, 4, 5)],
        }
        operands = drawn([(batch, 4, height, width), *every[function]], device=device)
        assert_near(fast(*operands), run(*operands))
    assert counting.graphs == 1


def test_sizes_that_change_between_calls(device):
    """First as they are, then, from the second size on, as symbols."""

    def run(x, weight, modulation):
        return layers.modulated_conv2d(x, weight, modulation, padding=1)

    fast = compiled(run)
    for batch, height in [(2, 5), (3, 5), (3, 7), (1, 7)]:
        case = [(batch, 2, height, 6), (3, 2, 3, 3), (3, 3, batch, 1, height, 6)]
        assert_same(fast, run, drawn(case, device=device, leaf=True))


@each_form
def test_symbols_meet_numbers(device, function):
    """The batch size is a symbol in the input's shape, and a number in the other operand's."""
    case, keywords = CASES[function][1]
    operands = drawn(case, device=device)
    torch._dynamo.maybe_mark_dynamic(operands[0], 0)

    def run(*operands):
        return call(function, operands, **keywords)

    assert_near(compiled(run)(*operands), run(*operands))


def test_an_unknown_batch_size(device):
    """No guard on the number of samples where operands are shared by them."""
    weight, modulation = drawn([(3, 4, 3, 3), (3, 3, 5, 6)], device=device)
    counting = Counting()

    def run(x):
        return layers.modulated_conv2d(x, weight, modulation, padding=1)

    fast = compiled(run, backend=counting)
    for batch in (2, 5, 9):
        x = draw((batch, 4, 5, 6), device=device)
        torch._dynamo.mark_dynamic(x, 0)
        assert_near(fast(x), run(x))
    assert counting.graphs == 1


@pytest.mark.parametrize("dynamic", [False, True])
def test_layers(device, dynamic):
    """A network of all three layers, its parameters' gradients, and the guide's."""
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "device": device}
    parts = torch.nn.ModuleList(
        [
            layers.ModulatedConv2d(2, 4, 3, padding=1, **options),
            layers.PixelAdaptiveConv2d(4, 4, 3, padding="same", padding_mode="reflect", sigma=0.7, **options),
            layers.LocalConv2d(4, 1, 3, input_size=(5, 6), **options),
        ]
    )

    def network(x, modulation, guide):
        return parts[2](torch.relu(parts[1](torch.relu(parts[0](x, modulation)), guide)))

    operands = drawn([(2, 2, 5, 6), (3, 3, 2, 1, 5, 6), (2, 3, 5, 6)], device=device, leaf=True)
    results = [function(*operands) for function in (compiled(network, dynamic=dynamic), network)]
    assert_near(*results)
    wanted = [*operands, *parts.parameters()]
    g = grad_like(results[0])
    assert_all_near(*(gradient(result, wanted, g) for result in results))


def test_autocast(device):
    case, keywords = CASES["modulated_conv2d"][1]

    def run(*operands):
        with torch.autocast(device, torch.bfloat16):
            return call("modulated_conv2d", operands, **keywords)

    operands = drawn(case, "float32", device)
    result = compiled(run)(*operands)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, run(*operands))


def test_sigma_that_changes_between_calls(device):
    def run(guide, sigma):
        return layers.affinity2d(guide, 3, sigma, padding=1)

    guide, fast = draw((2, 3, 5, 6), device=device), compiled(run)
    for sigma in (1.0, 2.5, 0.7):
        assert_near(fast(guide, sigma), run(guide, sigma))


def test_errors_are_the_same(device):
    def run(x, kernels):
        return layers.pixelwise_conv2d(x, kernels, padding=1)

    operands = drawn([(2, 4, 5, 6), (3, 3, 6, 5)], device=device)
    with pytest.raises(Exception, match=r"kernels: .*\(6, 5\)"):
        compiled(run)(*operands)


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script_method` is deprecated:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs g++")
def test_inductor(device):
    """The default backend, which generates code for what stands around our operators."""
    case, keywords = CASES["modulated_conv2d"][0]

    def run(*operands):
        return torch.tanh(call("modulated_conv2d", operands, **keywords))

    assert_same(compiled(run, backend="inductor"), run, drawn(case, device=device, leaf=True))


def test_export():
    layer = layers.PixelAdaptiveConv2d(4, 3, 3, padding=1).double()
    operands = drawn([(2, 4, 5, 6), (2, 3, 5, 6)])
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(layer, tuple(operands), dynamic_shapes=({0: batch}, {0: batch}))
    larger = drawn([(5, 4, 5, 6), (5, 3, 5, 6)])
    assert_near(program.module()(*larger), layer(*larger))
