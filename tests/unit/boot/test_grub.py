# SPDX-License-Identifier: MIT
"""GRUB's bytes: what is built from its files, and how a GRUB that is not known is refused."""

from __future__ import annotations

import lzma
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.boot import CoreArea, Grub, grub_home, install_core, make_core, read_grub
from pydiskimg.boot.boot_sector import boot_sector
from pydiskimg.boot.core_image import CoreImage
from pydiskimg.boot.modules import closure, read_dependencies
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import BootLoaderError, DiskImageError, DoesNotFitError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import Tree
from tests.fixtures.grub_files import DIRECTORY, boot_image, decompressor, grub_files, kernel_image, module, write_grub

MODULES = ["biosdisk", "part_msdos", "ext2", "search_fs_uuid"]
CONFIG = "search.fs_uuid 1234 root\nset prefix=($root)'/boot/grub'\n"
PREFIX = "(,msdos1)/boot/grub"
GAP = CoreArea(512, (1 << 20) - 512, is_partition=False)


class FilesOnly(Grub):
    """GRUB's files from memory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.directory = DIRECTORY
        self._contents = dict(files)

    def file(self, name: str) -> bytes:
        if name not in self._contents:
            raise BootLoaderError(f"{self.path(name)}: is missing in the guest")
        return self._contents[name]


def core_of(files: Mapping[str, bytes], modules: list[str] | None = None) -> CoreImage:
    return make_core(FilesOnly(files), modules or MODULES, config=CONFIG, prefix=PREFIX)


@contextmanager
def guest(root: Path, **changed: bytes | None) -> Iterator[Tree]:
    write_grub(root, **changed)
    with open_mounted_tree(root) as tree:
        yield tree


def objects(raw: bytes, start: int) -> list[tuple[int, bytes]]:
    found = []
    while start < len(raw):
        kind, size = struct.unpack_from("<II", raw, start)
        found.append((kind, raw[start + 8 : start + size]))
        start += size
    return found


def test_the_layout_of_a_core_image() -> None:
    files = grub_files()
    core = core_of(files)
    image = core.at(77)
    assert len(image) == core.size
    assert core.size % 512 == 0
    assert image[:500] == files["diskboot.img"][:500]
    assert struct.unpack("<QHH", image[500:512]) == (78, core.size // 512 - 1, 0x820)
    compressed, uncompressed, redundancy = struct.unpack_from("<III", image, 512 + 8)
    code = decompressor()
    assert (image[512:520], image[532 : 512 + len(code)], redundancy) == (code[:8], code[20:], 0)
    unpacker = lzma.LZMADecompressor(
        lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 65536}]
    )
    stream = image[512 + len(code) :][:compressed]
    raw = unpacker.decompress(stream, uncompressed)
    assert len(raw) == uncompressed
    assert image[512 + len(code) + compressed :].strip(b"\0") == b""
    kernel = kernel_image()[128:]
    assert raw.startswith(kernel)
    assert struct.unpack_from("<4sII", raw, len(kernel)) == (b"mimg", 12, len(raw) - len(kernel))
    names = ["biosdisk", "part_msdos", "fshelp", "ext2", "search_fs_uuid"]
    texts = [CONFIG.encode() + b"\0", PREFIX.encode() + b"\0"]
    expected = [*((0, module(name)) for name in names), (2, texts[0]), (3, texts[1])]
    assert objects(raw, len(kernel) + 12) == [(kind, data + bytes(-len(data) % 4)) for kind, data in expected]


def test_the_boot_sector_keeps_what_is_the_disks_own() -> None:
    old = bytes(range(1, 256)) + bytes(range(1, 256)) + b"\x55\xaa"
    sector = boot_sector(FilesOnly(grub_files()), 0x1_2345_6789, old)
    assert sector[0x03:0x5A] == old[0x03:0x5A]
    assert sector[0x1B8:0x1FE] == old[0x1B8:0x1FE]
    assert sector[0x5A:0x68] == bytes.fromhex("0080 8967452301000000 ff fa 9090")
    for kept in (slice(0, 3), slice(0x68, 0x1B8), slice(510, 512)):
        assert sector[kept] == boot_image()[kept]


def test_modules_come_after_what_they_need() -> None:
    dependencies = read_dependencies(grub_files()["moddep.lst"], "moddep.lst")
    assert closure(["btrfs", "gzio", "btrfs"], dependencies, "") == [
        *("zstd", "diskfilter", "raid6rec", "crypto", "lzopio", "gcry_crc", "gzio", "btrfs")
    ]
    assert closure([], dependencies, "") == []


def test_a_chain_of_modules_is_no_recursion() -> None:
    chain = {f"m{number}": (f"m{number + 1}",) for number in range(5000)} | {"m5000": ()}
    assert closure(["m0"], chain, "") == [f"m{number}" for number in range(5000, -1, -1)]


def test_many_ways_through_the_modules_take_no_time() -> None:
    """Each level needs the next one twice: 2**200 ways."""
    levels = {f"m{n}": (f"m{n + 1}", f"x{n + 1}") for n in range(200)} | {f"x{n}": (f"m{n}",) for n in range(201)}
    started = time.monotonic()
    assert len(closure(["m0"], levels | {"m200": ()}, "")) == 401
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (b"a: b\nb: c\nc: a\n", r"moddep.lst: the module a depends on itself"),
        (b"a: a\n", "the module a depends on itself"),
        (b"a: b\n", r"does not list the module b \(found no line, expected b: ...\)"),
        (b"b:\n", "does not list the module a"),
    ],
)
def test_modules_without_an_order(listed: bytes, expected: str) -> None:
    with pytest.raises(BootLoaderError, match=expected):
        closure(["a"], read_dependencies(listed, "moddep.lst"), "moddep.lst")


@pytest.mark.parametrize(
    "line", [b"a", b"", b"../x: y", b"a: ../../etc/shadow", b"a: \xff", b"a/b:", b".: x", b"a:b:c", b"x" * 70 + b":"]
)
def test_a_line_that_is_none_of_modules(line: bytes) -> None:
    with pytest.raises(BootLoaderError, match=r"moddep\.lst:2: is not a line of modules"):
        read_dependencies(b"ext2: fshelp\n" + line + b"\n", "moddep.lst")


def changed(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


KERNEL, BOOT, LOADER, UNPACKER = (
    grub_files()[name] for name in ("kernel.img", "boot.img", "diskboot.img", "lzma_decompress.img")
)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("kernel.img", b"", "is too short for an ELF file"),
        ("kernel.img", changed(KERNEL, 4, b"\x02"), r"is not a 32-bit ELF file \(found 7f 45 4c 46 02"),
        ("kernel.img", changed(KERNEL, 18, b"\x3e"), "is not an executable for i386"),
        ("kernel.img", changed(KERNEL, 24, struct.pack("<I", 0x8200)), "found 0x8200, expected 0x9000"),
        ("kernel.img", changed(KERNEL, 42, b"\x38"), "has program headers of another size"),
        ("kernel.img", changed(KERNEL, 44, b"\xff\xff"), "its program headers do not fit the file"),
        ("kernel.img", changed(KERNEL, 28, b"\xff\xff\xff\xff"), "its program headers do not fit the file"),
        ("kernel.img", changed(KERNEL, 84, b"\1\0\0\0"), r"loaded segments \(found 2, expected 1\)"),
        ("kernel.img", changed(KERNEL, 52, b"\0"), r"loaded segments \(found 0, expected 1\)"),
        ("kernel.img", changed(KERNEL, 60, struct.pack("<I", 0x100000)), "is loaded to another address"),
        ("kernel.img", KERNEL[:-1], "its segment does not fit the file"),
        ("kernel.img", changed(KERNEL, 72, b"\1\0\0\0"), "its segment does not fit the file"),
        ("kernel.img", kernel_image(memory=0x60000), "takes too much memory"),
        ("kernel.img", changed(KERNEL, 130, b"\0"), "its first code moves another number of bytes"),
        ("lzma_decompress.img", UNPACKER[:20], "has another size"),
        ("lzma_decompress.img", UNPACKER + bytes(1000), "at most 3584"),
        ("lzma_decompress.img", changed(UNPACKER, 0, b"\xeb"), r"begins with other code \(found eb, expected ea\)"),
        ("lzma_decompress.img", changed(UNPACKER, 19, b"\1"), "has other bytes at 0x8"),
        ("lzma_decompress.img", changed(UNPACKER, 20, b"\xff\xff"), r"has another length at 0x14 \(found 65535"),
        ("diskboot.img", LOADER[:-1], r"has another size \(found 511, expected 512\)"),
        ("diskboot.img", changed(LOADER, 500, b"\3"), "has another block list"),
        ("diskboot.img", changed(LOADER, 499, b"\1"), "has another end of its block list"),
        ("boot.img", BOOT + b"\0", r"has another size \(found 513"),
        ("boot.img", changed(BOOT, 1, b"\x48"), r"begins with other code \(found eb 48, expected eb 63\)"),
        ("boot.img", changed(BOOT, 0x5C, b"\2"), "has other bytes at 0x5a"),
        ("boot.img", changed(BOOT, 510, b"\0"), "does not end as a boot sector"),
        ("ext2.mod", b"\x7fELF\x02" + bytes(40), "is not a module for i386"),
        ("fshelp.mod", b"", r"is not a module for i386 \(found nothing"),
    ],
)
def test_an_unknown_grub_is_refused_by_name(name: str, data: bytes, expected: str) -> None:
    disk = MemoryDisk(2 << 20)
    grub = FilesOnly({**grub_files(), name: data})
    with pytest.raises(BootLoaderError, match=expected) as raised:
        install_core(disk, make_core(grub, MODULES, config=CONFIG, prefix=PREFIX), GAP, grub)
    assert str(raised.value).startswith(f"{DIRECTORY}/{name}: ")
    assert disk.bytes_written == 0


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with guest(tmp_path, kernel_img=None) as tree:
        grub = read_grub(tree)
        assert grub is not None
        with pytest.raises(BootLoaderError, match=r"i386-pc/kernel\.img: is missing in the guest"):
            make_core(grub, MODULES, config=CONFIG, prefix=PREFIX)


def test_a_tree_without_grub(tmp_path: Path) -> None:
    with guest(tmp_path, boot_img=None) as tree:
        assert read_grub(tree) is None


@pytest.mark.parametrize("path", ["usr/sbin/grub2-install", "boot/grub2/grub.cfg", "usr/sbin/grub-install", None])
def test_the_name_of_its_directory_in_boot(tmp_path: Path, path: str | None) -> None:
    if path:
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    with open_mounted_tree(tmp_path) as tree:
        assert grub_home(tree) == ("grub2" if path and "grub2" in path else "grub")


def test_what_a_bios_leaves_no_memory_for() -> None:
    files = {**grub_files(), "normal.mod": module("normal") + bytes(500_000)}
    with pytest.raises(BootLoaderError, match=r"extcmd, normal has \d+ bytes; a BIOS leaves 454656"):
        core_of(files, ["normal"])


def test_a_gap_that_is_too_small() -> None:
    disk = MemoryDisk(2 << 20)
    grub = FilesOnly(grub_files())
    core = core_of(grub_files())
    with pytest.raises(DoesNotFitError, match="the gap before the first partition has 2048 bytes"):
        install_core(disk, core, CoreArea(512, 2048, is_partition=False), grub)
    assert disk.bytes_written == 0


def test_sectors_that_no_bios_boots_from() -> None:
    disk = MemoryDisk(2 << 20, sector_size=4096)
    grub = FilesOnly(grub_files())
    with pytest.raises(BootLoaderError, match="has sectors of 4096 bytes; a BIOS boots from sectors of 512 bytes only"):
        install_core(disk, core_of(grub_files()), GAP, grub)
    assert disk.bytes_written == 0


MUTABLE = ["boot.img", "diskboot.img", "kernel.img", "lzma_decompress.img", "moddep.lst", "ext2.mod"]


@given(st.sampled_from(MUTABLE), st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=6)), max_size=4), st.data())
def test_mutated_files_are_refused_or_give_an_image(
    name: str, changes: list[tuple[int, bytes]], more: st.DataObject
) -> None:
    data = grub_files()[name]
    for offset, new in changes:
        data = changed(data, min(offset, len(data)), new)
    data = data[: more.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))]
    disk = MemoryDisk(2 << 20)
    grub = FilesOnly({**grub_files(), name: data})
    try:
        core = make_core(grub, MODULES, config=CONFIG, prefix=PREFIX)
        sector = install_core(disk, core, GAP, grub)
    except DiskImageError:
        assert disk.bytes_written == 0
        return
    assert len(sector) == 512
    assert core.size < 1 << 20
