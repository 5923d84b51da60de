# SPDX-License-Identifier: MIT
"""The beginning of a disk comes last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.disks.deferred_head import HEAD_SIZE, DeferredHead
from pydiskimg.disks.memory import MemoryDisk

SIZE = HEAD_SIZE * 3 + 500


def test_until_the_commit_the_disk_begins_with_zeros() -> None:
    disk = MemoryDisk(SIZE, fill=0xFF)
    deferred = DeferredHead(disk)
    assert disk.data[:HEAD_SIZE] == disk.data[-HEAD_SIZE:] == bytes(HEAD_SIZE)
    deferred.write(0, b"\x11" * (HEAD_SIZE + 100))
    deferred.zero(10, 5)
    deferred.flush()
    assert disk.data[: HEAD_SIZE + 100] == bytes(HEAD_SIZE) + b"\x11" * 100
    found = bytearray(HEAD_SIZE + 10)
    deferred.read_into(5, found)
    expected = b"\x11" * 5 + bytes(5) + b"\x11" * HEAD_SIZE
    assert found == expected
    deferred.commit()
    assert disk.data[5 : HEAD_SIZE + 15] == expected


@given(
    st.lists(st.tuples(st.booleans(), st.integers(HEAD_SIZE - 50, HEAD_SIZE + 50), st.integers(0, 60)), max_size=8),
)
def test_as_if_written_at_once(writes: list[tuple[bool, int, int]]) -> None:
    disk, plain = MemoryDisk(SIZE, fill=0xFF), MemoryDisk(SIZE, fill=0xFF)
    plain.zero(0, HEAD_SIZE)
    plain.zero(SIZE - HEAD_SIZE, HEAD_SIZE)
    deferred = DeferredHead(disk)
    for zero, offset, length in writes:
        for target in (deferred, plain):
            if zero:
                target.zero(offset, length)
            else:
                target.write(offset, b"\x22" * length)
    deferred.commit()
    assert disk.data == plain.data


@pytest.mark.parametrize("size", [0, 1, 4096, HEAD_SIZE, HEAD_SIZE + 1])
def test_small_disks(size: int) -> None:
    disk = MemoryDisk(size, fill=0xFF)
    deferred = DeferredHead(disk)
    deferred.write(0, b"\x33" * size)
    deferred.commit()
    assert disk.data == b"\x33" * size
    with pytest.raises(ValueError, match="outside"):
        deferred.write(size, b"x")
