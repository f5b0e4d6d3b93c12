"""Adjoints, gradients and the full form on the NumPy backend: memory, workers, large sums."""

import tracemalloc

import numpy as np
import pytest
from conftest import Backend
from forms import FORMS, check_noise, operands, result_shape
from test_host import LIMIT, MIB, small, zeros
from tolerances import assert_close, assert_equal, noise

import cuvarconv

# ---- memory --------------------------------------------------------------------------------------


def beyond_results(call):
    """Return the bytes that a call allocates at its worst, on top of its results."""
    tracemalloc.start()
    try:
        results = call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    results = results if isinstance(results, tuple) else (results,)
    return peak - sum(result.nbytes for result in results)


def warm_up():
    """Load threadpoolctl and fill caches."""
    tiny = operands("modulated_correlate")
    cuvarconv.modulated_correlate_vjp(cuvarconv.modulated_correlate(*tiny), *tiny)


# Name: function, operands, keywords.
LOCAL = {
    "local, pixels last": (
        "local_correlate",
        [zeros(16, 128, 128), np.moveaxis(zeros(3, 3, 16, 24, 128, 128), (2, 3), (4, 5))],
        {},
    ),
    "local, few channels, far taps": (
        "local_correlate",
        [zeros(24, 2, 90, 90, dtype=np.complex128), small(3, 3, 24, 90, 90, 2, 8)],
        {"dilation": 40},
    ),
    "local, one channel, complex": (
        "local_correlate",
        [zeros(1, 1024, 512, dtype=np.complex128), small(3, 3, 1024, 512, 1, 1)],
        {"dilation": 120},
    ),
    "local, complex matrices": (
        "local_correlate",
        [zeros(24, 32, 90, 90, dtype=np.complex128), small(3, 3, 24, 90, 90, 32, 1)],
        {"dilation": 40},
    ),
    "local, more pairs than a block has": (
        "local_correlate",
        [zeros(128, 4, 256), small(2, 1, 4, 256, 128, 128)],
        {},
    ),
}
ADJOINTS = {
    "spread, per pixel": ("spread", [zeros(3, 2048, 2048), small(3, 3, 2048, 2048)], {}),
    "spread, many planes": ("spread", [zeros(1 << 18, 4, 4), small(3, 3)], {}),
    "spread, long rows": ("spread", [zeros(1, 1 << 22), small(1, 3)], {"mode": "wrap"}),
    "spread, long columns": ("spread", [zeros(1 << 22, 1), small(3, 1)], {"mode": "mirror"}),
    "spread, wide window": ("spread", [zeros(1, 4), small(1, 1 << 13)], {"dilation": 1 << 12}),
    "spread, tall window": ("spread", [zeros(4, 1 << 15), small(1 << 8, 1)], {"dilation": 1 << 20}),
    "spread, huge window": ("spread", [zeros(256, 256), small(129, 65)], {"mode": ("mirror", "wrap")}),
    "spread, huge dilation": ("spread", [zeros(1024, 1024), small(3, 3)], {"dilation": 1 << 40}),
    "spread, huge stride": ("spread", [zeros(4, 4), small(3, 3)], {"stride": 1000}),
    "spread, valid": ("spread", [zeros(1024, 2048), small(5, 5)], {"mode": "valid", "stride": 2}),
    "spread, channels last": ("spread", [zeros(512, 512, 16), small(3, 3)], {"axes": (0, 1)}),
    "spread, complex": ("spread", [zeros(512, 1024, dtype=np.complex128), small(5, 5)], {"dilation": 300}),
    "spread, integers": ("spread", [zeros(1024, 1024, dtype=np.int32), small(5, 5)], {}),
    "unfold": ("unfold", [zeros(2, 1024, 1024), (3, 3)], {}),
    "unfold, huge window": ("unfold", [zeros(64, 64), (65, 64)], {"mode": "wrap"}),
    "unfold, huge dilation": ("unfold", [zeros(1 << 20, 2), (3, 1)], {"dilation": 1 << 40}),
    "fold": ("fold", [small(3, 3, 3, 2048, 2048), (2048, 2048)], {}),
    "fold, huge window": ("fold", [small(65, 33, 256, 256), (256, 256)], {"mode": ("mirror", "wrap")}),
    "fold, huge dilation": ("fold", [small(3, 3, 1024, 1024), (1024, 1024)], {"dilation": 1 << 40}),
    "local": ("local_correlate", [zeros(16, 512, 512), small(3, 3, 512, 512, 16, 16)], {}),
    "local, stored kernels": ("local_correlate", [zeros(8, 128, 128), zeros(3, 3, 128, 128, 8, 8)], {}),
    "local, few channels": ("local_correlate", [zeros(2, 512, 512), zeros(3, 3, 512, 512, 2, 2)], {}),
    **LOCAL,
    "local, many samples": ("local_correlate", [zeros(1 << 15, 2, 4, 4), small(3, 3, 4, 4, 2, 2)], {}),
    "local, kernels per sample": (
        "local_correlate",
        [zeros(1 << 12, 2, 4, 4), small(3, 3, 1 << 12, 4, 4, 2, 2)],
        {},
    ),
    "local, many channels": ("local_correlate", [zeros(1 << 14, 4, 4), small(3, 3, 4, 4, 1 << 14, 4)], {}),
    "local, large kernels": (
        "local_correlate",
        [zeros(1 << 11, 4, 4), small(1, 3, 4, 4, 1 << 11, 1 << 11)],
        {},
    ),
    "local, many outputs": ("local_correlate", [zeros(2, 8, 8), small(3, 3, 8, 8, 2, 1 << 16)], {}),
    "local, long rows": ("local_correlate", [zeros(1, 1, 1 << 20), small(1, 3, 1, 1 << 20, 1, 1)], {}),
    "local, huge window": (
        "local_correlate",
        [zeros(2, 64, 64), small(65, 33, 64, 64, 2, 2)],
        {"mode": "wrap"},
    ),
    "local, huge dilation": (
        "local_correlate",
        [zeros(4, 256, 256), small(3, 3, 256, 256, 4, 4)],
        {"dilation": 1 << 40},
    ),
    "local, double": (
        "local_correlate",
        [zeros(4, 256, 256), zeros(3, 3, 256, 256, 4, 4, dtype=np.float64)],
        {},
    ),
}


