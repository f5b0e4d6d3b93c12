"""What the gradient functions share: names, dtypes and the order of results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvarconv._backend import Call
from cuvarconv._dtypes import computing_dtype, product_dtype


@dataclass(frozen=True)
class Gradient:
    """How to make the gradient of one operand: from which factors, and by what.

    Of an operand that is a tuple of arrays it is a tuple, filled together.
    """

    operand: Any
    factors: tuple[Any, ...]
    fill: Callable[[Any, np.dtype], None]  # (array to write, computing dtype)


def gradients(call: Call, wrt: Any, **known: Gradient) -> Any:
    """Make the gradients that `wrt` names, in its order; one name alone gives the gradient itself."""
    results = []
    for name in requested(wrt, tuple(known)):
        results.append(_make(call, known[name]))
    return results[0] if isinstance(wrt, str) else tuple(results)


def _make(call: Call, gradient: Gradient) -> Any:
    several = isinstance(gradient.operand, tuple)
    operands = gradient.operand if several else (gradient.operand,)
    dtypes = [product_dtype((operand.dtype,)) for operand in operands]
    made = tuple(call.fresh(operand.shape, dtype) for operand, dtype in zip(operands, dtypes, strict=True))
    if any(factor.size == 0 for factor in gradient.factors):
        for result in made:
            result[...] = 0  # an empty sum
    else:
        factors = tuple(factor.dtype for factor in gradient.factors)
        gradient.fill(made if several else made[0], computing_dtype(factors, product_dtype(tuple(dtypes))))
    results = tuple(call.hand_over(result) for result in made)
    return results if several else results[0]


def requested(wrt: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """Read `wrt`: names out of those known, or one alone."""
    names = (wrt,) if isinstance(wrt, str) else wrt
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"wrt: expected a name or a tuple of names out of {known}, got {wrt!r}")
    for name in names:
        if name not in known:
            raise ValueError(f"wrt: expected names out of {known}, got {name!r}")
    return tuple(names)


def check_gradient(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse a gradient that has not the shape of the result."""
    if shape != expected:
        raise ValueError(f"grad: expected the shape of the result, {expected}, got {shape}")
