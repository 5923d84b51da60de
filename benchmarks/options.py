# SPDX-License-Identifier: MIT
"""The options that the table and the growth have in common, and the bench that they describe."""

from __future__ import annotations

import argparse
import fnmatch
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.scale import FULL, SMALL

HERE = Path(__file__).resolve().parent
_KEPT = HERE.parent / ".bench"
_IN_MEMORY = Path("/dev/shm")


def parser(description: str, names: str, rounds: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("names", nargs="*", metavar="NAME", help=f"{names}, also as patterns (default: all)")
    made.add_argument("--rounds", type=int, default=rounds, help="at least (default: %(default)s)")
    made.add_argument("--small", action="store_true", help="inputs that take seconds, to try the harness")
    made.add_argument("--list", action="store_true", help="print the names")
    made.add_argument("--inputs", type=Path, default=_KEPT, metavar="DIR", help="where inputs are kept (.bench)")
    made.add_argument(
        "--directory",
        type=Path,
        default=_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir()),
        help="where targets are (default: %(default)s)",
    )
    made.add_argument(
        "--temporary",
        type=Path,
        default=Path(tempfile.gettempdir()),
        metavar="DIR",
        help="where ways that need temporary files keep them (default: %(default)s)",
    )
    made.add_argument("--output", type=Path, metavar="DIR", help="write the page and the plots here")
    return made


def chosen(names: Iterable[str], patterns: list[str]) -> list[str]:
    """Return the names that match any of the patterns, or all without a pattern; SystemExit if one matches no name."""
    known = list(names)
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise SystemExit(f"no row is named {pattern}; --list prints the names")
    return [name for name in known if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def end_by_signals() -> None:
    """Let SIGTERM end the program as an interrupt does: loop devices and mounts are removed."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def bench(arguments: argparse.Namespace) -> Bench:
    scale = SMALL if arguments.small else FULL
    kept = arguments.inputs.resolve() / scale.name
    return Bench(kept, arguments.directory, arguments.temporary, scale, arguments.rounds)
