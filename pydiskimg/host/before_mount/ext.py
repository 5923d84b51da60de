# SPDX-License-Identifier: MIT
"""Effects of an ext2, ext3 or ext4 superblock on Linux besides using its own device (fs/ext4/super.c, mmp.c)."""

from __future__ import annotations

import logging

from pydiskimg.fs.ext4.features import Compat, Incompat
from pydiskimg.fs.ext4.layout import MMP, MMP_CLEAN, MMP_FSCK, MMP_MAGIC, SUPERBLOCK, SUPERBLOCK_OFFSET
from pydiskimg.fs.ext4.superblock import MAX_LOG_BLOCK_SIZE, Superblock, parse_superblock
from pydiskimg.fs.probe.kind import label_text
from pydiskimg.host.before_mount.reading import Reader

logger = logging.getLogger(__name__)

# Options that tune2fs may have put into the superblock (s_mount_opts) and that concern only the guest's own data. Not
# included: journal_dev and journal_path (another device), max_batch_time (seconds at each fsync), and all new ones.
_HARMLESS_OPTIONS = frozenset(
    (
        *("acl", "noacl", "user_xattr", "nouser_xattr", "barrier", "nobarrier", "data", "commit", "errors"),
        *("delalloc", "nodelalloc", "auto_da_alloc", "noauto_da_alloc", "discard", "nodiscard"),
        *("journal_checksum", "nojournal_checksum", "block_validity", "bsddf", "minixdf"),
    )
)

_MMP_SHORTEST = 5  # seconds
# A killed guest leaves an interval of 5 or 10 seconds, for which the kernel waits 22 or 42.
MMP_WAIT_LIMIT = 60  # seconds

# The kernel keeps about 250 bytes for each group. 2^21 groups of the usual size are 16 TiB with blocks of 1 KiB, and
# 256 TiB with blocks of 4 KiB.
GROUP_LIMIT = 1 << 21


def refusal(read: Reader, read_only: bool) -> str | None:
    """Return why the file system must not be mounted; None if it may be."""
    superblock = parse_superblock(read(SUPERBLOCK_OFFSET, SUPERBLOCK.size))
    if superblock is None:
        return None
    # Also for a read-only mount, where noload keeps the kernel from opening the journal: such a guest is refused early.
    reason = _journal(superblock) or _mount_options(superblock) or _groups(superblock)
    return reason if reason or read_only else _mmp(read, superblock)


def _journal(superblock: Superblock) -> str | None:
    if Incompat.JOURNAL_DEV in superblock.features:
        return "it is the journal of a file system, not a file system"
    if Compat.HAS_JOURNAL not in superblock.features:
        return None
    inside = "give it a journal of its own (tune2fs -O ^has_journal, then tune2fs -j)"
    device = superblock.number("s_journal_dev")
    if device:
        major, minor = device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00
        return (
            f"its journal is on another device (s_journal_dev is block device {major}:{minor}), which the kernel would "
            f"open and write to; {inside}"
        )
    return None if superblock.journal_inode else f"its journal is on another device, whose number is unknown; {inside}"


def _mount_options(superblock: Superblock) -> str | None:
    text = label_text(superblock.fields["s_mount_opts"])
    for option in (text or "").split(","):
        name = option.partition("=")[0]
        if name and name not in _HARMLESS_OPTIONS:
            return (
                f"its superblock requests the mount option '{option}', which may concern more than its own data; "
                "remove it (tune2fs -E mount_opts=)"
            )
    return None


def _groups(superblock: Superblock) -> str | None:
    per_group = superblock.number("s_blocks_per_group") or 1
    groups = -(-superblock.blocks // per_group)
    if groups <= GROUP_LIMIT:
        return None
    return (
        f"it has {groups} block groups of {per_group} blocks, at most {GROUP_LIMIT} are accepted, because the kernel "
        "keeps each in memory"
    )


def _mmp(read: Reader, superblock: Superblock) -> str | None:
    if Incompat.MMP not in superblock.features:
        return None
    offset = superblock.number("s_mmp_block") * (1024 << min(superblock.number("s_log_block_size"), MAX_LOG_BLOCK_SIZE))
    raw = read(offset, MMP.size) if offset < 1 << 62 else b""
    if len(raw) < MMP.size:
        return None
    block = MMP.unpack(raw)
    sequence = block["mmp_seq"]
    if block["mmp_magic"] != MMP_MAGIC or sequence == MMP_CLEAN:
        return None
    clear = "if no machine uses it, clear that (tune2fs -f -E clear_mmp) and check it (e2fsck -f)"
    if sequence == MMP_FSCK:
        said = "it is being checked or changed, or that a check or change was interrupted"
        return f"its multiple mount protection says that {said}; {clear}"
    longest = max(_MMP_SHORTEST, block["mmp_check_interval"], superblock.number("s_mmp_interval"))
    seconds = 2 * min(2 * longest + 1, longest + 60)
    if seconds > MMP_WAIT_LIMIT:
        return (
            f"its multiple mount protection says that it is in use, and the kernel would wait {seconds} seconds to "
            f"find out (the limit is {MMP_WAIT_LIMIT}); {clear}"
        )
    logger.info("multiple mount protection was not left cleanly: the kernel waits %d seconds before it mounts", seconds)
    return None
