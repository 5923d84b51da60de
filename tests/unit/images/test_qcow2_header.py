# SPDX-License-Identifier: MIT
"""Headers of qcow2 files: what is read, and the message for each invalid one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pydiskimg.errors import DiskImageError, InvalidImageError, UnsupportedImageError
from pydiskimg.extents import Kind
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.bitmaps import BITMAP_ENTRY, BITMAPS, read_bitmaps
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import open_qcow2
from tests.fixtures.checkout import ROOT
from tests.fixtures.qcow2_images import BytesSource, Craft, extension

BACKING = extension(layout.EXTENSION_BACKING_FORMAT, b"qcow2")
NAMES = extension(
    layout.EXTENSION_FEATURE_NAMES,
    layout.FEATURE_NAME.pack(bit=5, name=b"holograms")
    + layout.FEATURE_NAME.pack(type=1, bit=6, name=b"not this one")
    + layout.FEATURE_NAME.pack(bit=61, name=b"ended\0and more")
    + layout.FEATURE_NAME.pack(bit=62, name=b"cut short").rstrip(b"\0"),
)
NAME_AT = 112 + 16


def refused(image: bytes) -> tuple[type[DiskImageError], str]:
    with pytest.raises(DiskImageError) as caught:
        read_header(BytesSource(image))
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("cluster_bits", range(9, 22))
def test_every_version_and_cluster_size(version: int, cluster_bits: int) -> None:
    craft = Craft(version=version, cluster_bits=cluster_bits, size=12345, l1=None)
    header = read_header(BytesSource(craft.build()))
    assert (header.version, header.cluster_size, header.size) == (version, 1 << cluster_bits, 12345)
    assert header.header_length == (72 if version == 2 else 112)
    assert header.compression_type == "zlib"
    assert header.l1_entries_used == 1


def test_what_may_be_there_is_let_through() -> None:
    extensions = extension(0x12345678, b"abc") + NAMES + extension(0x23852875, bytes(24)) + bytes(8)
    fields = {
        "incompatible_features": 1,
        "compatible_features": 0xFFFF_FFFF_FFFF_FFFF,
        "autoclear_features": 0xFFFF_FFFF_FFFF_FFFF,
        "refcount_order": 6,
    }
    header = read_header(BytesSource(Craft(extensions=extensions, header=fields).build()))
    assert header.incompatible_features == layout.INCOMPATIBLE_DIRTY
    assert header.refcount_order == 6


def test_an_extension_may_end_with_the_first_cluster() -> None:
    assert read_header(BytesSource(Craft(extensions=extension(7, bytes(392))).build())).header_length == 112


def test_longer_and_shorter_headers() -> None:
    longer = Craft(header={"header_length": 128}, extensions=b"\xaa" * 16).build()
    assert read_header(BytesSource(longer)).header_length == 128
    # At 104 the compression type is not there; what follows is the extension area.
    shorter = Craft(header={"header_length": 104}).build()
    assert read_header(BytesSource(shorter)).compression_type == "zlib"


def test_zstd_has_its_bit() -> None:
    assert read_header(BytesSource(Craft(compression_type=1).build())).compression_type == "zstd"


def test_a_disk_of_no_bytes() -> None:
    header = read_header(BytesSource(Craft(size=0, l1=[], header={"l1_table_offset": 0}).build()))
    assert (header.size, header.l1_entries_used) == (0, 0)


def test_a_backing_file_without_a_name_is_none() -> None:
    assert read_header(BytesSource(Craft(header={"backing_file_offset": 400}).build())).size == 64 << 9


HOSTILE: list[tuple[Craft, str]] = [
    (Craft(magic=b"QFI\xfa"), "not a qcow2 image: it starts with 51 46 49 fa, expected 51 46 49 fb"),
    (Craft(header={"cluster_bits": 8}), "qcow2 header: cluster_bits is 8, expected 9 to 21"),
    (Craft(header={"cluster_bits": 22}), "qcow2 header: cluster_bits is 22, expected 9 to 21"),
    (Craft(header={"cluster_bits": 2**32 - 1}), "qcow2 header: cluster_bits is 4294967295, expected 9 to 21"),
    (
        Craft(header={"header_length": 96}),
        "header_length is 96, expected a multiple of 8 from 104 to the cluster size 512",
    ),
    (Craft(header={"header_length": 109}), "header_length is 109, expected a multiple of 8"),
    (Craft(header={"header_length": 520}), "header_length is 520, expected a multiple of 8"),
    (Craft(header={"refcount_order": 7}), "refcount_order is 7, at most 6 is allowed"),
    (Craft(header={"size": 1 << 63}), "the virtual size is 9223372036854775808 bytes, and no disk is larger"),
    (
        Craft(header={"size": (64 << 9) + 1}),
        "the L1 table has 1 entries, and a virtual size of 32769 bytes (32 KiB) needs 2",
    ),
    (Craft(header={"l1_size": (4 << 20) + 1}), "the L1 table has 4194305 entries, at most 4194304 are allowed"),
    (Craft(header={"l1_size": 4 << 20}), "the L1 table at 0x400 ends at 0x2000400, beyond the end of the file (0x600)"),
    (
        Craft(header={"l1_table_offset": 1025}),
        "the L1 table is at offset 0x401, not a multiple of the cluster size 512",
    ),
    (Craft(header={"l1_table_offset": 0}), "the L1 table is at offset 0x0, inside the header's cluster"),
    (
        Craft(header={"l1_table_offset": (1 << 64) - 512}),
        "the L1 table at 0xfffffffffffffe00 ends at 0xfffffffffffffe08",
    ),
    (Craft(header={"refcount_table_offset": 3}), "the refcount table is at offset 0x3, not a multiple"),
    (
        Craft(header={"refcount_table_offset": 1 << 40}),
        "the refcount table at 0x10000000000 ends at 0x10000000001, beyond",
    ),
    (Craft(header={"refcount_table_clusters": 0}), "the refcount table has 0 clusters, expected at least one"),
    (Craft(header={"refcount_table_clusters": 16385}), "the refcount table has 16385 clusters, expected at least one"),
    (Craft(header={"nb_snapshots": 65537}), "there are 65537 snapshots, at most 65536 are allowed"),
    (
        Craft(header={"nb_snapshots": 1, "snapshots_offset": 7}),
        "the snapshot table is at offset 0x7, not a multiple",
    ),
    (Craft(header={"nb_snapshots": 1, "snapshots_offset": 2048}), "the snapshot table at 0x800 ends at 0x801, beyond"),
    (
        Craft(extensions=b"\x01\x02\x03\x04\xff\xff\xff\xff"),
        "the extension 0x01020304 at byte 112 has 4294967295 bytes, and 392 are",
    ),
    (
        Craft(extensions=extension(7, bytes(393))[:400]),
        "the extension 0x00000007 at byte 112 has 393 bytes, and 392 are",
    ),
    (Craft(header={"incompatible_features": 8}), "compression_type is 0 while the compression type bit is 1"),
    (
        Craft(compression_type=1, header={"incompatible_features": 0}),
        "compression_type is 1 while the compression type bit is 0",
    ),
    (
        Craft(cluster_bits=13, header={"incompatible_features": 16}),
        "clusters have 8192 bytes, and extended L2 entries (subclusters) need at least 16384",
    ),
    (
        Craft(header={"backing_file_offset": 200, "backing_file_size": 1024}),
        "the backing file's name has 1024 bytes, at most 1023",
    ),
    (
        Craft(header={"backing_file_offset": 500, "backing_file_size": 13}),
        "the backing file's name is at bytes 500 to 513, outside",
    ),
    (
        Craft(header={"backing_file_offset": 1 << 63, "backing_file_size": 1}),
        "the backing file's name is at bytes 9223372036854775808",
    ),
]


@pytest.mark.parametrize(("craft", "sentence"), HOSTILE, ids=lambda value: str(value)[:60])
def test_hostile_header(craft: Craft, sentence: str) -> None:
    kind, text = refused(craft.build())
    assert kind is InvalidImageError
    assert sentence in text
    assert text.startswith("test.qcow2: ")
    assert "\n" not in text


UNSUPPORTED: list[tuple[Craft, str]] = [
    (Craft(version=1), "is a qcow image of version 1, and versions 2 and 3 are read; convert it with: "),
    (Craft(version=4), "is a qcow image of version 4, and versions 2 and 3 are read; convert it with: "),
    (Craft(compression_type=2), "is compressed by method 2, and zlib (0) and zstd (1) are read"),
    (
        Craft(header={"incompatible_features": 32}, extensions=NAMES),
        "needs incompatible feature 5 ('holograms'), which a reader must",
    ),
    (
        Craft(header={"incompatible_features": 96}, extensions=NAMES),
        "needs incompatible features 5 ('holograms'), 6, which a reader",
    ),
    (
        Craft(header={"incompatible_features": 3 << 61}, extensions=NAMES),
        "needs incompatible features 61 ('ended'), 62 ('cut short'), which a reader",
    ),
    (
        Craft(header={"incompatible_features": (1 << 64) - 32}),
        "needs incompatible features 5, 6, 7, 8 and 55 more, which a reader",
    ),
    (
        Craft(header={"incompatible_features": 32}, extensions=extension(0x1234, b"odd") + NAMES),
        "needs incompatible feature 5 ('holograms'), which a reader must",
    ),
]


@pytest.mark.parametrize(("craft", "sentence"), UNSUPPORTED, ids=lambda value: str(value)[:60])
def test_unsupported_header(craft: Craft, sentence: str) -> None:
    kind, text = refused(craft.build())
    assert kind is UnsupportedImageError
    assert text.startswith(f"test.qcow2: {sentence}")
    assert text.isprintable()


UNREADABLE: list[tuple[Craft, str]] = [
    (Craft(header={"crypt_method": 1}), "is encrypted with AES, and encrypted images cannot be read; "),
    (Craft(header={"crypt_method": 2}), "is encrypted with LUKS, and encrypted images cannot be read; "),
    (
        Craft(header={"crypt_method": 9}),
        "is encrypted with an unknown method (9), and encrypted images cannot be read; ",
    ),
    (
        Craft(header={"incompatible_features": 4}, extensions=extension(layout.EXTENSION_DATA_FILE, b"a\x1b[31m.raw")),
        "keeps its data in the external file 'a\\x1b[31m.raw', which was not opened",
    ),
    (
        Craft(header={"backing_file_offset": NAME_AT, "backing_file_size": 9}, extensions=BACKING + b"/etc/\n\xff\0x"),
        "has the backing file '/etc/\\n\\xff\\x00x', which was not opened",
    ),
    (
        Craft(header={"backing_file_offset": NAME_AT, "backing_file_size": 300}, extensions=BACKING + b"x" * 300),
        f"has the backing file '{'x' * 100}'..., which was not opened",
    ),
    (
        Craft(version=2, header={"backing_file_offset": 72, "backing_file_size": 8}, extensions=b"base.img"),
        "has the backing file 'base.img', which was not opened",
    ),
]


@pytest.mark.parametrize(("craft", "sentence"), UNREADABLE, ids=lambda value: str(value)[:60])
def test_a_valid_header_of_what_is_not_read(craft: Craft, sentence: str) -> None:
    assert read_header(BytesSource(craft.build())).size == craft.size
    with pytest.raises(UnsupportedImageError, match=f"^test.qcow2: {re.escape(sentence)}") as caught:
        open_qcow2(BytesSource(craft.build()))
    assert str(caught.value).isprintable()


def test_a_data_file_without_a_name() -> None:
    with pytest.raises(InvalidImageError, match="keeps its data in an external file, and does not say in which"):
        open_qcow2(BytesSource(Craft(header={"incompatible_features": 4}).build()))


def test_what_a_header_says() -> None:
    extensions = (
        BACKING + extension(layout.EXTENSION_DATA_FILE, b"d.raw") + extension(layout.EXTENSION_BITMAPS, bytes(24))
    )
    extensions += extension(0x12345678, b"") * 2 + bytes(8)
    fields = {
        "backing_file_offset": 112 + len(extensions),
        "backing_file_size": 4,
        "incompatible_features": 0b10101,
        "compatible_features": 1,
        "autoclear_features": 3,
        "refcount_order": 0,
    }
    craft = Craft(cluster_bits=16, size=1 << 40, extensions=extensions + b"base", header=fields, l1=[0] * 8192)
    header = read_header(BytesSource(craft.build()))
    assert (header.backing_file, header.backing_format, header.data_file) == (b"base", b"qcow2", b"d.raw")
    assert tuple(header.extensions) == (layout.EXTENSION_BACKING_FORMAT, 0x44415441, 0x23852875, 0x12345678)
    assert (header.dirty, header.corrupt, header.has_data_file, header.data_file_raw) == (True, False, True, True)
    assert (header.extended_l2, header.lazy_refcounts, header.has_bitmaps) == (True, True, True)
    assert (header.l2_entry_size, header.l2_entries, header.l2_span) == (16, 4096, 256 << 20)
    assert (header.l1_entries_used, header.subcluster_size, header.refcount_bits) == (4096, 2048, 1)


def test_what_a_bare_header_says() -> None:
    header = read_header(BytesSource(Craft(header={"autoclear_features": 3}).build()))
    assert (header.backing_file, header.backing_format, header.data_file) == (None, None, None)
    assert (header.dirty, header.data_file_raw, header.has_bitmaps, header.lazy_refcounts) == (False,) * 4
    assert (header.l2_entry_size, header.subcluster_size, header.refcount_bits) == (8, 512, 16)


HEAVY = {"dataclasses", "typing", "enum", "re", "contextlib", "collections", "collections.abc", "logging"}


def test_a_header_imports_nothing_heavy() -> None:
    """The shortest commands take hardly longer than their start."""
    script = "import sys; import pydiskimg.images.qcow2.header; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("length", [*range(0, 112, 7), 112, 511, 512, 1023, 1024, 1025, 1031])
def test_truncated_anywhere_before_the_tables_end(length: int) -> None:
    kind, text = refused(Craft().build()[:length])
    assert kind is InvalidImageError
    assert re.search(r"the file ends at byte|has \d+ bytes|beyond the end of the file|in the first cluster", text)


def test_a_mark_of_corruption_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    source = open_qcow2(BytesSource(Craft(header={"incompatible_features": 2}).build(), name="a\x1b[31m\nb"))
    assert next(source.extents()).kind is Kind.HOLE
    (record,) = caplog.records
    assert record.getMessage().startswith("a\\x1b[31m\\nb: is marked corrupt by ")
    assert record.getMessage().isprintable()


def test_bitmaps_before_a_backing_name_without_an_end_marker(tmp_path: Path) -> None:
    """The extensions end where the backing file's name begins, also for those who read a single one."""
    entry = BITMAP_ENTRY.pack(type=1, granularity_bits=16, name_size=1) + b"b" + bytes(7)
    name = b"a" * 16 + b".raw"
    craft = Craft(cluster_bits=12, size=1 << 15, header={"autoclear_features": 1})
    bitmaps = BITMAPS.pack(nb_bitmaps=1, bitmap_directory_size=len(entry), bitmap_directory_offset=len(craft.build()))
    pointer = extension(layout.EXTENSION_BITMAPS, bitmaps)
    craft.extensions = pointer + name
    craft.header |= {"backing_file_offset": 112 + len(pointer), "backing_file_size": len(name)}
    file = BytesSource(craft.build() + entry)
    assert [bitmap.name for bitmap in read_bitmaps(file, read_header(file))] == ["b"]
