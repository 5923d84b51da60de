# SPDX-License-Identifier: MIT
"""Man pages as groff and mandoc judge them, and completion in bash, zsh and fish."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from manual.completion import _PATHS, FILES
from pydiskimg.cli.command_line import command_parsers
from pydiskimg.cli.commands import COMMANDS
from tests.fixtures.checkout import ROOT

pytestmark = pytest.mark.oracle

FIXTURES = ROOT / "tests" / "fixtures"
# What is completed: the line, and what is found.
LINES = {
    "pydiskimg conv": "convert",
    "pydiskimg convert -O ": "raw qcow2 file host_device",
    "pydiskimg info --outp": "--output",
    "pydiskimg info --output ": "human json",
    "pydiskimg info --output=": "human json",
    "pydiskimg info --output=j": "json",
    "pydiskimg info ": "disk.qcow2 sub",
    "pydiskimg convert -p -O qcow2 d": "disk.qcow2",
    "pydiskimg convert -p disk.qcow2 d": "disk.qcow2",
    "pydiskimg info --output=json d": "disk.qcow2",
    "pydiskimg info --allow-references ": "sub",
    "pydiskimg help part": "partition",
    "pydiskimg partition ": "list create add delete set",
    "pydiskimg partition add --lo": "--logical",
    "pydiskimg partition create --label ": "dos gpt",
}


def write(what: str, *words: str, **environment: str) -> None:
    command = [sys.executable, "-m", "manual", what, *words]
    variables = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONPATH": str(ROOT), **environment}
    subprocess.run(command, check=True, env=variables)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("man")
    write("man", str(directory))
    write("settings", "image", "/etc", "/var", str(directory / "ganeti-os-image.7"))
    return directory


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("completion")
    write("completion", str(directory))
    return directory


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "disk.qcow2").touch()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def output(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


OPTION = re.compile(r"(?<![\w-])--?[\w-]+")


def options(command: str) -> set[str]:
    """The options that --help shows."""
    found: set[str] = set()
    for parser in command_parsers(command):
        for names in re.findall(r"^  (-.*?)(?:  |$)", parser.format_help(), re.MULTILINE):
            found |= set(OPTION.findall(names))
    assert len(found) > 1
    return found


def test_groff_and_mandoc_find_nothing(pages: Path) -> None:
    names = sorted(map(str, pages.iterdir()))
    assert len(names) == len(COMMANDS) + 2
    assert output("mandoc", "-T", "lint", "-W", "style", *names) == ""
    for name in names:
        said = subprocess.run(
            ["groff", "-ww", "-man", "-Tutf8", "-Z", name], capture_output=True, text=True, check=True
        )
        assert said.stderr == "", name


def test_a_page_has_all_that_help_has(pages: Path) -> None:
    for command in COMMANDS:
        text = output("mandoc", "-T", "ascii", "-O", "width=200", str(pages / f"pydiskimg-{command}.1"))
        text = re.sub(r".\x08", "", text)  # bold and underlined
        parser = command_parsers(command)[0]
        assert options(command) <= set(OPTION.findall(text)), command
        assert f"pydiskimg-{command} - {COMMANDS[command]}" in text
        for example in parser.examples.splitlines():
            assert example in text
        for action in parser._actions:
            is_shown = action.help != argparse.SUPPRESS and action.metavar != "ACTION"
            assert not is_shown or str(action.help) in " ".join(text.split()), action.dest


def test_the_settings_page_has_the_configured_directories(tmp_path: Path) -> None:
    write("settings", "other", "/usr/local/etc", "/srv", str(tmp_path / "page"))
    text = (tmp_path / "page").read_text()
    assert "/usr/local/etc/default/ganeti\\-instance\\-image" in text
    assert "/srv/cache" in text
    assert "GANETI-OS-OTHER 7" in text


@pytest.mark.parametrize("what", ["man", "completion"])
def test_the_same_source_gives_the_same_bytes(what: str, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        write(what, str(tmp_path / seed), PYTHONHASHSEED=seed)
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


def test_every_operand_is_a_file_or_is_typed() -> None:
    """A new name for an operand or value has to be decided on."""
    names = "ACTION ARGS BITMAP BYTES CACHE ID KIND LABEL MODE N NAME OBJECT OFFSET OPTIONS PATH RATE REMOTEDIR SIZE"
    typed = {*names.split(), "SNAPSHOT", "TYPE", "UUID", "[+|-]SIZE"}
    typed |= {"if=INPUT of=OUTPUT [bs=BS] [count=COUNT] [skip=SKIP]"}
    for command in COMMANDS:
        for parser in command_parsers(command):
            for action in parser._actions:
                name = action.metavar or action.dest.upper()
                assert action.nargs == 0 or action.choices or name in _PATHS.keys() | typed, (command, name)


def test_bash_completes(completion: Path, directory: Path) -> None:
    command = ("bash", str(FIXTURES / "complete.bash"), str(completion / FILES["bash"]))
    found = output(*command, text="".join(f"{line}\n" for line in LINES)).splitlines()
    for (line, words), said in zip(LINES.items(), found, strict=True):
        assert sorted(said.split()) == sorted(words.split()), line


def test_fish_completes(completion: Path, directory: Path) -> None:
    command = ("fish", "--no-config", str(FIXTURES / "complete.fish"), str(completion / FILES["fish"]))
    found = output(*command, text="".join(f"{line}\n" for line in LINES)).splitlines()
    for (line, words), said in zip(LINES.items(), found, strict=True):
        typed = line.rpartition(" ")[2].rpartition("=")[2]
        plain = {word.rpartition("=")[2].rstrip("/") for word in said.split()}
        assert {word for word in plain if word.startswith(typed)} == set(words.split()), line
        # complete -C of fish 4 adds what has the letters in this order, which its Tab key leaves out.
        in_order = re.compile(".*".join(map(re.escape, typed)))
        assert all(in_order.search(word) for word in plain), line


def test_zsh_completes(completion: Path, directory: Path) -> None:
    command = ("zsh", "-f", str(FIXTURES / "complete.zsh"), str(completion))
    found = output(*command, text="".join(f"{line}\n" for line in LINES)).splitlines()
    for (line, words), said in zip(LINES.items(), found, strict=True):
        assert {word.rstrip("/") for word in said.split()} == set(words.split()), line


def test_each_shell_completes_all_options_that_help_has(completion: Path, directory: Path) -> None:
    simple = [command for command in COMMANDS if command != "partition"]
    lines = "".join(f"pydiskimg {command} -\n" for command in simple)
    bash = output("bash", str(FIXTURES / "complete.bash"), str(completion / FILES["bash"]), text=lines)
    fish = output("fish", "--no-config", str(FIXTURES / "complete.fish"), str(completion / FILES["fish"]), text=lines)
    for command, *said in zip(simple, bash.splitlines(), fish.splitlines(), strict=True):
        for shell, words in zip(("bash", "fish"), said, strict=True):
            assert options(command) <= set(words.split()), (shell, command)
    text = (completion / FILES["zsh"]).read_text()
    for command in COMMANDS:
        declared = re.findall(
            rf"^_shtab_pydiskimg_{command.replace('-', '_')}(?:_\w+)?_options=\((.*?)^\)",
            text,
            re.MULTILINE | re.DOTALL,
        )
        assert options(command) <= set(OPTION.findall(" ".join(declared))), command
