"""Find CUDA's headers in the installed wheels, or in a toolkit that the environment names."""

import os
import shutil
import site
import sys
from pathlib import Path

_NEEDED = ("cuda_fp16.h", "cuda_bf16.h", "vector_types.h", "crt/host_defines.h", "nv/target")
_WHEEL_FOLDERS = {
    12: ("cuda_runtime/include", "cuda_nvcc/include", "cuda_cccl/include"),
    13: ("cu13/include",),
}


def site_directories():
    """Return the directories that packages are installed in, without duplicates."""
    candidates = [*site.getsitepackages(), site.getusersitepackages(), *sys.path]
    return [Path(d) for d in dict.fromkeys(candidates) if d and Path(d).is_dir()]


def _toolkits():
    roots = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME")]
    nvcc = shutil.which("nvcc")
    if nvcc:
        roots.append(Path(nvcc).resolve().parent.parent)
    return [Path(root) / "include" for root in roots if root]


def from_wheels(cuda):
    """Return the include directories of the wheels for one major version of CUDA, 12 or 13."""
    return [
        directory / "nvidia" / folder
        for directory in site_directories()
        for folder in _WHEEL_FOLDERS[cuda]
        if (directory / "nvidia" / folder).is_dir()
    ]


def for_host_compiler():
    """
    Return include directories that let g++ read ``cuda_fp16.h``.

    The host compiler also needs ``crt/host_defines.h``, which is a wheel of its own
    (``nvidia-cuda-crt`` for CUDA 13, in ``nvidia-cuda-nvcc-cu12`` for CUDA 12), and ``nv/target``,
    which comes with CuPy.

    Raises
    ------
    FileNotFoundError
        If no set of directories has both; the message names the wheels to install.
    """
    bundled = [d / "cupy/_core/include/cupy/_cccl/libcudacxx" for d in site_directories()]
    for cuda in (from_wheels(13), from_wheels(12), _toolkits()):
        directories = [d for d in (*cuda, *bundled) if d.is_dir()]
        has = [any((d / name).is_file() for d in directories) for name in _NEEDED]
        if all(has):
            return directories
    raise FileNotFoundError(
        f"no CUDA headers with {', '.join(_NEEDED)}: "
        "pip install nvidia-cuda-runtime nvidia-cuda-crt cupy-cuda13x, or set CUDA_PATH"
    )
