# SPDX-License-Identifier: MIT
"""Changes to the bytes of a qcow2 image that are likely to cause trouble: they know where its tables are."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydiskimg.images.qcow2 import layout

INTERESTING = (
    *(0, 1, 2, 7, 8, 9, 63, 64, 511, 512, 513, 1023, 1024, 4096, 65535, 65536, 1 << 20, 2 << 20),
    *(0x7FFFFFFF, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 55) - 512, (1 << 56) - 512, 1 << 56, 1 << 61, 1 << 62),
    *((1 << 62) - 1, (1 << 63) - 1, 1 << 63, (1 << 63) | 1, 3 << 62, (1 << 64) - 512, (1 << 64) - 1),
)
MOST_CHANGES = 5
LARGEST = 24 << 20


@dataclass(frozen=True)
class Places:
    """Where numbers are in an image: (offset, width in bytes), and the clusters that hold tables."""

    header: Sequence[tuple[int, int]]
    entries: Sequence[tuple[int, int]]
    tables: Sequence[int]
    cluster_size: int


_HEADER_FIELDS = (
    *((8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4), (64, 8)),
    *((72, 8), (80, 8), (88, 8), (96, 4), (100, 4), (104, 4), (112, 4), (116, 4), (120, 8), (4, 4)),
)


# What the first header extensions point to, where they do: LUKS header, bitmap directory.
_EXTENSION_POINTERS = tuple((at, 8) for at in range(120, 400, 8))


def find_places(image: bytes) -> Places:
    """Look into an image that is in order; what it says is believed as far as it lies inside."""

    def number(offset: int, width: int) -> int:
        return int.from_bytes(image[offset : offset + width], "big")

    cluster = 1 << min(number(20, 4), 21)
    l1, count = number(40, 8), min(number(36, 4), 64)
    entries = [(l1 + 8 * index, 8) for index in range(count)]
    tables = [number(at, 8) & layout.ENTRY_OFFSET for at, _ in entries]
    for table in filter(None, tables):
        words = range(table, min(table + cluster, len(image) - 8), 8)
        entries += [(at, 8) for at in words if number(at, 8)][:200] + [(at, 8) for at in words[:4]]
    refcount_table = number(48, 8)
    blocks = [number(refcount_table + 8 * index, 8) for index in range(8)]
    entries += [(refcount_table + 8 * index, 8) for index in range(3)]
    entries += [(block + 2 * index, 2) for block in filter(None, blocks) for index in range(48)]
    if number(60, 4):
        snapshots = number(64, 8)
        entries += [(snapshots + at, width) for at in range(0, 160, 4) for width in (2, 4, 8)]
        tables.append(snapshots)
    for at, _ in _EXTENSION_POINTERS:
        if (pointed := number(at, 8)) and pointed % cluster == 0 and pointed + 1024 <= len(image):
            entries += [(pointed + place, 4) for place in range(0, 640, 4)]
            tables.append(pointed)
    tables += [l1, refcount_table, *blocks]
    inside = [(at, width) for at, width in entries if at + width <= len(image)]
    where = [table for table in dict.fromkeys(tables) if 0 < table < len(image)]
    return Places((*_HEADER_FIELDS, *_EXTENSION_POINTERS[:6]), inside, where, cluster)


def mutate(image: bytes, places: Places, rng: random.Random) -> bytes:
    """Return the image with one to five changes."""
    changed = bytearray(image)
    for _ in range(rng.choice((1, 1, 1, 2, 3, MOST_CHANGES))):
        if not changed:
            break
        rng.choice(_CHANGES)(changed, places, rng)
    return bytes(changed[:LARGEST])


def _put(image: bytearray, at: int, width: int, number: int) -> None:
    if at + width <= len(image):
        image[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "big")


def _number(image: bytearray, places: Places, rng: random.Random) -> int:
    """A number that means something: a limit, a place in the image, or near to one of them."""
    value = rng.choice(
        (
            rng.choice(INTERESTING),
            rng.choice(places.tables or (0,)),
            rng.randrange(len(image) + 1),
            len(image) - len(image) % places.cluster_size,
            rng.getrandbits(64),
        )
    )
    value += rng.choice((0, 0, 0, 0, -1, 1, -8, 8, -512, 512, places.cluster_size, -places.cluster_size))
    return value | rng.choice((0, 0, 0, 1 << 63, 1 << 62, 1))


def _header_number(image: bytearray, places: Places, rng: random.Random) -> None:
    at, width = rng.choice(places.header)
    _put(image, at, width, _number(image, places, rng))


def _header_small_step(image: bytearray, places: Places, rng: random.Random) -> None:
    at, width = rng.choice(places.header)
    old = int.from_bytes(image[at : at + width], "big")
    _put(image, at, width, old + rng.choice((-2, -1, 1, 2, old, 8, 1 << rng.randrange(8 * width))))


def _entry_number(image: bytearray, places: Places, rng: random.Random) -> None:
    if places.entries:
        at, width = rng.choice(places.entries)
        _put(image, at, width, _number(image, places, rng))


def _entry_bits(image: bytearray, places: Places, rng: random.Random) -> None:
    if places.entries:
        at, width = rng.choice(places.entries)
        old = int.from_bytes(image[at : at + width], "big")
        _put(image, at, width, old ^ 1 << rng.randrange(8 * width))


def _entries_swapped(image: bytearray, places: Places, rng: random.Random) -> None:
    if places.entries:
        (one, width), (other, _) = rng.choice(places.entries), rng.choice(places.entries)
        image[one : one + width], image[other : other + width] = image[other : other + width], image[one : one + width]
        del image[LARGEST:]


def _bits(image: bytearray, places: Places, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        image[rng.randrange(min(len(image), rng.choice((128, 4096, 1 << 30))))] ^= 1 << rng.randrange(8)


def _cluster(image: bytearray, places: Places, rng: random.Random) -> slice:
    size = places.cluster_size
    starts = rng.choice((places.tables or (0,), range(0, len(image), size)))
    start = rng.choice(starts or (0,))
    return slice(start, min(start + size, len(image)))


def _cluster_filled(image: bytearray, places: Places, rng: random.Random) -> None:
    where = _cluster(image, places, rng)
    length = max(0, where.stop - where.start)
    filling = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    image[where.start : where.start + length] = filling


def _cluster_copied(image: bytearray, places: Places, rng: random.Random) -> None:
    one, other = _cluster(image, places, rng), _cluster(image, places, rng)
    content = bytes(image[one])
    room = image[other.start : other.start + len(content)]
    image[other.start : other.start + len(room)] = content[: len(room)]


def _spliced(image: bytearray, places: Places, rng: random.Random) -> None:
    length = rng.randrange(1, min(4096, len(image)) + 1)
    source, target = (rng.randrange(len(image) - length + 1) for _ in range(2))
    image[target : target + length] = image[source : source + length]


def _moved(image: bytearray, places: Places, rng: random.Random) -> None:
    """Take something out, or put something in: all that follows moves."""
    at, length = rng.randrange(len(image)), rng.choice((1, 8, 511, 512, places.cluster_size))
    if rng.random() < 0.5:
        del image[at : at + length]
    else:
        image[at:at] = rng.randbytes(length)


def _cut(image: bytearray, places: Places, rng: random.Random) -> None:
    del image[rng.choice((rng.randrange(len(image)), max(0, len(image) - rng.randrange(1, 70000)))) :]


def _grown(image: bytearray, places: Places, rng: random.Random) -> None:
    image += bytes(rng.choice((1, 511, 512, places.cluster_size)))


_Change = Callable[[bytearray, Places, random.Random], None]
_CHANGES: Sequence[_Change] = (
    *[_header_number] * 3,
    *[_header_small_step] * 2,
    *[_entry_number] * 5,
    *[_entry_bits] * 5,
    *(_entries_swapped, _bits, _cluster_filled, _cluster_copied, _spliced, _moved, _cut, _grown),
)
