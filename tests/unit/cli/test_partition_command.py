# SPDX-License-Identifier: MIT
"""partition: what its actions print for programs and people, and the requests that leave the table as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pydiskimg.cli import main

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").write_bytes(bytes(16 * MIB))
    return tmp_path / "disk"


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_every_action_prints_the_table_as_json(label: str, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def table(*words: str) -> dict[str, object]:
        assert main(["partition", *words, "--output", "json"]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        added = found.pop("added", None)
        assert added == (2 if words[:1] == ("add",) else None)
        assert main(["partition", "list", "disk", "--output", "json"]) == 0
        assert json.loads(capsys.readouterr().out) == found
        return found

    made = table("create", "--label", label, "disk")
    assert made == {"filename": "disk", "label": label, "sector-size": 512, "partitions": []}
    added = table("add", "--number", "2", "--size", "4M", "disk")["partitions"]
    assert isinstance(added, list)
    assert (added[0]["number"], added[0]["size"], added[0]["type-name"]) == (2, 4 * MIB, "linux")
    changed = table("set", "--type", "swap", "disk", "2")["partitions"]
    assert isinstance(changed, list)
    assert changed[0]["type-name"] == "swap"
    assert table("delete", "disk", "2") == made


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("", "has no partition table"),
        ("dos", "has an MBR without partitions"),
        ("gpt", "has a GPT without partitions"),
    ],
)
def test_why_there_is_nothing_to_list(label: str, text: str, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if label:
        assert main(["partition", "create", "--label", label, "disk"]) == 0
        capsys.readouterr()
    assert main(["partition", "list", "disk"]) == 0
    assert capsys.readouterr() == ("", f"pydiskimg: disk: {text}\n")
    assert main(["partition", "list", "--output", "json", "disk"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == (label or None)


def test_a_change_of_nothing_is_wrong_usage(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["partition", "create", "disk"]) == main(["partition", "add", "disk"]) == 0
    before = disk.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["partition", "set", "disk", "1"])
    assert ended.value.code == 2
    assert "error: nothing to change: --type, --name" in capsys.readouterr().err
    assert disk.read_bytes() == before


def test_advice_is_for_the_command_that_was_given(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["partition", "create", "disk"]) == main(["partition", "add", "disk"]) == 0
    capsys.readouterr()
    assert main(["partition", "create", "disk"]) == 1
    assert capsys.readouterr().err == "pydiskimg: disk: holds a partition table; use --force to overwrite it\n"
    for number, text in (("1", "is taken"), ("9", "is not one of 1 to 4")):
        assert main(["partition", "add", "--number", number, "disk"]) == 1
        assert capsys.readouterr().err == f"pydiskimg: disk: the number {number} {text}\n"


def test_help_of_set_has_no_defaults_of_add(capsys: pytest.CaptureFixture[str]) -> None:
    for action, count in (("add", 1), ("set", 0)):
        with pytest.raises(SystemExit):
            main(["partition", action, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert said.count("(default: linux)") == said.count("(default: a random one)") == count


def test_one_primary_partition_of_an_mbr_is_bootable(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As sfdisk --activate and parted's boot flag do; boot code such as SYSLINUX's refuses two."""

    def bootable() -> list[bool]:
        capsys.readouterr()
        assert main(["partition", "list", "--output", "json", "disk"]) == 0
        return [part["bootable"] for part in json.loads(capsys.readouterr().out)["partitions"]]

    assert main(["partition", "create", "disk"]) == 0
    for _ in range(2):
        assert main(["partition", "add", "--size", "2M", "--bootable", "disk"]) == 0
    assert bootable() == [False, True]
    assert main(["partition", "set", "--bootable", "disk", "1"]) == 0
    assert bootable() == [True, False]
    assert main(["partition", "set", "--no-bootable", "disk", "2"]) == 0
    assert bootable() == [True, False]


def test_a_full_disk_has_no_free_space(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["partition", "create", "disk"]) == main(["partition", "add", "disk"]) == 0
    capsys.readouterr()
    assert main(["partition", "add", "disk"]) == 1
    assert capsys.readouterr().err == "pydiskimg: disk: has no free space for another partition\n"


def test_a_disk_without_files_is_not_asked_for_a_partition(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "disk"]) == 1
    text = "contains no ext2, ext3 or ext4, whose files could be read; found: the whole disk (nothing known)"
    assert capsys.readouterr().err == f"pydiskimg: disk: {text}\n"


@pytest.mark.parametrize(("word", "label"), [("mbr", "dos"), ("MBR", "dos"), ("msdos", "dos"), ("GPT", "gpt")])
def test_kinds_of_table_by_their_common_names(
    word: str, label: str, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["partition", "create", "--label", word, "--output", "json", "disk"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == label


@pytest.mark.parametrize(
    ("label", "word", "end"),
    [
        ("dos", "swapp", "; did you mean swap?\n"),
        ("gpt", "root-x86_46", "; did you mean root-x86"),
        ("gpt", "q", "or a GUID\n"),
    ],
)
def test_a_type_that_nearly_exists_is_named(
    label: str, word: str, end: str, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["partition", "create", "--label", label, "disk"]) == 0
    assert main(["partition", "add", "--type", word, "disk"]) == 1
    assert end in capsys.readouterr().err


def test_the_uuid_of_another_partition_is_refused(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = "01234567-89ab-4def-8123-456789abcdef", "fedcba98-89ab-4def-8123-456789abcdef"
    assert main(["partition", "create", "--label", "gpt", "disk"]) == 0
    assert main(["partition", "add", "--size", "4M", "--uuid", one, "disk"]) == 0
    assert main(["partition", "add", "--size", "4M", "--uuid", other, "disk"]) == 0
    before = disk.read_bytes()
    capsys.readouterr()
    for words in (["add", "--uuid", one.upper(), "disk"], ["set", "--uuid", one, "disk", "2"]):
        assert main(["partition", *words]) == 1
        said = f"pydiskimg: disk: the UUID {one} is that of partition 1; each one needs its own\n"
        assert capsys.readouterr() == ("", said)
        assert disk.read_bytes() == before
    assert main(["partition", "set", "--uuid", other, "--name", "same", "disk", "2"]) == 0
