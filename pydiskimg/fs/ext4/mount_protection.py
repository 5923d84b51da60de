# SPDX-License-Identifier: MIT
"""Multiple mount protection: a block in which the node that uses a file system says so to all others (mmp.rst).

    clean ── take() ──> "e2fsck runs", and our name ── check() before a change is in force ── release() ──> clean

No kernel mounts it meanwhile, and e2fsprogs leave it alone. An interruption leaves it taken, as one of resize2fs does;
then tune2fs -f -E clear_mmp gives it back, and e2fsck checks it. ADR 0135.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydiskimg.errors import FileSystemError, StorageError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.protocols import Disk, Source, read_bytes
from pydiskimg.records import Value


def check_not_mounted(fs: FileSystem) -> None:
    """Raise FileSystemError for a file system that is in use, as its multiple mount protection says.

    Raises NotBelievedError where that is damaged, and as reading does.
    """
    if Incompat.MMP in fs.geometry.features:
        _check_clean(fs, _fields(fs, fs.source, fs.superblock.number("s_mmp_block")))


class MountProtection:
    """The multiple mount protection of a file system on a disk; where it has none, nothing here does anything.

    block is where it is, which may change while it is taken.
    """

    def __init__(self, disk: Disk, fs: FileSystem) -> None:
        self._disk = disk
        self._fs = fs
        self._ours: dict[str, Value] = {}
        self.block = fs.superblock.number("s_mmp_block") if Incompat.MMP in fs.geometry.features else 0

    def take(self) -> None:
        """Keep other nodes from using the file system, durably; where that is done already, do nothing.

        Raises FileSystemError where one of them uses it, NotBelievedError where the block is damaged, StorageError.
        """
        if not self.block or self._ours:
            return
        fields = self._read()
        _check_clean(self._fs, fields)
        ours: dict[str, Value] = {
            "mmp_seq": layout.MMP_FSCK,
            "mmp_time": int(time.time()),
            "mmp_nodename": _text("mmp_nodename", os.uname().nodename),
            "mmp_bdevname": _text("mmp_bdevname", os.path.basename(self._disk.name)),
        }
        self._write(fields | ours)
        self._ours = ours

    def check(self) -> None:
        """Raise FileSystemError where another node has taken the file system although we had; errors as for take()."""
        if not self._ours:
            return
        fields = self._read()
        if any(fields[name] != value for name, value in self._ours.items()):
            raise FileSystemError(
                f"{self._fs.name}: another node began to use its ext file system while it was changed here, says its "
                "multiple mount protection; unmount it there, and check it (e2fsck -f)"
            )

    def release(self) -> None:
        """Let other nodes use the file system, durably. Errors as for check()."""
        if self._ours:
            self.check()
            self._write(self._read() | {"mmp_seq": layout.MMP_CLEAN, "mmp_time": int(time.time())})
            self._ours = {}

    def _read(self) -> dict[str, Value]:
        self._disk.drop_cache()  # another node writes to the device, and not to the page cache of this one
        return _fields(self._fs, self._disk, self.block)

    def _write(self, fields: dict[str, Value]) -> None:
        raw = bytearray(layout.MMP.pack(**fields))
        if self._fs.checksums.active:
            layout.MMP.put(raw, {"mmp_checksum": self._fs.checksums.mount_protection(bytes(raw))})
        self._disk.write(self.block * self._fs.geometry.block_size, bytes(raw))
        self._disk.flush()


@contextmanager
def protected(disk: Disk, fs: FileSystem) -> Iterator[MountProtection]:
    """Give what transactions take, and release it at the end; not where writing failed: e2fsck comes first then."""
    protection = MountProtection(disk, fs)
    try:
        yield protection
    except StorageError:
        raise
    except Exception:
        protection.release()
        raise
    protection.release()


def _fields(fs: FileSystem, source: Source, block: int) -> dict[str, Value]:
    if not fs.geometry.first_data_block < block < fs.geometry.blocks:
        raise fs.not_believed(f"its block of multiple mount protection is {block}, of {fs.geometry.blocks}")
    raw = read_bytes(source, block * fs.geometry.block_size, layout.MMP.size)
    fields = layout.MMP.unpack(raw)
    if fields["mmp_magic"] != layout.MMP_MAGIC:
        raise fs.not_believed(f"block {block} is not one of multiple mount protection")
    if fs.checksums.active and fields["mmp_checksum"] != fs.checksums.mount_protection(raw):
        raise fs.not_believed("the checksum of its multiple mount protection does not hold")
    return fields


def _check_clean(fs: FileSystem, fields: dict[str, Value]) -> None:
    if fields["mmp_seq"] == layout.MMP_FSCK:
        raise FileSystemError(
            f"{fs.name}: its ext file system is being checked or changed, or that was interrupted, says its multiple "
            "mount protection; when nothing uses it, clear that (tune2fs -f -E clear_mmp) and check it (e2fsck -f)"
        )
    if fields["mmp_seq"] != layout.MMP_CLEAN:
        raise FileSystemError(
            f"{fs.name}: its ext file system is in use, says its multiple mount protection; unmount it, or check it "
            "(e2fsck)"
        )


def _text(name: str, text: str) -> bytes:
    """Return text as a field has it: with a zero at its end."""
    size = layout.MMP.slice_of(name).stop - layout.MMP.offsets[name]
    return os.fsencode(text)[: size - 1].ljust(size, b"\0")
