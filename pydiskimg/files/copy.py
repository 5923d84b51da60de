# SPDX-License-Identifier: MIT
"""Copy a directory's files over those of a guest, as cp -a would, and never out of the guest's root.

The writer of archives makes the entries (docs/adr/0030) and so resolves their paths.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.directory import DirectoryReader, MoreAttributes
from pydiskimg.files.writer import Wording, open_writer
from pydiskimg.protocols import Progress


@dataclass(frozen=True, slots=True)
class CopiedTree:
    """The result of a copy: entries, and the bytes of regular files, including holes.

    left_out counts the extended attributes that target's file system cannot hold.
    """

    entries: int
    bytes: int
    left_out: AttributesLeftOut


def copy_directory(
    source: str, target: str, *, progress: Progress | None = None, attributes: MoreAttributes | None = None
) -> CopiedTree:
    """Copy everything below source to target, over existing files; target's own owner, mode and times stay.

    Owner, mode, times, POSIX ACLs, extended attributes, hard links, symlinks, devices and holes are those of source; a
    hard link that would lead from one file system to another becomes a copy. An existing file of an entry's path is
    replaced, a symlink too; an existing directory is kept and gets the attributes of source's, and a symlink to a
    directory is kept as it is (/lib -> usr/lib). Symlinks of target resolve inside target only; those of source are
    copied and never followed. Nothing is flushed.

    progress gets the bytes of files. attributes returns, for an entry's path below target and its S_IF constant,
    additional extended attributes; those of source take precedence. Raises ArchiveError, which names source and the
    entry, for an entry that cannot be copied safely, InvalidImageError for a file that shrinks meanwhile, StorageError
    when a system call fails.
    """
    entries = done = 0
    reader = DirectoryReader(os.fsencode(os.path.realpath(source)), progress, attributes)
    with open_writer(target, Wording(source, "copy", "copied"), keep_links=True) as writer:
        for entry in reader.entries():
            writer.make(entry)
            entries += 1
            done += entry.size
        writer.finish()
        return CopiedTree(entries, done, writer.left_out)
