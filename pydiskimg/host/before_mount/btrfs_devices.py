# SPDX-License-Identifier: MIT
"""Find the devices that a btrfs's chunk tree names: Linux opens each, even if the superblock does not count it.

A device item with another fsid makes Linux look for that file system among all that it has ever scanned, open its
devices, and use them as a seed (fs/btrfs/volumes.c, read_one_dev and open_seed_devices). The structures are those of
the btrfs on-disk format; little-endian.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydiskimg.fs.probe.btrfs import CRC32C, DEV_ITEM, checksum_holds
from pydiskimg.host.before_mount.reading import Reader
from pydiskimg.records import Record

_METADATA_UUID = 1 << 10  # incompat_flags

KEY = Record("btrfs_disk_key", "<", 17, """
    00 Q   objectid
    08 B   type
    09 Q   offset
""")  # fmt: skip
CHUNK = Record("btrfs_chunk", "<", 48, """
    00 Q   length
    08 Q   owner
    10 Q   stripe_len
    18 Q   type
    20 I   io_align
    24 I   io_width
    28 I   sector_size
    2c H   num_stripes         of STRIPE, which follow
    2e H   sub_stripes
""")  # fmt: skip
STRIPE = Record("btrfs_stripe", "<", 32, """
    00 Q   devid
    08 Q   offset              on the device
    10 16s dev_uuid
""")  # fmt: skip
HEADER = Record("btrfs_header", "<", 101, """
    00 32s csum
    20 16s fsid
    30 Q   bytenr
    38 Q   flags
    40 16s chunk_tree_uuid
    50 Q   generation
    58 Q   owner
    60 I   nritems
    64 B   level
""")  # fmt: skip
LEAF_ITEM = Record("btrfs_item", "<", 25, """
    00 17s key
    11 I   offset              of the data, counted from the header's end
    15 I   size
""")  # fmt: skip
POINTER = Record("btrfs_key_ptr", "<", 33, """
    00 17s key
    11 Q   blockptr            logical address of the child
    19 Q   generation
""")  # fmt: skip
DEVICE_OBJECT, DEVICE_ITEM, CHUNK_ITEM = 1, 216, 228
_MIRRORED = 0x10 | 0x20 | 0x200 | 0x400  # RAID1, DUP, RAID1C3, RAID1C4: each stripe is a full copy
_PROFILES = 0x7F8
_MOST_COPIES = 4
# The device items come first in the tree: a btrfs of one device has one, in one node of each level.
_NODES = 64


class _UnreadableError(Exception):
    """The chunk tree is not stored as on a btrfs of one device; the text says why."""


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
        """Yield each copy of a node that Linux may use: it tries the next when one is damaged."""
        chunks = [chunk for chunk in self.chunks if chunk.start <= logical < chunk.start + chunk.length]
        if len(chunks) != 1:  # none: Linux may find it by the chunks in the tree's first nodes
            raise _UnreadableError(f"a part of its chunk tree lies in {len(chunks)} of its system chunks, not in one")
        for offset in chunks[0].offsets:
            at = offset + logical - chunks[0].start
            node = self.read(at, self.node_size) if at < 1 << 62 else b""
            if len(node) == self.node_size and self._is_taken(node, logical, level):
                yield node

    def _is_taken(self, node: bytes, logical: int, level: int) -> bool:
        header = HEADER.unpack(node)
        if header["bytenr"] != logical or header["level"] != level:
            return False
        return not self.has_crc32c or checksum_holds(node)


def foreign_device(read: Reader, superblock: dict[str, Any]) -> str | None:
    """Return why it must not be mounted: its chunk tree names another device, or cannot be read; otherwise None.

    superblock has the fields of fs.probe.btrfs.SUPERBLOCK.
    """
    node_size, level, size = (superblock[name] for name in ("nodesize", "chunk_root_level", "sys_chunk_array_size"))
    array = superblock["sys_chunk_array"]
    if not 4096 <= node_size <= 65536 or level > 7 or size > len(array):
        return None
    device = DEV_ITEM.unpack(superblock["dev_item"])
    has_metadata_uuid = superblock["incompat_flags"] & _METADATA_UUID
    own = device["devid"], device["uuid"], superblock["metadata_uuid" if has_metadata_uuid else "fsid"]
    try:
        chunks = tuple(_chunks(array[:size], device["devid"]))
        tree = _Tree(read, node_size, superblock["csum_type"] == CRC32C, chunks)
        for found in _devices(tree, superblock["chunk_root"], level):
            if found != own:
                number, of_device, of_fs = found
                return (
                    f"its chunk tree names another device (number {number}, {uuid.UUID(bytes=of_device)}, of the btrfs "
                    f"{uuid.UUID(bytes=of_fs)}), which the kernel would open"
                )
    except _UnreadableError as error:
        return f"{error}, so it is not known which devices the kernel would open"
    return None


def _chunks(array: bytes, devid: int) -> Iterator[_Chunk]:
    """Yield the chunks that contain the tree, with their offsets on the device."""
    at = 0
    while at + KEY.size + CHUNK.size <= len(array):
        key, chunk = KEY.unpack(array, at), CHUNK.unpack(array, at + KEY.size)
        count = chunk["num_stripes"]
        at += KEY.size + CHUNK.size
        if key["type"] != CHUNK_ITEM or count > _MOST_COPIES or at + count * STRIPE.size > len(array):
            return  # Linux refuses that
        stripes = [STRIPE.unpack(array, at + index * STRIPE.size) for index in range(count)]
        at += count * STRIPE.size
        if any(stripe["devid"] != devid for stripe in stripes):
            raise _UnreadableError("a part of its chunk tree is on another device")
        if count > 1 and not chunk["type"] & _PROFILES & _MIRRORED:
            raise _UnreadableError("its chunk tree is striped")
        yield _Chunk(key["offset"], chunk["length"], tuple(stripe["offset"] for stripe in stripes))


def _devices(tree: _Tree, root: int, root_level: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number, UUID and fsid of each device item; these have the lowest keys, as Linux requires."""
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
    for item in _entries(leaf, LEAF_ITEM):
        start = HEADER.size + item["offset"]
        if KEY.unpack(item["key"])["type"] == DEVICE_ITEM and start + DEV_ITEM.size <= len(leaf):
            device = DEV_ITEM.unpack(leaf, start)
            yield device["devid"], device["uuid"], device["fsid"]


def _children(node: bytes) -> Iterator[int]:
    for pointer in _entries(node, POINTER):
        if KEY.unpack(pointer["key"])["objectid"] <= DEVICE_OBJECT:
            yield pointer["blockptr"]


def _entries(node: bytes, record: Record) -> Iterator[dict[str, Any]]:
    """Yield the records that follow the header of a node, up to its end."""
    count = min(HEADER.unpack(node)["nritems"], (len(node) - HEADER.size) // record.size)
    return (record.unpack(node, HEADER.size + index * record.size) for index in range(count))
