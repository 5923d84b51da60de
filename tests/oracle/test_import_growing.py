# SPDX-License-Identifier: MIT
"""import with GROW=yes of what does not grow: everything is restored, so the import succeeds and says what did not."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from ganeti_os.install.grow import grow
from ganeti_os.log import Messages
from pydiskimg.errors import StorageError
from pydiskimg.images.open_disk import open_disk
from tests.fixtures.block_devices import beginning
from tests.fixtures.node import Node, last_line
from tests.fixtures.partition_tables import LINUX, entry, record

pytestmark = pytest.mark.oracle
MIB = 1 << 20


def ext4(path: Path, *options: str) -> Path:
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    contents = path.parent / "contents"
    contents.mkdir()
    (contents / "file").write_bytes(os.urandom(3 * MIB))
    subprocess.run(["mkfs.ext4", "-q", "-F", *options, "-d", contents, path], check=True, capture_output=True)
    return path


def imported(tmp_path: Path, guest: Path, *, ending: str = "is restored and did not grow (") -> tuple[str, Path]:
    """Export guest, import it onto a larger disk that held 0xFF, and return the log and the disk."""
    node = Node.make(tmp_path / "node", GROW="yes")
    backup, larger = tmp_path / "backup", tmp_path / "larger"
    assert node.export(guest, backup).returncode == 0
    larger.write_bytes(b"\xff" * 300 * MIB)
    done = node.restore(larger, backup)
    assert done.returncode == 0, done.stderr
    assert f"{larger} {ending}" in last_line(done)
    return done.stderr.decode(), larger


def test_ext4_that_does_not_grow(tmp_path: Path) -> None:
    guest = ext4(tmp_path / "guest")
    subprocess.run(["tune2fs", "-O", "read-only", guest], check=True, capture_output=True)
    log, larger = imported(tmp_path, guest)
    assert sum(" warning: " in line for line in log.splitlines()) == 1
    assert "has the feature read-only; its size cannot be changed" in log
    os.truncate(larger, 64 * MIB)
    check_contents(tmp_path, larger)


@pytest.mark.parametrize(
    "options", [["-O", "sparse_super2"], ["-O", "bigalloc"], ["-b", "1024", "-E", "resize=200000"]], ids=" ".join
)
def test_ext4_that_resize2fs_has_trouble_with(tmp_path: Path, options: list[str]) -> None:
    _, larger = imported(tmp_path, ext4(tmp_path / "guest", *options), ending="is restored (")
    check_contents(tmp_path, larger)


def check_contents(tmp_path: Path, disk: Path) -> None:
    assert subprocess.run(["e2fsck", "-fn", disk], check=False, capture_output=True).returncode == 0
    found = subprocess.run(["debugfs", "-R", "cat /file", disk], check=True, capture_output=True).stdout
    assert found == (tmp_path / "contents/file").read_bytes()


def test_a_damaged_file_system_comes_back_as_it_was(tmp_path: Path) -> None:
    guest = ext4(tmp_path / "guest")
    subprocess.run(["debugfs", "-w", "-R", "set_inode_field <8> block[0] 0", guest], check=True, capture_output=True)
    log, larger = imported(tmp_path, guest)
    assert "its ext file system cannot be grown: " in log
    with guest.open("rb") as one, larger.open("rb") as other:
        assert one.read() == other.read(64 * MIB)


def test_a_table_that_overlaps_itself(tmp_path: Path) -> None:
    guest = tmp_path / "guest"
    guest.write_bytes(record(entry(LINUX, 2048, 40960), entry(LINUX, 20480, 81920)) + bytes(64 * MIB - 512))
    log, larger = imported(tmp_path, guest)
    assert "the partition table is damaged, nothing was changed" in log
    with larger.open("rb") as file:
        assert file.read(512) == beginning(guest, 512)


def test_a_disk_that_fails_while_it_grows_is_a_failure_that_says_what_is_whole(tmp_path: Path) -> None:
    """A file on a full file system fails as a disk does; nothing that was restored is lost."""
    path = ext4(tmp_path / "guest")
    os.truncate(path, 300 * MIB)
    with open_disk(path, writable=True) as disk:

        def fail(_offset: int, _data: object) -> None:
            raise StorageError("the disk is full", errno=errno.ENOSPC, filename="x")

        disk.write = fail  # type: ignore[method-assign, assignment]
        with pytest.raises(StorageError, match=r"^everything is restored, but growing failed: .*the disk is full$"):
            grow(disk, Messages(os_name="image", verb="import"), done="everything is restored")
    os.truncate(path, 64 * MIB)
    assert subprocess.run(["e2fsck", "-fn", path], check=False, capture_output=True).returncode == 0
