# SPDX-License-Identifier: MIT
"""The extended attributes of inodes: their entries, hashes and values, and the sharing of blocks and value inodes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.report import FindingKind
from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.file_system import NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, read_inode
from pydiskimg.fs.ext4.xattr_writer import entry_hashes, value_hashes
from pydiskimg.fs.ext4.xattrs import MAX_VALUE, points_back, stored_entries

_PADDING = layout.XATTR_PADDING
_SMALLEST_EXTRA = 4


@dataclass(slots=True)
class SharedBlock:
    """A block of attributes: its count of inodes, the number found, and the space of its values."""

    wanted: int
    found: int
    value_clusters: int
    value_inodes: int


class AttributeChecker:
    """Checks the attributes of inodes one after the other; check_shared() follows the last one."""

    def __init__(self, checking: Checking) -> None:
        self._checking = checking
        self._fs = checking.fs
        self._blocks: dict[int, SharedBlock] = {}
        self._values: dict[int, int] = {}  # references to inodes of values

    def check(self, inode: StoredInode) -> tuple[int, int]:
        """Check the attributes of an inode; return the clusters that count as the inode's, and the number of value
        inodes.
        """
        clusters, inodes = self._in_inode(inode)
        block = inode.xattr_block
        if block:
            shared = self._shared(inode, block)
            if shared is not None:
                clusters, inodes = clusters + 1 + shared.value_clusters, inodes + shared.value_inodes
        return clusters, inodes

    def check_shared(self) -> None:
        """Compare the references found with the counts in blocks and inodes."""
        report = self._checking.report
        for block, shared in self._blocks.items():
            if shared.wanted != shared.found:
                text = f"block {block} of attributes counts {shared.wanted} inodes that share it, found {shared.found}"
                report.add(FindingKind.ATTRIBUTE, text)
        for number, references in self._values.items():
            if self._checking.inodes.kind(number):
                self._checking.inodes.add_names(number, 1)
                try:
                    inode = read_inode(self._fs, number)
                except NotBelievedError:
                    continue  # its checksum was reported
                stored = value_references(inode)
                # Lustre's kind has no count, and these two are equal.
                if stored != references and inode.fields["i_ctime"] != inode.fields["i_atime"]:
                    text = f"it counts {stored} attributes with it as their value, found {references}"
                    self._checking.found(FindingKind.ATTRIBUTE, inode, text)

    def _in_inode(self, inode: StoredInode) -> tuple[int, int]:
        size, room = inode.extra_size, len(inode.raw) - layout.GOOD_OLD_INODE_SIZE
        if room <= 0:
            return 0, 0
        if size and (size < _SMALLEST_EXTRA or size > room or size % _PADDING):
            self._checking.found(
                FindingKind.INODE, inode, f"it has {size} extra bytes, in an inode of {len(inode.raw)}"
            )
            return 0, 0
        start = layout.GOOD_OLD_INODE_SIZE + size
        first = start + layout.XATTR_INODE_HEADER.size
        if first >= len(inode.raw):
            return 0, 0
        if layout.XATTR_INODE_HEADER.unpack(inode.raw, start)["h_magic"] != layout.XATTR_MAGIC:
            return 0, 0
        return self._entries(inode, inode.raw[first:], 0, needs_hash=False)

    def _shared(self, inode: StoredInode, number: int) -> SharedBlock | None:
        fs, checking = self._fs, self._checking
        if not checking.has(Compat.EXT_ATTR):
            checking.found(
                FindingKind.ATTRIBUTE, inode, "has a block of attributes, but the file system lacks the feature"
            )
            return None
        if not fs.geometry.first_data_block <= number < fs.geometry.blocks:
            text = f"its extended attributes are at block {number} of {fs.geometry.blocks}"
            checking.found(FindingKind.ATTRIBUTE, inode, text)
            return None
        known = self._blocks.get(number)
        if known is not None:
            known.found += 1
            return known
        checking.claim(number, number + 1, f"the attributes of inode {inode.number}")
        block = fs.read(number)
        header = layout.XATTR_HEADER.unpack(block)
        known = self._blocks[number] = SharedBlock(int(header["h_refcount"]), 1, 0, 0)
        if header["h_magic"] != layout.XATTR_MAGIC or header["h_blocks"] != 1:
            checking.found(FindingKind.ATTRIBUTE, inode, f"block {number} does not hold extended attributes")
            known.wanted = known.found
            return known
        if fs.checksums.active and header["h_checksum"] != fs.checksums.xattr_block(number, block):
            checking.found(FindingKind.ATTRIBUTE, inode, f"the checksum of block {number} of its attributes is wrong")
        known.value_clusters, known.value_inodes = self._entries(
            inode, block, layout.XATTR_HEADER.size, needs_hash=True
        )
        return known

    def _entries(self, inode: StoredInode, area: bytes, position: int, *, needs_hash: bool) -> tuple[int, int]:
        """Check the entries from position on; return the clusters and the number of value inodes."""
        clusters = inodes = 0
        taken = [(0, position)]
        try:
            for at, end, entry in stored_entries(area, position):
                taken.append((at, end))
                name = area[at + layout.XATTR_ENTRY.size : at + layout.XATTR_ENTRY.size + entry["e_name_len"]]
                if needs_hash and not entry["e_name_index"]:
                    raise ValueError("an extended attribute has a name without a prefix")
                if entry["e_value_inum"]:
                    found = self._value_in_inode(inode, name, entry)
                    clusters, inodes = clusters + found[0], inodes + found[1]
                    continue
                offset, size = entry["e_value_offs"], entry["e_value_size"]
                if offset + size > len(area) or size > MAX_VALUE:
                    raise ValueError(f"it has an extended attribute of {size} bytes at byte {offset}")
                if size:
                    taken.append((offset, offset + -(-size // _PADDING) * _PADDING))
                hashes = entry_hashes(name, area[offset : offset + size])
                if (entry["e_hash"] or needs_hash) and entry["e_hash"] not in hashes:
                    raise ValueError("the hash of an extended attribute is wrong")
            taken.sort()
            if any(one[1] > other[0] for one, other in pairwise(taken)):
                raise ValueError("two of its extended attributes overlap")
        except ValueError as error:
            self._checking.found(FindingKind.ATTRIBUTE, inode, str(error))
        return clusters, inodes

    def _value_in_inode(self, owner: StoredInode, name: bytes, entry: dict[str, int]) -> tuple[int, int]:
        """Check an attribute whose value has its own inode; return the clusters and inodes that count for it."""
        number, size = entry["e_value_inum"], entry["e_value_size"]
        if not self._checking.has(Incompat.EA_INODE):
            raise ValueError("it has an attribute with a value in an inode, but the file system lacks the feature")
        if not self._fs.superblock.first_inode <= number <= self._fs.geometry.inodes:
            raise ValueError(f"the value of an extended attribute is inode {number}")
        self._values[number] = self._values.get(number, 0) + 1
        try:
            value = read_inode(self._fs, number)
        except NotBelievedError:
            return -(-size // (self._fs.geometry.block_size * self._fs.geometry.cluster_blocks)), 1
        if not size or value.size != size:
            raise ValueError(f"inode {number} has {value.size} bytes, while an attribute states {size}")
        if not value.flags & layout.EA_INODE_FLAG:
            raise ValueError(f"inode {number} is not the value of an attribute")
        if entry["e_hash"] not in value_hashes(name, int(value.fields["i_atime"])):
            if points_back(value, owner):
                return 0, 0
            raise ValueError(f"the hash of an attribute with its value in inode {number} is wrong")
        return -(-size // (self._fs.geometry.block_size * self._fs.geometry.cluster_blocks)), 1


def value_references(inode: StoredInode) -> int:
    """Return the count of references in an inode that holds a value."""
    return int(inode.fields["i_ctime"]) << 32 | int(inode.fields["i_version"])
