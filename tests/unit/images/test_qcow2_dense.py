# SPDX-License-Identifier: MIT
"""An image of 1 MiB with two million extents takes no longer than others; many small extents are handled together."""

from __future__ import annotations

import io
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.cli import main
from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.map import map_rows
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.host_offsets import HAS_OFFSET
from pydiskimg.images.qcow2.reader import Qcow2Source, open_qcow2
from pydiskimg.images.qcow2.runs import DATA, HOLE, MixedRun, Run
from pydiskimg.images.qcow2.subclusters import fill_over
from pydiskimg.images.raw import open_raw
from pydiskimg.protocols import Buffer, Disk, WritableBuffer, read_bytes
from pydiskimg.transfer.compare import compare
from pydiskimg.transfer.copy import copy
from pydiskimg.transfer.pieces import pieces
from pydiskimg.transfer.send import write_stream
from tests.fixtures.dense_images import ALTERNATING, ZERO_BETWEEN, dense, dense_in_disorder
from tests.fixtures.limits import limits
from tests.fixtures.qcow2_images import BytesSource, Craft

SUB = 512
STORED = random.Random(3).randbytes(1 << 14)
EXTENTS = 58 * 1024 * 32
# Processor seconds of all threads. On a quiet machine each takes less than two or three seconds by the clock
# (docs/hostile-images.md); one with other work needs up to three times as many, and what this is to find, a step for
# each extent, took over ten.
DENSEST_SECONDS = 7.0


class Counting(BytesSource):
    """Counts how often it is read."""

    reads = 0

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self.reads += 1
        super().read_into(offset, buffer)


class Lines(io.StringIO):
    """Counts the lines that are written, and keeps nothing."""

    count = 0

    def write(self, text: str) -> int:
        self.count += text.count("\n")
        return len(text)


class Nowhere(Disk):
    """A disk of any size that reads as zero and keeps nothing."""

    size: int
    name = "nowhere"
    sector_size = 512
    reads_as_zero = True

    def __init__(self, size: int) -> None:
        self.size = size
        self.written = 0

    def extents(self) -> Iterator[Extent]:
        raise NotImplementedError

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        raise NotImplementedError

    def write(self, offset: int, data: Buffer) -> None:
        self.written += len(data)

    def zero(self, offset: int, length: int) -> None: ...
    def flush(self) -> None: ...
    def drop_cache(self) -> None: ...


def opened(image: bytes, backing: bytes | None = None) -> Qcow2Source:
    return open_qcow2(BytesSource(image), backing=None if backing is None else BytesSource(backing, "base.raw"))


def use_extents(source: Qcow2Source) -> None:
    assert sum(1 for _ in source.extents()) == EXTENTS


def use_copy(source: Qcow2Source) -> None:
    disk = Nowhere(source.size)
    copy(source, disk, workers=2)
    assert disk.written == source.size


def use_map(source: Qcow2Source) -> None:
    _, rows = map_rows(source, 0, source.size)
    assert deque(rows, maxlen=1)[0][:2] == (source.size - SUB, SUB)


def use_stream(source: Qcow2Source) -> None:
    with open("/dev/null", "wb") as file:
        assert write_stream(source, file.fileno(), workers=2) > source.size


@pytest.mark.parametrize("use", [use_extents, use_copy, use_map, use_stream])
@pytest.mark.parametrize("bitmap", [ALTERNATING, ALTERNATING | ZERO_BETWEEN], ids=["holes", "zeros"])
def test_the_densest_image_keeps_the_limits(use: Callable[[Qcow2Source], None], bitmap: int) -> None:
    image = dense(data=STORED, bitmap=bitmap)
    assert len(image) <= 1 << 20
    source = opened(image)
    with limits(DENSEST_SECONDS):
        use(source)


def test_comparing_the_densest_image_with_itself_keeps_the_limits() -> None:
    one, other = opened(dense(data=STORED)), opened(dense(data=STORED))
    for strict in (False, True):
        with limits(DENSEST_SECONDS):
            assert compare(one, other, strict=strict, workers=2).identical


def test_the_commands_keep_the_limits(tmp_path: Path) -> None:
    path = tmp_path / "dense.qcow2"
    path.write_bytes(dense())
    with limits(DENSEST_SECONDS):
        assert main(["convert", str(path), str(tmp_path / "disk.raw")]) == 0
    with limits(DENSEST_SECONDS), redirect_stdout(io.StringIO()):
        assert main(["check", str(path)]) == 2  # the reference counts are all 0
    with open_image(path) as one, open_raw(tmp_path / "disk.raw") as other:
        assert compare(one, other).identical


