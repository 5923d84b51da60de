# SPDX-License-Identifier: MIT
"""grub.cfg: that of the old machine brought up to date, or one of ours, until the guest's own tools write it anew.

A grub.cfg is a script. What is changed are the lines that GRUB's own tools write: search by UUID, linux and initrd.
Where it has more than that to find its files by, it is not changed, and ours takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ganeti_os.guest.boot_place import BootPlace
from ganeti_os.guest.kernel_arguments import grub_word, missing_arguments, without_old_machine
from ganeti_os.guest.kernels import Kernel

_TIMEOUT_SECONDS = 2
_COMMAND = re.compile(r"([ \t]*+)([A-Za-z0-9_.]++)([ \t]++)(.*)", re.DOTALL)
_LINUX = ("linux", "linux16", "module", "module2")
_INITRD = ("initrd", "initrd16")
_SEARCH = ("search", "search.fs_uuid")
# Other ways to a file, or to other machines' disks. EFI's commands are not there on a BIOS.
_UNSAFE = (
    *("cryptomount", "linuxefi", "initrdefi", "search.fs_label", "search.file", "configfile", "source", "loopback"),
    *("normal", "chainloader", "multiboot", "multiboot2", "kernel", "legacy_configfile", "zfs-bootfs"),
)
_UUID = re.compile(r"[0-9A-Fa-f]{4,32}(?:-[0-9A-Fa-f]{4,12}){0,4}")
_DEFAULT_OPTIONS = re.compile(r'([ \t]*+set[ \t]++(?:default_)?kernelopts=")([^"$`\\]*+)("[ \t\r]*+)')
_SAFE_TITLE = re.compile(r"[^A-Za-z0-9 ./()_+:,-]")


class UnsafeConfigError(ValueError):
    """A grub.cfg cannot be brought up to date by changing the lines that are known here; the text says why."""


def up_to_date(
    text: str, place: BootPlace, wanted: Sequence[str], is_file: Callable[[str], bool], *, has_entries: bool
) -> str:
    """Return an old machine's grub.cfg for the new one. has_entries: there are BLS entries for blscfg to list.

    Raises UnsafeConfigError where it would not boot.
    """
    lines = text.split("\n")
    uuids: set[str] = set()
    kernels = 0
    for number, line in enumerate(lines):
        options = _DEFAULT_OPTIONS.fullmatch(line)
        if options:
            lines[number] = options[1] + new_arguments(options[2], place, wanted) + options[3]
            continue
        match = _COMMAND.fullmatch(line)
        if match is None:
            continue
        indent, command, blank, rest = match.groups()
        if line.endswith("\\") and command in (*_LINUX, *_INITRD, *_SEARCH):
            raise UnsafeConfigError(f"line {number + 1} goes on in the next one")
        if command in _UNSAFE:
            raise UnsafeConfigError(f"line {number + 1} has the command {command}")
        if command in _SEARCH:
            rest = _searched(rest, command, place, uuids, lines[number + 1 : number + 4])
        elif command in _INITRD:
            rest = " ".join(_moved(word, place, is_file) for word in rest.split())
        elif command in _LINUX:
            path, _, arguments = rest.strip().partition(" ")
            new = new_arguments(arguments, place, wanted)
            rest = f"{_moved(path, place, is_file)} {new}" if command.startswith("linux") else rest
            kernels += 1
        lines[number] = f"{indent}{command}{blank}{rest}"
    if len(uuids) > 2:
        raise UnsafeConfigError(f"it searches for {len(uuids)} file systems")
    if not kernels and not (has_entries and re.search(r"^[ \t]*+blscfg\b", text, re.MULTILINE)):
        raise UnsafeConfigError("it starts no kernel")
    return "\n".join(lines)


def new_arguments(arguments: str, place: BootPlace, wanted: Sequence[str]) -> str:
    """Return a kernel's arguments with this root and the wanted ones, without those for the old machine's disks."""
    old = arguments.split()
    position = next((index for index, word in enumerate(old) if word.startswith("root=")), 0)
    before, after = (without_old_machine(part) for part in (old[:position], old[position:]))
    missing = [grub_word(word) for word in missing_arguments(old, wanted)]
    return " ".join([*before, place.root, *after, *missing])


def with_arguments(text: str, wanted: Sequence[str]) -> str:
    """Return a grub.cfg whose kernels with a root= have the wanted arguments, too; every other line stays."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        options = _DEFAULT_OPTIONS.fullmatch(line)
        match = _COMMAND.fullmatch(line)
        if options:
            lines[number] = options[1] + added(options[2], wanted) + options[3]
        elif match and match[2] in (*_LINUX, "linuxefi") and re.search(r"\sroot=", line) and not line.endswith("\\"):
            lines[number] = added(line, wanted)
    return "\n".join(lines)


