"""Sums over locations in a fixed order, whatever the number of workers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cuvarconv._blocks import Where, shares
from cuvarconv._cpu._tiles import SHARED_BY, store
from cuvarconv._cpu._workers import for_each

Add = Callable[[np.ndarray, Where, bool], None]  # (sums, block of the domain, whether it is the first)

_PARTS = 16  # partial sums formed side by side, where the result alone would not give so much to do
_SUMS = 4 << 20  # bytes that a worker sums up before they are stored
PARTIAL = 16 << 20  # bytes of all partial sums
_RUN = 128  # terms in single precision, of which 500 would miss 1e-6


@dataclass(frozen=True)
class _Part:
    """Some blocks of the domain that are summed into one region of the result."""

    region: Where
    blocks: Sequence[Where]


def sum_blocks(
    output: np.ndarray | Sequence[np.ndarray],
    domain: tuple[int, ...],
    add: Add,
    *,
    block: int,
    dtype: np.dtype,
    most_workers: int,
) -> None:
    """Fill `output` (…, *kept) with what `add` adds for every block of `domain`.

    The lengths `kept` are those of the domain, or 1 along axes that are summed over.  Sums are formed in
    the output itself where it has the computing `dtype`.  Several outputs (*kept) are filled together; then
    sums have an axis for them, the first.
    """
    outputs = [output] if isinstance(output, np.ndarray) else list(output)
    kept = outputs[0].shape[outputs[0].ndim - len(domain) :]
    cut = _cut(outputs, domain, kept, block, dtype)
    partial: dict[tuple[int, int], np.ndarray] = {}

    def job(at: tuple[int, int]) -> None:
        region, number = at
        part = cut[region][number]
        places = [_part(each, part.region) for each in outputs]
        alone = len(cut[region]) == 1
        direct = alone and isinstance(output, np.ndarray) and output.dtype == dtype
        together = () if isinstance(output, np.ndarray) else (len(outputs),)
        sums = places[0] if direct else np.empty((*together, *places[0].shape), dtype)
        for count, where in enumerate(part.blocks):
            add(sums, where, count == 0)
        if not alone:
            partial[at] = sums
        elif not direct:
            _store(output, part.region, sums)

    jobs = [(region, number) for region, some in enumerate(cut) for number in range(len(some))]
    for_each(job, jobs, most_workers=most_workers)
    with np.errstate(all="ignore"):  # as inside of `for_each`
        for region, some in enumerate(cut):
            if len(some) > 1:
                total = partial.pop((region, 0))
                for number in range(1, len(some)):
                    total += partial.pop((region, number))
                _store(output, some[0].region, total)


def _store(output: np.ndarray | Sequence[np.ndarray], region: Where, sums: np.ndarray) -> None:
    if isinstance(output, np.ndarray):
        store(_part(output, region), sums)
        return
    for each, values in zip(output, sums, strict=True):
        store(_part(each, region), values)


def _cut(
    outputs: list[np.ndarray], domain: tuple[int, ...], kept: tuple[int, ...], block: int, dtype: np.dtype
) -> list[list[_Part]]:
    shared = math.prod(domain) // max(1, math.prod(kept))
    elements = sum(output.size for output in outputs)
    per_element = elements // max(1, math.prod(kept)) * dtype.itemsize  # sums of all taps, or all outputs
    workers, least = SHARED_BY
    region = max(block >> 4, block // shared)
    if len(outputs) > 1 or outputs[0].dtype != dtype:
        region = max(1, min(region, _SUMS // per_element))
    regions = shares(kept, region, workers, least=min(least, region))
    nbytes = per_element * sum(_size(where) for where in regions)
    wanted = max(1, min(-(-_PARTS // len(regions)), PARTIAL // nbytes))
    cut = []
    for where in regions:
        every = _blocks_of(domain, kept, where, block)
        run = -(-len(every) // wanted)
        cut.append([_Part(where, every[at : at + run]) for at in range(0, len(every), run)])
    return cut


def _size(where: Where) -> int:
    return math.prod(part.stop - part.start for part in where)


def _part(output: np.ndarray, region: Where) -> np.ndarray:
    return output[(*(slice(None),) * (output.ndim - len(region)), *region)]


def _blocks_of(domain: tuple[int, ...], kept: tuple[int, ...], region: Where, block: int) -> list[Where]:
    """Return the blocks of the domain that are summed into a region, cut along the axes summed over."""
    summed = tuple(1 if length == whole else whole for length, whole in zip(kept, domain, strict=True))
    size, (workers, least) = _size(region), SHARED_BY
    return [
        tuple(
            mine if length == whole else piece
            for mine, piece, length, whole in zip(region, where, kept, domain, strict=True)
        )
        for where in shares(summed, max(1, block // size), workers, least=max(1, least // size))
    ]


def add_in_order(terms: np.ndarray, axis: int) -> np.ndarray:
    """Sum along an axis, term after term also where no axis follows it that is longer than 1.

    There NumPy adds pairs, so that the bits of a pixel would depend on whether it is a block alone.
    """
    after = terms.shape[axis:]
    if after[0] > 1 and math.prod(after) == after[0]:
        return np.add.accumulate(terms, axis=axis).take(-1, axis)
    return np.add.reduce(terms, axis=axis)


def add_in_runs(terms: np.ndarray, axis: int) -> np.ndarray:
    """Sum along an axis, so many terms after one another that no digits are lost, and then these sums."""
    along = (slice(None),) * (axis % terms.ndim)
    parts = [add_in_order(terms[(*along, run)], axis) for run in runs(terms.shape[axis])]
    return functools.reduce(np.add, parts)


def runs(length: int) -> list[slice]:
    """Cut a sum into runs of terms that may be added one after another."""
    return [slice(at, min(at + _RUN, length)) for at in range(0, length, _RUN)]


def add_or_assign(total: np.ndarray, values: np.ndarray, assign: bool) -> None:
    """Start a sum, or go on with it."""
    if assign:
        np.copyto(total, values)
    else:
        np.add(total, values, out=total)
