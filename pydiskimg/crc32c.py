# SPDX-License-Identifier: MIT
"""CRC-32C (Castagnoli) as ext4 uses it, in plain Python. Fast because of messages that share a CRC (docs/adr/0128).

A CRC is the remainder of a division by a polynomial, so two messages have the same CRC if their difference is a
multiple of that polynomial. The polynomial has multiples with only four or six terms: a bit at the beginning of a
message has the same effect on the register as three or five bits at fixed distances after it. All bits of the first
half of a message are therefore moved at once, as one large integer that is shifted and XORed, and nine such steps turn
a message of 4 KiB into one of 42 bytes:

    | first part | rest ...          |
                 | rest ^ first part << one ^ first part << another ^ ... |

Many short messages of one length are computed together, by bytes.translate() on columns, where column i holds byte i of
every message: the register is the exclusive or of the contributions of all bytes, and a contribution depends only on
the byte's value and on the number of bytes that follow.

    message 0   | b0 b1 b2 ... |         column 0 = b0 of message 0, of message 1, ...
    message 1   | b0 b1 b2 ... |    ->   register column = T[0](column 0) ^ T[1](column 1) ^ ...

If google-crc32c or crc32c is installed, it computes large amounts, in a twentieth of the time.

Values are registers: the caller passes the start value, and the result is not inverted (as in Linux's crc32c_le()).
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


POLYNOMIAL = 0x82F63B78  # reflected 0x1EDC6F41, RFC 3720 appendix B.4
START = 0xFFFFFFFF
_SHORT = 48  # bytes that are as fast one after the other
_PIECE = 32 << 10  # bytes; longer integers are no faster for each byte
_KNOWN_LENGTHS = 64
_PATIENCE = 400  # messages that take as long as importing a package

# Distances in bits at which a group of ones has the same effect as a single one at distance 0; ascending.
FOLDS = (
    (11441, 11972, 12446),
    (8965, 9432, 10269),
    (6293, 6677, 6777),
    (4323, 5259, 5685),
    (3946, 3957, 3973, 3999, 4003),
    (2691, 2707, 2747, 2779, 2806),
    (1825, 1868, 1941, 1942, 1944),
    (1252, 1277, 1322, 1423, 1427),
    (922, 981, 992, 1016, 1036),
    (552, 646, 678, 696, 743),
    (454, 505, 510, 532, 563),
    (260, 261, 266, 379, 437),
    (157, 165, 237, 278, 299),
)
_LEAST = 96  # the fewest bits that are worth a step

_Step = tuple[int, int, list[int]]


def byte_table(polynomial: int) -> list[int]:
    """Return the registers that each byte value leaves if the register was 0, for a reflected polynomial."""
    table = [0] * 256
    register, bit = 1, 128
    while bit:
        register = register >> 1 ^ (polynomial if register & 1 else 0)
        for other in range(0, 256, 2 * bit):
            table[bit + other] = register ^ table[other]
        bit >>= 1
    return table


_TABLE = byte_table(POLYNOMIAL)
_steps: dict[int, list[_Step]] = {}
_extend: Callable[[int, bytes], int] | None = None
_patience = _PATIENCE


def _bytewise(data: bytes | bytearray, register: int) -> int:
    table = _TABLE
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    return register


def crc32c(data: bytes | bytearray, register: int = START) -> int:
    """Return the register after data, started from register (for several pieces, pass each result to the next call)."""
    if _extend is not None:
        return _extend(register ^ START, bytes(data)) ^ START
    if len(data) > _PIECE:
        for at in range(0, len(data), _PIECE):
            register = crc32c(data[at : at + _PIECE], register)
        return register
    return _folded(data, register) if len(data) > _SHORT else _bytewise(data, register)


def use_package() -> None:
    """Let google-crc32c or crc32c (in Debian 13) compute all further CRCs, if one is installed with its own library."""
    global _extend, _patience  # noqa: PLW0603 - there is one fastest way in a process
    _patience = 1 << 62
    try:
        import google_crc32c
    except ImportError:
        pass
    else:
        if google_crc32c.implementation == "c":
            _extend = google_crc32c.extend
            return
    try:
        import crc32c as package
    except (ImportError, RuntimeError):  # releases before 2.3 refuse a processor that they do not know
        return
    _extend = _with_value_last(package.crc32c)


def _with_value_last(function: Callable[[bytes, int], int]) -> Callable[[int, bytes], int]:
    return lambda value, data: function(data, value)


def _folded(data: bytes | bytearray, register: int) -> int:
    global _patience  # noqa: PLW0603
    _patience -= 1
    if not _patience:
        use_package()
    value, bits = int.from_bytes(data, "little") ^ register, 8 * len(data)
    steps = _steps.get(bits)
    if steps is None:
        if len(_steps) >= _KNOWN_LENGTHS:
            _steps.clear()
        steps = _steps[bits] = _steps_for(bits)
    for taken, mask, distances in steps:
        first = value & mask
        value >>= taken
        for distance in distances:
            value ^= first << distance
        bits -= taken
    return _bytewise(value.to_bytes(bits // 8, "little"), 0)


def _steps_for(bits: int) -> list[_Step]:
    """Return for each step how many bits it removes from the front, a mask of these bits, and how far they move.

    The square of a multiple is a multiple too, so all distances may be doubled.
    """
    folds = list(FOLDS)
    while 2 * folds[0][-1] < bits:
        folds[:0] = [tuple(2 * distance for distance in fold) for fold in folds[:3]]
    steps: list[_Step] = []
    while True:
        taken, fold = max((min(fold[0], bits - fold[-1]) & ~7, fold) for fold in folds)
        if taken < _LEAST:
            return steps
        steps.append((taken, (1 << taken) - 1, [distance - taken for distance in fold]))
        bits -= taken


_Tables = tuple[bytes, bytes, bytes, bytes]
_translations: list[_Tables] = []


def _translation(distance: int) -> _Tables:
    """Return the register (from 0) after each byte value and that many zero bytes, as four tables for translate(),
    lowest register byte first.
    """
    if not _translations:
        words = b"".join(register.to_bytes(4, "little") for register in _TABLE)
        _translations.append((words[0::4], words[1::4], words[2::4], words[3::4]))
    while len(_translations) <= distance:
        _translations.append(_one_byte_further(_translations[-1]))
    return _translations[distance]


def _one_byte_further(tables: _Tables) -> _Tables:
    """Return the tables for one more zero byte, which is a step of _bytewise() for all 256 registers at once."""
    lowest, *others = tables
    moved = (*others, bytes(256))
    first, second, third, fourth = (
        (int.from_bytes(lowest.translate(table), "little") ^ int.from_bytes(part, "little")).to_bytes(256, "little")
        for table, part in zip(_translations[0], moved, strict=True)
    )
    return first, second, third, fourth


def crc32c_columns(columns: Sequence[bytes], register: int = START) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the registers of many messages of one length at once, as four byte columns, lowest byte first.

    columns[i] holds byte i of every message; all columns are of one length.
    """
    count, length = len(columns[0]), len(columns)
    start = crc32c(bytes(length), register).to_bytes(4, "little")
    sums = [int.from_bytes(bytes([byte]) * count, "little") for byte in start]
    for index, column in enumerate(columns):
        if column.count(0) == count:
            continue
        for position, table in enumerate(_translation(length - 1 - index)):
            sums[position] ^= int.from_bytes(column.translate(table), "little")
    low, second, third, high = (value.to_bytes(count, "little") for value in sums)
    return low, second, third, high
