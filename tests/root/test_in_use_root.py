# SPDX-License-Identifier: MIT
"""Images in use by QEMU, by loop devices or by pydiskimg: which program refuses to open them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pydiskimg.disks.new_file import new_disk_file
from pydiskimg.errors import InUseError
from pydiskimg.host import claims
from pydiskimg.host.claims import is_same_file
from pydiskimg.host.loop import loop_device
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from tests.fixtures.block_devices import block_device, filled_file
from tests.fixtures.limits import limits
from tests.fixtures.qcow2_images import run
from tests.fixtures.used_by_qemu import in_qemu

pytestmark = pytest.mark.root
MIB = 1 << 20


def made(path: Path, form: str) -> Path:
    with new_image(path, 4 * MIB, format=form) as disk:
        disk.write(0, b"guest's data")
    return path


def convert(*words: str | Path, stdin: Path | str = "/dev/null") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pydiskimg", "convert", *words]
    with open(stdin, "rb") as file:
        return subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)


def test_a_file_that_is_replaced_keeps_its_owner(tmp_path: Path) -> None:
    """Or the guest whose image it is could not open it any more."""
    source, target = made(tmp_path / "source", "qcow2"), made(tmp_path / "target", "raw")
    os.chown(target, 4711, 4712)
    target.chmod(0o640)
    assert convert(source, target).returncode == 0
    status = target.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (4711, 4712, 0o640)
    assert target.read_bytes().startswith(b"guest's data")


# Of a raw image a reader like qemu-io bears writers, and QEMU lets them in, too.
@pytest.mark.parametrize(("form", "options"), [("raw", []), ("qcow2", []), ("qcow2", ["-r"])])
def test_an_image_that_qemu_has_open(tmp_path: Path, form: str, options: list[str]) -> None:
    path, source = made(tmp_path / "x.img", form), filled_file(tmp_path / "source", MIB)
    before = path.read_bytes()
    with in_qemu(path, form, *options) as process:
        words = rf"x.img: is in use \(process {process}, qemu-io, has locked it as QEMU does\); nothing was written"
        for opening in (
            lambda: open_disk(path, writable=True),
            lambda: open_disk(path, writable=True, format="qcow2"),
            lambda: new_disk_file(path, MIB).__enter__(),
            lambda: new_image(path, MIB, format="qcow2").__enter__(),
        ):
            with pytest.raises(InUseError, match=words):
                opening()
        for more in ([], ["-n"]):
            done = convert(*more, "-O", form, source, path)
            assert (done.returncode, "has locked it as QEMU does" in done.stderr) == (1, True), done.stderr
        with open_image(path, format=form) as image:
            assert image.size == 4 * MIB
        assert path.read_bytes() == before
    open_disk(path, writable=True).close()


def test_a_device_that_qemu_has_open(tmp_path: Path) -> None:
    with block_device(filled_file(tmp_path / "disk", MIB)) as device:
        with in_qemu(device, "raw"), pytest.raises(InUseError, match="qemu-io, has locked it as QEMU does"):
            open_disk(device, writable=True)
        open_disk(device, writable=True).close()


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_qemu_does_not_open_what_is_written(tmp_path: Path, form: str) -> None:
    path = made(tmp_path / "x.img", form)
    with open_disk(path, writable=True, format=form):  # both are known
        commands = [["qemu-io", "-f", form, "-c", "read 0 512"], ["qemu-img", "resize", "-f", form]]
        if form == "qcow2":
            commands += [["qemu-img", "info"], ["qemu-img", "check"], ["qemu-io", "-r", "-c", "read 0 512"]]
        for command in commands:
            size = ["8M"] if "resize" in command else []
            done = subprocess.run([*command, path, *size], capture_output=True, text=True, check=False)
            assert done.returncode
            assert re.search("Failed to get .*lock", done.stderr), done.stderr
        run("qemu-img", "info", "-U", "-f", form, str(path))
    run("qemu-io", "-f", form, "-c", "write 0 512", str(path))
    with block_device(tmp_path / "x.img") as device, open_disk(device, writable=True):
        command = ["qemu-io", "-f", "raw", "-c", "read 0 512", device]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert re.search("Failed to get .*lock", done.stderr), done.stderr


def test_our_own_loop_devices_over_a_locked_file(tmp_path: Path) -> None:
    path = filled_file(tmp_path / "disk", MIB)
    with open_disk(path, writable=True) as disk:
        with loop_device(disk.fd) as loop, open_disk(loop.path, writable=True) as shown:
            shown.write(0, b"through the loop")
            shown.flush()
        with loop_device(path, offset=4096) as loop, open_disk(loop.path, writable=True):
            pass
    assert path.read_bytes()[:17] == b"through the loop\xff"
    open_disk(path, writable=True).close()


def test_a_loop_device_that_clears_itself_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a process that was killed while it mounted; one without that flag is refused at once."""
    monkeypatch.setattr(claims, "_MOMENT_SECONDS", 300.0)
    path = filled_file(tmp_path / "disk", MIB)
    with ExitStack() as clearing:
        clearing.enter_context(loop_device(path))
        timer = threading.Timer(0.3, clearing.close)
        timer.start()
        open_disk(path, writable=True).close()
        timer.join()
    with block_device(path) as device, pytest.raises(InUseError, match=f"attached to {device}"):
        open_disk(path, writable=True)


