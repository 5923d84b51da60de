# SPDX-License-Identifier: MIT
"""guest-file as scripts call it: what it reads and writes, its sentences and its exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ganeti_os.guest import file_command
from ganeti_os.install.scripts import GUEST_FILE
from tests.fixtures.checkout import ROOT


def guest_file(target: Path | None, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": "/usr/bin:/bin", "GUEST_FILE_PYTHON": sys.executable}
    if target is not None:
        environment["TARGET"] = str(target)
    return subprocess.run(
        [GUEST_FILE, *arguments], input=given, capture_output=True, check=False, env=environment, cwd="/", timeout=60
    )


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    (tmp_path / "guest/etc").mkdir(parents=True)
    return tmp_path / "guest"


@pytest.mark.parametrize("contents", [b"inst1\n", b"", bytes(range(256)) * 9000])
def test_what_is_written_is_read(guest: Path, contents: bytes) -> None:
    done = guest_file(guest, "write", "/etc/file", given=contents)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (guest / "etc/file").read_bytes() == contents
    assert (guest / "etc/file").stat().st_mode & 0o7777 == 0o644
    assert guest_file(guest, "read", "/etc/file").stdout == contents


def test_an_old_file_keeps_its_mode_and_a_new_one_gets_the_given(guest: Path) -> None:
    (guest / "etc/old").write_text("")
    (guest / "etc/old").chmod(0o600)
    for name, mode in (("old", 0o600), ("new", 0o440)):
        assert guest_file(guest, "write", "--mode", "0440", f"/etc/{name}", given=b"x").returncode == 0
        assert (guest / "etc" / name).stat().st_mode & 0o7777 == mode


def test_links_lead_where_they_lead_in_the_guest(guest: Path) -> None:
    (guest / "etc/link").symlink_to("/etc/../../etc/target")
    assert guest_file(guest, "write", "/etc/link", given=b"x").returncode == 0
    assert (guest / "etc/target").read_bytes() == b"x"
    assert (guest / "etc/link").is_symlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("read", "/etc/none"), "there is no such file in the guest"),
        (("write", "/none/file"), "there is no such file in the guest"),
        (("read", "/etc"), "it is not a regular file"),
        (("write", "/etc/fifo"), "it is not a regular file"),
        (("read", "/etc/fifo"), "it is not a regular file"),
        (("read", "/etc/outside"), "there is no such file in the guest"),
    ],
)
def test_one_sentence(guest: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    os.mkfifo(guest / "etc/fifo")
    (tmp_path / "secret").write_text("of the node")
    (guest / "etc/outside").symlink_to(tmp_path / "secret")
    done = guest_file(guest, *arguments)
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"guest-file: {arguments[1]} in the guest's tree")
    assert words in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("read /etc/file >&-", "standard output: cannot write /etc/file to it: Bad file descriptor"),
        ("read /etc/file >/dev/full", "standard output: cannot write /etc/file to it: No space left on device"),
        ("write /etc/file <&-", "standard input: cannot be read: Bad file descriptor"),
        ("write /etc/file 0>/dev/null", "standard input: cannot be read: "),
    ],
)
def test_standard_streams_that_cannot_be_used(guest: Path, words: str, said: str) -> None:
    (guest / "etc/file").write_text("old")
    environment = {"TARGET": str(guest), "GUEST_FILE": GUEST_FILE, "GUEST_FILE_PYTHON": sys.executable}
    script = f'"$GUEST_FILE" {words}'
    done = subprocess.run(
        ["sh", "-c", script], env=environment, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"guest-file: {said}")
    assert (guest / "etc/file").read_text() == "old"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("read",),
        ("read", "etc/file"),
        ("write", "--mode", "9", "/x"),
        ("write", "--mode", "77777", "/x"),
        ("rm", "/x"),
    ],
)
def test_usage(guest: Path, arguments: tuple[str, ...]) -> None:
    done = guest_file(guest, *arguments)
    assert done.returncode == 2
    assert b"usage: guest-file" in done.stderr
    assert b"Traceback" not in done.stderr


def test_without_a_target() -> None:
    done = guest_file(None, "read", "/etc/hostname")
    assert done.returncode == 2
    assert b"TARGET is not set" in done.stderr


def test_help_has_the_example(guest: Path) -> None:
    assert b'echo "$INSTANCE_NAME" | "$GUEST_FILE" write /etc/hostname' in guest_file(guest, "--help").stdout


def test_too_much(guest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(file_command, "LIMIT", 10)
    monkeypatch.setenv("TARGET", str(guest))
    (guest / "etc/large").write_bytes(bytes(11))
    with open(guest / "etc/large", encoding="ascii") as given:
        monkeypatch.setattr(sys, "stdin", given)
        assert file_command.main(["write", "/etc/file"]) == 1
    assert "standard input has more than 10 bytes; nothing was written" in capsys.readouterr().err
    assert not (guest / "etc/file").exists()
    assert file_command.main(["read", "/etc/large"]) == 1
    assert "is larger than the 10 bytes" in capsys.readouterr().err


def test_the_example_of_settings_md_changes_nothing_where_there_is_no_such_file(guest: Path) -> None:
    page = (ROOT / "docs/settings.md").read_text()
    begin = page.index('      text=$("$GUEST_FILE" read /etc/default/grub)')
    script = page[begin:].split("\n\n")[0]
    environment = {
        "PATH": "/usr/bin:/bin",
        "TARGET": str(guest),
        "GUEST_FILE": GUEST_FILE,
        "GUEST_FILE_PYTHON": sys.executable,
    }
    (guest / "etc/default").mkdir()
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    assert os.listdir(guest / "etc/default") == []
    (guest / "etc/default/grub").write_text("A=b\\n\nC=quiet splash\n")
    subprocess.run(["sh", "-c", script], env=environment, check=True, timeout=60)
    assert (guest / "etc/default/grub").read_text() == "A=b\\n\nC= splash\n"
