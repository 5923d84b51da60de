# SPDX-License-Identifier: MIT
"""hash and df of several images, of images of odd names, and what an interruption of a reading command says."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.cli.signals import how_ended
from pydiskimg.protocols import Progress
from tests.fixtures.checkout import ROOT

MISSING = "pydiskimg: missing: cannot open the image: No such file or directory\n"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["mkfs", "--create", "8M", "disk"]) == 0
    capsys.readouterr()
    return tmp_path / "disk"


@pytest.mark.parametrize("command", ["hash", "df"])
def test_an_image_that_cannot_be_read_does_not_hide_the_others(
    command: str, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "disk"]) == 0
    alone = capsys.readouterr().out
    assert main([command, "missing", "disk"]) == 1
    assert capsys.readouterr() == (alone, MISSING)
    assert main([command, "--output", "json", "missing", "disk"]) == 1
    said = capsys.readouterr()
    assert ([one["filename"] for one in json.loads(said.out)], said.err) == (["disk"], MISSING)


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\rb", "plain"])
def test_sha256sum_reads_the_line_of_any_name(name: str, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk.rename(name)
    assert main(["hash", name]) == 0
    said = capsys.readouterr().out
    assert said.startswith("\\") == (name != "plain")
    if (tool := shutil.which("sha256sum")) is not None:
        subprocess.run([tool, "--check", "--strict"], input=said, text=True, check=True, stdout=subprocess.DEVNULL)
    assert sha256(Path(name).read_bytes()).hexdigest() in said


def test_the_line_of_progress_ends_before_the_checksum(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    @contextmanager
    def progress(*_: object, **__: object) -> Iterator[Progress | None]:
        shown.append("begun")
        yield None
        shown.append("ended")

    class Output:
        def write(self, text: str) -> int:
            shown.append(text)
            return len(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr("pydiskimg.cli.progress.progress", progress)
    monkeypatch.setattr(sys, "stdout", Output())
    assert main(["hash", "-p", "disk"]) == 0
    assert shown[:2] == ["begun", "ended"]


def test_what_only_reads_leaves_nothing_unfinished() -> None:
    assert how_ended(KeyboardInterrupt(signal.SIGINT), writes=False) == ("interrupted", 130)
    code = "import os, signal, sys; from pydiskimg.cli import main; import pydiskimg.cli.hash as it\n"
    code += "it.run = lambda _: os.kill(os.getpid(), signal.SIGTERM)\nsys.exit(main(['hash', 'x']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "pydiskimg: ended by SIGTERM\n")


@pytest.mark.parametrize("name", ["no\udcffutf", "two\nlines", "plain"])
def test_the_columns_of_odd_names_are_below_each_other(
    name: str, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.rename(name)
    assert main(["df", name]) == 0
    title, row = capsys.readouterr().out.splitlines()
    assert len(title) == len(row)
    assert row.index(" ") <= title.index("1K-blocks")
