"""The code blocks and links of the documents, and the examples."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import cuvarconv

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = (
    "cupy",
    "dask",
    "dask_cuda",
    "distributed",
    "jax",
    "torch",
    "xarray",
)  # what documents may import and machines may lack


def code_blocks(document):
    """Compile each block of Python so that a traceback shows its line of the document."""
    text = document.read_text(encoding="utf-8")
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text.count("\n", 0, block.start(1))
        yield compile("\n" * before + block[1], str(document), "exec")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_code_blocks_run(document):
    names = {"__name__": "document"}
    for block in code_blocks(document):
        try:
            exec(block, names)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            pytest.skip(f"needs {error.name}")


def test_code_blocks_fail_at_their_line(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("Words.\n\n```python\nimport cuvarconv\n\nassert not cuvarconv\n```\n")
    (block,) = code_blocks(document)
    with pytest.raises(AssertionError) as caught:
        exec(block, {})
    assert caught.traceback[-1].lineno + 1 == 6


def test_links_lead_to_files():
    links = {
        (document, link)
        for document in DOCUMENTS
        for link in re.findall(r"\]\(([^)#\s]+)\)", document.read_text(encoding="utf-8"))
        if "://" not in link
    }
    assert len(links) > len(DOCUMENTS)
    missing = [
        f"{document.name}: {link}" for document, link in links if not (document.parent / link).exists()
    ]
    assert not missing


def test_pictures_are_small_and_used():
    used = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size <= 300e3, picture.name
        assert picture.name in used


# ---- examples ------------------------------------------------------------------------------------


@pytest.fixture
def example(monkeypatch):
    """Import an example by name, as a script in its folder would."""
    monkeypatch.syspath_prepend(EXAMPLES)
    for name in ("deblur", "lens"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return import_module


def test_psfs_of_the_lens(example):
    psfs = example("lens").lens_psfs((15, 21), coma=3, astigmatism=1, defocus=0.5)
    assert psfs.shape == (11, 11, 15, 21)
    np.testing.assert_allclose(psfs.sum(axis=(0, 1)), 1, rtol=1e-5)
    assert np.argwhere(psfs[:, :, 7, 10]).min() == 4  # half a pixel of defocus, in the middle
    assert np.argwhere(psfs[:, :, 7, 10]).max() == 6
    taps = np.arange(-5, 6)
    down, right = (np.tensordot(psfs, taps, axes=(axis, 0)).sum(axis=0) for axis in (0, 1))
    assert down[0, 10] < -0.3 < 0.3 < down[-1, 10]  # comets point away from the middle
    assert right[7, 0] < -0.3 < 0.3 < right[7, -1]
    np.testing.assert_allclose(psfs, psfs[::-1, :, ::-1], atol=1e-6)
    np.testing.assert_allclose(psfs, psfs[:, ::-1, :, ::-1], atol=1e-6)


def test_deblur(tmp_path):
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow (the extra `demo`)")
    for module in ("matplotlib", "skimage"):
        pytest.importorskip(module, reason=f"needs {module} (the extra `demo`)")
    paths = [str(Path(cuvarconv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, EXAMPLES / "deblur.py", "--size", "64", "--iterations", "6"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert process.returncode == 0, process.stderr
    lines = re.findall(r"(\d+) iterations: residual +([\d.]+) %, PSNR ([\d.]+) dB", process.stdout)
    counts, residuals, psnrs = zip(*(map(float, line) for line in lines), strict=True)
    assert counts == (0, 1, 2, 4, 6, 6)
    *ours, uniform = zip(residuals, psnrs, strict=True)
    assert [*ours] == sorted(ours, key=lambda step: -step[0])
    assert psnrs[4] > psnrs[0] + 6
    assert psnrs[4] > uniform[1] + 6
    reported = re.findall(r"iteration (\d) of (\d)", process.stderr)
    assert reported == [(str(n), str(run)) for run in (1, 2, 4, 6, 6) for n in range(1, run + 1)]
    with pillow.open(tmp_path / "deblurred.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        assert np.asarray(picture.convert("L")).std() > 20


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nothing.jpg"], 1, "error: cannot read nothing.jpg: no such file"),
        (["--iterations", "0"], 2, "argument --iterations: invalid positive value: '0'"),
        (["--output", "nowhere/picture.png"], 2, "no such folder: nowhere"),
    ],
)
def test_deblur_refuses(example, capsys, monkeypatch, tmp_path, words, status, message):
    for module in ("matplotlib", "PIL.Image"):
        pytest.importorskip(module, reason=f"needs {module} (the extra `demo`)")
    monkeypatch.chdir(tmp_path)
    main = example("deblur").main
    if status == 1:
        assert main(words) == 1
    else:
        with pytest.raises(SystemExit, match="2"):
            main(words)
    assert message in capsys.readouterr().err
