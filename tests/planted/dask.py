"""Bugs in calls on dask arrays."""

from planted.suites import DASK, DASK_CALLS

PLANTED = [
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
]
