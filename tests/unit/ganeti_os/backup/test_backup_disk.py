# SPDX-License-Identifier: MIT
"""A backup goes onto a disk: wherever that ends early, the disk does not begin like the old system or the new one."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from ganeti_os.backup.kind import BackupKind, backup_kind
from ganeti_os.backup.restore import restore_disk
from ganeti_os.install.wiping import Wiping
from ganeti_os.log import Messages
from ganeti_os.request import RequestError
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DoesNotFitError, InvalidImageError, StorageError
from pydiskimg.protocols import Buffer, Disk
from pydiskimg.transfer.pipe import PipeReader
from pydiskimg.units import KIB, MIB
from tests.fixtures.node import PATH, ROOT, Node, last_line, stream_environment
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stopping_disk import StoppedError, StoppingDisk
from tests.fixtures.streams import memory_file, without_checksums, written

SIZE = 8 * MIB
RAW = random.Random(1).randbytes(3 * MIB) + bytes(MIB) + random.Random(2).randbytes(MIB + 512)
RAW_SIZE = len(RAW)
BACKUPS = {
    BackupKind.RAW: RAW,
    BackupKind.QCOW2: written(BytesSource(RAW), cluster_size=64 * KIB, compression_type="zlib"),
}


class RecordingDisk(MemoryDisk):
    """An old disk, full of 0xFF, and what is done to it."""

    def __init__(self) -> None:
        super().__init__(SIZE, fill=0xFF)
        self.done: list[tuple[str, int, int]] = []

    def write(self, offset: int, data: Buffer) -> None:
        super().write(offset, data)
        self.done.append(("write", offset, len(data)))

    def zero(self, offset: int, length: int) -> None:
        super().zero(offset, length)
        self.done.append(("zero", offset, length))

    def flush(self) -> None:
        self.done.append(("flush", 0, 0))


def restore(backup: bytes, kind: BackupKind, disk: Disk) -> None:
    wiping = Wiping("no", Messages(os_name="image", verb="import"))
    with memory_file(backup) as fd:
        restored = restore_disk(PipeReader(fd, "pipe"), kind, disk, wiping)  # type: ignore[arg-type] # any Disk does
        restored.release()


@pytest.mark.parametrize("kind", BACKUPS)
def test_both_ends_are_wiped_once_and_the_beginning_comes_last(kind: BackupKind) -> None:
    disk = RecordingDisk()
    restore(BACKUPS[kind], kind, disk)
    assert disk.data == RAW + b"\xff" * (SIZE - MIB - len(RAW)) + bytes(MIB)
    assert disk.done[:3] == [("zero", 0, MIB), ("zero", SIZE - MIB, MIB), ("flush", 0, 0)]
    assert disk.done[-3:] == [("flush", 0, 0), ("write", 0, MIB), ("flush", 0, 0)]
    between = [offset for name, offset, _ in disk.done[3:-3] if name != "flush"]
    assert between
    assert min(between) >= MIB


def cut(backup: bytes) -> Iterator[bytes]:
    rng = random.Random(3)
    begin = 70 * KIB  # the header is whole, and what follows is not
    for length in (begin, len(backup) - 1, *(rng.randrange(begin, len(backup)) for _ in range(5))):
        yield backup[:length]


def test_a_stream_that_ends_early_leaves_no_beginning() -> None:
    for part in cut(BACKUPS[BackupKind.QCOW2]):
        disk = MemoryDisk(SIZE, fill=0xFF)
        with pytest.raises(InvalidImageError):
            restore(part, BackupKind.QCOW2, disk)
        assert disk.data[:MIB] == bytes(MIB)
        assert disk.data[-MIB:] == bytes(MIB)


@pytest.mark.parametrize("is_older", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_a_stream_that_lost_an_entry_leaves_no_beginning(compression: str | None, is_older: bool) -> None:
    """Clusters that become 100 bytes: several lie in the same sector, and a gap in it is as short."""
    raw = b"".join(bytes((number,)) * (64 * KIB) for number in range(1, 33))
    with without_checksums() if is_older else nullcontext():
        backup = written(BytesSource(raw), compression_type=compression)
    l1_table = int.from_bytes(backup[40:48], "big")
    table = int.from_bytes(backup[l1_table + 1 : l1_table + 8], "big")
    for at in range(table, table + 32 * 8, 8):
        disk = MemoryDisk(SIZE, fill=0xFF)
        with pytest.raises(InvalidImageError):
            restore(backup[:at] + bytes(8) + backup[at + 8 :], BackupKind.QCOW2, disk)
        assert disk.data[:MIB] == bytes(MIB)


@pytest.mark.parametrize("kind", BACKUPS)
def test_a_disk_that_dies_at_any_write_has_no_beginning(kind: BackupKind) -> None:
    whole = StoppingDisk(MemoryDisk(SIZE, fill=0xFF), 1 << 30)
    restore(BACKUPS[kind], kind, whole)
    assert whole.written > 5
    for writes in range(1, whole.written):
        disk = MemoryDisk(SIZE, fill=0xFF)
        with suppress(StoppedError):
            restore(BACKUPS[kind], kind, StoppingDisk(disk, writes))
        assert disk.data[:MIB] == bytes(MIB), f"it begins with something after {writes} writes"


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("size", [RAW_SIZE - 1, RAW_SIZE - 511])
def test_a_disk_that_ends_within_a_sector_comes_back(compression: str | None, size: int) -> None:
    """A qcow2 has whole sectors only: the export filled the last one up."""
    backup = written(BytesSource(RAW[:size]), compression_type=compression)
    disk = MemoryDisk(size, fill=0xFF)
    restore(backup, BackupKind.QCOW2, disk)
    assert disk.data == RAW[:size]


def test_a_disk_that_is_smaller_by_a_part_of_a_sector_with_data() -> None:
    disk = MemoryDisk(RAW_SIZE - 1, fill=0xFF)
    with pytest.raises(StorageError, match=f"memory: is full after {RAW_SIZE - 1} bytes, and pipe has more"):
        restore(BACKUPS[BackupKind.QCOW2], BackupKind.QCOW2, disk)
    assert disk.data[:MIB] == bytes(MIB)


@pytest.mark.parametrize(
    ("image", "size"), [(RAW, RAW_SIZE - 512), (RAW, RAW_SIZE - 513), (RAW[:-512], RAW_SIZE - 1024)]
)
def test_a_disk_that_is_smaller_by_a_sector_is_not_touched(image: bytes, size: int) -> None:
    disk = MemoryDisk(size, fill=0xFF)
    with pytest.raises(DoesNotFitError, match="nothing was written"):
        restore(written(BytesSource(image)), BackupKind.QCOW2, disk)
    assert disk.data == b"\xff" * size


def test_a_disk_of_no_bytes_is_no_backup(tmp_path: Path) -> None:
    """Such are devices without a medium."""
    node, disk, backup = Node.make(tmp_path / "node"), tmp_path / "disk", tmp_path / "backup"
    disk.touch()
    done = node.export(disk, backup)
    assert (done.returncode, backup.read_bytes()) == (1, b"")
    assert last_line(done).endswith(f"{disk}: has 0 bytes; expected a disk with data to back up")
    backup.write_bytes(written(BytesSource(b"")))
    disk.write_bytes(b"\xff" * MIB)
    done = node.restore(disk, backup)
    assert (done.returncode, disk.read_bytes()) == (1, b"\xff" * MIB)
    assert last_line(done).endswith("standard input: is the image of a disk of 0 bytes; nothing was written")


def test_raw_bytes_that_are_less_than_a_sector_are_no_disk() -> None:
    disk = MemoryDisk(SIZE, fill=0xFF)
    with pytest.raises(InvalidImageError, match=r"^pipe: has 13 bytes; a disk has at least one sector, 512 bytes"):
        restore(b"No such disk\n", BackupKind.RAW, disk)
    assert disk.data[:MIB] == bytes(MIB)


@pytest.mark.parametrize("verb", ["export", "import"])
def test_the_disk_is_not_its_own_backup(tmp_path: Path, verb: str) -> None:
    node, disk = Node.make(tmp_path / "node"), tmp_path / "disk"
    disk.write_bytes(RAW)
    with disk.open("r+b") as itself:
        done = subprocess.run(
            node.command(verb),
            cwd=ROOT,
            env={"PATH": PATH, **stream_environment(verb, disk, OSP_IMPORT_FORMAT="raw")},
            stdin=itself if verb == "import" else subprocess.DEVNULL,
            stdout=itself if verb == "export" else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    stream = {"export": "standard output", "import": "standard input"}[verb]
    assert f"{disk}: is {stream} itself" in last_line(done)
    assert (done.returncode, disk.read_bytes()) == (1, RAW)


def test_a_size_descriptor_that_cannot_exist_is_not_used(tmp_path: Path) -> None:
    node, disk = Node.make(tmp_path / "node"), tmp_path / "disk"
    disk.write_bytes(RAW)
    done = node.export(disk, tmp_path / "backup", EXP_SIZE_FD="99999999999")
    assert done.returncode == 0, done.stderr


def test_without_a_library_for_zstd_the_setting_is_named(tmp_path: Path) -> None:
    node, disk = Node.make(tmp_path / "node", EXPORT_COMPRESSION="zstd"), tmp_path / "disk"
    disk.write_bytes(RAW)
    (tmp_path / "zstandard.py").write_text("raise ImportError")
    done = node.export(disk, tmp_path / "backup", PYTHONPATH=str(tmp_path))
    if sys.version_info < (3, 14):  # whose standard library has zstd
        assert done.returncode == 1
        assert last_line(done).endswith("install the package python3-zstandard, or set EXPORT_COMPRESSION=zlib")


def test_raw_bytes_that_tell_no_size_are_told(caplog: pytest.LogCaptureFixture) -> None:
    restore(RAW, BackupKind.RAW, MemoryDisk(SIZE, fill=0xFF))
    assert "pipe: it does not state its size, so an early end would not be noticed" in caplog.text


@pytest.mark.parametrize("wanted", ["auto", "tar", "qcow2"])
def test_a_backup_that_somebody_compressed_is_refused_by_name(wanted: str) -> None:
    with memory_file(gzip.compress(BACKUPS[BackupKind.QCOW2])) as fd:
        pipe = PipeReader(fd, "pipe")
        with pytest.raises(RequestError, match=r"^pipe: the backup is compressed with gzip; decompress it before"):
            backup_kind(pipe, wanted)
        assert backup_kind(pipe, "raw") is BackupKind.RAW
