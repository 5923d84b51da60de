# SPDX-License-Identifier: MIT
"""The long names that qemu-img 10 has for options, each of the same meaning as the short one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.cli.command_line import command_parsers

PAIRS = [
    ("amend", "-o compat=1.1 -p -t none IMAGE", "--options compat=1.1 --progress --cache none IMAGE"),
    ("bitmap", "--merge a -b FILE -F raw IMAGE b", "--merge a --source-file FILE --source-format raw IMAGE b"),
    ("check", "-T none -r all IMAGE", "--cache=none --repair=all IMAGE"),
    ("commit", "-b BASE -d -t none -p -r 1M IMAGE", "--base BASE --drop --cache none --progress --rate 1M IMAGE"),
    (
        "compare",
        "-f raw -F raw -s -p -T none A B",
        "--a-format raw --b-format raw --strict --progress --cache none A B",
    ),
    ("compare", "-f raw -F qcow2 A B", "--left-format raw --right-format qcow2 A B"),
    (
        "convert",
        "-f raw -T none --image-opts -l one -O qcow2 -t none -o compat=1.1 -S 4k -r 1M A B",
        "--source-format raw --source-cache none --source-image-opts --snapshot one --output-format qcow2 "
        "--output-cache none --options compat=1.1 --sparse-size 4k --rate 1M A B",
    ),
    (
        "convert",
        "-B BASE -F raw -m 4 -W -C A B",
        "--backing BASE --backing-format raw --parallel 4 --oob-writes --copy-range-offloading A B",
    ),
    (
        "convert",
        "-l one -O qcow2 -t none -o compat=1.1 -c -n -p A B",
        "--source-snapshot one --target-format qcow2 --target-cache none --target-options compat=1.1 --compress "
        "--no-create --progress A B",
    ),
    (
        "create",
        "-f qcow2 -o compat=1.1 -b BASE -F raw -u A 1M",
        "--format qcow2 --options compat=1.1 --backing BASE --backing-format raw --backing-unsafe A 1M",
    ),
    ("dd", "-O qcow2 if=A", "--output-format qcow2 if=A"),
    ("info", "--backing-chain A", "-b A"),
    ("measure", "-O qcow2 -o compat=1.1 -l one A", "--target-format qcow2 --options compat=1.1 --snapshot one A"),
    ("measure", "--size 1M", "-s 1M"),
    (
        "rebase",
        "-b BASE -F raw -T none -t none -u -p -c A",
        "--backing BASE --backing-format raw --backing-cache none --cache none --backing-unsafe --progress "
        "--compress A",
    ),
    ("snapshot", "-l A", "--list A"),
    ("snapshot", "-a one A", "--apply one A"),
    ("snapshot", "-c one A", "--create one A"),
    ("snapshot", "-d one A", "--delete one A"),
]


@pytest.mark.parametrize(("command", "short", "long"), PAIRS)
def test_the_same_meaning(command: str, short: str, long: str) -> None:
    parser = command_parsers(command)[0]
    ours, theirs = (vars(parser.parse_args(words.split())) for words in (short, long))
    assert repr(ours) == repr(theirs)
    assert ours.keys() == theirs.keys()


def test_run_by_long_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["create", "--quiet", "--format", "qcow2", "a", "1M"]) == 0
    assert main(["snapshot", "--create", "one", "a"]) == 0
    assert main(["convert", "--output-format", "qcow2", "--snapshot", "one", "a", "b"]) == 0
    assert main(["compare", "--strict", "--a-format", "qcow2", "a", "b"]) == 0
    assert capsys.readouterr().out == "Images are identical.\n"


def test_help_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    said = capsys.readouterr().out
    assert "  -f, --source-format {raw,qcow2,file,host_device}\n" in said
    assert "--target-format" not in said
