# SPDX-License-Identifier: MIT
"""The space of FAT file systems that mtools filled, by fsck.vfat, which counts each cluster of each file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pydiskimg.errors import FileSystemError
from pydiskimg.images.open_disk import open_disk
from pydiskimg.volumes.space import file_system_space
from tests.fixtures.ext_files import sized
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
MAKERS = {
    "12 bits": ("-F 12 -s 8", 10),
    "12 bits, hardly any": ("-F 12 -s 1", 1),
    "16 bits": ("-F 16 -s 2", 40),
    "32 bits": ("-F 32 -s 1", 120),  # its table is read in three pieces
}


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_what_fsck_counts(name: str, tmp_path: Path, tool: Tool) -> None:
    options, size = MAKERS[name]
    image = sized(tmp_path / "disk", size * MIB)
    run(tool("mkfs.vfat"), *options.split(), str(image))
    files = []
    for number in range(40):
        file = tmp_path / f"file{number}"
        file.write_bytes(b"x" * (number * size * 400))
        files.append(file)
    run(tool("mcopy"), "-i", str(image), *map(str, files), "::/")
    run(tool("mdel"), "-i", str(image), *(f"::/file{number}" for number in range(0, 40, 3)))
    counted = re.search(r" (\d+)/(\d+) clusters", run(tool("fsck.vfat"), "-n", str(image)))
    assert counted is not None
    used, clusters = map(int, counted.groups())
    with open_disk(image) as disk:
        space = file_system_space(disk, "vfat")
        assert space is not None
        cluster = int(options.split()[-1]) * 512
        assert (space.size, space.used) == (clusters * cluster, used * cluster)
        assert space.available == space.size - space.used


def test_a_table_that_ends_early_is_told(tmp_path: Path, tool: Tool) -> None:
    image = sized(tmp_path / "disk", 40 * MIB)
    run(tool("mkfs.vfat"), "-F", "16", str(image))
    sized(image, 4096)
    with open_disk(image) as disk, pytest.raises(FileSystemError, match="allocation table ends"):
        file_system_space(disk, "vfat")
