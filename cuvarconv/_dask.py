"""The dask backend: the primitives block by block, lazily.  Its names are those of ``_cpu`` and ``_gpu``.

A block of outputs is one task.  It gets the pixels that its windows read, cut out of the blocks that
hold them, and its own part of what varies per location, and calls the primitive of the blocks' backend
with the window over just those pixels.  So a mode is a choice of pixels here too, and costs nothing.
An adjoint runs the other way: a task gives what its outputs add to the pixels that they read.
"""

from __future__ import annotations

import functools
import gc
import itertools
import math
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from cuvarconv._block_tasks import Ones, Place, Step, Sum, add_up, cut, joined_complex
from cuvarconv._dtypes import accumulator_dtype
from cuvarconv._grid import Axes, Grid, flat
from cuvarconv._target import Result, Target
from cuvarconv._window import Window

# The axes of each primitive's operands and of its result: "…" are batch axes, i and j those of the
# outputs, I and J those of the image that their windows read.  Other letters are axes that stay whole.
_AXES: dict[str, tuple[Any, ...]] = {
    "correlate": ("…IJ", "mn…ij", "…ij"),
    "spread": ("…ij", "mn…ij", "…IJ"),
    "correlate_weights_gradient": ("…ij", "…IJ", "mn…ij"),
    "modulated_correlate": ("…cIJ", "ocmn", "mn…gij", "…oij"),
    "modulated_input_gradient": ("…oij", "ocmn", "mn…gij", "…cIJ"),
    "modulated_weights_gradient": ("…oij", "…cIJ", "mn…gij", "ocmn"),
    "modulated_modulation_gradient": ("…oij", "…cIJ", "ocmn", "mn…gij"),
    "local_correlate": ("…cIJ", "mn…coij", "…oij"),
    "local_input_gradient": ("…oij", "mn…coij", "…cIJ"),
    "local_kernels_gradient": ("…oij", "…cIJ", "mn…coij"),
    "unfold": ("…IJ", "…mnij"),
    "affinity": ("…cIJ", "mn…ij"),
    "affinity_gradient": ("mn…ij", "…cIJ", "…cIJ"),
    "bilateral": ("…cIJ", "…gIJ", "…ij", "…ij", "…cij"),
    "bilateral_gradient": ("…cij", "…cIJ", "…gIJ", "…ij", "…ij", ("…cIJ", "…gIJ", "…ij", "…ij")),
    "gaussian": ("…IJ", ("…ij", "…ij"), "…ij", "…ij"),
    "gaussian_input_gradient": ("…ij", ("…ij", "…ij"), "…ij", "…IJ"),
    "gaussian_sigma_gradient": ("…ij", "…IJ", ("…ij", "…ij"), "…ij", ("…ij", "…ij", "…ij")),
    "correlate_separable": ("…IJ", ("…ij", "…ij"), "…ij"),
    "spread_separable": ("…ij", ("…ij", "…ij"), "…IJ"),
    "_fill_common": ("…ij", "…IJ", "…ij", "…ij", "…ij"),
    "normalized": ("…IJ", "mn…ij", "…IJ", "…ij"),
    "normalized_variance": ("…IJ", "mn…ij", "…IJ", "…IJ", "…ij"),
}

_SUMMED_AT_ONCE = 8  # blocks' gradients of what they share

Key = tuple[Any, ...]
Graph = dict[Key, Any]


def __getattr__(name: str) -> Callable[..., None]:
    """Return a primitive, which is called as those of the other backends."""
    if name not in _AXES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return functools.partial(_map_blocks, name)


def composed(function: Callable[..., None], *arguments: Any, **keywords: Any) -> None:
    """Treat a function of primitives as a primitive."""
    _map_blocks(function, *arguments, **keywords)


# ---- from the caller's arrays, and back ----------------------------------------------------------


