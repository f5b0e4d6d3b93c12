"""Calls that launch every kernel, in its main variants: for the first minutes on a GPU, and for sanitizers.

``tests/gpu.py`` runs them; by itself, ``python tests/gpu_calls.py``, this calls each of them once, for
compute-sanitizer, with every array in memory of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tolerances import BFLOAT16, TOLERANCE, noise, relative_error

import cuvarconv
from cuvarconv._tf32 import tf32

DTYPES = (np.float32, np.float16, BFLOAT16, np.float64, np.complex64, np.complex128)
HEIGHT, WIDTH = 18, 40
# Width 40 allows vectors of 16 bytes, 37 does not; the second boundary has no pixels beyond it.
PLAIN: dict[str, Any] = {"mode": "reflect"}
ODD: dict[str, Any] = {"mode": "constant", "cval": 0.5, "dilation": 2}


@dataclass(frozen=True)
class Call:
    """One call of a function of arrays, and the precision of its result."""

    name: str
    function: Callable[..., Any]
    operands: tuple[np.ndarray, ...]
    tolerance: float

    def on(self, asarray: Callable[[np.ndarray], Any]) -> list[Any]:
        """Return its results for arrays of a library."""
        found = self.function(*map(asarray, self.operands))
        return list(found) if isinstance(found, tuple) else [found]

    def expected(self) -> list[np.ndarray]:
        """Return its results by NumPy, in double precision."""
        return self.on(lambda array: array.astype(np.result_type(array, np.float64)))

    def error(self, found: list[Any], expected: list[np.ndarray]) -> float:
        """Return the largest relative error of its results, given as CuPy's."""
        return max(relative_error(mine.get(), best) for mine, best in zip(found, expected, strict=True))


def calls(dtypes: Iterable[Any] = DTYPES) -> Iterator[Call]:
    """Yield the calls, dtype by dtype."""
    for dtype in map(np.dtype, dtypes):
        families = [_gathering, _spreading, _modulating, _own_kernels, _blurring, _alike]
        families += [_affine] if dtype.kind != "c" else []
        families += [_tensor] if dtype.name in ("float16", "bfloat16", "float32") else []
        for name, function, operands in (one for family in families for one in family(dtype)):
            rounded_to_tf32 = name.startswith("tensor cores") and dtype == np.float32
            tolerance = TOLERANCE["float16" if rounded_to_tf32 else dtype.name]  # the same number of digits
            yield Call(f"{name}, {dtype}", function, operands, tolerance)


One = tuple[str, Callable[..., Any], tuple[np.ndarray, ...]]


