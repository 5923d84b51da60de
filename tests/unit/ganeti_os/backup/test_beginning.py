# SPDX-License-Identifier: MIT
"""What the beginning of a backup tells about its system, and that all of it is read afterwards."""

from __future__ import annotations

import os
import random
from itertools import cycle
from pathlib import Path

import pytest

from ganeti_os.backup.beginning import has_to_be_mounted
from ganeti_os.backup.kept_pipe import KeptPipe
from ganeti_os.backup.kind import BackupKind
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.fat12 import make_fat12
from pydiskimg.transfer.pipe import PipeReader
from pydiskimg.transfer.receive import stream_of
from pydiskimg.units import KIB, MIB
from tests.fixtures.made_entries import filled, folder, regular
from tests.fixtures.partition_tables import LINUX, entry, gpt, record, with_logical
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.streams import memory_file, written

SIZE = 24 * MIB
SECTOR = 512
SECTORS = MIB // SECTOR
NOISE = random.Random(1).randbytes(MIB)
FAT = make_fat12(MIB, {}, label="ROOT", serial=1, sector_size=SECTOR, hidden_sectors=0)
ROOT = bytes(filled([folder("etc"), regular("etc/passwd")], size=8 * MIB).data)
FSTAB = b"UUID=1 / ext4\nLABEL=ROOT %s vfat\nUUID=2 none swap\n"
VAR_APART, DATA_APART = (
    bytes(filled([regular("etc/passwd"), regular("etc/fstab", FSTAB % point)], size=8 * MIB).data)
    for point in (b"/var", b"/srv")
)
BOOT = bytes(filled([folder("grub"), regular("vmlinuz", NOISE)], size=8 * MIB).data)
# Where each is in MiB; whether it has to be mounted, and how many MiB at most are kept of raw bytes for that.
LAYOUTS: dict[str, tuple[list[tuple[int, bytes]], bool, int]] = {
    "a root first": ([(1, ROOT), (20, FAT)], False, 4),
    "a root last": ([(1, FAT), (12, ROOT)], False, 16),
    "a root in the middle": ([(1, FAT), (4, ROOT), (20, FAT)], False, 8),
    "a root whose /var is not an ext": ([(1, VAR_APART), (20, FAT)], True, 24),
    "a root with a /var on another disk": ([(1, VAR_APART), (12, ROOT)], False, 16),
    "a root last, whose /var is not an ext": ([(1, FAT), (12, VAR_APART)], True, 16),
    "a root whose data is not an ext": ([(1, DATA_APART), (20, FAT)], False, 4),
    "no root": ([(1, FAT), (20, FAT)], True, 24),
    "no root, and a /boot on an ext": ([(1, FAT), (4, BOOT), (20, FAT)], True, 24),
    "no root, and a /boot on an ext at the end": ([(1, FAT), (12, BOOT)], True, 16),
    "a /boot on an ext alone": ([(1, BOOT)], False, 24),
    "a damaged ext": ([(1, FAT), (12, ROOT[: 16 * KIB])], True, 16),
    "nothing known": ([(1, NOISE)], False, 24),
}


