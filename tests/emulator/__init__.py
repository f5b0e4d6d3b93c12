"""Run the CUDA sources on a CPU, checked; stands in for CuPy in the tests. See README.md."""

import platform
import shutil
import sys

from .launches import Launch, Launches, recording, watch

__all__ = ["Launch", "Launches", "install", "recording", "unavailable", "watch"]


def unavailable():
    """Return why the emulator cannot run on this machine, or None if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the CUDA emulator needs Linux on x86-64, not {sys.platform} {platform.machine()}"
    for tool in ("g++", "addr2line"):
        if shutil.which(tool) is None:
            return f"the CUDA emulator needs {tool}"
    from . import headers

    try:
        headers.for_host_compiler()
    except FileNotFoundError as error:
        return str(error)
    return None


def install():
    """
    Put the stand-in for ``cupy`` into ``sys.modules`` and return it.

    To be called before the library imports cupy. The module has ``is_fake = True``.

    Raises
    ------
    RuntimeError
        If the emulator cannot run here; `unavailable` says why.
    """
    reason = unavailable()
    if reason:
        raise RuntimeError(reason)
    from . import fakecupy

    for name in [n for n in sys.modules if n.partition(".")[0] in ("cupy", "cupyx")]:
        del sys.modules[name]
    modules = fakecupy.make_modules()
    sys.modules.update(modules)
    return modules["cupy"]
