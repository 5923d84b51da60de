# SPDX-License-Identifier: MIT
"""What an XFS superblock asks for that is not on its own device, or costs the kernel memory (xfs_sb.c, xfs_ag.c).

Linux opens no device by itself for XFS: a log or a realtime part elsewhere has to be given by mount options, which we
do not give. What it says without them does not tell what is wrong.
"""

from __future__ import annotations

from pydiskimg.fs.probe.xfs import MAGIC, SUPERBLOCK
from pydiskimg.host.before_mount.reading import Reader

# The kernel keeps 1 to 2 KiB for each. An image of 2 GiB has 4 of 512 MiB, which reach 64 TiB with so many.
GROUP_LIMIT = 1 << 17


def refusal(read: Reader, read_only: bool) -> str | None:  # noqa: ARG001 - nothing of it depends on that
    """Return why the file system must not be mounted; None when it may be."""
    raw = read(0, SUPERBLOCK.size)
    if len(raw) < SUPERBLOCK.size:
        return None
    fields = SUPERBLOCK.unpack(raw)
    if fields["sb_magicnum"] != MAGIC:
        return None
    if fields["sb_logstart"] == 0:
        return "its log is on another device; one with an internal log is expected"
    if fields["sb_rblocks"] or fields["sb_rextents"]:
        return "it has a realtime device; one without is expected"
    groups = fields["sb_agcount"]
    if groups > GROUP_LIMIT:
        return (
            f"it has {groups} allocation groups, at most {GROUP_LIMIT} are accepted, because the kernel keeps "
            "each in memory"
        )
    return None
