"""How the pixels of a gradient in the image lie in blocks, and how many outputs read one of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from cuvarconv._gpu._pieces import AdjointPiece, Readers

_ACROSS = 16  # columns of the pixels of a block, at most


@dataclass(frozen=True)
class PixelGrid:
    """How the pixels of an image lie in blocks: steps between them, columns of a block, number of blocks."""

    row_step: int
    column_step: int
    across: int
    tiles: int

    @classmethod
    def of(cls, piece: AdjointPiece, pixels: int) -> PixelGrid:
        """Choose it for blocks of so many pixels."""
        shape = piece.output.shape[-2:]
        strides = piece.rows.axis.stride, piece.columns.axis.stride
        row_step, column_step = (s if n >= 4 * s else 1 for n, s in zip(shape, strides, strict=True))
        height, width = -(-shape[0] // row_step), -(-shape[1] // column_step)
        across = min(_ACROSS, 1 << (width - 1).bit_length())
        tiles = -(-height // (pixels // across)) * -(-width // across)
        return cls(row_step, column_step, across, tiles * row_step * column_step)


@functools.lru_cache(maxsize=512)
def most_outputs(readers: Readers) -> int:
    """Return how many outputs at most read a pixel through one tap."""
    entries = readers.table().entries
    lists = -2 - entries[: readers.entries()]
    return int(entries[lists[lists >= 0]].max(initial=1))
