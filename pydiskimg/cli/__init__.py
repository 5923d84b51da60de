# SPDX-License-Identifier: MIT
"""The `pydiskimg` command. Its subcommands and options are called as qemu-img calls them, where it has them.

What `pydiskimg info` passes through imports nothing that is slow to import: the whole command takes little longer
than Python's own start.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from pydiskimg.errors import DiskImageError
from pydiskimg.linux.stdio import end_process, keep_standard_descriptors
from pydiskimg.startup import OBJECTS_BETWEEN_COLLECTIONS, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

COMMANDS = ("info", "convert", "create", "map", "compare", "check", "snapshot", "mkfs", "mkswap")
_NOT_TOLD = {"compare": 4}  # where 1 says something else: that the images differ


class _NotOpen:
    """Standard output of a process that was started without: who prints a result must hear that nobody gets it."""

    def write(self, _: str) -> NoReturn:
        raise OSError(errno.EBADF, "is not open, and what was to be printed is lost")

    def flush(self) -> None: ...

    def fileno(self) -> int:
        return 1  # /dev/null by now


def launch() -> NoReturn:
    """Run the command line and end the process: what the launcher and `python -m pydiskimg` do."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        status = main()
    except SystemExit as ended:  # argparse's
        status = ended.code if isinstance(ended.code, int) else 1
    end_process(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 wrong usage, 128 and more ended by a signal.

    A subcommand may return another one, where it has more to tell (compare, check).
    """
    keep_standard_descriptors()
    if sys.stdout is None:  # what Python makes of a descriptor that is closed
        sys.stdout = _NotOpen()
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open to the end
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name in an image may have what the locale has not
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        status = _run(words)
        sys.stdout.flush()
    except DiskImageError as error:
        _tell(str(error))
        return 1
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # who reads no further need not be told
            _tell(f"standard output: {error.strerror}")
        # The interpreter must not complain either when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOT_TOLD.get(words[0], 1)
    except MemoryError:
        _tell("there is not enough memory; what was being written is not complete")
        return _NOT_TOLD.get(words[0], 1)
    except KeyboardInterrupt as error:
        from pydiskimg.cli.signals import how_ended

        said, status = how_ended(error)
        _tell(f"{said}; what was being written is not complete")
    return status


def _tell(text: str) -> None:
    from pydiskimg.cli.output import tell

    tell(text)


def _run(words: list[str]) -> int:
    if words[:1] == ["info"]:
        from pydiskimg.cli.info import run_common_form

        if run_common_form(words[1:]):
            return 0
    from pydiskimg.cli.signals import end_as_interrupted

    end_as_interrupted()  # before anything else is imported: a signal's exit status is the same early and late
    if words[:1] == ["convert"]:
        from pydiskimg.cli.convert import run_common_form

        if run_common_form(words[1:]):
            return 0
    from pydiskimg.cli.command_line import run

    try:
        return run(words)
    except SystemExit:  # of --version and --help; what they print has to arrive like any result
        sys.stdout.flush()
        raise
