# SPDX-License-Identifier: MIT
"""How an unknown GRUB is refused: which file, what was found, what was expected."""

from __future__ import annotations

from pydiskimg.errors import BootLoaderError


def unknown(path: str, what: str, *, found: object, expected: object) -> BootLoaderError:
    """Return the error for a file of GRUB that differs from the known ones; found bytes are shown in hexadecimal."""
    return BootLoaderError(f"{path}: {what} (found {_shown(found)}, expected {_shown(expected)})")


def check(path: str, what: str, *, found: object, expected: object) -> None:
    """Raise BootLoaderError unless found equals expected."""
    if found != expected:
        raise unknown(path, what, found=found, expected=expected)


def _shown(value: object) -> str:
    if not isinstance(value, bytes):
        return str(value)
    return value.hex(" ") or "nothing"
