"""One array from which a block takes what it works in."""

from __future__ import annotations

import math

import numpy as np

from cuvarconv._cpu._aligned import LINE, empty

_LOST = 1 << 10  # bytes between the parts


class Scratch:
    """Hands out parts of one array, again and again.

    Several large arrays that are freed after each piece go back to the system, which clears every page
    before it hands them out again: that takes longer than to fill them.  One of constant size stays.
    """

    def __init__(self, nbytes: int) -> None:
        self._buffer = empty((0,), np.uint8)
        self.make_room(nbytes)

    def make_room(self, nbytes: int) -> None:
        """Take back all parts, and see that so many bytes can be handed out."""
        self._taken = self._beside = 0
        if nbytes + _LOST > self._buffer.size:
            del self._buffer  # first, so that both are never there
            self._buffer = empty((nbytes + _LOST,), np.uint8)

    @property
    def taken(self) -> int:
        """Bytes handed out."""
        return self._taken

    @property
    def left(self) -> int:
        """Bytes that can be handed out."""
        return self._buffer.size - self._taken

    def clear(self, kept: int = 0) -> None:
        """Take back all parts but those that were handed out when so many bytes were taken."""
        self._taken = kept

    def start_again(self) -> None:
        """Take back all parts, and make room for those that there was none for."""
        if self._beside:
            self.make_room(self._taken + self._beside)
        self._taken = 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return a part of the array, or one of its own where that is full."""
        start, nbytes = self._taken, math.prod(shape) * dtype.itemsize
        whole = -(-nbytes // LINE) * LINE
        if start + nbytes > self._buffer.size:
            self._beside += whole
            return empty(shape, dtype)
        self._taken = start + whole
        return np.ndarray(shape, dtype, self._buffer, start)