def _arrays(dtype: np.dtype, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return tuple(noise(shape, dtype, seed) for seed, shape in enumerate(shapes))


def _gathering(dtype: np.dtype) -> Iterator[One]:
    for planes, width, keywords in ((1, WIDTH, PLAIN), (3, 37, ODD), (16, WIDTH, PLAIN), (2, 5, ODD)):
        operands = _arrays(dtype, (planes, HEIGHT, width), (3, 5, HEIGHT, width))
        yield f"correlate, {planes}×{width}", partial(cuvarconv.correlate, **keywords), operands
        back = partial(cuvarconv.correlate_vjp, **keywords)
        yield f"correlate, gradients, {planes}×{width}", back, (operands[0], *operands)
    operands = _arrays(dtype, (2, HEIGHT, WIDTH), (2, HEIGHT, WIDTH), (3, 3))
    yield "correlate, gradients, one kernel", cuvarconv.correlate_vjp, operands
    yield "unfold", lambda x: cuvarconv.unfold(x, (3, 5), mode="nearest"), operands[:1]
    yield (
        "unfold, every other",
        lambda x: cuvarconv.unfold(x[..., 1:], 3, "constant", 0.5, stride=2),
        operands[:1],
    )


def _spreading(dtype: np.dtype) -> Iterator[One]:
    for planes, width, keywords in ((1, WIDTH, {}), (3, 37, {"mode": "wrap"}), (16, 9, {"stride": 2})):
        operands = _arrays(dtype, (planes, HEIGHT, width), (3, 5, HEIGHT, width))
        yield f"spread, {planes}×{width}", partial(cuvarconv.spread, **keywords), operands


def _modulating(dtype: np.dtype) -> Iterator[One]:
    for channels, outputs, groups, width, keywords in (
        (4, 3, 1, WIDTH, PLAIN),
        (4, 12, 2, 37, ODD),
        (3, 70, 1, 9, PLAIN),
    ):
        x, w, d, g = _arrays(
            dtype,
            (2, channels, HEIGHT, width),
            (outputs, channels // groups, 3, 3),
            (3, 3, HEIGHT, width),
            (2, outputs, HEIGHT, width),
        )
        name, given = f"{channels} → {outputs} channels", {"groups": groups, **keywords}
        yield f"modulated_correlate, {name}", partial(cuvarconv.modulated_correlate, **given), (x, w, d)
        yield (
            f"modulated, gradients, {name}",
            partial(cuvarconv.modulated_correlate_vjp, **given),
            (g, x, w, d),
        )


def _tensor(dtype: np.dtype) -> Iterator[One]:
    for rows, width in ((16, WIDTH), (40, 37), (130, 150)):
        operands = _arrays(
            dtype, (rows, HEIGHT, width), (20, HEIGHT, width), (rows, 20, 3, 3), (3, 3, HEIGHT, width)
        )

        def forward(x: Any, w: Any, d: Any) -> Any:
            with tf32(True):
                return cuvarconv.modulated_correlate(x, w, d, mode="constant")

        def back(g: Any, x: Any, w: Any, d: Any) -> Any:
            with tf32(True):
                return cuvarconv.modulated_correlate_vjp(g, x, w, d, mode="wrap")

        yield f"tensor cores, {rows} rows", forward, operands[1:]
        yield f"tensor cores, gradients, {rows} rows", back, operands


def _own_kernels(dtype: np.dtype) -> Iterator[One]:
    for samples, channels, outputs, keywords in (((), 3, 8, PLAIN), ((5,), 4, 3, ODD)):
        x, k, g = _arrays(
            dtype,
            (*samples, channels, HEIGHT, 10),
            (3, 3, HEIGHT, 10, channels, outputs),
            (*samples, outputs, HEIGHT, 10),
        )
        name = f"{channels} → {outputs} channels"
        yield f"local_correlate, {name}", partial(cuvarconv.local_correlate, **keywords), (x, k)
        yield f"local, gradients, {name}", partial(cuvarconv.local_correlate_vjp, **keywords), (g, x, k)


def _maps(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    return rng.uniform(0.3, 2.5, shape), rng.uniform(0.2, 0.9, shape), rng.uniform(-3, 3, shape)


def _blurring(dtype: np.dtype) -> Iterator[One]:
    for width, keywords in ((WIDTH, {"mode": "reflect"}), (37, {"mode": "constant", "cval": 0.5})):
        (x,) = _arrays(dtype, (3, HEIGHT, width))
        rows, columns, angle = _maps((HEIGHT, width))

        def upright(x: Any, rows: Any, columns: Any, keywords: Any = keywords) -> Any:
            return cuvarconv.gaussian_filter(x, (rows, columns), **keywords)

        def turned(x: Any, rows: Any, columns: Any, angle: Any, keywords: Any = keywords) -> Any:
            return cuvarconv.gaussian_filter(x, (rows, columns), angle=angle, **keywords)

        def back(g: Any, x: Any, sigma: Any, keywords: Any = keywords) -> Any:
            return cuvarconv.gaussian_filter_vjp(g, x, sigma, **keywords)

        def back_turned(g: Any, x: Any, rows: Any, columns: Any, angle: Any, keywords: Any = keywords) -> Any:
            wrt = ("input", "angle")
            return cuvarconv.gaussian_filter_vjp(g, x, (rows, columns), angle=angle, wrt=wrt, **keywords)

        yield f"gaussian_filter, {width}", upright, (x, rows, columns)
        yield f"gaussian_filter, turned, {width}", turned, (x, rows, columns, angle)
        yield f"gaussian, gradients, {width}", back, (x, x, rows)
        yield f"gaussian, turned, gradients, {width}", back_turned, (x, x, rows, columns, angle)
    yield "gaussian_filter, 48 KiB", partial(cuvarconv.gaussian_filter, radius=(37, 41)), (x, 5 + rows)


def _alike(dtype: np.dtype) -> Iterator[One]:
    real = np.dtype(dtype.char.lower()) if dtype.kind == "c" else dtype
    for features, width, mode in ((3, WIDTH, "reflect"), (2, 37, "constant"), (130, 9, "nearest")):
        (x,) = _arrays(dtype, (3, HEIGHT, width))
        (guide,) = _arrays(real, (features, HEIGHT, width))
        spatial, likeness, _ = _maps((HEIGHT, width))
        given = {"mode": mode, "channel_axis": 0, "radius": 2}

        def forward(x: Any, guide: Any, s: Any, r: Any, given: Any = given) -> Any:
            return cuvarconv.bilateral_filter(x, s, r, guide=guide, **given)

        def back(x: Any, guide: Any, s: Any, r: Any, given: Any = given) -> Any:
            wrt = ("input", "guide", "sigma_spatial", "sigma_range")
            return cuvarconv.bilateral_filter_vjp(x, x, s, r, guide=guide, wrt=wrt, **given)

        operands = (x, guide, spatial, likeness * 2 * features**0.5)
        yield f"bilateral_filter, {features} features", forward, operands
        yield f"bilateral, gradients, {features} features", back, operands


def _affine(dtype: np.dtype) -> Iterator[One]:
    guide, g = _arrays(dtype, (5, HEIGHT, 37), (3, 5, 1, HEIGHT, 37))
    yield "affinity", lambda guide: cuvarconv.affinity(guide, (3, 5), 2.0), (guide,)
    yield "affinity, gradient", lambda g, guide: cuvarconv.affinity_vjp(g, guide, (3, 5), 2.0), (g, guide)


def main() -> None:
    """Make all calls on the device, without looking at their results."""
    import cupy

    cupy.cuda.set_allocator(None)  # or a pool would lie around every array
    for call in calls():
        print(call.name, flush=True)
        call.on(cupy.asarray)
        cupy.cuda.runtime.deviceSynchronize()


if __name__ == "__main__":
    main()
