"""Bugs in the CUDA sources of kernels per pixel, and in what all sources share."""

from planted.suites import (
    CORRELATE_GRADIENT_ON_GPU,
    CORRELATE_ON_GPU,
    MODULATED_GRADIENTS_ON_GPU,
    ON_GPU,
    SPREAD_ON_GPU,
)

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
        "kernels/window.cuh",
        MODULATED_GRADIENTS_ON_GPU,
        [
            ("-1 among the rows is not checked", "h < 0 || w < 0 ?", "w < 0 ?"),
            ("-1 among the columns is not checked", "h < 0 || w < 0 ?", "h < 0 ?"),
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
]
