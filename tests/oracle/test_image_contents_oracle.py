# SPDX-License-Identifier: MIT
"""Files of other programs are recognised and named, and what mkfs writes counts as a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydiskimg.images.contents import Sort, file_contents
from pydiskimg.images.raw import open_raw
from tests.fixtures.block_devices import filled_file
from tests.fixtures.qcow2_images import run

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return filled_file(tmp_path / "disk.raw", 16 * MIB)


def contents(path: Path) -> tuple[Sort, str] | None:
    with open_raw(path) as source:
        found = file_contents(source)
    return None if found is None else (found.sort, found.what)


@pytest.mark.parametrize(
    ("form", "options", "sort", "what"),
    [
        ("qcow2", "compat=1.1", Sort.QCOW2, "a qcow2 image"),
        ("qcow2", "compat=0.10", Sort.QCOW2, "a qcow2 image"),
        ("qcow", "", Sort.IMAGE, "a qcow image of version 1"),
        ("qed", "", Sort.IMAGE, "a QED image"),
        ("vdi", "", Sort.IMAGE, "a VDI image"),
        ("vhdx", "", Sort.IMAGE, "a VHDX image"),
        ("vpc", "subformat=dynamic", Sort.IMAGE, "a VHD image"),
        ("vmdk", "subformat=monolithicSparse", Sort.IMAGE, "a VMDK image"),
        ("vmdk", "subformat=streamOptimized", Sort.IMAGE, "a VMDK image"),
        ("vmdk", "subformat=monolithicFlat", Sort.IMAGE, "the text descriptor of a VMDK image"),
        ("parallels", "", Sort.IMAGE, "a Parallels image"),
    ],
)
def test_images_of_qemu(disk: Path, tmp_path: Path, form: str, options: str, sort: Sort, what: str) -> None:
    image = tmp_path / "image"
    run("qemu-img", "convert", "-O", form, *(["-o", options] if options else []), str(disk), str(image))
    assert contents(image) == (sort, what)


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "oldgnu", "pax"])
def test_archives_of_tar(disk: Path, tmp_path: Path, form: str) -> None:
    run("tar", f"--format={form}", "-C", str(tmp_path), "-cf", str(tmp_path / "archive"), disk.name)
    assert contents(tmp_path / "archive") == (Sort.TAR, "a tar archive")


@pytest.mark.parametrize("program", ["gzip", "xz", "bzip2", "zstd"])
def test_compressed(disk: Path, tmp_path: Path, program: str) -> None:
    run(program, "-k", str(disk))
    (made,) = tmp_path.glob("disk.raw.*")
    assert contents(made) == (Sort.COMPRESSED, f"compressed with {program}")


@pytest.mark.parametrize("command", [["mkfs.ext2", "-q"], ["mkfs.ext4", "-q"], ["mkswap"], ["mkfs.vfat"]])
def test_disks_are_no_other_file(tmp_path: Path, command: list[str]) -> None:
    path = filled_file(tmp_path / "disk", 16 * MIB, fill=b"\0")
    run(*command, str(path))
    assert contents(path) is None
