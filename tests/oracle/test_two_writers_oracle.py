# SPDX-License-Identifier: MIT
"""Each command that changes an image, while a program of QEMU's or of ours has it open for writing: refused."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.fixtures.both_programs import by_pydiskimg, by_qemu_img
from tests.fixtures.programs import Tool
from tests.fixtures.qcow2_images import qemu_info, run
from tests.fixtures.used_by_qemu import in_qemu
from tests.fixtures.used_by_us import in_pydiskimg

pytestmark = pytest.mark.oracle

# IMAGE is held; what else a command writes is named after it. "base" and "other" are free.
CHANGES = (
    "amend -o lazy_refcounts=on IMAGE",
    "amend -o refcount_bits=64 IMAGE",
    "bitmap --add IMAGE new",
    "bitmap --merge b0 IMAGE b1",
    "check -r leaks IMAGE",
    "check -r all IMAGE",
    "commit IMAGE",
    "commit -d IMAGE",
    "commit overlay",  # into IMAGE
    "convert -n -f raw -O qcow2 raw IMAGE",
    "convert -f raw -O qcow2 raw IMAGE",
    "create -f qcow2 IMAGE 1M",
    "dd -f raw -O qcow2 if=raw of=IMAGE",
    "rebase -b other -F qcow2 IMAGE",
    "rebase -u -b other -F qcow2 IMAGE",
    "resize IMAGE +1M",
    "resize --shrink IMAGE -- -1M",
    "snapshot -c new IMAGE",
    "snapshot -a one IMAGE",
    "snapshot -d one IMAGE",
)
OWN_CHANGES = (
    "copy-in IMAGE raw /",
    "grow IMAGE",
    "mkdir IMAGE /srv",
    "mkfs --force IMAGE",
    "mkswap --force IMAGE",
    "partition create --force IMAGE",
    "rm IMAGE /raw",
    "sparsify IMAGE",
)
READS = (
    "info IMAGE",
    "map IMAGE",
    "check IMAGE",
    "measure -O qcow2 IMAGE",
    "compare IMAGE IMAGE",
    "convert -O raw IMAGE copy",
    "dd -O raw if=IMAGE of=copy",
    "snapshot -l IMAGE",
)
FOLLOW = ("amend", "commit", "compare", "convert", "dd", "map", "measure", "rebase", "resize")
OWN_FOLLOW = ("copy-in", "grow", "mkdir", "rm", "sparsify")


@contextmanager
def by_qemu_nbd(path: Path, tool: Tool) -> Iterator[None]:
    socket = path.with_name("nbd.socket")
    with subprocess.Popen([tool("qemu-nbd"), "-f", "qcow2", "-t", "-k", str(socket), str(path)]) as process:
        try:
            wait_until(socket.exists, process)
            wait_until(lambda: by_qemu_img("info", path).status != 0, process)  # it listens before it has the lock
            yield
        finally:
            process.terminate()


@contextmanager
def by_storage_daemon(path: Path, tool: Tool) -> Iterator[None]:
    socket = path.with_name("daemon.socket")
    command = [tool("qemu-storage-daemon"), "--blockdev", f"driver=file,node-name=file,filename={path}"]
    command += ["--blockdev", "driver=qcow2,node-name=image,file=file"]
    command += ["--nbd-server", f"addr.type=unix,addr.path={socket}"]
    command += ["--export", "type=nbd,id=export,node-name=image,writable=on"]
    with subprocess.Popen(command) as process:
        try:
            wait_until(socket.exists, process)
            yield
        finally:
            process.terminate()


@contextmanager
def by_us(path: Path, tool: Tool) -> Iterator[None]:
    with in_pydiskimg(path):
        yield


@contextmanager
def by_qemu_io(path: Path, tool: Tool) -> Iterator[None]:
    with in_qemu(path, "qcow2"):
        yield


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


Holder = Callable[[Path, Tool], AbstractContextManager[None]]


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image with a backing file, a snapshot and two bitmaps, and an overlay on it."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "other"):
        run("qemu-img", "create", "-q", "-f", "qcow2", name, "2M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "image")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 200k", "image")
    run("qemu-img", "snapshot", "-c", "one", "image")
    for bitmap in ("b0", "b1"):
        run("qemu-img", "bitmap", "--add", "image", bitmap)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "image", "-F", "qcow2", "overlay")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 64k", "overlay")
    Path("raw").write_bytes(b"\3" * (2 << 20))
    return tmp_path / "image"


def words_of(command: str) -> list[str]:
    return [word.replace("IMAGE", "image") for word in command.split()]


def ours(words: list[str]) -> list[str]:
    return [words[0], *(["--allow-references", "."] if words[0] in FOLLOW + OWN_FOLLOW else []), *words[1:]]


def told(name: str) -> tuple[str, str, bytes]:
    """The description of an image, the result of its check, and its disk's contents."""
    run("qemu-img", "convert", "-O", "raw", name, "shown")
    info = qemu_info(Path(name))
    del info["actual-size"]
    return json.dumps(info), run("qemu-img", "check", name).splitlines()[0], Path("shown").read_bytes()


@pytest.mark.parametrize("holder", [by_qemu_io, by_qemu_nbd, by_storage_daemon, by_us])
def test_a_second_writer_is_refused(image: Path, tool: Tool, holder: Holder) -> None:
    before = {name: told(name) for name in ("image", "overlay", "base", "other")}
    with holder(image, tool):
        for command in CHANGES + OWN_CHANGES:
            said = by_pydiskimg(*ours(words_of(command)))
            assert said.status == 1, command
            assert "image" in said.err, command
            assert "in use" in said.err or "locked" in said.err, (command, said.err)
            assert said.err.count("\n") == 1, command
    assert before == {name: told(name) for name in before}  # as bytes it has its holder's marks


@pytest.mark.parametrize("holder", [by_qemu_io, by_us])
def test_reading_takes_no_lock_as_with_force_share(image: Path, tool: Tool, holder: Holder) -> None:
    with holder(image, tool):
        for command in READS:
            name, *words = words_of(command)
            theirs = by_qemu_img(name, "-U", *words)
            for force in ([], ["-U"]):
                said = by_pydiskimg(name, *force, *ours([name, *words])[1:])
                assert (said.status, theirs.status) == (0, 0), (command, said.err, theirs.err)


def test_a_backing_file_of_what_qemu_writes(image: Path, tool: Tool) -> None:
    """QEMU locks all files of the chain."""
    with by_qemu_io(image, tool):
        for words, name in ((["commit", "-b", "base", "overlay"], "image"), (["resize", "base", "+1M"], "base")):
            said = by_pydiskimg(*ours(words))
            assert said.status == by_qemu_img(*words).status == 1
            assert said.err.startswith(f"pydiskimg: {name}: is in use")


def test_qemu_img_is_refused_where_we_write(image: Path, tool: Tool) -> None:
    with by_us(image, tool):
        for command in CHANGES:
            if command.split()[0] not in ("create", "convert", "dd") or "-n" in command:
                assert by_qemu_img(*words_of(command)).status == 1, command
