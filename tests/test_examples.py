"""The examples that learn, at tiny sizes."""

import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NEEDED = {"torch": "torch", "skimage": "demo", "matplotlib": "demo"}


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Import an example by name, as a script in its folder would, to be run in an empty folder."""
    for module, extra in NEEDED.items():
        pytest.importorskip(module, reason=f"needs {module} (the extra `{extra}`)")
    import torch

    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    for path in EXAMPLES.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the scripts do
    yield import_module
    torch.set_num_threads(threads)


def assert_is_picture(path):
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow (the extra `demo`)")
    with pillow.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        assert np.asarray(picture.convert("L")).std() > 20


@pytest.mark.parametrize(("steps", "status"), [(20, 1), (250, 0)])
def test_learn_weight(example, capsys, steps, status):
    words = ["--size", "48", "--steps", str(steps), "--output", "learned.png"]
    assert example("learn_weight").main(words) == status
    printed = capsys.readouterr()
    assert_is_picture("learned.png")
    progress = re.findall(r"(\d+)/\d+ .* loss (\S+), error of w (\S+)", printed.err)
    evaluations, losses, errors = zip(*(map(float, line) for line in progress), strict=True)
    assert evaluations == tuple(range(steps // 10, steps + 1, steps // 10))
    assert losses[-1] < 0.2 * losses[0]
    assert errors[-1] < errors[0]
    reported = float(re.search(r"relative error of w: (\S+)", printed.out)[1])
    assert (reported > 1e-3) == bool(status)
    assert ("error: that is above 1e-03" in printed.err) == bool(status)


def test_gaussians_of_learn_weight(example):
    """Each has its width and the sum 1, and a pixel that is black is left as it is."""
    import torch

    kernels = example("learn_weight").gaussians(torch.tensor([[0.0, 0.5, 3.0]]))
    assert kernels.shape == (5, 5, 1, 3)
    torch.testing.assert_close(kernels.sum(dim=(0, 1)), torch.ones(1, 3))
    assert kernels[2, 2, 0, 0] == 1
    for sigma, kernel in ((0.5, kernels[..., 0, 1]), (3.0, kernels[..., 0, 2])):
        fall = torch.exp(torch.tensor(-0.5 / sigma**2))
        torch.testing.assert_close(kernel[1:4, 2] / kernel[2, 2], torch.stack([fall, fall**0, fall]))
        torch.testing.assert_close(kernel[2, 4] / kernel[2, 2], fall**4)


def test_pixel_adaptive_upsampling(example, capsys):
    words = ["--size", "160", "--steps", "60", "--output", "upsampled.png"]
    assert example("pixel_adaptive_upsampling").main(words) == 0
    printed = capsys.readouterr()
    assert_is_picture("upsampled.png")
    ratios = [float(ratio) for ratio in re.findall(r"error (\S+) × bilinear's", printed.err)]
    assert len(ratios) == 10
    assert np.mean(ratios[-3:]) < 0.8 * np.mean(ratios[:3])
    bilinear, _, ours = (float(score) for score in re.findall(r"(\S+) dB", printed.out))
    assert ours > bilinear


def test_upsampling_that_learns_nothing_fails(example, capsys, monkeypatch):
    module = example("pixel_adaptive_upsampling")
    monkeypatch.setattr(module, "RATE", 0.0)
    assert module.main(["--size", "64", "--steps", "2"]) == 1
    printed = capsys.readouterr()
    bilinear, _, ours = re.findall(r"(\S+) dB", printed.out)
    assert ours == bilinear
    assert "not beaten" in printed.err


def test_upsampling_keeps_its_halves_apart(example):
    """What is known of one part does not change with the other."""
    import torch

    module = example("pixel_adaptive_upsampling")
    image, other = torch.rand(2, 3, 21, 41)
    left, right = module.halves(image)
    assert left.truth.shape == (1, 3, 20, 28)
    assert right.truth.shape == (1, 3, 20, 12)
    other[..., 28:40] = image[..., 28:40]
    torch.testing.assert_close(module.halves(other)[1].known, right.known, rtol=0, atol=0)
    luma, colours = right.truth.split((1, 2), dim=1)
    torch.testing.assert_close(module.rgb(luma, colours), image[:, :20, 28:40])


@pytest.mark.parametrize("name", ["learn_weight", "pixel_adaptive_upsampling"])
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nothing.jpg"], 1, "error: cannot read nothing.jpg: no such file"),
        (["--steps", "0"], 2, "argument --steps: invalid positive value: '0'"),
        (["--output", "nowhere/picture.png"], 2, "no such folder: nowhere"),
    ],
)
def test_examples_refuse(example, capsys, name, words, status, message):
    main = example(name).main
    if status == 1:
        assert main(words) == 1
    else:
        with pytest.raises(SystemExit, match="2"):
            main(words)
    assert message in capsys.readouterr().err


def test_upsampling_refuses_tiny_pictures(example, capsys):
    assert example("pixel_adaptive_upsampling").main(["--size", "9"]) == 1
    assert "error: cannot learn from 9 × 6 pixels" in capsys.readouterr().err
