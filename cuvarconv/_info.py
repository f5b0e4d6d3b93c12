"""``python -m cuvarconv info``: versions, host threads, device and kernels, as text."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cuvarconv

_PACKAGES = (
    "numpy",
    "scipy",
    "threadpoolctl",
    "ml_dtypes",
    "torch",
    "jax",
    "scikit-image",
    "matplotlib",
)
_CUPY_PACKAGES = ("cupy-cuda12x", "cupy-cuda13x", "cupy")
_INSTALL = "pip install 'cuvarconv[cuda12]' or 'cuvarconv[cuda13]'"


def report() -> str:
    """Describe the installation, one fact per line."""
    lines = [*_versions(), *_host(), *_device(), *_kernels()]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _versions() -> Iterator[tuple[str, str]]:
    yield "cuvarconv", cuvarconv.__version__
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in _PACKAGES:
        yield package, _version(package) or "not installed"
    found = [f"{version} ({name})" for name in _CUPY_PACKAGES if (version := _version(name))]
    yield "CuPy", ", ".join(found) or f"not installed: arrays on a CUDA device need {_INSTALL}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _host() -> Iterator[tuple[str, str]]:
    from threadpoolctl import threadpool_info

    yield "host threads", str(cuvarconv.get_workers())
    libraries = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    for pool in libraries:
        yield "BLAS", f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads"
    if not libraries:
        yield "BLAS", "not found by threadpoolctl"


def _device() -> Iterator[tuple[str, str]]:
    if not any(map(_version, _CUPY_PACKAGES)):
        yield "CUDA device", "none without CuPy; everything runs on the host"
        return
    try:
        import cupy

        runtime = cupy.cuda.runtime
        count = runtime.getDeviceCount()
    except Exception as error:  # a broken CuPy or driver fails in many ways; info is for finding out
        reason = " ".join(str(error).split()) or type(error).__name__
        yield "CUDA device", f"none found ({reason}); everything runs on the host"
        return
    if count == 0:
        yield "CUDA device", "none found; everything runs on the host"
        return
    for number in range(count):
        properties = runtime.getDeviceProperties(number)
        name = properties["name"]
        capability = f"{properties['major']}.{properties['minor']}"
        memory = f"{properties['totalGlobalMem'] / 2**30:.1f} GiB"
        name = name.decode() if isinstance(name, bytes) else name
        yield f"CUDA device {number}", f"{name}, compute capability {capability}, {memory}"
    yield "CUDA driver", _asked(lambda: _cuda_version(runtime.driverGetVersion()))
    yield "CUDA runtime", _asked(lambda: _cuda_version(runtime.runtimeGetVersion()))
    yield "NVRTC", _asked(lambda: ".".join(map(str, cupy.cuda.nvrtc.getVersion())))


def _asked(question: Callable[[], Any]) -> str:
    try:
        return str(question())
    except Exception as error:
        return f"unknown ({' '.join(str(error).split())})"


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _kernels() -> Iterator[tuple[str, str]]:
    cache = os.environ.get("CUPY_CACHE_DIR")
    place = Path(cache) if cache else Path("~/.cupy/kernel_cache").expanduser()
    yield "kernel cache", f"{place}{'' if place.is_dir() else ' (not made yet)'}"
    # The locator alone: to import the package that it is in takes a CuPy that works.
    locator = Path(cuvarconv.__file__).with_name("_gpu") / "_sources.py"
    folder = runpy.run_path(str(locator))["KERNEL_DIRECTORY"]
    yield "kernel sources", f"{folder} ({len(list(folder.glob('*.cu')))} .cu files)"
