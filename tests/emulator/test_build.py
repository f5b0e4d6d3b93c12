"""Compiling kernels: errors, batches, the cache on disk, and the real NVRTC."""

import os
import subprocess
import sys
from pathlib import Path

import nvrtc
import pytest

import emulator

REASON = emulator.unavailable()
if REASON:
    pytest.skip(REASON, allow_module_level=True)

from emulator import fakecupy, launch  # noqa: E402  they import what only Linux has
from emulator.arguments import KernelError  # noqa: E402

cupy = fakecupy.make_modules()["cupy"]

CODE = (Path(emulator.__file__).parent / "toy.cu").read_text()
NAMES = ("smooth<float,3,64>", "copy_any", "conjugate", "row_sum<float,128>")


def test_unknown_kernel_and_compiler_error():
    with pytest.raises(KernelError, match="CUDA_ERROR_NOT_FOUND"):
        cupy.RawModule(code=CODE, name_expressions=["copy_any"]).get_function("copy_all")
    module = cupy.RawModule(code="__global__ void f() {\n nothing; }", name_expressions=["f"])
    with pytest.raises(cupy.cuda.compiler.CompileException, match=r"kernel\.cu:2.*nothing"):
        module.get_function("f")


def test_batch_is_one_library():
    launch.batch(CODE, NAMES)
    options = ("-std=c++17",)
    first, second = (
        cupy.RawModule(code=CODE, options=options, name_expressions=[name]).library(name, False)
        for name in NAMES[:2]
    )
    assert first is second
    launch.prebuild(options)  # nothing left to do


def test_processes_share_the_cache(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from emulator import build\n"
        "print(build.build_library('__global__ void f(int* x) { *x = 1; }', ['f']))"
    )
    command = [sys.executable, "-c", code, str(Path(emulator.__file__).parents[1])]
    environment = {**os.environ, "CUVARCONV_EMULATOR_CACHE": str(tmp_path)}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = {process.communicate()[0].strip() for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert len(outputs) == 1
    assert Path(outputs.pop()).parent == tmp_path
    assert not list(tmp_path.glob("*tmp*"))


@pytest.mark.parametrize(("cuda", "arch"), [(12, 70), (13, 90)])
def test_toy_is_cuda(cuda, arch):
    if cuda not in nvrtc.libraries():
        pytest.skip(f"NVRTC {cuda} is not installed")
    compiled = nvrtc.compile(CODE, NAMES, cuda, arch, ["-std=c++17"])
    assert set(compiled.resources) == set(NAMES)
    assert compiled.cubin.startswith(b"\x7fELF")
    usage = compiled.resources["row_sum<float,128>"]
    assert (usage.shared_bytes, usage.stack_bytes, usage.spill_bytes) == (16, 0, 0)
    assert usage.registers > 0


def test_nvrtc_error():
    for cuda in nvrtc.libraries():
        with pytest.raises(nvrtc.NvrtcError, match=r'kernel\.cu\(1\): error: .*"nothing"'):
            nvrtc.compile("__global__ void f() { nothing; }", ["f"], cuda, 90)
