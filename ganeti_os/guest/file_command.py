# SPDX-License-Identifier: MIT
"""guest-file: the command with which customisation scripts read and write a guest's files (ADR 0075).

If a shell opened a path of a guest, the node's kernel would follow the guest's links, even out of the guest.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import TextIO

if __name__ == "__main__":  # started with -I, by its path
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from pydiskimg.errors import DiskImageError, storage_error
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import Tree
from pydiskimg.system.edits.selinux import attributes_of_new

LIMIT = 64 << 20  # bytes of a file
_PROGRAM = "guest-file"
_DESCRIPTION = """\
Read or write a file of the guest that is mounted at TARGET. PATH starts at the guest's root; symbolic links are
followed inside of it, and never out of it. Only regular files of at most 64 MiB are read and written.
"""
_EPILOG = """\
  echo "$INSTANCE_NAME" | "$GUEST_FILE" write /etc/hostname

  text=$("$GUEST_FILE" read /etc/ssh/sshd_config) || exit
  printf '%s\\n' "$text" | sed 's/^#Port .*/Port 2222/' | "$GUEST_FILE" write /etc/ssh/sshd_config
"""


class _TooMuchError(DiskImageError):
    """Standard input has more than LIMIT."""


def _read(tree: Tree, arguments: argparse.Namespace) -> None:
    rest = memoryview(tree.read(arguments.path, limit=LIMIT))
    try:
        fd = _descriptor(sys.stdout)
        while rest:  # unbuffered, because a buffer would be flushed again at exit
            rest = rest[os.write(fd, rest) :]
    except OSError as error:
        raise storage_error(error, "standard output", f"cannot write {arguments.path} to it") from error


def _write(tree: Tree, arguments: argparse.Namespace) -> None:
    try:
        with open(_descriptor(sys.stdin), "rb", closefd=False) as given:
            data = given.read(LIMIT + 1)
    except OSError as error:
        raise storage_error(error, "standard input", "cannot be read") from error
    if len(data) > LIMIT:
        raise _TooMuchError(f"{arguments.path}: standard input has more than {LIMIT} bytes; nothing was written")
    attributes = attributes_of_new(tree, arguments.path)
    tree.write(arguments.path, data, mode=arguments.mode, attributes=attributes)


def _descriptor(stream: TextIO | None) -> int:
    """Return the descriptor of a standard stream. Raises OSError for a closed one, which Python sets to None."""
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return stream.fileno()


def _guest_path(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} does not start with a slash; paths start at the guest's root")
    return text


def _mode(text: str) -> int:
    if not text.isascii() or not text.isdigit() or set(text) & set("89") or int(text, 8) > 0o7777:
        raise argparse.ArgumentTypeError(f"{text!r} is not a mode; expected an octal number such as 0644")
    return int(text, 8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    read = commands.add_parser("read", help="write the file to standard output")
    write = commands.add_parser(
        "write",
        help="give the file the contents of standard input; an existing file keeps its owner, mode and attributes",
    )
    for command, run in ((read, _read), (write, _write)):
        command.add_argument("path", metavar="PATH", type=_guest_path)
        command.set_defaults(run=run)
    write.add_argument("--mode", type=_mode, default=0o644, help="of a new file, octal (default: 0644)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of argv, or of this process; return the exit status: 0, 1 for a failure, 2 for wrong usage."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    target = os.environ.get("TARGET")
    if not target:
        parser.error("TARGET is not set; it is the directory where the guest is mounted")
    try:
        with open_mounted_tree(target) as tree:
            arguments.run(tree, arguments)
    except DiskImageError as error:
        sys.stderr.write(f"{_PROGRAM}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
