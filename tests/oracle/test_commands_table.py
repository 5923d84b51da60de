# SPDX-License-Identifier: MIT
"""docs/commands.md names every subcommand and option of the qemu-img that is installed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from pydiskimg.cli.command_line import command_parsers, left_out
from pydiskimg.cli.commands import COMMANDS, LEFT_OUT_SUBCOMMANDS
from pydiskimg.cli.help_text import overview
from pydiskimg.cli.long_names import LISTED, UNLISTED
from tests.foreign.routing import GRAMMAR

pytestmark = pytest.mark.oracle

TABLE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
GENERAL = {"--object", "--image-opts", "--target-image-opts", "-t", "-T"}
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


def said_by_qemu(*words: str) -> str:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@cache
def by_qemu() -> dict[str, list[set[str]]]:
    """The options of each subcommand, each by all of its names, as the help of qemu-img lists them."""
    text = said_by_qemu("--help")
    syntax = text.partition("Command syntax:")[2].partition("Command parameters:")[0]
    if syntax:
        lines = [line.split() for line in syntax.splitlines() if line.strip()]
        return {words[0]: [{option} for option in OPTION.findall(" ".join(words[1:]))] for words in lines}
    # Since QEMU 10, each subcommand has help of its own.
    commands = re.findall(r"^  ([a-z]+) - ", text.partition("Recognized commands")[2], flags=re.MULTILINE)
    return {name: options_in_help(name, said_by_qemu(name, "--help")) for name in commands}


def options_in_help(command: str, text: str) -> list[set[str]]:
    """The options of a subcommand: its usage has each by its short name if it has one, and the list below it by all."""
    usage, _, listed = text.partition("\nArguments:\n")
    lines = re.findall(rf"^ +({OPTION.pattern}(?:, +{OPTION.pattern})*)", listed, flags=re.MULTILINE)
    assert len(lines) >= 5
    options: list[set[str]] = []
    for names in (set(OPTION.findall(line)) for line in lines):
        are_names_of_one = any(len(name) == 2 for name in names)
        options += [names] if are_names_of_one else [{name} for name in names]
    known = set().union(*options)
    for option in set(OPTION.findall(usage.partition(f"qemu-img {command}")[2])) - known:
        if "invalid option" not in said_by_qemu(command, option):  # a slip of its usage: check has no -u
            options.append({option})
    return [names for names in options if "-h" not in names]


def in_table() -> dict[str, str]:
    """What the table's rows say of each subcommand."""
    found: dict[str, str] = {}
    name = ""
    for line in TABLE.read_text().partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0] not in ("subcommand", "---"):
            name = cells[0] or name
            found[name] = found.get(name, "") + " " + line
    return found


def test_every_option_of_qemu_img_is_in_the_table() -> None:
    table = in_table()
    options = by_qemu()
    assert set(table) >= set(options)
    assert len(options) >= 15
    missing = {
        name: [names for names in each if not names & GENERAL and not any(f"`{one}" in table[name] for one in names)]
        for name, each in options.items()
    }
    assert {name: words for name, words in missing.items() if words} == {}


def test_what_is_not_built_is_not_a_command() -> None:
    for name, row in in_table().items():
        is_whole = re.search(r"\| all: .*\| (not built yet|left out)", row) is not None
        assert (name in COMMANDS) != is_whole, name


def words_of(text: str) -> str:
    return " ".join(text.split())


def full_names(name: str, known: Iterable[str]) -> list[str]:
    """The name, if it is known, or all that it begins: help of amend has --progres."""
    return [name] if name in known else [full for full in known if len(name) > 4 and full.startswith(name)]


def test_help_names_what_is_left_out_and_why_as_the_table_does() -> None:
    table, general = in_table(), TABLE.read_text().partition("| subcommand |")[0]
    of_all = words_of(overview())
    for name, options in by_qemu().items():
        if name not in COMMANDS:
            reason = LEFT_OUT_SUBCOMMANDS[name]
            assert reason in table[name]
            assert f"{name} ({reason})" in of_all
            continue
        parser = command_parsers(name)[0]
        missing, said = left_out(name, parser), words_of(parser.format_help())
        known = parser._option_string_actions
        for names in options:
            meant = {id(known[full]) for one in names for full in full_names(one, known)}
            all_known = all(full_names(one, known) for one in names)
            assert (len(meant) == 1 and all_known) or names <= set(missing), (name, names)
        for option, reason in missing.items():
            assert reason in general or reason in table[name], (name, option)
            assert f"{option} ({reason})" in said


# Long names of any subcommand of qemu-img 7.2 or 10.0, and some that none of them has.
LONG_NAMES = {
    *("--force-share", "--format", "--repair", "--granularity", "--source-file", "--source-format", "--size"),
    *("--backing-chain", "--start-offset", "--max-length", "--shrink", "--preallocation", "--output", "--image-opts"),
    *(
        long
        for names in (*LISTED.values(), *UNLISTED.values())
        for name in names.items()
        for long in name
        if len(long) > 2
    ),
}


@pytest.mark.parametrize("name", sorted(GRAMMAR))
def test_long_names_that_qemu_img_does_not_list(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--help of 7.2 has the short ones alone; 10.0 takes others than those that its --help has."""
    monkeypatch.chdir(tmp_path)  # create --backing-unsafe x 1M makes x
    known = command_parsers(name)[0]._option_string_actions
    for option in sorted(LONG_NAMES):
        taken = not re.search("unrecognized option|ambiguous", said_by_qemu(name, option, "x", "1M"))
        assert not taken or full_names(option, known), option
