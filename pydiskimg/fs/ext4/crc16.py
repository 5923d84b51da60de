# SPDX-License-Identifier: MIT
"""CRC-16 (ANSI, reflected) of group descriptors without metadata_csum; only read here, so bytewise is fast enough."""

from __future__ import annotations

POLYNOMIAL = 0xA001  # reflected 0x8005
START = 0xFFFF


def _byte_register(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_byte_register(byte) for byte in range(256))


def crc16(data: bytes, register: int = START) -> int:
    """Return the register after data, started from register; there is no final inversion (Linux crc16())."""
    for byte in data:
        register = _TABLE[(register ^ byte) & 0xFF] ^ register >> 8
    return register
