# SPDX-License-Identifier: MIT
"""The raw disk image in a compressed file, onto a disk as it comes, and compared with it afterwards."""

from __future__ import annotations

import os

from pydiskimg.errors import DoesNotFitError, UnsupportedImageError, VerificationError
from pydiskimg.files.tar import PackedFile, open_packed
from pydiskimg.images import FORMATS, recognised
from pydiskimg.protocols import Disk, Progress
from pydiskimg.transfer.pieces import CHUNK_SIZE
from pydiskimg.transfer.receive import stream_of
from pydiskimg.units import format_bytes
from pydiskimg.volumes.described_end import LOOK_AT, described_end


def write_packed(
    path: str | os.PathLike[str], disk: Disk, *, verify: bool = True, progress: Progress | None = None
) -> int:
    """Decompress the raw image in a file (gzip, xz, bzip2, zstd) onto disk; return its size (bytes).

    verify decompresses it once more and compares it with what the disk has, past the cache where the system allows it.
    progress counts bytes of the compressed file, twice as many with verify.

    Raises UnsupportedImageError for another image than a raw one, DoesNotFitError for one whose own tables say that it
    is larger than the disk, both before the first byte; StorageError when more comes than the disk has room for,
    ArchiveError when the compressed data are damaged: the disk then holds a part. VerificationError where it differs.
    """
    with open_packed(path) as packed:
        _check_beginning(packed, disk)
        with stream_of(packed, format="raw") as stream:
            size = stream.copy_to(disk, progress=_consumed(packed, progress, verify=verify, before=0))
    disk.flush()
    if verify:
        disk.drop_cache()
        with open_packed(path) as packed:
            _compare(packed, disk, _consumed(packed, progress, verify=verify, before=packed.size))
    return size


def _check_beginning(packed: PackedFile, disk: Disk) -> None:
    beginning = packed.peek(LOOK_AT)
    found = recognised(beginning)
    if found is not FORMATS["raw"]:
        raise UnsupportedImageError(
            f"{packed.name}: holds {found.title}, whose tables may be anywhere; decompress it first"
        )
    described = described_end(beginning)
    if described > disk.size:
        raise DoesNotFitError(
            f"{disk.name}: the image in {packed.name} has {format_bytes(described)} by its own tables, the disk "
            f"{format_bytes(disk.size)}",
            needed=described,
            available=disk.size,
        )


def _compare(packed: PackedFile, disk: Disk, progress: Progress | None) -> None:
    expected, found = (memoryview(bytearray(CHUNK_SIZE)) for _ in range(2))
    while True:
        start = packed.position
        length = packed.read_into(expected)
        if not length:
            return
        disk.read_into(start, found[:length])
        if expected[:length] != found[:length]:
            at = next(at for at in range(length) if expected[at] != found[at])
            raise VerificationError(
                f"{disk.name}: byte {start + at} is {found[at]:#04x}, and {expected[at]:#04x} was written",
                offset=start + at,
            )
        if progress is not None:
            progress(0, 0)


def _consumed(packed: PackedFile, progress: Progress | None, *, verify: bool, before: int) -> Progress | None:
    """Return what reports the bytes of the compressed file that were read, in place of those that came of them."""
    if progress is None:
        return None
    total = packed.size * (1 + verify)
    return lambda _done, _total: progress(min(before + packed.consumed, total), total)
