# SPDX-License-Identifier: MIT
"""make foreign: what it decides without the foreign programs (docs/foreign-suites.md)."""

from __future__ import annotations

import binascii
import re
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.checkout import ROOT
from tests.foreign import qemu
from tests.foreign.libarchive import uudecoded
from tests.foreign.outcomes import (
    EXPECTATIONS,
    NOT_RUN,
    PASSED,
    WORDING,
    Difference,
    Expectation,
    Outcome,
    expectations,
    judged,
    read_differences,
    summary,
    table,
)
from tests.foreign.qemu import Suite, starts_more, state
from tests.foreign.routing import GRAMMAR, routed
from tests.foreign.sources import KEPT, source_lines, source_stanzas, write_source_parts

DOCUMENT = ROOT / "docs/foreign-suites.md"


@pytest.mark.parametrize(
    "words",
    [
        "info t.qcow2",
        "info --output=json -f qcow2 t.qcow2",
        "convert -f raw -O qcow2 -c a b",
        "convert a b -O qcow2 -o cluster_size=4k,compat=1.1",
        "convert -l snapshot.name=x a b",
        "create -f qcow2 -o preallocation=off,cluster_size=512 t 1M",
        "create -f qcow2 -b base -F raw t",
        "create -f qcow2 -o nonsense t 1M",
        "create t -- -1024",
        "compare -s a b",
        "check t",
        "check -r all t",
        "convert --bitmaps a b",
        "bitmap --merge x -b other t name",
        "snapshot -l t",
        "snapshot -c name t",
        "convert a b c",
        "convert -B base -F raw -O qcow2 a b",
        "create -f qcow2 -o preallocation=full t 1M",
        "info --image-opts driver=qcow2,file.filename=t",
        'map json:{"driver":"qcow2","file":{"driver":"file","filename":"t"}}',
        "resize -f raw t +1M",
        "resize --shrink t -1M",
        "amend -o nonsense=1 t",
        "rebase -u -b nbd t",
        "create -f qcow2 -o data_file=x,data_file_raw=on t 1M",
        "amend -o compat=0.10,size=3M t",
        "dd if=a of=b",
    ],
)
def test_ours(words: str) -> None:
    call = routed(words.split())
    assert call is not None
    assert call.command == words.split(maxsplit=1)[0]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "bench t",
        "--version",
        "info --image-opts driver=nbd,host=h",
        "info nbd:unix:socket",
        "info --image-opts driver=qcow2,file.filename=t,encrypt.key-secret=sec0",
        'info json:{"driver":"nbd"}',
        "map json:{'driver':'null-co'}",
        "convert -O vmdk a b",
        "convert -B nbd:base a b",
        "create -f qcow2 -o data_file=nbd:x t 1M",
        "amend -o encrypt.state=active t",
        "create -f qcow2 -o cluster_size=4k,,x t 1M",
        "create -f qcow2 -b json:{} t 1M",
        "create -f qcow2 -o backing_file=nbd:x t 1M",
    ],
)
def test_theirs(words: str) -> None:
    assert routed(words.split()) is None


def test_what_a_call_writes() -> None:
    assert [call.target for call in map(routed, (["create", "a", "1M"], ["convert", "-Oqcow2", "a", "b"])) if call] == [
        ("a", "raw"),
        ("b", "qcow2"),
    ]
    info = routed(["info", "a"])
    assert info is not None
    assert info.target is None


@pytest.mark.parametrize("command", GRAMMAR)
def test_the_command_has_what_is_routed_to_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", capsys.readouterr().out))
    short, long, _ = GRAMMAR[command]
    wanted = {f"-{letter}" for letter in short if letter != ":"} | {f"--{name.rstrip('=')}" for name in long}
    assert wanted <= known


TEXT = """
[[qemu]]
kind = "text"
reason = "other words"
tests = ["raw 001", "raw 002"]

[[libarchive]]
kind = "refused"
reason = "no end"
tests = ["a.tar"]
"""


def test_expectations_are_read() -> None:
    assert list(read_differences(TEXT)) == [
        Difference("qemu", "text", "other words", ("raw 001", "raw 002")),
        Difference("libarchive", "refused", "no end", ("a.tar",)),
    ]
    assert expectations("qemu", TEXT) == dict.fromkeys(("raw 001", "raw 002"), Expectation("text", "other words"))
    with pytest.raises(ValueError, match="raw 002 is listed twice"):
        list(read_differences(TEXT.replace("raw 001", "raw 002")))


