"""The command line: both demos on small pictures and what users may hand it."""

import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from cuvarconv import _demo
from cuvarconv.__main__ import main
from cuvarconv._demo import blurs, measure, pictures

pillow = pytest.importorskip("PIL.Image", reason="needs Pillow (the extra `demo`)")
pytest.importorskip("matplotlib", reason="needs matplotlib (the extra `demo`)")

QUICK = ["--size", "64", "--sigma-max", "1", "--disc-max", "2", "--repeats", "1"]


@pytest.fixture
def demo(tmp_path):
    """Run the demo in this process; return its exit status."""

    def run(*words, output=tmp_path / "made" / "here"):
        return main(["demo", *map(str, words), *QUICK, "--output", str(output)])

    run.folder = tmp_path / "made" / "here"
    return run


@pytest.fixture
def numpy_only(monkeypatch):
    """Compare with NumPy's formula, which spares the import of PyTorch."""
    monkeypatch.setattr(blurs, "find_spec", lambda name: None)


@pytest.fixture
def no_panel(monkeypatch, numpy_only):
    """Leave out what takes long and is the same for every input."""
    monkeypatch.setattr(_demo, "draw", lambda *arguments, **keywords: None)
    monkeypatch.setattr(_demo, "draw_filtered", lambda *arguments, **keywords: None)


def opened(path):
    with pillow.open(path) as file:
        assert file.format == "PNG"
        return np.asarray(file)


def test_default_picture_with_its_disparity(demo, capsys, monkeypatch):
    pytest.importorskip("skimage", reason="needs scikit-image (the extra `demo`)")

    def refuse(*arguments):
        raise AssertionError("the demo must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert demo() == 0
    printed, stages = capsys.readouterr()
    assert "stereo motorcycle: 64 × 43 pixels, shrunk from 741 × 500" in printed
    deviations = re.findall(r"largest deviation from the formula: (\S+)", printed)
    assert len(deviations) == 2
    assert all(0 <= float(deviation) < 1e-5 for deviation in deviations)
    assert len(re.findall(r"\n    time .* ms .* ms +[\d.]+×", printed)) == 2
    assert len(re.findall(r"\n    peak extra memory +(?:[\d.]+ MiB|not measured)", printed)) == 2
    assert "window 7 × 7" in printed
    assert "window 5 × 5" in printed
    assert "\r" not in stages
    assert [line.split("] ")[1] for line in stages.splitlines()] == [
        "reading the picture",
        "blur by intensity: blurring",
        "blur by intensity: comparing with unfold",
        "depth of field: blurring",
        "depth of field: comparing with unfold",
        "filters that adapt",
        "drawing the panels",
    ]
    names = {"panel.png", "filters.png", "intensity_blur.png", "depth_blur.png"}
    assert {path.name for path in demo.folder.iterdir()} == names
    assert all(name in printed for name in names)
    check_panel(opened(demo.folder / "panel.png"), rows=2)
    assert len(re.findall(r"(?:_filter|normalized_correlate) +[\d.]+ s\n", printed)) == 5
    filters = opened(demo.folder / "filters.png")[..., :3]
    for band in np.array_split(filters, 5):
        assert all(half.std() > 20 for half in np.array_split(band, 2, axis=1))
    for name in ("intensity_blur.png", "depth_blur.png"):
        result = opened(demo.folder / name)
        assert result.shape == (43, 64, 3)
        assert result.std() > 20


def check_panel(panel, rows):
    """Large, four images in each row that all show something, and little of it white."""
    panel = panel[..., :3]
    assert panel.shape[1] > 3000
    assert panel.shape[0] > rows * 400
    for band in np.array_split(panel, rows):
        for column in np.array_split(band, 4, axis=1):
            assert column.std() > 25
    assert (panel == 255).all(axis=-1).mean() < 0.2


def save_noise(path, mode="RGB", size=(24, 16), **options):
    values = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    pillow.fromarray(values).convert(mode).save(path, **options)
    return path


def test_own_picture_has_no_depth(demo, tmp_path, capsys, numpy_only):
    assert demo(save_noise(tmp_path / "mine.png")) == 0
    printed = capsys.readouterr().out
    assert "mine.png: 24 × 16 pixels\n" in printed
    assert "depth of field" not in printed
    assert "beside NumPy unfold, the whole picture, 24 × 16 pixels" in printed
    check_panel(opened(demo.folder / "panel.png"), rows=1)
    assert not (demo.folder / "depth_blur.png").exists()


def test_own_disparity(demo, tmp_path, capsys, no_panel):
    image = save_noise(tmp_path / "mine.png")
    disparity = np.tile(np.linspace(1, 9, 24, dtype=np.float32), (16, 1))
    disparity[3, 4:9] = np.nan
    np.save(tmp_path / "disparity.npy", disparity)
    assert demo(image, "--disparity", tmp_path / "disparity.npy", "--focus", "1") == 0
    result = opened(demo.folder / "depth_blur.png").astype(int)
    change = np.abs(result - opened(image)).mean(axis=(0, 2))
    assert change[:3].max() < 5 < 30 < change[-8:].min()
    pillow.fromarray(np.nan_to_num(disparity).astype(np.uint16)).save(tmp_path / "disparity.png")
    assert demo(image, "--disparity", tmp_path / "disparity.png") == 0
    assert "depth of field" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 3), (40, 1), (1, 7)])
