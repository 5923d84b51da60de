# SPDX-License-Identifier: MIT
"""What update-grub and grub-install of the running system go by, so that a later menu boots as the one that is written.

/etc/default/grub             arguments of the kernels, and GRUB's own terminal
/var/cache/debconf/config.dat  where Debian's package grub-pc installs GRUB anew when it is upgraded (ADR 0096)
"""

from __future__ import annotations

import re

from ganeti_os.guest.boot.arguments import SERIAL_SPEED, KernelArguments
from ganeti_os.guest.draft import Draft
from ganeti_os.guest.network.shell_values import shell_values
from ganeti_os.guest.network.span import substituted

PATH = "/etc/default/grub"
_PROGRAMS = ("/usr/sbin/update-grub", "/usr/sbin/grub-mkconfig", "/usr/sbin/grub2-mkconfig", "/usr/bin/grub-mkconfig")
_DEBCONF = "/var/cache/debconf/config.dat"
_DEBCONF_LIMIT = 8 << 20  # bytes
_DEVICES = re.compile(rb"^Name: grub-pc/install_devices\n(?:[A-Z][a-z]++:[^\n]*+\n|[ \t][^\n]*+\n)*+", re.MULTILINE)
_VALUE = re.compile(rb"^Value:[^\n]*+\n(?:[ \t][^\n]*+\n)*+", re.MULTILINE)


def has_grub(draft: Draft) -> bool:
    """True for a system that can make a menu of GRUB by itself."""
    return any(map(draft.exists, _PROGRAMS))


def change_defaults(draft: Draft, arguments: KernelArguments) -> None:
    """Let later menus have the arguments and, for a serial console, GRUB itself on the serial port."""
    data = draft.read(PATH) if draft.is_file(PATH) else None
    if data is None and not has_grub(draft):
        return
    wanted = {}
    line = _assigned(data or b"", "GRUB_CMDLINE_LINUX") + b" " + _assigned(data or b"", "GRUB_CMDLINE_LINUX_DEFAULT")
    missing = KernelArguments(arguments.words, arguments.serial).missing(line)
    if missing:
        old = _assigned(data or b"", "GRUB_CMDLINE_LINUX").decode("utf-8", "surrogateescape")
        wanted["GRUB_CMDLINE_LINUX"] = " ".join([*old.split(), *missing])
    if arguments.serial:
        if b"serial" not in _assigned(data or b"", "GRUB_TERMINAL"):
            wanted["GRUB_TERMINAL"] = "console serial"
        if not _assigned(data or b"", "GRUB_SERIAL_COMMAND"):
            wanted["GRUB_SERIAL_COMMAND"] = f"serial --unit=0 --speed={SERIAL_SPEED}"
    if wanted:
        draft.change(PATH, _with(data or b"", wanted), f"{', '.join(wanted)} for later menus")


def _assigned(data: bytes, name: str) -> bytes:
    values = [value.span.text for value in shell_values(data, (name,)) if value.span is not None]
    return values[-1] if values else b""


def _with(data: bytes, wanted: dict[str, str]) -> bytes:
    """Give each variable its value where it is assigned last, or at the end where it is not, or not in plain text."""
    replacements, added = [], []
    for name, text in wanted.items():
        value = f'"{_quoted(text)}"'.encode("utf-8", "surrogateescape")
        found = shell_values(data, (name,))
        if found and found[-1].span is not None:
            span = found[-1].span
            quotes = data[max(span.start - 1, 0) : span.start]
            inner = value[1:-1] if quotes == b'"' else value
            if quotes != b"'":
                replacements.append((span, inner))
                continue
        added.append(name.encode("ascii") + b"=" + value + b"\n")
    data = substituted(data, replacements)
    line_end = b"" if not data or data.endswith(b"\n") or not added else b"\n"
    return data + line_end + b"".join(added)


def _quoted(text: str) -> str:
    return re.sub(r"([\"\\$`])", r"\\\1", text)


def change_install_device(draft: Draft, device: str) -> None:
    """Let Debian's grub-pc install itself on the device when it is upgraded, where it was to do so on another disk."""
    if not draft.is_file(_DEBCONF):
        return
    data = draft.read(_DEBCONF, limit=_DEBCONF_LIMIT) or b""
    entry = _DEVICES.search(data)
    if entry is None:
        return
    value = f"Value: {device}\n".encode("ascii")
    text = entry.group()
    changed = _VALUE.sub(value, text, count=1) if _VALUE.search(text) else text + value
    whole = data[: entry.start()] + changed + data[entry.end() :]
    draft.change(_DEBCONF, whole, f"grub-pc installs GRUB on {device}")
