# SPDX-License-Identifier: MIT
"""help as a command, and the messages about misspelt commands and options."""

from __future__ import annotations

import pytest

from pydiskimg.cli import main


def status_of(words: list[str]) -> int:
    """The exit status of the command; argparse exits by an exception."""
    try:
        return main(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["help"], ["--help"]),
        (["help"], ["-h"]),
        (["help", "help"], ["-h"]),
        (["help", "convert"], ["convert", "--help"]),
        (["help", "partition", "add"], ["partition", "add", "--help"]),
    ],
)
def test_help_is_a_command_too(words: list[str], same: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for each in (words, same):
        assert status_of(each) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["inf", "x"], 2, "'inf' is not a command; did you mean info?"),
        (["covert"], 2, "'covert' is not a command; did you mean convert?"),
        (["xyz"], 2, "'xyz' is not a command\n"),
        (["help", "inf"], 2, "'inf' is not a command; did you mean info?"),
        (["info", "--outptu", "json", "x"], 1, "there is no option --outptu; did you mean --output?"),
        (["ls", "--recursiv=1", "x"], 2, "takes no value"),
        (["ls", "--xyz", "x"], 2, "there is no option --xyz\n"),
        (["partition", "ad", "x"], 2, "'ad' is not one of list, create, add, delete, set; did you mean add?"),
        (["partition", "add", "--sise=1M", "x"], 2, "there is no option --sise; did you mean --size?"),
        (["info", "-f", "qcow", "x"], 1, "'qcow' is not one of raw, qcow2; did you mean qcow2?"),
        (["version"], 2, "'version' is not a command; did you mean --version?"),
        (["-V"], 2, "there is no option -V\n"),
        (["--verison"], 2, "there is no option --verison; did you mean --version?"),
        (["snapshot", "--list", "x"], 1, "there is no option --list\n"),
        (["convert", "x"], 1, "missing: DST\n"),
        ([], 2, "a command is missing; pydiskimg --help lists them"),
        (["compare"], 2, "missing: FILE1, FILE2"),
        (["mkfs", "-t"], 2, "argument -t: the value is missing"),
    ],
)
def test_what_nearly_exists_is_named(
    words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == status
    assert message in capsys.readouterr().err
