"""Repeated calls: what a primitive has launched for operands of the same geometry is launched again.

Most of a small call is the way from arrays to the arguments of a kernel, and it leads to the same place
whenever shapes, strides, dtypes, alignment and the other arguments are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import cupy

from cuvarconv._gpu._kept import kept
from cuvarconv._gpu._launch import Launch, recording

_ALIGNMENT = 16  # bytes: what decides on vectors
_COUNTED = 16 << 10  # bytes that a plan counts as: a few hundred are kept


@dataclass(frozen=True)
class _Step:
    """A launch, and which of its arguments are which of the call's arrays."""

    launch: Launch
    arrays: tuple[tuple[int, int], ...]

    def __call__(self, arrays: list[Any]) -> None:
        arguments = list(self.launch.arguments)
        for place, operand in self.arrays:
            arguments[place] = arrays[operand]
        self.launch.run(arguments)


_Plan = list[_Step]  # empty for calls that have to be worked out each time


def replayed(primitive: Callable[..., None]) -> Callable[..., None]:
    """Decorate a primitive that does all its work in launches over its own arrays, or on none of them."""

    @functools.wraps(primitive)
    def call(*operands: Any, **keywords: Any) -> None:
        arrays: list[Any] = []
        key = (primitive, tuple(_describe(operands, arrays)), tuple(keywords.values()))
        plan: _Plan | None = kept.find(*key)
        if plan is None:
            with recording() as launches:
                primitive(*operands, **keywords)
            kept.keep(_plan(launches, arrays), _COUNTED, *key)
        elif plan:
            for step in plan:
                step(arrays)
        else:
            primitive(*operands, **keywords)

    return call


def _describe(operands: tuple[Any, ...], arrays: list[Any]) -> Iterator[Hashable]:
    """Yield what launches depend on, and collect the arrays; two that start together may be one."""
    for operand in operands:
        if isinstance(operand, cupy.ndarray):
            pointer = operand.data.ptr
            same = next((at for at, array in enumerate(arrays) if array.data.ptr == pointer), len(arrays))
            arrays.append(operand)
            yield operand.shape, operand.strides, operand.dtype, pointer % _ALIGNMENT, same
        elif isinstance(operand, tuple):
            yield tuple(_describe(operand, arrays))
        else:
            yield operand


def _plan(launches: list[Launch], arrays: list[Any]) -> _Plan:
    """Return the launches without their arrays; nothing if they have others than the call's and tables."""
    tables = kept.tables()
    steps = []
    for launch in launches:
        found = []
        for place, argument in enumerate(launch.arguments):
            if not isinstance(argument, cupy.ndarray) or id(argument) in tables:
                continue
            operand = next((at for at, array in enumerate(arrays) if _start_together(array, argument)), None)
            if operand is None:
                return []
            found.append((place, operand))
        steps.append(_Step(launch.without([place for place, _ in found]), tuple(found)))
    return steps


def _start_together(array: Any, argument: Any) -> bool:
    return array.data.ptr == argument.data.ptr and array.dtype == argument.dtype
