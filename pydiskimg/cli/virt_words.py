# SPDX-License-Identifier: MIT
"""The options by which the virt-* tools name disks and a file system: -a DISK, -A DISK, -m /dev/sda1."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIRST, _SECOND, _FILE_SYSTEM = ("-a", "--add"), ("-A",), ("-m", "--mount")
_WITH_PARTITION = ("ls", "cat", "diff", "copy-in", "copy-out", "tar-in", "tar-out")  # mkdir has another -m
_TAKE_DISKS = ("filesystems", "df", *_WITH_PARTITION)
_DISKS = ("/dev/sda", "/dev/vda", "/dev/hda")  # one disk to libguestfs, too


def in_our_words(words: Sequence[str]) -> Sequence[str]:
    """Return words with the disks as first operands, and --partition 1 instead of -m /dev/sda1.

    Words after -- are not changed, nor are those of a command that virt-* does not have.
    """
    if words[:1] == [] or words[0] not in _TAKE_DISKS:
        return words
    disks: list[list[str]] = [[], []]
    rest: list[str] = []
    left = iter(words[1:])
    for word in left:
        if word == "--":
            rest += [word, *left]
            break
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        which = _which(words[0], name)
        if which is None:
            rest.append(word)
            continue
        value = value if equals else next(left, "")
        if which is not _FILE_SYSTEM:
            disks[which is _SECOND].append(value)
        elif (number := _partition(value)) is not None:
            rest += ["--partition", number]
        else:
            rest += [word] if equals else [word, value]  # argparse refuses these
    return [words[0], *disks[0], *disks[1], *rest]


def _which(command: str, name: str) -> tuple[str, ...] | None:
    if name in _FIRST:
        return _FIRST
    if name in _SECOND and command == "diff":
        return _SECOND
    return _FILE_SYSTEM if name in _FILE_SYSTEM and command in _WITH_PARTITION else None


def _partition(device: str) -> str | None:
    """Return the number of a partition such as /dev/sda1 or /dev/sda1:/:ro, 0 for /dev/sda; None for others.

    Of what follows the device, a mount point other than / would be another file system.
    """
    name, _, rest = device.partition(":")
    if not name.startswith(_DISKS) or rest.partition(":")[0] not in ("", "/"):
        return None
    number = name[len(_DISKS[0]) :]
    if not ((number.isascii() and number.isdecimal()) or not number):
        return None
    return number or "0"