def added(line: str, wanted: Sequence[str]) -> str:
    """Return a line of arguments with those of the wanted ones that it does not have."""
    missing = missing_arguments(line.split(), [grub_word(word) for word in wanted])
    return " ".join([line.rstrip(), *missing]) if missing else line


def _moved(path: str, place: BootPlace, is_file: Callable[[str], bool]) -> str:
    if "$" in path or path[:1] != "/":
        raise UnsafeConfigError(f"{path} is not a plain path")
    moved = place.moved(path, is_file)
    if moved is None:
        raise UnsafeConfigError(f"it starts {path}, which is not in /boot")
    return moved


def _searched(rest: str, command: str, place: BootPlace, uuids: set[str], following: Sequence[str]) -> str:
    """Return a search's arguments for the new file system: the one with the kernels, but for a font in /usr."""
    options = rest.split()
    if command == "search" and not any(re.fullmatch(r"--fs-uuid|-[a-z]*u[a-z]*", word) for word in options):
        raise UnsafeConfigError("it searches for a file system by another thing than its UUID")
    found = [word for word in options if _UUID.fullmatch(word.strip("'\""))]
    if len(found) != 1:
        raise UnsafeConfigError("it searches for a file system by another thing than its UUID")
    uuids.add(found[0])
    new = place.root_uuid if any("/usr/" in line for line in following) else place.uuid
    return " ".join(new if word == found[0] else word for word in options)


def new_config(
    kernels: Sequence[Kernel],
    place: BootPlace,
    arguments: Sequence[str],
    *,
    title: str,
    home: str,
    serial_console: bool,
    blscfg: bool,
) -> str:
    """Return a grub.cfg that starts the first of the kernels. home is grub or grub2; blscfg: BLS entries come first."""
    command = "grub2-mkconfig -o /boot/grub2/grub.cfg" if home == "grub2" else "update-grub"
    lines = [
        "# This file was written when the instance was created, since the system had none that starts a kernel on this",
        f"# disk. {command} replaces it, and has its settings from /etc/default/grub.",
        "set default=0",
        f"set timeout={_TIMEOUT_SECONDS}",
        *(_SERIAL if serial_console else ()),
        f"search --no-floppy --fs-uuid --set=root {place.uuid}",
    ]
    if blscfg:
        lines += ["set boot=$root", f"set blsdir={place.prefix}/loader/entries", "load_env", "insmod blscfg", "blscfg"]
    words = " ".join([place.root, *(grub_word(word) for word in arguments)])
    name = _SAFE_TITLE.sub("", title) or "Linux"
    for kernel in kernels:
        lines += [
            f"menuentry '{name}, with {kernel.version or 'its kernel'}' {{",
            f"\tlinux {place.loader_path(kernel.path)} {words}",
            *([f"\tinitrd {place.loader_path(kernel.initrd)}"] if kernel.initrd else ()),
            "}",
        ]
    return "\n".join(lines) + "\n"


_SERIAL = (
    "if serial --unit=0 --speed=115200; then",
    "\tterminal_input console serial",
    "\tterminal_output console serial",
    "fi",
)
