"""Every instantiation, compiled by the real NVRTC for real architectures; no GPU is needed."""

import re

import nvrtc
import pytest

# The oldest devices whose tensor cores the library uses, and Hopper; both compilers.
TARGETS = [(12, 80), (13, 90)]
# The sources take the same branches there, or older ones: every third instantiation, others on each.
FURTHER_TARGETS = [*((12, arch) for arch in (70, 90)), *((13, arch) for arch in (75, 80, 86, 89, 100, 120))]
REGISTERS_PER_BLOCK = 65536
STATIC_SHARED_BYTES = 48 << 10
THREADS = 128  # per block, but for the matrix products
TILED = ("modulated_correlate", "modulated_input_gradient", "modulated_modulation_gradient")


def threads_per_block(name):
    """Return the block size that the launch code uses for an instantiation."""
    kernel, numbers = name.split("<")[0], [int(n) for n in re.findall(r", (\d+)", name)]
    if kernel.endswith("_tensor"):
        return numbers[1]
    if kernel in TILED:
        return numbers[0] * numbers[1] // 16
    return 256 if kernel == "modulated_weights_gradient" else THREADS


@pytest.fixture(scope="module")
def sources(cuda_backend):
    """Return sources and their instantiations for a target; the generator needs `cupy` or its stand-in."""
    from cuvarconv._gpu._instantiations import instantiations
    from cuvarconv._gpu._launch import OPTIONS
    from cuvarconv._gpu._sources import kernel_source

    def of(arch):
        return [(kernel_source(source), names, OPTIONS) for source, names in instantiations(arch).items()]

    return of


def test_number_of_instantiations(sources):
    names = [name for _, names, _ in sources(90) for name in names]
    assert 0 < len(names) == len(set(names)) <= 300


def test_older_devices_have_all_but_tensor_cores(sources):
    old, new = ({name for _, names, _ in sources(arch) for name in names} for arch in (75, 80))
    assert old < new
    assert all("_tensor<" in name for name in new - old)
    assert not any("_tensor<" in name for name in old)


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize(("cuda", "arch"), TARGETS)
def test_compiles_within_its_resources(sources, cuda, arch, part):
    compiles_within_its_resources(sources(arch)[part::3], cuda, arch)


@pytest.mark.parametrize(("cuda", "arch"), FURTHER_TARGETS)
def test_a_third_compiles_within_its_resources(sources, cuda, arch):
    first = FURTHER_TARGETS.index((cuda, arch)) % 3
    some = [(code, sorted(names)[first::3], options) for code, names, options in sources(arch)]
    compiles_within_its_resources([each for each in some if each[1]], cuda, arch)


def compiles_within_its_resources(sources, cuda, arch):
    if cuda not in nvrtc.libraries():
        pytest.skip(f"NVRTC {cuda} is not installed")
    compiled = [nvrtc.compile(code, names, cuda, arch, options) for code, names, options in sources]
    resources = {name: used for result in compiled for name, used in result.resources.items()}
    assert set(resources) == {name for _, names, _ in sources for name in names} != set()
    for name, used in resources.items():
        print(f"CUDA {cuda} sm_{arch} {name}: {used}")
        assert 0 < used.registers * threads_per_block(name) <= REGISTERS_PER_BLOCK, name
        assert used.shared_bytes <= STATIC_SHARED_BYTES, name
        assert used.spill_bytes == used.stack_bytes == 0, (name, used)
    warnings = [
        line for result in compiled for line in result.log.splitlines() if ".cu" in line and "warning" in line
    ]
    assert not warnings


def test_a_broken_kernel_is_refused_with_its_log():
    cuda = max(nvrtc.libraries(), default=None)
    if cuda is None:
        pytest.skip("NVRTC is not installed")
    with pytest.raises(nvrtc.NvrtcError, match="undefined_name"):
        nvrtc.compile("__global__ void f() { undefined_name(); }", ["f"], cuda, 80)
