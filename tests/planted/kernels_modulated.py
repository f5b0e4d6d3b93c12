"""Bugs in the CUDA sources of equation (2)."""

from planted.suites import MODULATED_GRADIENTS_ON_GPU, MODULATED_ON_GPU, TENSOR

PLANTED = [
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
]
