# SPDX-License-Identifier: MIT
"""Words become a subcommand and its arguments, by argparse."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from pydiskimg.cli import print_version
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NoReturn

    from _typeshed import SupportsWrite

COMMANDS = {
    "info": "describe an image",
    "convert": "copy an image to a file, block device or pipe",
    "create": "make an empty image",
    "map": "tell where the data of an image is",
    "compare": "compare two images",
    "dd": "copy a part of an image to a new one",
    "check": "check a qcow2 image, or the ext file systems of a raw disk",
    "bitmap": "change the dirty bitmaps of an image",
    "snapshot": "list, take, apply or delete internal snapshots of an image",
    "resize": "make an image larger or smaller",
    "measure": "tell how large a new image will be",
    "commit": "write what an image holds into its backing file",
    "rebase": "let an image stand on another backing file",
    "amend": "change options of a qcow2 image",
    "write": "write an image onto a device, and read it back",
    "bmap": "make a block map of an image",
    "hash": "print a checksum of the guest's data",
    "show": "draw a disk to scale",
    "filesystems": "list the file systems and partitions of an image",
    "df": "tell how much of the file systems of images is in use",
    "partition": "show, make and change the partition table of an image",
    "grow": "let the last partition and its file system fill the disk",
    "shrink": "make the last partition and its file system smaller",
    "sparsify": "give back what the file systems of an image do not use",
    "mkfs": "make an ext2, ext3 or ext4 file system",
    "mkswap": "make a swap area",
    "ls": "list files of an image",
    "cat": "print files of an image",
    "stat": "tell all of a file of an image",
    "diff": "list the files in which two images differ",
    "copy-out": "copy files out of an image",
    "tar-out": "pack a directory of an image as a tar archive",
    "copy-in": "copy files into an image",
    "tar-in": "unpack a tar archive into an image",
    "rm": "remove files of an image",
    "mkdir": "make directories in an image",
    "build": "make a bootable disk from a tarball or directory",
}
# Subcommands of qemu-img whose images can be described.
_TAKE_DESCRIPTIONS = {
    *("amend", "bitmap", "check", "commit", "compare", "convert", "info", "map", "measure", "rebase", "resize"),
    *("snapshot", "dd"),
}
_QEMU_IMG = {"create", *_TAKE_DESCRIPTIONS}
# What qemu-img has and pydiskimg does not, and why: --help says it, in the words of docs/commands.md.
LEFT_OUT_SUBCOMMANDS = {"bench": "it measures QEMU's own block layer"}
_SECRETS = {"--object": "secrets are for encrypted images, which are refused by name"}
LEFT_OUT = dict.fromkeys(_QEMU_IMG, _SECRETS)
_COLUMNS = 80  # where there is no terminal
_WRONG_USAGE = 2  # argparse's exit status


def run(words: Sequence[str]) -> int:
    """Run the subcommand that words name and return its exit status; argparse exits where the usage is wrong."""
    words = _with_size_last(_asked_for_help(words))
    # A subcommand is imported when it is named only: neither a short command nor --help must pay for the others.
    wanted = words[:1] if words[:1] and words[0] in COMMANDS else [*COMMANDS]
    try:
        if words[:1] and words[0] not in COMMANDS and not words[0].startswith("-"):
            _parser(wanted, ()).error(f"{words[0]!r} is not a command{_meant(words[0], COMMANDS)}")
        arguments, rest = _parser(wanted, [name for name in wanted if name in words]).parse_known_args(words)
        if rest and not _taken_late(arguments, rest) and not _more_operands(arguments, rest):
            arguments.parser.error(_misplaced(rest, arguments.parser))
        if words[0] in _TAKE_DESCRIPTIONS - {"dd"} and _describes(arguments, words):
            from pydiskimg.cli.described import resolve_descriptions

            resolve_descriptions(arguments)
        status: int | None = arguments.run(arguments)
    except SystemExit as ended:
        if ended.code == _WRONG_USAGE:
            sys.exit(_wrong_usage(words[0] if words else ""))
        raise
    return status or 0


def _describes(arguments: argparse.Namespace, words: Sequence[str]) -> bool:
    """Whether an image may be described rather than named."""
    by_options = getattr(arguments, "image_opts", False) or getattr(arguments, "target_image_opts", False)
    return by_options or any(word.startswith("json:") for word in words)


def _wrong_usage(command: str) -> int:
    """Return the exit status of a subcommand that is called in a wrong way."""
    is_one = command in _QEMU_IMG and command != "compare"  # whose 1 says that the images differ
    return 1 if is_one else _WRONG_USAGE


def _with_size_last(words: Sequence[str]) -> Sequence[str]:
    """Return words so that a last one such as -1G is an operand to argparse, as it is to qemu-img resize."""
    if len(words) > 1 and words[-1][:1] == "-" and words[-1][1:2].isdecimal() and "--" not in words:
        return [*words[:-1], "--", words[-1]]
    return words


def _taken_late(arguments: argparse.Namespace, words: Sequence[str]) -> bool:
    """Whether words are an operand that may be left out, after options: older argparse takes it for left out there."""
    name: str | None = getattr(arguments, "optional_operand", None)
    if name is None or len(words) != 1 or words[0].startswith("-") or getattr(arguments, name) is not None:
        return False
    arguments.parser.parse_args(["--", arguments.file, words[0]], namespace=arguments)
    return True


def _more_operands(arguments: argparse.Namespace, words: Sequence[str]) -> bool:
    """Whether words are more operands of a subcommand that takes any number of them, before and after its options."""
    name: str | None = getattr(arguments, "more_operands", None)
    if name is None or any(word.startswith("-") and word != "-" for word in words):
        return False
    setattr(arguments, name, words)
    return True


def _asked_for_help(words: Sequence[str]) -> Sequence[str]:
    """Return words with `help`, and `help COMMAND`, as the options that they mean."""
    return [*words[1:2], "--help"] if words[:1] == ["help"] else words


def _misplaced(words: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """What is wrong with words that nothing asks for: an option, or what was meant for one may be among them."""
    for word in words:
        if word.startswith("-") and word != "-":
            option = word.partition("=")[0]
            return f"there is no option {option}{_meant(option, parser._option_string_actions)}"  # noqa: SLF001
    return f"{words[0]!r} is one argument too many"


def _meant(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence: which of the known words is like this one, if any is."""
    from difflib import get_close_matches  # only here: it takes long to import

    found = get_close_matches(word, known, 1)
    return f"; did you mean {found[0]}?" if found else ""


