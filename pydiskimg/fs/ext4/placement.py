# SPDX-License-Identifier: MIT
"""Where the metadata of each group lies, and which blocks are free.

A flex group is 16 neighbouring groups (1 without flex_bg). Its block bitmaps, inode bitmaps and inode tables lie
together at its start, around the copies of the superblock:

    | super, descriptors, reserve | bitmaps | inode tables ...      |super..|  ... free ...                     |
    |  group 0                              |  group 1 ...          |  ...                        |  group 15   |

Nearly all flex groups have the same layout from their own start, so each pattern is computed once; a file system of 16
TiB has about thirty patterns for its thousands of flex groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.bitmaps import Run, clipped, find, insert, total
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.geometry import Geometry

_TABLES = 2  # the column of the inode tables, after those of the two bitmaps


@dataclass(frozen=True, slots=True)
class Pattern:
    """The metadata of one flex group; block numbers count from the flex group's start.

    The tuples have one item for each group; used has the runs in use, merged and ascending; initialised tells which
    groups contain more than their own superblock and descriptors, so that their block bitmap must be written.
    """

    block_bitmaps: tuple[int, ...]
    inode_bitmaps: tuple[int, ...]
    inode_tables: tuple[int, ...]
    used: tuple[Run, ...]
    sizes: tuple[int, ...]
    initialised: tuple[bool, ...]

    def used_in(self, group: int, blocks_per_group: int) -> list[Run]:
        """Return the runs in use in one group of the flex group, counted from that group's start."""
        start = group * blocks_per_group
        return clipped(self.used, start, start + self.sizes[group])


