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
                "products where pixels are not finite or windows too long",
                "min(far, wide, width) >= _LEAST and far <= _MOST",
                "min(far, wide, width) >= _LEAST",
            ),
            (
                "a run's columns end before the farthest",
                "lines[..., run.start : run.stop + 2 * pixels.reach[1]].transpose(1, 2, 0, 3)",
                "lines[..., run.start : run.stop + pixels.reach[1]].transpose(1, 2, 0, 3)",
            ),
            (
                "weights of the first rows for all",
                "weights = down[:, rows, :, run].transpose(1, 2, 3, 0)",
                "weights = down[:, : rows.stop - rows.start, :, run].transpose(1, 2, 3, 0)",
            ),
            (
                "products written over the lines they are made of",
                "                scratch.clear(room)\n                weights = down",
                "                scratch.clear()\n                weights = down",
            ),
            (
                "lines above from the first row for all",
                "as_strided(tile[far + rows.start :], shape, (step, *tile.strides))",
                "as_strided(tile[far:], shape, (step, *tile.strides))",
            ),
            (
                "only the first run of distances",
                "for run in runs(len(weights)))",
                "for run in runs(len(weights))[:1])",
            ),
            (
                "lines of one part added to the next",
                "        lines[...] = 0\n        room = scratch.taken",
                "        room = scratch.taken",
            ),
            (
                "runs overwrite their neighbours",
                "lines[..., run.start : run.stop + 2 * wide] += sums",
                "lines[..., run.start : run.stop + 2 * wide] = sums",
            ),
            (
                "lines sent downwards only",
                "        patch[row : row + far + 1] += lines[::-1, line]\n",
                "        patch[row : row + far + 1] += lines[::-1, line] * 0\n",
            ),
            ("a band is not cleared", "    band[...] = 0\n", ""),
            ("the centre counts once", "    left += right\n", "    left[1:] += right[1:]\n"),
            (
                "band one column off",
                "centres = band[..., shape[0] - 1 :]",
                "centres = band[..., shape[0] - 2 :]",
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
