# SPDX-License-Identifier: MIT
"""The boot loader of a system that create or import builds from its files; its GRUB has no code that runs."""

from __future__ import annotations

import lzma
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from pydiskimg.boot import copy_modules, read_grub
from pydiskimg.errors import StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.host.mount import mounted
from pydiskimg.images.open_disk import open_disk
from tests.fixtures.block_devices import beginning, block_device, filled_file
from tests.fixtures.grub_files import DIRECTORY, boot_image, grub_files, write_grub
from tests.fixtures.judges import blkid, inside, partitions
from tests.fixtures.node import Node, last_line
from tests.fixtures.tarballs import DIRECTORY as A_DIRECTORY
from tests.fixtures.tarballs import FILE, SYMLINK, Member, add

pytestmark = pytest.mark.root
MIB = 1 << 20
SIZE = 64 * MIB
NOT_WRITTEN = "boot loader: warning: no boot loader is written, and the instance cannot boot by itself: "


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "a node", **settings())


def settings(**more: str) -> dict[str, str]:
    fixed = {"IMAGE_NAME": "x", "IMAGE_TYPE": "tarball", "ARCH": "x86_64", "SWAP": "no", "BOOT_SIZE": "16"}
    return {**fixed, "IDENTITY": "no", **more}


def tarball(node: Node, *members: Member, grub: dict[str, bytes] | None = None) -> None:
    files = grub_files() if grub is None else grub
    with tarfile.open(node.images / "x-x86_64.tar.gz", "w:gz", compresslevel=1) as archive:
        for member in (("./etc", A_DIRECTORY, b""), *members):
            add(archive, member)
        for name, data in files.items():
            add(archive, (f".{DIRECTORY}/{name}", FILE, data))


def create(node: Node, tmp_path: Path, **environment: str) -> tuple[bytes, str]:
    """Create onto a new disk; returns its first 3 MiB and what was logged."""
    disk = filled_file(tmp_path / "disk", SIZE)
    done = node.create(disk, **environment)
    assert done.returncode == 0, done.stderr
    with disk.open("rb") as file:
        return file.read(3 * MIB), done.stderr


def core_sector(head: bytes) -> int:
    """Where the boot code in the first sector expects the core image; it is all of boot.img but for what differs."""
    image = boot_image()
    assert head[:3] == image[:3]
    assert head[0x68:0x1B8] == image[0x68:0x1B8]
    return int.from_bytes(head[0x5C:0x64], "little")


@pytest.mark.parametrize(("table", "kind"), [("auto", "ext4"), ("mbr", "ext2"), ("gpt", "ext4")])
def test_it_is_written_with_its_modules(node: Node, tmp_path: Path, table: str, kind: str) -> None:
    node.configure(**settings(PARTITION_TABLE=table, FILESYSTEM=kind))
    tarball(node, ("./boot/grub/grub.cfg", FILE, b"menu"))
    head, log = create(node, tmp_path)
    sector = core_sector(head)
    found = partitions(str(tmp_path / "disk"))
    boot = found[1 if table == "gpt" else 0]
    if table == "gpt":
        assert found[0]["type"] == "21686148-6449-6E6F-744E-656564454649"
        assert (found[0]["start"], found[0]["size"]) == (2048, 2048)
    assert sector == (2048 if table == "gpt" else 1)
    core = head[sector * 512 :]
    assert core[:500] == grub_files()["diskboot.img"][:500]
    start, count, _ = struct.unpack("<QHH", core[500:512])
    assert start == sector + 1
    assert any(core[count * 512 : (count + 1) * 512])
    assert not any(core[(count + 1) * 512 : MIB])
    with inside(str(tmp_path / "disk"), boot, tmp_path) as point:
        assert (point / "grub/i386-pc/normal.mod").read_bytes() == grub_files()["normal.mod"]
        assert (point / "grub/grub.cfg").read_bytes() == b"menu"
    assert f"boot loader: GRUB from {DIRECTORY}: its files are in /boot/grub, its core image of " in log