class _FlexGroup:
    """Computes one pattern: the runs in use grow as tables are placed. The choices are those of mke2fs."""

    def __init__(self, geometry: Geometry, heads: tuple[int, ...], sizes: tuple[int, ...], last: bool) -> None:
        self.geometry = geometry
        self.heads = heads
        self.sizes = sizes
        self.last = last
        self.end = (len(sizes) - 1) * geometry.blocks_per_group + sizes[-1]
        self.gap = len(sizes) if last and len(sizes) > 1 else geometry.flex_size
        self.used: list[Run] = []
        for group, head in enumerate(heads):
            if head:
                insert(self.used, self._start(group), self._start(group) + head)

    def _start(self, group: int) -> int:
        return group * self.geometry.blocks_per_group

    def pattern(self) -> Pattern | None:
        """Return the pattern, or None if the tables do not fit."""
        columns: list[list[int]] = [[], [], []]  # block bitmaps, inode bitmaps, inode tables
        lengths = (1, 1, self.geometry.inode_blocks)
        for group in range(len(self.sizes)):
            for column, length in enumerate(lengths):
                if Incompat.FLEX_BG in self.geometry.features:
                    block = self._place_together(group, length, self._after(columns, column))
                else:
                    block = self._place_in_group(group, length)
                if block is None:
                    return None
                insert(self.used, block, block + length)
                columns[column].append(block)
        blocks, inodes, tables = (tuple(column) for column in columns)
        return Pattern(blocks, inodes, tables, tuple(self.used), self.sizes, self._initialised())

    def _initialised(self) -> tuple[bool, ...]:
        found = [
            total(clipped(self.used, self._start(group), self._start(group) + size)) > self.heads[group]
            for group, size in enumerate(self.sizes)
        ]
        found[-1] |= self.last  # its bitmap also marks the blocks after the end, which do not exist
        return tuple(found)

    def _after(self, columns: list[list[int]], column: int) -> int | None:
        """Return the goal for the next table of a column: after the previous one, or after the previous column."""
        if columns[column]:
            return columns[column][-1] + (self.geometry.inode_blocks if column == _TABLES else 1)
        return columns[column - 1][0] + self.gap if column else None

    def _place_in_group(self, group: int, length: int) -> int | None:
        end = self._start(group) + self.sizes[group]
        return find(self.used, self._start(group), end, length, end)

    def _place_together(self, group: int, length: int, after: int | None) -> int | None:
        """Place a table near after; otherwise where those of all remaining groups fit, or else anywhere."""
        wanted = min((len(self.sizes) - group) * length, self.geometry.blocks_per_group // 4)
        if after is not None:
            found = find(self.used, after, after + wanted, length, self.end)
            if found is not None:
                return found
        found = find(self.used, 0, self.end, wanted, self.end)
        return found if found is not None else find(self.used, 0, self.end, length, self.end)


class Placement:
    """The blocks in use: the patterns of all flex groups, and later allocations.

    Memory depends on the number of patterns and allocations, not on the number of groups.
    """

    def __init__(self, geometry: Geometry, where: str) -> None:
        self.geometry = geometry
        self._where = where
        self._patterns: dict[tuple[tuple[int, ...], tuple[int, ...], bool], Pattern] = {}
        self._allocated: dict[int, list[Run]] = {}  # group -> runs, counted from the group's start
        self._with_backup = frozenset(group // geometry.flex_size for group in (0, *geometry.copies))
        self._plain: dict[int, Pattern] = {}

    @property
    def flex_groups(self) -> int:
        return -(-self.geometry.groups // self.geometry.flex_size)

    def flex_start(self, flex: int) -> int:
        """The first block of a flex group."""
        return self.geometry.group_start(flex * self.geometry.flex_size)

    def pattern(self, flex: int) -> Pattern:
        """Return the pattern of a flex group. Raises FileSystemError if its tables do not fit."""
        last = flex == self.flex_groups - 1
        if last or flex in self._with_backup:
            return self._keyed_pattern(flex, last)
        spread = Incompat.META_BG in self.geometry.features
        phase = flex * self.geometry.flex_size % self.geometry.desc_per_block if spread else 0
        found = self._plain.get(phase)
        if found is None:
            found = self._plain[phase] = self._keyed_pattern(flex, last)
        return found

    def _keyed_pattern(self, flex: int, last: bool) -> Pattern:
        geometry = self.geometry
        groups = range(flex * geometry.flex_size, min((flex + 1) * geometry.flex_size, geometry.groups))
        heads = tuple(map(geometry.group_head, groups))
        sizes = tuple(map(geometry.group_size, groups))
        found = self._patterns.get((heads, sizes, last))
        if found is None:
            found = _FlexGroup(geometry, heads, sizes, last).pattern()
            if found is None:
                raise FileSystemError(
                    f"{self._where}: the inode tables of groups {groups[0]} to {groups[-1]} do not fit; "
                    "use more bytes per inode; nothing was written"
                )
            self._patterns[heads, sizes, last] = found
        return found

    def used_in(self, group: int) -> list[Run]:
        """Return the runs in use in a group, counted from the group's start."""
        flex, index = divmod(group, self.geometry.flex_size)
        runs = self.pattern(flex).used_in(index, self.geometry.blocks_per_group)
        for start, end in self._allocated.get(group, ()):
            insert(runs, start, end)
        return runs

    def free_in(self, group: int) -> int:
        """Return how many blocks of a group are free."""
        return self.geometry.group_size(group) - total(self.used_in(group))

    def touched(self) -> list[int]:
        """Return the groups with allocations, ascending."""
        return sorted(self._allocated)

    def allocated_blocks(self) -> int:
        """Return how many blocks were allocated."""
        return sum(total(runs) for runs in self._allocated.values())

    def free_runs(self) -> Iterator[Run]:
        """Yield the runs of free blocks, ascending; each group is examined only when the iteration reaches it."""
        for group in range(self.geometry.groups):
            start, at = self.geometry.group_start(group), 0
            for first, last in [*self.used_in(group), (self.geometry.group_size(group), 0)]:
                if first > at:
                    yield start + at, start + first
                at = last

    def take(self, start: int, end: int) -> None:
        """Take the run [start, end), all of it free."""
        while start < end:
            stop = min(end, self.geometry.group_end(self.geometry.group_of(start)))
            self._mark(start, stop)
            start = stop

    def allocate(self, goal: int, length: int) -> Run:
        """Allocate the first free blocks at or after the block goal; the search continues from the front after the end.

        Returns a run of at least one and at most length blocks, which may span several groups. Raises FileSystemError
        when no block is free.
        """
        start = self._first_free(goal)
        end = start
        while end < start + length:
            more = min(self._free_until(end), start + length) - end
            if not more:
                break
            self._mark(end, end + more)
            end += more
        return start, end

    def _first_free(self, goal: int) -> int:
        geometry = self.geometry
        goal = goal if geometry.first_data_block <= goal < geometry.blocks else geometry.first_data_block
        first = geometry.group_of(goal)
        for turn in range(geometry.groups + 1):
            group = (first + turn) % geometry.groups
            start, size = geometry.group_start(group), geometry.group_size(group)
            skip = goal - start if not turn else 0
            found = find(self.used_in(group), skip, size, 1, size)
            if found is not None:
                return start + found
        raise FileSystemError(
            f"{self._where}: {geometry.blocks} blocks of {geometry.block_size} bytes have no room for the metadata "
            "and the journal; use more bytes per inode; nothing was written"
        )

    def _free_until(self, block: int) -> int:
        """Return the end of the free run that begins at block, within its group; block itself if it is in use."""
        if block >= self.geometry.blocks:
            return block
        group = self.geometry.group_of(block)
        start = self.geometry.group_start(group)
        for first, last in self.used_in(group):
            if last > block - start:
                return max(block, start + first)
        return self.geometry.group_end(group)

    def _mark(self, start: int, end: int) -> None:
        group = self.geometry.group_of(start)
        base = self.geometry.group_start(group)
        insert(self._allocated.setdefault(group, []), start - base, end - base)
