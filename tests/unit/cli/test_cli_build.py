# SPDX-License-Identifier: MIT
"""pydiskimg build as people and programs use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pydiskimg.images.open import open_image
from pydiskimg.volumes.tree import open_tree
from tests.fixtures.checkout import ROOT
from tests.fixtures.small_system import system_tarball, system_tree

SAID = b"pydiskimg: ended by SIGTERM; what was being written is not complete\n"
UUID = "11111111-2222-3333-4444-555555555555"


def build(*words: str | Path, stdin: Path | None = None, date: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pydiskimg", "build", *map(str, words)]
    return subprocess.run(
        command if stdin is None else ["sh", "-c", 'cat "$0" | "$@"', str(stdin), *command],
        cwd=ROOT,
        env=os.environ if date is None else {**os.environ, "SOURCE_DATE_EPOCH": date},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(*words: str | Path, status: int = 1, date: str | None = None) -> str:
    """Run a build that has to fail with one sentence, and return it."""
    done = build(*words, date=date)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr.splitlines()[0]


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    return system_tarball(tmp_path / "system.tar.gz", system_tree(tmp_path / "tree"))


def test_a_tarball_becomes_a_qcow2_with_all_that_is_asked_for(tmp_path: Path, tarball: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    partitions = ("--size", "64M", "--boot", "8M", "--swap", "1M", "--table", "gpt")
    naming = ("--hostname", "new.example.org", "--serial-console", "--kernel-args", "quiet")
    done = build(tarball, disk, "-O", "qcow2", *partitions, *naming, "-U", UUID, "--output", "json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert (facts["table"], facts["uuid"], facts["boot-loader"]) == ("gpt", UUID, "grub")
    with open_image(disk) as image, open_tree(disk, partition=4) as tree:
        assert (image.format, image.size) == ("qcow2", 64 << 20)
        assert tree.read("/etc/hostname") == b"new\n"
        assert tree.read("/etc/fstab").decode().count("UUID=") == 3
        assert tree.stat("/etc/sparse.second").st_ino == tree.stat("/etc/sparse").st_ino


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, tarball: Path) -> None:
    contents = []
    for name, source, pipe in (("file", tarball, None), ("pipe", "-", tarball)):
        words = (source, tmp_path / name, "--size", "32M", "--uuid", UUID)
        done = build(*words, stdin=pipe, date="1700000000")
        assert (done.returncode, done.stderr) == (0, "")
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_a_directory_becomes_a_disk_that_says_why_it_does_not_boot(tmp_path: Path) -> None:
    tree = system_tree(tmp_path / "tree")
    (tree / "boot/vmlinuz-6.1.0-9-amd64").unlink()
    done = build(tree, tmp_path / "disk", "--size", "32000k")
    assert done.returncode == 0, done.stderr
    assert "no boot loader is written, and the disk cannot boot by itself: the system has no kernel" in done.stderr
    assert done.stdout.endswith("; no boot loader\n")
    assert (tmp_path / "disk").stat().st_size == 32000 << 10
    with open_tree(tmp_path / "disk") as files:
        assert files.stat("/etc/fstab").st_uid == os.getuid()
        assert files.stat("/etc/sparse").st_blocks < 100
        assert files.stat("/etc/sparse").st_mtime_ns == (tree / "etc/sparse").stat().st_mtime_ns


def test_what_fails_leaves_the_file_that_was_there(tmp_path: Path, tarball: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"kept")
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(tarball.read_bytes()[:-500])
    other = tmp_path / "other.tar"
    system_tarball(other, ROOT / "docs/adr")
    for source, size, words in (
        (damaged, "64M", "the gzip data end early"),
        (other, "64M", f"{other}: has no directory /etc, so it is not the root of a Linux system"),
        (tarball, "5M", "bytes (4 MiB) are for the root file system; expected"),
        (tarball, "1k", "the partitions need at least 2097152 bytes (2 MiB), the disk has 1024 bytes"),
        (tmp_path / "none", "64M", "No such file"),
        (disk, "64M", "not a tar archive"),
    ):
        assert words in refused(source, disk, "--size", size), words
        assert disk.read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("damaged.tar.gz", "disk", "other.tar", "system.tar.gz", "tree")
    ]


def test_an_interrupted_build_leaves_no_file(tmp_path: Path, tarball: Path) -> None:
    """It waits for the rest of the archive meanwhile."""
    command = [sys.executable, "-m", "pydiskimg", "build", "-", str(tmp_path / "disk"), "--size", "64M"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(tarball.read_bytes()[:-500])
        process.stdin.flush()
        wait_for_new_file(process.pid, tmp_path)
        process.terminate()
        said = process.stderr.read()
        assert (process.wait(60), said) == (143, SAID)
    assert not (tmp_path / "disk").exists()


def wait_for_new_file(pid: int, directory: Path) -> None:
    """Wait until a process has a file without a name in the directory."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError):
            links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
            if any(link.startswith(f"{directory}/") and link.endswith(" (deleted)") for link in links):
                return
        time.sleep(0.05)
    raise AssertionError("no new file was opened")


def test_what_is_wrong_usage(tmp_path: Path, tarball: Path) -> None:
    disk, size = tmp_path / "disk", ("--size", "64M")
    for words, said in (
        ((tarball, disk), "--size is missing: a new disk has the size that it is given"),
        ((tarball, "-", *size), "a disk is written at any offset, which a pipe cannot take: name a file"),
        ((tarball, disk, *size, "--hostname", "a b"), "'a b' is not a host name"),
        ((tarball, disk, *size, "--uuid", "1"), "'1' is not a UUID"),
        ((tarball, disk, *size, "--bootloader", "none", "--serial-console"), "leave out --bootloader none"),
        ((tarball, disk, *size, "--kernel-args", "a\nb"), "expected one printable line"),
        ((tarball, disk, *size, "--table", "bsd"), "'bsd' is not one of mbr, gpt"),
    ):
        assert said in refused(*words, status=2)
    assert "SOURCE_DATE_EPOCH is 'today'; expected" in refused(tarball, disk, *size, status=2, date="today")
    assert not disk.exists()


def test_a_boot_that_is_a_symlink_says_what_to_leave_out(tmp_path: Path) -> None:
    tree = system_tree(tmp_path / "tree")
    (tree / "boot").rename(tree / "real")
    (tree / "boot").symlink_to("real")
    (tree / "real/grub").mkdir()
    (tree / "real/grub/grub.cfg").write_text("linux /vmlinuz root=/dev/sda1\n")
    tarball = system_tarball(tmp_path / "system.tar.gz", tree)
    said = refused(tarball, tmp_path / "disk", "--size", "64M", "--boot", "10M")
    assert said.endswith("; leave out --boot")
    done = build(tarball, tmp_path / "disk", "--size", "64M")
    assert done.returncode == 0
    assert done.stderr.startswith("pydiskimg: /boot/grub/grub.cfg: it ")
    assert done.stderr.endswith("; it is kept as grub.cfg.old and replaced\n")
