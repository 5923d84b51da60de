# SPDX-License-Identifier: MIT
"""The feature flags of ext2, ext3 and ext4 (super.rst, "Feature Sets"), and what each table below says of them.

KNOWN_TO_BITMAPS and KNOWN_TO_FILES say with which flags a file system is taken on, by purpose: add one to the first
only when it changes neither what a block bitmap means nor where the metadata lies, or when geometry.py and usage.py
know how. The tables are FEATURES (what is made), NOT_GROWN, NOT_CHANGED and those of the drivers, by which ext2, ext3
and ext4 are told apart.
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING, ValueObject

if TYPE_CHECKING:
    from typing import Protocol

    class FeatureSet(Protocol):
        field: str  # s_feature_...


class Feature(int):
    """A flag of the set in whose class it is declared. Not an IntFlag: the module enum takes 4 ms to import."""

    name: str
    field: str

    def __set_name__(self, owner: FeatureSet, name: str) -> None:
        self.name, self.field = name, owner.field


class Compat:
    """A reader or writer that does not know the bit may go on."""

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
    """Software that does not know the bit must not touch the file system."""

    field = "incompat"

    FILETYPE = Feature(0x2)
    RECOVER = Feature(0x4)
    JOURNAL_DEV = Feature(0x8)  # not a file system but the journal of one, which is not read
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
    """Software that does not know the bit may read only."""

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

# What the drivers of ext2 and ext3 understand; anything else makes it ext4.
_OLD_RO_COMPAT = RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE | RoCompat.BTREE_DIR
_EXT2_INCOMPAT = Incompat.FILETYPE | Incompat.META_BG
_EXT3_INCOMPAT = _EXT2_INCOMPAT | Incompat.RECOVER


class Features(ValueObject):
    """One file system's three sets of features, as its superblock has them: bits that are not known here stay."""

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
        """Return the bits of incompat and of ro_compat that are not among those of known."""
        return self.incompat & ~known.incompat, self.ro_compat & ~known.ro_compat

    @property
    def kind(self) -> str | None:
        """The first of ext2, ext3 and ext4 whose driver understands them, as libblkid tells them; None: not one."""
        if Incompat.JOURNAL_DEV in self:
            return None
        if self.ro_compat & ~_OLD_RO_COMPAT or self.incompat & ~_EXT3_INCOMPAT:
            return "ext4"
        if Compat.HAS_JOURNAL in self:
            return "ext3"
        return None if self.incompat & ~_EXT2_INCOMPAT else "ext2"


def every(flags: type[FeatureSet]) -> int:
    """Return the bits of all flags that are known of a set."""
    return sum(flag for flag in vars(flags).values() if isinstance(flag, Feature))


_READ_INCOMPAT = every(Incompat) & ~Incompat.JOURNAL_DEV

# To say what is in use by the bitmaps, and to read files: who only reads need not know what ro_compat says.
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

# What a file system is not grown with, by the name that tune2fs has for it. Pairs: flags of two sets may be equal.
NOT_GROWN: tuple[tuple[Feature, str], ...] = ((RoCompat.READONLY, "read-only"),)

# What files are not changed with, likewise.
NOT_CHANGED: tuple[tuple[Feature, str], ...] = (
    (RoCompat.READONLY, "read-only"),
    (RoCompat.SHARED_BLOCKS, "shared_blocks"),
)