def config_in(core: bytes) -> bytes:
    offset = 512 + len(grub_files()["lzma_decompress.img"])
    filters = [{"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 1 << 16}]
    size, whole = struct.unpack_from("<II", core, 512 + 8)
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(core[offset : offset + size], whole)


@pytest.mark.parametrize(
    ("member", "prefix", "home"),
    [
        (("./boot/grub/grub.cfg", FILE, b""), "/grub", "/grub"),
        (("./boot/grub2/grub.cfg", FILE, b""), "/grub2", "/grub2"),
        (("./boot", SYMLINK, "usr/boot"), "/boot/grub", "/usr/boot/grub"),
    ],
)
def test_it_finds_its_files_by_uuid(node: Node, tmp_path: Path, member: Member, prefix: str, home: str) -> None:
    tarball(node, ("./usr/boot", A_DIRECTORY, b""), member)
    head, _ = create(node, tmp_path)
    disk = str(tmp_path / "disk")
    boot = partitions(disk)[-1 if home.startswith("/usr") else 0]
    raw = config_in(head[512:])
    config = f"search.fs_uuid {blkid(disk, boot, 'UUID')} root\nset prefix=($root)'{prefix}'\n\0"
    assert config.encode() in raw
    assert f"(,msdos{2 if home.startswith('/usr') else 1}){prefix}\0".encode() in raw
    with inside(disk, boot, tmp_path) as point:
        assert (point / home[1:] / "i386-pc/ext2.mod").exists()


def test_an_mbr_on_a_disk_that_is_too_large(node: Node, tmp_path: Path) -> None:
    node.configure(**settings(PARTITION_TABLE="mbr"))
    tarball(node)
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(2 << 40)
    done = node.create(disk)
    assert done.returncode == 1
    assert "PARTITION_TABLE is mbr, which describes disks below 2 TiB; " in last_line(done)
    assert disk.stat().st_blocks == 0


def test_its_menu_boots_the_kernel_that_is_inside(node: Node, tmp_path: Path) -> None:
    node.configure(**settings(KERNEL_ARGS="quiet panic=7"))
    tarball(node, ("./boot/vmlinuz-6.1", FILE, b"a kernel"), ("./boot/initrd.img-6.1", FILE, b"its initrd"))
    _head, log = create(node, tmp_path, INSTANCE_HV_serial_console="True")
    assert "warning" not in log
    disk = str(tmp_path / "disk")
    boot, root = partitions(disk)
    with inside(disk, boot, tmp_path) as point:
        menu = (point / "grub/grub.cfg").read_text()
    for part in ("/vmlinuz-6.1", "/initrd.img-6.1", "quiet panic=7", "console=ttyS0", blkid(disk, boot, "UUID")):
        assert part in menu
    assert f"root=UUID={blkid(disk, root, 'UUID')}" in menu


SCRIPT = """\
#!/bin/sh
dd if="$BLOCKDEV" of="{out}" bs=512 count=2 2>/dev/null
"""


@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_a_script_sees_the_core_image_and_no_code_that_loads_it(node: Node, tmp_path: Path, table: str) -> None:
    node.configure(**settings(PARTITION_TABLE=table))
    tarball(node)
    node.add_script("10-see", SCRIPT.format(out=tmp_path / "seen"))
    head, _ = create(node, tmp_path)
    seen = (tmp_path / "seen").read_bytes()
    assert seen[:440] == bytes(440)
    assert seen[510:512] == b"\x55\xaa"
    if table == "mbr":
        assert seen[512:] == head[512:1024]
        assert any(seen[512:])
    core_sector(head)


def test_a_boot_loader_of_a_scripts_stays(node: Node, tmp_path: Path) -> None:
    tarball(node)
    node.add_script("grub", '#!/bin/sh\nprintf "the script" | dd of="$BLOCKDEV" conv=notrunc 2>/dev/null\n')
    head, _ = create(node, tmp_path)
    assert head[:440] == b"the script".ljust(440, b"\0")
    assert partitions(str(tmp_path / "disk"))[0]["bootable"]


def test_a_script_that_fails_leaves_nothing_that_boots(node: Node, tmp_path: Path) -> None:
    tarball(node)
    node.add_script("10-fail", "#!/bin/sh\nexit 1\n")
    disk = filled_file(tmp_path / "disk", SIZE)
    assert node.create(disk).returncode == 1
    assert beginning(disk, 440) == bytes(440)


def without_boot_loader(head: bytes) -> bool:
    return not any(head[512:MIB]) and head[:2] != b"\xeb\x63"


def test_none(node: Node, tmp_path: Path) -> None:
    tarball(node)
    head, log = create(node, tmp_path, OSP_BOOTLOADER="none")
    assert without_boot_loader(head)
    assert "boot loader" not in log


def test_a_kernel_of_the_nodes(node: Node, tmp_path: Path) -> None:
    tarball(node)
    head, log = create(node, tmp_path, INSTANCE_HV_kernel_path="/boot/vmlinuz")
    assert without_boot_loader(head)
    assert "boot loader" not in log


def test_a_system_without_grub(node: Node, tmp_path: Path) -> None:
    tarball(node, grub={})
    head, log = create(node, tmp_path)
    assert without_boot_loader(head)
    assert f"{NOT_WRITTEN}the system has no /usr/lib/grub/i386-pc; add the package grub-pc-bin (Debian, Ubuntu)" in log


def test_a_system_without_grub_whose_script_brings_it(node: Node, tmp_path: Path) -> None:
    tarball(node, grub={})
    node.add_script("10-nothing", "#!/bin/sh\n")
    _head, log = create(node, tmp_path)
    assert (
        "boot loader: no boot loader is written, so a customisation script must install one: the system has no" in log
    )
    assert "warning" not in log


def test_a_system_for_another_machine(node: Node, tmp_path: Path) -> None:
    node.configure(**settings(ARCH="arm64"))
    tarball(node)
    (node.images / "x-x86_64.tar.gz").rename(node.images / "x-arm64.tar.gz")
    head, log = create(node, tmp_path)
    assert without_boot_loader(head)
    assert f"{NOT_WRITTEN}GRUB for a BIOS is for x86 and x86_64, the system is for arm64" in log


def test_an_unknown_grub(node: Node, tmp_path: Path) -> None:
    tarball(node, grub={**grub_files(), "kernel.img": b"\x7fELF\x02" + bytes(100)})
    disk = filled_file(tmp_path / "disk", SIZE)
    done = node.create(disk)
    assert done.returncode == 1
    assert f"{DIRECTORY}/kernel.img: is not a 32-bit ELF file (found 7f 45 4c 46 02 00 00, " in last_line(done)
    assert "with BOOTLOADER=none the system is installed without it" in last_line(done)
    assert not any(beginning(disk, 512))


def test_a_boot_that_is_full(node: Node, tmp_path: Path) -> None:
    modules = {f"x{number}.mod": os.urandom(MIB) for number in range(9)}
    tarball(node, ("./boot/kernel", FILE, os.urandom(9 * MIB)), grub={**grub_files(), **modules})
    disk = filled_file(tmp_path / "disk", SIZE)
    done = node.create(disk)
    assert done.returncode == 1
    assert f"{disk} partition 1, /grub/i386-pc/x" in last_line(done)
    assert last_line(done).endswith(": cannot be written: no block is free; /boot has 16 MiB; set BOOT_SIZE higher")
    assert not any(beginning(disk, 512))


@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_killed_while_a_script_runs_nothing_boots(node: Node, tmp_path: Path, table: str) -> None:
    node.configure(**settings(PARTITION_TABLE=table))
    tarball(node)
    node.add_script("10-kill", "#!/bin/sh\nkill -9 $PPID\n")
    disk = filled_file(tmp_path / "disk", SIZE)
    assert node.create(disk).returncode == -9
    with disk.open("rb") as file:
        head = file.read(512)
    assert head[:440] == bytes(440)
    assert head[510:] == b"\x55\xaa"


def test_sectors_that_no_bios_boots_from(node: Node, tmp_path: Path) -> None:
    tarball(node)
    with block_device(filled_file(tmp_path / "disk", SIZE), sector_size=4096) as device:
        done = node.create(device)
    assert done.returncode == 0, done.stderr
    assert f"{NOT_WRITTEN}a BIOS boots only from sectors of 512 bytes, those of {device} have 4096" in done.stderr
    with (tmp_path / "disk").open("rb") as file:
        assert file.read(2) != b"\xeb\x63"


@pytest.mark.parametrize("path", ["boot/grub/i386-pc/normal.mod", "boot/grub/i386-pc"])
def test_what_is_immutable_is_named(tmp_path: Path, path: str) -> None:
    image = filled_file(tmp_path / "fs", SIZE)
    with open_disk(image, writable=True) as disk:
        make_ext(disk)
    with block_device(image) as device, mounted(device, fs_type="ext4") as target:
        root = Path(target)
        write_grub(root)
        (root / "boot/grub/i386-pc").mkdir(parents=True)
        (root / "boot/grub/i386-pc/normal.mod").write_bytes(b"old")
        subprocess.run(["chattr", "+i", root / path], check=True)
        with open_mounted_tree(root) as tree:
            grub = read_grub(tree)
            assert grub is not None
            with pytest.raises(StorageError, match=r"/boot/grub/i386-pc/.*\.(mod|lst|sh) .*Operation not permitted"):
                copy_modules(tree, grub, "/boot/grub")
        assert (root / "boot/grub/i386-pc/normal.mod").read_bytes() == b"old"
        subprocess.run(["chattr", "-i", root / path], check=True)
