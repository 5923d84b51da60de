# SPDX-License-Identifier: MIT
"""The feature flags of ext2, ext3 and ext4 (super.rst, "Feature Sets"), and which operations support them.

KNOWN_TO_BITMAPS and KNOWN_TO_FILES are the flags with which a file system is accepted for these purposes. Add a flag to
the first only if it changes neither the meaning of a block bitmap nor the location of metadata, or if geometry.py and
usage.py handle it. The other tables are FEATURES (for new file systems), NOT_GROWN, NOT_CHANGED and those of the
drivers, which distinguish ext2, ext3 and ext4.
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING, ValueObject

if TYPE_CHECKING:
    from typing import Protocol

    class FeatureSet(Protocol):
        field: str  # s_feature_...


class Feature(int):
    """A flag; its class is its set. Not an IntFlag, because importing enum takes 4 ms."""

    name: str
    field: str

    def __set_name__(self, owner: FeatureSet, name: str) -> None:
        self.name, self.field = name, owner.field


class Compat:
    """Software that does not know the bit may read and write."""

    field = "compat"

    IMAGIC_INODES = Feature(0x2)
    HAS_JOURNAL = Feature(0x4)
    EXT_ATTR = Feature(0x8)
    RESIZE_INODE = Feature(0x10)
    DIR_INDEX = Feature(0x20)
    SPARSE_SUPER2 = Feature(0x200)
    STABLE_INODES = Feature(0x800)  # inodes keep their numbers and the UUID: encrypted contents depend on them
    ORPHAN_FILE = Feature(0x1000)


class Incompat:
    """Software that does not know the bit must not read or change the file system."""

    field = "incompat"

    FILETYPE = Feature(0x2)
    RECOVER = Feature(0x4)
    JOURNAL_DEV = Feature(0x8)  # the journal of a file system, not a file system; it is not read
    META_BG = Feature(0x10)
    EXTENTS = Feature(0x40)
    BIT64 = Feature(0x80)
    MMP = Feature(0x100)
    FLEX_BG = Feature(0x200)
    EA_INODE = Feature(0x400)
    CSUM_SEED = Feature(0x2000)
    LARGEDIR = Feature(0x4000)
    INLINE_DATA = Feature(0x8000)
    ENCRYPT = Feature(0x10000)
    CASEFOLD = Feature(0x20000)


class RoCompat:
    """Software that does not know the bit may only read."""

    field = "ro_compat"

    SPARSE_SUPER = Feature(0x1)
    LARGE_FILE = Feature(0x2)
    BTREE_DIR = Feature(0x4)
    HUGE_FILE = Feature(0x8)
    GDT_CSUM = Feature(0x10)
    DIR_NLINK = Feature(0x20)
    EXTRA_ISIZE = Feature(0x40)
    QUOTA = Feature(0x100)
    BIGALLOC = Feature(0x200)
    METADATA_CSUM = Feature(0x400)
    READONLY = Feature(0x1000)
    PROJECT = Feature(0x2000)
    SHARED_BLOCKS = Feature(0x4000)  # Android: a block may belong to several files
    VERITY = Feature(0x8000)
    ORPHAN_PRESENT = Feature(0x10000)


_ALL = 0xFFFFFFFF

# The features that the drivers of ext2 and ext3 support; any other makes it ext4.
_OLD_RO_COMPAT = RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE | RoCompat.BTREE_DIR
_EXT2_INCOMPAT = Incompat.FILETYPE | Incompat.META_BG
_EXT3_INCOMPAT = _EXT2_INCOMPAT | Incompat.RECOVER


class Features(ValueObject):
    """The three feature sets of a file system, as in its superblock; bits that are unknown here are kept."""

    __slots__ = ("compat", "incompat", "ro_compat")

    def __init__(self, compat: int = 0, incompat: int = 0, ro_compat: int = 0) -> None:
        self.compat = compat
        self.incompat = incompat
        self.ro_compat = ro_compat

    def __contains__(self, feature: Feature) -> bool:
        return bool(getattr(self, feature.field) & feature)

    def with_(self, *features: Feature) -> Features:
        """Return the features with more of them."""
        sets = {name: getattr(self, name) for name in self.__slots__}
        for feature in features:
            sets[feature.field] |= feature
        return Features(**sets)

    def without(self, feature: Feature) -> Features:
        """Return the features without one of them."""
        return self.replaced(**{feature.field: getattr(self, feature.field) & ~feature})

    @property
    def fields(self) -> dict[str, int | bytes]:
        """The fields of the superblock that hold them."""
        return {f"s_feature_{name}": getattr(self, name) for name in self.__slots__}

    def beyond(self, known: Features) -> tuple[int, int]:
        """Return the bits of incompat and of ro_compat that are not in known."""
        return self.incompat & ~known.incompat, self.ro_compat & ~known.ro_compat

    @property
    def kind(self) -> str | None:
        """The first of ext2, ext3 and ext4 whose driver supports the features, as libblkid chooses; None if there is
        none.
        """
        if Incompat.JOURNAL_DEV in self:
            return None
        if self.ro_compat & ~_OLD_RO_COMPAT or self.incompat & ~_EXT3_INCOMPAT:
            return "ext4"
        if Compat.HAS_JOURNAL in self:
            return "ext3"
        return None if self.incompat & ~_EXT2_INCOMPAT else "ext2"


def every(flags: type[FeatureSet]) -> int:
    """Return the bits of all known flags of a set."""
    return sum(flag for flag in vars(flags).values() if isinstance(flag, Feature))


_READ_INCOMPAT = every(Incompat) & ~Incompat.JOURNAL_DEV

# For reading bitmaps and files: a reader may ignore unknown flags of ro_compat.
KNOWN_TO_BITMAPS = Features(_ALL, _READ_INCOMPAT, every(RoCompat) & ~RoCompat.SHARED_BLOCKS)
KNOWN_TO_FILES = Features(_ALL, _READ_INCOMPAT, _ALL)

_EXT2 = Features().with_(
    *(Compat.EXT_ATTR, Compat.RESIZE_INODE, Compat.DIR_INDEX),
    *(Incompat.FILETYPE, RoCompat.SPARSE_SUPER, RoCompat.LARGE_FILE),
)
_EXT3 = _EXT2.with_(Compat.HAS_JOURNAL)

# What mke2fs 1.47 gives by default, except orphan_file (refused by e2fsck before 1.47) and metadata_csum_seed
# (refused by GRUB up to 2.06).
FEATURES = {
    "ext2": _EXT2,
    "ext3": _EXT3,
    "ext4": _EXT3.with_(
        *(Incompat.EXTENTS, Incompat.BIT64, Incompat.FLEX_BG),
        *(RoCompat.HUGE_FILE, RoCompat.DIR_NLINK, RoCompat.EXTRA_ISIZE, RoCompat.METADATA_CSUM),
    ),
}

# Features of file systems that are not grown, by their names in tune2fs. Pairs: flags of two sets may be equal.
NOT_GROWN: tuple[tuple[Feature, str], ...] = ((RoCompat.READONLY, "read-only"),)

# Features of file systems whose files are not changed, likewise.
NOT_CHANGED: tuple[tuple[Feature, str], ...] = (
    (RoCompat.READONLY, "read-only"),
    (RoCompat.SHARED_BLOCKS, "shared_blocks"),
)
