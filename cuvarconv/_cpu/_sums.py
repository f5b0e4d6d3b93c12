"""Sums over locations in a fixed order, whatever the number of workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cuvarconv._blocks import Where, blocks
from cuvarconv._cpu._workers import for_each

_PARTS = 16  # partial sums that are formed side by side, at least, where there is so much work


@dataclass(frozen=True)
class Part:
    """Some blocks of a domain, all of which are summed into the same region of the result."""

    region: Where
    blocks: Sequence[Where]


def parts(
    domain: tuple[int, ...], kept: tuple[int, ...], region: int, block: int, most: int
) -> list[list[Part]]:
    """Cut a domain for a sum over the axes where `kept` has length 1: parts to be added, by region.

    Regions have about `region` elements and blocks about `block`; at most `most` parts are kept at a time.
    """
    regions = blocks(kept, region)
    every = [list(_blocks_of(domain, kept, where, block)) for where in regions]
    wanted = max(1, min(-(-_PARTS // max(1, len(regions))), most // max(1, len(regions))))
    cut = []
    for where, pieces in zip(regions, every, strict=True):
        run = max(1, -(-len(pieces) // wanted))
        cut.append([Part(where, pieces[at : at + run]) for at in range(0, max(1, len(pieces)), run)])
    return cut


def _blocks_of(domain: tuple[int, ...], kept: tuple[int, ...], region: Where, block: int) -> Iterator[Where]:
    """Yield the blocks of the domain that are summed into a region."""
    limits = [
        part if length == whole else slice(0, whole)
        for part, length, whole in zip(region, kept, domain, strict=True)
    ]
    for where in blocks(tuple(limit.stop - limit.start for limit in limits), block):
        yield tuple(
            slice(limit.start + piece.start, limit.start + piece.stop)
            for limit, piece in zip(limits, where, strict=True)
        )


def sum_parts(
    by_region: list[list[Part]],
    add: Callable[[Part], np.ndarray],
    finish: Callable[[Where, np.ndarray], None],
    *,
    most_workers: int,
) -> None:
    """Call `add` on every part, side by side, and `finish` with the total of each region."""
    results: dict[tuple[int, int], np.ndarray] = {}

    def job(at: tuple[int, int]) -> None:
        region, part = at
        total = add(by_region[region][part])
        if len(by_region[region]) == 1:
            finish(by_region[region][part].region, total)
        else:
            results[at] = total

    places = [(region, part) for region, cut in enumerate(by_region) for part in range(len(cut))]
    for_each(job, places, most_workers=most_workers)
    for region, cut in enumerate(by_region):
        if len(cut) > 1:
            total = results.pop((region, 0))
            for part in range(1, len(cut)):
                total += results.pop((region, part))
            finish(cut[0].region, total)
