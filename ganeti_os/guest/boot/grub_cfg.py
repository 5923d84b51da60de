# SPDX-License-Identifier: MIT
"""GRUB's menu, grub.cfg: the one that a system has is brought up to date, and one without gets one (ADR 0095)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from ganeti_os.guest.boot.arguments import SERIAL_SPEED, KernelArguments
from ganeti_os.guest.boot.kernels import Kernel

_UUID = rb"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_SEARCH = re.compile(rb"^[ \t]*+search[ \t]++[^\n]*?(?:--fs-uuid|-u)\b[^\n]*+", re.MULTILINE)
_IN_SEARCH = re.compile(rb"(?<![0-9A-Fa-f-])" + _UUID + rb"(?![0-9A-Fa-f-])")
_LINUX = re.compile(rb"^([ \t]*+(?:linux|linux16|linuxefi)[ \t]++)(\S++)([^\r\n]*+)", re.MULTILINE)
_INITRD = re.compile(rb"^([ \t]*+(?:initrd|initrd16|initrdefi)[ \t]++)([^\r\n]++)", re.MULTILINE)
_OPTIONS = re.compile(rb"^([ \t]*+set[ \t]++(?:kernelopts|default_kernelopts)=\")([^\"\r\n]*+)(?=\")", re.MULTILINE)
_BLS = re.compile(rb"^[ \t]*+blscfg\b", re.MULTILINE)
_LINES = 200_000  # of a menu; Debian's has 200
# What is not a path in /boot: a variable, another device, a network's file.
_PLAIN = re.compile(rb"/[A-Za-z0-9._+~/-]++")


@dataclass(frozen=True, slots=True)
class BootFiles:
    """Where GRUB finds the kernels: the UUID of their file system, and the path of /boot on it ("" or "/boot")."""

    uuid: UUID
    directory: str

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"


def changed_menu(
    data: bytes, arguments: KernelArguments, files: BootFiles | None, kernels: list[Kernel]
) -> bytes | None:
    """Return a menu with the arguments and, for a system on new file systems, with their UUIDs and paths.

    files is None for a system that boots from where it did. None for a menu that does not boot one of the kernels, as
    far as that can be told.
    """
    if data.count(b"\n") > _LINES:
        return None
    if files is not None:
        if not _BLS.search(data) and not _boots(data, kernels):
            return None
        new = str(files.uuid).encode("ascii")
        data = _SEARCH.sub(lambda line: _IN_SEARCH.sub(new, line.group()), data)
    data = _LINUX.sub(lambda line: _linux(line, arguments, files), data)
    if files is not None:
        data = _INITRD.sub(lambda line: line[1] + b" ".join(moved_path(p, files) for p in line[2].split()), data)
    return _OPTIONS.sub(lambda line: line[1] + arguments.added_to(line[2]), data)


def new_menu(
    system: str, kernels: list[Kernel], arguments: KernelArguments, files: BootFiles, *, program: str, root_device: str
) -> bytes:
    """Return a menu of the kernels. program is what replaces it in the running system.

    root_device is the root= of a kernel that has no initial RAM disk and knows no UUIDs of file systems.
    """
    return "\n".join(_lines_of_menu(system, kernels, arguments, files, program, root_device)).encode("utf-8") + b"\n"


def _lines_of_menu(
    system: str, kernels: list[Kernel], arguments: KernelArguments, files: BootFiles, program: str, root_device: str
) -> Iterator[str]:
    yield "# Written when the instance was installed; this replaces it by the system's own:"
    yield f"#   {program}"
    yield from ("set default=0", "set timeout=5")
    if arguments.serial:
        yield f"serial --unit=0 --speed={SERIAL_SPEED}"
        yield from ("terminal_input console serial", "terminal_output console serial")
    yield f"search --no-floppy --fs-uuid --set=root {files.uuid}"
    name = re.sub(r"[^A-Za-z0-9 ._+/()-]", "", system)[:60] or "Linux"
    for kernel in kernels:
        root = arguments.root if kernel.initrd else f"{root_device} rootwait"
        words = " ".join(arguments.missing(b""))
        yield f"menuentry '{name}, with Linux {kernel.version}' {{"
        yield f"  linux {files.path(kernel.image)} root={root} ro {words}".rstrip()
        if kernel.initrd:
            yield f"  initrd {files.path(kernel.initrd)}"
        yield "}"


def _boots(data: bytes, kernels: list[Kernel]) -> bool:
    names = {kernel.image.encode("ascii") for kernel in kernels}
    return any(line[2].rpartition(b"/")[2] in names for line in _LINUX.finditer(data))


def _linux(line: re.Match[bytes], arguments: KernelArguments, files: BootFiles | None) -> bytes:
    path = line[2] if files is None else moved_path(line[2], files)
    return line[1] + path + arguments.added_to(line[3])


def moved_path(path: bytes, files: BootFiles) -> bytes:
    """Return a path below /boot as it is on the file system of the kernels."""
    if not _PLAIN.fullmatch(path):
        return path
    _, found, inside = path.rpartition(b"/boot/")
    return files.directory.encode("ascii") + (b"/" + inside if found else path)
