# SPDX-License-Identifier: MIT
"""How a disk of some size is divided: block size, groups, inodes, descriptors. Pure arithmetic.

The choices are those of mke2fs 1.47 with Debian's mke2fs.conf, so that administrators find what they know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydiskimg.errors import DoesNotFitError, FileSystemError
from pydiskimg.fs.ext4.features import FEATURES, Features
from pydiskimg.fs.ext4.layout import FIRST_INODE, INODE_SIZE
from pydiskimg.units import MIB, TIB, format_bytes

MINIMUM_SIZE = 8 * MIB
MAXIMUM_SIZE = 16 * TIB
BLOCK_SIZES = (1024, 2048, 4096)
MINIMUM_BYTES_PER_INODE = 1024
MAXIMUM_BYTES_PER_INODE = 64 * MIB
PAGE_SIZE = 4096  # sizes are rounded down to it, whatever the block size
_FLEX_SIZE = 16
_MAX_32 = (1 << 32) - 1
SPARE_BLOCKS = 50  # a last group that has fewer blocks than this beyond its own metadata is dropped
_MINIMUM_INODES_PER_GROUP = 16  # inodes 1 to 11 are then always in group 0

# Blocks in the file system below the first number -> blocks in the journal; comments for blocks of 4 KiB.
_JOURNAL_STEPS = (
    (2048, 0),
    (32768, 1024),  # below 128 MiB: 4 MiB
    (256 * 1024, 4096),  # below 1 GiB: 16 MiB
    (512 * 1024, 8192),
    (4096 * 1024, 16384),  # below 16 GiB: 64 MiB
    (8192 * 1024, 32768),
    (16384 * 1024, 65536),
    (32768 * 1024, 131072),
)
_JOURNAL_MAXIMUM = 262144


@dataclass(frozen=True, slots=True)
class Geometry:
    """The division of a file system into groups; units are blocks where nothing else is said.

        first_data_block      + blocks_per_group                                         blocks
        |       group 0       |       group 1       |  ...  |  last group, maybe short  |

    desc_blocks is the size of the whole table of descriptors, inode_blocks that of one group's inode table.
    """

    features: Features
    block_size: int
    blocks: int
    blocks_per_group: int
    groups: int
    inodes_per_group: int
    reserved_gdt_blocks: int
    reserved_blocks: int

    @property
    def first_data_block(self) -> int:
        return 1 if self.block_size == 1024 else 0

    @property
    def inodes(self) -> int:
        return self.inodes_per_group * self.groups

    @property
    def inode_blocks(self) -> int:
        return self.inodes_per_group * INODE_SIZE // self.block_size

    @property
    def desc_size(self) -> int:
        return 64 if self.features.bits64 else 32

    @property
    def desc_per_block(self) -> int:
        return self.block_size // self.desc_size

    @property
    def desc_blocks(self) -> int:
        return -(-self.groups // self.desc_per_block)

    @property
    def flex_size(self) -> int:
        """Groups whose bitmaps and inode tables lie together; 1 without flex_bg."""
        return _FLEX_SIZE if self.features.flex_bg else 1

    @property
    def journal_blocks(self) -> int:
        return journal_blocks(self.blocks) if self.features.journal else 0

    def group_start(self, group: int) -> int:
        return self.first_data_block + group * self.blocks_per_group

    def group_end(self, group: int) -> int:
        """The first block after the group."""
        return min(self.group_start(group + 1), self.blocks)

    def group_of(self, block: int) -> int:
        return (block - self.first_data_block) // self.blocks_per_group

    def group_head(self, group: int) -> int:
        """Blocks at a group's start for the superblock, the descriptors and their reserve; all of them in use."""
        backup = has_backup(group)
        if not self.features.meta_bg:
            return (1 + self.desc_blocks + self.reserved_gdt_blocks) if backup else 0
        within = group % self.desc_per_block
        return backup + (within in (0, 1, self.desc_per_block - 1))

    def descriptor_copies(self, block: int) -> Iterator[int]:
        """Yield where the given block of the descriptor table is to be stored, the primary copy first."""
        if not self.features.meta_bg:
            yield from (self.group_start(group) + 1 + block for group in (0, *self.backups()))
            return
        first = block * self.desc_per_block
        for group in (first, first + 1, first + self.desc_per_block - 1):
            if group < self.groups:
                yield self.group_start(group) + has_backup(group)

    def backups(self) -> list[int]:
        """Return the groups after group 0 that hold a copy of the superblock, ascending."""
        return backup_groups(self.groups)


