# SPDX-License-Identifier: MIT
"""The hashes that order the names of a large directory (hash_index.rst; Linux, fs/ext4/hash.c).

Half MD4 is the default; in directories with TEA or the legacy hash, those are read and kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from pydiskimg.fs.ext4 import layout

_MASK = 0xFFFFFFFF
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)  # MD4's, for a seed of zeros
_MD4_WORDS, _TEA_WORDS = 8, 4  # of a name, for each turn
_ROUND_2, _ROUND_3 = 0x5A827999, 0x6ED9EBA1  # MD4's constants
_ROUNDS_2, _ROUNDS_3 = ((1, 3, 5, 7), (0, 2, 4, 6)), ((3, 7, 2, 6), (1, 5, 0, 4))  # the order of a name's words
_TEA_DELTA, _TEA_TURNS = 0x9E3779B9, 16
_LEGACY_START, _LEGACY_FACTOR = (0x12A3FE2D, 0x37ABE8F9), 7152373
_END_OF_DIRECTORY = 0xFFFFFFFE  # reserved by readdir(): the hash of no name

State = tuple[int, int, int, int]


class DirectoryHash:
    """Hashes names with the seed of one file system; is_signed tells how bytes from 0x80 on are read."""

    def __init__(self, seed: bytes, *, is_signed: bool, version: int = layout.HASH_HALF_MD4) -> None:
        """Raises KeyError for a version that is not implemented here."""
        words: State = struct.unpack("<4I", seed)
        self.version = version
        self._start: State = words if any(words) else _START
        self._is_signed = is_signed
        self._hashed = _HASHES[version]

    def __call__(self, name: bytes) -> int:
        """Return the hash, an even number."""
        found = self._hashed(name, self._start, self._is_signed) & ~1
        return found - 2 if found == _END_OF_DIRECTORY else found


def _legacy(name: bytes, _start: State, is_signed: bool) -> int:
    value, before = _LEGACY_START
    for byte in name:
        number = byte - 256 if is_signed and byte > 127 else byte
        following = before + (value ^ (number * _LEGACY_FACTOR & _MASK)) & _MASK
        if following & 0x80000000:
            following -= 0x7FFFFFFF
        value, before = following, value
    return value << 1 & _MASK


def _tea(name: bytes, start: State, is_signed: bool) -> int:
    first, second, *_ = start
    for a, b, c, d in _words(name, _TEA_WORDS, is_signed):
        one, other, added = first, second, 0
        for _ in range(_TEA_TURNS):
            added += _TEA_DELTA
            one = one + (((other << 4) + a) ^ (other + added) ^ ((other >> 5) + b)) & _MASK
            other = other + (((one << 4) + c) ^ (one + added) ^ ((one >> 5) + d)) & _MASK
        first, second = first + one & _MASK, second + other & _MASK
    return first


def _half_md4(name: bytes, start: State, is_signed: bool) -> int:
    for words in _words(name, _MD4_WORDS, is_signed):
        start = _md4_turn(start, words)
    return start[1]


def _md4_turn(start: State, words: tuple[int, ...]) -> State:
    """Return the state after eight words.

    The three rounds of eight steps are unrolled, because they take most of the time of writing a large directory.
    """
    a, b, c, d = start
    for i in (0, 4):
        a = a + (d ^ b & (c ^ d)) + words[i] & _MASK
        a = a << 3 & _MASK | a >> 29
        d = d + (c ^ a & (b ^ c)) + words[i + 1] & _MASK
        d = d << 7 & _MASK | d >> 25
        c = c + (b ^ d & (a ^ b)) + words[i + 2] & _MASK
        c = c << 11 & _MASK | c >> 21
        b = b + (a ^ c & (d ^ a)) + words[i + 3] & _MASK
        b = b << 19 & _MASK | b >> 13
    for i, j, k, m in _ROUNDS_2:
        a = a + (b & c) + ((b ^ c) & d) + words[i] + _ROUND_2 & _MASK
        a = a << 3 & _MASK | a >> 29
        d = d + (a & b) + ((a ^ b) & c) + words[j] + _ROUND_2 & _MASK
        d = d << 5 & _MASK | d >> 27
        c = c + (d & a) + ((d ^ a) & b) + words[k] + _ROUND_2 & _MASK
        c = c << 9 & _MASK | c >> 23
        b = b + (c & d) + ((c ^ d) & a) + words[m] + _ROUND_2 & _MASK
        b = b << 13 & _MASK | b >> 19
    for i, j, k, m in _ROUNDS_3:
        a = a + (b ^ c ^ d) + words[i] + _ROUND_3 & _MASK
        a = a << 3 & _MASK | a >> 29
        d = d + (a ^ b ^ c) + words[j] + _ROUND_3 & _MASK
        d = d << 9 & _MASK | d >> 23
        c = c + (d ^ a ^ b) + words[k] + _ROUND_3 & _MASK
        c = c << 11 & _MASK | c >> 21
        b = b + (c ^ d ^ a) + words[m] + _ROUND_3 & _MASK
        b = b << 15 & _MASK | b >> 17
    return start[0] + a & _MASK, start[1] + b & _MASK, start[2] + c & _MASK, start[3] + d & _MASK


def _words(name: bytes, count: int, is_signed: bool) -> Iterator[tuple[int, ...]]:
    """Yield tuples of so many words of four bytes, the first byte highest.

    The space after the name's end, also within a word, is filled with the remaining length.
    """
    form = _FORMS[count]
    for at in range(0, len(name), 4 * count):
        piece = name[at : at + 4 * count]
        fill = bytes([len(name) - at])
        within = len(piece) % 4
        if within:
            piece = piece[:-within] + fill * (4 - within) + piece[-within:]
        if is_signed and not piece.isascii():
            yield _signed_words(name[at : at + 4 * count], fill[0], count)
        else:
            yield form.unpack(piece.ljust(form.size, fill))


def _signed_words(piece: bytes, left: int, count: int) -> tuple[int, ...]:
    """As _words() of one piece, with bytes from 0x80 on as negative numbers: each borrows one from those above it."""
    found = []
    for at in range(0, 4 * count, 4):
        word = left * 0x01010101
        for byte in piece[at : at + 4]:
            word = (word << 8) + byte - (256 if byte > 127 else 0) & _MASK
        found.append(word)
    return tuple(found)


_FORMS = {count: struct.Struct(f">{count}I") for count in (_MD4_WORDS, _TEA_WORDS)}
_HASHES: dict[int, Callable[[bytes, State, bool], int]] = {
    layout.HASH_LEGACY: _legacy,
    layout.HASH_HALF_MD4: _half_md4,
    layout.HASH_TEA: _tea,
}
COMPUTED_HASHES = frozenset(_HASHES)
"""The hash versions that are implemented here; the kernel's casefolded and encrypted names have another one."""


def table_limit(block_size: int, start: int, *, has_checksums: bool) -> int:
    """Return how many entries fit in a table of hashes that begins at byte start of its block."""
    tail = layout.DX_TAIL.size if has_checksums else 0
    return (block_size - start - tail) // layout.DX_ENTRY.size
