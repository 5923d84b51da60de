# SPDX-License-Identifier: MIT
"""Numbers changed in the metadata of an ext file system; most checksums are made right again."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError, read_file_system
from pydiskimg.fs.ext4.inodes import read_inode
from pydiskimg.fs.ext4.map_reader import file_pieces
from tests.fixtures.resealed import NASTY, Structure, structures, unsealed
from tests.fuzz.ext4.seeds import disk_of

SEALED = 0.75  # the part of all cases whose checksums hold
_HEAD = 80  # bytes of a structure that are changed more often than the rest
_JOURNAL_BLOCKS = 6


@dataclass(frozen=True, slots=True)
class Places:
    """What there is to change in an image: all structures, and numbers that mean something in it."""

    groups: Sequence[Structure]
    others: Sequence[Structure]
    blocks: int
    inodes: Sequence[int]


def find_places(image: bytes) -> Places:
    """Look into a sound image."""
    fs = read_file_system(disk_of(image))
    found = structures(image)
    others = [*found, *_journal(fs)]
    others += [Structure(one.start, min(one.length, _HEAD), one.seal) for one in others]
    inodes = [number for number in range(1, fs.geometry.inodes + 1) if _is_used(fs, number)]
    return Places(found[: 1 + 3 * fs.geometry.groups], others, fs.geometry.blocks, inodes)


def _is_used(fs: FileSystem, number: int) -> bool:
    try:
        return bool(read_inode(fs, number).mode)
    except NotBelievedError:  # one that is free has no checksum
        return False


def _journal(fs: FileSystem) -> Iterator[Structure]:
    """Yield the first blocks of the journal, whose checksums are left alone: a wrong one ends the log there."""
    size = fs.geometry.block_size
    if fs.superblock.journal_inode:
        _, at, count = next(file_pieces(fs, read_inode(fs, layout.JOURNAL_INODE)))
        yield from (unsealed(block * size, size) for block in range(at, at + min(count, _JOURNAL_BLOCKS)))


def mutate(image: bytes, places: Places, rng: random.Random) -> bytes:
    """Return the image with one to five numbers changed."""
    changed = bytearray(image)
    is_sealed = rng.random() < SEALED
    for _ in range(rng.choice((1, 1, 1, 2, 2, 5))):
        structure = rng.choice(places.groups if rng.random() < 0.25 else places.others)
        width = rng.choice((1, 2, 2, 4, 4, 4, 8))
        at = structure.start + rng.randrange(max(1, structure.length // width)) * width
        value = _value(changed, places, rng, slice(at, at + width))
        changed[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        if is_sealed:
            with suppress(struct.error, IndexError):  # a tail that lies elsewhere now cannot be sealed
                structure.seal(changed)
    return bytes(changed)


def _value(image: bytearray, places: Places, rng: random.Random, where: slice) -> int:
    """Return what a number becomes: a bad one, any, a block, an inode, one nearby, or one from elsewhere."""
    old = int.from_bytes(image[where], "little")
    width = where.stop - where.start
    other = rng.choice(places.others)
    start = other.start + rng.randrange(max(1, other.length // width)) * width
    values = (
        rng.choice(NASTY),
        rng.choice(NASTY),
        rng.getrandbits(64),
        rng.randrange(places.blocks),
        rng.choice(places.inodes),
        old + rng.choice((-1, 1, 2, -2, 4, 8)),
        old ^ 1 << rng.randrange(8 * width),
        int.from_bytes(image[start : start + width], "little"),
    )
    return rng.choice(values)