def test_two_million_extents_in_disorder_keep_the_limits(tmp_path: Path) -> None:
    """No two clusters are alike, so that nothing can be kept from one for the next."""
    path = tmp_path / "dense.qcow2"
    path.write_bytes(image := dense_in_disorder(data=STORED))
    with limits(DENSEST_SECONDS), redirect_stdout(Lines()) as lines:
        assert main(["map", "--output", "json", str(path)]) == 0
    assert lines.count == EXTENTS
    with limits(DENSEST_SECONDS):
        assert compare(opened(image), opened(image), workers=2).identical


def test_small_extents_are_read_together() -> None:
    file = Counting(dense(1, data=STORED))
    source = open_qcow2(file)
    file.reads = 0
    found = read_bytes(source, 0, 1 << 20)
    cluster = b"".join(STORED[at : at + SUB] + bytes(SUB) for at in range(0, 1 << 14, 2 * SUB))
    assert found == cluster * 64
    assert file.reads <= 64 + 2


def test_gaps_that_are_long_are_not_read() -> None:
    """Subclusters of 64 KiB: of a cluster of 2 MiB that has the first and the last one, these are read."""
    file = Counting(dense(1, data=bytes(range(256)) * 8192, bits=21, bitmap=1 | 1 << 31))
    source = open_qcow2(file)
    lengths = []

    def read_into(offset: int, buffer: WritableBuffer) -> None:
        lengths.append(len(buffer))
        BytesSource.read_into(file, offset, buffer)

    read_bytes(source, 0, 1)
    file.read_into = read_into  # type: ignore[method-assign]
    assert read_bytes(source, 0, 2 << 20) == (bytes(range(256)) * 256).ljust(31 << 16, b"\0") + bytes(range(256)) * 256
    assert lengths == [1 << 16, 1 << 16]


def test_one_piece_of_a_copy_has_many_small_extents() -> None:
    """Also where a subcluster is as large as the unit of a copy."""
    source = opened(dense(1, bits=17))
    assert source.header.subcluster_size == 4096
    found = list(pieces(source, 4096))
    assert sum(piece.length for piece in found) == source.size
    assert len(found) <= source.size // (2 << 20) + 1
    assert len(list(pieces(source, 4096, short_gap=0))) == source.size // 4096


KINDS = st.lists(st.sampled_from([Kind.DATA, Kind.ZERO, Kind.HOLE]), min_size=256, max_size=256)


