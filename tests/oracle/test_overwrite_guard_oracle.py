# SPDX-License-Identifier: MIT
"""mkfs and mkswap beside wipefs: what libblkid recognises is not overwritten unasked, nor what a copy could repair."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.units import KIB, MIB
from tests.fixtures.programs import Tool, making, run

pytestmark = pytest.mark.oracle

SIZE = 400 * MIB

# How each is made, and whether it is still known when its first signatures, those that wipefs erases, are gone.
MAKERS: dict[str, tuple[str, bool]] = {
    "ext4": ("mke2fs -q -F -t ext4", True),
    "ext2": ("mke2fs -q -F -t ext2 -b 1024", True),
    "ext4, no sparse_super": ("mke2fs -q -F -t ext4 -O ^sparse_super,^resize_inode -b 2048", True),
    "ext4, sparse_super2": ("mke2fs -q -F -t ext4 -O sparse_super2 -E num_backup_sb=1", True),
    "journal": ("mke2fs -q -F -O journal_dev -b 4096", True),
    "journal, 1 KiB": ("mke2fs -q -F -O journal_dev -b 1024", True),
    "xfs": ("mkfs.xfs -q -f", True),
    "xfs, sectors of 4 KiB": ("mkfs.xfs -q -f -s size=4096", True),
    "btrfs": ("mkfs.btrfs -q -f", True),
    "f2fs": ("mkfs.f2fs -q", True),
    "nilfs2": ("mkfs.nilfs2 -q -f", False),
    "jfs": ("mkfs.jfs -q", True),
    "udf": ("mkudffs", True),
    "udf, 2 KiB": ("mkudffs -b 2048", True),
    "exfat": ("mkfs.exfat", True),
    "ntfs": ("mkntfs -F -Q -q", True),
    "vfat, 12": ("mkfs.vfat -F 12 -S 1024 -s 128", False),
    "vfat, 16": ("mkfs.vfat -F 16", False),
    "vfat, 32": ("mkfs.vfat -F 32", True),
    "vfat, sectors of 4 KiB": ("mkfs.vfat -F 32 -S 4096", True),
    "swap": ("mkswap", False),
    "swap, large pages": ("mkswap -p 65536", False),
}


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pydiskimg.cli.signals.end_as_interrupted", lambda: None)
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Try both commands, which leave the disk as it is; return what mkfs says."""
    said = []
    for command in ("mkswap", "mkfs"):
        with path.open("rb") as file:
            before = file.read(MIB)
        status = main((command, str(path)))
        said.append(capsys.readouterr().err)
        assert status == 1, f"{command} has overwritten it"
        assert said[-1].startswith(f"pydiskimg: {path}: ")
        assert said[-1].count("\n") == 1
        assert "; use --force to overwrite it" in said[-1]
        with path.open("rb") as file:
            assert file.read(MIB) == before
    return said[-1]


def recognised(tool: Tool, path: Path) -> set[str]:
    """The types that wipefs would erase."""
    return set(run(tool("wipefs"), "-n", "-O", "TYPE", "--noheadings", path).split())


