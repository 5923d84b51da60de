# SPDX-License-Identifier: MIT
"""Internal snapshots: the table is read within bounds, and one of them is found and opened."""

from __future__ import annotations

import os
import re
import time

import pytest

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.snapshots import SNAPSHOT, Snapshot, read_snapshots
from pydiskimg.protocols import WritableBuffer, read_bytes
from tests.fixtures.qcow2_images import BytesSource, Craft

CLUSTER = 512
SIZE = 64 * CLUSTER
OLD, NEW = b"old".ljust(CLUSTER, b"o"), b"new".ljust(CLUSTER, b"n")
L1_OLD = 3 * CLUSTER  # behind header, refcount table, L1 table


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in values)


def entry(
    id: bytes = b"1",  # noqa: A002
    name: bytes = b"first",
    *,
    extra: bytes = numbers(0, SIZE),
    l1: int = L1_OLD,
    l1_size: int = 1,
    state: int = 0,
    extra_size: int | None = None,
) -> bytes:
    head = SNAPSHOT.pack(
        l1_table_offset=l1,
        l1_size=l1_size,
        id_str_size=len(id),
        name_size=len(name),
        date_sec=1000,
        date_nsec=2000,
        vm_clock_nsec=3000,
        vm_state_size=state,
        extra_data_size=len(extra) if extra_size is None else extra_size,
    )
    data = head + extra + id + name
    return data + bytes(-len(data) % 8)


def image(*entries: bytes, count: int | None = None, version: int = 3) -> bytes:
    """The disk begins with NEW, and that of the snapshots with OLD; the table comes last."""
    # clusters: 3 the snapshots' L1 table, 4 and 5 the L2 tables, 6 and 7 the data, 8 and on the snapshot table
    data = numbers(4 * CLUSTER).ljust(CLUSTER, b"\0")
    data += numbers(7 * CLUSTER).ljust(CLUSTER, b"\0") + numbers(6 * CLUSTER).ljust(CLUSTER, b"\0") + NEW + OLD
    header = {"nb_snapshots": len(entries) if count is None else count, "snapshots_offset": 8 * CLUSTER}
    return Craft(version=version, size=SIZE, l1=[5 * CLUSTER], data=data + b"".join(entries), header=header).build()


def snapshots(content: bytes) -> list[Snapshot]:
    file = BytesSource(content)
    return read_snapshots(file, read_header(file))


def test_one_entry() -> None:
    assert snapshots(image(entry(state=7))) == [
        Snapshot(
            whole_id=b"1",
            whole_name=b"first",
            vm_state_size=0,
            date_sec=1000,
            date_nsec=2000,
            vm_clock_nsec=3000,
            icount=None,
            disk_size=SIZE,
            l1_table_offset=L1_OLD,
            l1_size=1,
        ),
    ]


@pytest.mark.parametrize("version", [2, 3])
def test_extra_data_of_every_length(version: int) -> None:
    whole = numbers(1 << 40, 1024, 77) + bytes(1000)
    entries = [entry(b"%d" % n, extra=whole[:n], state=5) for n in (0, 4, 8, 15, 16, 24, 32, 1024)]
    found = snapshots(image(*entries, version=version))
    assert [s.id for s in found] == ["0", "4", "8", "15", "16", "24", "32", "1024"]
    assert [s.vm_state_size for s in found] == [5, 5, *[1 << 40] * 6]
    assert [s.disk_size for s in found] == [SIZE] * 4 + [1024] * 4
    assert [s.icount for s in found] == [None] * 5 + [77] * 3


def test_padding_and_odd_names() -> None:
    names = [b"", b"x", b"seven..", b"eight...", "\N{SNOWMAN}".encode(), b"\xff", b"x" * 255]
    found = snapshots(image(*(entry(b"", name, extra=numbers(0, SIZE, 2**64 - 1)) for name in names)))
    assert [s.name.encode("utf-8", "surrogateescape") for s in found] == names
    assert {s.icount for s in found} == {None}


@pytest.mark.parametrize(
    ("stored", "shown_id", "shown_name"),
    [
        (b"x" * 65535, b"x" * 127, b"x" * 255),
        (b"a\0b", b"a", b"a"),
        (bytes(65535), b"", b""),
        ("\N{SNOWMAN}".encode() * 100, "\N{SNOWMAN}".encode() * 42 + b"\xe2", "\N{SNOWMAN}".encode() * 85),
    ],
)
def test_names_are_shown_as_far_as_qemu_shows_them(stored: bytes, shown_id: bytes, shown_name: bytes) -> None:
    found = snapshots(image(entry(stored, stored)))[0]
    assert os.fsencode(found.id) == shown_id
    assert os.fsencode(found.name) == shown_name


def test_a_long_name_is_found_as_it_is_and_as_it_is_shown() -> None:
    content = image(entry(b"i" * 300, b"n" * 300), entry(b"2", b"n" * 256, l1=2 * CLUSTER))
    for wanted, expected in (("i" * 300, OLD), ("n" * 300, OLD), ("n" * 256, NEW), ("i" * 127, OLD), ("n" * 255, OLD)):
        assert read_bytes(open_qcow2(BytesSource(content), snapshot=wanted), 0, CLUSTER) == expected, len(wanted)
    for wanted in ("i" * 128, "n" * 257):
        with pytest.raises(UnsupportedImageError, match="has no snapshot"):
            open_qcow2(BytesSource(content), snapshot=wanted)


