# SPDX-License-Identifier: MIT
"""open_tree(): the one way from an image or disk to the files in it, without a mount."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.errors import DiskImageError, FileSystemError, PartitionError
from pydiskimg.fs.ext4.tree import ExtTree, open_ext_tree
from pydiskimg.images.open import open_image
from pydiskimg.protocols import Source
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.volumes.find import Volume, volumes_of
from pydiskimg.volumes.root import is_root

if TYPE_CHECKING:
    from pydiskimg.images.references import AllowedDirectory

_READ = frozenset({"ext2", "ext3", "ext4"})


def open_tree(
    image: str | os.PathLike[str] | Source,
    *,
    partition: int | None = None,
    format: str | None = None,  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None = None,
) -> ExtTree:
    """Open the files of a disk image, block device or open Source for reading; close() of the result ends that.

    partition is the number of the partition that holds them, 0 the disk as a whole. Without it the root file system of
    a Linux system is looked for, and where there is one file system only, that is taken. ext2, ext3 and ext4 are read,
    as recovery of their journal would leave them; nothing is written, mounted or started, so that a guest's disk may
    hold what it will, and reading needs no root. What image holds is not to change meanwhile. format and references are
    as for open_image(); a Source stays open.

        with open_tree("disk.qcow2") as tree:
            print(tree.read("/etc/hostname"), tree.list("/home"))

    Raises PartitionError for a partition that there is none of, FileSystemError where there is no file system that is
    read here, or several of which none is a root, and what open_image() raises.
    """
    with ExitStack() as stack:
        if isinstance(image, str | os.PathLike):
            source: Source = stack.enter_context(open_image(image, format=format, references=references))
        else:
            source = image
        files = _found(source, partition).files
        return ExtTree(files, stack.pop_all().close)


def _found(source: Source, partition: int | None) -> ExtTree:
    told: list[str] = []
    volumes = volumes_of(source, told.append)
    if partition is not None:
        return open_ext_tree(_numbered(source, volumes, partition).region(source))
    candidates = [volume for volume in volumes if volume.content is not None and volume.content.type in _READ]
    opened = []
    for volume in candidates:
        try:
            tree = open_ext_tree(volume.region(source))
        except DiskImageError as error:
            told.append(str(error))
            continue
        if len(candidates) == 1 or is_root(tree):
            return tree
        opened.append(volume)
    if told and not opened:
        raise FileSystemError(f"{source.name}: no file system can be read: {'; '.join(told)}")
    found = ", ".join(map(str, volumes)) or "none"
    what = "several file systems and no root of a Linux system among them" if opened else "no ext2, ext3 or ext4"
    raise FileSystemError(f"{source.name}: holds {what}; name a partition; found: {found}")


def _numbered(source: Source, volumes: list[Volume], number: int) -> Volume:
    for volume in volumes:
        if volume.partition.number == number:
            if volume.content is not None and volume.content.type not in _READ:
                raise FileSystemError(
                    f"{source.name}, {volume.location}: holds {volume.content.type}; its files are not read here, "
                    "only those of ext2, ext3 and ext4"
                )
            return volume
    found = ", ".join(str(volume.partition.number) for volume in volumes if volume.partition.number) or "none"
    raise PartitionError(f"{source.name}: has no partition {number}; found: {found}")
