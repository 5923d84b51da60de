# SPDX-License-Identifier: MIT
"""Sizes as people write and read them; everything is bytes inside."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

_SUFFIXES = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB, "p": 1 << 50, "e": 1 << 60}
_SIZE = r"(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]+))?(?: ?(?P<suffix>[kmgtpe])(?:i?b)?|b?)|(?P<hexadecimal>0x[0-9a-f]+)"
_LONGEST = 100  # characters in a size


def format_size(size: int) -> str:
    """Return size (bytes) in the largest binary unit that keeps it at or above one: 10 GiB, 1.5 MiB, 512 bytes."""
    for suffix, unit in (("EiB", 1 << 60), ("PiB", 1 << 50), ("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= unit:
            return f"{size / unit:.3g} {suffix}" if size < 1000 * unit else f"{size // unit} {suffix}"
    return f"{size} bytes"


def qemu_size(size: int) -> str:
    """Return size (bytes) in three digits, as qemu-img prints it: 10 GiB, 1.5 MiB, 512 B, 0.977 MiB (1000 KiB)."""
    power = next((power for power in range(6, 0, -1) if size >= 1000 << 10 * (power - 1)), 0)
    return f"{size / (1 << 10 * power):.3g} {' KMGTPE'[power].strip()}{'i' * bool(power)}B"


def format_bytes(size: int) -> str:
    """Return size exactly and readably: 10737418240 bytes (10 GiB)."""
    if size < KIB:
        return f"{size} bytes"
    return f"{size} bytes ({format_size(size)})"


def parse_size(text: str) -> int:
    """Return the bytes that text names: 1048576, 0x100000, 512k, 10G, 1.5T, as qemu-img reads them (powers of 1024).

    Raises ValueError for anything else: a negative size, one over 8 EiB, and a fraction of a byte.
    """
    import re

    match = re.fullmatch(_SIZE, text, re.IGNORECASE | re.ASCII) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(
            f"{text[:_LONGEST]!r} is not a size; expected a number and k, M, G, T, P or E, such as 512M or 10G"
        )
    if match["hexadecimal"]:
        size = int(match["hexadecimal"], 16)
    else:
        unit, part = _SUFFIXES[(match["suffix"] or "").lower()], match["part"] or ""
        size = int(match["whole"] + part) * unit // 10 ** len(part)
        if int(part or 0) and (unit == 1 or size == 0):
            raise ValueError(f"{text!r} is not a whole number of bytes")
    if size >= 1 << 63:
        raise ValueError(f"{text!r} is larger than any disk can be (8 EiB)")
    return size
