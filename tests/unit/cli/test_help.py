# SPDX-License-Identifier: MIT
"""help as a command, and the messages about misspelt commands and options."""

from __future__ import annotations

import pytest

from pydiskimg.cli import main
from pydiskimg.cli.commands import COMMANDS
from pydiskimg.cli.help_text import example_lines


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
        (["-V"], ["--version"]),
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


def test_a_long_comment_of_an_example_is_a_line_of_its_own() -> None:
    example = "pydiskimg ls disk.raw  # every file that is there"
    assert list(example_lines(example, 60)) == ["examples:", f"  {example}"]
    assert list(example_lines(example, 40)) == ["examples:", "  # every file that is there", "  pydiskimg ls disk.raw"]


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
        (["copy", "x", "y"], 2, "'copy' is not a command; did you mean write?"),
        (["virt-df", "x"], 2, "'virt-df' is not a command; did you mean df?"),
        (["virt-resize", "x"], 2, "'virt-resize' is not a command; did you mean grow?"),
        (["mkfs.ext4", "x"], 2, "'mkfs.ext4' is not a command; did you mean mkfs?"),
        (["partition", "rm", "x", "1"], 2, "'rm' is not one of list, create, add, delete, set; did you mean delete?"),
        (["partition", "--json", "x"], 2, "there is no option --json: use: pydiskimg partition list --output json"),
        (["partition", "resizepart", "x"], 2, "did you mean pydiskimg grow or pydiskimg shrink?"),
        (["filesystems", "--lvs", "x"], 2, "there is no option --lvs: LVM is not read"),
        (["filesystems", "-d", "guest"], 2, "there is no option -d: guests of libvirt are not looked up"),
        (["filesystems", "x", "y"], 2, "'y' is one argument too many: one image is listed at a time"),
        (["df", "--version"], 2, "there is no option --version: pydiskimg --version prints the version"),
        (["df", "--uuid"], 2, "there is no option --uuid: guests of libvirt have that"),
        (["ls", "x", "-m", "/dev/sda1:/boot"], 2, "there is no option -m: a partition is /dev/sda1"),
        (["diff", "--csv", "x", "y"], 2, "there is no option --csv: --output json is for programs"),
        (["sparsify", "x", "y"], 2, "'y' is one argument too many: IMAGE is changed in place"),
        (["grow", "x", "3"], 2, "'3' is one argument too many: the last partition grows"),
        (["rm", "-a", "x", "/y"], 2, "there is no option -a: the image is named without an option"),
        (["grow", "-Z"], 2, "there is no option -Z\n"),
        (["ls", "x", "-la"], 2, "there is no option -a: all files are listed, one on a line"),
        (["ls", "x", "-lZ"], 2, "there is no option -Z\n"),
        (["ls", "x", "--long=3"], 2, "takes no value; found '3'"),
        (["partition", "add", "x", "1MiB", "9MiB"], 2, "'1MiB' is one argument too many: --type, --start and --size"),
        (["tail", "x"], 2, "'tail' is not a command; did you mean cat?"),
        (["df", "--json", "x"], 2, "there is no option --json: --output json is for programs"),
        (["partition", "list", "-J", "x"], 2, "there is no option -J: --output json is for programs"),
        (["grow", "-n", "x"], 2, "there is no option -n: try it on an overlay: pydiskimg create"),
        (["check", "-n", "x"], 1, "there is no option -n: nothing is changed without -r"),
        (["partition", "set", "x", "1", "esp"], 2, "'esp' is one argument too many: what changes is named by options"),
        (["partition", "add", "--end", "9M", "x"], 2, "there is no option --end: --size names the size"),
        (["bmap", "create", "x"], 2, "'x' is one argument too many: pydiskimg bmap IMAGE makes a map"),
        (["copy-in", "-r", "x", "y", "/"], 2, "there is no option -r: directories are always copied"),
        (["--verison"], 2, "there is no option --verison; did you mean --version?"),
        (["snapshot", "--print", "x"], 1, "there is no option --print\n"),
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


@pytest.mark.parametrize(
    "command", [*COMMANDS, *(f"partition {action}" for action in ["list", "create", "add", "delete", "set"])]
)
def test_json_leads_to_output(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status_of([*command.split(), "--help"])
    has_output = "--output {human,json}" in capsys.readouterr().out
    status_of([*command.split(), "--json", "x", "1", "1"])
    assert ("--output json" in capsys.readouterr().err) == (has_output or command == "partition")
