# SPDX-License-Identifier: MIT
"""Invalid properties of symlinks, devices, pipes and sockets, and invalid flags of inodes."""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.maps import FoundMap
from pydiskimg.fs.ext4.features import Compat, Feature, Incompat, RoCompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.map_reader import file_pieces

HURD = 1  # s_creator_os
_IMAGIC_FLAG = 0x2000
_SYMLINK_SIZE = 60
_LOCKED = layout.IMMUTABLE_FLAG | layout.APPEND_FLAG
_NEEDED: tuple[tuple[int, Feature, str], ...] = (
    (layout.INLINE_DATA_FLAG, Incompat.INLINE_DATA, "inline data"),
    (layout.EXTENTS_FLAG, Incompat.EXTENTS, "extents"),
    (layout.CASEFOLD_FLAG, Incompat.CASEFOLD, "casefolded names"),
    (_IMAGIC_FLAG, Compat.IMAGIC_INODES, "inodes of AFS"),
)


def flag_problem(checking: Checking, inode: StoredInode) -> str | None:
    """Return the damage of flags and small fields of a used inode, or None."""
    return next((text for is_wrong, text in _flag_problems(checking, inode) if is_wrong), None)


def _flag_problems(checking: Checking, inode: StoredInode) -> Iterator[tuple[bool, str]]:
    """Yield possible damage of an inode: whether it applies, and the sentence."""
    flags, kind, fields = inode.flags, inode.kind, inode.fields
    for flag, feature, what in _NEEDED:
        is_wrong = bool(flags & flag) and not checking.has(feature)
        yield is_wrong, f"its flags say {what}, but the file system lacks the feature"
    is_directory, is_file = kind == layout.DIRECTORY, kind == layout.REGULAR_FILE
    both = layout.INLINE_DATA_FLAG | layout.EXTENTS_FLAG
    yield flags & both == both, "its flags say both inline data and extents"
    is_folded = bool(flags & layout.CASEFOLD_FLAG)
    yield is_folded and not is_directory, "its flags say casefolded names, but it is not a directory"
    is_value = bool(flags & layout.EA_INODE_FLAG)
    yield is_value and not is_file, "its flags say the value of an attribute, but it is not a regular file"
    is_indexed = bool(flags & layout.INDEX_FLAG)
    may_be_indexed = is_directory and checking.has(Compat.DIR_INDEX)
    yield is_indexed and not may_be_indexed, "its flags say a tree of hashes, which it cannot have"
    has_map = is_directory or is_file
    is_unsaid = has_map and _looks_like_extents(checking, inode)
    yield is_unsaid, "its map looks like extents, but its flags do not say so"
    yield bool(fields["i_obso_faddr"]), "its field i_faddr is not zero"
    if checking.fs.superblock.number("s_creator_os") == HURD:
        return
    is_large = is_directory and bool(fields["i_size_high"]) and not checking.has(Incompat.LARGEDIR)
    yield is_large, "it is a directory of more than 4 GiB"
    is_beyond = bool(fields["i_file_acl_high"]) and not checking.has(Incompat.BIT64)
    yield is_beyond, "the block of its attributes is beyond 32 bits"
    counts_more = bool(fields["i_blocks_high"]) and not checking.has(RoCompat.HUGE_FILE)
    yield counts_more, "it counts more blocks than 32 bits"


def _looks_like_extents(checking: Checking, inode: StoredInode) -> bool:
    if inode.flags & (layout.EXTENTS_FLAG | layout.INLINE_DATA_FLAG) or not checking.has(Incompat.EXTENTS):
        return False
    header = layout.EXTENT_HEADER.unpack(inode.i_block)
    sound = header["eh_entries"] <= header["eh_max"] and header["eh_max"] == layout.EXTENTS_IN_INODE
    return bool(header["eh_magic"] == layout.EXTENT_MAGIC and sound)


def special_problem(inode: StoredInode) -> str | None:
    """Return the damage of a device, pipe or socket, or of an invalid type; None if there is none."""
    if inode.kind not in layout.FILE_TYPES:
        return f"its mode is {inode.mode:#o}, which is invalid"
    if inode.flags & (layout.EXTENTS_FLAG | layout.INLINE_DATA_FLAG | layout.INDEX_FLAG | _LOCKED):
        return f"its flags are {inode.flags:#x}, which a device, pipe or socket cannot have"
    if inode.size:
        return f"it is a device, pipe or socket of {inode.size} bytes"
    return None


def symlink_problem(fs: FileSystem, inode: StoredInode, found: FoundMap) -> str | None:
    """Return the damage of a symlink whose map was followed; None if there is none."""
    size = inode.size
    if not 0 < size < fs.geometry.block_size or inode.flags & _LOCKED:
        return f"it is a symlink of {size} bytes, with the flags {inode.flags:#x}"
    if inode.flags & layout.INLINE_DATA_FLAG or not found.is_whole:
        return None
    if size < _SYMLINK_SIZE:
        if inode.flags & layout.EXTENTS_FLAG:
            return "it is a symlink in its inode, but its flags say extents"
        return _target_problem(inode, inode.i_block)
    if (found.end, found.has_holes, found.has_unwritten) != (1, False, False):
        return f"it is a symlink of {size} bytes in {found.end} blocks"
    return _target_problem(inode, fs.read(next(at for _, at, _ in file_pieces(fs, inode))))


def _target_problem(inode: StoredInode, target: bytes) -> str | None:
    if inode.flags & layout.ENCRYPT_FLAG:
        length = int.from_bytes(target[:2], "little") + 2
    else:
        length = target.find(b"\0") if b"\0" in target else len(target)
    return None if length == inode.size else f"it is a symlink of {inode.size} bytes, but its target has {length}"