def check(arrays: dict[str, Any]) -> None:
    """Refuse, before any graph is built, arrays that cannot be computed with together."""
    if "output" in arrays:
        raise TypeError(
            "output: results of dask arrays are lazy, so there is nothing to write when the call returns; "
            "leave output out, and store the result, e.g. with dask.array.store"
        )
    kinds = {}
    for name, array in arrays.items():
        if isinstance(array, da.Array):
            if any(math.isnan(length) for length in array.shape):
                raise ValueError(
                    f"{name}: expected known chunk sizes, got shape {array.shape}; "
                    f"call {name}.compute_chunk_sizes() first"
                )
            kinds[name] = _kind(name, array._meta)
        elif hasattr(array, "shape") and not isinstance(array, np.generic):
            kinds[name] = _kind(name, array)
    first, common = next(iter(kinds.items()))
    for name, kind in kinds.items():
        if kind != common:
            raise TypeError(
                f"{name}: expected {common} blocks, as {first} has, got {kind} blocks; "
                f"convert one of them, e.g. {name} with map_blocks({common}.asarray)"
            )


def _kind(name: str, array: Any) -> str:
    if isinstance(array, getattr(sys.modules.get("cupy"), "ndarray", ())):
        return "cupy"
    if isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
        return "numpy"
    kind = type(array)
    raise TypeError(
        f"{name}: expected NumPy or CuPy arrays with dask arrays, got {kind.__module__}.{kind.__name__}"
    )


def view(name: str, array: Any) -> Any:
    """Take dask arrays and arrays of their blocks' kind as they are, lists and scalars as NumPy's.

    Chunks of length 0 are left out: dask loses pixels where it turns an axis round that has them.
    """
    if isinstance(array, da.Array) and array.size and any(0 in lengths for lengths in array.chunks):
        return array.rechunk(tuple(tuple(filter(None, lengths)) for lengths in array.chunks), method="tasks")
    return array if hasattr(array, "transpose") else np.asarray(array)


def empty(shape: tuple[int, ...], dtype: Any) -> Result:
    """Return what stands for a result."""
    return Result(shape, dtype)


def ones(shape: tuple[int, ...], dtype: Any) -> Ones:
    """Return what stands for ones."""
    return Ones(shape, np.dtype(dtype))


def hand_over(result: Result, operands: tuple[Any, ...]) -> Any:
    """Return the dask array that a primitive has put into the result."""
    if result.parts:
        parts = result.parts["real"], result.parts["imag"]
        return da.map_blocks(joined_complex, *parts, dtype=result.dtype, meta=_meta(parts[0], result))
    if result.array is not None:
        return result.array
    like = next(operand for operand in operands if isinstance(operand, da.Array))
    zeros, meta = da.zeros(result.shape, dtype=result.dtype), _meta(like, result)
    return zeros if type(meta) is np.ndarray else zeros.map_blocks(type(meta), meta=meta)


def _meta(like: Any, result: Target) -> Any:
    return np.empty_like(like._meta, shape=(0,) * result.ndim, dtype=result.dtype)


# ---- the block mapper ----------------------------------------------------------------------------


def _cochunked(grid: Grid, operand: Axes) -> Any:
    """Return an operand as a dask array with the grid's chunks."""
    chunks, array = grid.chunks_of(operand), operand.array
    if isinstance(array, Ones):
        return array
    own = tuple(
        lengths if sum(lengths) == length else (length,)
        for lengths, length in zip(chunks, array.shape, strict=True)
    )
    # not p2p, which distributed may choose and which ends with the loss of a worker
    lazy = array.rechunk(own, method="tasks") if isinstance(array, da.Array) else da.from_array(array, own)
    # a mask may have one row or column for all
    return lazy if own == chunks else da.broadcast_to(lazy, tuple(map(sum, chunks)), chunks)