@pytest.mark.parametrize("workers", [1, 16])
@pytest.mark.parametrize("name", ADJOINTS)
def test_adjoints_need_little_memory(name, workers):
    function, arguments, keywords = ADJOINTS[name]
    warm_up()
    with cuvarconv.set_workers(workers):
        used = beyond_results(lambda: getattr(cuvarconv, function)(*arguments, **keywords))
    assert used <= LIMIT, f"{used / MIB:.0f} MiB"


# Name: function, operands, keywords.
GRADIENTS = {
    "per pixel": ("correlate", [zeros(3, 1024, 1024), small(3, 3, 1024, 1024)], {}),
    "shared": ("correlate", [zeros(3, 2048, 2048), small(5, 5)], {}),
    "per plane": ("correlate", [zeros(1 << 16, 4, 4), small(3, 3, 1 << 16, 1, 1)], {}),
    "per column": ("correlate", [zeros(4, 1024, 1024), small(3, 3, 1024)], {"mode": "wrap"}),
    "huge window": ("correlate", [zeros(128, 128), small(129, 65)], {"mode": ("mirror", "wrap")}),
    "huge window per pixel": ("correlate", [zeros(3, 64, 64), small(65, 64, 64, 64)], {"mode": "wrap"}),
    "huge dilation": ("correlate", [zeros(1024, 1024), small(3, 3)], {"dilation": 1 << 40}),
    "channels last": ("correlate", [zeros(512, 512, 16), small(3, 3)], {"axes": (0, 1)}),
    "complex": ("correlate", [zeros(512, 1024, dtype=np.complex128), small(5, 5)], {"dilation": 300}),
    "modulated": (
        "modulated_correlate",
        [zeros(2, 64, 128, 128), small(64, 64, 3, 3), small(3, 3, 128, 128)],
        {},
    ),
    "modulated, large images": (
        "modulated_correlate",
        [zeros(3, 1024, 1024), small(4, 3, 3, 3), small(3, 3, 1024, 1024)],
        {},
    ),
    "modulated, many inputs": (
        "modulated_correlate",
        [zeros(1 << 16, 4, 4), small(1, 1 << 16, 3, 3), small(3, 3)],
        {},
    ),
    "modulated, many outputs": (
        "modulated_correlate",
        [zeros(1, 8, 8), small(1 << 16, 1, 3, 3), small(3, 3)],
        {},
    ),
    "modulated, many groups": (
        "modulated_correlate",
        [zeros(1 << 14, 8, 8), small(1 << 14, 1, 3, 3), small(3, 3, 1 << 14, 1, 1)],
        {"groups": 1 << 14},
    ),
    "modulated, large weights": (
        "modulated_correlate",
        [zeros(1 << 11, 4, 4), small(1 << 11, 1 << 11, 3, 3), small(3, 3)],
        {},
    ),
    "modulated, long rows of taps": (
        "modulated_correlate",
        [zeros(1 << 10, 8, 8), zeros(1 << 11, 1 << 10, 1, 9), small(1, 9, 1 << 10, 8, 8)],
        {},
    ),
    "modulated, many samples": (
        "modulated_correlate",
        [zeros(1 << 14, 2, 4, 4), small(2, 2, 3, 3), small(3, 3, 1 << 14, 1, 4, 4)],
        {},
    ),
    "modulated, huge window": (
        "modulated_correlate",
        [zeros(2, 64, 64), small(2, 2, 65, 33), small(65, 33)],
        {"mode": "wrap"},
    ),
    "modulated, wide window": (
        "modulated_correlate",
        [zeros(16, 1, 64), small(2, 16, 1, 1024), small(1, 1024)],
        {"mode": "wrap"},
    ),
    "modulated, huge dilation": (
        "modulated_correlate",
        [zeros(16, 256, 256), small(8, 16, 3, 3), small(3, 3)],
        {"dilation": 1 << 40},
    ),
    "local": ("local_correlate", [zeros(8, 256, 256), small(3, 3, 256, 256, 8, 8)], {}),
    "local, few channels": ("local_correlate", [zeros(2, 256, 256), zeros(3, 3, 256, 256, 2, 2)], {}),
    **LOCAL,
    "local, many samples": ("local_correlate", [zeros(1 << 14, 2, 4, 4), small(3, 3, 4, 4, 2, 2)], {}),
    "local, kernels per sample": (
        "local_correlate",
        [zeros(1 << 12, 2, 4, 4), small(3, 3, 1 << 12, 4, 4, 2, 2)],
        {},
    ),
    "local, many channels": ("local_correlate", [zeros(1 << 14, 4, 4), small(3, 3, 4, 4, 1 << 14, 4)], {}),
    "local, large kernels": (
        "local_correlate",
        [zeros(1 << 11, 2, 4), small(1, 1, 2, 4, 1 << 11, 1 << 11)],
        {},
    ),
    "local, huge window": (
        "local_correlate",
        [zeros(2, 32, 32), small(65, 33, 32, 32, 2, 2)],
        {"mode": "wrap"},
    ),
    "local, huge dilation": (
        "local_correlate",
        [zeros(4, 256, 256), small(3, 3, 256, 256, 4, 4)],
        {"dilation": 1 << 40},
    ),
}


