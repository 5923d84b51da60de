# SPDX-License-Identifier: MIT
"""grub.cfg: the old machine's adapted to this one, or a new one, until the guest's own tools regenerate it.

A grub.cfg is a script. Only the lines that GRUB's own tools write are changed: search by UUID, linux and initrd. A
script that finds its files in another way is replaced by a new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydiskimg.system.boot.kernel_arguments import (
    grub_word,
    has_root,
    missing_words,
    only_plain,
    with_words,
    without_old_machine,
)
from pydiskimg.system.boot.kernels import Kernel
from pydiskimg.system.boot.volumes import BootVolumes

_TIMEOUT_SECONDS = 2
_COMMAND = re.compile(r"([ \t]*+)([a-z0-9_.]++)([ \t]++)([^\r]*+)(\r?)")
_LINUX = ("linux", "linux16")
_MODULE = ("module", "module2")  # the kernel and its initrd under Xen
_INITRD = ("initrd", "initrd16")
_SEARCH = ("search", "search.fs_uuid")
# Modules for encrypted disks, for a loop device of the machine that packed the system, and for EFI, absent on a BIOS.
_UNSAFE = ("cryptomount", "loopback", "linuxefi", "initrdefi")
_CHANGED = (*_LINUX, *_MODULE, *_INITRD, *_SEARCH)
_UUID = re.compile(r"['\"]?([0-9A-Fa-f]{4,32}(?:-[0-9A-Fa-f]{4,12}){0,4})['\"]?")
_BY_UUID = re.compile(r"--fs-uuid|-[a-tv-z]*+u[a-z]*+")
_SYSTEMS_LIMIT = 2  # the old root, and an old /boot
_FONT_LINES = 5  # between a search and its font
_DEFAULT_OPTIONS = re.compile(r"([ \t]*+set[ \t]++(?:default_)?kernelopts=\")([^\"$`\\]*+)(\"[ \t\r]*+)")
_BLSCFG = re.compile(r"^[ \t]*+blscfg\b", re.MULTILINE)
_KERNEL_NAME = re.compile(r".*/(?:vmlinu|bzImage|Image|zImage|kernel)[^/]*")
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9@._+~-]++)++")
_TITLE = re.compile(r"[^A-Za-z0-9 ./()_+:,-]")
_SERIAL = (
    "if serial --unit=0 --speed=115200; then",
    "\tterminal_input console serial",
    "\tterminal_output console serial",
    "fi",
)


class UnsafeConfigError(ValueError):
    """A grub.cfg cannot be adapted by changing the lines that are known here; the text says why."""


@dataclass(slots=True)
class _Update:
    """A grub.cfg that is being adapted. is_file tells whether a path of the guest is a regular file.

    alone has the paths, in GRUB's form, of kernels without an initial RAM disk.
    """

    boot: BootVolumes
    wanted: Sequence[str]
    is_file: Callable[[str], bool]
    alone: frozenset[str]
    uuids: set[str] = field(default_factory=set)
    kernels: int = 0
    # root is then the file system that was searched for instead of the old disk's number; at first the core image's
    is_found: bool = True

    def line(self, line: str, following: Sequence[str]) -> str:
        options = _DEFAULT_OPTIONS.fullmatch(line)
        if options:
            return options[1] + new_arguments(options[2], self.boot, only_plain(self.wanted)) + options[3]
        match = _COMMAND.fullmatch(line)
        if match is None:
            return line
        indent, command, blank, rest, end = match.groups()
        if command in _UNSAFE:
            raise UnsafeConfigError(f"it has the command {command}")
        if command == "set" and rest.startswith("root="):
            self.is_found = False
        if command not in _CHANGED:
            return line
        if rest.endswith("\\"):
            raise UnsafeConfigError(f"a command {command} continues on the next line")
        return f"{indent}{command}{blank}{self._rest(command, rest, following)}{end}"

    def _rest(self, command: str, rest: str, following: Sequence[str]) -> str:
        if command in _SEARCH:
            return self._searched(rest, command, following)
        if command in _INITRD:
            return " ".join(self._moved(word) for word in rest.split())
        path, *others = rest.split(None, 1)
        path, arguments = self._moved(path), others[0].rstrip() if others else ""
        if not _KERNEL_NAME.fullmatch(path):  # memtest86+, or an initrd of Xen
            return f"{path} {arguments}".rstrip()
        self.kernels += 1
        if not self.is_found:
            raise UnsafeConfigError("it names the disk with its kernels by number")
        if "$kernelopts" in arguments or "${kernelopts}" in arguments:
            return f"{path} {arguments}"
        boot = self.boot.for_kernel(has_initrd=path not in self.alone)
        return f"{path} {new_arguments(arguments, boot, self.wanted)}"

    def _moved(self, path: str) -> str:
        if not _PLAIN_PATH.fullmatch(path) or "/../" in path:
            raise UnsafeConfigError("it names a file by more than a plain path")
        moved = self.boot.moved(path, self.is_file)
        if moved is None:
            raise UnsafeConfigError(f"it starts {path}, which is not in /boot")
        return moved

    def _searched(self, rest: str, command: str, following: Sequence[str]) -> str:
        """Return a search's arguments for the new file system with the kernels; a search for a font in /usr is kept."""
        options = rest.split()
        sought, uuid = _sought(options, command)
        self.uuids.add(uuid.lower())
        if len(self.uuids) > _SYSTEMS_LIMIT:
            raise UnsafeConfigError(f"it searches for more than {_SYSTEMS_LIMIT} file systems")
        self.is_found = self.is_found or command != "search" or "--set=root" in options or "--set" in options
        new = self.boot.root_uuid if any("/usr/" in line for line in following) else self.boot.uuid
        return " ".join(new if word == sought else word for word in options)