def _map_blocks(primitive: str | Callable[..., None], *arguments: Any, **keywords: Any) -> None:
    """Call a primitive on every block of outputs, and put dask arrays into its targets."""
    title = primitive if isinstance(primitive, str) else primitive.__name__
    *given, results, window = arguments
    operands: list[Axes] = []
    targets: list[Axes] = []
    *letters, result_letters = _AXES[title]
    pattern = flat(given, tuple(letters), operands)
    result_pattern = flat(results, result_letters, targets)
    if all(target.array.size == 0 for target in targets):
        return
    grid = Grid(operands, window)
    with _uncollected():
        arrays = [_cochunked(grid, operand) for operand in operands]
    dtypes = tuple(_block_dtype(grid, target, keywords) for target in targets)
    step = Step(primitive, pattern, result_pattern, dtypes, keywords)
    names = [getattr(array, "name", array) for array in arrays]
    shapes = [(target.array.shape, target.array.dtype) for target in targets]
    token = tokenize(names, shapes, grid.chunks, pattern, result_pattern, window, keywords)
    name = f"{title.lstrip('_')}-{token}"
    lazy = [array for array in arrays if isinstance(array, da.Array)]
    with _uncollected():
        graph = _steps(name, step, grid, list(zip(operands, arrays, strict=True)), targets)
        finals = _results(graph, name, grid, targets)
    for target, final in zip(targets, finals, strict=True):
        layers = HighLevelGraph.from_collections(final, graph, dependencies=lazy)
        meta = _meta(lazy[0], target.array)
        target.array.keep(da.Array(layers, final, grid.chunks_of(target), meta=meta))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the garbage collector, which would go through a growing graph again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _results(graph: Graph, name: str, grid: Grid, targets: list[Axes]) -> list[str]:
    """Add the tasks that make the results out of those of the grid; return the results' names."""
    finals = []
    for number, target in enumerate(targets):
        source = name
        if len(targets) > 1:
            source = f"{name}-{number}"
            for block in grid.blocks():
                graph[(source, *block)] = (operator.getitem, (name, *block), number)
        finals.append(_collect(graph, source, grid, target))
    return finals


def _block_dtype(grid: Grid, target: Axes, keywords: dict[str, Any]) -> np.dtype:
    """Return the dtype of one block's result: what is still to be added up is not rounded yet."""
    dtype = target.array.dtype
    if not grid.is_scattered(target) and not grid.is_shared(target):
        return dtype
    wide = accumulator_dtype(keywords["dtype"])
    return wide if dtype.kind == "c" else np.empty(0, wide).real.dtype


def _steps(name: str, step: Step, grid: Grid, operands: list[tuple[Axes, Any]], targets: list[Axes]) -> Graph:
    """Make the task of every block, and those that cut out the pixels that it needs from others."""
    graph: Graph = {}
    finders = [
        _finder(graph, f"{name}-pixels-{number}", grid, operand, array)
        for number, (operand, array) in enumerate(operands)
    ]
    places: dict[Any, Place] = {}  # inner blocks share one
    for block in grid.blocks():
        rows, columns = grid.readings(block)
        outputs = grid.shape(block)
        alike = (rows.kind, columns.kind, outputs)
        if alike not in places:
            window = Window(rows.axis, columns.axis, grid.window.cval)
            shapes = tuple(grid.block_shape(target, outputs, window) for target in targets)
            places[alike] = Place(window, rows.places, columns.places, outputs, shapes)
        graph[(name, *block)] = (step, places[alike], *[find(block) for find in finders])
    return graph


def _finder(
    graph: Graph, name: str, grid: Grid, operand: Axes, array: Any
) -> Callable[[tuple[int, ...]], Any]:
    """Return what finds a block's part of an operand: its key, or the keys of an image's pieces."""
    numbers, whole = grid.counted(operand), getattr(array, "name", None)

    def part(block: tuple[int, ...]) -> Any:
        return (whole, *[0 if number is None else block[number] for number in numbers])

    def piece(front: list[int], block: tuple[int, ...], a: int, b: int) -> Any:
        rows, columns = grid.readings(block)
        down, across = rows.runs[a], columns.runs[b]
        at = (*front, down.chunk, across.chunk)
        edges = grid.edges(down.chunk, across.chunk)
        if edges and edges.left_out != (down.number, across.number):
            graph[(name, *at)] = (edges, (whole, *at))
            return (name, *at)
        if down.whole and across.whole:
            return (whole, *at)
        part = (cut, (whole, *at), down.source, across.source)
        if edges:
            return part  # nearly all of the block
        graph[(name, *front, *block[-2:], a, b)] = part
        return (name, *front, *block[-2:], a, b)

    def pieces(block: tuple[int, ...]) -> Any:
        front = [0 if number is None else block[number] for number in numbers[:-2]]
        rows, columns = (range(len(reading.runs)) for reading in grid.readings(block))
        return [[piece(front, block, a, b) for b in columns] for a in rows]

    if isinstance(array, Ones):
        return lambda block: array
    return pieces if grid.is_scattered(operand) else part


