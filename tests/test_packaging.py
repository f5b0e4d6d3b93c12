"""Builds the distributions, installs them in every way, and looks for what must be found there."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    ".ci", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "benchmarks", "constraints.txt",
    "cuvarconv", "docs", "examples", "kernels", "pyproject.toml", "tests",
]  # fmt: skip
EXTRAS = {"bench", "cuda12", "cuda13", "dask", "demo", "lint", "test", "torch"}
KERNELS = sorted(path.stem for path in (ROOT / "kernels").glob("*.cu"))

# Loaded by path, here and in the probe, because importing cuvarconv._gpu as a package needs cupy.
_spec = importlib.util.spec_from_file_location("kernel_sources", ROOT / "cuvarconv" / "_gpu" / "_sources.py")
kernel_sources = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kernel_sources)

PROBE = """
import importlib.util, json, os, runpy, sys, cuvarconv
sources = runpy.run_path(os.path.join(cuvarconv.__path__[0], "_gpu", "_sources.py"))
print(json.dumps({
    "package": cuvarconv.__file__,
    "kernels": str(sources["KERNEL_DIRECTORY"]),
    "kernels importable at top level": importlib.util.find_spec("kernels") is not None,
    "sources": {name: sources["kernel_source"](name) for name in sys.argv[1:]},
}))
"""

LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"}
MACOS = {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"}


def run(*command, cwd, **environment):
    """Run a command without the caller's PYTHON* settings; what it printed, and its errors."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean["PYTHONDONTWRITEBYTECODE"] = "1"  # it would count as files of the checkout
    process = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout, process.stderr


def build(kind, tree, target):
    """Build without isolation, hence without a download; the path of what was built."""
    printed = run(sys.executable, "-m", "build", "--no-isolation", kind, "-o", target, cwd=tree)
    assert "Warning" not in "".join(printed), printed
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Copy the checkout, so that building leaves nothing behind in it."""
    tree = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for path in (ROOT / name for name in SOURCES):
        if path.is_dir():
            shutil.copytree(path, tree / path.name, ignore=ignore)
        elif path.exists():
            shutil.copy(path, tree)
    return tree


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    return build("--wheel", tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tree, tmp_path_factory):
    return build("--sdist", tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory):
    target = tmp_path_factory.mktemp("unpacked")
    run(sys.executable, "-m", "tarfile", "-e", sdist, target, cwd=target)
    (unpacked,) = target.iterdir()
    return unpacked


@pytest.fixture(scope="module")
def sdist_wheel(unpacked, tmp_path_factory):
    return build("--wheel", unpacked, tmp_path_factory.mktemp("sdist_wheel"))


@pytest.fixture(params=["wheel", "sdist wheel", "editable", "checkout"])
def found(request, tmp_path):
    """What a new virtual environment finds after one way of installing; NumPy is borrowed."""
    prefix = tmp_path / "environment"
    venv.create(prefix, with_pip=False, symlinks=os.name != "nt")
    python = prefix / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(run(python, "-c", code, cwd=tmp_path)[0].strip())
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)))

    tree = request.getfixturevalue("tree")
    variables = {}
    if request.param == "checkout":
        variables = {"PYTHONPATH": str(tree)}
    else:
        what = {
            "wheel": lambda: [request.getfixturevalue("wheel")],
            "sdist wheel": lambda: [request.getfixturevalue("sdist_wheel")],
            "editable": lambda: ["--no-build-isolation", "--editable", tree],
        }[request.param]()
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
        run(*pip, "install", "--no-index", "--no-deps", *what, cwd=tmp_path)
    home = tree if request.param in ("editable", "checkout") else site_packages
    output, _ = run(python, "-W", "error", "-c", PROBE, *KERNELS, cwd=tmp_path, **variables)
    return json.loads(output) | {"way": request.param, "home": home}


def test_kernel_sources_are_found_however_installed(found):
    beside = found["way"] in ("editable", "checkout")
    home = found["home"].resolve()
    assert Path(found["package"]).resolve() == home / "cuvarconv" / "__init__.py"
    assert Path(found["kernels"]) == (home if beside else home / "cuvarconv") / "kernels"
    assert found["sources"] == {name: kernel_sources.kernel_source(name) for name in KERNELS}
    assert KERNELS
    if found["way"] != "checkout":
        assert not found["kernels importable at top level"]


def test_wheel_holds_the_package_and_nothing_else(tree, wheel, sdist_wheel):
    expected = {path.relative_to(tree).as_posix() for path in (tree / "cuvarconv").rglob("*.py")}
    expected |= {f"cuvarconv/kernels/{p.name}" for p in (tree / "kernels").glob("*.cu*")}
    expected |= {"cuvarconv/py.typed"}
    for path in (wheel, sdist_wheel):
        names = set(zipfile.ZipFile(path).namelist())
        assert {name for name in names if ".dist-info/" not in name} == expected
        assert any(name.endswith("licenses/LICENSE") for name in names)


def test_sdist_holds_the_checkout(tree, unpacked):
    def files(root):
        return {p.relative_to(root) for p in root.rglob("*") if p.is_file()}

    built = {path for path in files(tree) if path.parts[0] == "build" or "egg-info" in str(path)}
    assert files(tree) - built <= files(unpacked)


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(archive.read(name).decode())


def required(metadata, extra, platform, machine):
    """Requirements of an extra on a platform, by name, beyond those of every installation."""
    environment = default_environment() | platform | {"platform_machine": machine}
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    return {
        requirement.name: requirement
        for requirement in requirements
        if requirement.marker and requirement.marker.evaluate(environment | {"extra": extra})
    }


def test_extras_are_those_that_work(metadata):
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS


@pytest.mark.parametrize("extra", sorted(EXTRAS))
@pytest.mark.parametrize(
    ("platform", "machine"),
    [(MACOS, "arm64"), (MACOS, "x86_64"), (LINUX, "ppc64le"), (LINUX, "riscv64")],
)
def test_no_cuda_is_asked_for_where_it_has_no_wheels(metadata, extra, platform, machine):
    names = required(metadata, extra, platform, machine)
    assert not [name for name in names if name.startswith(("cupy", "nvidia"))]


@pytest.mark.parametrize("extra", ["cuda12", "cuda13"])
@pytest.mark.parametrize(("platform", "machine"), [(LINUX, "x86_64"), (LINUX, "aarch64"), (WINDOWS, "AMD64")])
def test_cuda_extras_bring_cupy_with_its_libraries(metadata, extra, platform, machine):
    requirements = required(metadata, extra, platform, machine)
    assert set(requirements) == {f"cupy-{extra}x", "ml_dtypes"}
    cupy = requirements[f"cupy-{extra}x"]
    assert cupy.extras == {"ctk"}
    assert "13.6.0" not in cupy.specifier  # the last without the extra `ctk`


@pytest.mark.parametrize(
    ("platform", "machine", "has_torch"),
    [
        (LINUX, "x86_64", True),
        (LINUX, "riscv64", False),
        (MACOS, "arm64", True),
        (MACOS, "x86_64", False),
        (WINDOWS, "AMD64", True),
        (WINDOWS, "ARM64", False),
    ],
)
@pytest.mark.parametrize("extra", ["bench", "test"])
def test_torch_and_jax_are_asked_for_where_both_have_wheels(metadata, extra, platform, machine, has_torch):
    names = set(required(metadata, extra, platform, machine))
    assert names & {"torch", "jax"} == ({"torch", "jax"} if has_torch else set())


def test_readme_names_only_extras_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"(?:cuvarconv|\.)\[([a-z0-9,]+)\]", readme)
    assert named
    assert {extra for extras in named for extra in extras.split(",")} <= EXTRAS


def origins(text):
    """Each line of an expanded source with the file and number that ``#line`` gives it."""
    name, number = None, 0
    for line in text.splitlines():
        if marker := re.fullmatch(r'#line (\d+) "(.+)"', line):
            name, number = marker[2], int(marker[1])
        else:
            yield name, number, line
            number += 1