def disk_of(parts: list[tuple[int, bytes]], table: str) -> bytes:
    disk = MemoryDisk(SIZE)
    places = [(at * SECTORS, 8 * SECTORS if len(data) == len(ROOT) else SECTORS) for at, data in parts]
    if table == "gpt":
        gpt(disk, [(first, first + count - 1) for first, count in places], sectors=SIZE // SECTOR)
    elif table == "logical":
        primary, logical = places[0], places[1:] or [(8 * SECTORS, SECTORS)]
        start = logical[0][0] - 1
        with_logical(disk, (start, SIZE // SECTOR - start), logical, entry(LINUX, *primary))
    else:
        disk.write(0, record(*(entry(LINUX, *place) for place in places)))
    for at, data in parts:
        disk.write(at * MIB, data)
    return bytes(disk.data)


def judged(fd: int, kind: BackupKind, tmp_path: Path, most: int = SIZE) -> tuple[bool, int, bytes]:
    """Return the messages about a backup, how much of it was kept for them, and the contents of its restored disk."""
    kept_in = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    try:
        pipe, restored = (
            KeptPipe(PipeReader(fd, "pipe"), kept_in, str(tmp_path), most=most),
            MemoryDisk(SIZE, fill=0xFF),
        )
        found, came = has_to_be_mounted(pipe, kind, restored), pipe.came
        with stream_of(pipe, format=kind.value) as stream:
            stream.copy_to(restored)
        assert os.fstat(kept_in).st_size == 0
        return found, came, bytes(restored.data)
    finally:
        os.close(kept_in)


@pytest.mark.parametrize("table", ["dos", "logical", "gpt"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_disk_is_judged_by_as_little_as_tells_it(tmp_path: Path, layout: str, table: str) -> None:
    parts, expected, most = LAYOUTS[layout]
    disk = disk_of(parts, table)
    with memory_file(disk) as fd:
        found, came, restored = judged(fd, BackupKind.RAW, tmp_path)
    assert (found, restored) == (expected, disk)
    assert came <= most * MIB


@pytest.mark.parametrize(("layout", "compression"), list(zip(LAYOUTS, cycle([None, "zlib"]), strict=False)))
def test_a_stream_is_judged_as_its_disk_is(tmp_path: Path, layout: str, compression: str | None) -> None:
    parts, expected, _ = LAYOUTS[layout]
    disk = disk_of(parts, "dos")
    stream = written(BytesSource(disk), cluster_size=64 * KIB, compression_type=compression)
    with memory_file(stream) as fd:
        assert judged(fd, BackupKind.QCOW2, tmp_path)[::2] == (expected, disk)


def test_a_file_system_alone_on_its_disk_is_judged(tmp_path: Path) -> None:
    for data, expected in ((FAT, True), (ROOT, False)):
        disk = data.ljust(SIZE, b"\0")
        with memory_file(disk) as fd:
            found, came, restored = judged(fd, BackupKind.RAW, tmp_path)
        assert (found, restored) == (expected, disk)
        assert came <= 2 * MIB


def test_what_would_take_too_much_room_is_not_judged(tmp_path: Path) -> None:
    disk = disk_of([(1, FAT), (20, FAT)], "dos")
    with memory_file(disk) as fd:
        assert judged(fd, BackupKind.RAW, tmp_path, most=8 * MIB) == (False, 8 * MIB, disk)


def test_where_nothing_can_be_kept_all_is_still_read() -> None:
    disk = disk_of([(1, FAT), (20, FAT)], "dos")
    full = os.open("/dev/full", os.O_RDWR)
    with memory_file(disk) as fd:
        pipe, came = KeptPipe(PipeReader(fd, "pipe"), full, "/dev"), bytearray(SIZE)
        assert not has_to_be_mounted(pipe, BackupKind.RAW, MemoryDisk(SIZE))
        assert (pipe.peek(MIB), pipe.position) == (disk[:MIB], 0)
        assert pipe.read_into(memoryview(came)) == SIZE
    assert came == disk
    os.close(full)


@pytest.mark.parametrize("end", [0, 1, 600, MIB, MIB + 100, 2 * MIB])
@pytest.mark.parametrize("kind", [BackupKind.RAW, BackupKind.QCOW2])
def test_a_backup_that_ends_early_is_left_to_what_restores_it(tmp_path: Path, kind: BackupKind, end: int) -> None:
    data = disk_of([(1, FAT), (3, NOISE), (5, NOISE), (20, FAT)], "dos")
    if kind is BackupKind.QCOW2:
        data = written(BytesSource(data), cluster_size=64 * KIB, compression_type=None)
    kept_in = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    with memory_file(data[:end]) as fd:
        pipe = KeptPipe(PipeReader(fd, "pipe"), kept_in, str(tmp_path))
        assert not has_to_be_mounted(pipe, kind, MemoryDisk(SIZE))
        came = bytearray(len(data))
        assert bytes(came[: pipe.read_into(memoryview(came))]) == data[:end]
    os.close(kept_in)