def test_a_file_behind_a_loop_device_is_not_replaced(tmp_path: Path) -> None:
    path = filled_file(tmp_path / "disk", MIB)
    with block_device(path) as device:
        with pytest.raises(InUseError, match=rf"in use \(attached to {device}\); nothing was written"):
            new_disk_file(path, 5).__enter__()
        (tmp_path / "moved").hardlink_to(path)
        path.unlink()  # what the kernel calls it is no name any more
        with pytest.raises(InUseError, match=rf"in use \(attached to {device}\); nothing was written"):
            new_disk_file(tmp_path / "moved", 5).__enter__()
    assert (tmp_path / "moved").stat().st_size == MIB


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A file, a loop device over it, one over that, and two that show a half of the file each."""
    path = filled_file(tmp_path / "c.raw", 4 * MIB)
    with (
        block_device(path) as whole,
        block_device(Path(whole)) as nested,
        loop_device(path, length=2 * MIB) as first,
        loop_device(path, offset=2 * MIB) as second,
    ):
        yield {"file": str(path), "whole": whole, "nested": nested, "first": first.path, "second": second.path}


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("file", "whole"),
        ("whole", "file"),
        ("file", "nested"),
        ("nested", "file"),
        ("whole", "nested"),
        ("second", "nested"),
        ("first", "whole"),
        ("file", "second"),
    ],
)
def test_source_and_destination_are_the_same_bytes(loops: dict[str, str], source: str, destination: str) -> None:
    words = "is both source and destination; nothing was written"
    done = convert("-f", "raw", "-n", loops[source], loops[destination])
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    done = convert("-", loops[destination], stdin=loops[source])
    assert (done.returncode, "nothing was written" in done.stderr) == (1, True), done.stderr
    assert words in done.stderr
    assert Path(loops["file"]).read_bytes().count(b"\xff") == 4 * MIB


def test_halves_of_a_file_are_not_the_same_bytes(loops: dict[str, str]) -> None:
    with open(loops["first"], "wb") as file:
        file.write(b"first half")
        file.flush()
        os.fsync(file.fileno())
    done = convert("-f", "raw", "-n", loops["first"], loops["second"])
    assert done.returncode == 0, done.stderr
    with open(loops["second"], "rb") as file:
        assert file.read(10) == b"first half"


def test_a_backing_file_behind_a_loop_device(tmp_path: Path) -> None:
    base = filled_file(tmp_path / "base", MIB)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(tmp_path / "top.qcow2"))
    with block_device(base) as device:
        done = convert("--allow-references", tmp_path, tmp_path / "top.qcow2", device)
    assert (done.returncode, "a backing or data file of" in done.stderr) == (1, True), done.stderr


def test_is_same_file_looks_through_loop_devices(tmp_path: Path) -> None:
    path, other = filled_file(tmp_path / "disk", MIB), filled_file(tmp_path / "other", MIB)
    with block_device(path) as device, open_disk(device) as disk:
        assert is_same_file(str(path), disk.fd)
        assert is_same_file(device, disk.fd)
        assert not is_same_file(str(other), disk.fd)


def test_opening_takes_no_time(tmp_path: Path) -> None:
    path = filled_file(tmp_path / "disk", MIB)
    with limits():  # it looks at every loop device; opening each of them took seconds
        for _ in range(100):
            open_disk(path, writable=True).close()