def test_tiny_pictures_are_drawn(demo, tmp_path, size, numpy_only):
    assert demo(save_noise(tmp_path / "tiny.png", size=size)) == 0
    assert opened(demo.folder / "intensity_blur.png").shape == (size[1], size[0], 3)
    assert opened(demo.folder / "panel.png").std() > 20


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.png"),
        ("1", "a.png"),
        ("LA", "a.png"),
        ("RGBA", "a.png"),
        ("P", "a.png"),
        ("P", "a.gif"),
        ("I;16", "a.png"),
        ("F", "a.tif"),
        ("CMYK", "a.jpg"),
        ("RGB", "a ü.bmp"),
    ],
)
def test_kinds_of_pictures(demo, tmp_path, mode, name, no_panel):
    path = tmp_path / name
    if mode == "I;16":
        grey = np.random.default_rng(6).integers(0, 1 << 16, (16, 24), np.uint16)
        pillow.fromarray(grey).save(path)
    else:
        save_noise(path, mode)
    assert demo(path) == 0
    result = opened(demo.folder / "intensity_blur.png")
    assert result.shape == (16, 24, 3)
    assert result.std() > 10


def test_values_of_deep_and_transparent_pictures(tmp_path):
    grey = np.array([[0, 32768, 65535]], np.uint16)
    pillow.fromarray(grey).save(tmp_path / "deep.png")
    loaded = pictures.load(tmp_path / "deep.png", None, 64).colours
    np.testing.assert_allclose(loaded, np.repeat(grey[..., None] / 65535, 3, -1), atol=1e-6)
    clear = np.array([[[0, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 128]]], np.uint8)
    pillow.fromarray(clear).save(tmp_path / "clear.png")
    loaded = pictures.load(tmp_path / "clear.png", None, 64).colours
    expected = np.array([[[1, 1, 1], [1, 0, 0], [0.498, 0.498, 0.498]]])
    np.testing.assert_allclose(loaded, expected, atol=0.01)


@pytest.mark.parametrize(("dtype", "atol"), [(np.uint16, 1 / 250), (np.float32, 1e-6)])
def test_deep_colour_tiff(tmp_path, dtype, atol):
    tifffile = pytest.importorskip("tifffile", reason="needs tifffile (comes with scikit-image)")
    colours = np.random.default_rng(7).random((5, 6, 3))
    stored = (colours * (65535 if dtype == np.uint16 else 1)).astype(dtype)
    tifffile.imwrite(tmp_path / "deep.tif", stored, photometric="rgb")
    loaded = pictures.load(tmp_path / "deep.tif", None, 64).colours
    np.testing.assert_allclose(loaded, colours, atol=atol)


def test_floating_picture_with_nan(tmp_path):
    values = np.array([[0.25, np.nan, np.inf, 4.0]], np.float32)
    pillow.fromarray(values).save(tmp_path / "float.tif")
    loaded = pictures.load(tmp_path / "float.tif", None, 64).colours[0, :, 0]
    np.testing.assert_allclose(loaded, [0.0625, 0, 0, 1])


def test_camera_orientation_is_followed(tmp_path):
    exif = pillow.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    path = save_noise(tmp_path / "turned.jpg", exif=exif)
    assert pictures.load(path, None, 64).colours.shape == (24, 16, 3)


def test_large_pictures_are_shrunk(demo, tmp_path, capsys, no_panel):
    assert demo(save_noise(tmp_path / "large.png", size=(900, 300))) == 0
    assert "large.png: 64 × 21 pixels, shrunk from 900 × 300" in capsys.readouterr().out


def bomb(path, monkeypatch):
    monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", 100)
    return save_noise(path)


def truncated(path, monkeypatch):
    save_noise(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:3000])
    return path


def holding(data):
    def make(path, monkeypatch):
        path.write_bytes(data)
        return path

    return make


