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
    number: int = 0  # of `source` among the parts of the chunk that are read


@dataclass(frozen=True)
class Parts:
    """Parts of an axis, (start, stop, step) each."""

    parts: tuple[tuple[int, int | None, int], ...]
    size: int

    @functools.cached_property
    def slices(self) -> tuple[slice, ...]:
        """The parts as slices."""
        return tuple(slice(*part) for part in self.parts)

    @functools.cached_property
    def lengths(self) -> tuple[int, ...]:
        """How many pixels each has."""
        return tuple(len(range(*part.indices(self.size))) for part in self.slices)


@dataclass(frozen=True)
class Reading:
    """How some neighbouring outputs read an axis: a window over the gathered pixels, and these, in runs."""

    axis: Axis
    runs: tuple[Run, ...]

    @functools.cached_property
    def places(self) -> tuple[tuple[slice, int], ...]:
        """Where the runs stand in the gathered axis, and their numbers."""
        return tuple((run.place, run.number) for run in self.runs)

    @functools.cached_property
    def gathered(self) -> Parts:
        """The runs as parts of the gathered axis."""
        return Parts(tuple((run.place.start, run.place.stop, 1) for run in self.runs), self.axis.size)

    @functools.cached_property
    def kind(self) -> tuple[Any, ...]:
        """What is the same where a window and the places of pixels under it are the same."""
        return self.axis, tuple((run.place.start, run.place.stop, run.number) for run in self.runs)


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


def number_parts(readings: list[Reading], chunks: Chunks) -> tuple[list[Reading], list[Parts]]:
    """Give numbers to the parts that are read of each chunk; return readings and parts."""
    parts: list[list[tuple[int, int | None, int]]] = [[] for _ in chunks]
    numbered = []
    for reading in readings:
        runs = []
        for run in reading.runs:
            known, part = parts[run.chunk], (run.source.start, run.source.stop, run.source.step)
            if part not in known:
                known.append(part)
            runs.append(replace(run, number=known.index(part)))
        numbered.append(replace(reading, runs=tuple(runs)))
    return numbered, [Parts(tuple(known), size) for known, size in zip(parts, chunks, strict=True)]


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
    cuts.append(len(pixels))
    for number in range(1, len(cuts) - 1):
        before, at, after = cuts[number - 1 : number + 2]
        # a pixel where two runs could meet goes to the longer, which may then be a whole chunk
        if after - at > max(1, at - before) and owners[at] == owners[at - 1] and steps[at] == steps[at - 1]:
            cuts[number] -= 1
    for first, last in itertools.pairwise(cuts):
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
