"""Plant bugs, one at a time, in a copy of the repository, and see whether the tests catch each.

    python tests/plant_bugs.py [--list] [--only N …] [--jobs N] [--write FILE]

The exit status is 0 if the tests pass on the untouched copy and fail on every planted bug.  A test
has to fail, or to crash: a copy that hangs or cannot be built or imported does not count.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cuvarconv", "kernels", "tests", "pyproject.toml")
TIMEOUT = 600  # seconds per run of tests
LONGEST_REASON = 160

# ---- what is run ---------------------------------------------------------------------------------

CUDA = ("-k", "cuda or test_kernels or test_blocks and not numpy")
HOST = ("-k", "not cuda")
CORRELATE = ("tests/test_correlate.py", "tests/test_correlate_arrays.py")
ANY_CALL = ("tests/test_blocks.py", "tests/test_hypothesis.py", "tests/test_scipy_parity.py")
MODULATED_GRADIENTS_ON_GPU = (
    *("tests/test_kernels_modulated.py", "tests/test_gradients.py", "tests/test_gradients_arrays.py"),
    *("-k", "modulat and not numpy"),
)
TENSOR = (
    "tests/test_modulated_tensor.py",
    "tests/test_gradients_tensor.py",
    "tests/test_kernels_modulated.py",
)
CORRELATE_GRADIENT_ON_GPU = (
    *("tests/test_kernels_correlate.py", "tests/test_gradients.py", "tests/test_gradients_arrays.py"),
    *("-k", "cuda and correlate and not modulated and not local or test_kernels"),
)
SPREAD_ON_GPU = ("tests/test_kernels_correlate.py", "tests/test_spread.py", "tests/test_unfold.py", *CUDA)
CORRELATE_ON_GPU = (*CORRELATE, "tests/test_kernels.py", *ANY_CALL, *CUDA)
MODULATED_ON_GPU = ("tests/test_modulated.py", "tests/test_kernels.py", *ANY_CALL, *CUDA)
ON_GPU = (*CORRELATE, "tests/test_modulated.py", "tests/test_kernels.py", *ANY_CALL, *CUDA)
WINDOW = (*CORRELATE, "tests/test_modulated.py", *ANY_CALL)
ON_HOST = (*WINDOW, "tests/test_host.py", *HOST)
THREADS = ("tests/test_host.py", "tests/test_interrupts.py", "-k", "not little_memory")
DASK = ("tests/test_dask.py", "-k", "not cuda")
DASK_CALLS = ("tests/test_dask.py", "-k", "not cuda and not same_as_in_memory")
DISPATCH = ("tests/test_dispatch.py", "tests/test_dispatch_tensors.py", "tests/test_errors.py", *WINDOW)

# ---- what is planted: (file, tests, [(bug, text, replacement), …]) -------------------------------

PLANTED = [
    (
        "kernels/correlate.cu",
        CORRELATE_ON_GPU,
        [
            ("taps whose values have not arrived", "<SLOTS - TAPS>", "<SLOTS - TAPS + 1>"),
            (
                "no barrier before a tile is overwritten",
                "__syncthreads();  // the previous tile is read",
                "",
            ),
            (
                "no barrier after a tile is loaded",
                "number<A>(cval_re, cval_im));\n      __syncthreads();",
                "number<A>(cval_re, cval_im));",
            ),
            ("the imaginary part of cval is lost", "number<A>(cval_re, cval_im)", "number<A>(cval_re, 0)"),
            ("kernels read beyond the last column", "          if (v < outputs)\n", "          if (true)\n"),
            ("kernels read beyond the last tap", "    if (taps.more()) {", "    if (true) {"),
            ("overhanging threads read kernels", "if (kernels.runs && outputs == V)", "if (kernels.runs)"),
            (
                "kernels are not conjugated",
                "kernels.conj ? conjugate(widen(pack.v[v])) : widen(pack.v[v])",
                "widen(pack.v[v])",
            ),
            (
                "rows below the image are written",
                "i < height ? max(0, min(V, width - j)) : 0",
                "max(0, min(V, width - j))",
            ),
            (
                "one block of planes too many",
                "plane_tiles = (planes - 1) / P + 1",
                "plane_tiles = planes / P + 1",
            ),
            (
                "one block of columns too many",
                "across = (width - 1) / (LX * V) + 1",
                "across = width / (LX * V) + 1",
            ),
            ("one block of rows too many", "down = (height - 1) / LY + 1", "down = height / LY + 1"),
            ("group offset of the input forgotten", "x_base + group * x_group +", "x_base +"),
            ("group offset of the kernels forgotten", "k_base + group * k_group +", "k_base +"),
            ("group offset of the output forgotten", "y_base + group * y_group +", "y_base +"),
            (
                "first plane of the input forgotten",
                "group * x_group + plane0 * x_plane,",
                "group * x_group,",
            ),
            (
                "first plane of the output forgotten",
                "group * y_group + plane0 * y_plane +",
                "group * y_group +",
            ),
            ("base of the kernels forgotten", "{k + k_base + group", "{k + group"),
            (
                "kernels of the transposed pixel",
                "group * k_group + i * k_row + j * k_column",
                "group * k_group + j * k_row + i * k_column",
            ),
            (
                "tap strides transposed",
                "taps.m * kernels.m + taps.n * kernels.n",
                "taps.m * kernels.n + taps.n * kernels.m",
            ),
            ("kernels of the first chunk for all chunks", "      m = m0;\n", "      m = 0;\n"),
            ("chunks of rows not dilated", "{i0 * rs + m0 * rd,", "{i0 * rs + m0,"),
            ("tile one row short", "(LY - 1) * rs + (mc - 1) * rd + 1,", "(LY - 1) * rs + (mc - 1) * rd,"),
            (
                "tile one column short",
                "(LX * V - 1) * cs + (nc - 1) * cd + 1,",
                "(LX * V - 1) * cs + (nc - 1) * cd,",
            ),
            (
                "all planes read the first one's pixels",
                "for_neighbours<V, TAPS>(first + p * plane, pitch,",
                "for_neighbours<V, TAPS>(first, pitch,",
            ),
            ("planes beyond the batch are written", "if (p < active) store_run", "store_run"),
            ("rows of cut windows are never flushed", "if (n0 + nc == kw) flush", "if (nc == kw) flush"),
            (
                "rows of taps counted again",
                "      totals[p][v] = add(totals[p][v], sums[p][v]);\n      sums[p][v] = number<A>(0, 0);",
                "      totals[p][v] = add(totals[p][v], sums[p][v]);",
            ),
            (
                "totals rounded to the array's dtype after each row",
                "totals[p][v] = add(totals[p][v], sums[p][v]);",
                "totals[p][v] = widen(Narrow<T>::from(add(totals[p][v], sums[p][v])));",
            ),
        ],
    ),
    (
        "kernels/tile.cuh",
        CORRELATE_ON_GPU,
        [
            ("-1 among the columns is not checked", "i < 0 || j < 0 ? nullptr", "i < 0 ? nullptr"),
            ("-1 among the rows is not checked", "i < 0 || j < 0 ? nullptr", "j < 0 ? nullptr"),
            (
                "the column table is read past its end",
                "return at < columns.entries ? columns.sources[at] : -1LL;",
                "return columns.sources[at];",
            ),
            (
                "the row table is read past its end",
                "entry < rows.entries ? rows.sources[entry] : -1",
                "rows.sources[entry]",
            ),
            (
                "vector path where the window folds back",
                " && columns.sources[last] - left == t.columns - 1;",
                ";",
            ),
            (
                "vector path where the tile starts outside the image",
                "last < columns.entries && left >= 0 &&",
                "last < columns.entries &&",
            ),
            (
                "vector path looks past the end of the table",
                "dense && last < columns.entries &&",
                "dense &&",
            ),
            ("vector path where columns lie apart", "if (inside && x.runs)", "if (inside)"),
            ("vector path starts at the tile, not at an aligned address", "(int)(left % V), cval", "0, cval"),
            ("pixels before the tile are stored", "(c >= 0 && c < t.columns)", "(c < t.columns)"),
            ("pixels after the tile are stored", "(c >= 0 && c < t.columns)", "(c >= 0)"),
            (
                "columns of a tile blocked, not modulo V",
                "{ return column % V * pitch + column / V; }",
                "{ return column / V * pitch + column % V; }",
            ),
            (
                "the last pixels of a row belong to no cell",
                "(t.columns + before + N - 1) / N",
                "t.columns / N",
            ),
            ("dilation ignored without stride", "if (cs == 1 && cd == 1) {", "if (cs == 1) {"),
            (
                "one shared pixel too few is read",
                "if (c < count + V - 1) pixels",
                "if (c < count + V - 2) pixels",
            ),
            (
                "stride of the tile's columns ignored",
                "f(u, v, line[place<V>(column + v * cs + u * cd, pitch)])",
                "f(u, v, line[place<V>(column + v + u * cd, pitch)])",
            ),
            ("overhanging columns are written", "if (v < outputs) y[v * step]", "y[v * step]"),
            ("overhanging threads write vectors", "if (runs && outputs == V) {", "if (runs) {"),
        ],
    ),
    (
        "kernels/adjoint.cuh",
        SPREAD_ON_GPU,
        [
            ("pixels that nobody reads are read from output -1", "if (output == -1) return;", ""),
            ("lists one entry too short", "left = *next++ - 1;", "left = *next++ - 2;"),
            (
                "taps of the inverse table transposed",
                "return rank < list[0] ? list[1 + rank] : -1;",
                "return rank < list[0] ? list[rank] : -1;",
            ),
            (
                "single outputs come again at every rank",
                "if (output >= -1) return rank == 0 ? output : -1;",
                "if (output >= -1) return rank < 2 ? output : -1;",
            ),
        ],
    ),
    (
        "kernels/spread.cu",
        SPREAD_ON_GPU,
        [
            ("no barrier before a tile is overwritten", "__syncthreads();  // the previous tile is read", ""),
            (
                "no barrier after a tile is loaded",
                "      load_tile<CELLS<A, P>>(tile, t, active, z);\n      __syncthreads();",
                "      load_tile<CELLS<A, P>>(tile, t, active, z);",
            ),
            (
                "outputs above the first are read",
                "exists = i >= 0 && i < z.height &&",
                "exists = i < z.height &&",
            ),
            (
                "outputs right of the last are read",
                "j >= 0 && j < z.width;\n      places",
                "j >= 0;\n      places",
            ),
            (
                "kernels of outputs above the first are read",
                "r < rows && u - r <= above && r - u < below",
                "r < rows && r - u < below",
            ),
            (
                "kernels of outputs below the last are read",
                "u - r <= above && r - u < below;",
                "u - r <= above;",
            ),
            (
                "kernels of pixels that do not exist are read",
                "u < count && r < rows && u - r",
                "u < count && u - r",
            ),
            (
                "kernels right of the last output are read",
                "j >= 0 && j < width ? rows : 0",
                "j >= 0 ? rows : 0",
            ),
            (
                "one vector of pixels too few is read",
                "if (q + R > TAPS - count + 1)",
                "if (q + R > TAPS - count + 2)",
            ),
            ("rows of taps taken in the wrong order", "z[TAPS + r - u]", "z[TAPS + r - (count - 1 - u)]"),
            ("rows of taps counted again", "      sums[p][r] = number<A>(0, 0);\n    }\n}", "    }\n}"),
            ("tiles are not aligned", "? (R - (tc - 1) % R) % R : 0;", "? 0 : 0;"),
            (
                "first taps for all chunks of rows",
                "(down.first_tap + t0 * down.tap_step) * k.m",
                "down.first_tap * k.m",
            ),
            (
                "first taps for all chunks of columns",
                "(across.first_tap + v0 * across.tap_step) * k.n",
                "across.first_tap * k.n",
            ),
            (
                "steps between taps ignore the stride",
                "down.tap_step * k.m - down.output_step * k.row",
                "k.m - down.output_step * k.row",
            ),
            (
                "direct reads counted again with the others",
                "if (direct && all_direct) return;\n",
                "if (false) return;\n",
            ),
            (
                "rows that are read directly count again beside folded columns",
                "i[r] >= 0 && !(direct && i[r] == direct_row + r)",
                "i[r] >= 0 && !direct",
            ),
            ("all planes read the first one's pixels", "at + p * walk.plane, together", "at, together"),
            ("pixels beyond the image are written", "if (r < pixels.rows) to[", "to["),
            ("classes of pixels lie side by side", "row_class + row * row_classes, w", "row_class + row, w"),
            ("group offset of the kernels forgotten", "k + k_base + group * k_group,", "k + k_base,"),
            ("folded light is lost", "if (!(down.alone && across.alone))", "if (false)"),
            (
                "folded light is lost along one axis",
                "if (!(down.alone && across.alone))",
                "if (!(down.alone || across.alone))",
            ),
        ],
    ),
    (
        "kernels/unfold.cu",
        SPREAD_ON_GPU,
        [
            (
                "no barrier after a tile is loaded",
                "dense != 0, cval);\n      __syncthreads();",
                "dense != 0, cval);",
            ),
            ("stride of the columns ignored", "(lane * V + v) * cs + n * cd", "lane * V + v + n * cd"),
            ("taps transposed", "(m0 + m) * u_m + (n0 + n) * u_n", "(m0 + m) * u_n + (n0 + n) * u_m"),
            ("first taps for all chunks", "(m0 + m) * u_m + (n0 + n) * u_n", "m * u_m + n * u_n"),
        ],
    ),
    (
        "kernels/correlate_gradient.cu",
        CORRELATE_GRADIENT_ON_GPU,
        [
            (
                "no barrier before a tile is overwritten",
                "        __syncthreads();  // the previous tile is read",
                "        ",
            ),
            (
                "no barrier before sums are added up",
                "    __syncthreads();\n    for (int at = threadIdx.x;",
                "    for (int at = threadIdx.x;",
            ),
            (
                "gradient is not conjugated",
                "factors[p][v] = conjugate(factors[p][v]);",
                "factors[p][v] = factors[p][v];",
            ),
            (
                "gradient of a sum is not conjugated",
                "factors[v] = conjugate(factors[v]);",
                "factors[v] = factors[v];",
            ),
            ("further planes replace the first", "if (plane0 > 0 || add_up) {", "if (add_up) {"),
            ("further launches replace the first", "if (plane0 > 0 || add_up) {", "if (plane0 > 0) {"),
            ("planes along one axis only", "{plane / inside, plane % inside}", "{0, plane % inside}"),
            ("all rows of taps in every block", "min(kh, first_tap + rows_each)", "kh"),
            ("0 times what lies beyond the output", "if (v < outputs) sums[m", "sums[m"),
            (
                "sums of a stretch counted again",
                "        sums[e] = number<A>(0, 0);\n      }\n    }",
                "      }\n    }",
            ),
            (
                "one tile too few in a part",
                "each = (tiles - 1) / splits + 1;",
                "each = (tiles - 1) / splits;",
            ),
            (
                "last row of threads left out",
                "for (int half = THREADS / 2; half > 0",
                "for (int half = THREADS / 2; half > 1",
            ),
            (
                "tile one row short",
                "(lines - 1) * rs + (row_taps - 1) * rd + 1,",
                "(lines - 1) * rs + (row_taps - 1) * rd,",
            ),
        ],
    ),
    (
        "cuvarconv/_gpu/spread.py",
        SPREAD_ON_GPU,
        [
            (
                "blocks that are not whole count as inside",
                "_ALONE if whole else _ALONE | _INSIDE",
                "_ALONE | _INSIDE",
            ),
            (
                "gaps among the outputs overlooked",
                "gaps = len(outputs) == 0 or outputs[-1] - outputs[0] >= len(outputs)",
                "gaps = len(outputs) == 0",
            ),
            ("outputs of a piece counted from the first of all", "output - int(outputs[0])", "output"),
            ("every tap is met by each class", "tap_step = axis.stride // common", "tap_step = 1"),
            ("number of planes changes the taps of a tile", "// PLANES[-1] * min(planes, per_block)", "// 1"),
            (
                "pitch without a place for further banks",
                "pitch = (runs | 1) * run",
                "pitch = -(-runs // 2) * 2 * run",
            ),
            (
                "classes left out of the grid",
                "down.tiles(height, block) * len(down.classes)",
                "down.tiles(height, block)",
            ),
        ],
    ),
    (
        "cuvarconv/_gpu/correlate_gradient.py",
        CORRELATE_GRADIENT_ON_GPU,
        [
            (
                "window of swapped axes not swapped",
                "window = Window(window.columns, window.rows, window.cval)",
                "pass",
            ),
            ("sums of many planes in half precision", "if not (over_pixels or at_once):", "if False:"),
            (
                "later pieces replace the first",
                "first=all(where[axis].start in (None, 0) for axis in summed)",
                "first=True",
            ),
            ("later launches replace the first", "        first = False\n", "        pass\n"),
            (
                "parts of a sum left out",
                "sums += parts[0] if splits == 1 else parts.sum(axis=0)",
                "sums += parts[0]",
            ),
            (
                "sums kept beside the result without a limit",
                "blocks(kept, max(1, _SUMS //",
                "blocks(kept, max(1, (_SUMS << 10) //",
            ),
        ],
    ),
    (
        "cuvarconv/_gpu/unfold.py",
        SPREAD_ON_GPU,
        [
            ("cval as it is, not as its bits", "outside.view(bits)[()]", "outside.astype(bits)[()]"),
            (
                "vectors across the end of a row of pixels",
                "np.int32(whole and in_runs(image",
                "np.int32(in_runs(image",
            ),
        ],
    ),
    (
        "kernels/numbers.cuh",
        ON_GPU,
        [
            (
                "taps of weight 0 skip NaN",
                "float a, float b, float c) { return fmaf(a, b, c); }",
                "float a, float b, float c) { return a == 0 ? c : fmaf(a, b, c); }",
            ),
            (
                "complex sums: i·i = 1",
                "c.re = multiply_add(-a.im, b.im, multiply_add(a.re, b.re, c.re));",
                "c.re = multiply_add(a.im, b.im, multiply_add(a.re, b.re, c.re));",
            ),
            (
                "complex products: one cross term lost",
                "c.im = multiply_add(a.im, b.re, a.re * b.im);",
                "c.im = a.re * b.im;",
            ),
            (
                "complex totals keep the last row's imaginary part",
                "a.im += b.im; return a;",
                "a.im = b.im; return a;",
            ),
            ("float16 results rounded toward zero", "__float2half_rn(v)", "__float2half_rz(v)"),
            ("bfloat16 results rounded toward zero", "__float2bfloat16_rn(v)", "__float2bfloat16_rz(v)"),
            (
                "double results pass through single precision",
                "double a, double b, double c) { return fma(a, b, c); }",
                "double a, double b, double c) { return (float)fma(a, b, c); }",
            ),
        ],
    ),
    (
        "kernels/modulated.cu",
        MODULATED_ON_GPU,
        [
            (
                "no barrier before the patches are overwritten",
                "__syncthreads();  // the previous step is read",
                "",
            ),
            (
                "no barrier after the patches are made",
                "w_output, outputs - o0);\n      __syncthreads();",
                "w_output, outputs - o0);",
            ),
            ("-1 among the rows is not checked", "row < 0 || column < 0 ? cval", "column < 0 ? cval"),
            ("-1 among the columns is not checked", "row < 0 || column < 0 ? cval", "row < 0 ? cval"),
            (
                "cval is not modulated",
                "patch = multiply(factor, value);",
                "patch = row < 0 || column < 0 ? cval : multiply(factor, value);",
            ),
            ("patches beyond the last pixel are made", "if (p < from.pixels) {", "if (p <= from.pixels) {"),
            (
                "first channel of the group forgotten",
                "channel = from.first_channel + k - n * step.channels;",
                "channel = k - n * step.channels;",
            ),
            (
                "channel groups of the modulation interleaved",
                "entry = channel / from.channels_per_entry;",
                "entry = channel % from.channels_per_entry;",
            ),
            (
                "channel groups of the modulation counted within the group",
                "entry = channel / from.channels_per_entry;",
                "entry = (channel - from.first_channel) / from.channels_per_entry;",
            ),
            (
                "tap strides of the modulation transposed",
                "step.m * from.d_m + n * from.d_n",
                "step.m * from.d_n + n * from.d_m",
            ),
            ("weights read beyond the outputs", "o < outputs ? widen(w[", "o <= outputs ? widen(w["),
            (
                "outputs not counted from the block's first",
                "w_output, outputs - o0);",
                "w_output, outputs);",
            ),
            (
                "weights of the first step for all steps",
                "o = e % BO, k = step.k0 + e / BO,",
                "o = e % BO, k = e / BO,",
            ),
            ("one block of outputs too many", "(outputs - 1) / BO + 1", "outputs / BO + 1"),
            ("one block of pixels too many", "(height * width - 1) / BP + 1", "height * width / BP + 1"),
            ("group of the outputs forgotten", "(long long)group * outputs + o0", "o0"),
            ("sample of the input forgotten", "x + x_base + sample * x_sample,", "x + x_base,"),
            ("base of the modulation forgotten", "d + d_base + sample", "d + sample"),
            (
                "pixels of a thread side by side when written",
                "p0 + column_of<A, ACROSS>(across, q)",
                "p0 + across * MICRO + q",
            ),
            ("steps as deep as the block beyond the last tap", "min(DEPTH, kw * channels - k0)", "DEPTH"),
            ("one pixel beyond the image is written", "if (p >= height * width)", "if (p > height * width)"),
            ("outputs of the next group are written", "if (o0 + o < outputs)", "if (o < outputs)"),
            (
                "totals rounded to the array's dtype after each row",
                "close_sums(totals, sums);",
                "close_sums(totals, sums); for (auto& row : totals) "
                "for (A& t : row) t = widen(Narrow<T>::from(t));",
            ),
        ],
    ),
    (
        "kernels/product.cuh",
        MODULATED_ON_GPU,
        [
            (
                "rows of taps counted again",
                "add(totals[r][q], sums[r][q]);\n  clear_sums(sums);",
                "add(totals[r][q], sums[r][q]);",
            ),
            (
                "pixels of a thread side by side when read",
                "&right[k][column_of<A, ACROSS>(across, q)]",
                "&right[k][across * MICRO + q]",
            ),
            (
                "only one row of a tile is read",
                "copy_run<MICRO>(rows, &left[k]",
                "copy_run<MICRO>(rows, &left[0]",
            ),
        ],
    ),
    (
        "kernels/back_projection.cuh",
        MODULATED_GRADIENTS_ON_GPU,
        [
            (
                "no barrier before the tiles are overwritten",
                "if (o > 0) __syncthreads();  // the previous step is read",
                "",
            ),
            ("no barrier after the tiles are loaded", "g_output);\n    __syncthreads();", "g_output);"),
            (
                "outputs of the first step for all steps",
                "widen(first[c][(o + k) * step])",
                "widen(first[c][k * step])",
            ),
            ("steps as deep as the tile beyond the last output", "min(DEPTH<A>, outputs - o)", "DEPTH<A>"),
            ("weights are not conjugated", "w.template load<true>", "w.template load<false>"),
            ("gradient is conjugated", "g.template load<false>", "g.template load<true>"),
        ],
    ),
    (
        "kernels/window.cuh",
        MODULATED_GRADIENTS_ON_GPU,
        [
            ("-1 among the rows is not checked", "h < 0 || w < 0 ?", "w < 0 ?"),
            ("-1 among the columns is not checked", "h < 0 || w < 0 ?", "h < 0 ?"),
        ],
    ),
    (
        "kernels/modulated_weights_gradient.cu",
        MODULATED_GRADIENTS_ON_GPU,
        [
            (
                "no barrier before the patches are overwritten",
                "__syncthreads();  // the table is complete, the previous step is read",
                "",
            ),
            ("no barrier after the patches are made", "    });\n    __syncthreads();", "    });"),
            (
                "no barrier between the sums of two sets",
                "__syncthreads();  // the previous values are read",
                "",
            ),
            ("patches are not conjugated", "conjugate(multiply(factor,", "(multiply(factor,"),
            (
                "cval is not modulated",
                "conjugate(multiply(factor, x == nullptr ? cval : widen(x[row.x])))",
                "x == nullptr ? conjugate(cval) : conjugate(multiply(factor, widen(x[row.x])))",
            ),
            (
                "pixel of the first row for all rows of a run",
                "row.down != last.down || row.across != last.across)",
                "false)",
            ),
            ("factor of the first row for all rows of a run", "v == 0 || row.d != last.d", "v == 0"),
            ("outputs of the next group are read", "v < outputs ? widen(g", "v <= outputs ? widen(g"),
            (
                "outputs of the next group are written",
                "if (o < outputs && row < all_rows)",
                "if (row < all_rows)",
            ),
            ("rows beyond the last are written", "if (o < outputs && row < all_rows)", "if (o < outputs)"),
            ("sums of the last set are lost", "other < SHARES; ++other", "other < SHARES - 1; ++other"),
            (
                "sums of one launch replace those of another",
                "to[row] = add(to[row], totals[r][q])",
                "to[row] = totals[r][q]",
            ),
            ("long sums are formed at once", "if (steps % STEPS_PER_SUM == 0) close_sums(totals, sums);", ""),
            (
                "splits rounded down",
                "((pixels - 1) / (splits * STEP) + 1) * STEP",
                "max(1, (pixels - 1) / (splits * STEP)) * STEP",
            ),
        ],
    ),
    (
        "kernels/modulated_modulation_gradient.cu",
        MODULATED_GRADIENTS_ON_GPU,
        [
            ("no barrier after the tables are made", "__syncthreads();  // the tables are complete", ""),
            ("no barrier before the next channels", "__syncthreads();  // the last step is read", ""),
            (
                "no barrier before lanes are added up",
                "if (lanes <= MICRO) return;\n  __syncthreads();",
                "if (lanes <= MICRO) return;",
            ),
            ("pixels are not conjugated", "multiply_add(conjugate(pixel),", "multiply_add(pixel,"),
            (
                "pixel of the first row for all rows of a thread",
                "if (r == 0 || row.down != last.down || row.across != last.across)",
                "if (r == 0)",
            ),
            ("channels of the next entry are added", "if (row.lane < limit) {", "{"),
            ("lanes of one thread only", "if (lanes <= MICRO) return;", "return;"),
            ("pairs of lanes are not added", "if (lanes > 1) totals[2][q]", "if (lanes > 2) totals[2][q]"),
            (
                "slots of the next block are written",
                "          at == slot && row / slots.lanes < slots.at_once};",
                "          at == slot};",
            ),
            (
                "last slot is written again",
                "          at == slot && row / slots.lanes < slots.at_once};",
                "          row / slots.lanes < slots.at_once};",
            ),
            (
                "groups after the first of an entry are lost",
                "group * channels < first_channel + channels_per_entry; ++group",
                "group == first_channel / channels; ++group",
            ),
            (
                "channels of a group counted from the image's first",
                "(c - group * channels) * w_channel",
                "c * w_channel",
            ),
            ("last sample of a split is lost", "(split + 1) * each); ++b", "(split + 1) * each - 1); ++b"),
            ("splits rounded down", "(shared - 1) / splits + 1", "max(1, (shared - 1) / splits)"),
            (
                "sums of one launch replace those of another",
                "add_to ? add(*to, totals[r][q]) : totals[r][q]",
                "totals[r][q]",
            ),
            ("pixels beyond the last are written", "if (place.i >= 0) *to", "*to"),
        ],
    ),
    (
        "kernels/tensor.cuh",
        TENSOR,
        [
            (
                "no barrier between steps",
                "__syncthreads();  // this step's lines are complete, the previous step is read",
                "",
            ),
            ("a step whose copies have not landed", "MATRIX_STAGES - 2>();", "MATRIX_STAGES - 1>();"),
            ("rows of the matrix beyond the last", "row < rows && k < passes", "k < passes"),
            ("taps in their order, whatever is asked for", "order[k / padded].tap - k / padded", "0"),
            ("padding becomes 0·inf", "if (tails >> q & 1) clear_after", "if (false) clear_after"),
            (
                "parts of a chunk are whole",
                "source.values == nullptr || count < CHUNK<T>",
                "source.values == nullptr",
            ),
            (
                "the factor of the first channel for all",
                "channels.entry_step == 0 ? 0 : (channels",
                "true ? 0 : (channels",
            ),
            (
                "pixels without readers are cval",
                "source.factors == nullptr ? Narrow<T>::from(0) : channels",
                "channels",
            ),
            ("the matrix is cut off to TF32", "to_tf32(__uint_as_float(words[r]))", "words[r]"),
            ("the second half of a line is the first", "line.store(next, chunk,", "line.store(next, 0,"),
            ("outputs beyond the last are written", "if (at < rows) use(", "use("),
            (
                "no barrier before rows are written over",
                "if (f > 0) __syncthreads();  // the previous rows are used",
                "",
            ),
        ],
    ),
    (
        "kernels/modulated_weights_gradient_tensor.cu",
        TENSOR,
        [
            ("pixels beyond the last", "pixel.inside && o < outputs ?", "o < outputs ?"),
            (
                "the factor of another entry",
                "v > 0 && row.d == last.d ? factors[v - 1]",
                "v > 0 ? factors[v - 1]",
            ),
            ("one part of a long sum", "      sums = {};\n", ""),
        ],
    ),
    (
        "cuvarconv/_gpu/_paths.py",
        TENSOR,
        [
            (
                "TF32 whether allowed or not",
                'p.dtype.name == "float32" and tf32_allowed()',
                'p.dtype.name == "float32"',
            ),
            ("older devices too", ">= TENSOR_CAPABILITY", ">= 0"),
            (
                "too little shared memory",
                "_MATRIX_STAGES, _PATCH_STAGES = 3, 2",
                "_MATRIX_STAGES, _PATCH_STAGES = 2, 2",
            ),
        ],
    ),
    (
        "kernels/patch_rows.cuh",
        MODULATED_GRADIENTS_ON_GPU,
        [
            ("sample counted from the rows", "at / (height * width)", "at / width"),
            ("one pixel too many in a split", "at < last}", "at <= last}"),
            (
                "channels of the first group for all groups",
                "channel = first_channel + row - tap * channels",
                "channel = row - tap * channels",
            ),
        ],
    ),
    (
        "kernels/readers.cuh",
        MODULATED_GRADIENTS_ON_GPU,
        [
            (
                "ranks of rows and columns swapped",
                "down.first[rank / across.count], across.first[rank % across.count]",
                "down.first[rank % down.count], across.first[rank % across.count]",
            ),
            ("outputs beyond the last rank", "if (rank >= down.count * across.count) return {-1, 0};", ""),
            ("rows of pixels beyond the image", "h < grid.height && w < grid.width", "w < grid.width"),
            ("columns of pixels beyond the image", "h < grid.height && w < grid.width", "h < grid.height"),
            (
                "pixels of a class next to each other",
                "(row0 + p / grid.across) * grid.row_step",
                "(row0 + p / grid.across)",
            ),
        ],
    ),
    (
        "kernels/modulated_input_gradient.cu",
        MODULATED_GRADIENTS_ON_GPU,
        [
            (
                "no barrier before the places are overwritten",
                "__syncthreads();  // the pixels are complete, the last step and its places are read",
                "",
            ),
            (
                "a block goes on by its own pixels alone",
                "if (!__syncthreads_or(any)) break;",
                "__syncthreads();",
            ),
            ("only the first output that reads a pixel", "rank < most; ++rank", "rank < 1; ++rank"),
            ("factors are not conjugated", "conjugate(widen(first[q]", "(widen(first[q]"),
            (
                "factor of the first channel for all channels of a thread",
                "if (r == 0 || entries[r] != entries[r - 1])",
                "if (r == 0)",
            ),
            (
                "entries counted from the group's first",
                "(group * group_channels + first_channel +",
                "(first_channel +",
            ),
            (
                "entries counted from the first channel of a part",
                "(group * group_channels + first_channel +",
                "(group * group_channels +",
            ),
            ("channels beyond the last are written", "if (c0 + row_of(down, r) < channels) to[", "to["),
            (
                "weights beyond the last channel are read",
                "c0 + c < channels ? tap_w",
                "c0 + c <= channels ? tap_w",
            ),
        ],
    ),
    (
        "cuvarconv/_gpu/modulated_input_gradient.py",
        MODULATED_GRADIENTS_ON_GPU,
        [
            (
                "most outputs along one axis only",
                "_most_outputs(piece.rows) * _most_outputs(piece.columns)",
                "_most_outputs(piece.rows)",
            ),
            ("strides ignored", "(s if n >= 4 * s else 1 for", "(1 for"),
            (
                "channels of the first part for all parts",
                "*sizes(groups, first_channel, some, of_group)",
                "*sizes(groups, 0, some, of_group)",
            ),
            (
                "channels per entry from one group's channels",
                "groups * of_group // piece.kernels.shape[-3]",
                "of_group // piece.kernels.shape[-3]",
            ),
        ],
    ),
    (
        "cuvarconv/_gpu/modulated_gradient.py",
        MODULATED_GRADIENTS_ON_GPU,
        [
            (
                "part of the outputs forgotten",
                "batch.bases[2] + first_output * g[-3], samples",
                "batch.bases[2], samples",
            ),
            (
                "all outputs counted in each group",
                "*sizes(outputs, piece.output.shape[-3] // groups,",
                "*sizes(outputs, piece.output.shape[-3],",
            ),
            ("taps of the modulation not cut", "kernels=call.kernels[tuple(taps)]", "kernels=call.kernels"),
            (
                "as many splits as blocks fit",
                "// _weights_blocks(sums, tile), -(-pixels // _FEWEST_PIXELS), held",
                ", -(-pixels // _FEWEST_PIXELS), held",
            ),
            (
                "one split for small weights",
                "return max(1, min(_ENOUGH_BLOCKS // _weights_blocks",
                "return min(1, min(_ENOUGH_BLOCKS // _weights_blocks",
            ),
            (
                "one split for small images",
                "return max(1, min(_ENOUGH_BLOCKS // (own",
                "return min(1, min(_ENOUGH_BLOCKS // (own",
            ),
            ("entries of a group not counted", "(groups, entries // groups) if", "(groups, 1) if"),
            (
                "entries that reach across groups taken for a family",
                "if entries % groups == 0 else",
                "if entries >= groups else",
            ),
            ("lanes beyond a group", "min(channels // groups, channels // entries)", "channels // entries"),
            (
                "later samples replace earlier ones",
                "and len(parts) == 1 and len(shared) < 2",
                "and len(parts) == 1",
            ),
            (
                "later outputs replace earlier ones",
                "and len(parts) == 1 and len(shared) < 2",
                "and len(shared) < 2",
            ),
            ("sums start from what the result held", "            sums[...] = 0\n", "            pass\n"),
            (
                "sums over pixels of one block only",
                "total = values if total is None else total + values",
                "total = values",
            ),
            ("first of the splits alone", "if splits > 1 or over else sums[0]", "if over else sums[0]"),
            (
                "modulation of the first outputs for a part",
                "batch.bases[2] + first_output * g[-3]\n        layout",
                "batch.bases[2]\n        layout",
            ),
            (
                "samples of other pixels' sums",
                "matching(sums, (*where[:batch], slice(None), *where[batch:]))",
                "matching(sums, (*where[:batch], slice(None), slice(None), slice(None)))",
            ),
            ("weights converted whole", "_REPACKED * length // (weights.size * dtype.itemsize)", "length"),
        ],
    ),
    (
        "cuvarconv/_gpu/correlate.py",
        CORRELATE_ON_GPU,
        [
            (
                "kh and kw swapped",
                "*sizes(window.rows.taps, window.columns.taps, *window",
                "*sizes(window.columns.taps, window.rows.taps, *window",
            ),
            (
                "a float32 instead of a float64",
                "np.float64(window.cval.imag)",
                "np.float32(window.cval.imag)",
            ),
            (
                "steps of the kernel's taps left out of in_runs",
                "in_runs(piece.kernels, k, tile.vector)",
                "in_runs(piece.kernels, k[-2:], tile.vector)",
            ),
            (
                "shared memory counted in items of the array",
                "number = accumulator_dtype(dtype)\n",
                "number = dtype\n",
            ),
            (
                "planes over blocks rounded down",
                "blocks = tile.tiles(window) * -(-planes // per_block) * groups",
                "blocks = tile.tiles(window) * max(1, planes // per_block) * groups",
            ),
            (
                "one group in the grid",
                "blocks = tile.tiles(window) * -(-planes // per_block) * groups",
                "blocks = tile.tiles(window) * -(-planes // per_block)",
            ),
            (
                "vectors across the end of a row of pixels",
                "np.int32(whole and in_runs(piece.image",
                "np.int32(in_runs(piece.image",
            ),
            ("shared and own batch axes swapped", "launches([own, shared],", "launches([shared, own],"),
        ],
    ),
    (
        "cuvarconv/_gpu/_tiles.py",
        CORRELATE_ON_GPU,
        [
            (
                "an int instead of an int32",
                "np.int32(not self.columns_by_tap)",
                "int(not self.columns_by_tap)",
            ),
            (
                "shared memory for one plane only",
                "held = planes * number",
                "held = number",
            ),
            ("rows over blocks rounded down", "-(-height // down)", "max(1, height // down)"),
            ("columns over blocks rounded down", "-(-width // across)", "max(1, width // across)"),
            ("twice the kernel's threads", "THREADS = 128  # per block", "THREADS = 256"),
            ("column class one word short", "pitch = -(-columns // vector)", "pitch = columns // vector"),
            (
                "several taps in a tile of a table by tap",
                "columns = 1 if columns_by_tap else window.columns.taps",
                "columns = window.columns.taps",
            ),
            (
                "tables by tap sized as dense ones",
                "    if by_tap:\n        return outputs\n",
                "",
            ),
        ],
    ),
    (
        "cuvarconv/_gpu/modulated.py",
        MODULATED_ON_GPU,
        [
            ("window of the weights transposed", ".transpose(2, 3, 1, 0)", ".transpose(3, 2, 1, 0)"),
            (
                "channels per entry from one group's channels",
                "channels // entries)",
                "matrix.shape[2] // entries)",
            ),
            (
                "all outputs counted in each group",
                "*sizes(matrix.shape[3] // groups,",
                "*sizes(matrix.shape[3],",
            ),
            (
                "no blocks for further groups",
                " * -(-height * width // kernel.tile[1]) * groups",
                " * -(-height * width // kernel.tile[1])",
            ),
            (
                "pixels over blocks rounded down",
                "-(-height * width // kernel.tile[1])",
                "max(1, height * width // kernel.tile[1])",
            ),
            ("half of the threads", "_PER_THREAD = 16", "_PER_THREAD = 32"),
            (
                "sample stride of the input for the output",
                "samples.strides[2], *y[-3:]",
                "samples.strides[0], *y[-3:]",
            ),
            (
                "row and column tables swapped",
                "*(rows, *row_steps, columns, *column_steps),",
                "*(columns, *column_steps, rows, *row_steps),",
            ),
        ],
    ),
    (
        "cuvarconv/_gpu/_geometry.py",
        ON_GPU,
        [
            (
                "axes of length 1 keep their stride",
                "0 if length == 1 else stride // array.itemsize",
                "stride // array.itemsize",
            ),
            (
                "vectors at misaligned addresses",
                "return last == 1 and aligned and all(",
                "return last == 1 and all(",
            ),
            (
                "vectors across strides that are not whole vectors",
                " and all(step % count == 0 for step in others)",
                "",
            ),
            ("vectors along strided rows", "return last == 1 and aligned", "return aligned"),
            (
                "axes joined by the input's strides alone",
                "result[-1].strides == tuple(axis.length * stride for stride in axis.strides)",
                "result[-1].strides[0] == axis.length * axis.strides[0]",
            ),
            (
                "joined axes keep the outer strides",
                "BatchAxis(outer.length * axis.length, axis.strides)",
                "BatchAxis(outer.length * axis.length, outer.strides)",
            ),
            (
                "axes joined in the wrong order: a launch per sample",
                "for stride in axis.strides], reverse=True):",
                "for stride in axis.strides]):",
            ),
            (
                "axes outside a launch do not move it",
                "walked = [*zip(outside, index, strict=True), *zip(inside, starts, strict=True)]",
                "walked = [*zip(inside, starts, strict=True)]",
            ),
            (
                "later launches take as much as the first",
                "BatchAxis(min(axis.length - start, limit), axis.strides)",
                "BatchAxis(min(axis.length, limit), axis.strides)",
            ),
            ("by-tap layout ignored", "table = axis.table(by_tap=by_tap)", "table = axis.table()"),
            (
                "stride and dilation of a table swapped",
                "table.stride, table.dilation)",
                "table.dilation, table.stride)",
            ),
        ],
    ),
    (
        "cuvarconv/_gpu/_pieces.py",
        ON_GPU,
        [
            ("blocks read the first one's window", "self.window.part(*where[batch:]),", "self.window,"),
            (
                "blocks read the first one's samples",
                "image=self.image[where[:batch]],\n"
                "            kernels=self.kernels[(slice(None), slice(None), *theirs[:batch]",
                "image=self.image,\n"
                "            kernels=self.kernels[(slice(None), slice(None), *theirs[:batch]",
            ),
            (
                "of long axes the first part alone",
                "for at in range(0, n, run)",
                "for at in range(0, min(n, run), run)",
            ),
            (
                "kernels are not converted",
                "piece, kernels=piece.kernels.astype(dtype, copy=False)",
                "piece, kernels=piece.kernels",
            ),
            ("converted images keep 0 outside", "if outside.size:", "if False:"),
            ("cval fills columns for rows", "if axis == -2 else", "if axis == -1 else"),
            ("integers stored without the way through int64", "values = values.astype(np.int64)", "pass"),
            ("bool stored as the lowest bit", "values = values != 0", "values = values.astype(np.int64) & 1"),
            (
                "converted image keeps the old window",
                "piece = replace(self, image=image, window=gathered_window(self.window))",
                "piece = replace(self, image=image)",
            ),
            ("workspace without a limit", "while elements > 1 and not fits", "while False and not fits"),
        ],
    ),
    (
        "cuvarconv/_gpu/_kept.py",
        (*ON_GPU, *("tests/test_replay.py",)),
        [
            (
                "tables kept without their layout",
                "found = self.find(make, *what)",
                "found = self.find(make, what[0])",
            ),
            ("what is kept is never dropped", "if self._bytes > self._MOST:", "if False:"),
        ],
    ),
    (
        "cuvarconv/_gpu/_replay.py",
        ("tests/test_replay.py",),
        [
            ("alignment is no part of the geometry", "pointer % _ALIGNMENT, same", "0, same"),
            ("strides are no part of the geometry", "operand.strides, operand.dtype", "operand.dtype"),
            ("one array is not told from two", "pointer % _ALIGNMENT, same", "pointer % _ALIGNMENT, 0"),
            ("plans keep the arrays", "launch.without([place for place, _ in found])", "launch"),
            (
                "a plan without the arrays that it lacks",
                "any(operand is None for _, operand in found)",
                "False",
            ),
            ("nothing is replayed", "elif plan:", "elif False:"),
        ],
    ),
    (
        "cuvarconv/_gpu/_launch.py",
        ON_GPU,
        [
            (
                "more shared memory than asked for",
                "most_shared_memory() - kernel.shared_size_bytes\n",
                "(48 << 10) - kernel.shared_size_bytes\n",
            ),
            (
                "grid and block swapped",
                "kernel((self.blocks,), (self.threads,), arguments",
                "kernel((self.threads,), (self.blocks,), arguments",
            ),
        ],
    ),
    (
        "cuvarconv/_axis.py",
        WINDOW,
        [
            (
                "reflect repeats no edge",
                "np.minimum(folded, 2 * size - 1 - folded)",
                "np.minimum(folded, 2 * size - 2 - folded)",
            ),
            (
                "reflect has mirror's period",
                "folded = positions % (2 * size)",
                "folded = positions % max(1, 2 * size - 2)",
            ),
            ("mirror repeats the edge", "period = max(1, 2 * size - 2)", "period = max(1, 2 * size - 1)"),
            ("mirror divides by 0 on one pixel", "period = max(1, 2 * size - 2)", "period = 2 * size - 2"),
            (
                "wrap goes round once",
                "return positions % size",
                "return np.clip(np.where(positions < 0, positions + size, positions % size), 0, None)",
            ),
            ("nearest one pixel too far", "np.clip(positions, 0, size - 1)", "np.clip(positions, 0, size)"),
            (
                "constant one pixel late",
                "(positions >= 0) & (positions < size)",
                "(positions >= 0) & (positions <= size)",
            ),
            (
                "position 0 is outside",
                "(positions >= 0) & (positions < size)",
                "(positions > 0) & (positions < size)",
            ),
            (
                "tables by tap: step of the taps",
                "stride, dilation, first, last = 1, axis.length, 0, 0",
                "stride, dilation, first, last = 1, axis.taps, 0, 0",
            ),
            (
                "tables by tap: outputs not strided",
                "outputs = np.arange(axis.length, dtype=np.int64) * axis.stride",
                "outputs = np.arange(axis.length, dtype=np.int64)",
            ),
            (
                "run inside the image too long",
                "min(axis.span, axis.size - axis.start))",
                "min(axis.span, axis.size))",
            ),
            (
                "run inside the image starts early",
                "first = min(max(0, -axis.start), axis.span)",
                "first = min(max(0, -axis.start - 1), axis.span)",
            ),
            (
                "parts: first output not strided",
                "axis.start + first * axis.stride + tap",
                "axis.start + first + tap",
            ),
            ("parts: first tap not dilated", "tap * axis.dilation\n", "tap\n"),
        ],
    ),
    (
        "cuvarconv/_window.py",
        WINDOW,
        [
            (
                "even windows centred left",
                "start = -(taps // 2 + origin) * dilation",
                "start = -((taps - 1) // 2 + origin) * dilation",
            ),
            (
                "origin to the other side",
                "start = -(taps // 2 + origin) * dilation",
                "start = -(taps // 2 - origin) * dilation",
            ),
            (
                "origin not dilated",
                "start = -(taps // 2 + origin) * dilation",
                "start = -(taps // 2) * dilation - origin",
            ),
            (
                "convolve's origin not moved for even sizes",
                "origin = -origin - (taps % 2 == 0)",
                "origin = -origin",
            ),
            (
                "one origin too many is legal",
                "lowest, highest = -(taps // 2), (taps - 1) // 2",
                "lowest, highest = -(taps // 2), taps // 2",
            ),
            (
                "last output lost under stride",
                "length = -(-size // stride)",
                "length = max(1, size // stride)",
            ),
            (
                "valid: one output too many",
                "length = (size - (taps - 1) * dilation - 1) // stride + 1",
                "length = (size - (taps - 1) * dilation) // stride + 1",
            ),
            (
                "valid: dilation ignored",
                "length = (size - (taps - 1) * dilation - 1) // stride + 1",
                "length = (size - taps) // stride + 1",
            ),
        ],
    ),
    (
        "cuvarconv/_arguments.py",
        WINDOW,
        [
            (
                "modes of rows and columns swapped",
                "return _MODES[pair[0]], _MODES[pair[1]]",
                "return _MODES[pair[1]], _MODES[pair[0]]",
            ),
        ],
    ),
    (
        "cuvarconv/_blocks.py",
        ON_HOST,
        [
            (
                "last block lost",
                "for at in range(0, length, step)])",
                "for at in range(0, length - length % step, step)])",
            ),
            (
                "kernels of the first block for all",
                "slice(None) if length == 1 else part for",
                "slice(None) if length == 1 else slice(0, part.stop - part.start) for",
            ),
            (
                "last chunk of taps lost",
                "for m in range(0, window.rows.taps, rows):",
                "for m in range(0, max(1, window.rows.taps - window.rows.taps % rows), rows):",
            ),
            (
                "chunks of columns not moved",
                "slice(n, min(n + columns, window.columns.taps)),",
                "slice(0, min(columns, window.columns.taps - n)),",
            ),
            (
                "chunks of taps as large as the window",
                "while planes * _pixels(run, apart) > elements or",
                "while planes * _pixels(run, apart) > elements << 20 or",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_tiles.py",
        ON_HOST,
        [
            ("right halo missing", ", slice(columns.last, None)]", "]"),
            ("upper halo missing", "slice(0, rows.first), slice(rows.last, None)", "slice(rows.last, None),"),
            ("cval on rows only", "if columns.outside:", "if columns.outside and rows.outside:"),
            (
                "integers stored without the way through int64",
                "values[here].astype(np.int64)",
                "values[here]",
            ),
            ("bool stored as the lowest bit", "values[here] != 0", "values[here].astype(np.int64) & 1"),
            (
                "integers of the first piece only",
                "blocks(target.shape, _TOGETHER)",
                "blocks(target.shape, _TOGETHER)[:1]",
            ),
            ("stride and dilation of rows swapped", "down * rows.dilation,", "down * rows.stride,"),
            ("step of rows for columns", "across * columns.stride,", "across * rows.stride,"),
        ],
    ),
    (
        "cuvarconv/_cpu/correlate.py",
        ON_HOST,
        [
            ("half precision summed in half", "    dtype = accumulator_dtype(dtype)\n", ""),
            (
                "blocks read the first one's window",
                "window.part(down, across), 2 * most, dtype, conjugate",
                "window, 2 * most, dtype, conjugate",
            ),
            (
                "later rows of taps replace the sum",
                "np.add(total, row_sum, out=total)",
                "total[...] = row_sum",
            ),
            (
                "the start of a row added again with its end",
                "if column_taps.stop == columns:",
                "if True:",
            ),
            (
                "taps of a chunk from the first",
                "zip(pixels, weights[row_taps, column_taps], strict=True)",
                "zip(pixels, weights[: len(pixels), : len(pixels[0])], strict=True)",
            ),
            ("kernels never conjugated", "return taps.conj() if conjugate else taps", "return taps"),
            (
                "small calls sum columns only",
                "add_in_order(add_in_order(products, axis=1), axis=0)",
                "add_in_order(products, axis=1)[0]",
            ),
            (
                "taps of weight 0 are skipped",
                "            np.add(total, product, out=total)",
                "            np.add(total, product, out=total, where=np.broadcast_to(tap != 0, total.shape))",
            ),
            (
                "workspace grows with the workers",
                "return max(1, WORKSPACE // (_ARRAYS * most * dtype.itemsize + 5 * 8 * entries))",
                "return 1 << 20",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/modulated.py",
        ON_HOST,
        [
            (
                "weights of the first taps for all slabs",
                "matrices[(slice(None), slice(None), *slab.taps)]",
                "matrices[:, :, : slab.pixels.shape[1], : slab.pixels.shape[2]]",
            ),
            (
                "later rows of taps replace the sum",
                "product.reshape(total.shape), slab.has_first_taps",
                "product.reshape(total.shape), True",
            ),
            (
                "products of the first outputs for all",
                "rows, total = matrix[:, first : first + at_once],",
                "rows, total = matrix[:, : min(at_once, outputs - first)],",
            ),
            ("half precision summed in half", "    dtype = accumulator_dtype(dtype)\n", ""),
            (
                "BLAS threads beside the workers'",
                "    with serial_blas:\n        for_each",
                "    if True:\n        for_each",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_columns.py",
        ON_HOST,
        [
            (
                "blocks larger than planned for are not counted",
                "_workers(largest * _per_pixel(window, channels, outputs), dtype, weights)",
                "_workers(0, dtype, weights)",
            ),
            (
                "products written to a copy",
                "            return None\n        pixels *= length",
                "            pass\n        pixels *= length",
            ),
            (
                "straddling groups interleaved",
                "np.arange(parts) * entries // parts",
                "np.arange(parts) % entries",
            ),
            (
                "modulation of the first taps for all slabs",
                "modulation[(*slab.taps, *matching",
                "modulation[(*(slice(part.stop - part.start) for part in slab.taps), *matching",
            ),
            (
                "modulation of the first pixels for all slabs",
                "(*batch, slice(None), down, across)))]",
                "(*batch, slice(None), slice(down.stop - down.start), across)))]",
            ),
            (
                "pixels of the first slab for all",
                "every, every, *where)]",
                "every, every, *(slice(part.stop - part.start) for part in where))]",
            ),
            (
                "groups of outputs and channels mixed",
                "by_tap = by_group.transpose(0, 1, 3, 4, 2)",
                "by_tap = by_group.transpose(0, 1, 2, 3, 4).reshape(groups, -1, height, width, channels)",
            ),
            ("rows of taps without their dilation", "(pitch * rows.dilation, *outer", "(pitch, *outer"),
            ("rows of outputs without their stride", "pitch * rows.stride, step)", "pitch, step)"),
            (
                "few outputs, the first for all",
                "rows = matrix[:, some]",
                "rows = matrix[:, some if outputs > _FEW else slice(1)]",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_modulated_adjoint.py",
        (
            "tests/test_gradients.py",
            "tests/test_blocks.py",
            "-k",
            "modulated and numpy or gradients_in_blocks",
        ),
        [
            (
                "d that differs by channel taken as shared",
                "self.modulation.shape[-3] in (1, len(self.matrices))",
                "True",
            ),
            ("strided rows taken as neighbours", "shared and window.rows.stride == 1", "shared"),
            (
                "taps that reach a part of the entries are left out",
                "itertools.pairwise(sorted(ends))",
                "itertools.pairwise([min(ends), max(ends)])",
            ),
            (
                "outputs of the first slab for all",
                "firsts = [down.outputs.start + entries.start - down.entries.start for",
                "firsts = [down.outputs.start for",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/_workers.py",
        THREADS,
        [
            ("one worker too many", "min(get_workers(), jobs) - 1 if", "min(get_workers(), jobs) if"),
            (
                "BLAS stays at one thread",
                "                _set_threads(self._threads)",
                "                pass",
            ),
            (
                "the first call to leave ends the BLAS limit",
                "            self._inside -= 1\n            if self._inside == 0:",
                "            self._inside -= 1\n            if True:",
            ),
            (
                "workers write after an exception",
                "leave no thread behind that still writes\n        crew.finish()",
                "leave no thread behind that still writes",
            ),
            (
                "errors of other threads are lost",
                "    if crew.errors:\n        raise crew.errors.pop(0)\n",
                "",
            ),
            (
                "the result is returned before all is written",
                "        crew.work()\n        crew.finish()",
                "        crew.work()",
            ),
            ("the number of workers outlives its block", "        _requested.reset(token)", "        pass"),
            (
                "child processes inherit the BLAS limit",
                "            os.register_at_fork(after_in_child=self._leave)",
                "            pass",
            ),
            (
                "child processes inherit the pool",
                "            os.register_at_fork(after_in_child=self._forget)",
                "            pass",
            ),
            (
                "others go on after an exception",
                "            self.errors.append(error)\n            self._closed = True",
                "            self.errors.append(error)",
            ),
        ],
    ),
    (
        "cuvarconv/_backend.py",
        DISPATCH,
        [
            (
                "overlap of output and operands not checked",
                "if odd or any(backend.may_share_memory(output, operand) for operand in self.operands):",
                "if False:",
            ),
            (
                "overlap checked for the first operand only",
                "for operand in self.operands):\n            return self.fresh",
                "for operand in self.operands[:1]):\n            return self.fresh",
            ),
            (
                "an overlapping output is not written back",
                "                self.output[...] = result\n",
                "                pass\n",
            ),
            (
                "tensors that require grad are taken",
                'if getattr(array, "requires_grad", False) is True:',
                "if False:",
            ),
            (
                "libraries are compared without their devices",
                "if home != common:",
                "if home.library != common.library:",
            ),
            (
                "the shape of output is not checked",
                "if output.shape != shape:",
                "if output.ndim != len(shape):",
            ),
            (
                "output=dtype is ignored",
                "dtype = requested_dtype(self.given, tuple(operand.dtype for operand in self.operands))",
                "dtype = default",
            ),
            (
                "pending conjugation is ignored",
                'for method in ("resolve_conj", "resolve_neg"):',
                'for method in ("resolve_neg",):',
            ),
            ("masks are ignored", "if isinstance(array, np.ma.MaskedArray):", "if False:"),
            (
                "results of torch calls come back as NumPy arrays",
                'if self.home.library in ("numpy", "cupy"):',
                'if self.home.library in ("numpy", "cupy", "torch"):',
            ),
        ],
    ),
    (
        "cuvarconv/_dtypes.py",
        DISPATCH,
        [
            (
                "sums for integer outputs in single precision",
                "if is_exact(dtype) or is_exact(output):",
                "if is_exact(dtype):",
            ),
            (
                "complex kernels on real images give real results",
                'if "c" in (input.kind, weights.kind):',
                'if "c" in (input.kind,):',
            ),
            (
                "bfloat16 summed in bfloat16",
                "if computing.itemsize == 2 else computing",
                "if computing == np.float16 else computing",
            ),
            (
                "real output of complex operands is taken",
                'if (dtype.kind == "c") != (kind == "complex"):',
                'if (dtype.kind == "c") and (kind == "real"):',
            ),
        ],
    ),
    (
        "cuvarconv/_correlate.py",
        DISPATCH,
        [
            (
                "dtypes of input and weights swapped",
                "filter_dtype(images.dtype, kernels.dtype)",
                "filter_dtype(kernels.dtype, images.dtype)",
            ),
            ("convolve conjugates", 'kernels.dtype.kind == "c" and not flip', 'kernels.dtype.kind == "c"'),
            (
                "convolve flips columns only",
                "kernels_last[::-1, ::-1] if flip",
                "kernels_last[:, ::-1] if flip",
            ),
        ],
    ),
    (
        "cuvarconv/_shapes.py",
        DISPATCH,
        [
            (
                "image axes sorted",
                "return (*(axis for axis in range(ndim) if axis not in image), *image)",
                "return (*(axis for axis in range(ndim) if axis not in image), *sorted(image))",
            ),
            (
                "kernels keep their own order of axes",
                "return view.transpose(0, 1, *[2 + axis for axis in order])",
                "return view",
            ),
            (
                "any length along the channels is taken",
                "length and shape[axis] % length == 0",
                "bool(length)",
            ),
            (
                "lengths of the image axes swapped",
                "dict(zip(order[-2:], image, strict=True))",
                "dict(zip(order[:-3:-1], image, strict=True))",
            ),
        ],
    ),
    (
        "cuvarconv/_chunks.py",
        DASK,
        [
            (
                "a run goes on where the pixels turn",
                "if owners[at] != owners[at - 1] or cuts[-1] != at - 1:",
                "if owners[at] != owners[at - 1]:",
            ),
            ("a run to the left stops before pixel 0", "stop if stop >= 0 else None", "max(stop, 0)"),
            ("the window starts in the image", "start=part.start - first", "start=part.start"),
            ("outputs are cut too early", "-(-cuts // axis.stride)", "cuts // axis.stride"),
        ],
    ),
    (
        "cuvarconv/_dask.py",
        DASK_CALLS,
        [
            (
                "sums across blocks are rounded block by block",
                "if not grid.is_scattered(target) and not grid.is_shared(target):",
                "if target.array.size:",
            ),
            ("levels of a tree share their keys", "level += 1", "level += 0"),
            ("names tell no windows apart", "result_pattern, window, keywords)", "result_pattern)"),
            ("unknown chunks get through", "if any(math.isnan(length) for", "if all(math.isnan(length) for"),
        ],
    ),
    (
        "cuvarconv/_grid.py",
        DASK_CALLS,
        [
            (
                "a kernel's own chunks lead",
                "if own else _found(operands",
                "if not own else _found(operands[::-1]",
            ),
        ],
    ),
    (
        "cuvarconv/_block_tasks.py",
        DASK_CALLS,
        [
            ("the last of several pixels counts", "piece.sum(axis=axis", "piece.max(axis=axis"),
            ("integers are rounded", "values = values.astype(np.int64)", "values = np.rint(values)"),
            (
                "an infinite part spoils the other",
                "joined.imag[...] = real, imaginary",
                "joined.imag[...] = (real + 1j * imaginary).real, imaginary",
            ),
            (
                "an edge is that of the other side",
                "return piece[at[0]][at[1]]",
                "return piece[at[0]][-1 - at[1]]",
            ),
        ],
    ),
    (
        "cuvarconv/_cpu/correlate.py",
        DASK_CALLS,
        [("taps are summed in pairs in narrow blocks", ', order="C")', ")")],
    ),
]


@dataclass(frozen=True)
class Bug:
    """A bug, by the text that it replaces in a file, and the tests that are to catch it."""

    number: int
    file: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...]

    def plant(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise SystemExit(
                f"bug {self.number}: {self.file} has {text.count(self.old)} times, not once:\n{self.old}"
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True)
class Outcome:
    """How a run of tests ended: the first failure, by test and reason, or why there is none."""

    caught: bool
    passed: bool
    test: str
    reason: str
    seconds: float


def all_bugs() -> list[Bug]:
    bugs = [(file, *bug, tests) for file, tests, listed in PLANTED for bug in listed]
    return [Bug(number, *bug) for number, bug in enumerate(bugs, start=1)]


def copy(source: Path, target: Path) -> None:
    target.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=ignore)
        else:
            shutil.copy2(source / name, target / name)


def environment(root: Path) -> dict[str, str]:
    """Import from a copy alone; keep what the emulator builds of broken kernels out of the user's cache."""
    return os.environ | {
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUVARCONV_EMULATOR_CACHE": str(root.parent / "emulator"),
    }