def folder(path, monkeypatch):
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, monkeypatch: path, "no such file"),
        (folder, "cannot read"),
        (holding(b""), "not a picture file"),
        (holding(b"just words"), "not a picture file"),
        (truncated, "cannot read"),
        (bomb, "exceeds limit"),
    ],
    ids=["missing", "folder", "empty", "text", "truncated", "huge"],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_unreadable_pictures(demo, tmp_path, capsys, monkeypatch, make, message, suffix):
    path = make(tmp_path / f"bad{suffix}", monkeypatch)
    if suffix == ".tif" and message == "not a picture file":
        message = "cannot read"
    assert demo(path) == 1
    error = last_error(capsys)
    assert message in error
    assert path.name in error or message == "exceeds limit"


def last_error(capsys):
    """Return the error, which must be one line without a traceback."""
    *stages, error = capsys.readouterr().err.splitlines()
    assert error.startswith("cuvarconv demo: ")
    assert all(line.startswith("[") for line in stages)
    return error


def test_values_that_are_no_picture(demo, tmp_path, capsys):
    tifffile = pytest.importorskip("tifffile", reason="needs tifffile (comes with scikit-image)")
    tifffile.imwrite(tmp_path / "complex.tif", np.ones((3, 4), np.complex64))
    assert demo(tmp_path / "complex.tif") == 1
    assert "complex64" in last_error(capsys)


@pytest.mark.parametrize(
    ("disparity", "message"),
    [
        (np.zeros((16, 24)), "no value is finite and above 0"),
        (np.full((16, 24), np.nan), "no value is finite and above 0"),
        (np.ones((16, 16)), "does not fit the picture, 24 × 16 pixels"),
        (np.ones((16, 24, 3)), "expected numbers of shape (H, W)"),
        (np.full((16, 24), "a"), "expected numbers of shape (H, W)"),
        (np.full((16, 24), None), "cannot read"),
        (None, "no such file"),
    ],
)
def test_unusable_disparity(demo, tmp_path, capsys, disparity, message):
    path = tmp_path / "disparity.npy"
    if disparity is not None:
        np.save(path, disparity)
    assert demo(save_noise(tmp_path / "mine.png"), "--disparity", path) == 1
    error = last_error(capsys)
    assert message in error
    assert "disparity.npy" in error


def test_disparity_without_picture(demo, capsys):
    assert demo("--disparity", "some.npy") == 1
    assert "needs the IMAGE" in last_error(capsys)


def test_output_folder_that_cannot_be(demo, tmp_path, capsys):
    image = save_noise(tmp_path / "mine.png")
    assert demo(image, output=image) == 1
    assert "cannot write to" in last_error(capsys)
    assert demo(image, output=image / "below") == 1
    assert "cannot write to" in last_error(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["demo", "--size", "0"],
        ["demo", "--size", "2.5"],
        ["demo", "--sigma-max", "nan"],
        ["demo", "--sigma-max", "-1"],
        ["demo", "--disc-max", "1e9"],
        ["demo", "--focus", "inf"],
        ["demo", "--repeats", "few"],
        ["demo", "one.png", "two.png"],
        ["unknown"],
        [],
    ],
)
def test_wrong_options(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("module", ["matplotlib", "PIL", "skimage.data"])
def test_missing_extra_is_named(demo, tmp_path, capsys, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    image = [tmp_path / "mine.png"] if module == "PIL" else []
    assert demo(*image) == 1
    assert "pip install 'cuvarconv[demo]'" in last_error(capsys)


@pytest.mark.parametrize(("error", "status"), [(MemoryError, 1), (KeyboardInterrupt, 130)])
def test_stopped_in_the_middle(demo, tmp_path, capsys, monkeypatch, error, status):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(_demo, "blurred", fail)
    assert demo(save_noise(tmp_path / "mine.png")) == status
    last_error(capsys)


def test_progress_moves_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with _demo._Progress().stage("blurring") as advance:
        advance(0.5)
        advance(1.0)
    shown = capsys.readouterr().err
    assert re.fullmatch(r"(\r\[ +\d+\.\d s\] blurring(  50 %| 100 %)?){3}\n", shown)


def test_peak_memory_counts_what_is_allocated():
    found = measure.peak_extra_bytes(lambda: np.ones(64 << 17).sum())
    if found is None:
        pytest.skip("needs Linux's /proc and glibc")
    assert 60 << 20 < found < 80 << 20


def test_peak_memory_says_where_it_cannot_tell(monkeypatch, tmp_path, demo, capsys, no_panel):
    monkeypatch.setattr(measure, "_CLEAR_REFS", tmp_path / "not" / "there")
    assert demo(save_noise(tmp_path / "mine.png")) == 0
    assert "peak extra memory     not measured" in capsys.readouterr().out


def test_as_a_module_on_a_narrow_console(tmp_path):
    image = save_noise(tmp_path / "mine.png", size=(3, 2))
    words = ["demo", image, *QUICK, "--output", tmp_path / "made"]
    done = subprocess.run(
        [sys.executable, "-m", "cuvarconv", *map(str, words)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "mine.png: 3 ? 2 pixels" in done.stdout
