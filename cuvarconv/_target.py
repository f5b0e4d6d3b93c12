"""Results that do not exist yet: what public functions pass to primitives of the dask backend."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np


class Target:
    """Shape and dtype of a result, its axes moved as an array's are, and where to put a lazy array."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, keep: Callable[[Any], None]) -> None:
        self.shape, self.dtype, self.keep = shape, np.dtype(dtype), keep

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def transpose(self, *axes: Any) -> Target:
        """View with the axes in another order."""
        order = axes[0] if isinstance(axes[0], tuple) else axes
        back = tuple(int(axis) for axis in np.argsort(order))
        shape = tuple(self.shape[axis] for axis in order)
        return Target(shape, self.dtype, lambda array: self.keep(array.transpose(back)))

    def __getitem__(self, key: tuple[Any, ...]) -> Target:
        """View with new axes (None), or without some of length 1 (0)."""
        known = sum(entry is not None and entry is not Ellipsis for entry in key)
        at = key.index(Ellipsis) if Ellipsis in key else len(key)
        rest = (slice(None),) * (self.ndim - known)
        shape, back, lengths = [], [], iter(self.shape)
        for entry in (*key[:at], *rest, *key[at + 1 :]):
            length = 1 if entry is None else next(lengths)
            back.append({None: 0, 0: None}[entry] if entry is None or entry == 0 else slice(None))
            if entry != 0:
                shape.append(length)
        undo = tuple(back)
        return Target(tuple(shape), self.dtype, lambda array: self.keep(array[undo]))


class Result(Target):
    """The target that stands for the whole result."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__(shape, dtype, functools.partial(setattr, self, "array"))
        self.array: Any = None  # none yet: a sum of nothing
        self.parts: dict[str, Any] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take another result, or zeros, which is what a result is that nothing is put into."""
        if isinstance(value, Result):
            self.keep(value.array.astype(self.dtype))
        elif key is not Ellipsis or value != 0:
            raise NotImplementedError(key)

    def __iadd__(self, other: Result) -> Result:
        """Add another result."""
        self.keep(self.array + other.array)
        return self

    @property
    def real(self) -> Target:
        """The real part."""
        return self._part("real") if self.dtype.kind == "c" else self

    @property
    def imag(self) -> Target:
        """The imaginary part of a complex result."""
        return self._part("imag")

    def _part(self, name: str) -> Target:
        dtype = np.empty(0, self.dtype).real.dtype
        return Target(self.shape, dtype, functools.partial(self.parts.__setitem__, name))
