"""What a call does to memory, counted by the emulator, beside the lines of the kernels that do it."""

import re


def traffic(source, call):
    """Run a call; return (lines that an access stands on, its counts) for all accesses of ``<source>.cu``."""
    from emulator import launch

    from cuvarconv._gpu._sources import KERNEL_DIRECTORY

    with launch.profiling() as rows:
        call()
    texts = {path.name: path.read_text(encoding="utf-8").splitlines() for path in KERNEL_DIRECTORY.iterdir()}
    rows = [row for row in rows if f"{source}.cu:" in row.line]
    places = ((re.findall(r"(\w+\.cuh?):(\d+)", row.line), row) for row in rows)
    return [("\n".join(texts[file][int(line) - 1] for file, line in lines), row) for lines, row in places]


# where tile.cuh reads an image: by vectors, and pixel by pixel
PIXEL_VECTORS = ("load_cells<V, V, CELLS>(", "const Pack<T, N>*>(from[u])")
PIXELS = ("load_cells<V, 1, CELLS>(", "const Pack<T, N>*>(from[u])")


def read_by(rows, fragment, access="read", space="global"):
    """Return the reads, or writes, of the source lines that contain `fragment`, or each of several."""
    fragments = (fragment,) if isinstance(fragment, str) else fragment
    found = [
        row
        for line, row in rows
        if all(each in line for each in fragments) and (row.space, row.access) == (space, access)
    ]
    assert found, f"no line with {fragment!r} has a {space} {access}"
    return found
