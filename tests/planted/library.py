"""Bugs in what comes before the backends: arguments, windows, dtypes, arrays of other libraries."""

from planted.suites import DISPATCH, WINDOW

PLANTED = [
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
]
