# SPDX-License-Identifier: MIT
"""Our lines at the end of a file that other people edit, too."""

from __future__ import annotations

from ganeti_os.guest.network.writing.nic_plan import HEADER
from pydiskimg.system.edits.text import ended

_END = b"# End of what was written for this instance\n"


def own_block(data: bytes) -> range:
    """Return the range of our lines; empty if there are none. Without their end mark they reach to the file's end."""
    end = _last_line(data, _END, len(data))
    start = _last_line(data, HEADER, end) if end >= 0 else -1
    if start >= 0:
        return range(start, end + len(_END))
    start = _last_line(data, HEADER, len(data))
    return range(start, len(data)) if start >= 0 else range(0)


def _last_line(data: bytes, line: bytes, end: int) -> int:
    """Return the start of the last such line before end, or -1; a line that continues the one above does not count."""
    start = data.rfind(line, 0, end)
    while start > 0 and (data[start - 1 : start] != b"\n" or data[start - 2 : start] == b"\\\n"):
        start = data.rfind(line, 0, start + len(line) - 1)
    return start


def with_block(data: bytes, lines: bytes) -> bytes:
    """Return data with our lines replaced, or appended; without new lines they are removed."""
    old = own_block(data)
    block = HEADER + lines + _END if lines else b""
    if old:
        return data[: old.start] + block + data[old.stop :]
    if not block:
        return data
    blank = b"\n" if data and not data.endswith(b"\n\n") else b""
    return ended(data) + blank + block
