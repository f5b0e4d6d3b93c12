"""What ``import cuvarconv`` loads and needs, and that the examples in the docstrings run."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import cuvarconv

LAZY = ["cupy", "dask", "jax", "matplotlib", "ml_dtypes", "scipy", "skimage", "torch"]
OPTIONAL = [name for name in LAZY if name != "scipy"]
PUBLIC_NAMES = [name for name in cuvarconv.__all__ if callable(getattr(cuvarconv, name))]
# _gpu cannot be imported without cupy, and importing __main__ runs the command line.
MODULES = [
    module.name
    for module in pkgutil.walk_packages(cuvarconv.__path__, "cuvarconv.")
    if not module.name.startswith(("cuvarconv._gpu", "cuvarconv.__main__", "cuvarconv.kernels"))
]


def python(code: str) -> str:
    """Run code in a fresh interpreter, warnings as errors; its standard output."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def loaded(statement: str) -> set[str]:
    """Names out of LAZY that a statement loads."""
    return set(python(f"{statement}; import sys; print(*({set(LAZY)!r} & set(sys.modules)))").split())


def test_import_loads_no_heavy_library():
    assert loaded("import cuvarconv") == set()


def test_the_probe_sees_a_heavy_library():
    assert "scipy" in loaded("import cuvarconv, scipy.ndimage")


def test_host_arrays_need_no_optional_library():
    block = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))"
    work = "import cuvarconv; print(cuvarconv.correlate([[1.0, 2.0]], [[1.0, 1.0]]))"
    assert python(f"{block}; {work}").split() == ["[[2.", "3.]]"]


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_function_has_an_example(name):
    tests = doctest.DocTestFinder(recurse=False).find(getattr(cuvarconv, name), name)
    assert any(test.examples for test in tests), f"the docstring of {name} has no example"


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in OPTIONAL:
            pytest.skip(f"{error.name} is not installed")
        raise
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(module, optionflags=flags).failed == 0
