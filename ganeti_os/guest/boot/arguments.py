# SPDX-License-Identifier: MIT
"""The arguments that a kernel is started with: which are wanted, and how they get into a line that has some."""

from __future__ import annotations

import re
from dataclasses import dataclass

SERIAL_PORT, SERIAL_SPEED = "ttyS0", 115200
_WORD = re.compile(rb"(?:[^\s\"']++|\"[^\"]*+\"|'[^']*+')++")
_ROOT = re.compile(rb"root=(?:UUID=|PARTUUID=|LABEL=|/dev/|[\"'])")


@dataclass(frozen=True, slots=True)
class KernelArguments:
    """words are the administrator's; serial: the console is on the first serial port, too.

    root is what the kernel's root= is to be, such as UUID=...; None: it stays as it is.
    """

    words: tuple[str, ...] = ()
    serial: bool = False
    root: str | None = None

    @classmethod
    def of(cls, text: str, *, serial: bool, root: str | None = None) -> KernelArguments:
        """Return what a setting of one line says."""
        return cls(tuple(text.split()), serial, root)

    def missing(self, line: bytes) -> list[str]:
        """Return the arguments, without root=, that a line lacks; a console of its own on the port counts as ours."""
        found = [word.group().decode("utf-8", "surrogateescape") for word in _WORD.finditer(line)]
        wanted = [word for word in self.words if word not in found]
        consoles = [word for word in (*found, *self.words) if word.startswith("console=tty")]
        if self.serial and not any(word.partition(",")[0] == f"console={SERIAL_PORT}" for word in consoles):
            has_screen = any(not word.startswith("console=ttyS") for word in consoles)
            # The last one is /dev/console, which the init system speaks to.
            wanted += [*([] if has_screen else ["console=tty0"]), f"console={SERIAL_PORT},{SERIAL_SPEED}n8"]
        return wanted

    def added_to(self, line: bytes) -> bytes:
        """Return the words of a kernel's command line with those that it lacks, and with its root= changed."""
        if self.root is not None:
            line = _with_root(line, self.root.encode("ascii"))
        return b" ".join([line, *(word.encode("utf-8", "surrogateescape") for word in self.missing(line))])


def _with_root(line: bytes, root: bytes) -> bytes:
    """Replace the value of each root=; a variable or a name that is none of a device's stays."""
    parts, position = [], 0
    for word in _WORD.finditer(line):
        if _ROOT.match(word.group()):
            parts += [line[position : word.start()], b"root=", root]
            position = word.end()
    return b"".join([*parts, line[position:]])