def _sought(options: list[str], command: str) -> tuple[str, str]:
    """Return the word of a search's options that contains the UUID, and the UUID."""
    if command == "search" and not any(_BY_UUID.fullmatch(word) for word in options):
        raise UnsafeConfigError("it searches for a file system by something other than its UUID")
    found = {word: match[1] for word in options if (match := _UUID.fullmatch(word))}
    if len(found) != 1:
        raise UnsafeConfigError("it searches for a file system whose UUID is not plain text")
    return next(iter(found.items()))


def up_to_date(
    text: str,
    boot: BootVolumes,
    wanted: Sequence[str],
    is_file: Callable[[str], bool],
    kernels: Sequence[Kernel] = (),
    *,
    has_entries: bool,
) -> str:
    """Return an old machine's grub.cfg adapted to the new one. has_entries: blscfg has BLS entries to list.

    kernels are the system's kernels. Raises UnsafeConfigError if the result would not boot.
    """
    alone = frozenset(boot.loader_path(kernel.path) for kernel in kernels if kernel.initrd is None)
    update = _Update(boot, wanted, is_file, alone)
    lines = text.split("\n")
    new = [update.line(line, lines[index + 1 : index + 1 + _FONT_LINES]) for index, line in enumerate(lines)]
    if not update.kernels and not (has_entries and _BLSCFG.search(text)):
        raise UnsafeConfigError("it starts no kernel")
    return "\n".join(new)


def new_arguments(arguments: str, boot: BootVolumes, wanted: Sequence[str]) -> str:
    """Return a kernel's arguments with this root and the wanted ones, without those for the old machine's disks.

    The settings take precedence: a root= among the wanted arguments comes last, and the kernel uses the last one.
    """
    kept: list[str] = []
    for word in arguments.split():
        if word in wanted or without_old_machine([word]):
            kept.append(word)
        elif has_root([word]) and boot.root not in kept:
            kept.append(boot.root)
    if boot.root not in kept:
        kept.insert(0, boot.root)
    return with_words(" ".join(kept), [grub_word(word) for word in wanted])


def with_arguments(text: str, wanted: Sequence[str]) -> str:
    """Return a grub.cfg in which kernels with a root= also have the wanted arguments; every other line stays."""
    lines = text.split("\n")
    added = [grub_word(word) for word in wanted]
    for number, line in enumerate(lines):
        options = _DEFAULT_OPTIONS.fullmatch(line)
        match = _COMMAND.fullmatch(line)
        if options:
            lines[number] = options[1] + with_words(options[2], only_plain(wanted)) + options[3]
        elif match and match[2] in (*_LINUX, "linuxefi") and has_root(line.split()) and not match[4].endswith("\\"):
            missing = missing_words(match[4], added)
            if missing:
                lines[number] = " ".join([line.rstrip(), *missing]) + match[5]
    return "\n".join(lines)


def new_config(
    kernels: Sequence[Kernel],
    boot: BootVolumes,
    arguments: Sequence[str],
    *,
    title: str,
    home: str,
    serial_console: bool,
    blscfg: bool,
) -> str:
    """Return a grub.cfg that starts the first of the kernels.

    home is grub or grub2; with blscfg, BLS entries come first.

    arguments are those after root=, in GRUB's script language.
    """
    command = "grub2-mkconfig -o /boot/grub2/grub.cfg" if home == "grub2" else "update-grub"
    lines = [
        "# Written when the disk was made, because the system had no grub.cfg that starts a kernel on this disk.",
        f"# {command} replaces it by one with the settings of /etc/default/grub.",
        "set default=0",
        f"set timeout={_TIMEOUT_SECONDS}",
        *(_SERIAL if serial_console else ()),
        f"search --no-floppy --fs-uuid --set=root {boot.uuid}",
    ]
    if blscfg:  # so that a kernel that is installed later is in the menu; the others follow in case blscfg finds none
        lines += ["set boot=$root", f"set blsdir={boot.prefix}/loader/entries", "load_env", "insmod blscfg", "blscfg"]
    name = _TITLE.sub("", title) or "Linux"
    for kernel in kernels:
        root = boot.for_kernel(has_initrd=kernel.initrd is not None).root
        lines += [
            f"menuentry '{name}, {kernel.path.rpartition('/')[2]}' {{",
            f"\tlinux {boot.loader_path(kernel.path)} {' '.join([root, *arguments])}",
            *([f"\tinitrd {boot.loader_path(kernel.initrd)}"] if kernel.initrd else ()),
            "}",
        ]
    return "\n".join(lines) + "\n"