@pytest.mark.parametrize("workers", [1, 16])
@pytest.mark.parametrize(
    ("name", "operand"),
    [(name, operand) for name, (function, *_) in GRADIENTS.items() for operand in FORMS[function]],
)
def test_gradients_need_little_memory(name, operand, workers):
    function, arrays, keywords = GRADIENTS[name]
    warm_up()
    grad = small(*result_shape(function, arrays, **keywords))
    vjp = getattr(cuvarconv, f"{function}_vjp")
    with cuvarconv.set_workers(workers):
        used = beyond_results(lambda: vjp(grad, *arrays, wrt=operand, **keywords))
    assert used <= LIMIT, f"{used / MIB:.0f} MiB"


def test_the_probe_sees_memory():
    assert beyond_results(lambda: zeros(LIMIT + MIB, dtype=np.uint8)[:1].copy()) > LIMIT


# ---- workers and large sums ----------------------------------------------------------------------

# So large that there are many blocks, or several partial sums of several blocks: function, shapes.
LARGE = {
    "shared": ("correlate", [(20, 300, 400), (1, 2)]),
    "per row": ("correlate", [(4, 200, 300), (3, 2, 200, 1)]),
    "per plane": ("correlate", [(9, 400, 400), (2, 1, 9, 1, 1)]),
    "per plane and column": ("correlate", [(9, 400, 400), (1, 2, 9, 1, 400)]),
    "per pixel": ("correlate", [(9, 300, 400), (2, 2, 300, 400)]),
    "each its own": ("correlate", [(2, 300, 400), (3, 3, 2, 300, 400)]),
    "modulated": ("modulated_correlate", [(2, 16, 120, 130), (24, 16, 3, 2), (3, 2, 120, 130)]),
    "modulated alike": ("modulated_correlate", [(40, 16, 40, 40), (128, 16, 1, 4), (1, 4)]),
    "modulated per sample": ("modulated_correlate", [(20, 16, 60, 60), (32, 16, 2, 1), (2, 1, 20, 1, 1, 1)]),
    "modulated per column": ("modulated_correlate", [(3, 4, 200, 200), (3, 4, 2, 2), (2, 2, 4, 1, 200)]),
    "modulated by groups": ("modulated_correlate", [(16, 120, 130), (16, 4, 3, 3), (3, 3, 2, 120, 130)]),
    "local": ("local_correlate", [(2, 8, 70, 80), (3, 3, 70, 80, 8, 8)]),
    "local, one sample": ("local_correlate", [(4, 120, 130), (3, 3, 120, 130, 4, 4)]),
    "local, many samples": ("local_correlate", [(3000, 2, 4, 5), (3, 3, 4, 5, 2, 3)]),
    "local, kernels per sample": ("local_correlate", [(3, 50, 2, 20, 30), (2, 2, 3, 1, 20, 30, 2, 3)]),
}


