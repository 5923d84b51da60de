# SPDX-License-Identifier: MIT
"""Write the raw disk image in a compressed file onto a disk while it is decompressed, and verify it afterwards."""

from __future__ import annotations

import os

from pydiskimg.errors import DoesNotFitError, UnsupportedImageError, VerificationError
from pydiskimg.files.tar import PackedFile, open_packed
from pydiskimg.images.contents import Sort, file_contents
from pydiskimg.protocols import Disk, Progress
from pydiskimg.transfer.pieces import CHUNK_SIZE
from pydiskimg.transfer.receive import Beginning, stream_of
from pydiskimg.units import format_bytes
from pydiskimg.volumes.described_end import LOOK_AT, described_end


def write_packed(
    path: str | os.PathLike[str], disk: Disk, *, verify: bool = True, progress: Progress | None = None
) -> int:
    """Decompress the raw image in a file (gzip, xz, bzip2, zstd) onto disk; return its size (bytes).

    verify decompresses it again and compares it with the disk, bypassing the cache if the system allows that. progress
    counts bytes of the compressed file, twice as many with verify.

    Raises UnsupportedImageError for an image that is not raw, DoesNotFitError for one whose own tables say that it is
    larger than the disk, both before the first write; StorageError when the data are larger than the disk, ArchiveError
    when the compressed data are damaged: the disk then has a part of the image. Raises VerificationError if the disk
    differs.
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
    found = file_contents(Beginning(packed.name, beginning))
    if found is not None:
        is_qcow2 = found.sort is Sort.QCOW2
        advice = "a qcow2's tables may be anywhere; decompress it first" if is_qcow2 else "expected a raw image"
        what = f"data {found.what}" if found.sort is Sort.COMPRESSED else found.what
        raise UnsupportedImageError(f"{packed.name}: contains {what}, compressed; {advice}")
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
                f"{disk.name}: byte {start + at} is {found[at]:#04x}, but {expected[at]:#04x} was written",
                offset=start + at,
            )
        if progress is not None:
            progress(0, 0)


def _consumed(packed: PackedFile, progress: Progress | None, *, verify: bool, before: int) -> Progress | None:
    """Return a reporter of the bytes read of the compressed file, instead of the decompressed ones."""
    if progress is None:
        return None
    total = packed.size * (1 + verify)
    return lambda _done, _total: progress(min(before + packed.consumed, total), total)
