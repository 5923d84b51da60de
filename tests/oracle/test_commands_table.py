# SPDX-License-Identifier: MIT
"""docs/commands.md names every subcommand and option of the qemu-img that is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pydiskimg.cli.command_line import command_parsers, left_out
from pydiskimg.cli.commands import COMMANDS, LEFT_OUT_SUBCOMMANDS
from pydiskimg.cli.help_text import overview
from tests.foreign.routing import GRAMMAR

pytestmark = pytest.mark.oracle

TABLE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
GENERAL = {"--object", "--image-opts", "--target-image-opts", "-t", "-T"}


def by_qemu() -> dict[str, set[str]]:
    """The options of each subcommand, as the help of qemu-img lists them."""
    text = subprocess.run(["qemu-img", "--help"], capture_output=True, text=True, check=True).stdout
    syntax = text.partition("Command syntax:")[2].partition("Command parameters:")[0]
    lines = [line.split() for line in syntax.splitlines() if line.strip()]
    return {words[0]: set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", " ".join(words[1:]))) for words in lines}


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
        name: sorted(option for option in words - GENERAL if f"`{option}" not in table[name])
        for name, words in options.items()
    }
    assert {name: words for name, words in missing.items() if words} == {}


def test_what_is_not_built_is_not_a_command() -> None:
    for name, row in in_table().items():
        is_whole = re.search(r"\| all: .*\| (not built yet|left out)", row) is not None
        assert (name in COMMANDS) != is_whole, name


def words_of(text: str) -> str:
    return " ".join(text.split())


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
        assert options - set(parser._option_string_actions) <= set(missing), name
        for option, reason in missing.items():
            assert reason in general or reason in table[name], (name, option)
            assert f"{option} ({reason})" in said


@pytest.mark.parametrize("name", sorted(GRAMMAR))
def test_long_names_that_qemu_img_does_not_list(name: str) -> None:
    """Its --help has the short ones alone."""
    known = command_parsers(name)[0]._option_string_actions
    for option in ("--force-share", "--format", "--repair", "--granularity"):
        command = ["qemu-img", name, option, "x", "1M"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        assert "unrecognized option" in said or option in known, option
