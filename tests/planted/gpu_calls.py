"""Bugs in what each function asks of CUDA."""

from planted.suites import (
    CORRELATE_GRADIENT_ON_GPU,
    CORRELATE_ON_GPU,
    MODULATED_GRADIENTS_ON_GPU,
    MODULATED_ON_GPU,
    SPREAD_ON_GPU,
)

PLANTED = [
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
]
