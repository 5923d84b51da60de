# SPDX-License-Identifier: MIT
"""What is done with a possibly invalid image. Each target returns a word for the outcome.

A DiskImageError is an outcome as good as data, when it is one printable line; any other exception, and any
contradiction between two ways to read the same bytes, is a finding.
"""

from __future__ import annotations

import errno
import io
import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import islice

from pydiskimg.cli import main
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.disks.store import GrowingFile
from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.extents import Kind
from pydiskimg.images.map import map_rows
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import Qcow2Source, open_qcow2
from pydiskimg.images.qcow2.snapshots import read_snapshots
from pydiskimg.images.qcow2.switch.backing import name_backing_file
from pydiskimg.images.qcow2.switch.empty import empty_qcow2
from pydiskimg.images.qcow2.switch.shrink import shrink_qcow2
from pydiskimg.images.qcow2.switch.snapshots import apply_snapshot, delete_snapshot, take_snapshot
from pydiskimg.images.qcow2.write.data_file import DataFile
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.protocols import Buffer, Disk, Source, read_bytes
from pydiskimg.transfer.compare import compare
from pydiskimg.transfer.copy import copy
from pydiskimg.transfer.receive import read_stream
from pydiskimg.transfer.send import write_stream
from tests.fixtures.qcow2_images import BytesSource
from tests.fuzz.bitmaps_and_repair import bitmap, repair
from tests.fuzz.commands import commands

NAME = "test.qcow2"
SMALL = 8 << 20  # a virtual disk that may be read as a whole
EXTENTS = 3000  # extents that are looked at one by one; the others are only gone through
LONGEST = 500  # characters in a message
STORE_LIMIT = 64 << 20

BEHIND = random.Random(1).randbytes(1 << 16) * 24
"""What the backing file and the data file of any image have in them."""


