"""The least that a call must do, and how near to the machine's ceilings it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_COPIED = 32 << 20  # float32 numbers, far more than the caches hold
_SIDE = 1024  # of the matrices whose product is timed


@dataclass(frozen=True)
class Cost:
    """What no implementation can avoid: each operand read once, each result written once, and the sums."""

    nbytes: int
    operations: float  # products and additions, two for each tap


@dataclass(frozen=True)
class Ceilings:
    """What the device reached just after a row: bytes per second in a copy, operations in a matrix product.

    A processor that others share is not equally fast all the time.
    """

    bytes_per_s: float
    operations_per_s: float

    @classmethod
    def measure(cls, machine: Any, repeats: int) -> Ceilings:
        """Time a copy that fits no cache and a product of large matrices, both in float32."""
        source = machine.ours(np.zeros(_COPIED, np.float32))
        matrix = machine.ours(np.ones((_SIDE, _SIDE), np.float32))
        duplicate, product = source.copy(), matrix.copy()
        sides: dict[str, Callable[[], Any]] = {
            "copy": lambda: duplicate.__setitem__(..., source),
            "product": lambda: matrix.dot(matrix, out=product),
        }
        for side in sides.values():
            side()
        fastest = {name: min(times) for name, times in machine.time(sides, repeats).items()}
        return cls(2 * source.nbytes / fastest["copy"], 2 * _SIDE**3 / fastest["product"])

    def position(self, cost: Cost, seconds: float) -> dict[str, Any]:
        """Return the least time that the ceilings allow, what sets it, and its share of the measured time.

        A share above 1 is possible: arrays that stay in a cache move faster than the copy's.
        """
        moving, computing = cost.nbytes / self.bytes_per_s, cost.operations / self.operations_per_s
        return {
            **asdict(cost),
            **asdict(self),
            "bound": "memory" if moving > computing else "arithmetic",
            "share": max(moving, computing) / seconds,
        }