@settings(max_examples=60)
@given(kinds=KINDS, unit=st.sampled_from([1, 512, 1024, 4096, 16384, 65536, 2 << 20]), cut=st.integers(0, 16383))
def test_coarse_extents(kinds: list[Kind], unit: int, cut: int) -> None:
    """A step of unit bytes, at most a cluster, is DATA when any of it is, otherwise HOLE when any of it is."""
    source = opened(_image(kinds, 8 * 16384 - cut))
    step = max(SUB, min(unit, 16384)) // SUB
    expected = []
    for at in range(0, len(kinds), step):
        some = kinds[at : at + step]
        kind = Kind.DATA if Kind.DATA in some else Kind.HOLE if Kind.HOLE in some else Kind.ZERO
        expected += [kind] * step
    expected = expected[: -(-source.size // SUB)]
    found = list(source.coarse_extents(unit))
    assert [extent.kind for extent in found] == [kind for kind, _ in groupby(expected)]
    assert [kind for extent in found for kind in [extent.kind] * -(-extent.length // SUB)] == expected
    assert sum(extent.length for extent in found) == source.size


@settings(max_examples=60)
@given(kinds=KINDS, data=st.data())
def test_a_window_of_the_map_is_that_part_of_the_map(kinds: list[Kind], data: st.DataObject) -> None:
    source = opened(_image(kinds, 8 * 16384))
    start = data.draw(st.integers(0, source.size))
    length = data.draw(st.integers(0, source.size - start))
    whole = []
    for row_start, row_length, depth, flags, host in map_rows(source, 0, source.size)[1]:
        first, end = max(start, row_start), min(start + length, row_start + row_length)
        if first < end:
            whole.append((first, end - first, depth, flags, host + first - row_start if flags & HAS_OFFSET else host))
    assert list(map_rows(source, start, length)[1]) == whole


def _image(kinds: list[Kind], size: int) -> bytes:
    """Eight clusters with these subclusters, which have the same cluster of data."""
    words = []
    for cluster in range(8):
        some = kinds[32 * cluster : 32 * cluster + 32]
        bits = sum(1 << n + (32 if kind is Kind.ZERO else 0) for n, kind in enumerate(some) if kind is not Kind.HOLE)
        words += [4 << 14, bits]
    whole = bytearray(dense(1, data=STORED))
    whole[24:32] = size.to_bytes(8, "big")
    whole[3 << 14 : (3 << 14) + 128] = b"".join(word.to_bytes(8, "big") for word in words)
    whole[(3 << 14) + 128 : 4 << 14] = bytes((1 << 14) - 128)
    return bytes(whole)


def test_what_no_hole_shows_of_a_backing_file_may_be_corrupt() -> None:
    """Holes are read together with what lies between them; an error there does not count."""
    behind = random.Random(4).randbytes(1 << 14)

    def read_holes(at: int, part: memoryview) -> None:
        if at < 2 * SUB < at + len(part):
            raise InvalidImageError("base.qcow2: corrupt at byte 1024")
        part[:] = behind[at : at + len(part)]

    def read_data(at: int, host: int, part: memoryview) -> None:
        part[:] = STORED[host : host + len(part)]

    def run(stored: int, zero: int) -> MixedRun:
        return MixedRun(0, 32 * SUB, [0], stored.to_bytes(4, "little"), zero.to_bytes(4, "little"))

    buffer = bytearray(32 * SUB)
    fill_over(run(0b00101, 0xFFFF_FFF0), SUB, memoryview(buffer), read_data, read_holes)
    expected = [STORED[:SUB], behind[SUB : 2 * SUB], STORED[2 * SUB : 3 * SUB], behind[3 * SUB : 4 * SUB]]
    assert buffer == b"".join(expected).ljust(32 * SUB, b"\0")
    with pytest.raises(InvalidImageError, match="corrupt at byte 1024"):
        fill_over(run(0b00001, 0xFFFF_FFF0), SUB, memoryview(buffer), read_data, read_holes)


def test_a_dense_image_over_a_backing_file() -> None:
    backing = random.Random(5).randbytes(1 << 24)
    source = opened(dense(1, data=STORED), backing)
    with limits():
        found = read_bytes(source, 0, source.size)
        assert sum(extent.length for extent in source.coarse_extents(4096)) == source.size
    for at in range(0, 1 << 24, SUB):
        inside = at % (1 << 14)
        expected = STORED[inside : inside + SUB] if at // SUB % 2 == 0 else backing[at : at + SUB]
        assert found[at : at + SUB] == expected


@settings(max_examples=30, deadline=None)
@given(number=st.integers(0, 1 << 30), bits=st.sampled_from([14, 16]), is_backed=st.booleans(), data=st.data())
def test_any_bitmaps_and_host_offsets(number: int, bits: int, *, is_backed: bool, data: st.DataObject) -> None:
    """Clusters of one kind and of several, in any order and some in a row, read at any offset as the bitmaps say."""
    rng, size, count = random.Random(number), 1 << bits, 12
    unit = size // 32
    stored, behind = rng.randbytes(8 * size), rng.randbytes(count * size) if is_backed else b""
    words, shown = [], bytearray(behind.ljust(count * size, b"\0"))
    for cluster in range(count):
        place = rng.choice((cluster % 8, rng.randrange(8)))
        allocated = rng.choice((0, (1 << 32) - 1, 1 << rng.randrange(32), rng.getrandbits(32), rng.getrandbits(32)))
        zero = rng.choice((0, (1 << 32) - 1, rng.getrandbits(32))) & ~allocated
        words += [(4 + place) * size, zero << 32 | allocated]
        for at in range(32):
            start = cluster * size + at * unit
            if allocated >> at & 1:
                shown[start : start + unit] = stored[place * size + at * unit :][:unit]
            elif zero >> at & 1:
                shown[start : start + unit] = bytes(unit)
    disk = count * size - rng.randrange(size)
    craft = Craft(cluster_bits=bits, size=disk, l2=[words], data=stored, header={"incompatible_features": 16})
    source = opened(craft.build(), behind if is_backed else None)
    for _ in range(3):
        start = data.draw(st.integers(0, disk))
        end = data.draw(st.integers(start, disk))
        assert read_bytes(source, start, end - start) == shown[start:end]
        assert (
            b"".join(_by_runs(source, run, stored, behind) for run in source.mapping.runs(start, end - start))
            == (shown[start:end])
        )
    assert read_bytes(source, 0, disk) == shown[:disk]


def _by_runs(source: Qcow2Source, run: Run, stored: bytes, behind: bytes) -> bytes:
    """What a run shows."""
    if run.kind == DATA:
        at = run.host - 4 * source.cluster_size
        return stored[at : at + run.length]
    return (
        behind[run.start : run.start + run.length].ljust(run.length, b"\0") if run.kind == HOLE else bytes(run.length)
    )
