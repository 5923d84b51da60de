# SPDX-License-Identifier: MIT
"""CRC-32C (Castagnoli) as ext4 uses it, in plain Python made fast by the linearity of a CRC.

The register after a message is the exclusive or of what each of its bytes contributes, and a contribution depends
only on the byte's value and on the number of bytes that follow. A table per distance from the end therefore turns
"the checksums of n messages of one length" into a few bytes.translate() and int ^ int calls on columns, where column
i holds byte i of every message:

    message 0   | b0 b1 b2 ... |         column 0 = b0 of message 0, of message 1, ...
    message 1   | b0 b1 b2 ... |    ->   register column = T[0](column 0) ^ T[1](column 1) ^ ...

A single long message is cut into rows of one length, which are checksummed in this way and then joined.
Values are registers: the start value is handed in, and the result is not inverted (Linux crc32c_le() is the same).
"""

from __future__ import annotations

from collections.abc import Sequence

POLYNOMIAL = 0x82F63B78  # reflected 0x1EDC6F41, RFC 3720 appendix B.4
START = 0xFFFFFFFF
_ROW = 32  # bytes; 32 balances the number of columns against the number of rows for blocks of 1 to 4 KiB


def _byte_register(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


# _CONTRIBUTION[k][b]: the register that byte b and k zero bytes after it leave behind, from register 0.
_CONTRIBUTION: list[list[int]] = [[_byte_register(byte) for byte in range(256)]]
_TRANSLATION: list[tuple[bytes, bytes, bytes, bytes]] = []


def _contribution(distance: int) -> list[int]:
    first = _CONTRIBUTION[0]
    while len(_CONTRIBUTION) <= distance:
        _CONTRIBUTION.append([first[value & 0xFF] ^ value >> 8 for value in _CONTRIBUTION[-1]])
    return _CONTRIBUTION[distance]


def _translation(distance: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the contribution table of a distance as four tables for bytes.translate(), lowest register byte first."""
    while len(_TRANSLATION) <= distance:
        words = b"".join(value.to_bytes(4, "little") for value in _contribution(len(_TRANSLATION)))
        _TRANSLATION.append((words[0::4], words[1::4], words[2::4], words[3::4]))
    return _TRANSLATION[distance]


def _bytewise(data: bytes | bytearray, register: int) -> int:
    table = _CONTRIBUTION[0]
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    return register


def crc32c(data: bytes | bytearray, register: int = START) -> int:
    """Return the register after data, started from register (chain calls to checksum several pieces as one)."""
    if len(data) < 2 * _ROW:
        return _bytewise(data, register)
    head = int.from_bytes(data[:4], "little") ^ register
    # Zero bytes in front of a message do not change its register when the start value is 0.
    padded = bytes(-len(data) % _ROW) + head.to_bytes(4, "little") + data[4:]
    rows = crc32c_columns([padded[index::_ROW] for index in range(_ROW)], 0)
    words = bytearray(4 * len(rows[0]))
    for index, column in enumerate(rows):
        words[index::4] = column
    return _join(memoryview(words).cast("I") if _LITTLE else _words(words))


_LITTLE = memoryview(b"\1\0\0\0").cast("I")[0] == 1


def _words(data: bytearray) -> list[int]:
    return [int.from_bytes(data[index : index + 4], "little") for index in range(0, len(data), 4)]


def _join(rows: Sequence[int] | memoryview) -> int:
    """Return the register of rows of _ROW bytes after each other from the registers of the single rows."""
    shift = [_contribution(_ROW - 1 - index) for index in range(4)]
    low, second, third, high = shift
    register = 0
    for row in rows:
        register = (
            row
            ^ low[register & 0xFF]
            ^ second[register >> 8 & 0xFF]
            ^ third[register >> 16 & 0xFF]
            ^ high[register >> 24]
        )
    return register


def crc32c_each(messages: Sequence[bytes | bytearray], registers: Sequence[int]) -> list[int]:
    """Return the registers after messages of one length, of 4 bytes or more, each started from its own register.

    As for one long message, and the rows are joined for all messages at once: a tenth of the time for 4 KiB each.
    """
    length = len(messages[0])
    front = bytes(-length % _ROW)
    padded = b"".join(
        front + (int.from_bytes(message[:4], "little") ^ register).to_bytes(4, "little") + message[4:]
        for message, register in zip(messages, registers, strict=True)
    )
    rows = (len(front) + length) // _ROW
    columns = crc32c_columns([padded[index::_ROW] for index in range(_ROW)], 0)
    count = len(messages)
    joined = [column[::rows] for column in columns]
    shifts = [_translation(_ROW - 1 - index) for index in range(4)]
    for row in range(1, rows):
        sums = [int.from_bytes(column[row::rows], "little") for column in columns]
        for part, tables in zip(joined, shifts, strict=True):
            for position, table in enumerate(tables):
                sums[position] ^= int.from_bytes(part.translate(table), "little")
        joined = [value.to_bytes(count, "little") for value in sums]
    words = b"".join(bytes(four) for four in zip(*joined, strict=True))
    return _words(bytearray(words))


def crc32c_columns(columns: Sequence[bytes], register: int = START) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the registers of many messages of one length at once, as four byte columns, lowest byte first.

    columns[i] holds byte i of every message; all columns are of one length.
    """
    count, length = len(columns[0]), len(columns)
    start = _bytewise(bytes(length), register).to_bytes(4, "little")
    sums = [int.from_bytes(bytes([byte]) * count, "little") for byte in start]
    for index, column in enumerate(columns):
        if column.count(0) == count:
            continue
        for position, table in enumerate(_translation(length - 1 - index)):
            sums[position] ^= int.from_bytes(column.translate(table), "little")
    low, second, third, high = (value.to_bytes(count, "little") for value in sums)
    return low, second, third, high
