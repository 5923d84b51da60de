# SPDX-License-Identifier: MIT
"""The devices that a btrfs's chunk tree names: Linux opens each, also one that the superblock does not count.

A device item with another fsid makes Linux look for that file system among all that it was ever shown, open its
devices, and take them as a seed (fs/btrfs/volumes.c, read_one_dev and open_seed_devices). All fields are those of the
btrfs on-disk format; little-endian.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.crc32c import crc32c
from pydiskimg.host.before_mount.reading import Reader

SUPERBLOCK_OFFSET = 64 << 10
SUPERBLOCK = struct.Struct(
    "<"
    "32x"  #     0  csum
    "16s"  #    32  fsid
    "40x"  #    48
    "Q"  #      88  chunk_root        logical address
    "52x"  #    96
    "I"  #     148  nodesize          bytes
    "8x"  #    152
    "I"  #     160  sys_chunk_array_size
    "24x"  #   164
    "Q"  #     188  incompat_flags
    "H"  #     196  csum_type         0: crc32c
    "x"  #     198
    "B"  #     199  chunk_root_level
    "x"  #     200
    "Q"  #     201  dev_item.devid
    "58x"  #   209
    "16s"  #   267  dev_item.uuid
    "288x"  #  283
    "16s"  #   571  metadata_uuid     with its feature only
    "224x"  #  587
    "2048s"  # 811  sys_chunk_array   keys and chunks
)
assert SUPERBLOCK.size == 2859
_METADATA_UUID = 1 << 10  # incompat_flags

KEY = struct.Struct("<QBQ")  # objectid, type, offset
CHUNK = struct.Struct("<Q16xQ12xHxx")  # length, type, num_stripes
STRIPE = struct.Struct("<QQ16x")  # devid, offset on the device
HEADER = struct.Struct("<48xQ40xIB")  # bytenr, nritems, level
LEAF_ITEM = struct.Struct("<QBQII")  # key, offset and size of the data, counted from the header's end
POINTER = struct.Struct("<QBQQ8x")  # key, logical address of the child
DEVICE = struct.Struct("<Q58x16s16s")  # devid, uuid, fsid
assert (CHUNK.size, STRIPE.size, HEADER.size, LEAF_ITEM.size, POINTER.size) == (48, 32, 101, 25, 33)
DEVICE_OBJECT, DEVICE_ITEM, CHUNK_ITEM = 1, 216, 228
_MIRRORED = 0x10 | 0x20 | 0x200 | 0x400  # RAID1, DUP, RAID1C3, RAID1C4: each stripe has all of it
_PROFILES = 0x7F8
_MOST_COPIES = 4
# The device items come first in the tree: a btrfs of one device has one, and needs one node for each level.
_NODES = 64


class _UnreadableError(Exception):
    """The chunk tree is not where a btrfs of one device has it; the text says why."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    start: int
    length: int
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Tree:
    read: Reader
    node_size: int
    has_crc32c: bool
    chunks: tuple[_Chunk, ...]

    def copies(self, logical: int, level: int) -> Iterator[bytes]:
        """Yield each copy of a node that Linux may take: it goes on to the next when one is damaged."""
        chunks = [chunk for chunk in self.chunks if chunk.start <= logical < chunk.start + chunk.length]
        if len(chunks) != 1:  # none: Linux may find it by the chunks that it has read from the tree's first nodes
            raise _UnreadableError(f"a part of its chunk tree lies in {len(chunks)} of its system chunks, not in one")
        for offset in chunks[0].offsets:
            at = offset + logical - chunks[0].start
            node = self.read(at, self.node_size) if at < 1 << 62 else b""
            if len(node) == self.node_size and self._is_taken(node, logical, level):
                yield node

    def _is_taken(self, node: bytes, logical: int, level: int) -> bool:
        bytenr, _, own_level = HEADER.unpack_from(node)
        if bytenr != logical or own_level != level:
            return False
        return not self.has_crc32c or crc32c(node[32:]) ^ 0xFFFFFFFF == int.from_bytes(node[:4], "little")


def foreign_device(read: Reader) -> str | None:
    """Return why the chunk tree names another device than its own; None when it does not, or cannot be mounted."""
    raw = read(SUPERBLOCK_OFFSET, SUPERBLOCK.size)
    if len(raw) < SUPERBLOCK.size:
        return None
    fsid, root, node_size, array_size, incompat, csum_type, level, devid, own_uuid, metadata_uuid, array = (
        SUPERBLOCK.unpack(raw)
    )
    if not 4096 <= node_size <= 65536 or level > 7 or array_size > len(array):
        return None
    own = devid, own_uuid, metadata_uuid if incompat & _METADATA_UUID else fsid
    try:
        tree = _Tree(read, node_size, csum_type == 0, tuple(_chunks(array[:array_size], devid)))
        for found in _devices(tree, root, level):
            if found != own:
                number, of_device, of_fs = found
                return (
                    f"its chunk tree names another device (number {number}, {uuid.UUID(bytes=of_device)}, of the btrfs "
                    f"{uuid.UUID(bytes=of_fs)}), which the kernel would open"
                )
    except _UnreadableError as error:
        return f"{error}, so it cannot be told which devices the kernel would open"
    return None


def _chunks(array: bytes, devid: int) -> Iterator[_Chunk]:
    """Yield the chunks that the tree lies in, with their offsets on the device."""
    at = 0
    while at + KEY.size + CHUNK.size <= len(array):
        _, kind, start = KEY.unpack_from(array, at)
        length, profile, count = CHUNK.unpack_from(array, at + KEY.size)
        at += KEY.size + CHUNK.size
        if kind != CHUNK_ITEM or count > _MOST_COPIES or at + count * STRIPE.size > len(array):  # Linux refuses that
            return
        stripes = [STRIPE.unpack_from(array, at + index * STRIPE.size) for index in range(count)]
        at += count * STRIPE.size
        if any(number != devid for number, _ in stripes):
            raise _UnreadableError("a part of its chunk tree is on another device")
        if count > 1 and not profile & _PROFILES & _MIRRORED:
            raise _UnreadableError("its chunk tree is striped")
        yield _Chunk(start, length, tuple(offset for _, offset in stripes))


def _devices(tree: _Tree, root: int, root_level: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number, UUID and fsid of each device item; those have the lowest keys, which Linux insists on."""
    pending, seen = [(root, root_level)], {root}
    while pending:
        logical, level = pending.pop()
        for node in tree.copies(logical, level):
            if level == 0:
                yield from _items(node)
                continue
            for child in _children(node):
                if child not in seen:
                    seen.add(child)
                    pending.append((child, level - 1))
        if len(seen) > _NODES:
            raise _UnreadableError(f"more than {_NODES} nodes of its chunk tree hold devices")


def _items(leaf: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    _, count, _ = HEADER.unpack_from(leaf)
    for index in range(min(count, (len(leaf) - HEADER.size) // LEAF_ITEM.size)):
        _, kind, _, offset, _ = LEAF_ITEM.unpack_from(leaf, HEADER.size + index * LEAF_ITEM.size)
        if kind == DEVICE_ITEM and HEADER.size + offset + DEVICE.size <= len(leaf):
            yield DEVICE.unpack_from(leaf, HEADER.size + offset)


def _children(node: bytes) -> Iterator[int]:
    _, count, _ = HEADER.unpack_from(node)
    for index in range(min(count, (len(node) - HEADER.size) // POINTER.size)):
        object_id, _, _, child = POINTER.unpack_from(node, HEADER.size + index * POINTER.size)
        if object_id <= DEVICE_OBJECT:
            yield child
