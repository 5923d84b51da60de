# SPDX-License-Identifier: MIT
"""The chunk tree of a btrfs, written by hand: which devices it names, in whatever copy, level and order."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import pytest

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.probe.btrfs import DEV_ITEM, OFFSET, SUPERBLOCK
from pydiskimg.host.before_mount import btrfs_devices as layout
from pydiskimg.host.before_mount.btrfs_devices import foreign_device

NODE = 4096
FSID, DEVICE, OTHER = b"f" * 16, b"d" * 16, b"o" * 16
OWN = (1, DEVICE, FSID)
START = 1 << 20  # of the system chunk, logical
COPIES = (256 << 10, 512 << 10)  # its places on the device
DUP, RAID0 = 0x22, 0x8


@dataclass
class Image:
    """A device with a superblock and a system chunk of 64 nodes in two copies; nodes are given by their number."""

    level: int = 0
    csum_type: int = 0
    profile: int = DUP
    stripes: tuple[tuple[int, int], ...] = tuple((1, place) for place in COPIES)
    chunks: int = 1
    metadata_uuid: bytes | None = None
    data: bytearray = field(default_factory=lambda: bytearray(1 << 20))

    def superblock(self) -> None:
        chunk = layout.CHUNK.pack(length=64 * NODE, type=self.profile, num_stripes=len(self.stripes))
        array = layout.KEY.pack(objectid=256, type=layout.CHUNK_ITEM, offset=START) + chunk
        array += b"".join(layout.STRIPE.pack(devid=number, offset=place) for number, place in self.stripes)
        array *= self.chunks
        fields: dict[str, int | bytes] = {
            "fsid": FSID,
            "chunk_root": START,
            "nodesize": NODE,
            "sys_chunk_array_size": len(array),
            "incompat_flags": 1 << 10 if self.metadata_uuid is not None else 0,
            "csum_type": self.csum_type,
            "chunk_root_level": self.level,
            "dev_item": DEV_ITEM.pack(devid=1, uuid=DEVICE),
            "metadata_uuid": self.metadata_uuid or bytes(16),
            "sys_chunk_array": array,
        }
        SUPERBLOCK.put(self.data, fields, OFFSET)

    def put(self, number: int, level: int, body: bytes, count: int, *, copies: tuple[int, ...] = COPIES) -> None:
        node = bytearray(NODE)
        layout.HEADER.put(node, {"bytenr": START + number * NODE, "nritems": count, "level": level})
        node[layout.HEADER.size : layout.HEADER.size + len(body)] = body
        struct.pack_into("<I", node, 0, crc32c(bytes(node[32:])) ^ 0xFFFFFFFF)
        for place in copies:
            self.data[place + number * NODE : place + (number + 1) * NODE] = node

    def leaf(self, number: int, *devices: tuple[int, bytes, bytes], copies: tuple[int, ...] = COPIES) -> None:
        body = bytearray(NODE - layout.HEADER.size)
        for index, device in enumerate(devices):
            at = len(body) - (index + 1) * 98
            key = layout.KEY.pack(objectid=1, type=layout.DEVICE_ITEM, offset=device[0])
            layout.LEAF_ITEM.put(body, {"key": key, "offset": at, "size": 98}, index * layout.LEAF_ITEM.size)
            DEV_ITEM.put(body, {"devid": device[0], "uuid": device[1], "fsid": device[2]}, at)
        self.put(number, 0, bytes(body), len(devices), copies=copies)

    def inner(self, number: int, level: int, *children: tuple[int, int]) -> None:
        """children are (objectid, number of the node)."""
        body = b"".join(
            layout.POINTER.pack(
                key=layout.KEY.pack(objectid=object_id, type=layout.DEVICE_ITEM), blockptr=START + child * NODE
            )
            for object_id, child in children
        )
        self.put(number, level, body, len(children))

    def says(self) -> str | None:
        self.superblock()
        return self.answer()

    def answer(self) -> str | None:
        fields = SUPERBLOCK.unpack(self.data, OFFSET)
        return foreign_device(lambda offset, length: bytes(self.data[offset : offset + length]), fields)


def test_its_own_device() -> None:
    image = Image()
    image.leaf(0, OWN)
    assert image.says() is None


@pytest.mark.parametrize("other", [(2, DEVICE, FSID), (1, OTHER, FSID), (1, DEVICE, OTHER), (2, OTHER, OTHER)])
@pytest.mark.parametrize("own_too", [True, False])
def test_another_device(other: tuple[int, bytes, bytes], own_too: bool) -> None:
    image = Image()
    image.leaf(0, *([OWN] if own_too else []), other)
    said = image.says()
    assert said is not None
    assert f"names another device (number {other[0]}," in said


@pytest.mark.parametrize("copy", COPIES)
def test_another_device_in_one_copy(copy: int) -> None:
    image = Image()
    image.leaf(0, OWN)
    image.leaf(0, (2, OTHER, OTHER), copies=(copy,))
    assert image.says() is not None


def test_a_copy_that_the_kernel_does_not_take() -> None:
    """Its checksum is wrong; with another kind of checksum each copy counts."""
    image = Image()
    image.leaf(0, OWN)
    image.leaf(0, (2, OTHER, OTHER), copies=COPIES[:1])
    image.data[COPIES[0]] ^= 1
    assert image.says() is None
    image.csum_type = 1
    assert image.says() is not None


def test_deeper_trees() -> None:
    image = Image(level=2)
    image.inner(0, 2, (1, 1), (256, 2))
    image.inner(1, 1, (1, 3), (1, 4), (256, 5))
    image.leaf(3, OWN)
    image.leaf(4, OWN)
    image.leaf(5, (7, OTHER, OTHER))  # no device item has such a key: the kernel refuses the node
    assert image.says() is None
    image.leaf(4, (7, OTHER, OTHER))
    assert image.says() is not None


def test_a_tree_that_is_its_own_child() -> None:
    image = Image(level=3)
    image.inner(0, 3, (1, 0), (1, 1))
    image.inner(1, 2, (1, 0), (1, 1))
    assert image.says() is None


def test_a_tree_that_is_too_wide() -> None:
    image = Image(level=1)
    image.inner(0, 1, *((1, number) for number in range(1, 80)))
    said = image.says()
    assert said is not None
    assert "more than 64 nodes" in said


def test_a_node_outside_the_chunks_of_the_superblock() -> None:
    """The chunk items of a leaf before it could say where it is."""
    image = Image(level=1)
    image.inner(0, 1, (1, 1), (1, 64))
    image.leaf(1, OWN)
    said = image.says()
    assert said is not None
    assert "a part of its chunk tree lies in 0 of its system chunks" in said
    image.inner(0, 1, (1, 1), (256, 64))  # no device item
    assert image.says() is None


@pytest.mark.parametrize(
    ("image", "found"), [(Image(stripes=((1, COPIES[0]),) * 61), 0), (Image(stripes=((1, COPIES[0]),), chunks=20), 20)]
)
def test_more_copies_than_linux_takes_are_not_read(image: Image, found: int) -> None:
    """Each node would take milliseconds as often as the superblock says, at every mount of a guest's file system."""
    image.leaf(0, OWN)
    said = image.says()
    assert said is not None
    assert f"a part of its chunk tree lies in {found} of its system chunks, not in one" in said


