# SPDX-License-Identifier: MIT
"""The journal of a file system: where its blocks are, and its superblock, read, changed and made (journal.rst)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from operator import itemgetter

from pydiskimg.crc32c import crc32c
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Incompat
from pydiskimg.fs.ext4.file_map import FileMap, map_by_extents, map_by_pointers
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.inodes import read_inode
from pydiskimg.fs.ext4.map_reader import FilePiece, file_pieces
from pydiskimg.records import Value
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:  # reading a journal needs no allocator
    from pydiskimg.fs.ext4.placement import Placement

_MAX_BLOCKS = 1 << 22
_MAX_PIECES = 1 << 16
_CHECKED = layout.JOURNAL_CSUM_V2 | layout.JOURNAL_CSUM_V3


class Journal:
    """The journal of a file system, found through its inode; fields are those of its superblock.

    start and sequence are the block and the transaction with which its log begins (start is 0 if it is empty); first
    and end limit the blocks that the log may use.
    """

    def __init__(self, fs: FileSystem) -> None:
        """Read its superblock. Raises NotBelievedError if it is not that of a sound journal, and as reading does."""
        self._fs = fs
        self._pieces = self._contiguous()
        self.fields = layout.JOURNAL_SUPERBLOCK.unpack(self.read(0))
        number: Callable[[str], int] = self.fields.__getitem__
        self.start, self.sequence, self.error = number("s_start"), number("s_sequence"), number("s_errno")
        self.first, self.end = number("s_first"), number("s_maxlen")
        self.is_old = number("h_blocktype") == layout.JOURNAL_SUPERBLOCK_V1
        self.incompat = 0 if self.is_old else number("s_feature_incompat")
        self.compat = 0 if self.is_old else number("s_feature_compat")
        self.has_checksums = bool(self.incompat & _CHECKED)
        self.uuid: bytes = self.fields["s_uuid"]
        self._check_superblock()

    def read(self, block: int) -> bytes:
        """Return a block of the journal. Raises NotBelievedError for a block that is not in the journal."""
        return self._fs.read(self.block_of(block))

    def block_of(self, block: int) -> int:
        """Return the file system's block number for a block of the journal; errors as for read()."""
        first, at, count = self._pieces[bisect_right(self._pieces, block, key=itemgetter(0)) - 1]
        if not first <= block < first + count:
            raise self.damaged(f"block {block} is not part of it")
        return at + block - first

    def superblock(self, **changed: int) -> bytes:
        """Return its superblock with other numbers; features among them take effect."""
        fields = {**self.fields, **changed}
        if not self.is_old:
            fields["s_checksum"] = _checksum(fields) if int(fields["s_feature_incompat"]) & _CHECKED else 0
        return layout.JOURNAL_SUPERBLOCK.pack(**fields)

    def damaged(self, what: str) -> NotBelievedError:
        return self._fs.not_believed(f"its journal: {what}")

    def _contiguous(self) -> list[FilePiece]:
        """Return the pieces of the journal's blocks up to the first hole."""
        pieces: list[FilePiece] = []
        inode = read_inode(self._fs, self._fs.superblock.journal_inode)
        for piece in file_pieces(self._fs, inode, _MAX_BLOCKS):
            if piece[0] != (pieces[-1][0] + pieces[-1][2] if pieces else 0):
                break
            pieces.append(piece)
            if len(pieces) > _MAX_PIECES:
                raise self.damaged(f"it is in more than {_MAX_PIECES} pieces")
        if not pieces:
            raise self.damaged("it has no first block")
        return pieces

    def _check_superblock(self) -> None:
        fields, block_size = self.fields, self._fs.geometry.block_size
        versions = (layout.JOURNAL_SUPERBLOCK_V1, layout.JOURNAL_SUPERBLOCK_V2)
        if fields["h_magic"] != layout.JOURNAL_MAGIC or fields["h_blocktype"] not in versions:
            raise self.damaged("its first block is not a superblock of a journal")
        if fields["s_blocksize"] != block_size:
            raise self.damaged(f"its blocks have {fields['s_blocksize']} bytes, not {block_size}")
        blocks = self._pieces[-1][0] + self._pieces[-1][2]
        if not 1 < self.end <= blocks:
            raise self.damaged(f"it has {blocks} blocks, expected {self.end}")
        if self.has_checksums and _checksum(self.fields) != fields["s_checksum"]:
            raise self.damaged("the checksum of its superblock is wrong")


def _checksum(fields: dict[str, Value]) -> int:
    return crc32c(layout.JOURNAL_SUPERBLOCK.pack(**{**fields, "s_checksum": 0}))


def tag_size(incompat: int) -> int:
    """Return the size (bytes) of a tag in the log of a journal with these features; a UUID may follow it."""
    if incompat & layout.JOURNAL_CSUM_V3:
        return layout.JOURNAL_TAG_V3.size
    size = layout.JOURNAL_TAG.size + (2 if incompat & layout.JOURNAL_CSUM_V2 else 0)
    return size if incompat & layout.JOURNAL_64BIT else size - 4


def allocate_journal(geometry: Geometry, placement: Placement, blocks: int, *, first: bool = False) -> FileMap:
    """Allocate the blocks of a new journal: in the middle, where seeks are short, or the first free ones.

    Errors as for Placement.allocate().
    """
    if Incompat.EXTENTS in geometry.features:
        goal = geometry.first_data_block if first else _middle(geometry, placement)
        return map_by_extents(placement, geometry.block_size, goal, blocks)
    return map_by_pointers(placement, geometry.block_size, geometry.first_data_block, blocks)


def _middle(geometry: Geometry, placement: Placement) -> int:
    """Return the first block of a group in the middle of the file system."""
    group = geometry.group_of((geometry.blocks - geometry.first_data_block) // 2)
    if Incompat.FLEX_BG in geometry.features and group > geometry.flex_size:
        group -= group % geometry.flex_size
        group = next((other for other in range(group, geometry.groups) if placement.free_in(other)), 0)
        candidates = range(group, min(group + 2, geometry.groups))
    else:
        candidates = range(max(group - 1, 0), min(group + 2, geometry.groups))
    return geometry.group_start(max(candidates, key=placement.free_in))


def new_journal(block_size: int, blocks: int, uuid: bytes) -> bytes:
    """Return the first block of an empty journal."""
    record = layout.JOURNAL_SUPERBLOCK.pack(
        h_magic=layout.JOURNAL_MAGIC,
        h_blocktype=layout.JOURNAL_SUPERBLOCK_V2,
        s_blocksize=block_size,
        s_maxlen=blocks,
        s_first=1,
        s_sequence=1,
        s_uuid=uuid,
        s_nr_users=1,
    )
    return record.ljust(block_size, b"\0")
