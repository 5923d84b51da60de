# SPDX-License-Identifier: MIT
"""The findings of a check of an ext file system: exact counts by kind, and a sentence for each of the first ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

MAX_DETAILS = 20  # sentences of one kind


class FindingKind(StrEnum):
    """The damage, by the structure that has it."""

    SUPERBLOCK = "superblock"
    COPY = "superblock-copy"
    DESCRIPTOR = "group-descriptor"
    JOURNAL = "journal"
    RESIZE_INODE = "resize-inode"
    ORPHAN = "orphan"
    INODE = "inode"
    MAP = "block-map"
    SHARED = "block-claimed-twice"
    BLOCK_COUNT = "block-count"
    ATTRIBUTE = "extended-attribute"
    DIRECTORY = "directory"
    ENTRY = "directory-entry"
    HASHES = "directory-index"
    UNCONNECTED = "unconnected-inode"
    LINK_COUNT = "link-count"
    BLOCK_BITMAP = "block-bitmap"
    INODE_BITMAP = "inode-bitmap"
    FREE_COUNT = "free-count"
    QUOTA = "quota"
    LEAKED_BLOCKS = "leaked-blocks"


LEAKS = frozenset({FindingKind.LEAKED_BLOCKS})


@dataclass(slots=True)
class ExtReport:
    """The result of a check.

    counts has the number of findings of each kind, details a sentence for each of the first of a kind, in the order of
    discovery. unchecked has sentences on parts that could not be checked, notes on facts that are not damage: a journal
    whose replayed_blocks were taken from its log, files that a crash left to be deleted.
    """

    counts: Counter[FindingKind] = field(default_factory=Counter)
    details: list[tuple[FindingKind, str]] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    replayed_blocks: int = 0

    @property
    def errors(self) -> int:
        """Findings that harm or may harm files."""
        return sum(count for kind, count in self.counts.items() if kind not in LEAKS)

    @property
    def leaks(self) -> int:
        """Blocks that are marked as used without need: space is wasted, but no file is harmed."""
        return sum(count for kind, count in self.counts.items() if kind in LEAKS)

    @property
    def is_clean(self) -> bool:
        """True if all was checked and no damage was found."""
        return not self.counts and not self.unchecked

    def add(self, kind: FindingKind, text: str, count: int = 1) -> None:
        """Count findings that one sentence describes."""
        if self.counts[kind] < MAX_DETAILS:
            self.details.append((kind, text))
        self.counts[kind] += count
