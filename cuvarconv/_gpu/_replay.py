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
from cuvarconv._gpu._launch import Launch, watching

_ALIGNMENT = 16  # bytes: what decides on vectors
_MOST_LAUNCHES = 16  # of a call that is worth a plan
_COUNTED = 16 << 10  # bytes that a plan counts as: a few hundred are kept


@dataclass(frozen=True)
class _Step:
    """A launch, and which of its arguments are which of the call's arrays."""

    launch: Launch
    arrays: tuple[tuple[int, Any], ...]

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
            planner = _Planner(arrays)
            with watching(planner.see):
                primitive(*operands, **keywords)
            kept.keep(planner.plan, _COUNTED, *key)
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


class _Planner:
    """Makes a plan of launches, without their arrays; none if they have others than the call's and tables."""

    def __init__(self, arrays: list[Any]) -> None:
        self.plan: _Plan = []
        self._arrays = arrays
        self._possible = True

    def see(self, launch: Launch) -> None:
        """Take one more launch."""
        if not self._possible:
            return
        tables = kept.tables()
        found = []
        for place, argument in enumerate(launch.arguments):
            if isinstance(argument, cupy.ndarray) and id(argument) not in tables:
                found.append((place, self._number(argument)))
        self.plan.append(_Step(launch.without([place for place, _ in found]), tuple(found)))
        if len(self.plan) > _MOST_LAUNCHES or any(operand is None for _, operand in found):
            self._possible = False
            self.plan.clear()

    def _number(self, argument: Any) -> int | None:
        numbers = (at for at, array in enumerate(self._arrays) if _start_together(array, argument))
        return next(numbers, None)


def _start_together(array: Any, argument: Any) -> bool:
    return array.data.ptr == argument.data.ptr and array.dtype == argument.dtype
