# SPDX-License-Identifier: MIT
"""How an ext file system is divided: groups, and the locations of the copies of superblock and group descriptors.

    first_data_block      + blocks_per_group                                         blocks
    |       group 0       |       group 1       |  ...  |  last group, maybe short  |

    group with a copy     | superblock | all descriptors | reserved for more | ...
    with meta_bg          | superblock, in some groups | one block of descriptors, in three groups of those it has | ...

Pure arithmetic, for a file system to be made (plan.py), to be grown (grow_geometry.py) or read (file_system.py).
"""

from __future__ import annotations

from pydiskimg.fs.ext4.features import Compat, Features, Incompat, RoCompat
from pydiskimg.fs.ext4.layout import INODE_SIZE, SUPERBLOCK_OFFSET
from pydiskimg.startup import TYPE_CHECKING, ValueObject, cached_property

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

PAGE_SIZE = 4096  # sizes are rounded down to it, for every block size
SPARE_BLOCKS = 50  # a last group that has fewer blocks than this beyond its own metadata is dropped


class Geometry(ValueObject):
    """The division of a file system into groups; units are blocks unless stated otherwise.

    Groups, descriptors and inodes are numbered as in the specification. cluster_blocks is 1 except with bigalloc; a bit
    of a block bitmap stands for a cluster. flex_size is the number of groups whose bitmaps and inode tables lie
    together, two_copies the groups of sparse_super2, reserved_blocks the number kept for the super user.
    """

    def __init__(  # noqa: PLR0913 - the numbers of a superblock
        self,
        features: Features,
        block_size: int,
        blocks: int,
        blocks_per_group: int,
        inodes_per_group: int,
        desc_size: int,
        *,
        inode_size: int = INODE_SIZE,
        cluster_blocks: int = 1,
        flex_size: int = 1,
        reserved_gdt_blocks: int = 0,
        reserved_blocks: int = 0,
        first_meta_bg: int = 0,
        two_copies: tuple[int, int] = (0, 0),
    ) -> None:
        self.features = features
        self.block_size = block_size
        self.blocks = blocks
        self.blocks_per_group = blocks_per_group
        self.inodes_per_group = inodes_per_group
        self.desc_size = desc_size
        self.inode_size = inode_size
        self.cluster_blocks = cluster_blocks
        self.flex_size = flex_size
        self.reserved_gdt_blocks = reserved_gdt_blocks
        self.reserved_blocks = reserved_blocks
        self.first_meta_bg = first_meta_bg
        self.two_copies = two_copies

    @cached_property
    def first_data_block(self) -> int:
        return int(self.block_size * self.cluster_blocks == SUPERBLOCK_OFFSET)

    @cached_property
    def groups(self) -> int:
        return -(-(self.blocks - self.first_data_block) // self.blocks_per_group)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.blocks * self.block_size

    @property
    def inodes(self) -> int:
        return self.inodes_per_group * self.groups

    @cached_property
    def inode_blocks(self) -> int:
        """Blocks of one group's inode table."""
        return -(-self.inodes_per_group * self.inode_size // self.block_size)

    @cached_property
    def desc_per_block(self) -> int:
        return self.block_size // self.desc_size

    @cached_property
    def desc_blocks(self) -> int:
        """Blocks of the whole table of descriptors."""
        return -(-self.groups // self.desc_per_block)

    @cached_property
    def packed_desc_blocks(self) -> int:
        """Blocks of that table that lie together after each superblock; meta_bg spreads the others."""
        return self.first_meta_bg if Incompat.META_BG in self.features else self.desc_blocks

    @cached_property
    def clusters_per_group(self) -> int:
        return self.blocks_per_group // self.cluster_blocks

    @property
    def superblock_block(self) -> int:
        """The block that contains the superblock, or begins with it."""
        return SUPERBLOCK_OFFSET // self.block_size

    def group_start(self, group: int) -> int:
        return self.first_data_block + group * self.blocks_per_group

    def group_end(self, group: int) -> int:
        """The first block after the group."""
        return min(self.group_start(group + 1), self.blocks)

    def group_size(self, group: int) -> int:
        return self.group_end(group) - self.group_start(group)

    def group_clusters(self, group: int) -> int:
        """The clusters of a group; the last may be cut short by the end of the file system."""
        return self.clusters_in(self.group_size(group))

    def clusters_in(self, blocks: int) -> int:
        """The number of clusters that this many blocks from a cluster's start take."""
        return -(-blocks // self.cluster_blocks)

    def cluster_of(self, block: int) -> tuple[int, int]:
        """Return the first block of a block's cluster, and the block after its last."""
        start = block - (block - self.first_data_block) % self.cluster_blocks
        return start, min(start + self.cluster_blocks, self.blocks)

    def group_of(self, block: int) -> int:
        return (block - self.first_data_block) // self.blocks_per_group

    @cached_property
    def copies(self) -> Collection[int]:
        """The groups after group 0 with a copy of the superblock, ascending."""
        if Compat.SPARSE_SUPER2 in self.features:
            return dict.fromkeys(sorted(group for group in self.two_copies if 0 < group < self.groups))
        if RoCompat.SPARSE_SUPER not in self.features:
            return range(1, self.groups)
        return dict.fromkeys(sparse_groups(self.groups))  # as a dict, for fast look-ups

    def has_superblock(self, group: int) -> bool:
        return not group or group in self.copies

    def group_head(self, group: int) -> int:
        """Blocks at a group's start for the superblock, the descriptors and their reserve; all of them in use."""
        has_copy = self.has_superblock(group)
        if self._is_spread(group):
            within = group % self.desc_per_block
            return self._boot_block(group) + has_copy + (within in (0, 1, self.desc_per_block - 1))
        if not has_copy:
            return 0
        return self._boot_block(group) + 1 + self.packed_desc_blocks + self.reserved_gdt_blocks

    def group_overhead(self, group: int) -> int:
        """Blocks of a group without files that are in use if it has its own bitmaps and inode table."""
        return self.group_head(group) + 2 + self.inode_blocks

    def descriptor_block(self, number: int) -> int:
        """Return the location of block number of the descriptor table: the primary copy, not a backup."""
        return next(self.descriptor_copies(number))

    def descriptor_copies(self, number: int) -> Iterator[int]:
        """Yield the locations of block number of the descriptor table, the primary copy first."""
        first = number * self.desc_per_block
        if self._is_spread(first):
            for group in (first, first + 1, first + self.desc_per_block - 1):
                if group < self.groups:
                    yield self.group_start(group) + self._boot_block(group) + self.has_superblock(group)
            return
        yield self.superblock_block + 1 + number
        for group in self.copies:
            if self._is_spread(group):
                return
            yield self.group_start(group) + 1 + number

    def descriptor_pieces(self, most: int, first: int = 0) -> Iterator[range]:
        """Yield the blocks of the descriptor table from first on, in pieces of at most most blocks.

        The blocks of a piece are contiguous in every copy.
        """
        while first < self.desc_blocks:
            end = max(min(first + most, self.packed_desc_blocks), first + 1)
            yield range(first, end)
            first = end

    def _is_spread(self, group: int) -> bool:
        """True when the group's descriptors lie in its own neighbourhood."""
        return Incompat.META_BG in self.features and group >= self.first_meta_bg * self.desc_per_block

    def _boot_block(self, group: int) -> int:
        """Blocks before the superblock that belong to group 0: with bigalloc and blocks of 1 KiB there is one."""
        return self.superblock_block - self.first_data_block if group == 0 else 0


def sparse_groups(groups: int) -> list[int]:
    """Return the groups below groups, without 0, that have a copy of the superblock by sparse_super; ascending.

    These are 1 and the powers of 3, 5 and 7.
    """
    found = {1} if groups > 1 else set()
    for base in (3, 5, 7):
        power = base
        while power < groups:
            found.add(power)
            power *= base
    return sorted(found)
