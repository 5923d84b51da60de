# SPDX-License-Identifier: MIT
"""Kernels' arguments outside of grub.cfg: BLS entries, GRUB's environment block, extlinux, and defaults for later
kernels.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from pydiskimg.system.boot.kernel_arguments import has_root
from pydiskimg.system.boot.volumes import BootVolumes
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.shell_values import shell_values
from pydiskimg.system.edits.span import substituted
from pydiskimg.system.edits.text import decoded, encoded

log = logging.getLogger(__name__)

ENTRIES = "/boot/loader/entries"
_KERNEL_CMDLINE = "/etc/kernel/cmdline"  # kernel-install gives it to the entries of later kernels
_ENVIRONMENT_HEADER = b"# GRUB Environment Block\n"
_KERNELOPTS = re.compile(rb"^kernelopts=([^\n\\]*+)\n", re.MULTILINE)
_FIELD = re.compile(r"(linux|initrd|options)([ \t]++)([^\r]*+)(\r?)")
_EXTLINUX = ("/boot/extlinux.conf", "/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg")
_APPEND = re.compile(r"([ \t]*+append[ \t]++)([^\r]*+)(\r?)", re.IGNORECASE)
_UPDATE_EXTLINUX = "/etc/update-extlinux.conf"  # Alpine generates extlinux.conf from it when a kernel is installed
_WHAT = "the kernel's arguments"

Arguments = Callable[[str], str]  # the new line for a line of arguments


def change_entries(draft: Draft, arguments: Arguments, boot: BootVolumes | None = None) -> list[str]:
    """Change the arguments of every BLS entry; with boot, also the path of its kernel. Return the entries' paths.

    An entry whose kernel is not in /boot is logged, not changed, and not among the paths.
    """
    changed = []
    for path in draft.files(ENTRIES, "*.conf"):
        text = decoded(draft.read(path) or b"")
        lines = [_changed_line(line, arguments, boot, draft) for line in text.split("\n")]
        if None in lines:
            log.warning("%s: starts a kernel that is not in /boot; the entry is not changed", path)
            continue
        new = "\n".join(line for line in lines if line is not None)
        draft.change(path, encoded(new), _WHAT)
        changed.append(path)
    return changed


def _changed_line(line: str, arguments: Arguments, boot: BootVolumes | None, draft: Draft) -> str | None:
    match = _FIELD.fullmatch(line)
    if match is None:
        return line
    name, blank, rest, end = match.groups()
    if name == "options":
        return line if "$kernelopts" in rest else f"{name}{blank}{arguments(rest)}{end}"
    if boot is None:
        return line
    words = [word if word.startswith("$") else boot.moved(word, draft.is_file) for word in rest.split()]
    if None in words:
        return None
    return f"{name}{blank}{' '.join(word for word in words if word is not None)}{end}"


def change_environment(draft: Draft, home: str, arguments: Arguments) -> None:
    """Change kernelopts in GRUB's environment block, if it exists: RHEL 8 keeps the arguments of all entries there."""
    path = f"/boot/{home}/grubenv"
    data = draft.read(path)
    match = _KERNELOPTS.search(data) if data and data.startswith(_ENVIRONMENT_HEADER) else None
    if data is None or match is None:
        return
    options = encoded(arguments(decoded(match[1])))
    text = data[: match.start(1)] + options + data[match.end(1) :].rstrip(b"#")
    if len(text) > len(data) or b"\\" in options:
        log.warning("%s: the kernel's arguments do not fit into it and are not changed", path)
        return
    draft.change(path, text.ljust(len(data), b"#"), _WHAT)


def change_kernel_command_line(draft: Draft, arguments: Arguments) -> None:
    """Change the arguments that kernel-install gives to later kernels, if the system has such a file."""
    data = draft.read(_KERNEL_CMDLINE)
    if data and data.strip():
        line = " ".join(decoded(data).split())
        draft.change(_KERNEL_CMDLINE, encoded(arguments(line) + "\n"), _WHAT)


def change_extlinux(draft: Draft, arguments: Arguments) -> None:
    """Change the arguments of the kernels that extlinux or syslinux starts, and of those that Alpine installs later."""
    for path in _EXTLINUX:
        data = draft.read(path)
        if data is not None:
            lines = decoded(data).split("\n")
            changed = [_changed_append(line, arguments) for line in lines]
            draft.change(path, encoded("\n".join(changed)), _WHAT)
    data = draft.read(_UPDATE_EXTLINUX)
    values = shell_values(data or b"", ("default_kernel_opts",))
    span = values[-1].span if values else None
    if data is None or span is None or data[span.start - 1 : span.start] != b'"':
        return
    options = arguments(decoded(span.text))
    if not any(byte in options for byte in '"\\$`'):
        changed_text = encoded(options)
        draft.change(_UPDATE_EXTLINUX, substituted(data, [(span, changed_text)]), _WHAT)


def _changed_append(line: str, arguments: Arguments) -> str:
    match = _APPEND.fullmatch(line)
    if match is None or not has_root(match[2].split()):
        return line
    return match[1] + arguments(match[2]) + match[3]
