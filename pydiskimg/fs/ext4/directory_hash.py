# SPDX-License-Identifier: MIT
"""The hashes that order the names of a large directory (hash_index.rst; Linux, fs/ext4/hash.c).

Half MD4 is the default; in directories with TEA or the legacy hash, those are read and kept.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from pydiskimg.fs.ext4 import layout

_MASK = 0xFFFFFFFF
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)  # MD4's, for a seed of zeros
_MD4_WORDS, _TEA_WORDS = 8, 4  # of a name, for each turn
_ROUND_2, _ROUND_3 = 0x5A827999, 0x6ED9EBA1  # MD4's constants
_ROUNDS_2, _ROUNDS_3 = ((1, 3, 5, 7), (0, 2, 4, 6)), ((3, 7, 2, 6), (1, 5, 0, 4))  # the order of a name's words
_TEA_DELTA, _TEA_TURNS = 0x9E3779B9, 16
_LEGACY_START, _LEGACY_FACTOR = (0x12A3FE2D, 0x37ABE8F9), 7152373
_END_OF_DIRECTORY = 0xFFFFFFFE  # reserved by readdir(): the hash of no name

_BATCH = 1 << 10  # names that are hashed at once
_LEAST_BATCH = 8  # below, one after the other is faster

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
        return _usable(self._hashed(name, self._start, self._is_signed))

    def of_each(self, names: Iterable[bytes]) -> Iterator[int]:
        """Yield the hashes of names in order; for many names this takes a fraction of the time."""
        rest = iter(names)
        while batch := [*islice(rest, _BATCH)]:
            if self.version == layout.HASH_HALF_MD4 and len(batch) >= _LEAST_BATCH:
                yield from map(_usable, _half_md4_of_each(batch, self._start, self._is_signed))
            else:
                yield from map(self, batch)


def _usable(found: int) -> int:
    found &= ~1
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
        start = _md4_turn(start, words, _MASK, _ROUND_2, _ROUND_3)
    return start[1]


def _half_md4_of_each(names: list[bytes], start: State, is_signed: bool) -> list[int]:
    """Return the hashes before their last bit is cleared; names of equally many pieces are hashed at once.

    A lane of 64 bits of each number belongs to one name: the upper half takes what a sum or a shift carries over
    (docs/adr/0160).
    """
    found = [0] * len(names)
    by_pieces: dict[int, list[int]] = {}
    for index, name in enumerate(names):
        by_pieces.setdefault(-(-len(name) // (4 * _MD4_WORDS)), []).append(index)
    for pieces, indexes in by_pieces.items():
        ones = _number([1] * len(indexes))
        mask, second, third = ones * _MASK, ones * _ROUND_2, ones * _ROUND_3
        state: State = (ones * start[0], ones * start[1], ones * start[2], ones * start[3])
        form = struct.Struct(f">{_MD4_WORDS * len(indexes)}I")
        for piece in range(pieces):
            at = 4 * _MD4_WORDS * piece
            words = form.unpack(b"".join([_piece(names[index], at, _MD4_WORDS, is_signed) for index in indexes]))
            lanes = tuple(_number(words[word::_MD4_WORDS]) for word in range(_MD4_WORDS))
            state = _md4_turn(state, lanes, mask, second, third)
        hashes = array("Q", state[1].to_bytes(8 * len(indexes), sys.byteorder))
        for index, value in zip(indexes, hashes, strict=True):
            found[index] = value
    return found


def _number(lanes: Sequence[int]) -> int:
    """Return a number with these values in lanes of 64 bits."""
    return int.from_bytes(array("Q", lanes).tobytes(), sys.byteorder)


def _md4_turn(start: State, words: tuple[int, ...], mask: int, second: int, third: int) -> State:
    """Return the state after eight words; mask and the constants of the rounds are in each lane.

    The three rounds of eight steps are unrolled, because they take most of the time of one name.
    """
    a, b, c, d = start
    for i in (0, 4):
        a = a + (d ^ b & (c ^ d)) + words[i] & mask
        a = (a << 3 | a >> 29) & mask
        d = d + (c ^ a & (b ^ c)) + words[i + 1] & mask
        d = (d << 7 | d >> 25) & mask
        c = c + (b ^ d & (a ^ b)) + words[i + 2] & mask
        c = (c << 11 | c >> 21) & mask
        b = b + (a ^ c & (d ^ a)) + words[i + 3] & mask
        b = (b << 19 | b >> 13) & mask
    for i, j, k, m in _ROUNDS_2:
        a = a + (b & c) + ((b ^ c) & d) + words[i] + second & mask
        a = (a << 3 | a >> 29) & mask
        d = d + (a & b) + ((a ^ b) & c) + words[j] + second & mask
        d = (d << 5 | d >> 27) & mask
        c = c + (d & a) + ((d ^ a) & b) + words[k] + second & mask
        c = (c << 9 | c >> 23) & mask
        b = b + (c & d) + ((c ^ d) & a) + words[m] + second & mask
        b = (b << 13 | b >> 19) & mask
    for i, j, k, m in _ROUNDS_3:
        a = a + (b ^ c ^ d) + words[i] + third & mask
        a = (a << 3 | a >> 29) & mask
        d = d + (a ^ b ^ c) + words[j] + third & mask
        d = (d << 9 | d >> 23) & mask
        c = c + (d ^ a ^ b) + words[k] + third & mask
        c = (c << 11 | c >> 21) & mask
        b = b + (c ^ d ^ a) + words[m] + third & mask
        b = (b << 15 | b >> 17) & mask
    return start[0] + a & mask, start[1] + b & mask, start[2] + c & mask, start[3] + d & mask


def _words(name: bytes, count: int, is_signed: bool) -> Iterator[tuple[int, ...]]:
    """Yield tuples of that many words of four bytes, the first byte highest."""
    form = _FORMS[count]
    for at in range(0, len(name), form.size):
        yield form.unpack(_piece(name, at, count, is_signed))


def _piece(name: bytes, at: int, count: int, is_signed: bool) -> bytes:
    """Return that many words of a name from byte at on, the first byte of each highest.

    The space after the name's end, also within a word, is filled with the remaining length.
    """
    piece = name[at : at + 4 * count]
    fill = bytes((len(name) - at,))
    within = len(piece) % 4
    if within:
        piece = piece[:-within] + fill * (4 - within) + piece[-within:]
    if is_signed and not piece.isascii():
        return _signed_piece(name[at : at + 4 * count], fill[0], count)
    return piece.ljust(4 * count, fill)


def _signed_piece(piece: bytes, left: int, count: int) -> bytes:
    """As _piece(), with bytes from 0x80 on as negative numbers: each borrows one from those above it."""
    found = []
    for at in range(0, 4 * count, 4):
        word = left * 0x01010101
        for byte in piece[at : at + 4]:
            word = (word << 8) + byte - (256 if byte > 127 else 0) & _MASK
        found.append(word)
    return _FORMS[count].pack(*found)


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
