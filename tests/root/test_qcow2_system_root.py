# SPDX-License-Identifier: MIT
"""A Debian system installed into a qcow2 through its Disk: QEMU, sfdisk, e2fsck and the kernel agree on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.regions.region import Region
from tests.archive_trees import picture
from tests.fixtures.debian_system import DebianSystem
from tests.fixtures.judges import blkid, inside, partitions
from tests.fixtures.qcow2_images import run
from tests.fixtures.qcow2_system import MIB, SWAP_SIZE, change_files, install

pytestmark = [pytest.mark.root, pytest.mark.oracle]
Tool = Callable[[str], str]

SIZE = 700 * MIB
ROOT_UUID = UUID("12345678-9abc-4def-8123-456789abcdef")


@pytest.mark.parametrize(("cluster_size", "compress"), [(65536, False), (65536, True), (4096, False), (2 * MIB, True)])
def test_a_system_installed_into_a_qcow2(
    tmp_path: Path, tool: Tool, debian: DebianSystem, cluster_size: int, *, compress: bool
) -> None:
    qcow2, raw = tmp_path / "disk.qcow2", tmp_path / "disk.raw"
    with new_image(qcow2, SIZE, format="qcow2", cluster_size=cluster_size, compress=compress) as disk:
        install(disk, debian.tarball, tmp_path, root_uuid=ROOT_UUID)
    check_image(qcow2, raw)
    found = partitions(str(raw))
    assert [(part["offset"], part["length"], part["type"]) for part in found] == [
        (MIB, SWAP_SIZE, "82"),
        (MIB + SWAP_SIZE, SIZE - MIB - SWAP_SIZE, "83"),
    ]
    assert found[1]["bootable"]
    assert [blkid(str(raw), part, "LABEL") for part in found] == ["swap", "root"]
    assert blkid(str(raw), found[1], "UUID") == str(ROOT_UUID)
    expected = tmp_path / "expected"
    expected.mkdir()
    run(tool("tar"), "--numeric-owner", "-xpf", str(debian.tarball), "-C", str(expected))
    same_files(raw, tmp_path, expected)

    # The image that is there is changed, as it is when a machine gets another name.
    with open_disk(qcow2, writable=True, format="qcow2") as disk:
        planned = read_partition_table(disk, sector_size=disk.sector_size)[1]
        root = Region(disk, planned.start, planned.length)
        change_files(root, tmp_path, lambda directory: change(Path(directory)))
    check_image(qcow2, raw)
    change(expected)
    same_files(raw, tmp_path, expected)


def change(tree: Path) -> None:
    (tree / "etc/hostname").write_text("another.example.org\n")
    next(tree.glob("boot/vmlinuz-*")).unlink()
    (tree / "var/new").write_bytes(bytes(range(256)) * 40000)


def check_image(qcow2: Path, raw: Path) -> None:
    """qemu-img finds it clean, without a leak, and reads what we read; raw is what it reads."""
    run("qemu-img", "check", "-q", "-f", "qcow2", str(qcow2))
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(qcow2), str(raw))
    with open_image(qcow2, format="qcow2") as ours, raw.open("rb") as theirs:
        buffer = bytearray(4 * MIB)
        for offset in range(0, SIZE, len(buffer)):
            ours.read_into(offset, buffer)
            assert theirs.read(len(buffer)) == buffer, f"at {offset}"


def same_files(raw: Path, tmp_path: Path, expected: Path) -> None:
    """The root partition passes e2fsck -fn, and has these files with everything that tar restores."""
    with inside(str(raw), partitions(str(raw))[1], tmp_path) as tree:
        ours, theirs = picture(tree), picture(expected)
    assert ours.pop(b"/lost+found") is not None
    changed = {b"", b"/etc/hostname", b"/var", b"/boot", b"/var/new"}  # these have the time of the change
    assert ours.keys() == theirs.keys()
    assert len(ours) > 300
    for path in ours.keys() - changed:
        assert ours[path] == theirs[path], path
    assert ours[b"/etc/hostname"].digest == theirs[b"/etc/hostname"].digest
