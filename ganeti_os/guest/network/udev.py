# SPDX-License-Identifier: MIT
"""Which name udev (and mdev, or ifrename before it) gives an interface by its hardware address."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeti_os.guest.facts.addresses import Interface
from ganeti_os.guest.network.files import NetworkFiles
from pydiskimg.system.edits.span import Span

_DIRECTORIES = ("/etc/udev/rules.d", "/run/udev/rules.d")
_RULE = re.compile(rb"^[ \t]*+(?:[^#\s\\]|\\[^\n])(?:[^\\\n]|\\(?:\n|[^\n]))*+", re.MULTILINE)
_MAC = re.compile(rb"(?:ATTRS?|SYSFS)\{address\}==\"([0-9A-Fa-f:]{17})\"")
_NAME = re.compile(rb"[ \t,]NAME:?=\"([^\"\n]{1,64})\"")
_TABLES = ("/etc/mactab", "/etc/iftab")
_ROW = re.compile(rb"^[ \t]*+([^#\s]++)[ \t]++(?:mac[ \t]++)?([0-9A-Fa-f:]{17})(?!\S)", re.MULTILINE)


def udev_names(files: NetworkFiles) -> Iterator[Interface]:
    """Yield an interface for each rule or row that names one by its hardware address."""
    for path in files.search_path(_DIRECTORIES, "*.rules"):
        data = files.read(path)
        for rule in _RULE.finditer(data):
            mac, name = _MAC.search(data, *rule.span()), _NAME.search(data, *rule.span())
            if mac and name:
                yield _named(path, name.group(1), Span.of(mac, 1))
    for path in _TABLES:
        if files.is_file(path):
            for row in _ROW.finditer(files.read(path)):
                yield _named(path, row.group(1), Span.of(row, 2))


def _named(path: str, name: bytes, mac: Span) -> Interface:
    interface = Interface(name.decode("latin-1"), names_only=True)
    interface.add(path, "mac", mac)
    return interface
