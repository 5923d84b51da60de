# SPDX-License-Identifier: MIT
"""The blocks of one file: follow its map, claim its clusters, and count them."""

from __future__ import annotations

from dataclasses import dataclass

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.report import FindingKind
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name
from pydiskimg.fs.ext4.map_reader import MapReader


@dataclass(slots=True)
class FoundMap:
    """The result for a map: clusters in all, the block of the file after the last one, and after the last written one.

    has_holes means that blocks before its end are missing, has_unwritten that some were never written.
    """

    clusters: int = 0
    end: int = 0
    written_end: int = 0
    has_holes: bool = False
    has_unwritten: bool = False
    is_whole: bool = True


def check_map(checking: Checking, inode: StoredInode) -> FoundMap:
    """Follow the map of an inode and claim its blocks; damage is reported, and is_whole then False."""
    found, reader, name = FoundMap(), MapReader(checking.fs, inode), inode_name(inode.number)
    geometry = checking.fs.geometry
    try:
        _claim_pieces(checking, reader, name, found)
    except NotBelievedError as error:
        checking.report.add(FindingKind.MAP, error.reason)
        found.is_whole = False
    for block in reader.nodes:
        if geometry.first_data_block <= block < geometry.blocks:
            checking.claim(block, block + 1, name)
            found.clusters += 1
    if found.is_whole and inode.flags & layout.EXTENTS_FLAG:
        problem = _node_problem(checking.fs, inode.i_block, 1 << 32)
        if problem is not None:
            checking.found(FindingKind.MAP, inode, problem)
    return found


def _claim_pieces(checking: Checking, reader: MapReader, name: str, found: FoundMap) -> None:
    first_data, ratio = checking.fs.geometry.first_data_block, checking.fs.geometry.cluster_blocks
    shares = checking.has(RoCompat.SHARED_BLOCKS)
    last_cluster = -1
    for first, at, count, is_written in reader.pieces():
        start, end = at, at + count
        if ratio > 1:  # the pieces of one cluster may arrive one by one
            cluster = (at - first_data) // ratio
            start = first_data + (cluster + (cluster == last_cluster)) * ratio
            last_cluster = (end - 1 - first_data) // ratio
        if start < end:
            found.clusters += -(-(end - start) // ratio)
            if shares:
                checking.claims.claim(start, end)
            else:
                checking.claim(start, end, name)
        found.has_holes = found.has_holes or first > found.end
        found.has_unwritten = found.has_unwritten or not is_written
        found.end = first + count
        found.written_end = found.end if is_written else found.written_end


def _node_problem(fs: FileSystem, node: bytes, end: int) -> str | None:
    """Return the damage of a node of an extent tree that was read before, and of those below it; or None.

    end is the block of the file up to which it may go.
    """
    header = layout.EXTENT_HEADER.unpack(node)
    room = (len(node) - layout.EXTENT_HEADER.size) // layout.EXTENT.size
    if not header["eh_entries"] <= header["eh_max"] <= room or header["eh_max"] + 2 < room:
        return f"a node of its extent tree has room for {header['eh_max']} entries, expected {room}"
    if header["eh_depth"]:
        return _index_problem(fs, node, header["eh_entries"], end)
    if not header["eh_entries"]:
        return None
    last = _entry(node, header["eh_entries"] - 1)
    length = last["ee_len"] - (layout.EXTENT_MAX_LENGTH if last["ee_len"] > layout.EXTENT_MAX_LENGTH else 0)
    return None if last["ee_block"] + length <= end else "an extent goes beyond what its index says"


def _index_problem(fs: FileSystem, node: bytes, count: int, end: int) -> str | None:
    starts = [_entry(node, index)["ee_block"] for index in range(count)]
    for index, start in enumerate(starts):
        entry = layout.EXTENT_INDEX.unpack(node, layout.EXTENT_HEADER.size + index * layout.EXTENT.size)
        below = fs.read(int(entry["ei_leaf_lo"]) | int(entry["ei_leaf_hi"]) << 32)
        if not layout.EXTENT_HEADER.unpack(below)["eh_entries"]:
            return "a node of its extent tree is empty"
        if _entry(below, 0)["ee_block"] != start:
            return f"an index of its extent tree says block {start}, but its node begins with another"
        problem = _node_problem(fs, below, starts[index + 1] if index + 1 < count else end)
        if problem is not None:
            return problem
    return None


def _entry(node: bytes, index: int) -> dict[str, int]:
    return layout.EXTENT.unpack(node, layout.EXTENT_HEADER.size + index * layout.EXTENT.size)
