# SPDX-License-Identifier: MIT
"""What `ls -lR` prints: a line for each file, with the fields of virt-ls -lR in their order; --csv is for programs."""

from __future__ import annotations

import os
import stat
import time

from pydiskimg.cli.columns import csv_field
from pydiskimg.cli.file_facts import short_size, target_of
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from pydiskimg.cli import Arguments
    from pydiskimg.cli.command_line import CommandParser
    from pydiskimg.fs.ext4.tree import ExtTree

CHECKSUMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFLNK, stat.S_IFSOCK)
_TYPES = dict(zip(_KINDS, "-dcbpls", strict=True))
_DAY = 86400  # seconds
_LONGEST = 1 << 20  # characters of a path


def add_field_options(parser: CommandParser) -> None:
    """Add the options that choose fields, which belong to -lR, and the form in which they are printed."""
    import argparse

    class ChooseChecksum(argparse.Action):
        """--checksum, or --checksum=KIND: what follows without "=" is the image."""

        def __call__(self, _: object, namespace: argparse.Namespace, __: object, option: str | None = None) -> None:
            setattr(namespace, self.dest, (option or "").partition("=")[2] or CHECKSUMS[0])

    parser.add_argument("--uids", action="store_true", help="with -lR: numbers of owner and group, too")
    for name, what in (("t", "seconds since 1970"), ("relative", "seconds before now"), ("days", "days before now")):
        parser.add_argument(f"--time-{name}", action="store_const", const=name, dest="ages", help=f"times as {what}")
    words = [f"--checksum={kind}" for kind in CHECKSUMS]
    help_text = f"with -lR or JSON: checksums of regular files; --checksum alone is MD5; or {', '.join(words)}"
    parser.add_argument("--checksum", action=ChooseChecksum, nargs=0, help=help_text)
    # argparse's own would say that it takes no value.
    refusal = f"argument --checksum: not one of {', '.join(CHECKSUMS)}:"
    parser.wordings = {"argument --checksum: ignored explicit argument": refusal, **parser.wordings}
    parser.add_argument(*words, dest="checksum", action=ChooseChecksum, nargs=0, help=argparse.SUPPRESS)
    parser.add_argument("--csv", action="store_true", help="with -lR: fields separated by commas, quoted where needed")


def check_field_options(arguments: Arguments, parser: argparse.ArgumentParser) -> None:
    """End in wrong usage where an option has nothing to show it in."""
    is_json, has_fields = arguments.output == "json", arguments.long and arguments.recursive
    for name, is_given in (
        ("--uids", arguments.uids),
        (f"--time-{arguments.ages}", arguments.ages),
        ("--csv", arguments.csv),
        ("--checksum", arguments.checksum and not is_json),
    ):
        if is_given and (is_json or not has_fields):
            parser.error(f"{name} belongs to -lR" + (", and JSON has its own fields" if is_json else ""))
    if arguments.csv and arguments.human_readable:
        parser.error("--csv is for programs, which do not read the sizes of -h")


def field_lines(tree: ExtTree, found: Iterable[tuple[str, str, os.stat_result]], arguments: Arguments) -> Iterator[str]:
    """Yield the line of each file, (path, name, lstat); times of the clock in UTC."""
    now = int(time.time())
    for path, _, status in found:
        fields = _fields(tree, path, status, arguments, now)
        target = target_of(tree, path, status)
        if arguments.csv:
            names = [path] if target is None else [path, target]
            shown = [printable(name, limit=_LONGEST, exact=True) for name in names]
            yield ",".join(csv_field(field.strip()) for field in (*fields, *shown))
        else:
            arrow = "" if target is None else f" -> {printable(target)}"
            yield " ".join((*filter(None, fields), printable(path, limit=_LONGEST))) + arrow


def _fields(tree: ExtTree, path: str, status: os.stat_result, arguments: Arguments, now: int) -> list[str]:
    size = short_size(status.st_size) if arguments.human_readable else str(status.st_size)
    kind = stat.S_IFMT(status.st_mode)
    fields = [_TYPES[kind], f"{stat.S_IMODE(status.st_mode):04o}", f"{size:>10}"]
    if arguments.uids:
        fields += [f"{status.st_uid:4}", f"{status.st_gid:4}"]
    if arguments.times or arguments.ages:
        times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
        fields += [_time(nanoseconds // 1_000_000_000, arguments.ages, now) for nanoseconds in times]
    if arguments.extra_stats:
        device, of_file = (f"{os.major(number)}:{os.minor(number)}" for number in (status.st_dev, status.st_rdev))
        fields += [device, str(status.st_ino), str(status.st_nlink), of_file, str(status.st_blocks)]
    if arguments.checksum:
        from pydiskimg.transfer.digest import digest  # imported here: it imports hashlib

        is_file = kind == stat.S_IFREG
        fields.append(digest(tree.open(path), arguments.checksum) if is_file else "")
    return fields


def _time(seconds: int, form: str | None, now: int) -> str:
    if form == "t":
        return f"{seconds:10}"
    if form == "relative":
        return f"{now - seconds:8}"
    if form == "days":
        return f"{int((now - seconds) / _DAY):3}"  # towards zero, as a file of the last 24 hours has 0
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
