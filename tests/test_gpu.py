"""The calls that `gpu.py` makes on a GPU launch every kernel and agree with NumPy."""

import emulator
import numpy as np
from gpu_calls import calls


def kernel_of(instantiation):
    return instantiation.partition("<")[0]


def test_every_kernel_is_launched(cuda_backend, instantiations):
    with emulator.recording() as launched:
        for call in calls([np.float32]):
            found = call.on(cuda_backend.asarray)
            assert call.error(found, call.expected()) <= call.tolerance, call.name
    assert {kernel_of(name) for name in launched.names} == {kernel_of(name) for name in instantiations}
