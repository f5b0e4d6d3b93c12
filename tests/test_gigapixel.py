"""The example of an image larger than memory, at a small size."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_close, assert_equal

import cuvarconv

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NEEDED = {"distributed": "dask", "zarr": "demo", "skimage": "demo", "matplotlib": "demo"}


@pytest.fixture
def example(monkeypatch):
    """Import the example, as a script in its folder would."""
    for module, extra in NEEDED.items():
        pytest.importorskip(module, reason=f"needs {module} (the extra `{extra}`)")
    monkeypatch.syspath_prepend(EXAMPLES)
    for name in ("gigapixel", "_common"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return import_module("gigapixel")


def test_from_store_to_store(example, tmp_path):
    import dask.array as da

    paths = [str(Path(cuvarconv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, EXAMPLES / "gigapixel.py", "--size", "230", "--chunk", "100"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "100% Completed" in process.stdout
    peaks = re.search(r"peak memory of the workers: (\d+) MB, (\d+) MB", process.stdout)
    assert 50 < int(peaks[1]) < 1000
    before, after = (
        da.from_zarr(str(tmp_path / "gigapixel" / f"{name}.zarr")).compute() for name in ("before", "after")
    )
    photo = example.photograph(None)[:230, :230]
    assert 0.009 < (before - photo).std() < 0.011
    everywhere = {None: {"array-location": [(0, 7), (0, 7), (0, 230), (0, 230)]}}
    kernels = example.kernel_block(230, everywhere)
    assert_close(kernels.sum(axis=(0, 1)), np.ones((230, 230)), np.float32)
    assert_equal(after, cuvarconv.correlate(before, kernels, mode="mirror"))
    assert (tmp_path / "gigapixel" / "gigapixel.png").stat().st_size > 10_000


def test_field(example):
    """It is linear between the points where it is known."""
    field = np.arange(25.0).reshape(1, 5, 5)
    places = np.linspace(0, 1, 9)
    expected = 20 * places[:, None] + 4 * places
    np.testing.assert_allclose(example.interpolated(field, places, places)[0], expected, atol=1e-6)


def test_refuses(example, capsys):
    assert example.main(["nothing.jpg"]) == 1
    assert "error: cannot read nothing.jpg: no such file" in capsys.readouterr().err
