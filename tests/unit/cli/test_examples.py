# SPDX-License-Identifier: MIT
"""Every --help: each ends with examples that run, fits the width that it is given, and says what each word means."""

from __future__ import annotations

import argparse
import lzma
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.cli.command_line import command_parsers
from pydiskimg.cli.commands import COMMANDS
from tests.fixtures.checkout import ROOT

MAY_DIFFER = {"diff": 1}  # images that differ


PARSERS = {parser.prog.partition(" ")[2]: parser for command in COMMANDS for parser in command_parsers(command)}

METAVARS = {str(action.metavar) for parser in PARSERS.values() for action in parser._actions}


def run(*words: str) -> None:
    assert main(words) == 0


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that the examples name."""
    directory = tmp_path_factory.mktemp("examples")
    before = os.getcwd()
    os.chdir(directory)
    try:
        for path in ("etc", "var/log", "var/cache/apt", "srv/www", "root", "proc", "dev"):
            os.makedirs(f"tree/{path}")
        for path in ("etc/hostname", "etc/fstab", "etc/shadow", "etc/os-release", "var/log/messages"):
            Path("tree", path).write_text(f"{path}\n")
        with tarfile.open("debian.tar.gz", "w:gz", compresslevel=1) as tar:
            tar.add("tree", arcname=".")
        run("build", "tree", "disk.raw", "--size", "256M", "--swap", "16M", "--bootloader", "none")
        run("convert", "-O", "qcow2", "disk.raw", "disk.qcow2")
        for name in ("before", "after", "other"):
            run("convert", "-O", "qcow2", "disk.raw", f"{name}.qcow2")
        run("rm", "after.qcow2", "/etc/hostname")
        run("create", "-q", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", "top.qcow2")
        run("create", "-q", "new.raw", "1G")
        os.makedirs("dev/vg")
        run("convert", "disk.raw", "dev/vg/disk")
        run("bmap", "-o", "disk.bmap", "disk.qcow2")
        Path("image.raw.xz").write_bytes(lzma.compress(Path("disk.raw").read_bytes(), preset=0))
        run("create", "-q", "dev/sdX", "256M")
        os.makedirs("icons")
        os.makedirs("copies")
        Path("icons/one.svg").write_text("<svg/>\n")
        Path("index.html").write_text("<p>\n")
        with tarfile.open("site.tar.gz", "w:gz") as tar:
            tar.add("index.html")
    finally:
        os.chdir(before)
    return directory


@pytest.mark.parametrize("name", PARSERS)
def test_the_examples_run(name: str, prepared: Path, tmp_path: Path) -> None:
    """All of one help in turn, in a directory of their own; /dev is a directory there, and --yes answers what asks."""
    subprocess.run(["cp", "-a", "--sparse=always", f"{prepared}/.", str(tmp_path)], check=True)
    command = name.split(maxsplit=1)[0]
    assert f"pydiskimg {name} " in PARSERS[name].examples
    script = f'set -eo pipefail; pydiskimg() {{ {shlex.quote(sys.executable)} -m pydiskimg "$@"; }}\n'
    for example in PARSERS[name].examples.splitlines():
        script += example.replace("/dev/", "dev/").replace("pydiskimg write image", "pydiskimg write --yes image")
        script += f" || [ $? = {MAY_DIFFER[command]} ]\n" if command in MAY_DIFFER else "\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_every_help_fits(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--help"]) == 0
    for text in [capsys.readouterr().out, *(parser.format_help() for parser in PARSERS.values())]:
        for line in text.splitlines():
            assert line.isascii(), line  # so that LC_ALL=C prints it
            cannot_be_broken = line.strip() in METAVARS or "|" in line or len(line.split()) <= 3
            assert len(line) <= columns or (columns == 40 and cannot_be_broken), line


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_and_operand_is_explained(name: str) -> None:
    for action in PARSERS[name]._actions:
        assert action.help, action.dest
        assert action.help == argparse.SUPPRESS or not action.help.endswith("."), action.help


@pytest.mark.parametrize("name", PARSERS)
def test_every_help_is_reached_by_the_word_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["help", *name.split()])
    assert ended.value.code == 0
    assert capsys.readouterr().out == PARSERS[name].format_help()


def test_no_help_needs_a_library() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pydiskimg.cli.command_line import COMMANDS, _parser\n"
    code += "_parser([*COMMANDS], [*COMMANDS]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"parted", "_ped", "libarchive", "tqdm", "ctypes", "logging", "ssl"}