@contextmanager
def file_of(image: bytes) -> Iterator[int]:
    """Give the descriptor of an anonymous file that holds the image, at its beginning."""
    fd = os.memfd_create("image", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(image)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


class MemoryDataFile(MemoryDisk, DataFile):
    """An external data file in memory, of at most 64 MiB."""

    def grow(self, size: int) -> None:
        if size > STORE_LIMIT:
            raise StorageError(f"{self.name}: no space left", errno=errno.ENOSPC, filename=self.name)
        self.data.extend(bytes(max(0, size - self.size)))


class LimitedStore(GrowingFile):
    """A file on a file system that is full at 64 MiB."""

    def write(self, offset: int, data: Buffer) -> None:
        if offset + len(data) > STORE_LIMIT:
            raise StorageError(f"{self.name}: no space left", errno=errno.ENOSPC, filename=self.name)
        super().write(offset, data)


def assert_sentence(error: BaseException) -> None:
    text = str(error)
    assert text.isprintable(), f"not printable: {text!r}"
    assert len(text) < LONGEST, f"{len(text)} characters: {text}"
    assert ": " in text, f"does not say where: {text}"


def open_bytes(image: bytes, snapshot: str | None = None) -> Qcow2Source:
    """Open an image as open_image() would, with BEHIND in the place of what it names."""
    file = BytesSource(image, NAME)
    header = read_header(file)
    data_file = BytesSource(BEHIND, "data.raw") if header.data_file is not None and header.has_data_file else None
    backing = BytesSource(BEHIND, "base.raw") if header.backing_file is not None else None
    return open_qcow2(file, data_file=data_file, backing=backing, snapshot=snapshot)


def use_source(source: Source, rng: random.Random) -> None:
    """Look at the extents, and read pieces; what is not DATA is zero."""
    position, last = 0, None
    extents = source.extents()
    for extent in islice(extents, EXTENTS):
        assert extent.start == position, "extents are not contiguous"
        assert extent.length > 0, "an empty extent"
        assert extent.kind is not last, "two extents of one kind"
        position, last = extent.end, extent.kind
        if extent.kind is not Kind.DATA and rng.random() < 0.05:
            length = min(extent.length, 1 << 16)
            assert not any(read_bytes(source, extent.end - length, length)), "a hole has data"
    for extent in deque(extents, maxlen=1):
        position = extent.end
    assert position == source.size, "the extents do not end where the disk does"
    for _ in range(4):
        if source.size:
            offset = rng.choice((0, rng.randrange(source.size), max(0, source.size - 70000)))
            read_bytes(source, offset, min(rng.choice((1, 512, 4096, 1 << 18)), source.size - offset))


def read(image: bytes, rng: random.Random) -> str:
    source = open_bytes(image)
    use_source(source, rng)
    if source.size <= SMALL:
        whole = read_bytes(source, 0, source.size)
        offset = rng.randrange(source.size + 1)
        length = min(rng.randrange(1 << 17), source.size - offset)
        assert read_bytes(source, offset, length) == whole[offset : offset + length], "two reads differ"
        if source.size and rng.random() < 0.3:
            _through_an_engine(source, whole, rng)
    return "data"


def _through_an_engine(source: Source, whole: bytes, rng: random.Random) -> None:
    """Copied, compared and streamed, the image has the same bytes."""
    copied = MemoryDisk(source.size, fill=0xFF)
    copy(source, copied, unit=rng.choice((None, 512, 4096, 65536)), workers=2)
    assert read_bytes(copied, 0, source.size) == whole, "the copy has other bytes"
    assert compare(source, copied, workers=2).identical, "the copy is not identical"
    if source.size % 512:
        return
    with file_of(b"") as fd:
        kind = rng.choice((None, "zlib", "zstd"))
        write_stream(source, fd, compression_type=kind, workers=2, spool_directory="/dev/shm")
        os.lseek(fd, 0, os.SEEK_SET)
        back = MemoryDisk(source.size, fill=0xFF)
        with read_stream(fd, format="qcow2", spool_directory="/dev/shm") as reader:
            reader.copy_to(back, workers=2)
    assert read_bytes(back, 0, source.size) == whole, "the stream has other bytes"


def snapshots(image: bytes, rng: random.Random) -> str:
    file = BytesSource(image, NAME)
    found = read_snapshots(file, read_header(file))
    for snapshot in found[:3]:
        use_source(open_bytes(image, snapshot.id), rng)
    return "data" if found else "none"


def check(image: bytes, rng: random.Random) -> str:
    result = check_qcow2(BytesSource(image, NAME))
    for detail in result.details:
        assert detail.isprintable(), f"not printable: {detail!r}"
        assert len(detail) < LONGEST, detail
    return "clean" if result.is_clean else "unclean"


def stream(image: bytes, rng: random.Random) -> str:
    """What the stream gives is what reading at random gives, and what is refused there is refused here."""
    with file_of(image) as fd:
        disk = MemoryDisk(SMALL, fill=0xFF)
        with read_stream(fd, format="qcow2", name=NAME, spool_directory="/dev/shm") as reader:
            size = reader.copy_to(disk, workers=2)
    try:
        source = open_bytes(image)
        whole = read_bytes(source, 0, source.size)
    except DiskImageError as error:
        raise AssertionError(f"the file is refused, the stream is not: {error}") from error
    assert size == source.size, "the stream has another size"
    assert read_bytes(disk, 0, size) == whole, "the stream gives other bytes"
    return "data"


def disk(image: bytes, rng: random.Random) -> str:
    """What was written is read back, by the disk and by a reader of what is in the file then."""
    header, backing, data_file = read_header(BytesSource(image, NAME)), None, None
    if header.backing_file is not None:
        backing = BytesSource(BEHIND, "base.raw")
    if header.has_data_file:
        data_file = MemoryDataFile(0, name="data.raw")
        data_file.data.extend(BEHIND)
    compress = data_file is None and rng.random() < 0.3
    with file_of(image) as fd:
        changed = open_qcow2_disk(LimitedStore(fd, NAME), backing=backing, data_file=data_file, compress=compress)
        in_order = changed.size <= SMALL and not check_qcow2(BytesSource(image, NAME)).corruptions
        model = bytearray(read_bytes(changed, 0, changed.size)) if in_order else None
        for _ in range(rng.randrange(1, 6)):
            _write_something(changed, rng, model)
        changed.flush()
        if model is None:
            return "written"
        assert read_bytes(changed, 0, changed.size) == model, "the disk lost what was written"
        file = BytesSource(os.pread(fd, STORE_LIMIT, 0), NAME)
    reader = open_qcow2(file, backing=backing, data_file=data_file)
    assert read_bytes(reader, 0, reader.size) == model, "the image lost what was written"
    # Leaks waste space. A missing copied flag costs a copy: the changed image had a cluster of data that a compressed
    # one shared, and when that is freed, it is not known whose flag has to be set.
    harmless = ("is leaked", "the copied flag is not set")
    harm = [detail for detail in check_qcow2(file).details if not any(words in detail for words in harmless)]
    assert not harm, f"the image was corrupted: {harm[:1]}"
    return "written and checked"


def _write_something(changed: Disk, rng: random.Random, model: bytearray | None) -> None:
    if not changed.size:
        return
    offset = rng.choice((rng.randrange(changed.size), 0, max(0, changed.size - 5000)))
    length = min(rng.choice((1, 512, 5000, 65536, 150_000)), changed.size - offset)
    data = rng.choice((bytes(length), rng.randbytes(length), b"abc" * length))[:length]
    if rng.random() < 0.3:
        data = bytes(length)
        changed.zero(offset, length)
    else:
        changed.write(offset, data)
    if model is not None:
        model[offset : offset + length] = data
        assert read_bytes(changed, offset, length) == data, "what was just written is not read back"


def switch(image: bytes, rng: random.Random) -> str:
    """A change of the whole image: what was in order is in order afterwards, and shows what it has to."""
    file = BytesSource(image, NAME)
    header = read_header(file)
    snapshots = read_snapshots(file, header)
    names = [snapshot.id for snapshot in snapshots]
    in_order = header.size <= SMALL and not check_qcow2(file).corruptions
    before = _whole(image) if in_order else b""
    action = rng.choice(("take", "shrink", "empty", "name", *(("apply", "delete") * bool(names))))
    with file_of(image) as fd:
        store, expected = LimitedStore(fd, NAME), before
        if action == "take":
            take_snapshot(store, "taken", now_ns=0)
        elif action == "shrink":
            size = rng.randrange(header.size // 512 + 1) * 512
            expected = before[:size]
            assert shrink_qcow2(store, size) <= store.size, "the image ends beyond the file"
        elif action == "empty":
            assert empty_qcow2(store) <= store.size, "the image ends beyond the file"
            expected = BEHIND[: len(before)].ljust(len(before), b"\0") if header.backing_file else bytes(len(before))
        elif action == "name":
            name_backing_file(store, rng.choice((b"", b"base.raw", b"x" * 1023)), b"raw")
            return "named" if _whole_or_refused(os.pread(fd, STORE_LIMIT, 0)) else "refused"
        elif action == "apply":
            name = rng.choice(names)
            expected = _whole(image, name) if in_order else b""
            apply_snapshot(store, name)
        else:
            delete_snapshot(store, rng.choice(snapshots).name)
        changed = os.pread(fd, STORE_LIMIT, 0)
    if not in_order:
        return "changed"
    assert _whole(changed) == expected, f"{action}: the disk shows something else"
    harmless = ("is leaked", "the copied flag is not set")
    found = check_qcow2(BytesSource(changed, NAME)).details
    assert not [detail for detail in found if not any(words in detail for words in harmless)], f"{action}: {found[:1]}"
    return "changed and checked"


def _whole(image: bytes, snapshot: str | None = None) -> bytes:
    source = open_bytes(image, snapshot)
    return read_bytes(source, 0, source.size)


def _whole_or_refused(image: bytes) -> bool:
    try:
        return open_bytes(image).size >= 0
    except DiskImageError:
        return False


def info_and_map(image: bytes, rng: random.Random) -> str:
    """The commands say one line when they fail, and the map covers the disk without gaps."""
    with file_of(image) as fd:
        if rng.random() < 0.1:  # a hole behind it: a file takes no place and has any size
            os.ftruncate(fd, rng.choice((1 << 32, 1 << 40, 1 << 62)))
        path = f"/proc/self/fd/{fd}"
        statuses = [_command("info", "-f", "qcow2", path), _command("info", "--output", "json", "-f", "qcow2", path)]
        statuses.append(_command("snapshot", "-l", path))
        with open_image(path, format="qcow2") as source:
            position = 0
            _, rows = map_rows(source, 0, source.size)
            for start, length, *_ in islice(rows, EXTENTS):
                assert start == position, "the map has a gap"
                assert length > 0, "an empty entry of the map"
                position += length
            for start, length, *_ in deque(rows, maxlen=1):
                position = start + length
            assert position == source.size, "the map does not end where the disk does"
    return "data" if not any(statuses) else "refused"


def _command(*words: str) -> int:
    output, complaint = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(complaint):
        status = main(words)
    text = complaint.getvalue()
    assert status in (0, 1), f"{words[0]}: exit status {status}"
    assert bool(text) == bool(status), f"{words[0]}: status {status} and says {text!r}"
    assert text.count("\n") <= 1, f"{words[0]}: says {text!r}"
    assert text.rstrip("\n").isprintable(), f"{words[0]}: says {text!r}"
    assert output.getvalue().replace("\n", "").isprintable(), f"{words[0]}: prints {output.getvalue()!r}"
    return status


Target = Callable[[bytes, random.Random], str]
TARGETS: Mapping[str, Target] = {
    "read": read,
    "snapshots": snapshots,
    "check": check,
    "stream": stream,
    "disk": disk,
    "bitmap": bitmap,
    "repair": repair,
    "switch": switch,
    "info": info_and_map,
    "commands": commands,
}


def outcome(target: str, image: bytes, seed: object) -> str:
    """Run a target; returns its word, or "refused" for an error of ours that is in order."""
    try:
        return TARGETS[target](image, random.Random(f"{target} {seed}"))
    except DiskImageError as error:
        assert_sentence(error)
        return "refused"
