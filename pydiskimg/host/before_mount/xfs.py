# SPDX-License-Identifier: MIT
"""XFS superblocks that need another device, or cost the kernel much memory (xfs_sb.c, xfs_ag.c).

Linux opens no other device by itself for XFS: an external log or a realtime device must be given by mount options,
which are not given here. The kernel's error without them does not explain the cause.
"""

from __future__ import annotations

from pydiskimg.fs.probe.xfs import MAGIC, SUPERBLOCK
from pydiskimg.host.before_mount.reading import Reader

# The kernel keeps 1 to 2 KiB for each. An image of 2 GiB has 4 groups of 512 MiB; this limit allows 64 TiB of such
# groups.
GROUP_LIMIT = 1 << 17


def refusal(read: Reader, read_only: bool) -> str | None:  # noqa: ARG001 - nothing of it depends on that
    """Return why the file system must not be mounted; None if it may be."""
    raw = read(0, SUPERBLOCK.size)
    if len(raw) < SUPERBLOCK.size:
        return None
    fields = SUPERBLOCK.unpack(raw)
    if fields["sb_magicnum"] != MAGIC:
        return None
    if fields["sb_logstart"] == 0:
        return "its log is on another device; expected an internal log"
    if fields["sb_rblocks"] or fields["sb_rextents"]:
        return "it has a realtime device; expected none"
    groups = fields["sb_agcount"]
    if groups > GROUP_LIMIT:
        return (
            f"it has {groups} allocation groups, at most {GROUP_LIMIT} are accepted, because the kernel keeps "
            "each in memory"
        )
    return None