def check_import(root: Path) -> None:
    """Make sure that a copy is what its tests would test, and not an installed package."""
    code = "import cuvarconv; print(cuvarconv.__file__)"
    command = [sys.executable, "-c", code]
    process = subprocess.run(
        command, cwd=root, env=environment(root), capture_output=True, text=True, check=True
    )
    if not Path(process.stdout.strip()).is_relative_to(root):
        raise SystemExit(f"the tests would import {process.stdout.strip()}")


def run_tests(root: Path, tests: tuple[str, ...]) -> Outcome:
    report = root / "report.xml"
    options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options]
    start = time.monotonic()
    try:
        process = subprocess.run(
            [*command, *tests],
            cwd=root,
            env=environment(root),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(False, False, "", f"still running after {TIMEOUT} s", TIMEOUT)
    seconds = time.monotonic() - start
    if process.returncode == 0:
        return Outcome(False, True, "", "all tests pass", seconds)
    test, reason = first_failure(report) if process.returncode == 1 and report.exists() else ("", "")
    if not test and process.returncode < 0:
        test, reason = crash(process.stderr, -process.returncode)
    if not test:
        last = (process.stdout + process.stderr).strip().splitlines()[-1:]
        return Outcome(False, False, "", f"pytest ended with {process.returncode}: {' '.join(last)}", seconds)
    return Outcome("CompileException" not in reason, False, test, reason, seconds)


def first_failure(report: Path) -> tuple[str, str]:
    """Return the first failing test and its reason from pytest's XML report."""
    for case in ElementTree.parse(report).iter("testcase"):
        for kind in ("failure", "error"):
            found = case.find(kind)
            if found is not None:
                file = case.get("classname", "").replace(".", "/").removeprefix("tests/")
                reason = " ".join(found.get("message", "").split()).removeprefix("emulator.arguments.")
                return f"{file}.py::{case.get('name')}", reason
    return "", ""


def crash(traceback: str, number: int) -> tuple[str, str]:
    """Return the test that Python's fault handler names, and the signal."""
    inside = re.search(r'tests/(test_\w+\.py)", line \d+ in (test_\w+)', traceback)
    return (f"{inside[1]}::{inside[2]}", f"crash: {signal.strsignal(number)}") if inside else ("", "")


def short(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "…"


def try_bug(bug: Bug, clean: Path) -> Outcome:
    root = clean.parent / f"bug{bug.number}"
    copy(clean, root)
    try:
        bug.plant(root)
        return run_tests(root, bug.tests)
    finally:
        shutil.rmtree(root)


def control(bugs: list[Bug], clean: Path, jobs: int) -> bool:
    """Run the untouched copy through every selection of tests that the bugs meet."""
    selections = list(dict.fromkeys(bug.tests for bug in bugs))
    roots = [clean.parent / f"control{number}" for number in range(len(selections))]
    for root in roots:
        copy(clean, root)
    check_import(roots[0])
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(run_tests, roots, selections))
    for selection, outcome in zip(selections, outcomes, strict=True):
        line = "passes" if outcome.passed else f"FAILS: {outcome.test} {outcome.reason}"
        print(f"control, {outcome.seconds:5.1f} s: {' '.join(selection)}: {line}", flush=True)
    return all(outcome.passed for outcome in outcomes)


def try_all(bugs: list[Bug], clean: Path, jobs: int) -> dict[Bug, Outcome]:
    outcomes = {}
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(try_bug, bug, clean): bug for bug in bugs}
        for future in as_completed(running):
            bug, outcome = running[future], future.result()
            outcomes[bug] = outcome
            verdict = "caught" if outcome.caught else "MISSED"
            print(f"{len(outcomes):3d}/{len(bugs)} {verdict}, {outcome.seconds:5.1f} s: ", end="")
            print(
                f"{bug.number} {bug.file}: {bug.what}\n        {outcome.test} {short(outcome.reason)}",
                flush=True,
            )
    return {bug: outcomes[bug] for bug in bugs}


