# SPDX-License-Identifier: MIT
"""The feature bits of ext2, ext3 and ext4, and which of them each kind is made with (super.rst, "Feature Sets")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

JOURNAL_DEV = 0x8  # incompat, and not among Incompat's: what has it is not a file system but the journal of one


class Compat(IntFlag):
    """A reader or writer that does not know the bit may go on."""

    HAS_JOURNAL = 0x4
    EXT_ATTR = 0x8
    RESIZE_INODE = 0x10
    DIR_INDEX = 0x20
    SPARSE_SUPER2 = 0x200


class Incompat(IntFlag):
    """Who does not know the bit must not touch the file system."""

    FILETYPE = 0x2
    RECOVER = 0x4
    META_BG = 0x10
    EXTENTS = 0x40
    BIT64 = 0x80
    MMP = 0x100
    FLEX_BG = 0x200
    EA_INODE = 0x400
    CSUM_SEED = 0x2000
    LARGEDIR = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPT = 0x10000
    CASEFOLD = 0x20000


class RoCompat(IntFlag):
    """Who does not know the bit may read only."""

    SPARSE_SUPER = 0x1
    LARGE_FILE = 0x2
    BTREE_DIR = 0x4
    HUGE_FILE = 0x8
    GDT_CSUM = 0x10
    DIR_NLINK = 0x20
    EXTRA_ISIZE = 0x40
    QUOTA = 0x100
    BIGALLOC = 0x200
    METADATA_CSUM = 0x400
    READONLY = 0x1000
    PROJECT = 0x2000
    VERITY = 0x8000
    ORPHAN_PRESENT = 0x10000


@dataclass(frozen=True, slots=True)
class Features:
    """One file system's three sets of features."""

    compat: Compat
    incompat: Incompat
    ro_compat: RoCompat

    @property
    def journal(self) -> bool:
        return Compat.HAS_JOURNAL in self.compat

    @property
    def resize_inode(self) -> bool:
        return Compat.RESIZE_INODE in self.compat

    @property
    def meta_bg(self) -> bool:
        return Incompat.META_BG in self.incompat

    @property
    def extents(self) -> bool:
        return Incompat.EXTENTS in self.incompat

    @property
    def bits64(self) -> bool:
        return Incompat.BIT64 in self.incompat

    @property
    def flex_bg(self) -> bool:
        return Incompat.FLEX_BG in self.incompat

    @property
    def checksums(self) -> bool:
        return RoCompat.METADATA_CSUM in self.ro_compat

    def without_resize_inode(self) -> Features:
        return Features(self.compat & ~Compat.RESIZE_INODE, self.incompat, self.ro_compat)

    def with_meta_bg(self) -> Features:
        """Return the features with descriptors spread over the groups, which excludes the resize inode."""
        return Features(self.compat & ~Compat.RESIZE_INODE, self.incompat | Incompat.META_BG, self.ro_compat)


_EXT2 = Features(
    Compat.EXT_ATTR | Compat.RESIZE_INODE | Compat.DIR_INDEX,
    Incompat.FILETYPE,
    RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE,
)
_EXT3 = Features(_EXT2.compat | Compat.HAS_JOURNAL, _EXT2.incompat, _EXT2.ro_compat)

# What mke2fs 1.47 gives by default, except orphan_file (refused by e2fsck before 1.47) and metadata_csum_seed
# (refused by GRUB up to 2.06).
FEATURES = {
    "ext2": _EXT2,
    "ext3": _EXT3,
    "ext4": Features(
        _EXT3.compat,
        _EXT3.incompat | Incompat.EXTENTS | Incompat.BIT64 | Incompat.FLEX_BG,
        _EXT3.ro_compat | RoCompat.HUGE_FILE | RoCompat.DIR_NLINK | RoCompat.EXTRA_ISIZE | RoCompat.METADATA_CSUM,
    ),
}
