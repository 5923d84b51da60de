# SPDX-License-Identifier: MIT
"""Sizes as people write and read them; inside the program all sizes are bytes."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

_UNITS = {"": 1, "b": 1} | {
    space + letter + end: 1 << 10 * power
    for power, letter in enumerate("kmgtpe", 1)
    for space in ("", " ")
    for end in ("", "b", "ib")
}
_LONGEST = 100  # characters in a size


def format_size(size: int) -> str:
    """Return size (bytes) in the largest binary unit that is not larger than it: 10 GiB, 1.5 MiB, 512 bytes."""
    for suffix, unit in (("EiB", 1 << 60), ("PiB", 1 << 50), ("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= unit:
            return f"{size / unit:.3g} {suffix}" if size < 1000 * unit else f"{size // unit} {suffix}"
    return f"{size} bytes"


def qemu_size(size: int) -> str:
    """Return size (bytes) with three digits, as qemu-img prints it: 10 GiB, 1.5 MiB, 512 B, 0.977 MiB (1000 KiB)."""
    power = next((power for power in range(6, 0, -1) if size >= 1000 << 10 * (power - 1)), 0)
    return f"{size / (1 << 10 * power):.3g} {' KMGTPE'[power].strip()}{'i' * bool(power)}B"


def format_bytes(size: int) -> str:
    """Return size exactly and in a readable unit: 10737418240 bytes (10 GiB)."""
    if size < KIB:
        return f"{size} bytes"
    return f"{size} bytes ({format_size(size)})"


def parse_size(text: str) -> int:
    """Return the bytes that text stands for: 1048576, 0x100000, 512k, 10G, 1.5T, as qemu-img does (powers of 1024).

    Raises ValueError for anything else: a negative size, one over 8 EiB, and a fraction of a byte.
    """
    size = _size(text) if text.isascii() and len(text) <= _LONGEST else None
    if size is None:
        raise ValueError(
            f"{text[:_LONGEST]!r} is not a size; expected a number and k, M, G, T, P or E, such as 512M or 10G"
        )
    if size >= 1 << 63:
        raise ValueError(f"{text!r} is larger than any disk can be (8 EiB)")
    return size


def _size(text: str) -> int | None:
    """Return the bytes that text stands for; None if it is not a size. Raises ValueError for a fraction of a byte."""
    spelled = text.lower()
    if spelled.startswith("0x"):
        digits = spelled[2:]
        return int(digits, 16) if digits and not digits.strip("0123456789abcdef") else None
    number = spelled.rstrip("bikmgtpe ")
    unit = _UNITS.get(spelled[len(number) :])
    whole, point, part = number.partition(".")
    if unit is None or not whole.isdecimal() or (point and not part.isdecimal()):
        return None
    size: int = int(whole + part) * unit // 10 ** len(part)
    if int(part or 0) and (unit == 1 or not size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size