def test_no_snapshots() -> None:
    assert snapshots(Craft().build()) == []


HOSTILE = [
    (image(entry(extra=bytes(1025))), "has 1025 bytes of extra data, at most 1024 are allowed"),
    (image(entry(extra_size=2**32 - 1)), "has 4294967295 bytes of extra data, at most 1024 are allowed"),
    (image(entry(), count=2), "snapshot 2 of 2, at 0x1040: ends at 0x1068, beyond the end of the file (0x1040)"),
    (image(entry(name=b"x" * 100)[:-50]), "beyond the end of the file"),
    (image(entry(extra=numbers(0, 1 << 63))), "has a disk of 9223372036854775808 bytes, and no disk is larger"),
]


@pytest.mark.parametrize(("content", "sentence"), HOSTILE)
def test_hostile_tables(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidImageError, match=re.escape(sentence)) as caught:
        snapshots(content)
    assert str(caught.value).startswith("test.qcow2: snapshot ")


class Endless(BytesSource):
    """A terabyte: its bytes, then snapshot entries of 128 KiB each; only their sizes matter."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.size = 1 << 40

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        if offset < len(self.data):
            buffer[:] = self.data[offset : offset + len(buffer)].ljust(len(buffer), b"\0")
        elif len(buffer) == SNAPSHOT.size:
            buffer[:] = entry(b"i" * 65535, b"n" * 65535)[: SNAPSHOT.size]


def test_a_table_of_64_mib_is_where_it_ends() -> None:
    """More entries than 64 MiB can hold: nothing is read beyond."""
    file = Endless(image(count=65536))
    header = read_header(file)
    start = time.process_time()
    with pytest.raises(InvalidImageError, match=r"snapshot 512 of 65536.* ends beyond the 67108864 bytes a table may"):
        read_snapshots(file, header)
    assert time.process_time() - start < 5


def test_open_by_id_or_name() -> None:
    entries = [entry(b"1", b"2"), entry(b"2", b"other", l1=2 * CLUSTER), entry(b"3", b"1"), entry(b"4", b"last")]
    for wanted, expected in [(None, NEW), ("1", OLD), ("2", NEW), ("other", NEW), ("last", OLD), ("4", OLD)]:
        source = open_qcow2(BytesSource(image(*entries)), snapshot=wanted)
        assert read_bytes(source, 0, SIZE) == expected.ljust(SIZE, b"\0"), wanted


def test_none_of_that_name() -> None:
    with pytest.raises(UnsupportedImageError, match=r"^test.qcow2: has no snapshot 'x'; it has no snapshots at all$"):
        open_qcow2(BytesSource(Craft().build()), snapshot="x")
    content = image(*(entry(b"%d" % n, b"name\n%d" % n) for n in range(10)))
    with pytest.raises(UnsupportedImageError) as caught:
        open_qcow2(BytesSource(content), snapshot="x")
    assert str(caught.value).startswith(
        "test.qcow2: has no snapshot 'x'; expected the id or the name of: '0' ('name\\n0'), '1' ('name\\n1'), "
    )
    assert str(caught.value).endswith("'7' ('name\\n7') and 2 more")


@pytest.mark.parametrize("disk_size", [0, 1, CLUSTER, SIZE - 1, SIZE])
def test_a_disk_of_another_size(disk_size: int) -> None:
    source = open_qcow2(BytesSource(image(entry(extra=numbers(0, disk_size)))), snapshot="1")
    assert source.size == disk_size
    assert read_bytes(source, 0, disk_size) == OLD.ljust(SIZE, b"\0")[:disk_size]


L1_HOSTILE = [
    (entry(extra=numbers(0, SIZE + 1)), "L1 table of 1 entries at 0x600: a virtual size of 32769 bytes needs 2"),
    (entry(l1_size=0), "L1 table of 0 entries at 0x600: a virtual size of 32768 bytes needs 1"),
    (entry(l1_size=(4 << 20) + 1), "L1 table of 4194305 entries at 0x600: at most 4194304 entries are allowed"),
    (entry(l1=0), "L1 table of 1 entries at 0x0: the offset is that of the header, or is not aligned"),
    (entry(l1=513), "L1 table of 1 entries at 0x201: the offset is that of the header, or is not aligned"),
    (entry(l1=1 << 63), "it ends beyond the end of the file"),
    (entry(l1_size=1 << 20), "it ends beyond the end of the file"),
    (entry(extra=numbers(0, (1 << 63) - 1)), "a virtual size of 9223372036854775807 bytes needs 281474976710656"),
]


@pytest.mark.parametrize(("hostile", "sentence"), L1_HOSTILE)
def test_hostile_l1_tables(hostile: bytes, sentence: str) -> None:
    assert len(snapshots(image(hostile))) == 1  # listing them is no harm
    with pytest.raises(InvalidImageError, match=re.escape(sentence)):
        open_qcow2(BytesSource(image(hostile)), snapshot="1")
