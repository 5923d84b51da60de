# SPDX-License-Identifier: MIT
"""The arguments of a guest's kernel: what an instance adds, and what belonged to the files' old machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

CONSOLE = "ttyS0"
_CONSOLES = ("console=tty0", f"console={CONSOLE},115200n8")
_SERIAL_CONSOLE = re.compile(r"[\"']?console=ttyS0(?![0-9])")
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+|"')
# What GRUB's and the shell's syntax leave alone, with or without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9._:/%@+,=~-]++")
# These name the old machine's disks: an initramfs waits for them, and then gives up.
_OLD_MACHINE = re.compile(
    r"(?:root|rootflags|rootfstype|resume|resume_offset|cryptdevice|cryptkey|real_root|zfs)=.*"
    r"|rd\.(?:lvm|luks|md|dm|zfs)[.=].*",
    re.DOTALL,
)


def words(text: str) -> list[str]:
    """Return the arguments in a line, as the kernel parts them: blanks in double quotes do not."""
    return _WORD.findall(text)


def wanted_arguments(kernel_args: str, *, serial_console: bool) -> list[str]:
    """Return what the settings give: KERNEL_ARGS, and the consoles unless KERNEL_ARGS has a serial one."""
    wanted = words(kernel_args)
    if serial_console and not has_serial_console(wanted):
        return [*_CONSOLES, *wanted]
    return wanted


def has_serial_console(arguments: Iterable[str]) -> bool:
    """Tell whether an argument makes the first serial line, the one that Ganeti shows, a console."""
    return any(_SERIAL_CONSOLE.match(argument) for argument in arguments)


def missing_words(present: str, wanted: Sequence[str]) -> list[str]:
    """Return which of the wanted arguments a line does not have; a serial console that it has is as good as ours."""
    there = set(present.split())
    left = [word for word in wanted if word not in there and f" {word} " not in f" {present} "]
    if has_serial_console(there):
        left = [word for word in left if word not in _CONSOLES]
    return left


def with_words(line: str, wanted: Sequence[str]) -> str:
    """Return a line of arguments with those of the wanted ones that it does not have."""
    missing = missing_words(line, wanted)
    return " ".join([line.rstrip(), *missing]).lstrip(" ") if missing else line


def has_root(arguments: Iterable[str]) -> bool:
    """Tell whether an argument names the root file system."""
    return any(argument.startswith("root=") for argument in arguments)


def without_old_machine(arguments: Iterable[str]) -> list[str]:
    """Return the arguments but those that name disks, file systems and volumes of the machine they are from."""
    return [argument for argument in arguments if not _OLD_MACHINE.fullmatch(argument)]


def is_plain(word: str) -> bool:
    """Tell whether an argument can be written into GRUB's and the shell's files as it is."""
    return _PLAIN.fullmatch(word) is not None


def only_plain(words: Iterable[str]) -> list[str]:
    """Return the arguments that need no quotes: a variable of GRUB's can hold no others, since it is read twice."""
    return [word for word in words if is_plain(word)]


def grub_word(word: str) -> str:
    """Return an argument as GRUB's script language has it; GRUB itself puts what has blanks into quotes again."""
    if is_plain(word):
        return word
    return "'" + word.replace('"', "").replace("'", "'\\''") + "'"
