# SPDX-License-Identifier: MIT
"""Every inode of the tables by itself: the consistency of its fields, its attributes, and its blocks."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.attributes import AttributeChecker
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.maps import FoundMap, check_map
from pydiskimg.fs.ext4.check.quota import QuotaUsage
from pydiskimg.fs.ext4.check.report import FindingKind
from pydiskimg.fs.ext4.check.special_files import flag_problem, special_problem, symlink_problem
from pydiskimg.fs.ext4.features import Compat, Incompat, RoCompat
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, stored_inode
from pydiskimg.fs.ext4.map_reader import pointers_in
from pydiskimg.fs.ext4.resize_inode import check_resize_inode
from pydiskimg.fs.ext4.xattrs import Xattrs
from pydiskimg.protocols import read_bytes

_AT_ONCE = 32 << 10
_LINKS = layout.INODE.slice_of("i_links_count")
_MOST_OF_DIRECTORY = 1 << 31  # bytes, without large_dir


class InodeChecker:
    """Checks the inodes group by group; finish() follows the last one."""

    def __init__(self, checking: Checking, usage: QuotaUsage) -> None:
        self._checking = checking
        self._fs = checking.fs
        self._attributes = AttributeChecker(checking)
        self._usage = usage
        self._journal = checking.fs.superblock.journal_inode

    def check_group(self, group: int, table: int, count: int) -> None:
        """Check the first count inodes of a group, whose table begins at block table."""
        geometry, checksums = self._fs.geometry, self._fs.checksums
        size, start = geometry.inode_size, table * geometry.block_size
        at_once = max(1, _AT_ONCE // size)
        for first in range(0, count, at_once):
            number = group * geometry.inodes_per_group + first + 1
            data = read_bytes(self._fs.source, start + first * size, min(at_once, count - first) * size)
            if not any(data) and number >= self._fs.superblock.first_inode:
                continue
            for index in range(len(data) // size):
                raw = data[index * size : (index + 1) * size]
                block, offset = divmod((first + index) * size, geometry.block_size)
                inode = stored_inode(self._fs, number + index, (table + block, offset), raw)
                self._check(inode, is_intact=not any(raw) or checksums.inode_holds(inode.seed, raw))

    def finish(self) -> None:
        self._attributes.check_shared()

    def _check(self, inode: StoredInode, *, is_intact: bool) -> None:
        if not is_intact:
            self._checking.found(FindingKind.INODE, inode, "its checksum is wrong")
        number = inode.number
        if number == layout.ROOT_INODE or self._checking.is_own(number):
            self._check_own(inode)
        elif inode.links or number in self._checking.orphans:
            self._check_file(inode)
        elif inode.mode and not inode.fields["i_dtime"]:
            self._checking.found(FindingKind.INODE, inode, "it has no name and no deletion time")
        elif 0 < inode.fields["i_dtime"] < self._fs.geometry.inodes and self._times_tell_orphans:
            self._checking.found(FindingKind.ORPHAN, inode, "it looks like part of a broken list of orphans")

    @property
    def _times_tell_orphans(self) -> bool:
        """False if the file system's clock is so old that times look like numbers of inodes."""
        times = (self._fs.superblock.number(name) for name in ("s_wtime", "s_mtime", "s_mkfs_time"))
        return not any(0 < time < self._fs.geometry.inodes for time in times)

    def _check_own(self, inode: StoredInode) -> None:
        """Check an inode of the file system itself: its root directory, its journal, quota files, reserved inodes."""
        checking, number = self._checking, inode.number
        if number == layout.ROOT_INODE:
            if inode.kind != layout.DIRECTORY:
                checking.found(FindingKind.INODE, inode, f"its mode is {inode.mode:#o}, and it is not a directory")
            if inode.links:
                self._check_file(inode)
            return
        if self._is_in_force(number):
            checking.inodes.set(number, 0, 0)
        if number == layout.BAD_BLOCKS_INODE:
            self._claim_bad_blocks(inode)
        elif number == layout.RESIZE_INODE:
            self._check_resize_inode(inode)
        elif number in self._files_of_its_own() or self._is_boot_loader(inode):
            if inode.kind != layout.REGULAR_FILE:
                checking.found(
                    FindingKind.INODE, inode, f"its mode is {inode.mode:#o}, expected that of a regular file"
                )
            self._check_blocks(inode, check_map(checking, inode), self._attributes.check(inode)[0])
        elif inode.mode or inode.links or inode.fields["i_blocks_lo"] or any(inode.i_block[:4]):
            text = f"it is reserved and in use, and its mode is {inode.mode:#o}"
            checking.found(FindingKind.INODE, inode, text)

    def _is_boot_loader(self, inode: StoredInode) -> bool:
        return inode.number == layout.BOOT_LOADER_INODE and inode.kind == layout.REGULAR_FILE

    def _is_in_force(self, number: int) -> bool:
        """True if an own inode must be in use: the superblock may name one without its feature."""
        return number < self._fs.superblock.first_inode or number in self._files_of_its_own()

    def _files_of_its_own(self) -> set[int]:
        checking, files = self._checking, set()
        if self._journal:
            files.add(self._journal)
        if checking.has(RoCompat.QUOTA):
            files.update(checking.quota_inodes)
        if checking.has(Compat.ORPHAN_FILE):
            files.add(self._fs.superblock.number("s_orphan_file_inum"))
        return files

    def _claim_bad_blocks(self, inode: StoredInode) -> None:
        if inode.mode or inode.links or inode.xattr_block:
            self._checking.found(FindingKind.INODE, inode, "the list of bad blocks looks like a file")
        if any(inode.i_block):
            check_map(self._checking, inode)

    def _check_resize_inode(self, inode: StoredInode) -> None:
        checking = self._checking
        if not checking.has(Compat.RESIZE_INODE):
            if inode.links or any(inode.i_block):
                checking.found(FindingKind.RESIZE_INODE, inode, "it is in use, but the file system lacks the feature")
            return
        try:
            double = check_resize_inode(self._fs)
        except NotBelievedError as error:
            checking.report.add(FindingKind.RESIZE_INODE, error.reason)
            double = pointers_in(inode.i_block)[layout.DIRECT_BLOCKS + 1]
        if self._fs.geometry.first_data_block <= double < self._fs.geometry.blocks:
            checking.claim(double, double + 1, "the resize inode")

    def _check_file(self, inode: StoredInode) -> None:
        checking = self._checking
        is_orphan = inode.number in checking.orphans
        if inode.fields["i_dtime"] and not is_orphan:
            checking.found(FindingKind.INODE, inode, "it is in use and has a deletion time")
        checking.inodes.set(inode.number, inode.kind, inode.links)
        problem = flag_problem(checking, inode)
        if problem is not None:
            checking.found(FindingKind.INODE, inode, problem)
        clusters, values = self._attributes.check(inode)
        if inode.flags & layout.INLINE_DATA_FLAG:
            self._check_inline(inode)
            found = FoundMap()
        elif inode.kind in (layout.REGULAR_FILE, layout.DIRECTORY) or _is_slow_symlink(inode):
            found = check_map(checking, inode)
        else:
            found = FoundMap()
        self._check_kind(inode, found)
        self._check_blocks(inode, found, clusters, is_orphan=is_orphan)
        self._usage.add(inode, (found.clusters + clusters) * self._cluster_size, 1 + values)

    @property
    def _cluster_size(self) -> int:
        return self._fs.geometry.cluster_blocks * self._fs.geometry.block_size

    def _check_kind(self, inode: StoredInode, found: FoundMap) -> None:
        if inode.kind == layout.SYMLINK:
            problem = symlink_problem(self._fs, inode, found)
        elif inode.kind in (layout.REGULAR_FILE, layout.DIRECTORY):
            problem = None
        else:
            problem = special_problem(inode)
        if problem is not None:
            self._checking.found(FindingKind.INODE, inode, problem)

    def _check_inline(self, inode: StoredInode) -> None:
        def refuse(_number: int, _size: int) -> bytes:
            raise self._fs.not_believed(f"inode {inode.number}: its inline data are in another inode")

        try:
            xattrs = Xattrs(self._fs, refuse)
            if not xattrs.has_inline_data(inode):
                self._checking.found(FindingKind.INODE, inode, "it has no attribute for its inline contents")
                return
            size = len(inode.i_block) + len(xattrs.inline_data(inode))
        except NotBelievedError:
            return  # reported by the check of its attributes
        is_exact = inode.kind == layout.DIRECTORY and inode.size != size
        if is_exact or inode.size > size:
            self._checking.found(FindingKind.INODE, inode, f"it has {inode.size} bytes, but {size} are in the inode")

    def _check_blocks(self, inode: StoredInode, found: FoundMap, others: int, *, is_orphan: bool = False) -> None:
        """Compare size and count of blocks with the findings; others are the attributes' clusters."""
        checking, fs = self._checking, self._fs
        if not found.is_whole:
            return
        if not is_orphan:
            problem = self._size_problem(inode, found)
            if problem is not None:
                checking.found(FindingKind.MAP, inode, problem)
        blocks = (found.clusters + others) * fs.geometry.cluster_blocks
        counted = int(inode.fields["i_blocks_lo"])
        if checking.has(RoCompat.HUGE_FILE):
            counted |= int(inode.fields["i_blocks_high"]) << 32
        is_in_blocks = checking.has(RoCompat.HUGE_FILE) and inode.flags & layout.HUGE_FILE_FLAG
        expected = blocks if is_in_blocks else blocks * (fs.geometry.block_size // 512)
        if counted != expected:
            checking.found(FindingKind.BLOCK_COUNT, inode, f"it counts {counted} blocks, expected {expected}")

    def _size_problem(self, inode: StoredInode, found: FoundMap) -> str | None:
        if inode.flags & layout.INLINE_DATA_FLAG:
            return None
        if inode.kind == layout.DIRECTORY:
            return self._directory_problem(inode.size, found)
        if inode.kind != layout.REGULAR_FILE:
            return None
        size, block_size = inode.size, self._fs.geometry.block_size
        if size < (found.written_end - 1) * block_size and not inode.flags & layout.VERITY_FLAG:
            return f"it has {size} bytes, and data in block {found.written_end - 1} of {block_size} bytes"
        most = (1 << 32) * block_size - 1 if inode.flags & layout.EXTENTS_FLAG else _most_by_pointers(block_size)
        return f"it has {size} bytes, more than its map can have" if size > most else None

    def _directory_problem(self, size: int, found: FoundMap) -> str | None:
        block_size = self._fs.geometry.block_size
        blocks, rest = divmod(size, block_size)
        spare = self._fs.superblock.number("s_prealloc_dir_blocks")
        if not found.end:
            return "it is a directory without blocks"
        if rest or blocks > found.end or found.end - blocks > spare:
            return f"it is a directory of {size} bytes, but has {found.end} blocks of {block_size}"
        if found.has_holes or found.has_unwritten:
            return "blocks of the directory are missing, or were never written"
        if not self._checking.has(Incompat.LARGEDIR) and found.end * block_size > _MOST_OF_DIRECTORY:
            return f"it is a directory of {found.end} blocks"
        return None


def _most_by_pointers(block_size: int) -> int:
    """Return the largest size in bytes of a file with a map of pointers."""
    per_block = block_size // 4
    return (layout.DIRECT_BLOCKS + per_block + per_block**2 + per_block**3) * block_size


def _is_slow_symlink(inode: StoredInode) -> bool:
    """True for a symlink whose target is in a block."""
    return inode.kind == layout.SYMLINK and not 0 < inode.size < len(inode.i_block)