def _parser(commands: Sequence[str], named: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of a command line that has these subcommands, of which those that are named have options."""
    parser = _Parser(
        prog="pydiskimg",
        description="Disk images, file systems and swap areas, without external programs.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage (1 where qemu-img has the subcommand), 128 + N ended by "
        "signal N (130 SIGINT, 143 SIGTERM); compare and check have others, which their --help lists.",
    )
    parser.add_argument("--version", action=_Version, help="print the version")
    subparsers = parser.add_subparsers(prog="pydiskimg", metavar="COMMAND", required=True)
    described = _Subparsers(subparsers)
    for name in commands:
        if name in named:
            import_module(f"pydiskimg.cli.{name.replace('-', '_')}").add_parser(described)
        else:
            described.add_parser(name)
    for name, subparser in subparsers.choices.items():
        subparser.set_defaults(parser=subparser)
        if name in named and name in _TAKE_DESCRIPTIONS:
            subparser.add_argument(
                "--image-opts",
                action="store_true",
                help="images are described: driver=FORMAT,file.filename=FILE and, with raw, offset= and size=",
            )
    return parser


def left_out(command: str, parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the options of qemu-img's subcommand that parser does not have or refuses, and why."""
    actions = parser._option_string_actions  # noqa: SLF001 - which argparse has no other way to ask for
    return {
        option: reason
        for option, reason in LEFT_OUT.get(command, {}).items()
        if option not in actions or actions[option].help == argparse.SUPPRESS
    }


class _Subparsers:
    """Where a subcommand declares itself; its line in the list of all is from COMMANDS."""

    def __init__(self, action: Any) -> None:
        self._action = action

    def add_parser(self, name: str, **how: Any) -> Any:
        return self._action.add_parser(name, help=COMMANDS[name], **how)


class _Parser(argparse.ArgumentParser):
    """Raises where its help cannot be printed, which argparse passes over since Python 3.12; says all in our words."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"formatter_class": _formatter, **how})

    def error(self, message: str) -> NoReturn:
        from pydiskimg.cli.output import message_text

        text = message_text(message).replace("ignored explicit argument", "takes no value; found")
        self.exit(_WRONG_USAGE, f"{self.prog}: error: {text}\n{self.format_usage()}")  # the sentence comes first

    def format_help(self) -> str:
        """Return the help, with what of qemu-img is left out at its end."""
        command = self.prog.partition(" ")[2]
        missing = left_out(command, self) if command else LEFT_OUT_SUBCOMMANDS
        rows = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
        plain = self.epilog
        self.epilog = " ".join(filter(None, (plain, f"Of qemu-img left out: {rows}." if rows else "")))
        try:
            return super().format_help()
        finally:
            self.epilog = plain

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        print(self.format_help(), end="", file=file)


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Give argparse the width that it would take from shutil, whose import takes longer than all arguments.

    It makes a formatter for each argument that is declared, whether or not there is anything to print.
    """
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isascii() and columns.isdecimal() and len(columns) < 9 else 0
    if not width:
        try:
            width = os.get_terminal_size(1).columns
        except OSError:
            width = 0
    return argparse.HelpFormatter(prog, width=(width or _COLUMNS) - 2)


class _Version(argparse.Action):
    """Prints the version, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print_version()
        parser.exit()
