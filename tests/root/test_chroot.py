# SPDX-License-Identifier: MIT
"""In a chroot, where "/" is not a mount point and /proc, /sys or devices may be missing: it works, or a sentence says
what is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fixtures.block_devices import filled_file
from tests.fixtures.chroots import KERNEL, ROOT, in_chroot
from tests.fixtures.debian_system import NAME, DebianSystem
from tests.fixtures.judges import inside, partitions
from tests.fixtures.node import PATH, Node, create_environment, stream_environment

pytestmark = [pytest.mark.root, pytest.mark.oracle]
MIB = 1 << 20
NO_PROC = "/proc: is not mounted; mount it (mount -t proc proc /proc)"
NO_LOOP = "/dev/loop-control: cannot be opened to make a loop device over"


class Done(NamedTuple):
    returncode: int
    stdout: bytes
    stderr: str


Chrooted = Callable[..., Done]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the chroot is made."""
    place = tmp_path / "chroot"
    place.mkdir()
    return place


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """What the chroot has of tmp_path."""
    work = tmp_path / "work"
    work.mkdir()
    return work


@pytest.fixture
def chrooted(place: Path, work: Path) -> Chrooted:
    """Return a function that runs a command in a chroot; a traceback fails the test."""

    def run(
        *command: str | Path, without: str = "", environment: dict[str, str] | None = None, stdin: Path | None = None
    ) -> Done:
        kernel = [directory for directory in KERNEL if directory != without]
        with open(stdin or os.devnull, "rb") as file:
            done = subprocess.run(
                in_chroot(place, *command, kernel=kernel, binds=[work]),
                stdin=file,
                capture_output=True,
                env={"PATH": PATH} | (environment or {}),
                check=False,
            )
        said = done.stderr.decode()
        assert "Traceback" not in said, said
        return Done(done.returncode, done.stdout, said)

    return run


@pytest.fixture
def node(work: Path, debian: DebianSystem) -> Node:
    node = Node.make(work / "node", IMAGE_NAME=NAME, IMAGE_TYPE="qcow2", IMAGE_DIR=str(debian.directory))
    node.add_script("10-name", '#!/bin/sh\necho inst1 >"$TARGET/etc/hostname"\n')
    return node


@pytest.fixture
def disk(work: Path) -> Path:
    """A disk that is a file system with one file in it."""
    (work / "files").mkdir()
    (work / "files/file").write_bytes(os.urandom(300_000))
    disk = filled_file(work / "disk", 30 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", work / "files", disk], check=True)
    return disk


def hostname(disk: Path, tmp_path: Path) -> str:
    with inside(str(disk), partitions(str(disk))[-1], tmp_path) as point:
        return (point / "etc/hostname").read_text()


@pytest.mark.parametrize("without", ["", "/sys"])
@pytest.mark.parametrize("image_type", ["qcow2", "tarball"])
def test_create_and_rename(
    chrooted: Chrooted, node: Node, debian: DebianSystem, tmp_path: Path, work: Path, image_type: str, without: str
) -> None:
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE=image_type, IMAGE_DIR=str(debian.directory))
    disk = filled_file(work / "disk", 500 * MIB)
    done = chrooted(*node.command("create"), without=without, environment=create_environment(disk))
    assert done.returncode == 0, done.stderr
    assert hostname(disk, tmp_path) == "inst1\n"
    names = {"OLD_INSTANCE_NAME": "inst1.example.org", "INSTANCE_NAME": "inst2.example.org"}
    done = chrooted(*node.command("rename"), without=without, environment=create_environment(disk) | names)
    assert done.returncode == 0, done.stderr
    assert hostname(disk, tmp_path) == "inst2\n"


@pytest.mark.parametrize("without", ["", *KERNEL])
def test_export_and_import(chrooted: Chrooted, node: Node, disk: Path, work: Path, without: str) -> None:
    """Neither of them mounts anything."""
    done = chrooted(*node.command("export"), without=without, environment=stream_environment("export", disk))
    assert done.returncode == 0, done.stderr
    backup, target = work / "backup", filled_file(work / "target", 50 * MIB)
    backup.write_bytes(done.stdout)
    node.configure(GROW="yes")
    environment = stream_environment("import", target)
    done = chrooted(*node.command("import"), without=without, environment=environment, stdin=backup)
    assert done.returncode == 0, done.stderr
    subprocess.run(["e2fsck", "-fn", target], check=True, capture_output=True)
    read = subprocess.run(["debugfs", "-R", "cat /file", target], check=True, capture_output=True).stdout
    assert read == (work / "files/file").read_bytes()


@pytest.mark.parametrize(("without", "sentence"), [("/proc", NO_PROC), ("/dev", NO_LOOP)])
@pytest.mark.parametrize("image_type", ["qcow2", "tarball"])
def test_create_says_what_is_missing(
    chrooted: Chrooted, node: Node, debian: DebianSystem, work: Path, image_type: str, without: str, sentence: str
) -> None:
    node.configure(IMAGE_NAME=NAME, IMAGE_TYPE=image_type, IMAGE_DIR=str(debian.directory))
    disk = filled_file(work / "disk", 500 * MIB)
    done = chrooted(*node.command("create"), without=without, environment=create_environment(disk))
    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("without", "sentence"), [("/proc", NO_PROC), ("/dev", NO_LOOP)])
