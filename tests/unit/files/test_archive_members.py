# SPDX-License-Identifier: MIT
"""The files of an archive that comes through a pipe, read as a dump or an image is: in pieces of any length."""

from __future__ import annotations

import io
import random
import tarfile

import pytest

from pydiskimg.errors import ArchiveError
from pydiskimg.files.tar import FileInArchive, files_in_archive
from pydiskimg.transfer.pipe import PipeReader
from tests.fixtures.streams import memory_file


def read_whole(file: FileInArchive, rng: random.Random, most: int) -> bytes:
    return b"".join(iter(lambda: file.read(rng.randint(1, most)), b""))


@pytest.mark.parametrize("seed", range(20))
def test_holes_are_zeros(seed: int) -> None:
    rng = random.Random(seed)
    contents = bytearray(rng.randint(1, 5000))
    blocks: list[tuple[int, memoryview]] = []
    position = rng.choice((0, 100))
    while position < len(contents):
        data = rng.randbytes(rng.randint(1, 900))[: len(contents) - position]
        contents[position : position + len(data)] = data
        blocks.append((position, memoryview(data)))
        position += len(data) + rng.choice((0, 0, 1, 700))
    file = FileInArchive("a.tar", "f", len(contents), iter(blocks))
    assert read_whole(file, rng, rng.choice((3, 1000, 10_000))) == contents
    assert file.read(10) == b""


def archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in CONTENTS.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


CONTENTS = {"first": random.Random(1).randbytes(3_000_000), "empty": b"", "last": random.Random(2).randbytes(70_001)}


@pytest.mark.parametrize("most", [700, 1 << 20, 1 << 22])
def test_files_come_as_they_were_packed(most: int) -> None:
    rng = random.Random(most)
    with memory_file(archive()) as fd:
        pipe = PipeReader(fd, "pipe")
        pipe.peek(128 << 10)
        found = {file.path: read_whole(file, rng, most) for file in files_in_archive(pipe)}
    assert found == CONTENTS


def test_an_archive_that_is_cut_off() -> None:
    with memory_file(archive()[:2_000_000]) as fd:
        files = files_in_archive(PipeReader(fd, "pipe"))
        first = next(files)
        with pytest.raises(ArchiveError, match=r"pipe: entry first: .*truncated"):
            read_whole(first, random.Random(3), 100_000)
        files.close()