@pytest.mark.parametrize("name", KERNELS)
def test_expanded_lines_are_where_line_directives_say(name):
    kept = set()
    for file, number, line in origins(kernel_sources.kernel_source(name)):
        original = (ROOT / "kernels" / file).read_text(encoding="utf-8").splitlines()[number - 1]
        dropped = original.lstrip().startswith(('#include "', "#pragma once"))
        assert line == ("" if dropped else original.encode("ascii", "ignore").decode())
        kept.add((file, number))
    for file in {file for file, _ in kept}:
        lines = (ROOT / "kernels" / file).read_text(encoding="utf-8").splitlines()
        missing = {(file, number) for number in range(1, len(lines) + 1)} - kept
        assert all('#include "' in lines[number - 1] for _, number in missing)


@pytest.fixture
def kernel_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_sources, "KERNEL_DIRECTORY", tmp_path)
    return tmp_path


def test_headers_are_expanded_once_and_system_headers_stay(kernel_directory):
    (kernel_directory / "a.cuh").write_text("#pragma once\nint a;\n")
    (kernel_directory / "b.cuh").write_text('#include <cuda_fp16.h>\n#include "a.cuh"\nint b;\n')
    (kernel_directory / "k.cu").write_text('#include "b.cuh"\n# include "a.cuh"  // both\nint k;')
    assert list(origins(kernel_sources.kernel_source("k"))) == [
        ("b.cuh", 1, "#include <cuda_fp16.h>"),
        ("a.cuh", 1, ""),
        ("a.cuh", 2, "int a;"),
        ("b.cuh", 3, "int b;"),
        ("k.cu", 2, ""),
        ("k.cu", 3, "int k;"),
    ]


def test_sources_are_ascii_whatever_the_comments_say(kernel_directory):
    """CuPy writes them to a file in the encoding of the locale."""
    (kernel_directory / "k.cu").write_text("int a;  // σ²\nint b;\n", encoding="utf-8")
    assert kernel_sources.kernel_source("k") == '#line 1 "k.cu"\nint a;  // \nint b;\n'


def test_edited_header_changes_the_source(kernel_directory):
    (kernel_directory / "k.cu").write_text('#include "a.cuh"\n')
    (kernel_directory / "a.cuh").write_text("int a;\n")
    before = kernel_sources.kernel_source("k")
    (kernel_directory / "a.cuh").write_text("long a;\n")
    assert kernel_sources.kernel_source("k") == before.replace("int", "long") != before


def test_missing_source_is_named(kernel_directory):
    with pytest.raises(FileNotFoundError, match=r"nothing\.cu"):
        kernel_sources.kernel_source("nothing")
    (kernel_directory / "k.cu").write_text('#include "nowhere.cuh"\n')
    with pytest.raises(FileNotFoundError, match=r"nowhere\.cuh"):
        kernel_sources.kernel_source("k")
