"""Bugs in the NumPy backend."""

from planted.suites import DASK_CALLS, ON_HOST, THREADS

PLANTED = [
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
            (
                "small products: pixels that are left over are left out",
                "if whole < pixels:",
                "if whole == 0:",
            ),
            (
                "small products: pieces of the first pixels for all",
                "np.matmul(rows[:, None], _cut(columns, whole, at_once)",
                "np.matmul(rows[:, None], _cut(columns, whole, at_once)[:, :1]",
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
        "cuvarconv/_cpu/correlate.py",
        DASK_CALLS,
        [("taps are summed in pairs in narrow blocks", ', order="C")', ")")],
    ),
]