def test_metadata_uuid_is_what_the_items_hold() -> None:
    image = Image(metadata_uuid=OTHER)
    image.leaf(0, (1, DEVICE, OTHER))
    assert image.says() is None
    image.leaf(0, OWN)
    assert image.says() is not None


@pytest.mark.parametrize(
    ("stripes", "profile", "words"),
    [
        (((1, COPIES[0]),), 0x2, None),
        (((1, COPIES[0]),), RAID0, None),
        (((1, COPIES[0]), (2, COPIES[1])), DUP, "a part of its chunk tree is on another device"),
        (((1, COPIES[0]), (1, COPIES[1])), RAID0, "its chunk tree is striped"),
        (((1, (1 << 64) - 1),), 0x2, None),
        ((), 0x2, None),
    ],
)
def test_where_the_tree_lies(stripes: tuple[tuple[int, int], ...], profile: int, words: str | None) -> None:
    image = Image(stripes=stripes, profile=profile)
    image.leaf(0, OWN)
    said = image.says()
    assert said is None if words is None else said is not None and words in said


def test_any_bytes_have_an_answer() -> None:
    rng = random.Random(1)
    image = Image(level=1, csum_type=1)
    image.inner(0, 1, (1, 1), (1, 2))
    image.leaf(1, OWN)
    image.leaf(2, OWN)
    assert image.says() is None
    good = bytes(image.data)
    answers = 0
    for _ in range(3000):
        image.data[:] = good
        for _ in range(rng.randrange(1, 5)):
            base = rng.choice((OFFSET, COPIES[0], COPIES[0] + NODE, COPIES[0] + 2 * NODE))
            length = SUPERBLOCK.size if base == OFFSET else NODE
            image.data[base + rng.randrange(length)] = rng.randrange(256)
        answers += image.answer() is not None
    assert answers > 20
