# SPDX-License-Identifier: MIT
"""compare(): the first difference, whatever the extents and the number of threads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.protocols import KindColumn, WritableBuffer
from pydiskimg.transfer.allocation import side_by_side
from pydiskimg.transfer.compare import CHUNK_SIZE, Comparison, compare
from tests.fixtures.qcow2_images import BytesSource

IDENTICAL = Comparison(None, None, sizes_differ=False)


class Patchwork(BytesSource):
    """Bytes with the given extents; only DATA may be read unless the other side needs more."""

    def __init__(self, data: bytes, kinds: str, unit: int) -> None:
        super().__init__(data)
        self.kinds = kinds
        self.unit = unit
        self.reads: list[tuple[int, int]] = []

    def extents(self) -> Iterator[Extent]:
        names = {"D": Kind.DATA, "H": Kind.HOLE, "Z": Kind.ZERO}
        pieces = (
            Extent(start, min(self.unit, self.size - start), names[kind])
            for start, kind in zip(range(0, self.size, self.unit), self.kinds, strict=True)
        )
        return merged(pieces)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self.reads.append((offset, len(buffer)))
        super().read_into(offset, buffer)


def patchwork(rng: random.Random, kinds: str, unit: int, pattern: bytes) -> Patchwork:
    """Pattern where the kind is DATA, zeros elsewhere; sometimes zeros in DATA."""
    parts = [
        pattern[at * unit : (at + 1) * unit] if kind == "D" and rng.random() < 0.9 else bytes(unit)
        for at, kind in enumerate(kinds)
    ]
    return Patchwork(b"".join(parts), kinds, unit)


@pytest.mark.parametrize("seed", range(12))
def test_first_difference_is_found(seed: int) -> None:
    rng = random.Random(seed)
    unit = rng.choice((4096, 65536, 1 << 20))
    count = rng.randrange(1, 12)
    pattern = rng.randbytes(unit * count)
    pair = [patchwork(rng, "".join(rng.choices("DHZ", k=count)), unit, pattern) for _ in range(2)]
    wanted = next((at for at, (x, y) in enumerate(zip(pair[0].data, pair[1].data, strict=True)) if x != y), None)
    found = compare(*pair, workers=rng.choice((1, 3, 8)))
    assert found.offset == wanted
    assert found.difference == (None if wanted is None else "content")


@pytest.mark.parametrize("at", [0, 1, 511, 512, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE - 1])
def test_one_byte_anywhere(at: int) -> None:
    data = bytearray(random.Random(1).randbytes(3 * CHUNK_SIZE))
    other = BytesSource(bytes(data))
    assert compare(BytesSource(bytes(data)), other) == IDENTICAL
    data[at] ^= 1
    assert compare(BytesSource(bytes(data)), other) == Comparison("content", at, sizes_differ=False)


def test_later_differences_do_not_hide_the_first() -> None:
    data = bytearray(16 * CHUNK_SIZE)
    for at in range(5 * CHUNK_SIZE + 7, len(data), CHUNK_SIZE // 2):
        data[at] = 1
    for _ in range(5):
        assert compare(BytesSource(bytes(data)), BytesSource(bytes(len(data))), workers=8).offset == 5 * CHUNK_SIZE + 7


def test_what_both_hold_as_zero_is_not_read() -> None:
    a, b = Patchwork(bytes(8 << 20), "HZHZHZHD", 1 << 20), Patchwork(bytes(8 << 20), "ZZHHDZHZ", 1 << 20)
    assert compare(a, b) == IDENTICAL
    assert (
        sorted(a.reads) == sorted(b.reads) == [(at << 20 | part << 18, 1 << 18) for at in (4, 7) for part in range(4)]
    )


def test_the_shorter_one_continues_with_zeros() -> None:
    short, long = BytesSource(b"ab" * 512), BytesSource(b"ab" * 512 + bytes(5000))
    for pair in ((short, long), (long, short)):
        assert compare(*pair) == Comparison(None, None, sizes_differ=True)
        assert compare(*pair, strict=True) == Comparison("size", 1024, sizes_differ=True)
    longer = BytesSource(long.data + b"x")
    assert compare(short, longer) == Comparison("content", 1024 + 5000, sizes_differ=True)
    assert compare(BytesSource(b""), longer) == Comparison("content", 0, sizes_differ=True)
    assert compare(BytesSource(b""), BytesSource(b"")) == IDENTICAL


def test_strict_compares_kinds_too() -> None:
    a, b = Patchwork(bytes(4096), "DHHZ", 1024), Patchwork(bytes(4096), "DHZZ", 1024)
    assert compare(a, b, strict=True) == Comparison("allocation", 2048, sizes_differ=False)
    assert compare(a, a, strict=True) == IDENTICAL
    content = Patchwork(b"x" + bytes(4095), "DHZZ", 1024)
    assert compare(a, content, strict=True) == Comparison("content", 0, sizes_differ=False)


def test_progress_reaches_the_end() -> None:
    said: list[tuple[int, int]] = []
    a = Patchwork(bytes(8 << 20), "HDHDDDZZ", 1 << 20)
    compare(a, BytesSource(bytes((8 << 20) + 5)), progress=lambda done, total: said.append((done, total)))
    assert said[-1] == ((8 << 20) + 5, (8 << 20) + 5)
    assert said == sorted(said)


def test_extents_with_a_gap_are_refused() -> None:
    class Gap(BytesSource):
        def extents(self) -> Iterator[Extent]:
            yield Extent(0, 10, Kind.DATA)
            yield Extent(20, self.size - 20, Kind.DATA)

    with pytest.raises(InvalidImageError, match="its extents cover 10 bytes of 100"):
        compare(Gap(bytes(100)), BytesSource(bytes(100)))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other, absent = tmp_path / "one", tmp_path / "other", tmp_path / "absent"
    one.write_bytes(b"x" * 1000)
    other.write_bytes(b"x" * 700 + b"y" + b"x" * 299)
    assert main(["compare", str(one), str(one)]) == 0
    assert main(["compare", str(one), str(other)]) == 1
    assert capsys.readouterr().out == "Images are identical.\nContent mismatch at offset 512!\n"
    assert main(["compare", "-q", str(one), str(other)]) == 1
    assert main(["compare", str(one), str(absent)]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == f"pydiskimg: {absent}: cannot open the image: No such file or directory\n"


@pytest.mark.parametrize("seed", range(20))
def test_kinds_side_by_side(seed: int) -> None:
    """Columns of any lengths and steps, alike in places: what comes out covers all, and says what a loop says."""
    rng, unit, size = random.Random(seed), 8, 200
    pair = [bytearray(rng.choice(b"DHZ") for _ in range(size)) for _ in range(2)]
    for _ in range(6):
        start = rng.randrange(0, size, 8)
        pair[1][start : start + 40] = pair[0][start : start + 40]
    cuts = [sorted({0, size, *rng.sample(range(8, size, 8), 5)}) for _ in range(2)]
    cuts[1] = sorted({*cuts[0][:4], *cuts[1]})

    def columns(kinds: bytes, ends: list[int]) -> Iterator[KindColumn]:
        for start, end in pairwise(ends):
            same = end
            while kinds[start:same].count(kinds[start]) < same - start:
                same -= 1
            if same == end:
                yield start, end - start, end, kinds[start:same][:1]
            else:
                yield start, 1, end, kinds[start:end]

    both = [columns(bytes(kinds), ends) for kinds, ends in zip(pair, cuts, strict=True)]
    position, code = 0, {Kind.DATA: ord("D"), Kind.HOLE: ord("H"), Kind.ZERO: ord("Z")}
    for start, length, mine, theirs in side_by_side(both[0], both[1], unit):
        assert start == position
        position = start + length
        wanted = set(zip(pair[0][start:position], pair[1][start:position], strict=True))
        if mine is not theirs:
            assert wanted == {(code[mine], code[theirs])}
        else:
            assert all(a == b for a, b in wanted)
            assert mine is Kind.DATA or (code[Kind.DATA],) * 2 not in wanted
            assert len(wanted) == 1 or length % unit == 0 or position == size
    assert position == size


def test_strict_images_with_other_tables(tmp_path: Path) -> None:
    """Clusters of other sizes, and of one image a table more: the first difference is found by either way."""
    names = []
    for number, cluster_size in enumerate((4096, 65536)):
        path = tmp_path / f"{number}.qcow2"
        with new_image(path, 64 << 20, format="qcow2", cluster_size=cluster_size) as disk:
            disk.write(0, b"x" * (128 << 10))
            disk.write(32 << 20, b"y" * (128 << 10))
            if number:
                disk.write(40 << 20, b"\0" * 65535 + b"z")
        names.append(path)
    with open_image(names[0]) as a, open_image(names[1]) as b, open_image(names[0]) as again:
        assert compare(a, b, strict=True) == Comparison("allocation", 40 << 20, sizes_differ=False)
        assert compare(a, again, strict=True) == IDENTICAL
