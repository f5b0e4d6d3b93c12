"""Bugs in how launches are planned and kept."""

from planted.suites import CORRELATE_ON_GPU, ON_GPU, TENSOR

PLANTED = [
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
        ("tests/test_replay.py", "tests/test_kernels_correlate.py"),
        [
            ("tables from the caller's allocator", "with of_cupy():", "if True:"),
            (
                "room made during a capture",
                "        if _is_capturing():\n            return\n",
                "",
            ),
            (
                "tables kept without their layout",
                "found = self.find(make, *what)",
                "found = self.find(make, what[0])",
            ),
            ("what is kept is never dropped", "if self._bytes > self._MOST:", "if False:"),
        ],
    ),
    (
        "cuvarconv/_gpu/_memory.py",
        ("tests/test_overlap.py", "-k", "cuda or one_by_one"),
        [
            (
                "overlap of views that start together only",
                "return low < other_high and other_low < high",
                "return low == other_low",
            ),
            (
                "reversed views taken for what follows their first element",
                "sum(each for each in reach if each < 0)",
                "0",
            ),
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
]