# ---- results that several blocks make together ---------------------------------------------------


def _collect(graph: Graph, source: str, grid: Grid, target: Axes) -> str:
    """Add the tasks that make the result's blocks out of those of the grid; return its name."""
    name = f"{source}-result"
    if grid.is_scattered(target):
        _scatter(graph, source, name, grid, target)
        return name
    together: dict[tuple[int, ...], list[Key]] = {}
    numbers = grid.counted(target)
    for block in grid.blocks():
        at = tuple(0 if number is None else block[number] for number in numbers)
        together.setdefault(at, []).append((source, *block))
    if not grid.is_shared(target):
        # another name, no task more: dask would run both as a graph of their own, and order it each time
        graph.update(((name, *at), graph.pop(key)) for at, (key,) in together.items())
        return name
    for at, keys in together.items():
        level = 0
        while len(keys) > _SUMMED_AT_ONCE:
            groups = [keys[first : first + _SUMMED_AT_ONCE] for first in range(0, len(keys), _SUMMED_AT_ONCE)]
            keys = [(f"{source}-sum-{level}", *at, number) for number in range(len(groups))]
            graph.update((key, (add_up, group, None)) for key, group in zip(keys, groups, strict=True))
            level += 1
        graph[(name, *at)] = (add_up, keys, target.array.dtype)
    return name


def _scatter(graph: Graph, source: str, name: str, grid: Grid, target: Axes) -> None:
    """Add what each block gives to the pixels that it reads, pixel chunk by pixel chunk."""
    numbers = grid.counted(target)[:-2]
    chunks = grid.chunks_of(target)
    given: dict[tuple[int, ...], list[tuple[Key, Any, tuple[slice, slice]]]] = {
        at: [] for at in itertools.product(*(range(len(lengths)) for lengths in chunks))
    }
    for block in grid.blocks():
        front = tuple(0 if number is None else block[number] for number in numbers)
        rows, columns = grid.readings(block)
        edges = grid.sent(rows, columns)
        for (a, down), (b, across) in itertools.product(enumerate(rows.runs), enumerate(columns.runs)):
            key: Key = (source, *block)
            part: Any = (down.place, across.place)
            if edges and edges.left_out != (a, b):
                part, key = (a, b), (f"{source}-pixels", *block)
                graph[key] = (edges, (source, *block))
            elif not edges:
                graph[(f"{source}-pixels", *block, a, b)] = (cut, key, *part)
                part, key = (slice(None), slice(None)), (f"{source}-pixels", *block, a, b)
            given[(*front, down.chunk, across.chunk)].append((key, part, (down.source, across.source)))
    for at, entries in given.items():
        entries = entries or [_nothing(graph, source, grid, numbers, at)]
        shape = tuple(lengths[number] for lengths, number in zip(chunks, at, strict=True))
        keys, parts, places = zip(*entries, strict=True)
        graph[(name, *at)] = (Sum(shape, target.array.dtype, parts, places), list(keys))


def _nothing(
    graph: Graph, source: str, grid: Grid, numbers: list[int | None], at: tuple[int, ...]
) -> tuple[Key, Any, tuple[slice, slice]]:
    """Return what a chunk of pixels gets that no output reads: none of those of a block beside it."""
    block = [0] * len(grid.chunks)
    for number, place in zip(numbers, at[:-2], strict=True):
        if number is not None:
            block[number] = place
    key, none = (f"{source}-nothing", *block), (slice(0, 0), slice(0, 0))
    graph[key] = (cut, (source, *block), *none)
    return key, none, none
