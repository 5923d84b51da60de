# SPDX-License-Identifier: MIT
"""Multiple mount protection: a block in which a node marks the file system as in use for all others (mmp.rst).

    clean ── take() ──> "e2fsck runs", and our name ── check() before a change takes effect ── release() ──> clean

No kernel mounts it meanwhile, and e2fsprogs do not touch it. An interruption leaves it marked, as one of resize2fs
does; tune2fs -f -E clear_mmp then clears the mark, and e2fsck checks the file system. ADR 0135.
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
    """Raise FileSystemError for a file system that is in use according to its multiple mount protection.

    Raises NotBelievedError if that is damaged, and as reading does.
    """
    if Incompat.MMP in fs.geometry.features:
        _check_clean(fs, _fields(fs, fs.source, fs.superblock.number("s_mmp_block")))


class MountProtection:
    """The multiple mount protection of a file system on a disk; without the feature, all methods do nothing.

    block is its location, which may change while it is taken.
    """

    def __init__(self, disk: Disk, fs: FileSystem) -> None:
        self._disk = disk
        self._fs = fs
        self._ours: dict[str, Value] = {}
        self.block = fs.superblock.number("s_mmp_block") if Incompat.MMP in fs.geometry.features else 0

    def take(self) -> None:
        """Keep other nodes from using the file system, durably; if that is already done, do nothing.

        Raises FileSystemError if another node uses it, NotBelievedError if the block is damaged, StorageError.
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
        """Raise FileSystemError if another node has taken the file system after take(); errors as for take()."""
        if not self._ours:
            return
        fields = self._read()
        if any(fields[name] != value for name, value in self._ours.items()):
            raise FileSystemError(
                f"{self._fs.name}: its multiple mount protection says that another node began to use its ext file "
                "system while it was changed here; unmount it there, and check it (e2fsck -f)"
            )

    def release(self) -> None:
        """Let other nodes use the file system, durably. Errors as for check()."""
        if self._ours:
            self.check()
            self._write(self._read() | {"mmp_seq": layout.MMP_CLEAN, "mmp_time": int(time.time())})
            self._ours = {}

    def _read(self) -> dict[str, Value]:
        self._disk.drop_cache()  # another node writes to the device, bypassing this one's page cache
        return _fields(self._fs, self._disk, self.block)

    def _write(self, fields: dict[str, Value]) -> None:
        raw = bytearray(layout.MMP.pack(**fields))
        if self._fs.checksums.active:
            layout.MMP.put(raw, {"mmp_checksum": self._fs.checksums.mount_protection(bytes(raw))})
        self._disk.write(self.block * self._fs.geometry.block_size, bytes(raw))
        self._disk.flush()


@contextmanager
def protected(disk: Disk, fs: FileSystem) -> Iterator[MountProtection]:
    """Give the object for transactions, and release it at the end, unless a write failed: e2fsck must run then."""
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
        raise fs.not_believed("the checksum of its multiple mount protection is wrong")
    return fields


def _check_clean(fs: FileSystem, fields: dict[str, Value]) -> None:
    if fields["mmp_seq"] == layout.MMP_FSCK:
        raise FileSystemError(
            f"{fs.name}: its multiple mount protection says that its ext file system is being checked or changed, or "
            "that this was interrupted; if no machine uses it, clear that (tune2fs -f -E clear_mmp) and check it "
            "(e2fsck -f)"
        )
    if fields["mmp_seq"] != layout.MMP_CLEAN:
        raise FileSystemError(
            f"{fs.name}: its multiple mount protection says that its ext file system is in use; unmount it, or check "
            "it "
            "(e2fsck)"
        )


def _text(name: str, text: str) -> bytes:
    """Return text for a field, with a zero at its end."""
    size = layout.MMP.slice_of(name).stop - layout.MMP.offsets[name]
    return os.fsencode(text)[: size - 1].ljust(size, b"\0")
