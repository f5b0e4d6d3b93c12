"""Bugs in the Gaussian filter, most of them of the NumPy backend."""

WIDE = ("tests/test_gaussian_wide.py",)
FILTER = (
    "tests/test_gaussian.py",
    "tests/test_gaussian_numbers.py",
    "tests/test_gaussian_wide.py",
    *("-k", "not cuda"),
)
GRADIENTS = ("tests/test_gaussian_gradients.py", "tests/test_gaussian_wide.py", "-k", "not cuda")
SLOPES = ("tests/test_gaussian_gradients.py", "-k", "offsets or in_common")

PLANTED = [
    (
        "kernels/gaussian_window.cuh",
        SLOPES,
        [
            ("nothing is taken off", "      if (level != nullptr) pixel -= *level;\n", ""),
        ],
    ),
    (
        "cuvarconv/_cpu/_bands.py",
        WIDE,
        [
            (
                "products where windows are too long",
                " if has_small_products() else _LEAST) and far <= _MOST",
                " if has_small_products() else _LEAST)",
            ),
            (
                "a run's columns end before the farthest",
                "self.count, distances, self.length + 2 * reach",
                "self.count, distances, self.length + reach",
            ),
            (
                "what is left of a line is left out",
                "*([_Runs(width - rest, 1, rest)] if rest else [])]",
                "*([_Runs(width - rest, 1, rest)] if not width else [])]",
            ),
            (
                "weights of the first rows for all",
                "key: _product(runs.matrices(weights[:, rows]), reached, scratch)",
                "key: _product(runs.matrices(weights[:, : rows.stop - rows.start]), reached, scratch)",
            ),
            (
                "products written over the lines they are made of",
                "            scratch.clear(room)\n            reached",
                "            scratch.clear()\n            reached",
            ),
            (
                "lines above from the first row for all",
                "first = tile[pixels.reach[0] + rows.start :]",
                "first = tile[pixels.reach[0] :]",
            ),
            (
                "the first band for all products",
                "bands[id(second)], sums[id(first)]",
                "bands[min(bands)], sums[id(first)]",
            ),
            ("a copied band is not cleared", "        lines[..., end:] = 0\n", ""),
            (
                "the centre of a copied band counts once",
                "        lines[..., centre] += weights[..., 0]\n",
                "",
            ),
            (
                "the centre of a mirrored band counts once",
                "            matrix[distance, column] += 1\n",
                "            matrix[distance, column] = 1\n",
            ),
            (
                "band one column off",
                "strides = *lines.strides[:-2], columns * lines.itemsize, lines.itemsize",
                "strides = *lines.strides[:-2], (columns + 1) * lines.itemsize, lines.itemsize",
            ),
            (
                "what lies before the first of some runs is not cleared",
                "        line[..., :start] = 0\n",
                "",
            ),
            (
                "what lies behind the last of some runs is not cleared",
                "        line[..., stop:] = 0\n",
                "",
            ),
            (
                "only every other run is added up",
                "    for line in lines[1:]:\n",
                "    for line in lines[1::2]:\n",
            ),
            (
                "lines sent downwards only",
                "for first in (centre - distance, centre + distance):",
                "for first in (centre + distance, centre + distance):",
            ),
            (
                "lines sent to the first planes only",
                "first : first + len(line), some[1]]",
                "first : first + len(line), : line.shape[1]]",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_cuts.py",
        FILTER,
        [
            (
                "pieces end with their last whole cell",
                "[*rows.tolist(), height], [*columns.tolist(), width]",
                "[*rows.tolist(), max(CELL, height - height % CELL)], [*columns.tolist(), width]",
            ),
            (
                "halves overlap",
                "slice(cells.start, middle), slice(middle, cells.stop)]",
                "slice(cells.start, middle + 1), slice(middle, cells.stop)]",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/gaussian.py",
        FILTER,
        [
            (
                "sums that are not finite as matrix products",
                "pixels.tile is not None and not pixels.guarded and banded",
                "pixels.tile is not None and banded",
            ),
            (
                "blocks as large for many planes",
                "    return min(elements, planes * rows * columns)",
                "    return elements",
            ),
            (
                "cells of wide windows as many as of narrow ones",
                "    distances = max(window.rows.taps, window.columns.taps) // 2 + 1",
                "    distances = 1",
            ),
            (
                "the first stack of distances for all",
                "_add_up(pair, rows, row_sums[some.start : some.stop], radii[0])",
                "_add_up(pair, rows, row_sums[: len(some)], radii[0])",
            ),
            (
                "no norm",
                "    total /= aligned_norm(weights, pixels.scale)\n    return total",
                "    return total",
            ),
            (
                "windows of another block",
                "slice(down.start + rows.start, down.start + rows.stop),",
                "slice(rows.start, rows.stop),",
            ),
            (
                "pixels beyond their own reach count",
                "np.copyto(values, 0, where=radii < distance)",
                "np.copyto(values, 0, where=radii < distance - 1)",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/gaussian_gradient.py",
        GRADIENTS,
        [
            (
                "outputs that reach a block from afar are lost",
                "slice(max(0, -shift - far), max(0, length - shift + far))",
                "slice(max(0, -shift), max(0, length - shift))",
            ),
            (
                "patches one row off",
                "first, second = far - shifts[0], wide",
                "first, second = far - shifts[0] - 1, wide",
            ),
            (
                "pieces not moved to their place",
                "            shift + outer.start + inner.start\n",
                "            shift + outer.start\n",
            ),
            (
                "products that are not finite are spread",
                "if not guarded and patched <= _PATCH",
                "if patched <= _PATCH",
            ),
            (
                "outputs that several entries read are read once",
                "return slice(max(0, run.first - axis.taps + 1), min(axis.length, run.first + run.length))",
                "return slice(max(0, run.first), min(axis.length, run.first + run.length))",
            ),
            (
                "slopes without their mean",
                "    np.subtract(column, mean, out=steep)",
                "    np.copyto(steep, column)",
            ),
            (
                "one slope for rows and columns",
                "(rows, steep[axis]) if axis else (steep[axis], columns)",
                "(rows, steep[axis])",
            ),
        ],
    ),
]
