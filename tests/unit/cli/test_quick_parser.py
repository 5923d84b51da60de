# SPDX-License-Identifier: MIT
"""The quick parser and argparse understand the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.cli import QuickParser, UncommonError, cat, check, compare, convert, ls, measure, snapshot, stat
from pydiskimg.cli import map as map_command
from pydiskimg.cli.command_line import _parser
from tests.fixtures.checkout import ROOT
from tests.fixtures.qcow2_images import Craft

WORDS = st.sampled_from(
    [
        "-c",
        "-n",
        "-p",
        "-f",
        "-O",
        "-m",
        "raw",
        "qcow2",
        "vmdk",
        "1",
        "16",
        "17",
        "0",
        "01",
        "a",
        "-",
        "--",
        "-fraw",
        "--verify",
        "-l",
        "-o",
        "--allow-references",
        "-W",
        "-U",
        "-q",
        "-t",
        "-T",
        "none",
        "",
        "-m8",
        "--ver",
        "-S",
        "--target-is-zero",
        "-r",
    ]
)

FILES_WORDS = st.sampled_from(
    [
        *("-f", "-fraw", "raw", "vmdk", "--partition", "--partition=1", "--part", "0", "x", "a", "/b", "", "-", "--"),
        *("-l", "-R", "-lR", "-L", "--long", "--long=1", "--output", "--output=json", "json", "--allow-references"),
    ]
)
IMAGES_WORDS = st.sampled_from(
    [
        *("-f", "-fraw", "raw", "qcow2", "-F", "-O", "-s", "-l", "-p", "-q", "-r", "-T", "-U", "-c", "-a", "-d", "-"),
        *("all", "none", "1", "0x", "+1M", "-1", "a", "", "--", "--output", "--output=json", "json", "--shrink"),
        *("--preallocation=full", "--start-offset=1k", "--max-length", "--allow-references", "--size", "--force-share"),
    ]
)
IMAGES = {module.__name__.rpartition(".")[2]: module for module in (check, compare, map_command, measure, snapshot)}
FILES = {"cat": cat.declare_common, "ls": ls.declare_common, "stat": stat.declare_common}

NOT_COMPARED = ("run", "version", "reads_descriptions", "usage_error", "_image_options_error", "ignored", "parser")


def common_form(words: list[str], command: str = "convert") -> dict[str, object]:
    """Return what the quick parser understands, by the names that argparse has; an option not given is None for it."""
    parser = QuickParser()
    others = {name: module.declare_common for name, module in IMAGES.items()}
    (FILES | others).get(command, convert.declare_common)(parser)
    found = parser.parse(words)
    return {key: getattr(found, key) or None for key in by_argparse(words, command)}


def by_argparse(words: list[str], command: str = "convert") -> dict[str, object]:
    found = vars(_parser([command], [command]).parse_args([command, *words]))
    return {key: value or None for key, value in found.items() if key not in NOT_COMPARED}


@given(st.lists(WORDS, max_size=8))
def test_any_words(words: list[str]) -> None:
    try:
        found = common_form(words)
    except UncommonError:
        return
    assert found == by_argparse(words)


@given(st.sampled_from(sorted(FILES)), st.lists(FILES_WORDS, max_size=6))
def test_any_words_of_what_reads_files(command: str, words: list[str]) -> None:
    try:
        found = common_form(words, command)
    except UncommonError:
        return
    assert found == by_argparse(words, command)


@given(st.sampled_from(sorted(IMAGES)), st.lists(IMAGES_WORDS, max_size=6))
def test_any_words_of_what_tells_of_images(command: str, words: list[str]) -> None:
    try:
        found = common_form(words, command)
    except UncommonError:
        return
    assert found == by_argparse(words, command)


@pytest.mark.parametrize("command", FILES)
@pytest.mark.parametrize(
    "words",
    [
        ["a", "/b"],
        ["-f", "raw", "a", "b", "/c"],
        ["--partition", "2", "a", "/"],
        ["--partition=0", "-f", "qcow2", "a", "b"],
    ],
)
def test_common_words_of_what_reads_files(command: str, words: list[str]) -> None:
    assert common_form(words, command) == by_argparse(words, command)


@pytest.mark.parametrize(
    "words",
    [
        ["a", "b"],
        ["-q", "-U", "-W", "-t", "none", "-T", "writeback", "a", "b"],
        ["-f", "qcow2", "a", "b"],
        ["a", "-n", "-p", "b", "-m", "8"],
        ["-c", "-O", "qcow2", "-", "-"],
    ],
)
def test_common_words(words: list[str]) -> None:
    assert common_form(words) == by_argparse(words)


@pytest.mark.parametrize(
    "words", [["a"], ["a", "b", "c"], ["-m", "17", "a", "b"], ["-f", "x", "a", "b"], ["-m"], ["-t", "x", "a", "b"]]
)
def test_wrong_words_are_left_to_argparse(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UncommonError):
        common_form(words)
    with pytest.raises(SystemExit):
        by_argparse(words)
    assert "usage:" in capsys.readouterr().err


def test_what_a_common_form_does_not_import(tmp_path: Path) -> None:
    """Each of them takes as long to import as some ten MiB to copy (docs/adr/0008)."""
    (tmp_path / "a.qcow2").write_bytes(Craft(cluster_bits=12, size=1 << 20).build())
    code = (
        "import sys; from pydiskimg.cli import main; status = main(sys.argv[1:]); print(*sys.modules); sys.exit(status)"
    )
    words = ["convert", str(tmp_path / "a.qcow2"), str(tmp_path / "b")]
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}", *words]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    slow = {"argparse", "ctypes", "dataclasses", "inspect", "json", "logging", "pathlib", "random", "typing"}
    assert slow.isdisjoint(loaded), slow.intersection(loaded)
    assert (tmp_path / "b").read_bytes() == bytes(1 << 20)
