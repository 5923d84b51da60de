# SPDX-License-Identifier: MIT
"""Data that goes from file to file by splice(2): the same bytes come out, whatever the system refuses or cuts."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydiskimg.disks.deferred_head import HEAD_SIZE, DeferredHead
from pydiskimg.disks.file import FileDisk
from pydiskimg.errors import InvalidImageError, StorageError
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.raw import RawSource, open_raw
from pydiskimg.protocols import FileRange, Source, WritableBuffer
from pydiskimg.transfer.copy import Copied, copy
from pydiskimg.transfer.splice import SAMPLE_STEP, Sampler
from tests.fixtures.qcow2_images import Craft

MIB = 1 << 20
PAGE = 4096
Splice = Callable[..., int]
TRUE_SPLICE: Splice = os.splice


class BackedFile(FileDisk):
    """A file full of 0xFF that takes whole pages where they are moved to, as a block device does."""

    def file_location(self, offset: int, length: int) -> tuple[int, int] | None:
        return None if offset % PAGE or length % PAGE else (self.fd, offset)


@contextmanager
def target(path: Path, size: int) -> Iterator[BackedFile]:
    path.write_bytes(b"\xff" * size)
    fd = os.open(path, os.O_RDWR)
    try:
        yield BackedFile(fd, str(path))
    finally:
        os.close(fd)


def copied_to_file(source: Source, path: Path, expected: bytes, *, workers: int = 2) -> Copied:
    """Copy to a file that is larger, and check what is in it, what was counted and that nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with target(path, source.size + 5000) as disk:
        copied = copy(source, disk, workers=workers, verify=True)
    assert path.read_bytes() == expected + b"\xff" * 5000
    assert copied.written + copied.zeroed == copied.total == source.size
    assert len(os.listdir("/proc/self/fd")) == before
    return copied


class Calls:
    """Stands in for os.splice(): counts the calls, and moves what the rule allows; the rule may raise OSError."""

    def __init__(self, rule: Callable[[int, int], int] = lambda number, count: count) -> None:
        self.count = 0
        self.moved = 0
        self._rule = rule

    def __call__(self, source: int, target: int, count: int, **offsets: int) -> int:
        self.count += 1
        done = TRUE_SPLICE(source, target, self._rule(self.count, count), **offsets)
        self.moved += done
        return done


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    monkeypatch.setattr(os, "splice", found)
    return found


def noise(path: Path, size: int) -> bytes:
    data = random.Random(size).randbytes(size)
    path.write_bytes(data)
    return data


def test_whole_pages_are_moved_and_the_rest_is_written(tmp_path: Path, calls: Calls) -> None:
    data = noise(tmp_path / "raw", 5 * MIB + 700)
    with open_raw(tmp_path / "raw") as source:
        copied_to_file(source, tmp_path / "disk", data)
    assert calls.moved == 2 * 4 * MIB, "into the pipe, and out of it; the last piece is not a multiple of a page"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hole", "zeros", "noise"]), st.integers(1, 300_000) | st.integers(1, 200).map(PAGE.__mul__)
        ),
        max_size=12,
    ),
    st.integers(1, 4),
)
def test_raw_files_with_holes_and_zeros(tmp_path: Path, parts: list[tuple[str, int]], workers: int) -> None:
    expected = bytearray()
    with (tmp_path / "raw").open("wb") as file:
        for kind, length in parts:
            data = random.Random(length).randbytes(length) if kind == "noise" else bytes(length)
            if kind != "hole":
                file.seek(len(expected))
                file.write(data)
            expected += data
        file.truncate(len(expected))
    with open_raw(tmp_path / "raw") as source:
        copied_to_file(source, tmp_path / "disk", bytes(expected), workers=workers)


