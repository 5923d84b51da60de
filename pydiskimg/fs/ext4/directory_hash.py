# SPDX-License-Identifier: MIT
"""The hash by which a large directory's names are ordered: half MD4 (hash_index.rst; Linux, fs/ext4/hash.c)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pydiskimg.fs.ext4 import layout

_MASK = 0xFFFFFFFF
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)  # MD4's, for a seed of zeros
_PIECE = 32  # bytes of a name for each turn
_END_OF_DIRECTORY = 0xFFFFFFFE  # a position for readdir() that no name has

# MD4's second and third constant, shifts and order of words of its three rounds, of eight steps each.
_ROUNDS = (
    (0, (3, 7, 11, 19), (0, 1, 2, 3, 4, 5, 6, 7)),
    (0x5A827999, (3, 5, 9, 13), (1, 3, 5, 7, 0, 2, 4, 6)),
    (0x6ED9EBA1, (3, 9, 11, 15), (3, 7, 2, 6, 1, 5, 0, 4)),
)
_STEPS = tuple(
    tuple((word, constant, shifts[index % 4]) for index, word in enumerate(words))
    for constant, shifts, words in _ROUNDS
)


class DirectoryHash:
    """Hashes names with the seed of one file system; is_signed says how its bytes from 0x80 on are read."""

    version = layout.HASH_HALF_MD4

    def __init__(self, seed: bytes, *, is_signed: bool) -> None:
        words: tuple[int, ...] = struct.unpack("<4I", seed)
        self._start = words if any(words) else _START
        self._is_signed = is_signed

    def __call__(self, name: bytes) -> int:
        """Return the hash, an even number."""
        state = self._start
        for at in range(0, len(name), _PIECE):
            state = _half_md4(state, [*self._words(name[at : at + _PIECE], len(name) - at)])
        found = state[1] & ~1
        return found - 2 if found == _END_OF_DIRECTORY else found

    def _words(self, piece: bytes, left: int) -> Iterator[int]:
        """Yield eight words of four bytes, the first one highest; left, the length to the name's end, fills them up."""
        fill = left | left << 8
        fill = (fill | fill << 16) & _MASK
        for at in range(0, _PIECE, 4):
            word = fill
            for byte in piece[at : at + 4]:
                value = byte - 256 if self._is_signed and byte > 127 else byte
                word = (value + (word << 8)) & _MASK
            yield word


def _half_md4(state: tuple[int, ...], words: list[int]) -> tuple[int, ...]:
    a, b, c, d = state
    for number, steps in enumerate(_STEPS):
        for word, constant, shift in steps:
            if number == 0:
                mixed = d ^ (b & (c ^ d))
            elif number == 1:
                mixed = (b & c) + ((b ^ c) & d)
            else:
                mixed = b ^ c ^ d
            added = (a + mixed + words[word] + constant) & _MASK
            a, b, c, d = d, (added << shift | added >> 32 - shift) & _MASK, b, c
    return tuple((one + other) & _MASK for one, other in zip(state, (a, b, c, d), strict=True))
