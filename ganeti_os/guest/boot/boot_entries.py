# SPDX-License-Identifier: MIT
"""Boot Loader Specification entries of Red Hat and Fedora, and what else holds a kernel's command line there."""

from __future__ import annotations

import re

from ganeti_os.guest.boot.arguments import KernelArguments
from ganeti_os.guest.boot.grub_cfg import BootFiles, moved_path
from ganeti_os.guest.draft import Draft

ENTRIES = "/boot/loader/entries"
_ENVIRONMENTS = ("/boot/grub2/grubenv", "/boot/grub/grubenv")
_ENVIRONMENT_SIZE = 1024  # bytes; GRUB writes to its blocks in place
_ENVIRONMENT_HEAD = b"# GRUB Environment Block\n"
_COMMAND_LINE = "/etc/kernel/cmdline"  # for kernels that are installed later
_LINE = re.compile(rb"^([ \t]*+(options|linux|initrd)[ \t]++)([^\r\n]*+)", re.MULTILINE)
_OPTIONS = re.compile(rb"^(kernelopts=)([^\n]*+)", re.MULTILINE)


def change_boot_entries(draft: Draft, arguments: KernelArguments, files: BootFiles | None) -> bool:
    """Bring all entries up to date; False where there are none.

    files is where the kernels of a system on new file systems are; None: where they were.
    """
    paths = draft.files(ENTRIES, "*.conf")
    for path in paths:
        data = draft.read(path) or b""
        changed = _LINE.sub(lambda line: line[1] + _value(line[2], line[3], arguments, files), data)
        draft.change(path, changed, "the kernel's arguments")
    for path in _ENVIRONMENTS:
        if draft.is_file(path):
            _change_environment(draft, path, arguments)
    if draft.is_file(_COMMAND_LINE):
        line = (draft.read(_COMMAND_LINE) or b"").rstrip()
        draft.change(_COMMAND_LINE, arguments.added_to(line) + b"\n", "the kernel's arguments")
    return bool(paths)


def _value(keyword: bytes, value: bytes, arguments: KernelArguments, files: BootFiles | None) -> bytes:
    if keyword == b"options":
        # The rest of the arguments is in a variable of the environment block, on RHEL 8.
        return value if value.strip() == b"$kernelopts" else arguments.added_to(value)
    if files is None:
        return value
    return b" ".join(moved_path(path, files) for path in value.split())


def _change_environment(draft: Draft, path: str, arguments: KernelArguments) -> None:
    data = draft.read(path) or b""
    if len(data) != _ENVIRONMENT_SIZE or not data.startswith(_ENVIRONMENT_HEAD):
        return
    text = data.rstrip(b"#")
    changed = _OPTIONS.sub(lambda line: line[1] + arguments.added_to(line[2]), text)
    if changed != text and len(changed) <= _ENVIRONMENT_SIZE:
        draft.change(path, changed.ljust(_ENVIRONMENT_SIZE, b"#"), "the kernel's arguments")
