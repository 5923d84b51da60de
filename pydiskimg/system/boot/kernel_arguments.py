# SPDX-License-Identifier: MIT
"""The arguments of a guest's kernel: those that an instance adds, and those that belonged to the old machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

CONSOLE = "ttyS0"
_CONSOLES = ("console=tty0", f"console={CONSOLE},115200n8")
_SERIAL_CONSOLE = re.compile(r"[\"']?console=ttyS0(?![0-9])")
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+|"')
# Characters that GRUB and the shell do not interpret, with or without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9._:/%@+,=~-]++")
# Arguments that name the old machine's disks: an initramfs waits for them, and then gives up.
_OLD_MACHINE = re.compile(
    r"(?:root|rootflags|rootfstype|resume|resume_offset|cryptdevice|cryptkey|real_root|zfs)=.*"
    r"|rd\.(?:lvm|luks|md|dm|zfs)[.=].*",
    re.DOTALL,
)


def words(text: str) -> list[str]:
    """Return the arguments in a line, separated as in the kernel: not at blanks in double quotes."""
    return _WORD.findall(text)


def wanted_arguments(kernel_args: str, *, serial_console: bool) -> list[str]:
    """Return the arguments from the settings: KERNEL_ARGS, and the consoles unless KERNEL_ARGS has a serial one."""
    wanted = words(kernel_args)
    if serial_console and not has_serial_console(wanted):
        return [*_CONSOLES, *wanted]
    return wanted


def has_serial_console(arguments: Iterable[str]) -> bool:
    """True if an argument makes the first serial line, which Ganeti shows, a console."""
    return any(_SERIAL_CONSOLE.match(argument) for argument in arguments)


def missing_words(present: str, wanted: Sequence[str]) -> list[str]:
    """Return the wanted arguments that a line lacks; any serial console in it counts as the wanted one."""
    there = set(present.split())
    left = [word for word in wanted if word not in there and f" {word} " not in f" {present} "]
    if has_serial_console(there):
        left = [word for word in left if word not in _CONSOLES]
    return left


def with_words(line: str, wanted: Sequence[str]) -> str:
    """Return a line of arguments with the wanted ones added that it lacks."""
    missing = missing_words(line, wanted)
    return " ".join([line.rstrip(), *missing]).lstrip(" ") if missing else line


def has_root(arguments: Iterable[str]) -> bool:
    """True if an argument names the root file system."""
    return any(argument.startswith("root=") for argument in arguments)


def without_old_machine(arguments: Iterable[str]) -> list[str]:
    """Return the arguments without those that name disks, file systems and volumes of their old machine."""
    return [argument for argument in arguments if not _OLD_MACHINE.fullmatch(argument)]


def is_plain(word: str) -> bool:
    """True if an argument can be written to GRUB's and the shell's files without escapes."""
    return _PLAIN.fullmatch(word) is not None


def only_plain(words: Iterable[str]) -> list[str]:
    """Return the arguments that need no quotes: GRUB expands variables twice, so they can hold no others."""
    return [word for word in words if is_plain(word)]


def grub_word(word: str) -> str:
    """Return an argument in GRUB's script language; GRUB itself quotes arguments with blanks again."""
    if is_plain(word):
        return word
    return "'" + word.replace('"', "").replace("'", "'\\''") + "'"
