# SPDX-License-Identifier: MIT
"""What -p shows: on terminals of several widths, in a log, to a program, and what it counts."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from pydiskimg.cli import main, progress_report
from pydiskimg.cli.progress_report import reported
from pydiskimg.text import columns_of
from tests.fixtures.checkout import ROOT
from tests.fixtures.terminals import on_terminal

MIB, GIB = 1 << 20, 1 << 30


class Clock:
    """time.monotonic() that goes on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written, with standard error taken for a terminal."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    return []


def lines(title: str, width: int, monkeypatch: pytest.MonkeyPatch, written: list[str]) -> list[str]:
    """Report a copy of 4 GiB at 128 MiB a second and return the lines as they are on the screen."""
    monkeypatch.setattr(progress_report, "_width", lambda: width)
    with reported(title, write=written.append, clock=Clock()) as update:
        for done in range(0, 4 * GIB, 256 * MIB):
            update(done, 4 * GIB)
    return [line.rstrip("\n") for line in "".join(written).split("\r")[1:]]


@pytest.mark.parametrize("width", [5, 12, 20, 33, 45, 60, 80, 200])
@pytest.mark.parametrize("title", ["disk.raw", "a name that is long enough to be cut off.qcow2", "磁盘映像文件.raw"])
def test_a_line_fits_the_terminal(title: str, width: int, monkeypatch: pytest.MonkeyPatch, screen: list[str]) -> None:
    shown = lines(title, width, monkeypatch, screen)
    assert len(shown) > 10
    assert all(columns_of(line) < width for line in shown), shown
    assert "".join(screen).endswith("\n")
    assert any("50%" in line for line in shown)
    if width >= 20:
        assert all("left" in line for line in shown[3:-1])
    if width >= 80:
        assert all(re.search(r"[█#]|[░.]", line) for line in shown[1:-1])
        assert "2 GiB of 4 GiB" in "".join(shown)
        assert "MiB/s" in shown[5]


def test_rate_and_time_are_those_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch, screen: list[str]) -> None:
    """Each second 256 MiB, as the clock has it: of 4 GiB, 1 is left in the end."""
    shown = lines("disk.raw", 80, monkeypatch, screen)
    late = next(line for line in shown if " 75%" in line)
    assert "256 MiB/s, 0:04 left" in late
    assert re.search(r"100%, 3.75 GiB in 0:\d\d", shown[-1])


def test_a_stop_counts_for_nothing(monkeypatch: pytest.MonkeyPatch, screen: list[str], clock: Clock) -> None:
    monkeypatch.setattr(progress_report, "_width", lambda: 80)
    with reported("disk.raw", write=screen.append, clock=clock) as update:
        for done in range(0, 2 * GIB, 256 * MIB):
            update(done, 4 * GIB)
        clock.now += 3600
        os.kill(os.getpid(), signal.SIGCONT)
        update(2 * GIB, 4 * GIB)
        update(2 * GIB + 256 * MIB, 4 * GIB)
    assert "256 MiB/s" in screen[-3]
    assert signal.getsignal(signal.SIGCONT) == signal.SIG_DFL


def test_what_fails_leaves_its_line_and_claims_nothing(monkeypatch: pytest.MonkeyPatch, screen: list[str]) -> None:
    def fail() -> None:
        with reported("disk.raw", write=screen.append) as update:
            update(GIB, 4 * GIB)
            raise OSError

    with pytest.raises(OSError, match=r"^$"):
        fail()
    assert "".join(screen).endswith("\n")
    assert "100%" not in "".join(screen)
    screen.clear()
    with pytest.raises(OSError, match=r"^$"), reported("disk.raw", write=screen.append):
        raise OSError
    assert screen == []


def test_a_log_gets_few_lines_and_no_percentage_of_what_is_not_known(
    clock: Clock,
) -> None:
    said: list[str] = []
    with reported("stream", write=said.append, clock=clock) as update:
        for done in range(0, 30 * MIB, MIB):
            update(done, 0)
    assert len(said) < 5
    assert all("%" not in line and line.startswith("stream: ") and "iB/s" in line for line in said[:-1])
    assert said[-1].startswith("stream: 100%, 29 MiB in ")


def pydiskimg(words: list[str], *, until: bytes = b"", number: int | None = None) -> tuple[int, bytes]:
    """Run the command on a terminal, and send it a signal after it has written these bytes."""
    command = [sys.executable, "-m", "pydiskimg", *words]
    return on_terminal(command, columns=60, directory=ROOT, until=until, number=number)


@pytest.mark.parametrize(("number", "status", "word"), [(2, 130, b"interrupted"), (15, 143, b"SIGTERM")])
def test_a_signal_ends_the_line_and_is_told_once(number: int, status: int, word: bytes, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.truncate(1 << 40)
    found, said = pydiskimg(["hash", "-p", str(image)], until=b"left", number=number)
    assert found == status
    assert said.count(b"pydiskimg: ") == 1
    line = said.rpartition(b"pydiskimg: ")
    assert line[0].endswith(b"\r\n")
    assert word in line[2]
    assert b"Traceback" not in said


def test_the_whole_of_a_line_on_a_narrow_terminal(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(64 * MIB))
    status, said = pydiskimg(["dd", "-p", f"if={tmp_path}/disk.raw", f"of={tmp_path}/copy"])
    assert status == 0
    assert said.endswith(b"\r\n")
    assert all(columns_of(line.decode().rstrip()) < 60 for line in said.split(b"\r"))
    assert b"100%, 64 MiB in" in said


@pytest.mark.parametrize("verify", [[], ["--verify"]])
def test_holes_do_not_count(verify: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads half of 100 % when half of the data is copied, wherever that is on the disk."""
    image = tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.write(b"x" * (8 * MIB))
        file.truncate(64 * GIB)
    assert main(["convert", "-p", "-m", "1", *verify, str(image), str(tmp_path / "copy")]) == 0
    percents = [float(text) for text in re.findall(r"\((\d+\.\d+)/100%\)", capsys.readouterr().out)]
    assert percents == sorted(percents)
    pieces = 4 * (2 if verify else 1)  # of 2 MiB
    assert percents == [100 * done / pieces for done in range(pieces + 1)]


def test_of_write_counts_the_passes_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.write(bytes(range(256)) * (8 * MIB // 256))
        file.truncate(64 * MIB)
    (tmp_path / "device").write_bytes(bytes(64 * MIB))
    assert main(["bmap", "-o", f"{image}.bmap", str(image)]) == 0
    assert main(["write", "-p", "-y", str(image), str(tmp_path / "device")]) == 0
    assert "disk.raw: 100%, 24 MiB in" in capsys.readouterr().err  # written, read back, and compared with the map
