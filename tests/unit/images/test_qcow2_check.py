# SPDX-License-Identifier: MIT
"""check_qcow2(): what is found in images put together byte by byte."""

from __future__ import annotations

import random
import resource
import struct
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import InvalidImageError, StorageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check import check_qcow2, reference_counter
from pydiskimg.images.qcow2.check.findings import MAX_DETAILS, CheckResult
from pydiskimg.images.qcow2.refcount_reader import MANY, expanded
from pydiskimg.images.raw import open_raw
from tests.fixtures.limits import limits
from tests.fixtures.qcow2_images import BytesSource, Craft, compressed_entry

CLUSTER = 512
COPIED = 1 << 63


def image(
    entries: list[int] | None = None, *, refcounts: dict[int, int] | None = None, order: int = 4, clusters: int = 16
) -> bytearray:
    """Clusters 0 header, 1 refcount table, 2 L1, 3 L2, from 4 on data, the last one the refcount block.

    Without entries, 4 to clusters - 2 are one run of data. refcounts are those that are not 1.
    """
    if entries is None:
        entries = [at * CLUSTER | COPIED for at in range(4, clusters - 1)]
    craft = Craft(l2=[entries], data=bytes((clusters - 4) * CLUSTER), header={"refcount_order": order})
    data = bytearray(craft.build())
    struct.pack_into(">Q", data, CLUSTER, (clusters - 1) * CLUSTER)
    bits = 1 << order
    block = 0
    for cluster in range(clusters):
        count = (refcounts or {}).get(cluster, 1)
        if bits < 8:
            at = (clusters - 1) * CLUSTER + cluster * bits // 8
            data[at] |= count << cluster * bits % 8
        else:
            block = (clusters - 1) * CLUSTER + cluster * bits // 8
            data[block : block + bits // 8] = count.to_bytes(bits // 8, "big")
    return data


def check(data: bytes | bytearray) -> CheckResult:
    return check_qcow2(BytesSource(bytes(data)))


def counts(data: bytes | bytearray) -> tuple[int, int, int]:
    result = check(data)
    return result.corruptions, result.leaks, result.check_errors


@pytest.mark.parametrize("order", range(7))
def test_sound_image_is_clean_in_every_width(order: int) -> None:
    result = check(image(order=order))
    assert result.is_clean, result.details
    assert (result.total_clusters, result.allocated_clusters, result.fragmented_clusters) == (64, 11, 0)
    assert result.image_end_offset == 16 * CLUSTER


@pytest.mark.parametrize("order", range(7))
def test_wrong_counts_are_found_in_every_width(order: int) -> None:
    largest = (1 << (1 << order)) - 1
    result = check(image(refcounts={7: 0}, order=order))
    # The count is too small, and the copied flag is set.
    assert (result.corruptions, result.leaks) == (2, 0)
    assert "cluster 7 (0xe00) has the reference count 0 and 1 references" in result.details
    if order:
        result = check(image(refcounts={2: largest}, order=order))
        assert (result.corruptions, result.leaks) == (0, 1)
        assert result.details == [f"cluster 2 (0x400) is leaked: it has the reference count {largest} and 1 references"]


@pytest.mark.parametrize(
    ("entry", "corruptions", "leaks", "text"),
    [
        (0, 0, 1, "leaked"),
        (4 * CLUSTER, 1, 0, "the copied flag is not set"),
        (5 * CLUSTER | COPIED, 1, 1, "2 references"),
        (3 * CLUSTER | COPIED, 1, 1, "cluster 3 (0x600) has the reference count 1 and 2 references"),
        (4 * CLUSTER | COPIED | 1 << 57, 1, 0, "has reserved bits set"),
        (4 * CLUSTER | COPIED | 1 << 5, 1, 0, "has reserved bits set"),
        (4 * CLUSTER | COPIED | 1, 0, 0, ""),
        (1 << 50, 1, 1, "beyond the end of the file"),
        (16 * CLUSTER, 1, 1, "beyond the end of the file"),
        (compressed_entry(9, 4 * CLUSTER, 100), 0, 0, ""),
        (compressed_entry(9, 4 * CLUSTER, 100) | COPIED, 1, 0, "is compressed and has the copied flag"),
        (compressed_entry(9, 4 * CLUSTER + 500, 100), 1, 0, "cluster 5 (0xa00) has the reference count 1 and 2"),
        (compressed_entry(9, 1 << 40, 100), 1, 1, "the compressed cluster"),
    ],
)
def test_entries(entry: int, corruptions: int, leaks: int, text: str) -> None:
    """The first entry of a table of data is replaced: 4 is its cluster."""
    for filler in ([], [9 * CLUSTER | COPIED], [at * CLUSTER | COPIED for at in range(6, 15)]):
        used = {0, 1, 2, 3, 4, 15, *(at // CLUSTER % 64 for at in filler)} | {5}
        data = image([entry, 5 * CLUSTER | COPIED, *filler], refcounts={at: 0 for at in range(16) if at not in used})
        result = check(data)
        assert (result.corruptions, result.leaks, result.check_errors) == (corruptions, leaks, 0), result.details
        assert any(text in detail for detail in result.details) or not text


def test_subclusters() -> None:
    data = image(clusters=16)
    assert counts(data)[0] == 0
    craft = Craft(
        cluster_bits=14,
        size=64 << 14,
        l2=[[4 << 14 | COPIED, 0xFFFFFFFF, 0, 0xF, 0, 0xF << 32, 5 << 14 | COPIED, 1 << 32 | 1]],
        data=bytes(3 << 14),
        header={"incompatible_features": layout.INCOMPATIBLE_EXTENDED_L2},
    )
    built = bytearray(craft.build())
    struct.pack_into(">Q", built, 1 << 14, 6 << 14)
    struct.pack_into(">7H", built, 6 << 14, *[1] * 7)
    result = check(built)
    assert (result.corruptions, result.leaks) == (2, 0), result.details
    assert "subclusters in it" in result.details[0]
    assert "allocated and zero" in result.details[1]
    assert result.allocated_clusters == 2


def test_refcount_table() -> None:
    data = image()
    for entry, expected, text in (
        (15 * CLUSTER | 1, (1, 1, 0), "has reserved bits set"),
        (1 << 40, (27, 0, 0), "beyond the end of the file"),
        (1 << 63, (1, 0, 16), "have no readable reference count"),
        (4 * CLUSTER, (29, 0, 0), "is also used for something else"),
    ):
        struct.pack_into(">Q", data, CLUSTER, entry)
        result = check(data)
        assert any(text in detail for detail in result.details), result.details
        assert (result.corruptions, result.leaks, result.check_errors)[2] == expected[2]
        assert result.corruptions >= min(1, expected[0])


def test_overlap_of_l1_and_data_and_second_l2_table() -> None:
    data = image()
    struct.pack_into(">Q", data, 2 * CLUSTER, 2 * CLUSTER | COPIED)  # the L1 table as an L2 table
    result = check(data)
    assert result.corruptions
    assert any("cluster 2 (0x400) has the reference count 1" in detail for detail in result.details)


def test_small_windows_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [
        image(),
        image(refcounts={7: 0, 9: 5}),
        image([4 * CLUSTER | COPIED, 4 * CLUSTER, 9 * CLUSTER | COPIED, 1 << 50, compressed_entry(9, 2500, 700)]),
        image()[:-100],
    ]
    whole = [check(data) for data in images]
    for window in (1, 3, 8):
        monkeypatch.setattr(reference_counter, "WINDOW", window)
        for data, expected in zip(images, whole, strict=True):
            found = check(data)
            assert sorted(found.details) == sorted(expected.details)
            found.details = expected.details
            assert vars(found) == vars(expected)


def test_many_references_are_counted_exactly() -> None:
    entries = [4 * CLUSTER] * 64
    result = check(image(entries, refcounts={4: 64, **dict.fromkeys(range(5, 15), 0)}))
    assert result.is_clean, result.details
    result = check(image(entries, refcounts={4: 63, **dict.fromkeys(range(5, 15), 0)}))
    assert (result.corruptions, result.leaks) == (1, 0)
    # 300 references need more than a byte; an L1 table of five entries names one table.
    craft = Craft(size=5 * 64 * CLUSTER, l2=[entries], l1=[3 * CLUSTER] * 5, data=bytes(12 * CLUSTER))
    data = bytearray(craft.build())
    struct.pack_into(">Q", data, CLUSTER, 15 * CLUSTER)
    struct.pack_into(">5H", data, 15 * CLUSTER, 1, 1, 1, 5, 320)
    struct.pack_into(">H", data, 15 * CLUSTER + 30, 1)
    assert check(data).is_clean
    struct.pack_into(">H", data, 15 * CLUSTER + 8, 321)
    assert counts(data) == (0, 1, 0)


def test_references_that_do_not_fit_are_corruption() -> None:
    result = check(image([4 * CLUSTER] * 9, order=1, refcounts={4: 3, **dict.fromkeys(range(5, 15), 0)}))
    assert (result.corruptions, result.leaks) == (6, 0)
    assert result.details == ["cluster 4 has 6 references more than 2 bits can count"]


def test_expanded_counts() -> None:
    assert expanded(b"\x81", 0) == bytes([1, 0, 0, 0, 0, 0, 0, 1])
    assert expanded(b"\xe4", 1) == bytes([0, 1, 2, 3])
    assert expanded(b"\x21", 2) == bytes([1, 2])
    assert expanded(b"\x07\xff", 3) == bytes([7, 255])
    assert expanded(b"\x00\x07\x01\x00\x00\xff", 4) == bytes([7, MANY, MANY])
    assert expanded(struct.pack(">3I", 9, 256, 1 << 31), 5) == bytes([9, MANY, MANY])
    assert expanded(struct.pack(">3Q", 9, 1 << 8, 1 << 63), 6) == bytes([9, MANY, MANY])


def test_details_are_few_and_counts_exact() -> None:
    entries = [(1 << 40) + at * CLUSTER for at in range(64)]
    craft = Craft(size=40 * 64 * CLUSTER, l2=[entries], l1=[3 * CLUSTER] * 40, data=bytes(12 * CLUSTER))
    data = bytearray(craft.build())
    result = check(data)
    assert result.corruptions >= 40 * 64
    assert len(result.details) <= MAX_DETAILS


def test_file_of_too_many_clusters_is_refused() -> None:
    class Endless(BytesSource):
        def __init__(self) -> None:
            super().__init__(bytes(image()))
            self.size = 1 << 62

    with pytest.raises(UnsupportedImageError, match=r"the file has \d+ clusters, but at most 2147483647 are checked"):
        check_qcow2(Endless())


def test_snapshot_with_much_extra_data_is_refused() -> None:
    data = image()
    struct.pack_into(">IQ", data, 60, 1, 4 * CLUSTER)
    struct.pack_into(">I", data, 4 * CLUSTER + 36, 1 << 31)
    with pytest.raises(InvalidImageError, match="snapshot 0 at 0x800 has 2147483648 bytes of extra data"):
        check(data)


def test_small_hostile_image_takes_little_time_and_memory() -> None:
    """An L1 table of 64 Ki entries names a few hundred tables of random bytes, a snapshot each part of it."""
    rng = random.Random(1)
    l1 = b"".join(struct.pack(">Q", 0x90000 + at % 512 * 512 | COPIED) for at in range(1 << 16))
    head = Craft(header={"size": 1 << 30, "l1_table_offset": 1024, "l1_size": 1 << 16}).build()[:CLUSTER]
    data = bytearray(head.ljust(1024, b"\0") + l1)
    data = data.ljust(0x90000, b"\0") + rng.randbytes(1 << 18)
    snapshots = b"".join(
        struct.pack(">QIHHIIQII", 1024 + at * 512, 1 << 15, 0, 0, 0, 0, 0, 0, 16) + bytes(16) for at in range(900)
    )
    struct.pack_into(">IQ", data, 60, 900, len(data))
    data += snapshots.ljust((1 << 20) - len(data), b"\0")
    with limits(20, 100 << 20):  # a second on a quiet machine
        result = check(data)
    assert result.corruptions


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.qcow2"
    for data, status, line in (
        (image(), 0, "No errors were found on the image.\n"),
        (image(refcounts={7: 0}), 2, "\n2 errors were found on the image.\nData may be corrupted"),
        (image(refcounts={2: 3}), 3, "\n1 leaked clusters were found on the image.\nThis means waste of disk space"),
        (image()[:100], 1, ""),
    ):
        path.write_bytes(data)
        assert main(["check", str(path)]) == status
        assert line in capsys.readouterr().out
        assert main(["check", "-q", str(path)]) == status
        assert capsys.readouterr().out == ""
    assert main(["check", "-f", "raw", str(path)]) == 63
    assert "without a file system to check" in capsys.readouterr().err


def test_too_little_memory_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(image([]))
        file.truncate(20 << 30)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open_raw(path) as source:
        resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), before[1]))
        try:
            with pytest.raises(StorageError, match=r"^checking: the system has no .* bytes of memory: Cannot"):
                check_qcow2(source)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


def test_tables_at_wrong_places_that_overlap_are_not_all_visited() -> None:
    """64 tables of 256 KiB, each 512 bytes before the last one, and every entry wrong: once 16 seconds for 1 MiB."""
    entries = [1 << 63 | 1 << 60 | number << 10 | 512 for number in range(1 << 15)]
    tables = [(3 << 18) - 512 * number | layout.COPIED for number in range(64)]
    image = Craft(cluster_bits=18, size=64 << 33, l2=[entries], l1=tables).build()
    with limits(4):
        result = check_qcow2(BytesSource(image))
    assert result.corruptions > 3 * len(entries)
    assert len(result.details) == MAX_DETAILS
