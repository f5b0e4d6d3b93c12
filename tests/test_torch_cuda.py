"""cuvarconv.torch on a CUDA device: streams, graphs, torch's allocator, several devices."""

import subprocess
import sys

import pytest
from torch_forms import (
    CASES,
    FORMS,
    assert_all_near,
    assert_near,
    call,
    drawn,
    formula,
    grad_like,
    shapes,
    torch,
)

import cuvarconv

pytestmark = pytest.mark.usefixtures("cuda_tensors")
each_form = pytest.mark.parametrize("function", FORMS)
MIB = 1 << 20
PAUSE = 50_000_000  # cycles, about 30 ms


def example(function, leaf=False):
    case, keywords = CASES[function][1]
    return drawn(case, "float32", "cuda", leaf=leaf), keywords


def expectation(function, operands, g, **keywords):
    """Return the result and its gradients in double precision."""
    doubles = [operand.detach().double().requires_grad_() for operand in operands]
    result = formula(function, doubles, **keywords)
    return [result, *torch.autograd.grad(result, doubles, g.double())]


def large(function):
    """Return operands of some MiB."""
    return drawn(shapes(function, (256, 256), (5, 5), padding=2), "float32", "cuda")


# ---- streams -------------------------------------------------------------------------------------


@each_form
def test_work_runs_on_the_current_stream(function):
    """An operand that the stream writes after a pause is read after that, by forward and by backward."""
    operands, keywords = example(function)
    g = grad_like(formula(function, operands, **keywords))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = [torch.zeros_like(operand) for operand in operands]
        torch.cuda._sleep(PAUSE)
        for target, operand in zip(late, operands, strict=True):
            target.copy_(operand)
        leaves = [target.requires_grad_() for target in late]
        result = call(function, leaves, **keywords)
        found = torch.autograd.grad(result, leaves, g)
    torch.cuda.current_stream().wait_stream(stream)
    assert_all_near([result, *found], expectation(function, operands, g, **keywords))


@each_form
def test_calls_do_not_wait_for_the_device(function):
    operands, keywords = example(function, leaf=True)
    result = call(function, operands, **keywords)  # compiles
    g = grad_like(result)
    torch.autograd.grad(result, operands, g)
    torch.cuda.synchronize()
    torch.cuda._sleep(PAUSE)
    paused = torch.cuda.Event()
    paused.record()
    result = call(function, operands, **keywords)
    torch.autograd.grad(result, operands, g)
    assert not paused.query()
    torch.cuda.synchronize()


@each_form
def test_graph_capture(function):
    """After a warm-up, forward and backward replay on what the static tensors then hold."""
    operands, keywords = example(function, leaf=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            result = call(function, operands, **keywords)
            g = grad_like(result)
            torch.autograd.grad(result, operands, g)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call(function, operands, **keywords)
        found = torch.autograd.grad(result, operands, g)
    for factor in (1.0, -0.5):
        with torch.no_grad():
            operands[0].mul_(factor)
        graph.replay()
        assert_all_near([result, *found], expectation(function, operands, g, **keywords))


@each_form
def test_captured_memory_is_not_given_away(function):
    """What a graph writes between its kernels stays its own while other work allocates."""
    operands = large(function)
    call(function, operands, padding=2)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        result = call(function, operands, padding=2)
    graph.replay()
    expected = result.clone()
    other = [torch.full((MIB,), float("nan"), device="cuda") for _ in range(64)]
    graph.replay()
    assert torch.equal(result, expected)
    assert all(block.isnan().all() for block in other)


@pytest.mark.parametrize("reverse", [False, True])
def test_output_shifted_against_the_input(reverse):
    """An array function that writes where it reads, through two views of a tensor."""
    whole = torch.arange(4000.0, device="cuda").reshape(40, 100) % 17
    kernels = torch.ones(3, 3, device="cuda")
    given, output = (whole[1:], whole[:-1]) if reverse else (whole[:-1], whole[1:])
    expected = cuvarconv.correlate(given.clone(), kernels)
    assert cuvarconv.correlate(given, kernels, output) is output
    assert torch.equal(output, expected)


# ---- memory --------------------------------------------------------------------------------------


@each_form
def test_memory_comes_from_torchs_allocator(function):
    operands = large(function)
    call(function, operands, padding=2)
    torch.cuda.synchronize()
    pool = sys.modules["cupy"].get_default_memory_pool()
    of_cupy, reserved = pool.total_bytes(), torch.cuda.memory_reserved()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call(function, operands, padding=2)
    torch.cuda.synchronize()
    rise = torch.cuda.memory_allocated() - before
    assert rise == -(-result.numel() * result.element_size() // 512) * 512
    assert torch.cuda.max_memory_allocated() - before <= rise + 64 * MIB
    assert pool.total_bytes() == of_cupy
    assert torch.cuda.memory_reserved() - reserved <= rise + 66 * MIB  # pages of 2 MiB


# ---- devices -------------------------------------------------------------------------------------


@each_form
def test_host_and_device_do_not_mix(function):
    operands, keywords = example(function)
    for number, name in enumerate(FORMS[function][1:], start=1):
        mixed = [*operands]
        mixed[number] = operands[number].cpu()
        with pytest.raises(TypeError, match=rf"^{name}: expected the device of input, cuda:0, got cpu"):
            call(function, mixed, **keywords)


@each_form
def test_the_tensors_device_counts(function):
    """Not the current one, which stays as it is."""
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    case, keywords = CASES[function][1]
    operands = drawn(case, "float64", "cuda:1", leaf=True)
    result = call(function, operands, **keywords)
    expected = formula(function, operands, **keywords)
    assert_near(result, expected)
    g = grad_like(result)
    assert_all_near(*(torch.autograd.grad(y, operands, g) for y in (result, expected)))
    assert torch.cuda.current_device() == 0


@each_form
def test_tf32_is_only_for_torchs_own_functions(function):
    operands, keywords = example(function)
    expected = call(function, operands, **keywords)
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert torch.equal(call(function, operands, **keywords), expected)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def test_without_cupy_the_error_names_the_extra():
    code = """
import sys
sys.modules["cupy"] = None
import torch
from cuvarconv.torch import pixelwise_conv2d
try:
    pixelwise_conv2d(torch.ones(1, 1, 4, 4, device="cuda"), torch.ones(3, 3, device="cuda"))
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 0, process.stderr
    assert "cuvarconv[cuda12]" in process.stdout
