# SPDX-License-Identifier: MIT
"""open_tree(): open the files in an image or disk, without a mount."""

from __future__ import annotations

import os

from pydiskimg.errors import DiskImageError, FileSystemError, PartitionError
from pydiskimg.fs.ext4.tree import ExtTree, open_ext_tree
from pydiskimg.images import detect_image
from pydiskimg.images.open import open_image
from pydiskimg.images.raw import open_raw
from pydiskimg.protocols import Source
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.volumes.find import Volume, find_volumes

if TYPE_CHECKING:
    from typing import Any, Literal, overload

    from pydiskimg.disks.open import OpenDisk
    from pydiskimg.fs.ext4.change.tree import ChangedTree
    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import Disk


# Imported for type checkers only: importing typing takes longer than reading a small file.
if TYPE_CHECKING:

    @overload
    def open_tree(
        image: str | os.PathLike[str] | Source,
        *,
        partition: int | None = None,
        format: str | None = None,
        references: AllowedDirectory | None = None,
        writable: Literal[False] = False,
    ) -> ExtTree: ...

    @overload
    def open_tree(
        image: str | os.PathLike[str] | Disk,
        *,
        partition: int | None = None,
        format: str | None = None,
        references: AllowedDirectory | None = None,
        writable: Literal[True],
    ) -> ChangedTree: ...

    @overload
    def open_tree(
        image: str | os.PathLike[str] | Disk,
        *,
        partition: int | None = None,
        format: str | None = None,
        references: AllowedDirectory | None = None,
        writable: bool,
    ) -> ExtTree: ...


def open_tree(
    image: str | os.PathLike[str] | Source,
    *,
    partition: int | None = None,
    format: str | None = None,  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None = None,
    writable: bool = False,
) -> ExtTree:
    """Open the files of a disk image, block device or open Source without a mount; the result is a context manager.

    partition is the number of the partition that holds the files, or 0 for the disk as a whole. Without it the root
    file system of a Linux system is searched for; where the disk has one file system only, that one is taken. The file
    system is ext2, ext3 or ext4, and is read as the recovery of its journal would leave it. Nothing is mounted or run
    and no root privileges are needed, so the disk may be hostile. It must not change meanwhile. format and references
    are those of open_image(); a Source stays the caller's.

    writable returns a ChangedTree. A path is then opened as by open_disk(), which refuses a disk that is mounted or
    used by another program; an open Disk may be passed in place of a path, unless another tree changes the same file
    system (InUseError). A qcow2 image is written in place, and blocks of its backing file are copied when they change.
    Nothing is written before the first change.

    Raises PartitionError for a partition that does not exist, FileSystemError where there is no file system that can be
    read or changed, or several and none of them is a root, and what open_image() and open_disk() raise.

    >>> from pydiskimg import open_tree
    >>> with open_tree("disk.qcow2") as tree:
    ...     print(tree.read("/etc/hostname"), tree.stat("/etc/hostname").st_size)
    b'web1\\n' 5
    >>> with open_tree("disk.qcow2", writable=True) as tree:
    ...     tree.write("/etc/motd", b"welcome\\n")
    """
    if writable:
        return _open_changed(image, partition, format, references)
    if not isinstance(image, str | os.PathLike):
        return _found(image, partition)[1]
    source = open_image(image, format=format, references=references)
    try:
        return ExtTree(_found(source, partition)[1].files, source.close)
    except BaseException:
        source.close()
        raise


def _open_changed(
    image: str | os.PathLike[str] | Source,
    partition: int | None,
    format: str | None,  # noqa: A002
    references: AllowedDirectory | None,
) -> ChangedTree:
    from contextlib import ExitStack  # imported here: reading does not need it
    from typing import cast

    from pydiskimg.fs.ext4.change.tree import open_changed_tree
    from pydiskimg.regions.claims import claim, release
    from pydiskimg.regions.region import Region

    with ExitStack() as stack:
        source: Source
        if isinstance(image, str | os.PathLike):
            source = stack.enter_context(_opened_disk(image, format, references))
        else:
            source = image
        opened = ExitStack()
        if not hasattr(source, "write"):
            raise ValueError(f"{source.name}: is a Source, and only a Disk can be changed")
        volume = _found(source, partition)[0]
        name = f"{source.name}, {volume.location}"
        region = Region(cast("Disk", source), volume.partition.start, volume.partition.length, name=name)
        claim(region)
        stack.callback(release, region)
        changed = open_changed_tree(region, close=opened.close)
        opened.push(stack.pop_all())
        return changed


def _opened_disk(
    path: str | os.PathLike[str],
    format: str | None,  # noqa: A002
    references: AllowedDirectory | None,
) -> OpenDisk[Any]:
    from pydiskimg.images.open_disk import open_disk  # imported here: reading does not need it

    name = os.fspath(path)
    if format is None:
        with open_raw(name) as file:
            format = detect_image(file)  # noqa: A001
    opened: OpenDisk[Any] = open_disk(name, writable=True, format=format, references=references)
    return opened


def _found(source: Source, partition: int | None) -> tuple[Volume, ExtTree]:
    told: list[str] = []
    volumes = find_volumes(source, told.append)
    if partition is not None:
        volume = _numbered(source, volumes, partition)
        return volume, open_ext_tree(volume.region(source))
    candidates = [volume for volume in volumes if volume.is_ext]
    opened = []
    for volume in candidates:
        try:
            tree = open_ext_tree(volume.region(source))
        except DiskImageError as error:
            told.append(str(error))
            continue
        if len(candidates) == 1 or _is_root(tree):
            return volume, tree
        opened.append(volume)
    if told and not opened:
        raise FileSystemError(f"{source.name}: no file system can be read: {'; '.join(told)}")
    found = ", ".join(map(str, volumes)) or "none"
    several = "several file systems and no root of a Linux system among them; name a partition"
    what = several if opened else "no ext2, ext3 or ext4, whose files could be read"
    raise FileSystemError(f"{source.name}: contains {what}; found: {found}")


def _is_root(tree: ExtTree) -> bool:
    from pydiskimg.volumes.root import is_root  # imported here: a single file system is used without it

    return is_root(tree)


def _numbered(source: Source, volumes: list[Volume], number: int) -> Volume:
    for volume in volumes:
        if volume.partition.number == number:
            if volume.content is not None and not volume.is_ext:
                raise FileSystemError(
                    f"{source.name}, {volume.location}: contains {volume.content.type}; its files cannot be read here, "
                    "only those of ext2, ext3 and ext4"
                )
            return volume
    found = ", ".join(str(volume.partition.number) for volume in volumes if volume.partition.number) or "none"
    raise PartitionError(f"{source.name}: has no partition {number}; found: {found}")
