"""Cutting the output into blocks."""

from __future__ import annotations

import itertools
import math
from typing import Any

Where = tuple[slice, ...]  # a block of the output


def blocks(shape: tuple[int, ...], elements: int) -> list[Where]:
    """Cut an array into slices of about `elements` elements, whole trailing axes first.

    The cut depends on the shape alone, so that results do not depend on the number of workers.
    """
    if 0 in shape:
        return []
    if math.prod(shape) <= elements:
        return [tuple(slice(0, length) for length in shape)]
    cuts, size = [], 1
    for length in reversed(shape):
        pieces = max(1, -(-length * size // elements)) if elements > size else length
        step = max(1, -(-length // max(1, pieces)))
        cuts.append([slice(at, min(at + step, length)) for at in range(0, length, step)])
        size *= step
    return list(itertools.product(*reversed(cuts)))


def matching(operand: Any, where: Where) -> Where:
    """Return the part of a broadcast operand that meets the output's block `where`."""
    lengths = operand.shape[operand.ndim - len(where) :]
    return tuple(slice(None) if length == 1 else part for part, length in zip(where, lengths, strict=True))
