# SPDX-License-Identifier: MIT
"""While a disk is exported no verb writes to it, and while one writes it is not exported; other readers go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.fixtures.block_devices import block_device, filled_file
from tests.fixtures.node import PATH, ROOT, Node, create_environment, last_line, stream_environment
from tests.fixtures.qcow2_images import run
from tests.fixtures.used_by_qemu import in_qemu

pytestmark = pytest.mark.root
MIB = 1 << 20
SIZE = 8 * MIB


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node.make(tmp_path / "node", IMAGE_NAME="x", ARCH="x86_64", IMAGE_TYPE="raw", EXPORT_COMPRESSION="none")
    (made.images / "x-x86_64.raw").write_bytes(bytes(510) + b"\x55\xaa")
    return made


@pytest.fixture(params=["file", "hard link", "device", "another node"])
def names(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two names of one disk."""
    path = filled_file(tmp_path / "disk", SIZE)
    if request.param == "file":
        yield str(path), str(path)
    elif request.param == "hard link":
        (tmp_path / "link").hardlink_to(path)
        yield str(path), str(tmp_path / "link")
    else:
        with block_device(path) as device:
            other = str(tmp_path / "node of it") if request.param == "another node" else device
            if other != device:
                os.mknod(other, 0o600 | 0o060000, os.stat(device).st_rdev)
            yield device, other


@contextmanager
def running(node: Node, verb: str, disk: str) -> Iterator[subprocess.Popen[bytes]]:
    """A verb that has opened the disk and waits for the other end of its pipe."""
    read, write = os.pipe()
    ours, theirs = (read, write) if verb == "export" else (write, read)
    process = subprocess.Popen(
        node.command(verb),
        cwd=ROOT,
        env={"PATH": PATH, **stream_environment(verb, disk)},
        stdin=subprocess.DEVNULL if verb == "export" else theirs,
        stdout=theirs if verb == "export" else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    try:
        if verb == "export":
            assert os.read(read, 4) == b"QFI\xfb", process.communicate()
        else:
            wait_for_locks(process)
        yield process
    finally:
        os.close(ours)
        process.kill()
        process.communicate()


def wait_for_locks(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process that has opened a disk holds its locks."""
    while process.poll() is None:
        for info in Path(f"/proc/{process.pid}/fdinfo").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                if "OFDLCK" in info.read_text():
                    return
        time.sleep(0.01)
    pytest.fail(str(process.communicate()))


def try_to_write(node: Node, verb: str, disk: str) -> tuple[int, str]:
    if verb == "import":
        done = node.restore(disk, node.images / "x-x86_64.raw", OSP_IMPORT_FORMAT="raw")
        return done.returncode, last_line(done)
    more = {"OLD_INSTANCE_NAME": "old.example.org"} if verb == "rename" else {}
    text = node.run(verb, **create_environment(disk, **more))
    return text.returncode, last_line(text)


@pytest.mark.parametrize("verb", ["create", "import", "rename"])
def test_nobody_writes_what_is_exported(node: Node, names: tuple[str, str], verb: str) -> None:
    one, other = names
    with running(node, "export", one) as export:
        status, sentence = try_to_write(node, verb, other)
        assert status == 1
        words = f"{other}: is in use (process {export.pid}, {os.path.basename(sys.executable)[:15]}, is exporting it); "
        assert words + "nothing was written" in sentence
    with open(one, "rb") as file:
        assert file.read(MIB) == b"\xff" * MIB


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_export_that_ended_keeps_nobody_out(node: Node, names: tuple[str, str], number: signal.Signals) -> None:
    one, other = names
    with running(node, "export", one) as export:
        export.send_signal(number)
        export.wait(30)
        status, sentence = try_to_write(node, "create", other)
        assert (status, "is installed on" in sentence) == (0, True), sentence


def test_what_is_written_is_not_exported(node: Node, names: tuple[str, str], tmp_path: Path) -> None:
    one, other = names
    with running(node, "import", one) as writer:
        done = node.export(other, tmp_path / "backup")
        assert done.returncode == 1
        assert f"{other}: is in use (process {writer.pid}, " in last_line(done)
        assert last_line(done).endswith(", is writing to it); nothing was read")
        assert (tmp_path / "backup").read_bytes() == b""
        writer.kill()
        writer.wait()
        assert node.export(other, tmp_path / "backup").returncode == 0


def test_two_exports_side_by_side(node: Node, names: tuple[str, str], tmp_path: Path) -> None:
    one, other = names
    with running(node, "export", one):
        done = node.export(other, tmp_path / "backup")
        assert done.returncode == 0, done.stderr
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(tmp_path / "backup"), one)


@pytest.mark.parametrize("form", ["file", "device"])
def test_a_machine_and_an_export_do_not_hinder_each_other(node: Node, tmp_path: Path, form: str) -> None:
    path = filled_file(tmp_path / "disk", SIZE)
    with block_device(path) as device:
        disk = device if form == "device" else str(path)
        with in_qemu(disk, "raw"):
            done = node.export(disk, tmp_path / "backup")
            assert done.returncode == 0, done.stderr
        with running(node, "export", disk):
            run("qemu-io", "-f", "raw", "-c", "write 0 512", disk)
