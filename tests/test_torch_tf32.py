"""TF32 in `cuvarconv.torch`: for float32 on CUDA, where torch's switch for matrix products allows it."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from cuvarconv._tf32 import tf32_allowed  # noqa: E402  after torch is known to be there
from cuvarconv.torch import _operators  # noqa: E402


@pytest.fixture(autouse=True)
def switches():
    """Leave torch as it was."""
    before = torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def seen(monkeypatch, is_cuda):
    """Return whether TF32 is allowed where an operator computes."""
    found = []
    monkeypatch.setattr(_operators, "run", lambda *_: found.append(tf32_allowed()))
    result = SimpleNamespace(dtype=torch.float32, is_cuda=is_cuda)
    _operators.compute(None, result, {}, None)
    assert not tf32_allowed()
    return found[0]


@pytest.mark.parametrize("is_cuda", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_torch_decides(monkeypatch, allowed, is_cuda):
    torch.backends.cuda.matmul.allow_tf32 = allowed
    assert seen(monkeypatch, is_cuda) == (allowed and is_cuda)


def test_it_is_off_by_default(monkeypatch):
    assert not seen(monkeypatch, is_cuda=True)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_the_switch_of_all_backends(monkeypatch, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert seen(monkeypatch, is_cuda=True) == (precision == "high")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("allowed", [True, False])
def test_older_versions_of_torch(monkeypatch, allowed):
    backend = SimpleNamespace(matmul=SimpleNamespace(allow_tf32=allowed))
    monkeypatch.setattr(_operators.torch.backends, "cuda", backend)
    assert _operators._tf32_in_products() == allowed
    monkeypatch.undo()