def test_rename_says_what_is_missing(
    chrooted: Chrooted, node: Node, tool: Callable[[str], str], work: Path, without: str, sentence: str
) -> None:
    """For an xfs; an ext4 is renamed without either."""
    disk = filled_file(work / "xfs", 320 * MIB)
    subprocess.run([tool("mkfs.xfs"), "-q", "-f", disk], check=True)
    environment = create_environment(disk, OLD_INSTANCE_NAME="a.example.org")
    done = chrooted(*node.command("rename"), without=without, environment=environment)
    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[-1]


RUN_ALL = """
import json, sys
from pydiskimg.cli import main
for command in json.load(sys.stdin):
    status = main(command)
    assert status == 0, command
"""


@pytest.mark.parametrize("without", ["", *KERNEL])
def test_the_command_line(chrooted: Chrooted, disk: Path, work: Path, without: str) -> None:
    base, new, commands = f"{work}/base.qcow2", f"{work}/new", work / "commands"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, base], check=True)
    said = [
        *(["info", base], ["map", "--output", "json", base], ["check", base], ["snapshot", "-l", base]),
        *(["convert", "-O", "raw", base, new], ["compare", new, base], ["convert", "--verify", "-O", "raw", base, new]),
        ["convert", "-c", "-O", "qcow2", base, f"{work}/new.qcow2"],
        ["create", "-f", "qcow2", "-b", base, "-F", "qcow2", f"{work}/top.qcow2"],
        *(["mkfs", "-t", "ext4", "--create", "64M", f"{work}/fs"], ["mkfs", "--force", "-t", "ext3", f"{work}/fs"]),
        ["mkswap", "--create", "64M", f"{work}/swap"],
    ]
    commands.write_text(json.dumps(said))
    done = chrooted(sys.executable, "-c", RUN_ALL, without=without, stdin=commands)
    assert done.returncode == 0, done.stderr
    for made in (new, f"{work}/new.qcow2"):
        subprocess.run(["qemu-img", "compare", "-q", made, disk], check=True)
    subprocess.run(["e2fsck", "-fn", work / "fs"], check=True, capture_output=True)


@pytest.mark.parametrize("without", ["", *KERNEL])
def test_references(chrooted: Chrooted, disk: Path, work: Path, without: str) -> None:
    top = work / "top.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", top], check=True)
    convert = ("convert", "--allow-references", work, "-O", "raw", top, work / "new")
    done = chrooted(sys.executable, "-m", "pydiskimg", *convert, without=without)
    assert (done.returncode, done.stderr) == ((1, f"pydiskimg: {NO_PROC}\n") if without == "/proc" else (0, ""))


@pytest.mark.parametrize("without", ["", "/proc"])
def test_the_demo(chrooted: Chrooted, debian: DebianSystem, work: Path, without: str) -> None:
    (work / ".demo").mkdir()
    (work / ".demo/images").symlink_to(debian.directory)
    command = ("env", "-C", work, f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.demo")
    done = chrooted(*command, without=without)
    assert done.returncode == (1 if without else 0), done.stderr
    assert (b"Done in" in done.stdout, NO_PROC in done.stderr) == (not without, bool(without))


WAITING = """
import os, sys
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import enter_private_namespace, mounted
os.chdir("/var/tmp")
before = sorted(os.listdir("/"))
enter_private_namespace()
assert (sorted(os.listdir("/")), os.getcwd()) == (before, "/var/tmp")
with loop_device(sys.argv[1]) as device, mounted(device.path, fs_type="ext4") as target:
    print(device.path, flush=True)
    sys.stdin.readline()
assert (sorted(os.listdir("/")), os.getcwd()) == (before, "/var/tmp")
"""


def test_nobody_else_sees_its_mounts(place: Path, work: Path, disk: Path) -> None:
    """The mount that the chroot lies on is shared: what is mounted there would appear in the system's namespace."""
    beside = 'while [ -e "$1/run" ]; do sleep 0.1; done & echo $!; shift; exec "$@"'
    command: list[str | Path] = ["sh", "-c", beside, "sh", work, sys.executable, "-c", WAITING, disk]
    (work / "run").touch()
    with subprocess.Popen(
        in_chroot(place, *command, binds=[work]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        other, device = process.stdout.readline().strip(), process.stdout.readline().strip()
        ours, theirs = (Path(f"/proc/{pid}/mountinfo").read_text() for pid in (process.pid, other))
        (work / "run").unlink()
        process.communicate("\n")
    assert process.returncode == 0
    assert device.startswith("/dev/loop")
    assert (device in ours, device in theirs) == (True, False)
    private = " - tmpfs pydiskimg "  # what our mounts lie in
    assert (private in ours, private in theirs) == (True, False)