def crafted(path: Path, *, cluster_bits: int, seed: int) -> bytes:
    """A qcow2 of two tables' worth of clusters, in random order, some without an offset; returns the disk."""
    rng = random.Random(seed)
    cluster = 1 << cluster_bits
    count = min(2 * cluster // 8, 3 * MIB // cluster)
    craft = Craft(
        cluster_bits=cluster_bits, size=count * cluster, l2=[[0] * (cluster // 8)] * (-(-count * 8 // cluster))
    )
    stored = rng.sample(range(count), count - count // 9)
    order = rng.sample(stored, len(stored)) if seed % 2 else sorted(stored)
    entries, contents = [0] * (len(craft.l2) * cluster // 8), {}
    for location, index in enumerate(order):
        entries[index] = craft.data_offset + location * cluster | 1 << 63
        contents[index] = rng.randbytes(cluster)
    craft.l2 = [entries[at : at + cluster // 8] for at in range(0, len(entries), cluster // 8)]
    craft.data = b"".join(contents[index] for index in order)
    path.write_bytes(craft.build())
    return b"".join(contents.get(index, bytes(cluster)) for index in range(count))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("cluster_bits", [9, 11, 12, 13, 16])
def test_clusters_anywhere_in_the_file(tmp_path: Path, calls: Calls, cluster_bits: int, seed: int) -> None:
    expected = crafted(tmp_path / "image", cluster_bits=cluster_bits, seed=seed)
    with open_raw(tmp_path / "image") as file, open_qcow2(file) as source:
        copied = copied_to_file(source, tmp_path / "disk", expected)
    assert copied.written >= len(expected) * 8 // 9 - 65536
    if cluster_bits == 16:
        assert calls.moved > MIB
    if cluster_bits < 12:
        assert not calls.moved


def test_a_cluster_beyond_the_end_of_the_file_is_the_error_that_it_was(tmp_path: Path) -> None:
    crafted(tmp_path / "image", cluster_bits=16, seed=2)
    os.truncate(tmp_path / "image", os.path.getsize(tmp_path / "image") - 70000)
    with (
        open_raw(tmp_path / "image") as file,
        pytest.raises(InvalidImageError, match="beyond the end"),
        open_qcow2(file) as source,
        target(tmp_path / "disk", source.size) as disk,
    ):
        copy(source, disk)


def test_a_file_that_is_cut_while_it_is_copied(tmp_path: Path) -> None:
    noise(tmp_path / "raw", 4 * MIB)
    before = len(os.listdir("/proc/self/fd"))
    with open_raw(tmp_path / "raw") as source, target(tmp_path / "disk", 4 * MIB) as disk:

        def cut(done: int, total: int) -> None:
            os.truncate(tmp_path / "raw", 3 * MIB + 1000)

        with pytest.raises(InvalidImageError, match=f"the file ends at byte {3 * MIB + 1000}"):
            copy(source, disk, workers=1, progress=cut)
    assert len(os.listdir("/proc/self/fd")) == before


def refusing_at(call: int, number: int) -> Callable[[int, int], int]:
    def rule(at: int, count: int) -> int:
        if at == call:
            raise OSError(number, os.strerror(number))
        return count

    return rule


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EIO, errno.EAGAIN])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_what_is_refused_once_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: int, number: int
) -> None:
    """Filling and emptying the pipe in turns: the source or the disk refuses, at once or in the middle of a piece."""
    data = noise(tmp_path / "raw", 9 * MIB)
    calls = Calls(refusing_at(call, number))
    monkeypatch.setattr(os, "splice", calls)
    with open_raw(tmp_path / "raw") as source, caplog.at_level("INFO"):
        copied_to_file(source, tmp_path / "disk", data, workers=1)
    assert calls.count == call
    assert [record.message for record in caplog.records] == [
        f"data is read and written, as splicing it does not work here: [Errno {number}] {os.strerror(number)}"
    ]


def test_a_full_disk_is_the_error_of_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(tmp_path / "raw", 4 * MIB)

    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "splice", Calls(refusing_at(2, errno.ENOSPC)))
    monkeypatch.setattr(os, "pwrite", full)
    with (
        open_raw(tmp_path / "raw") as source,
        target(tmp_path / "disk", 4 * MIB) as disk,
        pytest.raises(StorageError, match=f"disk: cannot write {2 * MIB} bytes at offset 0: No space left on device"),
    ):
        copy(source, disk, workers=1)


@pytest.mark.parametrize("most", [PAGE, 3 * PAGE, 5000, 511])
def test_short_transfers_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A file system may give less than was asked for, and a device may take less: also parts of pages."""
    data = noise(tmp_path / "raw", 4 * MIB)
    monkeypatch.setattr(os, "splice", Calls(lambda _, count: min(count, most)))
    with open_raw(tmp_path / "raw") as source:
        copied_to_file(source, tmp_path / "disk", data)


def test_a_target_that_takes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise(tmp_path / "raw", 2 * MIB)

    def splice(source: int, target: int, count: int, **offsets: int) -> int:
        return 0 if "offset_dst" in offsets else TRUE_SPLICE(source, target, count, **offsets)

    monkeypatch.setattr(os, "splice", splice)
    with open_raw(tmp_path / "raw") as source:
        copied_to_file(source, tmp_path / "disk", data)


def test_a_user_with_too_many_pipes_gets_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    data, true_fcntl = noise(tmp_path / "raw", 4 * MIB), fcntl.fcntl

    def refusing(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return true_fcntl(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refusing)
    with open_raw(tmp_path / "raw") as source:
        copied_to_file(source, tmp_path / "disk", data)
    assert not calls.count


def test_without_a_descriptor_for_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    data = noise(tmp_path / "raw", 4 * MIB)

    def none_left(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe2", none_left)
    with open_raw(tmp_path / "raw") as source:
        copied_to_file(source, tmp_path / "disk", data)
    assert not calls.count


def test_an_interrupted_copy_leaves_no_pipe(tmp_path: Path) -> None:
    noise(tmp_path / "raw", 20 * MIB)
    before = len(os.listdir("/proc/self/fd"))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with open_raw(tmp_path / "raw") as source, target(tmp_path / "disk", 20 * MIB) as disk:
        with pytest.raises(KeyboardInterrupt):
            copy(source, disk, workers=4, progress=interrupt)
        assert len(os.listdir("/proc/self/fd")) == before + 2


@pytest.mark.parametrize("at", [0, 64 << 10, 192 << 10, MIB, 5 * MIB + (128 << 10)])
@pytest.mark.parametrize("over", [0, 64 << 10])
def test_long_runs_of_zeros_inside_data_are_not_written(tmp_path: Path, at: int, over: int) -> None:
    """A fully preallocated image is a file without holes; a run of zeros as long as a stretch in a piece is found."""
    data = bytearray(noise(tmp_path / "raw", 8 * MIB))
    length = SAMPLE_STEP + over
    data[at : at + length] = bytes(length)
    (tmp_path / "raw").write_bytes(data)
    with open_raw(tmp_path / "raw") as source:
        copied = copied_to_file(source, tmp_path / "disk", bytes(data))
    assert copied.zeroed == length


def test_nothing_but_zeros(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "raw").write_bytes(bytes(9 * MIB))
    with open_raw(tmp_path / "raw") as source:
        copied = copied_to_file(source, tmp_path / "disk", bytes(9 * MIB))
    assert copied.zeroed == 9 * MIB
    assert not calls.count


def test_a_zero_sample_in_front_of_other_bytes_is_no_run(tmp_path: Path, calls: Calls) -> None:
    data = bytearray(noise(tmp_path / "raw", 2 * MIB))
    for at in range(0, len(data), SAMPLE_STEP):
        data[at : at + (60 << 10)] = bytes(60 << 10)
    (tmp_path / "raw").write_bytes(data)
    with open_raw(tmp_path / "raw") as source:
        copied_to_file(source, tmp_path / "disk", bytes(data))
    assert calls.moved == 2 * len(data)


def test_the_first_mib_that_is_kept_back_is_not_moved(tmp_path: Path, calls: Calls) -> None:
    data = noise(tmp_path / "raw", 6 * MIB)
    with open_raw(tmp_path / "raw") as source, target(tmp_path / "disk", 6 * MIB) as disk:
        deferred = DeferredHead(disk)
        copy(source, deferred, workers=1)
        assert (tmp_path / "disk").read_bytes() == bytes(HEAD_SIZE) + data[HEAD_SIZE:]
        deferred.commit()
    assert (tmp_path / "disk").read_bytes() == data
    assert calls.moved == 2 * 4 * MIB


def test_ranges_outside_of_the_file(tmp_path: Path) -> None:
    noise(tmp_path / "raw", 100)
    with open_raw(tmp_path / "raw") as source:
        assert source.file_ranges(50, 51) is None
        ranges: list[FileRange] | None = source.file_ranges(50, 50)
        assert ranges is not None
        assert ranges[0][1:] == (50, 50)


def test_what_is_not_in_the_page_cache_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, calls: Calls
) -> None:
    data, true_preadv, asked = noise(tmp_path / "raw", 9 * MIB), os.preadv, []

    def preadv(fd: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            asked.append(offset)
            if offset >= 4 * MIB:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return true_preadv(fd, buffers, offset, flags & ~os.RWF_NOWAIT)

    monkeypatch.setattr(os, "preadv", preadv)
    with open_raw(tmp_path / "raw") as source, caplog.at_level("INFO"):
        copied_to_file(source, tmp_path / "disk", data, workers=1)
    assert calls.moved == 2 * 4 * MIB
    assert max(asked) == 4 * MIB, "it was asked for more, although one answer was enough"
    assert "the image is not in the page cache" in caplog.text


def test_a_file_system_that_does_not_tell_what_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    data, true_preadv, wanted = noise(tmp_path / "raw", 4 * MIB), os.preadv, []
    data = bytes(SAMPLE_STEP) + data[SAMPLE_STEP:]
    (tmp_path / "raw").write_bytes(data)

    def preadv(fd: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return true_preadv(fd, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, at, length, advice: wanted.append((at, length, advice)))
    with open_raw(tmp_path / "raw") as source:
        copied = copied_to_file(source, tmp_path / "disk", data, workers=1)
    assert copied.zeroed == SAMPLE_STEP
    assert calls.moved == 2 * 2 * MIB
    assert (2 * MIB, 2 * MIB, os.POSIX_FADV_WILLNEED) in wanted


@pytest.mark.parametrize("directory", ["/dev/shm", "/tmp"])
def test_a_file_system_of_memory_and_one_of_a_disk(directory: str, calls: Calls) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as name:
        data = noise(Path(name, "raw"), 8 * MIB)
        with open_raw(Path(name, "raw")) as source:
            copied_to_file(source, Path(name, "disk"), data, workers=4)
    assert calls.moved == 2 * len(data)


def test_samples_are_as_many_for_many_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(tmp_path / "raw", 2 * MIB)
    true_preadv, offsets = os.preadv, []

    def preadv(fd: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        offsets.append(offset)
        return true_preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with (tmp_path / "raw").open("rb") as file:
        assert not Sampler().hold_zeros([(file.fileno(), at, PAGE) for at in range(0, 2 * MIB, PAGE)])
    assert offsets == list(range(0, 2 * MIB, SAMPLE_STEP))


def test_what_does_not_lie_in_whole_pages_is_not_moved(tmp_path: Path, calls: Calls) -> None:
    """A device would refuse it, and everything after it would be read."""
    data = noise(tmp_path / "raw", 2 * MIB + 512)

    class Shifted(RawSource):
        def read_into(self, offset: int, buffer: WritableBuffer) -> None:
            file.read_into(offset + 512, buffer)

        def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:
            return file.file_ranges(offset + 512, length)

    with open_raw(tmp_path / "raw") as file:
        copied_to_file(
            Shifted(file.fileno(), name="shifted", size=2 * MIB, is_block_device=True), tmp_path / "disk", data[512:]
        )
    assert not calls.count
