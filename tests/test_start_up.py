"""What is compiled, and when: each kernel once in a process, and never again where the disk cache has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cuvarconv

COUNT_COMPILATIONS = """
import json
from cupy.cuda import compiler
compiled = []
def count(compile_source):
    def counted(*args, **kwargs):
        compiled.append(1)
        return compile_source(*args, **kwargs)
    return counted
for name in ("compile_using_nvrtc", "_compile_using_nvrtc_no_warning"):  # the second is CuPy 14's own way
    if hasattr(compiler, name):
        setattr(compiler, name, count(getattr(compiler, name)))
import cupy
import cuvarconv
image, kernels = cupy.ones((16, 16), cupy.float32), cupy.ones((3, 3, 16, 16), cupy.float32)
result = cuvarconv.correlate(image, kernels)
print(json.dumps({"compiled": len(compiled), "sum": float(result.sum())}))
"""


@pytest.fixture
def built(cuda_backend, instantiations, monkeypatch):
    """List the modules that a test makes, starting without any."""
    made = []
    module = cuda_backend.module.RawModule

    def recorded(*args, name_expressions, **keywords):
        made.extend(name_expressions)
        return module(*args, name_expressions=name_expressions, **keywords)

    monkeypatch.setattr(cuda_backend.module, "RawModule", recorded)
    cuda_backend.module.clear_memo()
    yield made
    cuda_backend.module.clear_memo()


def test_each_instantiation_is_made_once(cuda_backend, built):
    for height in (5, 9, 40):
        image = cuda_backend.asarray(np.ones((height, 40), np.float32))
        kernels = cuda_backend.asarray(np.ones((3, 3, height, 40), np.float32))
        for mode in ("reflect", "constant"):
            cuvarconv.correlate(image, kernels, mode=mode)
    assert len(built) == len(set(built)) == 1
    cuvarconv.correlate(image.astype(np.float64), kernels.astype(np.float64))
    assert len(built) == len(set(built)) == 2


def test_a_second_process_compiles_nothing(cuda_backend, tmp_path):
    if cuda_backend.is_emulated:
        pytest.skip("CuPy's disk cache of kernels needs a GPU")
    first, second = (_process(tmp_path) for _ in range(2))
    assert first["compiled"] > 0
    assert second["compiled"] == 0
    assert first["sum"] == second["sum"] == 9 * 16 * 16


def _process(cache: Path) -> dict:
    root = str(Path(cuvarconv.__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", COUNT_COMPILATIONS],
        env={**os.environ, "CUPY_CACHE_DIR": str(cache), "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
