"""CUDA sources as single texts: ``kernels/<name>.cu`` with its local headers expanded."""

import re
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_PLACES = (_PACKAGE / "kernels", _PACKAGE.parent / "kernels")  # installed; in a checkout
KERNEL_DIRECTORY = _PLACES[0] if _PLACES[0].is_dir() else _PLACES[1]

_LOCAL_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')
_PRAGMA_ONCE = re.compile(r"\s*#\s*pragma\s+once\b")


def kernel_source(name: str) -> str:
    """
    Read ``kernels/<name>.cu`` and put the local headers that it includes in place.

    CuPy's disk cache hashes the text of a module but not the headers found through ``-I``: with
    the headers inside, an edited header is compiled again. Each header is expanded where it is
    first included, whether or not that line stands in a conditional. ``#include <...>`` stays,
    and ``#line`` keeps the file and line of compiler messages. Signs beyond ASCII, in comments,
    are left out: CuPy writes the text in the locale's encoding, and NVRTC up to 12.4 changes that.

    Parameters
    ----------
    name : str
        File name without ``.cu``, e.g. ``"correlate"``.

    Returns
    -------
    str
        CUDA C++ that needs no local header.

    Raises
    ------
    FileNotFoundError
        If the file, or a header that it includes, is not in `KERNEL_DIRECTORY`.
    """
    text = "\n".join(_expand(f"{name}.cu", seen=set())) + "\n"
    return text.encode("ascii", "ignore").decode()


def _expand(file_name: str, seen: set[str]) -> Iterator[str]:
    """Yield the lines of a file, those of headers not yet `seen` in their place."""
    seen.add(file_name)
    yield f'#line 1 "{file_name}"'
    text = (KERNEL_DIRECTORY / file_name).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        include = _LOCAL_INCLUDE.match(line)
        if include and include[1] not in seen:
            yield from _expand(include[1], seen)
            yield f'#line {number + 1} "{file_name}"'
        elif include or _PRAGMA_ONCE.match(line):
            yield ""
        else:
            yield line
