# SPDX-License-Identifier: MIT
"""The `pydiskimg` command. Its subcommands and options are called as qemu-img calls them, where it has them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from pydiskimg.cli.output import printable
from pydiskimg.errors import DiskImageError
from pydiskimg.linux.stdio import keep_standard_descriptors

COMMANDS = ("info", "convert", "create", "map", "compare", "check", "snapshot", "mkfs", "mkswap")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 wrong usage.

    A subcommand's run() may return another one, where it has more to tell (compare, check).
    """
    keep_standard_descriptors()
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open to the end
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open to the end
    for number in _ENDING:
        signal.signal(number, _terminated)
    try:
        words = sys.argv[1:] if argv is None else list(argv)
        # Only the wanted subcommand is imported: a short command must not pay for the others.
        arguments = _parser(words[:1] if words[:1] and words[0] in COMMANDS else COMMANDS).parse_args(words)
        status: int | None = arguments.run(arguments)
        sys.stdout.flush()
    except DiskImageError as error:
        print(f"pydiskimg: {printable(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Nobody reads on; the interpreter must not complain about it either when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"pydiskimg: standard output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("pydiskimg: interrupted; what was being written is not complete", file=sys.stderr)
        return 128 + signal.SIGINT
    return status or 0


def _parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pydiskimg", description="Disk images, file systems and swap areas, without external programs."
    )
    parser.add_argument("--version", action=_Version, help="print the version")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in commands:
        with suppress(ModuleNotFoundError):  # until all of them are there
            import_module(f"pydiskimg.cli.{name}").add_parser(subparsers)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"pydiskimg {version('pydiskimg')}")
        parser.exit()


def _terminated(*_: object) -> NoReturn:
    """Leave as on Ctrl-C, so that every context manager cleans up; once."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
