# SPDX-License-Identifier: MIT
"""pydiskimg map and map_rows(): crafted images; tests/oracle/test_map_oracle.py has the random ones."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.cli import main
from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.map import IS_PRESENT, map_rows
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.host_offsets import HAS_OFFSET, IS_COMPRESSED, IS_DATA, IS_ZERO
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.raw_layer import StoredRanges
from tests.fixtures.qcow2_images import BytesSource, Craft, compressed_entry

CLUSTER = 512
COPIED = 1 << 63
DATA, ZEROS = b"\xaa" * CLUSTER, bytes(CLUSTER)


def entries(source: Any, start: int = 0, length: int | None = None) -> list[tuple[int, int, int, str, int | None]]:
    """(start, length, depth, letters of what is true, offset) of each row."""
    letters = ((IS_PRESENT, "p"), (IS_ZERO, "z"), (IS_DATA, "d"), (IS_COMPRESSED, "c"))
    _, rows = map_rows(source, start, source.size - start if length is None else length)
    return [
        (
            *row[:3],
            "".join(letter for flag, letter in letters if row[3] & flag),
            row[4] if row[3] & HAS_OFFSET else None,
        )
        for row in rows
    ]


def crafted() -> Craft:
    """Data, data elsewhere, zero, zero with an offset, compressed, and nothing."""
    craft = Craft(size=64 * CLUSTER, l2=[[]], data=DATA * 4)
    at = craft.data_offset
    craft.l2 = [[at | COPIED, at + 1024 | COPIED, 1, at + 512 | 1 | COPIED, compressed_entry(9, at + 1536, 100)]]
    return craft


def test_every_kind_of_entry() -> None:
    craft = crafted()
    at = craft.data_offset
    source = open_qcow2(BytesSource(craft.build()))
    assert entries(source) == [
        (0, 512, 0, "pd", at),
        (512, 512, 0, "pd", at + 1024),
        (1024, 512, 0, "pz", None),
        (1536, 512, 0, "pz", at + 512),
        (2048, 512, 0, "pdc", None),
        (2560, 59 * 512 + 0, 0, "z", None),
    ]
    assert entries(source, 100, 500) == [(100, 412, 0, "pd", at + 100), (512, 88, 0, "pd", at + 1024)]
    assert entries(source, 40 * 512, 0) == []
    assert map_rows(source, 0, 1)[0] == ["test.qcow2"]
    with pytest.raises(ValueError, match="outside"):
        map_rows(source, 0, 65 * 512)


def test_neighbours_are_joined_where_their_offsets_adjoin() -> None:
    craft = Craft(size=64 * CLUSTER, l2=[[]], data=DATA * 4)
    at = craft.data_offset
    craft.l2 = [[at, at + 512, at + 1024, at + 512, 1, 1, at + 1 | 1, at + 513]]
    assert entries(open_qcow2(BytesSource(craft.build())))[:5] == [
        (0, 1536, 0, "pd", at),
        (1536, 512, 0, "pd", at + 512),
        (2048, 1024, 0, "pz", None),
        (3072, 1024, 0, "pz", at),
        (4096, 56 * 512, 0, "z", None),
    ]


def test_a_raw_file_with_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    with path.open("wb") as file:
        file.write(b"x" * 65536)
        file.truncate(3 * 65536)
        file.seek(2 * 65536)
        file.write(b"y")
    with open_image(path, format="raw") as source:
        found = entries(source)
    assert found[0] == (0, 65536, 0, "pd", 0)
    assert found[1] == (65536, 65536, 0, "pz", 65536)
    assert sum(entry[1] for entry in found) == 3 * 65536


def test_a_clusters_offset_that_the_file_system_has_not_filled(tmp_path: Path) -> None:
    cluster = 4096
    craft = Craft(cluster_bits=12, size=64 * cluster, l2=[[]])
    at = craft.data_offset
    count = 32
    craft.l2 = [[at + index * cluster | COPIED for index in range(count)]]
    data = bytearray(craft.build())
    block = at + count * cluster  # the refcount block, behind the data
    data[cluster : cluster + 8] = block.to_bytes(8, "big")
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(data)
        file.seek(at)
        file.write(b"d" * cluster)
        file.seek(block)
        file.write(b"\0\1" * (4 + count + 1) + bytes(cluster - 2 * (5 + count)))
    with open_image(path) as source:
        found = entries(source)
    assert found == [
        (0, cluster, 0, "pd", at),
        (cluster, 31 * cluster, 0, "pzd", at + cluster),
        (32 * cluster, 32 * cluster, 0, "z", None),
    ]


def test_a_shorter_backing_file() -> None:
    below = BytesSource(Craft(size=3 * CLUSTER, l2=[[0, 1]]).build(), name="below")
    above = Craft(size=64 * CLUSTER, l2=[[1]]).build()
    source = open_qcow2(BytesSource(above), backing=open_qcow2(below))
    assert entries(source) == [
        (0, 512, 0, "pz", None),
        (512, 512, 1, "pz", None),
        (1024, 512, 1, "z", None),
        (1536, 61 * 512, 0, "z", None),
    ]


def test_what_has_no_map() -> None:
    with pytest.raises(UnsupportedImageError, match="neither a raw nor a qcow2 image"):
        map_rows(BytesSource(b"x" * 512), 0, 512)


def test_a_damaged_table_is_found_when_it_is_reached() -> None:
    craft = Craft(size=128 * CLUSTER, l2=[[1], [1 << 60]])
    _, found = map_rows(open_qcow2(BytesSource(craft.build())), 0, craft.size)
    assert next(found)[:2] == (0, 512)
    with pytest.raises(InvalidImageError, match="L2 table 1"):
        list(found)


def test_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    craft = crafted()
    path.write_bytes(craft.build())
    assert main(["map", "--output=json", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == (
        '[{ "start": 0, "length": 512, "depth": 0, "present": true, "zero": false, "data": true, "compressed": false, '
        f'"offset": {craft.data_offset}}},'
    )
    assert len(json.loads(out)) == 6
    assert main(["map", "--output=json", "-s", "1k", "-l", "1k", str(path)]) == 0
    assert [entry["start"] for entry in json.loads(capsys.readouterr().out)] == [1024, 1536]
    assert main(["map", "--output=json", "-s", "1T", str(path)]) == 0
    assert [(entry["start"], entry["length"]) for entry in json.loads(capsys.readouterr().out)] == [(1 << 40, 0)]
    assert main(["map", "-l", "2k", str(path)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header == "Offset          Length          Mapped to       File"
    assert [row.split() for row in rows] == [
        ["0", "0x200", f"{craft.data_offset:#x}", str(path)],
        ["0x200", "0x200", f"{craft.data_offset + 1024:#x}", str(path)],
    ]
    assert main(["map", str(path)]) == 1
    assert "guest bytes 2048 to 2560 are compressed" in capsys.readouterr().err


def test_stored_ranges_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1 << 20)
        os.pwrite(file.fileno(), b"x" * 65536, 1 << 19)
    with open_image(path, format="raw") as source:
        ranges = StoredRanges(source)
        assert list(ranges.pieces((1 << 19) + 1, 10)) == [((1 << 19) + 1, 10, True)]
        assert list(ranges.pieces(0, 1 << 19)) == [(0, 1 << 19, False)]
        assert [stored for _, _, stored in ranges.pieces(0, 2 << 20)] == [False, True, False, False]
        assert list(ranges.pieces(5 << 20, 7)) == [(5 << 20, 7, False)]


@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 1 << 30), most=st.sampled_from([1, 3, 40, 3000]))
def test_rows_of_few_and_of_many_clusters(number: int, most: int) -> None:
    """What one cluster after the other says, joined, is what operations over a whole table give."""
    rng, size, count = random.Random(number), 1 << 15, 4096
    kinds = "DEZOCH"
    table: list[int] = []
    while len(table) < count:
        kind, length = rng.choice(kinds), rng.randrange(1, most + 1)
        at = (4 + rng.randrange(4)) * size
        row = {"D": at, "E": at, "Z": 1, "O": at | 1, "C": compressed_entry(15, at, 100), "H": 0}[kind]
        table += [row + size * (step % 190 if kind in "EO" else 0) for step in range(length)]
    craft = Craft(cluster_bits=15, size=count * size - 700, l2=[table[:count]], data=bytes(196 * size))
    source = open_qcow2(BytesSource(craft.build()))
    start = rng.randrange(source.size)
    length = rng.choice((source.size - start, rng.randrange(source.size - start + 1)))
    assert entries(source, start, length) == _cluster_by_cluster(table, start, start + length)


def _cluster_by_cluster(table: list[int], start: int, end: int) -> list[tuple[int, int, int, str, int | None]]:
    found: list[tuple[int, int, int, str, int | None]] = []
    while start < end:
        index, inside = divmod(start, 1 << 15)
        entry, stop = table[index], min(end, (index + 1) << 15)
        if entry >> 62 & 1:
            letters, host = "pdc", None
        else:
            letters = "pz" if entry & 1 else "pd" if entry else "z"
            host = (entry & ~1) + inside if entry > 1 else None
        if found and found[-1][3] == letters and (host is None) == (found[-1][4] is None):
            last = found[-1]
            if host is None or host == (last[4] or 0) + last[1]:
                found.pop()
                start, host = last[0], last[4]
        found.append((start, stop - start, 0, letters, host))
        start = stop
    return found
