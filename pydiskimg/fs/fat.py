# SPDX-License-Identifier: MIT
"""The on-disk structures of FAT12, FAT16 and FAT32 (Microsoft FAT specification, 2000); little-endian."""

from __future__ import annotations

from pydiskimg.records import Record

_BPB = """
    000 3s   BS_jmpBoot
    003 8s   BS_OEMName
    00b H    BPB_BytsPerSec
    00d B    BPB_SecPerClus
    00e H    BPB_RsvdSecCnt
    010 B    BPB_NumFATs
    011 H    BPB_RootEntCnt     0 in FAT32
    013 H    BPB_TotSec16       0: see BPB_TotSec32
    015 B    BPB_Media
    016 H    BPB_FATSz16        0 in FAT32
    018 H    BPB_SecPerTrk
    01a H    BPB_NumHeads
    01c I    BPB_HiddSec        sectors of the disk before the volume
    020 I    BPB_TotSec32
"""
BOOT_SECTOR = Record("FAT12 and FAT16 boot sector", "<", 512, _BPB + """
    024 B    BS_DrvNum
    025 B    BS_Reserved1
    026 B    BS_BootSig         0x29: the next three fields are there; 0x28: the next one
    027 I    BS_VolID
    02b 11s  BS_VolLab
    036 8s   BS_FilSysType
    03e 448s BS_BootCode
    1fe 2s   Signature_word
""")  # fmt: skip
FAT32_BOOT_SECTOR = Record("FAT32 boot sector", "<", 512, _BPB + """
    024 I    BPB_FATSz32
    028 H    BPB_ExtFlags
    02a H    BPB_FSVer
    02c I    BPB_RootClus
    030 H    BPB_FSInfo         sector; 0: none
    032 H    BPB_BkBootSec
    034 12s  BPB_Reserved
    040 B    BS_DrvNum
    041 B    BS_Reserved1
    042 B    BS_BootSig
    043 I    BS_VolID
    047 11s  BS_VolLab
    052 8s   BS_FilSysType
    05a 420s BS_BootCode32
    1fe 2s   Signature_word
""")  # fmt: skip
SIGNATURE_WORD = b"\x55\xaa"
FSINFO = Record("FSInfo sector", "<", 512, """
    000 4s   FSI_LeadSig
    004 480s FSI_Reserved1
    1e4 4s   FSI_StrucSig
    1e8 I    FSI_Free_Count
    1ec I    FSI_Nxt_Free
    1f0 12s  FSI_Reserved2
    1fc 4s   FSI_TrailSig
""")  # fmt: skip
ENTRY = Record("directory entry", "<", 32, """
     0  11s  DIR_Name
     b  B    DIR_Attr
     c  B    DIR_NTRes
     d  B    DIR_CrtTimeTenth
     e  H    DIR_CrtTime
    10  H    DIR_CrtDate
    12  H    DIR_LstAccDate
    14  H    DIR_FstClusHI
    16  H    DIR_WrtTime
    18  H    DIR_WrtDate
    1a  H    DIR_FstClusLO
    1c  I    DIR_FileSize
""")  # fmt: skip
# Precedes the entry of a file; the last part of the name comes first.
LONG_NAME = Record("entry of a long name", "<", 32, """
     0  B    LDIR_Ord           number of the part from 1; 0x40 is added to the last part's
     1  10s  LDIR_Name1
     b  B    LDIR_Attr          0x0f
     c  B    LDIR_Type
     d  B    LDIR_Chksum        of the short name
     e  12s  LDIR_Name2
    1a  H    LDIR_FstClusLO
    1c  4s   LDIR_Name3
""")  # fmt: skip
VOLUME_ID, DIRECTORY, ARCHIVE, LONG = 0x08, 0x10, 0x20, 0x0F  # DIR_Attr
LONG_MASK = 0x3F
DELETED = 0xE5  # the first byte of DIR_Name
