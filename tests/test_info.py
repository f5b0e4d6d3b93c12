"""``python -m cuvarconv info``: what is installed, and what is not."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cuvarconv import _info
from cuvarconv.__main__ import main


class FakeRuntime:
    @staticmethod
    def getDeviceCount():
        return 1

    @staticmethod
    def getDeviceProperties(number):
        return {"name": b"Some GPU", "major": 9, "minor": 0, "totalGlobalMem": 8 << 30}

    @staticmethod
    def driverGetVersion():
        return 12080

    @staticmethod
    def runtimeGetVersion():
        raise RuntimeError("no runtime\nat all")


def facts(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {name.strip(): value for name, value in (re.split(r"  +", line, maxsplit=1) for line in lines)}


def test_info_without_cupy(capsys, monkeypatch):
    version = _info._version
    monkeypatch.setattr(_info, "_version", lambda name: None if "cupy" in name else version(name))
    monkeypatch.delenv("CUPY_CACHE_DIR", raising=False)
    found = facts(capsys)
    assert found["numpy"] == np.__version__
    assert "cuvarconv[cuda12]" in found["CuPy"]
    assert found["CUDA device"] == "none without CuPy; everything runs on the host"
    assert int(found["host threads"]) >= 1
    assert "kernel_cache" in found["kernel cache"]
    assert re.search(r"kernels \([1-9]\d* \.cu files\)$", found["kernel sources"])
    assert "BLAS" in found


def test_info_with_a_device(capsys, monkeypatch, tmp_path):
    nvrtc = SimpleNamespace(getVersion=lambda: (12, 9))
    fake = SimpleNamespace(cuda=SimpleNamespace(runtime=FakeRuntime, nvrtc=nvrtc))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(_info, "_version", lambda name: "14.0" if name == "cupy-cuda12x" else None)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    found = facts(capsys)
    assert found["CuPy"] == "14.0 (cupy-cuda12x)"
    assert found["CUDA device 0"] == "Some GPU, compute capability 9.0, 8.0 GiB"
    assert found["CUDA driver"] == "12.8"
    assert found["CUDA runtime"] == "unknown (no runtime at all)"
    assert found["NVRTC"] == "12.9"
    assert found["kernel cache"] == str(tmp_path)


@pytest.mark.parametrize("fake", [None, SimpleNamespace(cuda=None)])
def test_info_with_a_broken_cupy(capsys, monkeypatch, fake):
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(_info, "_version", lambda name: "14.0" if name == "cupy-cuda12x" else None)
    assert facts(capsys)["CUDA device"].startswith("none found (")


def test_info_without_a_device(capsys, monkeypatch):
    runtime = SimpleNamespace(getDeviceCount=lambda: 0)
    fake = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(_info, "_version", lambda name: "14.0" if name == "cupy-cuda12x" else None)
    assert facts(capsys)["CUDA device"] == "none found; everything runs on the host"
