# SPDX-License-Identifier: MIT
"""Shrinking gives other numbers to inodes that hold values of attributes: e2fsck judges, and all files stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.fs.ext4.shrink import minimum_size, shrink_ext
from pydiskimg.fs.ext4.shrink.survey import inodes_in_use
from pydiskimg.regions.region import Region
from pydiskimg.units import MIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.ext_files import made_ext
from tests.fixtures.programs import Tool, run
from tests.fixtures.shrunk_ext import WITH_VALUES, everything, judged, with_values

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("kind", WITH_VALUES)
def test_values_that_get_other_numbers(tmp_path: Path, tool: Tool, kind: str) -> None:
    disk = with_values(tool, tmp_path, WITH_VALUES[kind])
    judged(tool, tmp_path, disk)
    before, minimum = everything(disk), minimum_size(disk)
    numbers = {inode.number for inode in inodes_in_use(Transaction(disk).fs, Transaction(disk).groups)}
    assert max(numbers) > 140
    for size in (6 * MIB, None):
        shrunk = shrink_ext(disk, size)
        path = judged(tool, tmp_path, disk, shrunk)
        assert everything(Region(disk, 0, shrunk)) == before
        report = check_ext(disk)
        assert report.is_clean, report.details
    assert shrunk == minimum
    files = contents_of(disk)
    assert files["/30/shares"].attributes == files["/33/shares"].attributes
    value = files["/33/file"].attributes["user.large"]
    run(tool("debugfs"), "-R", f"ea_get -f {tmp_path}/value /33/file user.large", path)
    assert (tmp_path / "value").read_bytes() == value


@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize("is_moved", [True, False])
def test_a_value_whose_number_is_before_its_owners(
    tmp_path: Path, tool: Tool, *, is_before: bool, is_moved: bool
) -> None:
    """Inodes move in the order of their numbers, and the usage of an owner is counted while its value is elsewhere."""
    disk = MemoryDisk(10 * MIB)
    options = "-t ext4 -b 1024 -g 1024 -N 160 -O ea_inode,quota -E quotatype=usrquota:grpquota"
    disk.data[:] = made_ext(tool, tmp_path / "image", options, disk.size).read_bytes()
    with open_changed_tree(disk) as tree:
        for number in range(140):
            tree.write(f"/{number}", b"")
        numbers = {tree.stat(f"/{number}").st_ino: f"/{number}" for number in range(140)}
        last = max(numbers)
        owner = last - 3 if is_moved else 20
        tree.remove(numbers[last - (5 if is_before else 1)])
    with open_changed_tree(disk) as tree:
        tree.set_attribute(numbers[owner], "user.large", b"v" * 3000)
    with open_changed_tree(disk) as tree:
        for number, name in numbers.items():
            if 30 < number < last - 6:
                tree.remove(name)
    before = everything(disk)
    judged(tool, tmp_path, disk)
    shrunk = shrink_ext(disk)
    judged(tool, tmp_path, disk, shrunk)
    assert everything(Region(disk, 0, shrunk)) == before
