# SPDX-License-Identifier: MIT
"""The kind of a backup, by the administrator's setting or by its first bytes."""

from __future__ import annotations

from enum import Enum

from ganeti_os.request import RequestError
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.probe import probe
from pydiskimg.images.contents import DUMP_MAGIC_OFFSET, DUMP_MAGICS
from pydiskimg.images.qcow2.layout import MAGIC
from pydiskimg.transfer.pipe import PipeReader
from pydiskimg.volumes.described_end import described_end

# The superblocks of all known file systems are in here: that of btrfs is the last, at 64 KiB.
LOOK_AT = 128 << 10

_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"LZIP": "lzip",
    b"\x04\x22\x4d\x18": "lz4",
}


class BackupKind(Enum):
    """A qcow2 that is read in order, a tar of ganeti-instance-image, a dump(8) of a root, the bytes of a disk."""

    QCOW2 = "qcow2"
    TAR = "tar"
    DUMP = "dump"
    RAW = "raw"


def backup_kind(pipe: PipeReader, wanted: str) -> BackupKind:
    """Return the kind of backup on the pipe; wanted is the setting IMPORT_FORMAT.

    An export by this package is always a qcow2, so that a guest's disk cannot influence the decision. Raises
    RequestError for an empty stream, a compressed one (unless RAW), and one that "auto" cannot recognise.
    """
    beginning = pipe.peek(LOOK_AT)
    if not beginning:
        raise RequestError(f"{pipe.name}: is empty; expected a backup; nothing was written")
    compression = next((name for magic, name in _COMPRESSIONS.items() if beginning.startswith(magic)), None)
    if compression is not None and wanted != BackupKind.RAW.value:
        raise RequestError(
            f"{pipe.name}: the backup is compressed with {compression}; decompress it before the import (or set "
            "IMPORT_FORMAT=raw, if it is a disk that begins with these bytes); nothing was written"
        )
    if wanted != "auto":
        return BackupKind(wanted)
    if beginning.startswith(MAGIC):
        return BackupKind.QCOW2
    # imported here: an import of such an export does not need libarchive
    from pydiskimg.files.tar import looks_like_archive

    if looks_like_archive(beginning):
        return BackupKind.TAR
    if beginning[DUMP_MAGIC_OFFSET : DUMP_MAGIC_OFFSET + 4] in DUMP_MAGICS:
        return BackupKind.DUMP
    if described_end(beginning) or _holds_file_system(beginning):
        return BackupKind.RAW
    raise RequestError(
        f"{pipe.name}: is neither a qcow2, nor a backup of ganeti-instance-image, nor a disk with a partition table or "
        "a file system that is known; set IMPORT_FORMAT=raw for the bytes of another disk; nothing was written"
    )


def _holds_file_system(beginning: bytes) -> bool:
    disk = MemoryDisk(LOOK_AT)
    disk.write(0, beginning)
    try:
        return probe(disk) is not None
    except FileSystemError:  # of two, in one place
        return True
