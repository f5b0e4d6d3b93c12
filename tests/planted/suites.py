"""The tests that are run on planted bugs."""

CUDA = ("-k", "cuda or test_kernels or test_blocks and not numpy")
HOST = ("-k", "not cuda")
CORRELATE = ("tests/test_correlate.py", "tests/test_correlate_arrays.py", "tests/test_overlap.py")
MODULATED = ("tests/test_modulated.py", "tests/test_modulated_arrays.py")
ANY_CALL = ("tests/test_blocks.py", "tests/test_hypothesis.py", "tests/test_scipy_parity.py")
MODULATED_GRADIENTS_ON_GPU = (
    *("tests/test_kernels_modulated.py", "tests/test_gradients.py", "tests/test_gradients_arrays.py"),
    *("-k", "modulat and not numpy"),
)
TENSOR = (
    "tests/test_modulated_tensor.py",
    "tests/test_gradients_tensor.py",
    "tests/test_kernels_modulated.py",
)
CORRELATE_GRADIENT_ON_GPU = (
    *("tests/test_kernels_correlate.py", "tests/test_gradients.py", "tests/test_gradients_arrays.py"),
    *("-k", "cuda and correlate and not modulated and not local or test_kernels"),
)
SPREAD_ON_GPU = ("tests/test_kernels_correlate.py", "tests/test_spread.py", "tests/test_unfold.py", *CUDA)
CORRELATE_ON_GPU = (*CORRELATE, "tests/test_kernels.py", *ANY_CALL, *CUDA)
MODULATED_ON_GPU = (*MODULATED, "tests/test_kernels.py", *ANY_CALL, *CUDA)
ON_GPU = (*CORRELATE, *MODULATED, "tests/test_kernels.py", *ANY_CALL, *CUDA)
WINDOW = (*CORRELATE, *MODULATED, *ANY_CALL)
ON_HOST = (*WINDOW, "tests/test_host.py", *HOST)
THREADS = ("tests/test_host.py", "tests/test_interrupts.py", "-k", "not little_memory")
DASK = ("tests/test_dask.py", "tests/test_dask_arrays.py", "-k", "not cuda")
DASK_CALLS = ("tests/test_dask.py", "tests/test_dask_arrays.py", "-k", "not cuda and not same_as_in_memory")
DISPATCH = ("tests/test_dispatch.py", "tests/test_dispatch_tensors.py", "tests/test_errors.py", *WINDOW)
LOCAL = ("tests/test_local.py", "tests/test_local_host.py", "-k", "not cuda")
