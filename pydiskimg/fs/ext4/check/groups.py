# SPDX-License-Identifier: MIT
"""The groups: first the locations of their metadata, and at the end their bitmaps and counts against the findings."""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import runs_of
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.report import FindingKind
from pydiskimg.fs.ext4.descriptors import Descriptor, location_problem, locations, read_descriptors
from pydiskimg.fs.ext4.features import Incompat

_MOST_RUNS = 5  # of blocks or inodes in one sentence


class GroupChecker:
    """Checks the groups of one file system; tables() tells which inodes are to be read."""

    def __init__(self, checking: Checking) -> None:
        self._checking = checking
        self._fs = checking.fs
        self._geometry = checking.fs.geometry
        self._free_blocks = self._free_inodes = 0

    def claim_metadata(self) -> None:
        """Claim the groups' own blocks: superblocks, descriptors, their reserve, bitmaps and inode tables."""
        geometry, claims = self._geometry, self._checking.claims
        for group in range(geometry.groups):
            start = geometry.group_start(group)
            head = min(geometry.group_head(group), geometry.group_size(group))
            if head:
                claims.claim(start, start + head)
        for descriptor in read_descriptors(self._fs):
            if location_problem(geometry, descriptor) is None:
                self._claim_group(descriptor)
        self._checking.metadata = dict(claims.groups)
        block = self._fs.superblock.number("s_mmp_block")
        if self._checking.has(Incompat.MMP) and geometry.first_data_block < block < geometry.blocks:
            self._checking.claim(block, block + 1, "multiple mount protection")

    def tables(self) -> Iterator[tuple[int, int]]:
        """Yield (block of the inode table, inodes that were ever in use) of each group; (0, 0): none to be read."""
        per_group = self._geometry.inodes_per_group
        for descriptor in read_descriptors(self._fs):
            problem = location_problem(self._geometry, descriptor)
            if problem is not None:
                self._found(FindingKind.DESCRIPTOR, descriptor, problem)
                if descriptor.is_intact or not self._has_possible_table(descriptor):
                    self._checking.inodes.set_unknown(descriptor.group)
                    yield 0, 0
                    continue
            unused = min(descriptor.unused_inodes, per_group)
            yield descriptor.inode_table, 0 if descriptor.flags & layout.INODE_UNINIT else per_group - unused

    def _has_possible_table(self, descriptor: Descriptor) -> bool:
        blocks = self._geometry.inode_blocks
        return self._geometry.first_data_block <= descriptor.inode_table <= self._geometry.blocks - blocks

    def _claim_group(self, descriptor: Descriptor) -> None:
        for what, block, count in locations(self._geometry, descriptor):
            claimed = self._checking.claims.claim(block, block + count)
            if claimed is not None and self._geometry.cluster_blocks == 1:
                self._found(FindingKind.DESCRIPTOR, descriptor, f"its {what} is at block {claimed}, which is in use")

    def compare(self) -> None:
        """Compare bitmaps and counts with the findings; the kernel lets those of the superblock become outdated."""
        for descriptor in read_descriptors(self._fs):
            if location_problem(self._geometry, descriptor) is None:
                self._compare_blocks(descriptor)
                self._compare_inodes(descriptor)
            self._free_blocks += descriptor.free_blocks * self._geometry.cluster_blocks
            self._free_inodes += descriptor.free_inodes
        superblock, report = self._fs.superblock, self._checking.report
        for what, stored, found in (
            ("blocks", superblock.wide("s_free_blocks_count"), self._free_blocks),
            ("inodes", superblock.number("s_free_inodes_count"), self._free_inodes),
        ):
            if stored != found:
                report.notes.append(
                    f"the superblock's count of free {what} is outdated (found {stored}, expected {found})"
                )

    def _compare_blocks(self, descriptor: Descriptor) -> None:
        group, geometry, report = descriptor.group, self._geometry, self._checking.report
        clusters = geometry.group_clusters(group)
        found = self._checking.claims.groups.get(group, 0)
        if descriptor.flags & layout.BLOCK_UNINIT:
            stored = self._checking.metadata.get(group, 0)
        else:
            stored = self._bits(
                descriptor, descriptor.block_bitmap, clusters, geometry.clusters_per_group, is_blocks=True
            )
        missing, leaked = found & ~stored, stored & ~found
        start, ratio = geometry.group_start(group), geometry.cluster_blocks
        if missing:
            where = _named(missing, start, ratio)
            text = f"group {group}: its bitmap marks blocks as free that are in use: {where}"
            report.add(FindingKind.BLOCK_BITMAP, text, missing.bit_count())
        if leaked:
            where = _named(leaked, start, ratio)
            text = f"group {group}: its bitmap marks blocks as used that are not in use: {where}"
            report.add(FindingKind.LEAKED_BLOCKS, text, leaked.bit_count())
        free = clusters - stored.bit_count()
        if free != descriptor.free_blocks:
            text = f"its descriptor says that {descriptor.free_blocks} clusters are free, its bitmap {free}"
            self._found(FindingKind.FREE_COUNT, descriptor, text)

    def _compare_inodes(self, descriptor: Descriptor) -> None:
        group, count, report = descriptor.group, self._geometry.inodes_per_group, self._checking.report
        found, directories = self._checking.inodes.in_use(group)
        stored = 0
        if not descriptor.flags & layout.INODE_UNINIT:
            stored = self._bits(descriptor, descriptor.inode_bitmap, count, count, is_blocks=False)
        first = group * count + 1
        for bits, what in (
            (found & ~stored, "as free that are in use"),
            (stored & ~found, "as used that are not in use"),
        ):
            if bits:
                text = f"group {group}: its bitmap marks inodes {what}: {_named(bits, first, 1)}"
                report.add(FindingKind.INODE_BITMAP, text, bits.bit_count())
        free = count - stored.bit_count()
        if free != descriptor.free_inodes:
            text = f"its descriptor says that {descriptor.free_inodes} inodes are free, its bitmap {free}"
            self._found(FindingKind.FREE_COUNT, descriptor, text)
        if directories != descriptor.directories:
            text = f"its descriptor counts {descriptor.directories} directories, expected {directories}"
            self._found(FindingKind.FREE_COUNT, descriptor, text)
        if found >> max(count - descriptor.unused_inodes, 0):
            self._found(FindingKind.DESCRIPTOR, descriptor, "inodes are in use that it marks as never used")

    def _bits(self, descriptor: Descriptor, block: int, count: int, covered: int, *, is_blocks: bool) -> int:
        """Return the first count bits of a bitmap, whose checksum covers that many bits."""
        data, checksums = self._fs.read(block), self._fs.checksums
        kind = FindingKind.BLOCK_BITMAP if is_blocks else FindingKind.INODE_BITMAP
        what = "block" if is_blocks else "inode"
        if checksums.active:
            width = 0xFFFFFFFF if self._geometry.desc_size >= layout.GROUP_DESCRIPTOR_64.size else 0xFFFF
            stored = descriptor.bitmap_checksum if is_blocks else descriptor.inode_bitmap_checksum
            if checksums.bitmap(data[: covered // 8]) & width != stored:
                self._found(kind, descriptor, f"the checksum of its {what} bitmap is wrong")
        bits = int.from_bytes(data, "little")
        if bits >> count != (1 << 8 * len(data) - count) - 1:
            self._found(kind, descriptor, f"its {what} bitmap has bits after its end that are not set")
        return bits & (1 << count) - 1

    def _found(self, kind: FindingKind, descriptor: Descriptor, text: str) -> None:
        self._checking.report.add(kind, f"group {descriptor.group}: {text}")


def _named(bits: int, first: int, ratio: int) -> str:
    """Return the first runs of bits, as blocks or inodes; bit 0 is number first."""
    parts: list[str] = []
    for low, high in runs_of(bits):
        if len(parts) == _MOST_RUNS:
            return ", ".join([*parts, "..."])
        start, last = first + low * ratio, first + high * ratio - 1
        parts.append(f"{start}" if start == last else f"{start} to {last}")
    return ", ".join(parts)
