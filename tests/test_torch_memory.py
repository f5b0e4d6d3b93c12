"""cuvarconv.torch and memory: tensors are read and written where they lie, and results are torch's own."""

import gc
import importlib
import itertools
import weakref

import pytest
from torch_forms import (
    FORMS,
    call,
    draw,
    drawn,
    formula,
    grad_like,
    layers,
    shapes,
    torch,
)

# The primitives of a backend that compute a function and its gradients, in the order of the operands.
PRIMITIVES = {
    "modulated_conv2d": (
        "modulated_correlate",
        "modulated_input_gradient",
        "modulated_weights_gradient",
        "modulated_modulation_gradient",
    ),
    "pixelwise_conv2d": ("correlate", "spread", "correlate_weights_gradient"),
    "local_conv2d": ("local_correlate", "local_input_gradient", "local_kernels_gradient"),
    "affinity2d": ("affinity", "affinity_gradient"),
}
each_form = pytest.mark.parametrize("function", FORMS)
each_function = pytest.mark.parametrize("function", PRIMITIVES)


def example(function, device, *, leaf=False):
    """Return operands, and keywords, of a call whose result has the image's height and width."""
    if function == "affinity2d":
        return [draw((2, 3, 5, 6), device=device).requires_grad_(leaf)], {"kernel_size": 3, "padding": 1}
    keywords = {"padding": 1}
    return drawn(shapes(function, size=(3, 3), **keywords), device=device, leaf=leaf), keywords


def pointer(array):
    """Return where the first element of a backend's array lies."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return interface["data"][0]


@pytest.fixture
def seen(device, monkeypatch):
    """What the backend is called with: (primitive, pointers to its arrays), filled by later calls."""
    backend = importlib.import_module("cuvarconv._cpu" if device == "cpu" else "cuvarconv._gpu")
    calls = []
    for name in itertools.chain.from_iterable(PRIMITIVES.values()):
        original = getattr(backend, name)

        def watched(*arguments, name=name, original=original, **keywords):
            calls.append((name, [pointer(array) for array in arguments if hasattr(array, "strides")]))
            return original(*arguments, **keywords)

        monkeypatch.setattr(backend, name, watched)
    return calls


# ---- in place ------------------------------------------------------------------------------------


@each_function
def test_operands_are_read_and_results_written_in_place(device, seen, function):
    operands, keywords = example(function, device)
    result = call(function, operands, **keywords)
    pointers = [tensor.data_ptr() for tensor in (*operands, result)]
    assert seen == [(PRIMITIVES[function][0], pointers)]


@each_function
def test_gradients_are_computed_in_place(device, seen, function):
    operands, keywords = example(function, device, leaf=True)
    result = call(function, operands, **keywords)
    g = grad_like(result)
    seen.clear()
    found = torch.autograd.grad(result, operands, g)
    expected = []
    for number, (name, gradient) in enumerate(zip(PRIMITIVES[function][1:], found, strict=True)):
        others = operands if function == "affinity2d" else operands[:number] + operands[number + 1 :]
        expected.append((name, [tensor.data_ptr() for tensor in (g, *others, gradient)]))
    assert sorted(seen) == sorted(expected)


@each_function
def test_strided_tensors_are_read_in_place(device, seen, function):
    operands, keywords = example(function, device)
    views = [torch.stack([operand, operand], -1)[..., 1] for operand in operands]
    call(function, views, **keywords)
    assert seen[0][1][:-1] == [view.data_ptr() for view in views]


@each_form
def test_what_is_expanded_stays_so(device, seen, function):
    operands, keywords = example(function, device)
    wide = [operand[(slice(0, 1),) * operand.ndim].expand(operand.shape) for operand in operands]
    call(function, wide, **keywords)
    assert seen[0][1][:-1] == [operand.data_ptr() for operand in wide]


@each_form
def test_only_the_gradients_asked_for_are_computed(device, seen, function):
    operands, keywords = example(function, device)
    for wanted in itertools.product([False, True], repeat=len(operands)):
        leaves = [
            operand.detach().requires_grad_(needed) for operand, needed in zip(operands, wanted, strict=True)
        ]
        result = call(function, leaves, **keywords)
        assert result.requires_grad == any(wanted)
        seen.clear()
        if any(wanted):
            result.backward(grad_like(result))
        asked = itertools.compress(PRIMITIVES[function][1:], wanted)
        assert sorted(name for name, _ in seen) == sorted(asked)
        assert [leaf.grad is not None for leaf in leaves] == list(wanted)


# ---- torch's own memory --------------------------------------------------------------------------


@each_function
def test_results_are_torchs_own_memory(device, function):
    """Memory that only DLPack or NumPy lends could not be resized."""
    operands, keywords = example(function, device, leaf=True)
    result = call(function, operands, **keywords)
    for tensor in (result, *torch.autograd.grad(result, operands, grad_like(result))):
        storage = tensor.untyped_storage()
        assert storage.resizable()
        assert storage.nbytes() == tensor.numel() * tensor.element_size()
        assert tensor.is_contiguous()
        assert tensor.storage_offset() == 0
    held = torch.from_numpy(result.detach().cpu().numpy().copy())
    assert not held.untyped_storage().resizable()  # so that the question above has two answers


@each_function
def test_results_live_on_their_own(device, function):
    operands, keywords = example(function, device)
    result = call(function, operands, **keywords)
    kept = result.clone()
    for operand in operands:
        operand.zero_()
    for _ in range(5):
        call(function, operands, **keywords)
    assert torch.equal(result, kept)
    assert kept.any()


# ---- modes of torch ------------------------------------------------------------------------------


@pytest.fixture
def deterministic():
    """Ask torch for deterministic functions; it then fills new memory with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def forward_and_backward(function, device):
    operands, keywords = example(function, device, leaf=True)
    result = call(function, operands, **keywords)
    return [result, *torch.autograd.grad(result, operands, grad_like(result))]


