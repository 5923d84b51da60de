# SPDX-License-Identifier: MIT
"""pydiskimg convert --used: less is copied, and e2fsck and the files say that nothing is missing."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.images.raw import open_raw
from pydiskimg.regions.region import SourceRegion
from pydiskimg.units import MIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext, some_files
from tests.fixtures.journals import JournalWriter, random_log
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

COMMAND = [sys.executable, "-m", "pydiskimg", "convert"]
ROOT = Path(__file__).resolve().parent.parent.parent
SIZE, PART, PART_SIZE, SWAP = 48 * MIB, 1 * MIB, 32 * MIB, 34 * MIB
TABLE = "label: dos\n1M,32M,L\n34M,8M,S\n"
LEFT_OUT = "partition 2 (swap): its contents are left out"


def convert(*arguments: str | Path, expect: int = 0) -> tuple[bytes, str]:
    """Return what it wrote to standard output, and its messages."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    messages = done.stderr.decode()
    assert done.returncode == expect, messages
    return done.stdout, messages


_MADE: dict[str, Path] = {}


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    """A disk full of noise, with a file system in the first partition and swap in the second; made once."""
    if "disk" not in _MADE:
        _MADE["disk"] = made_disk(tmp_path_factory.mktemp("used"), tool)
    return _MADE["disk"]


def made_disk(directory: Path, tool: Tool) -> Path:
    (directory / "files").mkdir()
    path, part, swap = directory / "disk", directory / "part", directory / "swap"
    path.write_bytes(bytes(MIB) + random.Random(1).randbytes(SIZE - MIB))
    run(tool("sfdisk"), "-q", path, given=TABLE)
    part.write_bytes(random.Random(2).randbytes(PART_SIZE))
    made_ext(tool, part, "-t ext4 -b 4096 -E nodiscard", PART_SIZE, some_files(directory / "files", 40))
    swap.write_bytes(bytes(8 * MIB))
    run(tool("mkswap"), swap)
    with path.open("r+b") as file:
        file.seek(PART)
        file.write(part.read_bytes())
        file.seek(SWAP)
        file.write(swap.read_bytes()[:4096])
    return path


def is_good(tool: Tool, copy: Path, disk: Path) -> None:
    """The raw copy has the files of the disk, and zeros where nothing is in use."""
    part = copy.with_suffix(".part")
    with open_raw(copy) as found, open_raw(disk) as source:
        assert found.size == SIZE
        files = [contents_of(SourceRegion(one, PART, PART_SIZE)) for one in (found, source)]
    assert files[0] == files[1]
    assert len(files[0]) > 40
    data = copy.read_bytes()
    part.write_bytes(data[PART : PART + PART_SIZE])
    run(tool("e2fsck"), "-fn", part)
    assert not any(data[SWAP + 4096 : 42 * MIB])
    assert data[42 * MIB :] == disk.read_bytes()[42 * MIB :]


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
@pytest.mark.parametrize(
    "target", [("-O", "raw"), ("-O", "qcow2"), ("-O", "qcow2", "-c"), ("-O", "qcow2", "-"), ("-n", "-O", "raw")]
)
def test_files_stay_and_free_blocks_go(
    tmp_path: Path, tool: Tool, disk: Path, kind: str, target: tuple[str, ...]
) -> None:
    source, copy, again = disk, tmp_path / "copy", tmp_path / "again"
    if kind == "qcow2":
        source = tmp_path / "source.qcow2"
        run(tool("qemu-img"), "convert", "-O", "qcow2", disk, source)
    if "-n" in target:
        copy.write_bytes(b"\xff" * SIZE)
    if target[-1] == "-":
        stream, messages = convert("--used", *target[:-1], source, "-")
        copy.write_bytes(stream)
    else:
        _, messages = convert("--used", "--verify", *target, source, copy)
    assert LEFT_OUT in messages
    assert messages.count("\n") == 1
    # 48 MiB of noise; the files, the journal and 6 MiB outside the partitions are in use.
    assert copy.stat().st_blocks * 512 < 20 * MIB
    if "qcow2" in target:
        run(tool("qemu-img"), "check", copy)
    run(tool("qemu-img"), "convert", "-O", "raw", copy, again)
    is_good(tool, again, disk)


def test_without_a_partition_table(tmp_path: Path, tool: Tool, disk: Path) -> None:
    part, copy = tmp_path / "part", tmp_path / "copy"
    part.write_bytes(disk.read_bytes()[PART : PART + PART_SIZE])
    _, messages = convert("--used", part, copy)
    assert messages == ""
    assert copy.stat().st_blocks * 512 < 12 * MIB
    run(tool("e2fsck"), "-fn", copy)


def test_a_volume_that_contradicts_itself_is_copied_whole(tmp_path: Path, tool: Tool, disk: Path) -> None:
    broken, copy = tmp_path / "broken", tmp_path / "copy"
    broken.write_bytes(disk.read_bytes())
    run(tool("debugfs"), "-w", "-R", "set_super_value state 2", f"{broken}?offset={PART}")
    _, messages = convert("--used", "--verify", broken, copy)
    assert "partition 1 (ext4): its bitmaps are not believed: the kernel has seen errors in it" in messages
    assert LEFT_OUT in messages
    assert copy.read_bytes()[:SWAP] == broken.read_bytes()[:SWAP]


def test_what_a_log_will_put_in_place_is_in_use(tmp_path: Path, tool: Tool) -> None:
    disk = MemoryDisk(20 * MIB)
    make_ext(disk, block_size=1024)
    random_log(JournalWriter(disk, 0x12, start=1, first=5), random.Random(1), [19000, 19001, 19500], 4)
    path, copy = tmp_path / "disk", tmp_path / "copy"
    path.write_bytes(disk.data)
    _, messages = convert("--used", path, copy)
    assert "blocks of its journal replayed" in messages
    for one in (path, copy):
        run(tool("e2fsck"), "-fp", one, expect=(0, 1))
        run(tool("e2fsck"), "-fn", one)


def test_a_pipe_cannot_be_read_for_it(tmp_path: Path) -> None:
    _, messages = convert("--used", "-", tmp_path / "copy", expect=1)
    assert "--used needs random access, which a pipe does not have" in messages
