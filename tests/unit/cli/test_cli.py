# SPDX-License-Identifier: MIT
"""The command line as people and programs use it."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from pydiskimg.fs.probe import probe
from pydiskimg.images.open import open_image
from tests.fixtures.checkout import ROOT
from tests.fixtures.terminals import on_terminal

COMMAND = [sys.executable, "-m", "pydiskimg"]
MIB = 1 << 20


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        umask=0o077,
    )


def fails(*arguments: str | Path, words: str, status: int = 1) -> None:
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert words in done.stderr.splitlines()[0]
    assert done.stdout == ""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "an image"
    with path.open("wb") as file:
        file.write(os.urandom(3 * MIB))
        file.truncate(64 * MIB)
        file.seek(40 * MIB + 5)
        file.write(b"data")
    return path


def test_info(image: Path) -> None:
    facts = json.loads(run("info", "--output", "json", image).stdout)
    assert facts["virtual-size"] == 64 * MIB
    assert facts["format"] == "raw"
    assert facts["filename"] == str(image)
    assert "virtual size: 64 MiB (67108864 bytes)" in run("info", image).stdout


def test_convert_makes_a_sparse_copy_that_keeps_the_mode_of_what_it_replaces(image: Path, tmp_path: Path) -> None:
    target = tmp_path / "a target"
    target.write_bytes(b"old")
    target.chmod(0o640)
    done = run("convert", "-p", "--verify", image, target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("    (0.00/100%)\n")  # carriage returns, which are lines to Python
    assert done.stdout.endswith("    (100.00/100%)\n")
    assert done.stderr == ""
    assert target.read_bytes() == image.read_bytes()
    assert target.stat().st_blocks * 512 < 5 * MIB
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a target", "an image"]


def test_convert_in_place_keeps_the_size(image: Path, tmp_path: Path) -> None:
    target = tmp_path / "disk"
    target.write_bytes(b"\xff" * (65 * MIB))
    inode = target.stat().st_ino
    assert run("convert", "-n", image, target).returncode == 0
    assert target.read_bytes() == image.read_bytes() + b"\xff" * MIB
    assert target.stat().st_ino == inode


def test_a_failed_convert_leaves_the_old_file(image: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    image.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(200))
    fails("convert", image, target, words="an image: ")
    assert target.read_bytes() == b"old"


def test_errors_are_sentences(image: Path, tmp_path: Path) -> None:
    fails("info", tmp_path / "missing", words="No such file or directory")
    fails("info", tmp_path, words="directory")
    fails("convert", image, tmp_path / "no" / "target", words="cannot create: No such file or directory")
    fails("convert", image, tmp_path, words="is not a regular file")
    fails("convert", "-n", image, tmp_path / "missing", words="No such file or directory")
    (tmp_path / "small").write_bytes(b"\xff" * 10)
    fails("convert", "-n", image, tmp_path / "small", words="the disk has 10 bytes; nothing was written")
    fails("mkfs", "--create", "1M", tmp_path / "new", words="8 MiB")
    fails("mkfs", "--create", "many", tmp_path / "new", words="'many' is not a size", status=2)
    fails("mkfs", "-L", "a label that is too long", "--create", "9M", tmp_path / "new", words="at most 16")
    fails("mkswap", "--create", "4k", tmp_path / "new", words="40960")
    fails("convert", "-m", "0", image, "x", words="not a number from 1 to 16")
    fails("nonsense", words="is not a command", status=2)
    assert not (tmp_path / "new").exists()


def test_mkfs_and_mkswap_do_not_overwrite_unasked(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    uuid = "12345678-1234-5678-1234-567812345678"
    done = run("mkfs", "--create", "16M", "-L", "data", "-U", uuid, "--output", "json", disk)
    assert json.loads(done.stdout)["uuid"] == uuid
    with open_image(disk, format="raw") as source:
        found = probe(source)
    assert found is not None
    assert (found.type, found.label, UUID(str(found.uuid))) == ("ext4", "data", UUID(uuid))
    fails("mkswap", disk, words="holds ext4 (label 'data'")
    assert run("mkswap", "--force", disk).returncode == 0
    fails("mkfs", "-t", "ext2", disk, words="holds swap")
    fails("mkfs", "--partition", "1", disk, words="has no partition 1; found: none")
    image = str(tmp_path / "image.qcow2")
    assert run("create", "-q", "-f", "qcow2", image, "16M").returncode == 0
    fails("mkfs", "--partition", "1", image, words="is a qcow2 image; expected a raw disk")


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("pydiskimg 0.")
    assert run("-V").stdout == run("--version").stdout
    for command in ("info", "convert", "mkfs", "mkswap"):
        assert "usage: pydiskimg" in run(command, "--help").stdout


def test_a_bar_on_a_terminal(image: Path, tmp_path: Path) -> None:
    status, seen = on_terminal([*COMMAND, "convert", "-p", image, tmp_path / "x"], columns=80, directory=ROOT)
    assert status == 0
    assert b"an image: 100%, 3 MiB in" in seen


def test_names_do_not_speak_to_the_terminal(tmp_path: Path) -> None:
    done = run("info", tmp_path / "\x1b[31mred\n")
    assert "\x1b" not in done.stderr
    assert "\\x1b[31mred\\n" in done.stderr
    raw = subprocess.run(
        [*COMMAND, "info", os.fsencode(tmp_path) + b"/caf\xe9"],
        cwd=ROOT,
        env={"PATH": "/bin", "LC_ALL": "C"},
        capture_output=True,
        check=False,
    )
    assert (raw.returncode, b"Traceback" in raw.stderr) == (1, False)


def test_a_reader_that_goes_away(image: Path) -> None:
    done = subprocess.run(
        f'"{sys.executable}" -m pydiskimg info --output json "{image}" | true',
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_source_and_destination_must_differ(image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    (tmp_path / "link").symlink_to(image)
    fails("convert", "-n", tmp_path / "link", image, words="is both source and destination; nothing was written")
    assert image.read_bytes() == before


def test_a_full_standard_output(image: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "info", image], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "pydiskimg: standard output: No space left on device\n")


def redirected(redirections: str, *arguments: str | Path) -> tuple[int, str]:
    """Run the command with these redirections of a shell's; returns its exit status and standard error."""
    shell = f'exec "$@" {redirections}'
    command = ["sh", "-c", shell, "sh", *COMMAND, *arguments]
    # Unbuffered, each line would hear of an error that otherwise comes with the last flush.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("redirections", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(image: Path, tmp_path: Path, redirections: str) -> None:
    """They do not become files that a copy writes to."""
    status, said = redirected(redirections, "convert", "-p", image, tmp_path / "out")
    assert status == 0
    assert said == ""
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


