# SPDX-License-Identifier: MIT
"""Check the file systems of a disk, each partition by itself; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.fs.ext4.check import ExtReport, check_ext
from pydiskimg.protocols import Progress, Source
from pydiskimg.volumes.find import Volume, find_volumes


@dataclass(frozen=True, slots=True)
class CheckedVolume:
    """A volume and the result of its check; report is None if contents of this type are not checked here."""

    volume: Volume
    report: ExtReport | None


def check_volumes(source: Source, unclear: list[str], *, progress: Progress | None = None) -> Iterator[CheckedVolume]:
    """Check the ext2, ext3 and ext4 file systems of a raw disk, a partition or an image of one file system.

    unclear is called with a sentence on each volume whose contents are unclear. Raises PartitionError for a table that
    cannot be read, StorageError as reading does.
    """
    for volume in find_volumes(source, unclear.append):
        report = check_ext(volume.region(source), progress=progress) if volume.is_ext else None
        yield CheckedVolume(volume, report)
