# SPDX-License-Identifier: MIT
"""sparsify on disks that mke2fs filled: e2fsck and qemu-img judge what is left, and the files stay what they were."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.volumes.sparsify import zero_unused
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext, some_files
from tests.fixtures.programs import Tool, run
from tests.fixtures.stopping_disk import StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle

MIB = 1 << 20


@pytest.fixture
def raw(tmp_path: Path, tool: Tool) -> Path:
    """An ext4 of 32 MiB with some files, that held 10 MiB more, and has no hole."""
    path = made_ext(tool, tmp_path / "disk.raw", "-t ext4 -b 4096", 32 * MIB, _files(tmp_path))
    with path.open("r+b") as file:
        contents = file.read()
        file.seek(0)
        file.write(contents)  # so it has no holes
    with open_disk(path, writable=True) as disk:
        with open_changed_tree(disk) as tree:
            for number in range(12):
                tree.write(f"/large {number}", random.Random(1).randbytes(MIB))
        with open_changed_tree(disk) as tree:
            for number in set(range(12)) - {3, 7}:
                tree.remove(f"/large {number}")
        disk.flush()
    return path


def _files(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return some_files(tmp_path / "files", 40)


def stored(path: Path) -> int:
    return path.stat().st_blocks * 512


def sparsified(capsys: pytest.CaptureFixture[str], path: Path) -> dict[str, int]:
    assert main(["sparsify", "--in-place", "--output", "json", str(path)]) == 0
    found: dict[str, int] = json.loads(capsys.readouterr().out)
    return found


def test_a_raw_disk_keeps_its_files_and_loses_the_rest(
    raw: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_image(raw) as source:
        before = contents_of(source)
    found = sparsified(capsys, raw)
    assert found["stored-before"] >= 32 * MIB
    assert found["stored-after"] == stored(raw) < 12 * MIB
    run(tool("e2fsck"), "-fn", str(raw))
    with open_image(raw) as source:
        assert contents_of(source) == before
    assert sparsified(capsys, raw)["zeroed"] == 0


@pytest.mark.parametrize("options", ["cluster_size=64k", "cluster_size=4k", "extended_l2=on,cluster_size=64k"])
def test_the_file_of_a_qcow2_image_becomes_smaller(
    options: str, raw: Path, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "disk.qcow2"
    run(tool("qemu-img"), "convert", "-S", "0", "-f", "raw", "-O", "qcow2", "-o", options, str(raw), str(path))
    with open_image(path) as source:
        before = contents_of(source)
    found = sparsified(capsys, path)
    assert found["stored-before"] >= 32 * MIB
    assert found["stored-after"] == stored(path) < 12 * MIB
    run(tool("qemu-img"), "check", str(path))
    with open_image(path) as source:
        assert contents_of(source) == before
    copy = tmp_path / "copy.raw"
    run(tool("qemu-img"), "convert", "-O", "raw", str(path), str(copy))
    run(tool("e2fsck"), "-fn", str(copy))


def test_what_a_snapshot_holds_stays(raw: Path, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "disk.qcow2"
    run(tool("qemu-img"), "convert", "-S", "0", "-f", "raw", "-O", "qcow2", str(raw), str(path))
    run(tool("qemu-img"), "snapshot", "-c", "before", str(path))
    sparsified(capsys, path)
    assert stored(path) >= 32 * MIB
    run(tool("qemu-img"), "check", str(path))
    run(tool("qemu-img"), "snapshot", "-a", "before", str(path))
    run(tool("qemu-img"), "compare", "-f", "raw", "-F", "qcow2", str(raw), str(path))


def test_a_damaged_image_is_refused_and_left_alone(
    raw: Path, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "disk.qcow2"
    run(tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path))
    with path.open("r+b") as file:
        file.seek(2 * 65536 + 2 * 8)  # in the first refcount block: the count of a cluster in use
        file.write(b"\0\0")
    damaged = path.read_bytes()
    assert main(["sparsify", str(path)]) == 1
    assert "is not consistent (" in capsys.readouterr().err
    assert path.read_bytes() == damaged


def test_an_interruption_harms_nothing(raw: Path, tmp_path: Path, tool: Tool) -> None:
    whole = raw.read_bytes()
    with open_image(raw) as source:
        before = contents_of(source)
    steps = 0
    while True:
        disk = MemoryDisk(len(whole))
        disk.write(0, whole)
        try:
            zero_unused(StoppingDisk(disk, steps))
        except StoppedError:
            steps += 1
        else:
            assert steps > 2
            return
        assert contents_of(disk) == before
        copy = tmp_path / "copy.raw"
        copy.write_bytes(disk.data)
        run(tool("e2fsck"), "-fn", str(copy))
