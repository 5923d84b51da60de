# SPDX-License-Identifier: MIT
"""Names, which are bytes, as text for messages."""

from __future__ import annotations

_LONGEST = 4096  # bytes


def printable(path: bytes) -> str:
    """Return path as text for messages: bytes that are no UTF-8, and control characters, as backslash escapes.

    What is longer than any path that the kernel takes, as only a hostile archive has it, is cut off.
    """
    if len(path) > _LONGEST:
        return printable(path[:_LONGEST]) + "..."
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def quoted(name: bytes) -> str:
    """Return a name out of an image, safe to print: one line, no control characters, not long."""
    text = name[:100].decode("utf-8", errors="backslashreplace")
    return repr(text) + ("..." if len(name) > 100 else "")