@pytest.mark.parametrize(
    ("status", "command"),
    [
        (1, ["info"]),
        (1, ["info", "--output=json"]),
        (1, ["map"]),
        (1, ["map", "--output=json"]),
        (1, ["snapshot", "-l", "--output=json"]),
        (1, ["--version"]),
        (1, ["--help"]),
        (1, ["convert", "--help"]),
        (4, ["compare"]),
    ],
)
def test_a_result_that_nobody_gets_is_no_success(image: Path, status: int, command: list[str]) -> None:
    files = [] if command[-1] in ("--version", "--help") else [image] * (2 if command == ["compare"] else 1)
    lost = "pydiskimg: standard output: is not open, and the result is lost\n"
    assert redirected(">&-", *command, *files) == (status, lost)
    assert redirected(">&- 2>&-", *command, *files) == (status, "")
    assert redirected("</dev/null >/dev/null", *command, *files) == (0, "")
    full = "pydiskimg: standard output: No space left on device\n"
    assert redirected(">/dev/full", *command, *files) == (status, full)


def test_a_lost_message_changes_no_exit_status(image: Path, tmp_path: Path) -> None:
    """Of compare 1 says that the images differ: neither a full log nor a reader that went away may say so."""
    longer = tmp_path / "longer"
    longer.write_bytes(image.read_bytes() + bytes(MIB))
    assert redirected("2>/dev/full", "compare", image, longer)[0] == 0
    assert redirected("2>/dev/full", "compare", image, tmp_path / "missing")[0] == 2
    assert redirected("2>/dev/full", "check", image)[0] == 63
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "compare", image, image], cwd=ROOT, stdout=write, check=False)
    os.close(write)
    assert done.returncode == 4


