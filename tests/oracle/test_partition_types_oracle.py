# SPDX-License-Identifier: MIT
"""Partition types by name mean what they mean to sfdisk: its shortcuts, its aliases and the names that it lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pydiskimg.cli import main
from pydiskimg.partitions.types import ARCHITECTURES, TYPES, type_named
from tests.fixtures.programs import Tool, run

if TYPE_CHECKING:
    from pydiskimg.partitions.types import Label

pytestmark = pytest.mark.oracle

MIB = 1 << 20
# sfdisk(8), "Supported shortcuts and aliases"; an extended partition is 0x0f here, with 0x05 in place of it there.
ALIASES = {
    "dos": ("L", "linux", "S", "swap", "U", "uefi", "R", "raid", "V", "lvm", "X"),
    "gpt": ("L", "linux", "S", "swap", "H", "home", "U", "uefi", "R", "raid", "V", "lvm"),
}
# What sfdisk has listed since util-linux 2.39, and how.
NEWER = {"root-parisc": "Linux root (HPPA/PARISC)", "usr-parisc": "Linux /usr (HPPA/PARISC)"}


def listed(tool: Tool, label: str) -> dict[str, str]:
    """The types that sfdisk lists: from what they are called to a value as Partition.type has it."""
    lines = run(tool("sfdisk"), "--list-types", "--label", label).splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("Id")]
    return {name.strip(): value.upper() if label == "gpt" else f"{int(value, 16):#04x}" for value, name in pairs}


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_each_alias_of_sfdisk(label: Label, tmp_path: Path, tool: Tool) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for path in (theirs, ours):
        with path.open("wb") as file:
            file.truncate(8 * MIB)
        run(tool("sfdisk"), "-q", str(path), given=f"label: {label}\ntype=L\n")
    for alias in ALIASES[label]:
        run(tool("sfdisk"), "-q", "--part-type", str(theirs), "1", alias)
        if alias == "X":  # neither makes an extended partition of another one by parted's and our rules
            value = json.loads(run(tool("sfdisk"), "-J", str(theirs)))["partitiontable"]["partitions"][0]["type"]
            assert type_named(alias, label) == f"{int(value, 16):#04x}"
            continue
        assert main(["partition", "set", "--type", alias, str(ours), "1"]) == 0
        tables = [json.loads(run(tool("sfdisk"), "-J", str(path)))["partitiontable"] for path in (theirs, ours)]
        assert tables[0]["partitions"][0]["type"] == tables[1]["partitions"][0]["type"], alias


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_each_type_of_ours_has_the_value_and_takes_the_name_that_sfdisk_lists(label: Label, tool: Tool) -> None:
    theirs = listed(tool, label)
    by_value = {value: name for name, value in theirs.items()}
    named = [known for known in TYPES if (known.mbr if label == "dos" else known.guid) is not None]
    assert len(named) >= (10 if label == "dos" else 2 * len(ARCHITECTURES) + 12)
    for known in named:
        value = type_named(known.name, label)
        name = by_value[value] if value in by_value else NEWER[known.name]
        if known.name != "ntfs" or label == "dos":  # a GPT has one type for fat32 and ntfs
            assert type_named(name, label) == value, name
            assert type_named(name.upper().replace(" ", ""), label) == value, name


def test_every_root_and_usr_that_sfdisk_lists_has_a_name_here(tool: Tool) -> None:
    theirs = {
        name: value for name, value in listed(tool, "gpt").items() if name.startswith(("Linux root (", "Linux /usr ("))
    }
    assert len(theirs) >= 36
    assert {name: type_named(name, "gpt") for name in theirs} == theirs
