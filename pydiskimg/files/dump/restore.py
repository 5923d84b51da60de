# SPDX-License-Identifier: MIT
"""Restore a dump of level 0 into a directory."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydiskimg.errors import DiskImageError, InvalidImageError
from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.dump.entries import DumpEntries
from pydiskimg.files.dump.reader import DumpReader
from pydiskimg.files.entry import Entry
from pydiskimg.files.writer import Wording, open_writer
from pydiskimg.protocols import Progress
from pydiskimg.text import printable

_SHOWN_PATH = 200


@dataclass(slots=True)
class Restored:
    """What restore_dump() did.

    directories, files (of other kinds) and links (further names of these) are counts; bytes is the length of the
    regular files, holes included. left_out counts names that the dump's maker excluded; unnamed counts files of the
    file system's own (quotas, orphan file), which are not restored. flags_left_out counts files whose chattr(1) flags
    could not be set, and attributes_left_out describes the extended attributes that the file system cannot hold.

    >>> from pydiskimg import Restored
    >>> Restored().files
    0
    """

    directories: int = 0
    files: int = 0
    links: int = 0
    bytes: int = 0
    left_out: int = 0
    unnamed: int = 0
    flags_left_out: int = 0
    attributes_left_out: AttributesLeftOut = field(default_factory=AttributesLeftOut)

    def count(self, entry: Entry) -> None:
        """Count a restored entry."""
        if entry.kind == stat.S_IFDIR:
            self.directories += 1
        else:
            self.files += 1
            self.links += len(entry.names)
            self.bytes += entry.size

    def counting(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield entries, each of which is made before the next one is requested, and count them."""
        for entry in entries:
            yield entry
            self.count(entry)


class DumpWording(Wording):
    """Messages of a dump, whose paths begin at its root; a path can be longer than the kernel's limit."""

    def where(self, entry: Entry) -> str:
        path = entry.path
        if len(path) > _SHOWN_PATH:
            path = b".../" + path[-_SHOWN_PATH:].partition(b"/")[2]
        return f"{self.source}: {printable(path)}"

    def refused(self, entry: Entry, reason: ValueError) -> DiskImageError:
        return InvalidImageError(f"{self.where(entry)}: {reason}")


def restore_dump(reader: DumpReader, directory: str | int, *, progress: Progress | None = None) -> Restored:
    """Restore all of a dump into a directory of a new file system, as `restore -r` does for a level 0.

    directory is a path, or a descriptor that stays the caller's. It should be empty; directories that exist in it
    (lost+found, a mount point) are taken for the dump's own of that name. Owners, modes, times (to the second), hard
    links, holes, devices, extended attributes, ACLs and the flags of chattr(1) are restored. Nothing outside of the
    directory is touched and no symbolic link is followed. Call os.sync() afterwards; nothing is flushed. Memory is
    about 80 bytes for each name. progress is called with the bytes of the stored dump that are done, and 0 as the
    total, which a dump does not record.

    Raises InvalidImageError, which names the dump and the file, for a dump that is truncated, damaged or incomplete;
    UnsupportedImageError; StorageError where the system refuses. The directory then holds part of the dump.

    >>> import os
    >>> from pydiskimg import open_dump, restore_dump
    >>> os.mkdir("root")
    >>> with open("root.dump", "rb") as file, open_dump(file, "root.dump") as reader:
    ...     restored = restore_dump(reader, "root")
    >>> restored.left_out
    0
    """
    restored = Restored()
    with open_writer(directory, DumpWording(reader.name, "restore", "restored"), is_new=True) as writer:
        entries = DumpEntries(reader, progress)
        for entry in restored.counting(entries):
            writer.make(entry)
        writer.finish()
        restored.left_out, restored.unnamed = entries.left_out, entries.unnamed
        restored.flags_left_out, restored.attributes_left_out = writer.flags_left_out, writer.left_out
    return restored
