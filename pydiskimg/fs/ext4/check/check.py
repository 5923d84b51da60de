# SPDX-License-Identifier: MIT
"""Check one file system, from its superblock to its bitmaps."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.check.checking import Checking
from pydiskimg.fs.ext4.check.connections import check_connections, check_links
from pydiskimg.fs.ext4.check.copies import check_copies
from pydiskimg.fs.ext4.check.directories import DirectoryChecker
from pydiskimg.fs.ext4.check.groups import GroupChecker
from pydiskimg.fs.ext4.check.inodes import InodeChecker
from pydiskimg.fs.ext4.check.quota import QuotaUsage
from pydiskimg.fs.ext4.check.report import ExtReport, FindingKind
from pydiskimg.fs.ext4.features import KNOWN_TO_FILES, Compat, Features, Incompat, RoCompat, every
from pydiskimg.fs.ext4.file_system import FileSystem, NotBelievedError, read_file_system
from pydiskimg.fs.ext4.journal import Journal
from pydiskimg.fs.ext4.orphans import orphan_file_problem, orphans
from pydiskimg.fs.ext4.recovery import RecoveredSource, recovered
from pydiskimg.fs.ext4.superblock import parse_superblock
from pydiskimg.protocols import Progress, Source, read_bytes

_KNOWN = Features(KNOWN_TO_FILES.compat, KNOWN_TO_FILES.incompat, every(RoCompat))


def check_ext(source: Source, *, progress: Progress | None = None) -> ExtReport:
    """Check the ext2, ext3 or ext4 at the beginning of source, and return the findings.

    Changes in its journal are included, as mounting would. progress counts inodes. Memory is a bit for each cluster and
    at most 13 bytes for each inode of the groups that have any in use, and about 150 bytes for each group and 100 for
    each directory, each block of attributes and each id with a quota. Raises StorageError as reading does.
    """
    report = ExtReport()
    unknown = _unknown_features(source)
    if unknown is not None:
        report.unchecked.append(unknown)
        return report
    try:
        fs = read_file_system(source, _KNOWN)
    except NotBelievedError as error:
        report.add(FindingKind.SUPERBLOCK, error.reason)
        return report
    try:
        fs = _recovered(fs, report)
        _check(fs, report, progress)
    except NotBelievedError as error:  # further findings would be about blocks that do not belong to the file system
        report.add(FindingKind.JOURNAL, error.reason)
    return report


def _unknown_features(source: Source) -> str | None:
    if source.size < layout.SUPERBLOCK_OFFSET + layout.SUPERBLOCK.size:
        return None
    superblock = parse_superblock(read_bytes(source, layout.SUPERBLOCK_OFFSET, layout.SUPERBLOCK.size))
    if superblock is None:
        return None
    incompat, ro_compat = superblock.features.beyond(_KNOWN)
    if not incompat and not ro_compat:
        return None
    return f"it has features that are not known here (incompat {incompat:#x}, ro_compat {ro_compat:#x})"


def _recovered(fs: FileSystem, report: ExtReport) -> FileSystem:
    """Return the file system as recovery leaves it. Raises NotBelievedError if that cannot be determined."""
    if Compat.HAS_JOURNAL in fs.geometry.features and fs.superblock.journal_inode:
        try:
            journal = Journal(fs)
        except NotBelievedError as error:
            report.add(FindingKind.JOURNAL, error.reason)
            if fs.needs_recovery:
                report.unchecked.append("what its journal holds")
            return fs
        if journal.error:
            report.add(FindingKind.JOURNAL, f"its journal: the kernel has stopped it with error {journal.error}")
        if journal.start and not fs.needs_recovery:
            report.add(FindingKind.JOURNAL, "its journal has changes, although its superblock says that it has none")
    found = recovered(fs, _KNOWN)
    if isinstance(found.source, RecoveredSource):
        report.replayed_blocks = found.source.check_copies()
        report.notes.append(f"it is checked with {report.replayed_blocks} blocks of its journal replayed")
    return found


def _check(fs: FileSystem, report: ExtReport, progress: Progress | None) -> None:
    checking = Checking(fs, report, _orphans(fs, report))
    _check_state(fs, report)
    _check_mount_protection(fs, report)
    check_copies(checking)
    usage = QuotaUsage(checking)
    groups, inodes = GroupChecker(checking), InodeChecker(checking, usage)
    groups.claim_metadata()
    per_group, total = fs.geometry.inodes_per_group, fs.geometry.inodes
    for group, (table, count) in enumerate(groups.tables()):
        if table:
            inodes.check_group(group, table, count)
        if progress is not None:
            progress((group + 1) * per_group, total)
    directories = DirectoryChecker(checking)
    for number in checking.inodes.directories():
        directories.check(number)
    inodes.finish()
    check_connections(checking)
    check_links(checking)
    groups.compare()
    usage.compare()


def _check_state(fs: FileSystem, report: ExtReport) -> None:
    if fs.state & layout.ERROR_FS:
        report.notes.append("the kernel has seen errors in it, and it was not checked since")
    elif not fs.state & layout.VALID_FS and not fs.needs_recovery:
        report.notes.append("it was not unmounted cleanly")
    if Incompat.RECOVER in fs.geometry.features and Compat.HAS_JOURNAL not in fs.geometry.features:
        report.add(FindingKind.SUPERBLOCK, "it needs recovery and has no journal")


def _check_mount_protection(fs: FileSystem, report: ExtReport) -> None:
    if Incompat.MMP not in fs.geometry.features:
        return
    block = fs.superblock.number("s_mmp_block")
    if not fs.geometry.first_data_block < block < fs.geometry.blocks:
        report.add(FindingKind.SUPERBLOCK, f"its multiple mount protection is in block {block}")
        return
    raw = fs.read(block)[: layout.MMP.size]
    fields = layout.MMP.unpack(raw)
    if fields["mmp_magic"] != layout.MMP_MAGIC:
        report.add(FindingKind.SUPERBLOCK, f"block {block} is not one of multiple mount protection")
    elif fs.checksums.active and fields["mmp_checksum"] != fs.checksums.mount_protection(raw):
        report.add(FindingKind.SUPERBLOCK, "the checksum of its multiple mount protection is wrong")
    if fields["mmp_magic"] == layout.MMP_MAGIC and fields["mmp_seq"] != layout.MMP_CLEAN:
        is_changed = fields["mmp_seq"] == layout.MMP_FSCK
        use = "is being checked or changed, or that a check or change was interrupted" if is_changed else "is in use"
        report.notes.append(f"its multiple mount protection says that it {use}")


def _orphans(fs: FileSystem, report: ExtReport) -> frozenset[int]:
    try:
        found = orphans(fs)
    except NotBelievedError as error:
        report.add(FindingKind.ORPHAN, error.reason)
        return frozenset()
    if found:
        report.notes.append(f"{len(found)} files wait to be deleted or truncated, which mounting or e2fsck does")
    problem = orphan_file_problem(fs)
    if problem is not None:
        report.add(FindingKind.ORPHAN, problem)
    return found
