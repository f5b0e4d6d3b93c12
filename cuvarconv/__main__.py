"""``python -m cuvarconv demo [IMAGE]`` and ``python -m cuvarconv info``."""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cuvarconv


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``python -m cuvarconv``; by default those of the process.

    Returns
    -------
    int
        The exit status: 0, 1 for errors that the input causes, 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # σ and × on a Windows console with a small code page
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    if options.command == "info":
        from cuvarconv._info import report

        print(report())
        return 0
    from cuvarconv._demo import DemoError, run

    try:
        run(options)
    except DemoError as error:
        print(f"cuvarconv demo: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        print("cuvarconv demo: not enough memory; try a smaller --size", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cuvarconv demo: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cuvarconv",
        description="Spatially variant 2-D convolution: a demonstration, and what is installed.",
    )
    parser.add_argument("--version", action="version", version=cuvarconv.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print versions, device, and where kernels are cached")
    demo = commands.add_parser(
        "demo",
        help="blur a photograph with one kernel per pixel, beside the unfold formula",
        description="Blur a photograph with a different kernel at every pixel: by intensity, and "
        "by depth where a disparity map is known. Writes PNG files; prints how far the results are "
        "from the unfold formula, and both sides' time and memory.",
    )
    _add_files(demo)
    _add_numbers(demo)
    return parser


def _add_files(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "image",
        nargs="?",
        type=Path,
        metavar="IMAGE",
        help="a picture file (default: scikit-image's stereo motorcycle, with its disparity map)",
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("cuvarconv-demo"),
        metavar="DIR",
        help="folder to write to, made where it does not exist (default: %(default)s)",
    )
    demo.add_argument(
        "--disparity",
        type=Path,
        metavar="FILE",
        help="disparity map of IMAGE, .npy or picture: larger is nearer, 0 or NaN is unknown",
    )


def _add_numbers(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "--focus",
        type=_number(-math.inf, math.inf),
        metavar="D",
        help="disparity that stays sharp (default: the median of the middle of the picture)",
    )
    demo.add_argument(
        "--sigma-max",
        type=_number(0.1, 16),
        default=4.0,
        metavar="PIXELS",
        help="σ of the blur at intensity 1, 0.1 to 16 (default: %(default)s)",
    )
    demo.add_argument(
        "--disc-max",
        type=_number(0.5, 48),
        default=9.0,
        metavar="PIXELS",
        help="radius of the largest circle of confusion, 0.5 to 48 (default: %(default)s)",
    )
    demo.add_argument(
        "--size",
        type=_number(1, 8192, int),
        default=1024,
        metavar="PIXELS",
        help="shrink pictures whose longer side is above this (default: %(default)s)",
    )
    demo.add_argument(
        "--repeats",
        type=_number(1, 1000, int),
        default=7,
        metavar="N",
        help="timed calls of each side, of which the median counts (default: %(default)s)",
    )


def _number(low: float, high: float, kind: Callable[[str], float] = float) -> Callable[[str], float]:
    def number(text: str) -> float:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if low <= value <= high and math.isfinite(value):
                return value
        bounds = f" from {low:g} to {high:g}" if math.isfinite(low) else ""
        noun = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"expected a {noun}{bounds}, got {text!r}")

    return number


if __name__ == "__main__":
    sys.exit(main())
