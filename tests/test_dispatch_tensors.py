"""Tensors of PyTorch and arrays of JAX that are more than memory: what is read, and what is refused."""

import pytest
from test_dispatch import EXPECTED, K, X, make
from tolerances import assert_equal, integers

import cuvarconv

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")

# ---- PyTorch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("operand", ["input", "weights"])
def test_lazily_conjugated_tensors(operand):
    x, k = integers((6, 7), "complex64"), integers((3, 3), "complex64", seed=1)
    tensors = {"input": make("torch", x), "weights": make("torch", k)}
    tensors[operand] = tensors[operand].conj()
    assert tensors[operand].is_conj()
    arrays = {"input": x, "weights": k}
    arrays[operand] = arrays[operand].conj()
    result = cuvarconv.correlate(**tensors)
    assert_equal(result.numpy(), cuvarconv.correlate(**arrays))
    assert not result.is_conj()


def test_lazily_negated_tensors():
    z = integers((6, 7), "complex64")
    x = make("torch", z).conj().imag
    assert x.is_neg()
    result = cuvarconv.correlate(x, make("torch", K[..., 0, 0]))
    assert_equal(result.numpy(), cuvarconv.correlate(-z.imag, K[..., 0, 0]))


@pytest.mark.parametrize("pending", ["conj", "neg"])
def test_output_with_pending_conjugation_or_negation(pending):
    memory = torch.zeros(6, 7, dtype=torch.complex64)
    output = memory.conj() if pending == "conj" else memory.conj().imag
    x = integers((6, 7), output.numpy(force=True).dtype)
    with pytest.raises(TypeError, match=r"^output: .*resolve_"):
        cuvarconv.correlate(make("torch", x), make("torch", K[..., 0, 0]), output)
    assert not memory.any()


@pytest.mark.parametrize("name", ["input", "weights", "output"])
def test_tensors_that_require_grad_belong_elsewhere(name):
    tensors = {"input": make("torch", X), "weights": make("torch", K), "output": torch.zeros(2, 6, 7)}
    tensors[name].requires_grad_()
    with pytest.raises(TypeError, match=rf"^{name}: .*requires grad.*cuvarconv\.torch.*detach"):
        cuvarconv.correlate(**tensors)
    with torch.no_grad(), pytest.raises(TypeError, match=rf"^{name}: .*cuvarconv\.torch"):
        cuvarconv.correlate(**tensors)
    assert not tensors["output"].any()


def test_parameters_require_grad_and_detached_ones_work():
    parameter = torch.nn.Parameter(make("torch", K))
    with pytest.raises(TypeError, match=r"cuvarconv\.torch"):
        cuvarconv.correlate(make("torch", X), parameter)
    result = cuvarconv.correlate(make("torch", X), parameter.detach())
    assert_equal(result.numpy(), EXPECTED)


UNREADABLE = {
    "meta": lambda: torch.empty(2, 6, 7, device="meta"),
    "sparse": lambda: torch.eye(6).to_sparse(),
    "bfloat16": lambda: torch.zeros(2, 6, 7, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_tensors_that_have_no_memory_to_read(name):
    with pytest.raises(TypeError, match=r"^input: .*DLPack"):
        cuvarconv.correlate(UNREADABLE[name](), make("torch", K[..., 0, 0]))
    with pytest.raises(TypeError, match=r"^weights: .*DLPack"):
        cuvarconv.correlate(make("torch", X), UNREADABLE[name]())


def test_tensors_under_vmap_are_refused():
    with pytest.raises(TypeError, match=r"^input: "):
        torch.func.vmap(lambda x: cuvarconv.correlate(x, make("torch", K)))(make("torch", X))


def test_tensors_under_grad_are_refused():
    def loss(x):
        return cuvarconv.correlate(x, make("torch", K)).sum()

    with pytest.raises(TypeError, match=r"^input: "):
        torch.func.grad(loss)(make("torch", X))


def test_fake_tensors_are_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.ones(2, 6, 7)
    with pytest.raises(TypeError, match=r"^input: "):
        cuvarconv.correlate(x, make("torch", K))


# ---- JAX -----------------------------------------------------------------------------------------


def test_output_cannot_be_a_jax_array():
    x, k = make("jax", X), make("jax", K)
    with pytest.raises(TypeError, match=r"^output: JAX arrays are immutable"):
        cuvarconv.correlate(x, k, jax.numpy.zeros((2, 6, 7)))


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap"])
def test_tracers_are_refused(transform):
    def function(x):
        return cuvarconv.correlate(x, make("jax", K)).sum()

    with pytest.raises(TypeError, match=rf"^input: a JAX tracer .*{transform}"):
        getattr(jax, transform)(function)(make("jax", X))


def test_tracer_as_weights():
    x = make("jax", X)
    with pytest.raises(TypeError, match=r"^weights: a JAX tracer"):
        jax.jit(lambda k: cuvarconv.correlate(x, k))(make("jax", K))