def large(name):
    """Return the function and its incoming gradient with its operands, random numbers."""
    function, shapes = LARGE[name]
    arrays = [noise(shape, np.float32, seed) for seed, shape in enumerate(shapes)]
    return function, [noise(result_shape(function, arrays, **grouped(name)), np.float32, 9), *arrays]


def grouped(name):
    return {"groups": 4} if name == "modulated by groups" else {}


def bits_over_workers(call):
    """Return the distinct results, as bytes, over numbers of workers."""
    results = set()
    for workers in (1, 3, 2, 5, 3, 1):
        with cuvarconv.set_workers(workers):
            outcome = call()
        outcome = outcome if isinstance(outcome, tuple) else (outcome,)
        results.add(b"".join(result.tobytes() for result in outcome))
    return results


@pytest.mark.parametrize("name", LARGE)
def test_gradients_have_the_same_bits_for_any_number_of_workers(name):
    function, arrays = large(name)
    vjp = getattr(cuvarconv, f"{function}_vjp")
    assert len(bits_over_workers(lambda: vjp(*arrays, **grouped(name)))) == 1


def test_sums_beyond_the_largest_number_do_not_warn():
    """As everywhere; they are formed in several parts here, and added up at the end."""
    x, w, d = (np.ones(shape, np.float16) for shape in ((16, 256, 256), (16, 16, 3, 3), (3, 3, 1, 1)))
    (found,) = cuvarconv.modulated_correlate_vjp(x, 100 * x, w, d, wrt=("weights",))
    assert_equal(found, np.full(w.shape, np.inf, np.float16))


@pytest.mark.parametrize("mode", ["reflect", "valid"])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("spread", lambda: (noise((6, 300, 400)), noise((3, 3, 300, 400), seed=1))),
        ("unfold", lambda: (noise((3, 300, 400)), (3, 4))),
        ("local_correlate", lambda: operands("local_correlate", (70, 80), channels=8, filters=8, make=noise)),
    ],
)
def test_adjoints_have_the_same_bits_for_any_number_of_workers(function, arguments, mode):
    x, *others = arguments()
    if function == "local_correlate" and mode == "valid":
        x = np.pad(x, ((0, 0), (1, 1), (1, 0)))  # makes room for the window
    assert len(bits_over_workers(lambda: getattr(cuvarconv, function)(x, *others, mode=mode))) == 1


def test_fold_has_the_same_bits_for_any_number_of_workers():
    columns = noise((3, 3, 4, 300, 400))
    assert len(bits_over_workers(lambda: cuvarconv.fold(columns, (300, 400)))) == 1


@pytest.mark.parametrize("name", LARGE)
def test_sums_over_many_blocks(name):
    """None is left out or added twice, and no digits are lost."""
    function, (g, *arrays) = large(name)
    check_noise(Backend(), function, arrays, g, **grouped(name))


def test_local_correlate_where_taps_lie_far_apart():
    """Their pixels, written out for every pair of channels, do not go together."""
    arrays = [noise((8, 64, 64)), noise((2, 2, 64, 64, 8, 8), seed=1)]
    g = noise(result_shape("local_correlate", arrays, dilation=70), seed=2)
    check_noise(Backend(), "local_correlate", arrays, g, dilation=70)


@pytest.mark.parametrize("function", ["correlate", "modulated_correlate"])
def test_sums_of_a_million_like_numbers(function):
    shapes = [(1, 1200, 1000), (2, 3)] if function == "correlate" else [(1, 1200, 1000), (2, 1, 2, 3), (2, 3)]
    rng = np.random.default_rng(0)
    arrays = [rng.random(shape).astype(np.float32) + 1 for shape in shapes]
    g = rng.random(result_shape(function, arrays)).astype(np.float32)
    vjp = getattr(cuvarconv, f"{function}_vjp")
    exact = vjp(*(array.astype(np.float64) for array in (g, *arrays)))
    for result, expected in zip(vjp(g, *arrays), exact, strict=True):
        assert_close(result, expected)
