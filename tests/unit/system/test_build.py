# SPDX-License-Identifier: MIT
"""A disk built from entries: what is written for its system, what is refused in time, reproducible bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import ArchiveError, BootLoaderError, DoesNotFitError, FileSystemError, NoSpaceError
from pydiskimg.files.entry import Entry
from pydiskimg.fs.probe import probe
from pydiskimg.fs.swap import swap_used
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import read_bytes
from pydiskimg.regions.region import Region
from pydiskimg.system.build import BuiltSystem, SystemOptions, build_system
from pydiskimg.units import MIB
from pydiskimg.volumes.tree import open_tree
from tests.fixtures.grub_files import grub_files
from tests.fixtures.made_entries import NOW, ONE, folder, regular
from tests.fixtures.small_system import OLD_NAME, entries_of, system_entries, system_files

SIZE = 40 * MIB


def built(entries: Iterator[Entry], **options: Any) -> tuple[MemoryDisk, BuiltSystem]:
    disk = MemoryDisk(SIZE)
    return disk, build_system(disk, entries, SystemOptions(**options))


def test_the_system_finds_its_disk_and_boots() -> None:
    disk, made = built(system_entries(), host_name="new.example.org", serial_console=True, kernel_args="quiet")
    uuid = str(made.uuids.root)
    assert (made.not_bootable, made.uuids.swap, made.uuids.boot) == ("", None, None)
    with open_tree(disk) as tree:
        assert f"UUID={uuid} / ext4 errors=remount-ro 0 1\nproc /proc proc" in tree.read("/etc/fstab").decode()
        assert tree.read("/etc/hostname") == b"new\n"
        assert b"127.0.1.1\tnew.example.org new\n" in tree.read("/etc/hosts")
        menu = tree.read("/boot/grub/grub.cfg").decode()
        assert f"root=UUID={uuid} ro console=tty0 console=ttyS0,115200n8 quiet" in menu
        assert tree.read("/boot/grub/i386-pc/ext2.mod") == grub_files()["ext2.mod"]
    assert read_bytes(disk, 0x180, 4) == b"GRUB"
    assert read_bytes(disk, 512, 400) == grub_files()["diskboot.img"][:400]
    (partition,) = read_partition_table(disk)
    content = probe(Region(disk, partition.start, partition.length))
    assert content is not None
    assert content.uuid == uuid


@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_the_same_entries_give_the_same_bytes(table: str) -> None:
    options: dict[str, Any] = {
        "uuid": ONE,
        "now": NOW,
        "swap_size": MIB,
        "table": table,
        "host_name": "new",
        "serial_console": True,
    }
    first, made = built(system_entries(), **options)
    again, _ = built(system_entries(), **options)
    assert read_bytes(first, 0, SIZE) == read_bytes(again, 0, SIZE)
    other, unlike = built(system_entries(), **{**options, "uuid": UUID(int=7)})
    assert read_bytes(first, 0, SIZE) != read_bytes(other, 0, SIZE)
    assert made.uuids.swap != unlike.uuids.swap


def test_swap_is_made_and_named() -> None:
    disk, made = built(system_entries(), swap_size=2 * MIB)
    swap, _ = read_partition_table(disk)
    assert isinstance(swap_used(Region(disk, swap.start, swap.length)), list)
    with open_tree(disk) as tree:
        assert f"UUID={made.uuids.swap} none swap sw 0 0\n" in tree.read("/etc/fstab").decode()


def test_boot_has_a_partition_of_its_own() -> None:
    disk, made = built(system_entries(), boot_size=10 * MIB, swap_size=MIB, table="gpt")
    partitions = read_partition_table(disk)
    assert [partition.length // MIB for partition in partitions] == [1, 10, 1, 26]
    root, boot = str(made.uuids.root), str(made.uuids.boot)
    with open_tree(disk, partition=2) as tree:
        assert tree.exists("/vmlinuz-6.1.0-9-amd64")
        assert tree.exists("/grub/i386-pc/ext2.mod")
        menu = tree.read("/grub/grub.cfg").decode()
        assert f"--set=root {boot}" in menu
        assert f"linux /vmlinuz-6.1.0-9-amd64 root=UUID={root} ro" in menu
    with open_tree(disk, partition=4) as tree:
        assert list(tree.list("/boot")) == []
        assert f"UUID={boot} /boot ext4 defaults 0 2\n" in tree.read("/etc/fstab").decode()


def test_a_boot_too_small_is_refused_with_what_to_do() -> None:
    with pytest.raises(DoesNotFitError, match=r"7340032 bytes .* for /boot; expected"):
        built(system_entries(), boot_size=7 * MIB)
    large = [folder("etc"), regular("boot/vmlinuz-1", bytes(9 * MIB))]
    with pytest.raises(NoSpaceError, match="make the partition of /boot larger"):
        built(iter(large), boot_size=8 * MIB)


def test_what_is_not_named_keeps_its_name() -> None:
    disk, _ = built(system_entries())
    with open_tree(disk) as tree:
        assert tree.read("/etc/hostname") == b"old\n"
        assert OLD_NAME in tree.read("/etc/hosts").decode()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (system_entries(kernel=False), "the system has no kernel in /boot"),
        (system_entries(grub=False), "the system has no /usr/lib/grub/i386-pc; add the package grub-pc-bin"),
    ],
)
def test_a_system_that_cannot_boot_by_itself_becomes_a_disk_all_the_same(entries: Iterator[Entry], words: str) -> None:
    disk, made = built(entries)
    assert words in made.not_bootable
    assert read_bytes(disk, 0x180, 4) != b"GRUB"
    with open_tree(disk) as tree:
        assert tree.exists("/etc/fstab")
        assert not tree.exists("/boot/grub")


def test_without_a_boot_loader_nothing_is_said_of_one() -> None:
    disk, made = built(system_entries(), boot_loader=False)
    assert made.not_bootable == ""
    with open_tree(disk) as tree:
        assert not tree.exists("/boot/grub")


def test_a_grub_that_is_not_known_is_refused() -> None:
    disk = MemoryDisk(SIZE)
    with pytest.raises(BootLoaderError, match=r"kernel\.img"):
        build_system(disk, entries_of(system_files(kernel_img=b"another")))
    assert read_partition_table(disk) == []


def test_what_is_not_a_system_is_refused_and_gets_no_table() -> None:
    disk = MemoryDisk(SIZE)
    with pytest.raises(ArchiveError, match="has no directory /etc, so it is not the root of a Linux system"):
        build_system(disk, iter([folder("home"), regular("etc")]))
    assert read_partition_table(disk) == []


def test_a_disk_too_small_is_refused_before_anything_is_lost() -> None:
    disk = MemoryDisk(6 * MIB)
    disk.write(0, b"kept")
    with pytest.raises(DoesNotFitError, match=r"5242880 bytes .* for the root file system; expected"):
        build_system(disk, system_entries())
    assert read_bytes(disk, 0, 4) == b"kept"


def test_what_a_file_system_cannot_hold_is_refused_before_anything_is_lost() -> None:
    disk = MemoryDisk(SIZE)
    disk.write(0, b"kept")
    with pytest.raises(FileSystemError, match="the time 17179869184 is outside of"):
        build_system(disk, system_entries(), SystemOptions(now=1 << 34))
    assert read_bytes(disk, 0, 4) == b"kept"


def test_a_damaged_first_entry_is_found_before_anything_is_lost() -> None:
    def damaged() -> Iterator[Entry]:
        raise ArchiveError("damaged")
        yield

    disk = MemoryDisk(SIZE)
    disk.write(0, b"kept")
    with pytest.raises(ArchiveError, match="damaged"):
        build_system(disk, damaged())
    assert read_bytes(disk, 0, 4) == b"kept"


def test_a_system_larger_than_the_disk_is_refused() -> None:
    disk = MemoryDisk(16 * MIB)
    large = regular("etc/large", bytes(20 * MIB))
    with pytest.raises(NoSpaceError, match=r"entry etc/large: .*; use a larger disk"):
        build_system(disk, iter([folder("etc"), large]))
    assert read_partition_table(disk) == []


@pytest.mark.parametrize("name", ["a_b", "-a", "a.", "a..b", "a/b", "a" * 64, ".".join(["a" * 63] * 4), "a\nb", "ä"])
def test_what_is_not_a_host_name_is_refused(name: str) -> None:
    disk = MemoryDisk(SIZE)
    with pytest.raises(ValueError, match="is not a host name"):
        build_system(disk, system_entries(), SystemOptions(host_name=name))
    assert read_bytes(disk, 0, SIZE) == bytes(SIZE)
