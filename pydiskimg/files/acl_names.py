# SPDX-License-Identifier: MIT
"""Numbers of users and groups by the unpacked tree's own /etc/passwd and /etc/group; the host is never asked.

GNU tar writes ACLs with names in them, also with --numeric-owner (/var/log/journal has such an ACL on every Debian).
"""

from __future__ import annotations

import os
import stat

from pydiskimg.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from pydiskimg.text import quoted

_LIMIT = 16 << 20
_FILES = {b"user": "etc/passwd", b"group": "etc/group"}


class Names:
    """Looks names up below root_fd, which it borrows. Each file is read once, when the first name is asked for."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._numbers: dict[bytes, dict[bytes, int]] = {}

    def number(self, word: bytes, name: bytes) -> int:
        """Return the number of the user or group (word) of that name. Raises ValueError when there is none."""
        if word not in self._numbers:
            self._numbers[word] = _numbers(self._read(_FILES.get(word, "")))
        found = self._numbers[word].get(name)
        if found is None:
            raise ValueError(
                f"its ACL names the {word.decode()} {quoted(name)} without a number, and "
                f"the tree's {_FILES.get(word)} does not list it; pack with bsdtar or star, which write the number"
            )
        return found

    def _read(self, path: str) -> bytes:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        try:
            fd = openat2(self._root_fd, path, flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError:
            return b""
        try:
            return os.pread(fd, _LIMIT, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)


def _numbers(text: bytes) -> dict[bytes, int]:
    """Return the numbers by name; of a name listed twice the first, as getpwnam(3) does."""
    found: dict[bytes, int] = {}
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 4 and fields[2].isdigit() and len(fields[2]) <= 10:
            found.setdefault(fields[0], int(fields[2]))
    return found
