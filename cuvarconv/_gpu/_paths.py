"""Which kernels compute equation (2) and its gradients: those for tensor cores, or those for every case."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np

from cuvarconv._gpu._launch import CPP_TYPES, launch
from cuvarconv._tf32 import tf32_allowed

TENSOR_TYPES = ("float16", "bfloat16", "float32")
TENSOR_TILES = ((32, 128), (64, 128), (128, 256))  # rows and pixels of a block, as in kernels/tensor.cuh
TENSOR_SUM_TILES = TENSOR_TILES[:2]  # of the gradients in the weights and in the modulation
TENSOR_CAPABILITY = 80
_CHUNK = 16  # bytes of neighbouring channels of one tap, in both operands of a product
_LINE = 64  # bytes of one row, or one pixel, in shared memory
_MATRIX_STAGES, _PATCH_STAGES = 3, 2
_ENOUGH_BLOCKS = 132  # one for each multiprocessor of a large device
_MOST_BYTES = 16 << 20  # of a packed matrix
_MOST_PASSES = 2048
_PASS = 4  # bytes

_forced: ContextVar[bool | None] = ContextVar("tensor cores", default=None)


@dataclass(frozen=True)
class Product:
    """A product with patches: y[row, pixel] = Σ_k matrix[row, k] patch[k, pixel], k = (tap, channel).

    Rows and channels are those of one group.
    """

    dtype: np.dtype
    rows: int
    channels: int
    taps: int
    groups: int
    pixels: int  # of all samples
    one_factor: bool  # for all channels of any chunk
    passes: int = 0  # over taps, where some are left out and others come again

    @property
    def chunk(self) -> int:
        """The channels of a chunk."""
        return chunk_of(self.dtype)

    @property
    def padded(self) -> int:
        """The channels of a tap, in whole chunks."""
        return -(-self.channels // self.chunk) * self.chunk

    @property
    def rows_at_once(self) -> int:
        """The rows of the matrix that are packed together: all, or whole blocks; 0 if that is too much."""
        most = _MOST_BYTES // (self.taps * self.padded * self.dtype.itemsize)
        if self.rows * self.groups <= most:
            return self.rows * self.groups
        return most // TENSOR_TILES[-1][0] * TENSOR_TILES[-1][0] if self.groups == 1 else 0


def chunk_of(dtype: np.dtype) -> int:
    """Return the number of channels in a chunk."""
    return _CHUNK // dtype.itemsize


Rule = tuple[Callable[[Product], bool], str]

# Tensor cores are used where all of these hold,
ANYWHERE: tuple[Rule, ...] = (
    (
        lambda p: p.dtype.name in ("float16", "bfloat16") or (p.dtype.name == "float32" and tf32_allowed()),
        "they multiply halves; float32 only rounded to TF32, which the caller must allow",
    ),
    (
        lambda p: int(cupy.cuda.Device().compute_capability) >= TENSOR_CAPABILITY,
        "older devices lack the instructions for bfloat16 and TF32, and asynchronous copies",
    ),
)
# and these, where a matrix of weights is multiplied by patches,
WITH_WEIGHTS: tuple[Rule, ...] = (
    (lambda p: p.one_factor, "a chunk of channels is multiplied by one number"),
    (lambda p: p.rows_at_once > 0, "the matrix is copied, padded to chunks, some MiB at a time"),
    (
        lambda p: max(p.taps, p.passes) * p.channels <= 1 << 17,
        "they cut sums off instead of rounding them: longer sums would drift beyond 1e-3",
    ),
    (lambda p: p.taps < 1 << 15, "taps are counted in 16 bits"),
    (lambda p: p.passes <= _MOST_PASSES, "their order is kept in shared memory"),
)
# and these, unless a test says otherwise.
WORTHWHILE: tuple[Rule, ...] = (
    (lambda p: p.rows > 8, "of the 16 rows of a matrix instruction more than half would be idle"),
    (
        lambda p: p.channels > 4,
        "of a chunk half would be padding; memory is the limit, not arithmetic",
    ),
)


def _chosen(product: Product, *rules: tuple[Rule, ...]) -> bool:
    forced = _forced.get()
    needed = rules if forced else (*rules, WORTHWHILE)
    return forced is not False and all(holds(product) for some in needed for holds, _ in some)


def tensor_tile(product: Product) -> tuple[int, int] | None:
    """Return rows and pixels of a block on tensor cores, None for the kernels that take every case."""
    if not _chosen(product, ANYWHERE, WITH_WEIGHTS):
        return None
    few, some, many = TENSOR_TILES
    if product.rows <= few[0]:
        return few  # the smallest that holds all rows, so that a patch is made once
    blocks = -(-product.rows // many[0]) * -(-product.pixels // many[1]) * product.groups
    if product.rows <= some[0] or blocks < _ENOUGH_BLOCKS:
        return some  # also for small images, whose blocks would leave much of the device idle
    return many  # reads the matrix half as often


def tensor_sum_tile(product: Product) -> tuple[int, int] | None:
    """Return the tile of a gradient that multiplies no packed matrix of weights by patches d*x."""
    if not _chosen(product, ANYWHERE):
        return None
    return next((tile for tile in TENSOR_SUM_TILES if product.rows <= tile[0]), TENSOR_SUM_TILES[-1])


@dataclass(frozen=True)
class Kernel:
    """A kernel, the rows and pixels of its blocks, and what it is launched with."""

    source: str
    name: str
    tile: tuple[int, int]
    threads: int
    product: Product | None = None  # where it uses tensor cores
    shared: int = 0

    def launch(self, blocks: int, arguments: Sequence[Any]) -> None:
        """Launch it on the current stream."""
        launch(self.source, self.name, blocks, self.threads, arguments, shared=self.shared)


def tensor_kernel(name: str, product: Product, tile: tuple[int, int]) -> Kernel:
    """Return the kernel ``<name>_tensor`` with a tile."""
    shared = _LINE * (_MATRIX_STAGES * tile[0] + _PATCH_STAGES * tile[1]) + _PASS * product.passes
    source = "modulated_tensor" if name == "modulated_correlate" else f"{name}_tensor"
    return Kernel(source, expression(f"{name}_tensor", product.dtype, tile), tile, tile[1], product, shared)


def expression(name: str, dtype: np.dtype, tile: tuple[int, int]) -> str:
    """Return the name expression of a kernel with a type and a tile."""
    return f"{name}<{CPP_TYPES[dtype.name]}, {tile[0]}, {tile[1]}>"


def packed(weights: Any, product: Product) -> Any:
    """Copy weights, (rows, channels, kh, kw), to (rows, kh, kw, channels), with zeros to whole chunks."""
    rows, channels, kh, kw = weights.shape
    matrix = cupy.zeros((rows, kh, kw, product.padded), product.dtype)
    matrix[..., :channels] = weights.transpose(0, 2, 3, 1).astype(product.dtype, copy=False)
    return matrix


@contextlib.contextmanager
def forced(tensor: bool | None) -> Iterator[None]:
    """Use tensor cores wherever possible, or nowhere, or, with None, where worthwhile; for tests."""
    token = _forced.set(tensor)
    try:
        yield
    finally:
        _forced.reset(token)
