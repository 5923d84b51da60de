# SPDX-License-Identifier: MIT
"""Streams of other writers: each layout that can be read front to back, and no other."""

from __future__ import annotations

import random
import zlib

import pytest

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check import check_qcow2
from tests.fixtures.qcow2_images import BytesSource, Craft, compressed_entry, deflate, extension
from tests.fixtures.streams import contents, refused, restored

COPIED = 1 << 63


def foreign(data: bytes, *, cluster_bits: int = 9, refcount_order: int = 4, tables_first: bool = False) -> bytes:
    """A stream as another writer lays it out: header, refcount table and blocks, L1, L2 tables, data.

    With tables_first the refcounts come after the L2 tables. All refcounts are one, of 2^refcount_order bits.
    """
    size = 1 << cluster_bits
    clusters = [data[at : at + size].ljust(size, b"\0") for at in range(0, len(data), size)]
    per_table = size // 8
    l1_size = -(-len(clusters) // per_table)
    used = [any(map(any, clusters[n * per_table : (n + 1) * per_table])) for n in range(l1_size)]
    stored = sum(map(any, clusters))
    l1_clusters, tables = -(-l1_size * 8 // size), sum(used)
    blocks = 1
    while 2 + blocks + l1_clusters + tables + stored > blocks * (size * 8 >> refcount_order):
        blocks += 1
    assert blocks <= per_table
    table_at = 1 + l1_clusters + tables if tables_first else 1
    l1_at = 1 if tables_first else 2 + blocks
    end = 2 + blocks + l1_clusters + tables
    header = layout.HEADER.pack(
        magic=layout.MAGIC,
        version=3,
        cluster_bits=cluster_bits,
        size=-(-len(data) // 512) * 512,
        l1_size=l1_size,
        l1_table_offset=l1_at * size,
        refcount_table_offset=table_at * size,
        refcount_table_clusters=1,
        refcount_order=refcount_order,
        header_length=112,
    )
    counts = 0
    for number in range(end + stored):
        at = number << refcount_order
        # Entries of less than a byte fill it from its lowest bit; others are big-endian.
        counts |= 1 << (at if refcount_order < 3 else at + (1 << refcount_order) - 8)
    refcounts = numbers([(table_at + 1 + n) * size for n in range(blocks)]).ljust(size, b"\0")
    refcounts += counts.to_bytes(blocks * size, "little")
    l2_at, next_data = l1_at + l1_clusters, end
    l1, l2 = [], b""
    for number, is_used in enumerate(used):
        l1.append((l2_at * size + len(l2)) | COPIED if is_used else 0)
        if not is_used:
            continue
        entries = []
        for cluster in clusters[number * per_table : (number + 1) * per_table]:
            entries.append(next_data * size | COPIED if any(cluster) else 0)
            next_data += any(cluster)
        l2 += numbers(entries).ljust(size, b"\0")
    mapping = numbers(l1).ljust(l1_clusters * size, b"\0") + l2
    metadata = mapping + refcounts if tables_first else refcounts + mapping
    return header.ljust(size, b"\0") + metadata + b"".join(cluster for cluster in clusters if any(cluster))


def numbers(entries: list[int]) -> bytes:
    return b"".join(entry.to_bytes(8, "big") for entry in entries)


@pytest.mark.parametrize("refcount_order", range(7))
@pytest.mark.parametrize("tables_first", [False, True])
def test_the_same_layout_from_elsewhere(refcount_order: int, tables_first: bool) -> None:
    data = contents(random.Random(refcount_order), 100_000, 512)
    stream = foreign(data, refcount_order=refcount_order, tables_first=tables_first)
    found = check_qcow2(BytesSource(stream))
    assert (found.corruptions, found.leaks) == (0, 0)
    assert restored(stream) == data + bytes(-len(data) % 512)


def test_an_empty_foreign_image() -> None:
    assert restored(foreign(bytes(70000))) == bytes(70144)
    assert restored(foreign(b"")) == b""


def craft(entries: list[int], data: bytes, **fields: object) -> bytes:
    return Craft(l2=[entries], data=data, **fields).build()  # type: ignore[arg-type]


def test_data_that_is_not_in_order() -> None:
    at = Craft(l2=[[]]).data_offset
    a, b = b"a" * 512, b"b" * 512
    assert restored(craft([at, 0, at + 512], a + b))[:1536] == a + bytes(512) + b
    refused(craft([at + 512, at], a + b), "expected at")
    refused(craft([at, at], a + b), "expected at")
    refused(craft([at, at + 1024], a + b + b), "expected at")
    refused(craft([at + 512], a + b), "expected at")
    refused(craft([at - 512], a), "expected at")
    refused(craft([at], a + b), "other data follow")
    refused(craft([at, at + 512 | 1, at + 1024], a + b + b), "expected at")


def test_compressed_data_that_is_not_in_order() -> None:
    at = Craft(l2=[[]]).data_offset
    first, second = deflate(b"a" * 512), deflate(b"b" * 512)
    one = compressed_entry(9, at, len(first))
    two = compressed_entry(9, at + len(first), len(second))
    both = (first + second).ljust(512, b"\0")
    assert restored(craft([one, two], both))[:1024] == b"a" * 512 + b"b" * 512
    refused(craft([two, one], both), "expected at")
    refused(craft([one, one], both), "expected at")
    refused(craft([compressed_entry(9, at, 600), two], both), "expected at")
    refused(craft([one, compressed_entry(9, at + 513, len(second))], both + both), "expected at")
    refused(craft([one, two], b"\xff" * 512), "does not decompress|decompresses to")
    alone = first.ljust(512, b"\0")
    assert restored(craft([one, at + 512], alone + b"c" * 512))[512:1024] == b"c" * 512
    refused(
        craft([one, at + 512], both + b"c" * 512), "before the next data in the tables, and these bytes are not zero"
    )
    refused(craft([one, at + 1024], alone + b"c" * 512), "expected at")
    refused(craft([one, at], both + b"c" * 512), "expected at")


def test_what_fills_up_a_cluster_is_zero() -> None:
    at = Craft(l2=[[]]).data_offset
    first = deflate(b"a" * 512)
    data = first.ljust(511, b"\0")
    refused(craft([compressed_entry(9, at, len(first))], data + b"x"), "these bytes are not zero")
    # A standard cluster after a compressed one of a few sectors, in clusters of 1024 bytes.
    at = Craft(cluster_bits=10, l2=[[]]).data_offset
    first = deflate(b"a" * 1024)
    entries = [compressed_entry(10, at, len(first)), at + 1024]
    rest = first.ljust(1023, b"\0")
    assert restored(craft(entries, rest + b"\0" + b"c" * 1024, cluster_bits=10))[:2048] == b"a" * 1024 + b"c" * 1024
    refused(craft(entries, rest + b"x" + b"c" * 1024, cluster_bits=10), "the padding of the cluster .* is not zero")
    # The virtual disk ends within the last cluster, standard or compressed.
    whole = b"d" * 512 + bytes(511)
    for entry, data in ((at, whole + b"x"), (compressed_entry(10, at, 40), deflate(whole + b"x").ljust(1024, b"\0"))):
        refused(craft([entry], data, cluster_bits=10, size=512), "the padding of the cluster .* is not zero")
    assert restored(craft([at], whole + b"\0", cluster_bits=10, size=512)) == b"d" * 512


def test_entries_beyond_the_end_of_the_disk() -> None:
    at = Craft(l2=[[]]).data_offset
    for entry in (at + 512, at | 1, 1, 1 << 62 | at + 512, 1 << 40 | COPIED):
        refused(craft([at, entry], b"a" * 512 + b"b" * 512, size=512), "maps guest offset 512, beyond the end")
    assert restored(craft([at], b"a" * 512, size=512)) == b"a" * 512


def test_compressed_data_that_does_not_end() -> None:
    at = Craft(l2=[[]]).data_offset
    endless = zlib.compressobj(6, zlib.DEFLATED, -12)
    data = endless.compress(b"a" * 512) + endless.flush(zlib.Z_SYNC_FLUSH)
    refused(
        craft([compressed_entry(9, at, len(data))], data.ljust(512, b"\0")), "its end is missing|does not decompress"
    )
    longer = deflate(b"a" * 513)
    refused(craft([compressed_entry(9, at, len(longer))], longer.ljust(512, b"\0")), "at least 513 bytes, expected 512")


def test_tables_that_do_not_come_first() -> None:
    at = Craft(l2=[[]]).data_offset
    data = b"d" * 512
    later = Craft(l2=[[at - 512]], l1=[at | COPIED], data=numbers([at - 512]).ljust(512, b"\0") + data)
    refused(later.build(), "tables do not all come before")
    # Two L1 entries that share a table leave a cluster over that nothing names.
    size = 200 << 9
    shared = Craft(size=size, l2=[[], []], l1=[Craft().l2_offset | COPIED] * 2 + [0] * 2)
    refused(shared.build(), "tables do not all come before")
    refused(Craft(header={"l1_table_offset": 1 << 50}).build(), "tables do not all come before")
    refused(Craft(header={"refcount_table_offset": 1 << 40}).build(), "tables do not all come before")


def test_what_a_stream_does_not_hold() -> None:
    unsupported = UnsupportedImageError
    backing = Craft(cluster_bits=12, header={"backing_file_offset": 200, "backing_file_size": 4})
    refused(backing.build(), "has the backing file", unsupported)
    refused(Craft(header={"incompatible_features": 4}).build(), "external file", unsupported)
    refused(Craft(header={"nb_snapshots": 1, "snapshots_offset": 512}).build(), "internal snapshots", unsupported)
    refused(Craft(cluster_bits=14, header={"incompatible_features": 16}).build(), "extended L2", unsupported)
    refused(Craft(header={"crypt_method": 2}).build(), "encrypted with LUKS", unsupported)
    refused(Craft(header={"incompatible_features": 2}).build(), "marked corrupt", unsupported)
    refused(b"no image" * 100, "not a qcow2 image")
    refused(b"", "ends after 0 bytes")
    kept = Craft(cluster_bits=12, extensions=extension(layout.EXTENSION_FEATURE_NAMES, b""))
    assert restored(kept.build()) == bytes(64 << 9)
