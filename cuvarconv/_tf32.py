"""Whether float32 may be rounded to TF32 in products on tensor cores: off, unless a caller allows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_allowed: ContextVar[bool] = ContextVar("tf32", default=False)


def tf32_allowed() -> bool:
    """Whether TF32 is allowed here and now."""
    return _allowed.get()


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow TF32, or do not, within a ``with`` block and a thread."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)
