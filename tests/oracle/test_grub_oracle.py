# SPDX-License-Identifier: MIT
"""What GRUB's own programs make of the same files is the same, byte for byte."""

from __future__ import annotations

import lzma
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydiskimg.boot import CoreImage, Grub, find_core_area, make_core, read_grub, write_boot_loader
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.make import Content, NewPartition, plan_partition_table
from pydiskimg.units import MIB
from tests.conftest import need
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

DIRECTORY = Path("/usr/lib/grub/i386-pc")
CONFIG = "search.fs_uuid 0123abcd-0123-4567-89ab-0123456789ab root\nset prefix=($root)'/boot/grub'\n"
PREFIX = "(,msdos3)/boot/grub"
SMALL = ("biosdisk", "part_msdos", "ext2", "search_fs_uuid")
MODULES = [
    SMALL,
    ("biosdisk", "part_gpt", "ext2", "search_fs_uuid"),
    ("biosdisk", "part_gpt", "xfs", "search_fs_uuid"),
    ("biosdisk", "part_gpt", "btrfs", "search_fs_uuid"),
    ("biosdisk", "part_msdos", "luks", "lvm", "zfs", "cryptodisk", "gcry_sha512", "raid6rec"),
    ("normal", "configfile", "linux", "gfxterm", "biosdisk"),
]


@pytest.fixture
def grub(tmp_path: Path) -> Iterator[Grub]:
    need((DIRECTORY / "boot.img").exists(), "grub-pc-bin is not installed")
    root = tmp_path / "guest"
    shutil.copytree(DIRECTORY, root / DIRECTORY.relative_to("/"))
    with open_mounted_tree(root) as tree:
        found = read_grub(tree)
        assert found is not None
        yield found


def core_of(grub: Grub, modules: tuple[str, ...], config: str = CONFIG) -> CoreImage:
    return make_core(grub, modules, config=config, prefix=PREFIX)


def payload(core: bytes) -> bytes:
    code = (DIRECTORY / "lzma_decompress.img").stat().st_size
    compressed, uncompressed = struct.unpack_from("<II", core, 512 + 8)
    filters = [{"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 1 << 16}]
    start = 512 + code
    raw = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(
        core[start : start + compressed], uncompressed
    )
    assert len(raw) == uncompressed
    return raw


@pytest.mark.parametrize(
    ("modules", "config"),
    [*((modules, CONFIG) for modules in MODULES), (SMALL, ""), (SMALL, "xxx"), (SMALL, "xxxx")],
)
def test_the_payload_is_that_of_grub_mkimage(
    grub: Grub, tmp_path: Path, tool: Callable[[str], str], modules: tuple[str, ...], config: str
) -> None:
    (tmp_path / "config").write_text(config)
    theirs = tmp_path / "core.img"
    run(
        *(tool("grub-mkimage"), "-O", "i386-pc", "-d", str(DIRECTORY), "-p", PREFIX, "-c", str(tmp_path / "config")),
        *("-o", str(theirs), *modules),
    )
    core = core_of(grub, modules, config)
    ours, expected = core.at(1), theirs.read_bytes()
    assert payload(ours) == payload(expected)
    code = 512 + (DIRECTORY / "lzma_decompress.img").stat().st_size
    assert ours[:500] == expected[:500]
    assert ours[528:code] == expected[528:code]  # but for both sizes


@pytest.mark.root
@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_the_first_mebibytes_are_those_of_grub_bios_setup(
    grub: Grub, tmp_path: Path, tool: Callable[[str], str], label: str
) -> None:
    """It gets our core image; it finds the disk of its own directory, on a file system of its own, by its map."""
    core = core_of(grub, SMALL)
    disks = [tmp_path / "ours", tmp_path / "theirs"]
    table = plan_partition_table(64 * MIB, 512, [NewPartition(Content.LINUX)], label=label)
    for path in disks:
        with path.open("wb") as file:
            file.truncate(table.disk_size)
        with open_disk(path, writable=True) as disk:
            table.with_boot_code(b"\0" * 439 + b"\1").write(disk)  # instead of libparted's
            disk.zero(439, 1)
            disk.flush()
    with open_disk(disks[0], writable=True) as disk:
        write_boot_loader(disk, core, find_core_area(disk), grub)
    _bios_setup(tool, core, disks[1], tmp_path)
    ours, theirs = (path.read_bytes() for path in disks)
    assert ours[:512] == theirs[:512]
    assert ours == theirs


def _bios_setup(tool: Callable[[str], str], core: CoreImage, disk: Path, tmp_path: Path) -> None:
    program = DIRECTORY / "grub-bios-setup"
    command = str(program) if program.exists() else tool("grub-bios-setup")
    files = tmp_path / "files"
    with files.open("wb") as file:
        file.truncate(8 * MIB)
    with open_disk(files, writable=True) as below:
        make_ext(below, kind="ext2", label="files")
        with loop_device(below.fd, length=8 * MIB) as loop, mounted(loop.path, fs_type="ext2") as directory:
            shutil.copy(DIRECTORY / "boot.img", directory)
            (Path(directory) / "core.img").write_bytes(core.first + core.rest)
            (tmp_path / "map").write_text(f"(hd0) {disk}\n(hd1) {loop.path}\n")
            run(command, "-f", "--no-rs-codes", "-m", str(tmp_path / "map"), "-d", directory, "(hd0)")
