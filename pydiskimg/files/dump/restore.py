# SPDX-License-Identifier: MIT
"""A dump of level 0 restored into a directory."""

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
    """What restoring made: directories, files of every other kind, further names of these, bytes of regular files.

    bytes counts holes, too. left_out is names of what the dump's maker excluded (its map does not list them); unnamed
    is files of the file system's own (quota, orphan file), which are not restored; flags_left_out is files with flags
    of chattr(1) that could not be set there; attributes_left_out is those that the file system cannot hold.
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
        """Count an entry that was made."""
        if entry.kind == stat.S_IFDIR:
            self.directories += 1
        else:
            self.files += 1
            self.links += len(entry.names)
            self.bytes += entry.size

    def counting(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield entries, each of which is made before the next one is asked for, and count them."""
        for entry in entries:
            yield entry
            self.count(entry)


class DumpWording(Wording):
    """Messages of a dump, whose paths begin at its root; one can be longer than any that the kernel takes."""

    def where(self, entry: Entry) -> str:
        path = entry.path
        if len(path) > _SHOWN_PATH:
            path = b".../" + path[-_SHOWN_PATH:].partition(b"/")[2]
        return f"{self.source}: {printable(path)}"

    def refused(self, entry: Entry, reason: ValueError) -> DiskImageError:
        return InvalidImageError(f"{self.where(entry)}: {reason}")


def restore_dump(reader: DumpReader, directory: str | int, *, progress: Progress | None = None) -> Restored:
    """Restore all of a dump into a directory of a new file system, as restore -r does for a level 0.

        with open_dump(fd, "root.dump") as reader:
            restore_dump(reader, target)

    directory is a path, or a descriptor of a directory, which stays open. It should be empty; directories that are in
    it already (lost+found, a mount point) are taken for the dump's own of that name. Owners, modes, times, hard links,
    holes, devices, extended attributes, ACLs and the flags of chattr(1) come out as they were; a dump has times to the
    second. Nothing outside of the directory is touched and no symlink is followed, whatever the dump says. Nothing is
    flushed: sync the file system afterwards. Memory is what the dump's directories need, about 80 bytes for each name.

    progress gets bytes of the stored dump, and 0 as the total, which a dump does not tell.

    Raises InvalidImageError, which names the dump and the file, when the dump is truncated or damaged, or does not
    hold all that its map lists; UnsupportedImageError; StorageError when the system refuses a read or write. The
    directory then holds a part of the dump.
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