@each_function
def test_deterministic_mode(device, function, request):
    expected = forward_and_backward(function, device)
    request.getfixturevalue("deterministic")
    for _ in range(3):
        for again, first in zip(forward_and_backward(function, device), expected, strict=True):
            assert torch.equal(again, first)


@pytest.mark.parametrize("mode", ["inference_mode", "no_grad"])
@each_function
def test_without_gradients(device, function, mode):
    operands, keywords = example(function, device, leaf=True)
    expected = call(function, operands, **keywords)
    assert expected.requires_grad
    with getattr(torch, mode)():
        result = call(function, operands, **keywords)
    assert not result.requires_grad
    assert result.is_inference() == (mode == "inference_mode")
    assert torch.equal(result, expected)


@each_function
def test_tensors_of_inference_mode_as_operands(device, function):
    with torch.inference_mode():
        operands, keywords = example(function, device)
    result = call(function, operands, **keywords)
    assert torch.equal(result, call(function, *example(function, device)[:1], **keywords))
    assert not result.is_inference()


@each_function
def test_default_device_and_dtype_do_not_matter(device, function):
    operands, keywords = example(function, device)
    expected = call(function, operands, **keywords)
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"):
            result = call(function, operands, **keywords)
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.device.type == device
    assert torch.equal(result, expected)


# ---- nothing to do -------------------------------------------------------------------------------


@each_form
def test_no_samples(device, function):
    operands = drawn(shapes(function, batch=(0,), padding=1), device=device, leaf=True)
    result = call(function, operands, padding=1)
    assert result.shape == formula(function, [draw(o.shape) for o in operands], padding=1).shape
    assert result.shape[0] == result.numel() == 0
    found = torch.autograd.grad(result, operands, result.detach())
    for gradient, operand in zip(found, operands, strict=True):
        assert gradient.shape == operand.shape
        assert not gradient.any()


def test_no_samples_of_a_guide(device):
    guide = draw((0, 3, 5, 6), device=device).requires_grad_()
    result = layers.affinity2d(guide, 3, padding=1)
    assert result.shape == (3, 3, 0, 1, 5, 6)
    (gradient,) = torch.autograd.grad(result, guide, result.detach())
    assert gradient.shape == guide.shape


@pytest.mark.parametrize(
    ("function", "case", "shape"),
    [
        ("modulated_conv2d", [(2, 0, 5, 6), (3, 0, 3, 3), (3, 3)], (2, 3, 5, 6)),
        ("modulated_conv2d", [(2, 4, 5, 6), (0, 4, 3, 3), (3, 3)], (2, 0, 5, 6)),
        ("pixelwise_conv2d", [(2, 0, 5, 6), (3, 3)], (2, 0, 5, 6)),
        ("local_conv2d", [(2, 0, 5, 6), (3, 3, 5, 6, 0, 3)], (2, 3, 5, 6)),
        ("local_conv2d", [(2, 4, 5, 6), (3, 3, 5, 6, 4, 0)], (2, 0, 5, 6)),
    ],
    ids=str,
)
def test_no_channels(device, function, case, shape):
    """Sums of nothing are 0."""
    operands = drawn(case, device=device, leaf=True)
    result = call(function, operands, padding=1)
    assert result.shape == shape
    assert not result.any()
    for gradient, operand in zip(
        torch.autograd.grad(result, operands, torch.ones_like(result)), operands, strict=True
    ):
        assert gradient.shape == operand.shape
        assert not gradient.any()


@pytest.mark.parametrize("leaf", [False, True])
@each_function
def test_memory_is_free_after_the_last_use(function, leaf):
    """No cycle of references waits for the garbage collector with the operands in its hands."""
    arrays = [operand.numpy() for operand in example(function, "cpu")[0]]
    keywords = example(function, "cpu")[1]
    operands = [torch.from_numpy(array).requires_grad_(leaf) for array in arrays]
    watched = [weakref.ref(array) for array in arrays]
    gc.disable()
    try:
        result = call(function, operands, **keywords)
        if leaf:
            result.backward(grad_like(result))
        del operands, arrays, result
        assert [reference() for reference in watched] == [None] * len(watched)
    finally:
        gc.enable()