def test_the_current_directory_may_be_gone(image: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f'cd "$1"; rmdir "$1"; shift; PYTHONPATH="{ROOT}" exec "$@"'
    for words in (["create", "new", "1M"], ["convert", image, "new"], ["mkfs", "--create", "64M", "new"]):
        gone.mkdir(exist_ok=True)
        command = ["sh", "-c", shell, "sh", gone, *COMMAND, *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "pydiskimg: new: cannot create: No such file or directory\n")


def test_a_full_log_does_not_end_a_copy(image: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        subprocess.run([*COMMAND, "convert", "-p", image, tmp_path / "out"], cwd=ROOT, stderr=full, check=True)
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


def test_convert_says_which_options_go_together(image: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    fails("convert", "-c", image, new, words="add -O qcow2")
    fails("convert", "-o", "cluster_size=4k", image, new, words="add -O qcow2")
    fails("convert", "-n", "-O", "qcow2", "-o", "compat=v2", image, new, words="-o is for a new image")
    fails("convert", "-n", image, "-", words="not for a pipe")
    fails("convert", "--verify", image, "-", words="not possible with a pipe")
    fails("convert", "--verify", "-", new, words="not possible with a pipe")
    fails("convert", "-l", "one", "-", new, words="-l is for an image in a file")
    fails("convert", "-O", "qcow2", "-o", "cluster_size=1", image, new, words="cluster_size=1")
    fails("convert", image, image, words="is both source and destination; nothing was written")
    assert not new.exists()


def test_convert_through_pipes(image: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    shell = '"$0" -m pydiskimg convert -c -O qcow2 "$1" - | "$0" -m pydiskimg convert -p -f qcow2 - "$2"'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, image, new], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("100%, 3") == 1  # MiB of data, of 64 MiB
    assert new.read_bytes() == image.read_bytes()
    shell = 'cat "$1" | "$0" -m pydiskimg convert -p - "$2"'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, image, new], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "100%, 64 MiB in" in done.stderr
    assert new.read_bytes() == image.read_bytes()
    assert new.stat().st_blocks * 512 < 5 * MIB


@pytest.mark.parametrize(
    ("redirection", "arguments", "words"),
    [
        (">&-", '"$1" -', "standard output: is not open"),
        ("<&-", '- "$2"', "standard input: is not open"),
        ("</dev/null", '- "$2"', "standard input: is empty; nothing was written"),
        ("", '"$1" /dev/fd/77', "/dev/fd/77: is not open"),
        ("", '"$1" /dev/fd/77777777777', "/dev/fd/77777777777: is not open"),
        ("", '/proc/self/fd/77777777777 "$2"', "/proc/self/fd/77777777777: is not open"),
        ("> /dev/full", '"$1" -', "No space left on device"),
        ('>> "$1"', '"$1" -', "is both source and destination; nothing was written"),
        ("< ", '- "$2"', "name the format (-f)"),
    ],
)
def test_convert_and_descriptors_that_are_not_right(
    image: Path, tmp_path: Path, redirection: str, arguments: str, words: str
) -> None:
    if redirection == "< ":
        redirection = '< "$1"'
        image.write_bytes(b"QFI\xfb" + bytes(1000))
    before = image.read_bytes()
    shell = f'"$0" -m pydiskimg convert {arguments} {redirection}'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, image, tmp_path / "new"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if ">" not in redirection else None,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert image.read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_an_image_is_not_written_to_a_terminal(image: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "convert", image, "-"], cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, done.stderr) == (
        1,
        "pydiskimg: standard output: is a terminal; redirect it to a file or a pipe\n",
    )
