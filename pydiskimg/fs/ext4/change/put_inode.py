# SPDX-License-Identifier: MIT
"""Make an inode from an entry: contents, target or device, owner, mode, times, flags."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator

from pydiskimg.files.entry import Contents as EntryContents
from pydiskimg.files.entry import Entry
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.attributes import outlined
from pydiskimg.fs.ext4.change.contents import Contents, has_map
from pydiskimg.fs.ext4.change.inodes import changed
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.inode_fields import (
    device_pointer,
    owner_fields,
    possible_flags,
    size_fields,
    time_fields,
)
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError

_FAST_SYMLINK = 60  # bytes; shorter ones are in the inode
_PATH_MAX = 4096
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


def with_contents(transaction: Transaction, inode: StoredInode, entry: Entry) -> StoredInode:
    """Return an inode with the contents, the target or the device of an entry of the same type.

    Contents are written as they arrive. Raises as they do, and as Contents does; ValueError for a device number that
    Linux does not support.
    """
    if entry.kind == stat.S_IFREG:
        contents = Contents(transaction, outlined(transaction, inode))
        contents.cut(0)
        contents.add(_clipped(entry.contents, entry.size), entry.size)
        return contents.finished(entry.size)
    if entry.kind == stat.S_IFLNK:
        return with_target(transaction, inode, entry.link)
    if entry.kind in _DEVICES:
        return with_device(inode, entry.device)
    return inode


def with_device(inode: StoredInode, device: tuple[int, int]) -> StoredInode:
    """Return the inode of a device with a major and a minor number."""
    return changed(inode, {"i_block": device_pointer(*device).ljust(len(inode.i_block), b"\0")})


def with_target(transaction: Transaction, inode: StoredInode, target: bytes) -> StoredInode:
    """Return the inode of a symlink to target."""
    if not target:
        raise RefusedError("would have an empty target", errno.ENOENT)
    longest = min(transaction.fs.geometry.block_size, _PATH_MAX) - 1
    if len(target) > longest:
        raise RefusedError(f"would have a target of {len(target)} bytes (at most {longest})", errno.ENAMETOOLONG)
    inode = outlined(transaction, inode)
    if has_map(inode) or len(target) >= _FAST_SYMLINK:
        contents = Contents(transaction, inode)
        contents.cut(0)
        if len(target) >= _FAST_SYMLINK:
            contents.add_metadata(target)
            return contents.finished(len(target))
        inode = contents.finished(0)
    flags = inode.flags & ~layout.EXTENTS_FLAG
    return changed(inode, {"i_block": target.ljust(_FAST_SYMLINK, b"\0"), "i_flags": flags, **size_fields(len(target))})


def with_metadata(inode: StoredInode, entry: Entry, mode: int, now: int) -> StoredInode:
    """Return an inode with the owner and the times of an entry, and a mode; now is the time of this change."""
    fields = {
        "i_mode": mode,
        **owner_fields(entry.uid, entry.gid),
        **time_fields(entry.atime_ns, "i_atime"),
        **time_fields(entry.mtime_ns, "i_mtime"),
        **time_fields(now, "i_ctime"),
    }
    return changed(inode, fields)


def with_flags(inode: StoredInode, flags: int) -> StoredInode:
    """Return an inode with those flags of chattr(1) that a file of its type can have."""
    return changed(inode, {"i_flags": inode.flags | possible_flags(inode.kind, flags)})


def without_flags(inode: StoredInode) -> StoredInode:
    """Return an inode without the flags that with_flags() can give it."""
    return changed(inode, {"i_flags": inode.flags & ~possible_flags(inode.kind, -1)})


def _clipped(contents: EntryContents, size: int) -> Iterator[tuple[int, memoryview]]:
    for offset, data in contents:
        if offset < size:
            yield offset, data[: size - offset]
