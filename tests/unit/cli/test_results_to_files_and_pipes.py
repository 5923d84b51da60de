# SPDX-License-Identifier: MIT
"""bmap -o and show -o: the result in a new file, standard output, a named pipe, or another descriptor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.fixtures.both_programs import by_pydiskimg

COMMANDS = {"bmap": b"<?xml", "show": b"<svg"}


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("disk").write_bytes(b"contents".ljust(1 << 20, b"\0"))


def run(command: str, output: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "pydiskimg", command, "-f", "raw", "-o", output, "disk"]
    done = subprocess.run(words, stderr=subprocess.PIPE, check=False, **options)  # type: ignore[call-overload]
    assert isinstance(done, subprocess.CompletedProcess)
    return done


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1"])
def test_standard_output(command: str, output: str) -> None:
    done = run(command, output, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert done.stdout.startswith(COMMANDS[command])
    assert os.listdir() == ["disk"]
    by_pydiskimg(command, "-f", "raw", "-o", "file", "disk")
    assert Path("file").read_bytes() == done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_named_pipe(command: str) -> None:
    os.mkfifo("pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_bytes()))
    reader.start()
    assert by_pydiskimg(command, "-f", "raw", "-o", "pipe", "disk").status == 0
    reader.join()
    assert read[0].startswith(COMMANDS[command])


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_full(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        own = full.fileno()
        for done in (run(command, "-", stdout=full), run(command, f"/dev/fd/{own}", pass_fds=[own])):
            assert done.returncode == 1
            assert done.stderr.count(b"\n") == 1
            assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_disk_itself(command: str) -> None:
    before = Path("disk").read_bytes()
    with Path("disk").open("r+b") as own:
        for done in (run(command, "disk"), run(command, "-", stdout=own)):
            assert done.returncode == 1
            assert b"is both source and destination; nothing was written" in done.stderr
    assert Path("disk").read_bytes() == before
