# SPDX-License-Identifier: MIT
"""The types of what fs.probe does not read, spelled as blkid spells them, by their signatures alone."""

from __future__ import annotations

from pydiskimg.fs.signatures import signature_name, stranger
from pydiskimg.protocols import Source

# Other owners of which the partition is a part. Linux looks for these before file systems.
_MEMBERS = {
    **{f"a member of a RAID (md {version})": "linux_raid_member" for version in ("0.90", "1.0", "1.1", "1.2")},
    "a member of a RAID (DDF)": "ddf_raid_member",
    "a member of a RAID (Intel)": "isw_raid_member",
    "ZFS": "zfs_member",
    "bcache or bcachefs": "bcache",
    "DRBD": "drbd",
    "BitLocker": "BitLocker",
    "VDO": "vdo",
    "Stratis": "stratis",
    "Ceph BlueStore": "ceph_bluestore",
    "dm-integrity": "DM_integrity",
    "dm-verity": "DM_verity_hash",
}
_FILE_SYSTEMS = {
    "APFS": "apfs",
    "cramfs": "cramfs",
    "EROFS": "erofs",
    "exFAT": "exfat",
    "F2FS": "f2fs",
    "GFS2": "gfs2",
    "HFS": "hfs",
    "HFS+": "hfsplus",
    "ISO 9660": "iso9660",
    "JFS": "jfs",
    "Minix": "minix",
    "NILFS2": "nilfs2",
    "NTFS": "ntfs",
    "OCFS2": "ocfs2",
    "reiserfs": "reiserfs",
    "romfs": "romfs",
    "squashfs": "squashfs",
    "UBIFS": "ubifs",
    "UDF": "udf",
}
OTHER_FILE_SYSTEMS = frozenset(_FILE_SYSTEMS.values())


def member_type(source: Source) -> str | None:
    """Return the type of the RAID, pool or cache that source is a member of; None where it is not a member.

    A file system that fs.probe finds there is then that of the whole, or an old one. Raises StorageError as reading.
    """
    return _MEMBERS.get(stranger(source) or "")


def other_type(source: Source) -> str | None:
    """Return the type that the first known signature on source stands for, None where it stands for none.

    What the signature begins may be damaged or old. Raises StorageError as reading does.
    """
    name = signature_name(source) or ""
    return _MEMBERS.get(name) or _FILE_SYSTEMS.get(name)