def test_a_difference_of_another_kind_is_unexpected() -> None:
    outcomes = [
        Outcome("raw 001", "text"),
        Outcome("raw 002", "status", "expected 0, got 1"),
        Outcome("raw 003", "text"),
        Outcome("raw 004", PASSED),
        Outcome("raw 005", WORDING),
        Outcome("raw 006", NOT_RUN),
    ]
    figures = judged(outcomes, expectations("qemu", TEXT))
    assert (figures.differ, [item.test for item in figures.unexpected]) == (1, ["raw 002", "raw 003"])
    assert "qemu: 2 passed, 1 differ as listed, 2 unexpected, 1 not run" in summary("qemu", figures)


def test_what_no_longer_differs_is_named_and_no_fault() -> None:
    figures = judged([Outcome("raw 001", PASSED)], expectations("qemu", TEXT))
    assert not figures.unexpected
    assert "passed, though listed as differing: raw 001" in summary("qemu", figures)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("1..1\nok qcow2 001\n", "pass"),
        ("not ok qcow2 001\n", "fail"),
        ("ok qcow2 001 # SKIP\n", "skip"),
        ("hang", "hang"),
        ("", "fail"),
    ],
)
def test_what_check_says(said: str, found: str) -> None:
    assert state(said, "qcow2", "001") == found


def test_check_is_given_a_name_without_directories(tmp_path: Path) -> None:
    suite = Suite(tmp_path, tmp_path)
    suite.iotests.mkdir(parents=True)
    check = suite.iotests / "check"
    check.write_text('#!/bin/sh\n[ "$3" = bitmaps ] && echo "ok $2 $3" | tr -d -\n')
    check.chmod(0o755)
    assert suite._run("qcow2", "tests/bitmaps", ours=False).state == "pass"


def test_a_test_that_makes_no_call_any_more_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "QUIET_SECONDS", 0.05)
    suite, log = Suite(tmp_path, tmp_path), tmp_path / "log"
    suite.iotests.mkdir(parents=True)
    assert suite._limited(["sh", "-c", f"echo > {log}; sleep 600"], {}, log) == "hang"
    assert suite._limited(["true"], {}, log) == ""


@pytest.mark.parametrize(
    ("line", "starts"),
    [
        (b"_supported_proto file fuse", False),
        (b"echo it is refused", False),
        (b"$QEMU_IMG create t", False),
        (b"--export fuse", True),
        (b"$QEMU -display none", True),
        (b". ./common.qemu", True),
        (b"with iotests.VM() as vm", True),
    ],
)
def test_tests_that_start_more_than_qemu_img(line: bytes, starts: bool) -> None:
    assert starts_more(line) == starts


def test_uudecoding() -> None:
    data = bytes(range(256)) * 3
    lines = b"".join(binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))
    assert uudecoded(b"# a remark\nbegin 644 name\n" + lines + b"`\nend\nmore\n") == data
    for text in (b"", b"begin 644 name\n" + lines):
        with pytest.raises(ValueError, match="line"):
            uudecoded(text)


def test_sources_of_source_packages(tmp_path: Path) -> None:
    one_line = "# deb x y\ndeb [signed-by=/k] http://m s main # why\n  deb-src http://m s main\ndeb http://m s main\n"
    assert source_lines(one_line) == "deb-src [signed-by=/k] http://m s main # why\ndeb-src http://m s main\n"
    stanzas = "Types: deb deb-src\nURIs: http://m\n\nTypes: deb\n deb-src\nURIs: http://n\n"
    assert source_stanzas(stanzas) == "Types: deb-src\nURIs: http://m\n\nTypes: deb-src\nURIs: http://n\n"
    apt, parts = tmp_path / "apt", tmp_path / "parts"
    (apt / "sources.list.d").mkdir(parents=True)
    parts.mkdir()
    (apt / "sources.list").write_text("deb http://m s main\n")
    (apt / "sources.list.d/a.sources").write_text("Types: deb\n")
    (apt / "sources.list.d/b.list.save").write_text("deb http://m t main\n")
    write_source_parts(parts, apt)
    assert {path.name: path.read_text() for path in parts.iterdir()} == {
        "sources.list": "deb-src http://m s main\n",
        "a.sources": "Types: deb-src\n",
    }


def test_the_document_lists_what_differs() -> None:
    """docs/foreign-suites.md has the table that python -m tests.foreign --table prints."""
    differences = list(read_differences(EXPECTATIONS.read_text()))
    assert {item.suite for item in differences} <= set(KEPT)
    assert table(differences) in DOCUMENT.read_text()