def markdown(outcomes: dict[Bug, Outcome]) -> str:
    caught = sum(outcome.caught for outcome in outcomes.values())
    lines = [
        "# Planted bugs",
        "",
        f"{caught} of {len(outcomes)} bugs, each planted alone, are caught; without a bug all tests pass. "
        "Made by `python tests/plant_bugs.py --write FILE`; the seconds include building the kernels.",
        "",
        "| # | file | bug | caught by | reason | s |",
        "| ---: | --- | --- | --- | --- | ---: |",
    ]
    for bug, outcome in outcomes.items():
        test = f"`{outcome.test}`" if outcome.caught else "**missed**"
        cells = (str(bug.number), bug.file, bug.what, test, short(outcome.reason), f"{outcome.seconds:.0f}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--list", action="store_true", help="list the bugs and stop")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="plant these bugs only")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="bugs at a time (default: 2)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="save the table as Markdown")
    options = parser.parse_args()
    bugs = [bug for bug in all_bugs() if options.only is None or bug.number in options.only]
    if options.list:
        for bug in bugs:
            print(f"{bug.number:3d} {bug.file}: {bug.what}")
        return 0
    if not bugs:
        parser.error(f"--only: expected numbers from 1 to {len(all_bugs())}")
    with tempfile.TemporaryDirectory(prefix="planted-bugs-") as folder:
        clean = Path(folder).resolve() / "clean"
        copy(ROOT, clean)
        for bug in bugs:  # every text is looked for before anything runs
            path = clean / bug.file
            text = path.read_text(encoding="utf-8")
            bug.plant(clean)
            path.write_text(text, encoding="utf-8")
        if not control(bugs, clean, options.jobs):
            return 1
        outcomes = try_all(bugs, clean, options.jobs)
    if options.write:
        options.write.write_text(markdown(outcomes), encoding="utf-8")
    missed = [bug.number for bug, outcome in outcomes.items() if not outcome.caught]
    print(f"{len(bugs) - len(missed)} of {len(bugs)} caught" + (f"; missed: {missed}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
