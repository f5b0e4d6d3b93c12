"""Chunks of an axis: which of them the windows of some outputs read, and where the pixels go."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cuvarconv._axis import Axis

Chunks = tuple[int, ...]  # lengths, none of them 0


@dataclass(frozen=True)
class Run:
    """Evenly spaced pixels of one chunk that follow each other in a gathered axis.

    The entries `place` hold the pixels `source` of chunk `chunk`; a single pixel stands for all of them.
    """

    chunk: int
    source: slice
    place: slice
    whole: bool  # whether these are all pixels of the chunk, in their order


@dataclass(frozen=True)
class Reading:
    """How some neighbouring outputs read an axis: a window over the gathered pixels, and these, in runs."""

    axis: Axis
    runs: tuple[Run, ...]

    @functools.cached_property
    def places(self) -> tuple[slice, ...]:
        """Where the runs stand in the gathered axis."""
        return tuple(run.place for run in self.runs)

    @functools.cached_property
    def kind(self) -> tuple[Any, ...]:
        """What is the same where a window and the places of pixels under it are the same."""
        return self.axis, tuple((place.start, place.stop) for place in self.places)


def read(axis: Axis, outputs: slice, chunks: Chunks) -> Reading:
    """Find the pixels that some outputs read.

    What lies outside under ``constant`` stays outside the gathered axis; the other modes become part of it.
    """
    part = axis.part(outputs)
    if axis.mode in ("constant", "valid"):
        first = min(max(part.start, 0), axis.size - 1)
        last = min(max(part.start + part.span, first + 1), axis.size)
        pixels = np.arange(first, last)
        block = replace(part, start=part.start - first, size=last - first)
    else:
        pixels, block = part.table().sources, part.gathered()
    return Reading(block, tuple(_runs(pixels, chunks)))


def _runs(pixels: np.ndarray, chunks: Chunks) -> Iterator[Run]:
    starts = np.cumsum((0, *chunks[:-1]))
    owners = np.searchsorted(starts, pixels, side="right") - 1
    steps = np.diff(pixels)
    bends = 1 + np.flatnonzero(np.diff(owners))
    turns = 2 + np.flatnonzero(np.diff(steps))
    cuts = [0]
    for at in sorted({*bends.tolist(), *turns.tolist()}):
        # the first step of a run may be any
        if owners[at] != owners[at - 1] or cuts[-1] != at - 1:
            cuts.append(at)
    for first, last in itertools.pairwise([*cuts, len(pixels)]):
        chunk, step = int(owners[first]), int(steps[first]) if last > first + 1 else 1
        source = _slice(int(pixels[first] - starts[chunk]), step, last - first)
        yield Run(chunk, source, slice(first, last), source == slice(0, chunks[chunk], 1))


def _slice(place: int, step: int, count: int) -> slice:
    if step == 0:
        return slice(place, place + 1, 1)
    stop = place + count * step
    return slice(place, stop if step > 0 else (stop if stop >= 0 else None), step)


def output_chunks(axis: Axis, pixels: Chunks) -> Chunks:
    """Cut the outputs where the pixels are cut that stand at their middle."""
    cuts = np.cumsum(pixels) - _middle(axis)
    return _between(-(-cuts // axis.stride), axis.length)


def pixel_chunks(axis: Axis, outputs: Chunks) -> Chunks:
    """Cut the pixels where the outputs are cut."""
    return _between(np.cumsum(outputs) * axis.stride + _middle(axis), axis.size)


def _middle(axis: Axis) -> int:
    return (axis.taps - 1) * axis.dilation // 2 if axis.mode == "valid" else 0


def _between(cuts: np.ndarray, length: int) -> Chunks:
    inner = np.clip(cuts[:-1], 0, length)
    lengths = np.diff(np.concatenate([[0], inner, [length]]))
    return tuple(int(count) for count in lengths if count)