@pytest.mark.parametrize("name", MAKERS)
def test_what_makers_make(name: str, disk: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    maker, is_known_by_copies = MAKERS[name]
    run(*making(tool, maker), disk)
    assert recognised(tool, disk)
    refused(disk, capsys)
    run(tool("wipefs"), "-q", "-a", "-f", disk)
    assert not recognised(tool, disk)
    if is_known_by_copies:
        assert "looks like" in refused(disk, capsys)
    else:
        assert main(("mkfs", str(disk))) == 0


@pytest.mark.parametrize("label", ["gpt", "dos", "sgi", "sun"])
def test_partition_tables(label: str, disk: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    """A table without partitions was made for some."""
    run(tool("sfdisk"), "-q", disk, given=f"label: {label}\n")
    assert recognised(tool, disk)
    refused(disk, capsys)


@pytest.mark.parametrize("label", ["mac", "bsd", "amiga", "gpt", "dvh"])
def test_partition_tables_of_parted(label: str, disk: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    run(tool("parted"), "-s", disk, "mklabel", label)
    refused(disk, capsys)


def test_lvm_and_luks(disk: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    for version in ("luks1", "luks2"):
        options = ["--batch-mode", "--type", version, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
        run(tool("cryptsetup"), "luksFormat", *options, disk, "-", given="secret")
        assert recognised(tool, disk) == {"crypto_LUKS"}
        refused(disk, capsys)
        with disk.open("r+b") as file:  # the second header of version 2 stays
            file.write(bytes(4 * KIB))
        if version == "luks2":
            assert "looks like LUKS (its signature is at byte 16384)" in refused(disk, capsys)


# Where nothing makes one here, or not without root: what libblkid 2.38 takes for one, as the bytes that it looks at.
END = SIZE
BYTES: dict[str, dict[int, bytes]] = {
    "isw_raid_member": {END - 1024: b"Intel Raid ISM Cfg Sig. 1.1.00"},
    "lsi_mega_raid_member": {END - 512: b"$XIDE$"},
    "promise_fasttrack_raid_member": {END - 63 * 512: b"Promise Technology, Inc."},
    "hpt45x_raid_member": {END - 11 * 512: bytes.fromhex("f316785a")},
    "hpt37x_raid_member": {4608 + 32: bytes.fromhex("f016785a")},
    "adaptec_raid_member": {END - 512: bytes.fromhex("37fc4d1e"), END - 512 + 256: b"DPTM"},
    "jmicron_raid_member": {END - 512: b"JM\2\0" + bytes.fromhex("b4b2")},
    "silicon_medley_raid_member": {END - 512 + 0x60: bytes.fromhex("0000002f"), END - 512 + 0x13E: b"\0\xd1"},
    "nvidia_raid_member": {END - 1024: b"NVIDIA  " + bytes.fromhex("1e000000")},
    "via_raid_member": {END - 512: b"\x55\xaa\1", END - 512 + 50: b"\0"},
    "ddf_raid_member": {END - 512: bytes.fromhex("de11de11")},
    "ceph_bluestore": {0: b"bluestore block device"},
    "drbd": {END - 4096 + 60: bytes.fromhex("8374026b"), END - 4096 + 80: bytes.fromhex("00001000")},
    "drbdmanage_control_volume": {0: b"$DRBDmgr=q\n" + b"0" * 32 + b"\n"},
    "drbdproxy_datalog": {0: b"DRBDdlh*"},
    "LVM1_member": {0: b"HM\1\0"},
    "DM_snapshot_cow": {0: b"SnAp"},
    "DM_verity_hash": {0: b"verity\0\0\1\0\0\0"},
    "DM_integrity": {0: b"integrt\0\1"},
    "VMFS_volume_member": {1 * MIB: bytes.fromhex("0dd001c0")},
    "VMFS": {2 * MIB: bytes.fromhex("5ef1ab2f")},
    "ubi": {0: b"UBI#"},
    "vdo": {0: b"dmvdo001"},
    "BitLocker": {0: b"\xeb\x52\x90-FVE-FS-"},
    "xfs_external_log": {512: b"\xfe\xed\xba\xbe" + bytes(4) + b"\0\0\0\2\0\0\x80\0", 512 + 300: b"\0\0\0\1"},
    "reiserfs": {64 * KIB + 52: b"ReIsEr2Fs", 64 * KIB + 44: b"\0\x10", 64 * KIB + 12: b"\x12"},
    "reiser4": {64 * KIB: b"ReIsEr4"},
    "zfs_member": {slot * KIB: bytes.fromhex("0cb1ba0000000000") for slot in range(128, 256)},
    "hfs": {1024: b"BD" + bytes(18) + b"\0\0\2\0"},
    "hfsplus": {1024: b"H+\0\4" + bytes(36) + b"\0\0\x10\0"},
    "ufs": {8 * KIB + 1372: bytes.fromhex("54190100")},
    "hpfs": {8 * KIB: bytes.fromhex("49e895f9c5e9b7fa"), 8704: bytes.fromhex("491891f9c52929fa")},
    "sysv": {1016: bytes.fromhex("207e18fd")},
    "xenix": {2048: bytes.fromhex("2b5544")},
    "ReFS": {0: b"\0\0\0ReFS\0"},
    "cramfs": {0: bytes.fromhex("453dcd28")},
    "romfs": {0: b"-rom1fs-"},
    "minix": {1024: bytes.fromhex("00040010010001004a00000000fc01107f13")},
    "gfs": {64 * KIB: bytes.fromhex("01161970"), 64 * KIB + 24: bytes.fromhex("0000051d00000579")},
    "gfs2": {64 * KIB: bytes.fromhex("01161970"), 64 * KIB + 24: bytes.fromhex("000007090000076c")},
    "ocfs": {8 * KIB: b"OracleCFS"},
    "ocfs2": {4 * KIB: b"OCFSV2"},
    "oracleasm": {32: b"ORCLDISK"},
    "vxfs": {1024: bytes.fromhex("f5fc01a5")},
    "squashfs": {0: b"hsqs", 28: b"\4\0\0\0"},
    "squashfs3": {0: b"sqsh", 28: b"\0\3"},
    "nss": {4 * KIB: b"SPB5"},
    "ubifs": {0: bytes.fromhex("31181006")},
    "bfs": {0: bytes.fromhex("cefaad1b")},
    "mpool": {0: b"mpoolDev"},
    "zonefs": {0: b"SFOZ"},
    "iso9660": {32 * KIB: b"\1CD001\1"},
    "swsuspend": {4086: b"LINHIB0001"},
    "aix": {0: bytes.fromhex("c9c2d4c1")},
    "ultrix": {16384 - 72: bytes.fromhex("57290300" + "01000000")},
    "atari": {0x1C2: b"\0\1\0\0" + b"\1GEM\0\0\0\2\0\0\1\0"},
}


@pytest.mark.parametrize("name", BYTES)
def test_what_libblkid_takes_for_one(name: str, disk: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    with disk.open("r+b") as file:
        for offset, part in BYTES[name].items():
            file.seek(offset)
            file.write(part)
    assert recognised(tool, disk) in ({name}, set()), "versions after 2.38 look at checksums as well, of more and more"
    refused(disk, capsys)