def has_backup(group: int) -> bool:
    """True when the group holds the superblock or a copy: 0, 1 and the powers of 3, 5 and 7 (sparse_super)."""
    if group <= 1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


def backup_groups(groups: int) -> list[int]:
    """Return the groups below groups, without 0, that hold a copy of the superblock; ascending."""
    found = {1} if groups > 1 else set()
    for base in (3, 5, 7):
        power = base
        while power < groups:
            found.add(power)
            power *= base
    return sorted(found)


def journal_blocks(blocks: int) -> int:
    """Return the journal's size for a file system of that many blocks; 0: too small for a journal."""
    for below, journal in _JOURNAL_STEPS:
        if blocks < below:
            return journal
    return _JOURNAL_MAXIMUM


def plan_geometry(
    size: int,
    *,
    kind: str,
    where: str,
    sector_size: int = 512,
    block_size: int | None = None,
    bytes_per_inode: int | None = None,
    reserved_percent: float = 5.0,
) -> Geometry:
    """Return the geometry of a file system on size bytes; where names the disk in messages.

    Raises FileSystemError or DoesNotFitError when it cannot be made as asked.
    """
    _check(size, kind, where, block_size, bytes_per_inode, reserved_percent)
    if sector_size > BLOCK_SIZES[-1]:
        raise FileSystemError(
            f"{where}: the disk has sectors of {sector_size} bytes, and {kind} is made with blocks of at most "
            f"{BLOCK_SIZES[-1]}; nothing was written"
        )
    usable = size // PAGE_SIZE * PAGE_SIZE
    usual_block, usual_ratio = _usual(usable)
    chosen = block_size or max(usual_block, sector_size)
    if chosen < sector_size:
        raise FileSystemError(
            f"{where}: blocks of {chosen} bytes are smaller than the disk's sectors of {sector_size} bytes; "
            f"use a block size of {sector_size}; nothing was written"
        )
    blocks = usable // chosen
    features = FEATURES[kind]
    if blocks > _MAX_32:
        if not features.bits64:
            raise DoesNotFitError(
                f"{where}: {kind} has at most {_MAX_32} blocks, and {format_bytes(usable)} in blocks of {chosen} "
                f"bytes are {blocks}; use ext4{' or larger blocks' if chosen < BLOCK_SIZES[-1] else ''}; "
                "nothing was written",
                needed=usable,
                available=_MAX_32 * chosen,
            )
        features = features.without_resize_inode()
    ratio = bytes_per_inode or max(usual_ratio, chosen)
    wanted = min(usable // ratio, _MAX_32)
    if usable // ratio > _MAX_32 and not features.bits64:
        raise FileSystemError(
            f"{where}: one inode for each {ratio} bytes makes {usable // ratio} inodes, and {kind} has at most "
            f"{_MAX_32}; use a larger number of bytes per inode; nothing was written"
        )
    geometry = Geometry(features, chosen, blocks, chosen * 8, 0, 0, 0, int(reserved_percent * blocks / 100.0))
    return _divide(geometry, max(wanted, FIRST_INODE + 1), where)


def _check(
    size: int, kind: str, where: str, block_size: int | None, bytes_per_inode: int | None, reserved_percent: float
) -> None:
    if kind not in FEATURES:
        raise FileSystemError(
            f"{where}: {kind!r} is not a kind of file system made here; expected {', '.join(FEATURES)}; "
            "nothing was written"
        )
    if block_size is not None and block_size not in BLOCK_SIZES:
        raise FileSystemError(
            f"{where}: {block_size} is not a block size of {kind}; expected 1024, 2048 or 4096; nothing was written"
        )
    if bytes_per_inode is not None and not MINIMUM_BYTES_PER_INODE <= bytes_per_inode <= MAXIMUM_BYTES_PER_INODE:
        raise FileSystemError(
            f"{where}: {bytes_per_inode} bytes per inode are outside of {MINIMUM_BYTES_PER_INODE} to "
            f"{MAXIMUM_BYTES_PER_INODE}; nothing was written"
        )
    if not 0 <= reserved_percent <= 50:
        raise FileSystemError(
            f"{where}: {reserved_percent} percent cannot be reserved for the super user; expected 0 to 50; "
            "nothing was written"
        )
    if not MINIMUM_SIZE <= size <= MAXIMUM_SIZE:
        small = size < MINIMUM_SIZE
        limit = f"at least {format_bytes(MINIMUM_SIZE)}" if small else f"at most {format_bytes(MAXIMUM_SIZE)}"
        raise DoesNotFitError(
            f"{where}: {kind} is made on {limit}, and there are {format_bytes(size)}; nothing was written",
            needed=min(max(size, MINIMUM_SIZE), MAXIMUM_SIZE),
            available=size,
        )


def _usual(size: int) -> tuple[int, int]:
    """Return the block size and the bytes per inode that mke2fs.conf gives for a disk of size bytes."""
    if size < 512 * MIB:
        return 1024, 4096
    if size < 4 * TIB:
        return 4096, 16384
    return 4096, 32768 if size < 16 * TIB else 65536


def _divide(geometry: Geometry, wanted_inodes: int, where: str) -> Geometry:
    """Return the geometry with its groups; wanted_inodes is the least number of inodes.

    Each turn that does not settle drops a group or makes the groups smaller, which happens a limited number of times.
    """
    first = geometry.first_data_block
    whole = geometry
    while True:
        groups = -(-(geometry.blocks - first) // geometry.blocks_per_group)
        if groups <= 0:
            raise _no_room(geometry, where)
        geometry = replace(geometry, groups=groups)
        inodes_per_group = -(-wanted_inodes // groups)
        if inodes_per_group > geometry.block_size * 8:
            if geometry.blocks_per_group < 256:
                raise _no_room(geometry, where)
            geometry = replace(whole, blocks_per_group=geometry.blocks_per_group - 8)
            continue
        geometry = replace(geometry, inodes_per_group=_whole_inode_blocks(geometry, inodes_per_group))
        geometry = _with_descriptor_reserve(geometry)
        blocks = _useful_blocks(geometry, where)
        if blocks == geometry.blocks:
            return geometry
        percent = 100.0 * whole.reserved_blocks / whole.blocks
        geometry = replace(geometry, blocks=blocks, reserved_blocks=int(percent * blocks / 100.0))


def _whole_inode_blocks(geometry: Geometry, wanted: int) -> int:
    """Return the inodes per group: at least wanted, filling whole blocks, a multiple of 8, inode numbers in 32 bits."""
    per_block = geometry.block_size // INODE_SIZE
    while True:
        number = max(-(-wanted // per_block) * per_block, _MINIMUM_INODES_PER_GROUP) & ~7
        if number * geometry.groups <= _MAX_32:
            return number
        wanted -= 1


def _with_descriptor_reserve(geometry: Geometry) -> Geometry:
    """Reserve descriptor blocks to grow 1024 times; where descriptors would fill a group, spread them (meta_bg)."""
    reserve = 0
    if geometry.features.resize_inode:
        future = min(_MAX_32, geometry.blocks * 1024) if geometry.blocks < _MAX_32 // 1024 else _MAX_32
        groups = -(-(future - geometry.first_data_block) // geometry.blocks_per_group)
        reserve = -(-groups // geometry.desc_per_block) - geometry.desc_blocks
        reserve = max(0, min(reserve, geometry.block_size // 4))
    features = geometry.features
    if reserve + geometry.desc_blocks > geometry.blocks_per_group * 3 // 4:
        features, reserve = features.with_meta_bg(), 0
    return replace(geometry, features=features, reserved_gdt_blocks=reserve)


def _useful_blocks(geometry: Geometry, where: str) -> int:
    """Return the number of blocks without a short last group that has hardly room for more than its own metadata."""
    table = 2 + geometry.inode_blocks
    head = 1 if geometry.features.meta_bg else geometry.desc_blocks
    if 1 + table + geometry.reserved_gdt_blocks + head > geometry.blocks_per_group:
        raise _no_room(geometry, where)
    overhead = table
    if has_backup(geometry.groups - 1):
        overhead += 1 + geometry.desc_blocks + geometry.reserved_gdt_blocks
    remainder = (geometry.blocks - geometry.first_data_block) % geometry.blocks_per_group
    return geometry.blocks - remainder if remainder < overhead + SPARE_BLOCKS else geometry.blocks


def _no_room(geometry: Geometry, where: str) -> FileSystemError:
    size = geometry.blocks * geometry.block_size
    return FileSystemError(
        f"{where}: {format_bytes(size)} in blocks of {geometry.block_size} bytes have no room for the metadata; "
        "use fewer inodes (more bytes per inode) or another block size; nothing was written"
    )
